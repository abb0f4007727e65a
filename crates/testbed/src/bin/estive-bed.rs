//! The testbed's own program: holder and first process of an outer namespace, and what measures inside it.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use estive_testbed::{
    DownloadConfig, Error, Kept, LoadConfig, Outer, download, guest_clock, load, outer, ping,
    witness,
};

#[derive(Parser)]
#[command(
    name = "estive-bed",
    about = "Estive's testbed",
    disable_version_flag = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// All but the first three measure from the network namespace they are started in; they print a JSON line for each
/// thing seen and end when standard input closes.
#[derive(Subcommand)]
enum Command {
    /// Run a program inside an outer namespace of its own
    Outer {
        /// Once the program says that it is ready, leave it up and come back
        #[arg(long)]
        keep: bool,
        /// Program and arguments
        #[arg(last = true, required = true)]
        argv: Vec<OsString>,
    },
    /// Run a program in a kept testbed
    Enter {
        /// Network namespace in it (h1, cl, …)
        #[arg(long)]
        namespace: Option<String>,
        /// Program and arguments
        #[arg(last = true, required = true)]
        argv: Vec<OsString>,
    },
    /// Take a kept testbed down
    Down,
    /// Open-loop HTTP load, each request on a new connection
    Load {
        #[arg(long)]
        address: SocketAddr,
        #[arg(long, default_value = "/")]
        path: String,
        /// What the first answer must contain
        #[arg(long, default_value = "")]
        expect: String,
        /// New connections a second
        #[arg(long, default_value_t = 50)]
        rate: u32,
    },
    /// One long download of numbered lines
    Download {
        #[arg(long)]
        address: SocketAddr,
        #[arg(long, default_value = "/big")]
        path: String,
        /// Bytes a second
        #[arg(long, default_value_t = 256 << 10)]
        rate: u64,
    },
    /// An ICMP echo request every 10 ms
    Ping {
        #[arg(long)]
        address: Ipv4Addr,
    },
    /// The offset of a guest's clock
    Clock {
        #[arg(long)]
        address: SocketAddr,
    },
    /// Hear the beats of guests at ports of the switch
    Witness {
        #[arg(long = "port", required = true)]
        ports: Vec<String>,
    },
}

fn main() -> ExitCode {
    outer::enter_if_asked();
    match run(Arguments::parse().command) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            let mut message = format!("estive-bed: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                message.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<i32, Error> {
    match command {
        Command::Outer { keep: false, argv } => Outer::new(argv).run(),
        Command::Outer { keep: true, argv } => {
            Ok(Outer::new(argv).run_to_keep()?.err().unwrap_or(0))
        }
        Command::Enter { namespace, argv } => enter(namespace.as_deref(), &argv),
        Command::Down => match Kept::find()? {
            Some(kept) => kept.down().map(|()| 0),
            None => {
                eprintln!("estive-bed: no testbed is kept up");
                Ok(0)
            }
        },
        Command::Load {
            address,
            path,
            expect,
            rate,
        } => measure(load::run(LoadConfig {
            address,
            path,
            expect,
            rate_per_s: rate,
        })),
        Command::Download {
            address,
            path,
            rate,
        } => measure(download::run(DownloadConfig {
            address,
            path,
            rate_bytes_per_s: rate,
        })),
        Command::Ping { address } => measure(ping::run(address)),
        Command::Clock { address } => measure(guest_clock::run(address)),
        Command::Witness { ports } => measure(witness::run(ports)),
    }
}

fn measure(measuring: impl Future<Output = Result<(), Error>>) -> Result<i32, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            doing: "making a runtime".to_owned(),
            source,
        })?;
    runtime.block_on(measuring).map(|()| 0)
}

/// Becomes the program, in the kept testbed.
fn enter(namespace: Option<&str>, argv: &[OsString]) -> Result<i32, Error> {
    use std::os::unix::process::CommandExt as _;
    let Some(kept) = Kept::find()? else {
        eprintln!("estive-bed: no testbed is kept up");
        return Ok(1);
    };
    let prefix = kept.prefix(namespace);
    let source = std::process::Command::new(&prefix[0])
        .args(&prefix[1..])
        .args(argv)
        .exec();
    Err(Error::System {
        doing: format!("starting {}", prefix.join(" ")),
        source,
    })
}

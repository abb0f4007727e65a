//! The root server: one `qemu-nbd` that hands one sealed root, read-only, to the clones' QEMUs.
//!
//! QEMU's NBD clients reconnect, so this server may be killed and started again under running
//! clones without losing a read.

use std::future::Future;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use crate::ExportError;

/// QEMUs that may hold the export at once: every clone on every host, twice while it moves.
const CLIENTS_AT_ONCE: u32 = 64;

/// How the server greets, TLS or not (NBD protocol, newstyle negotiation).
const NBD_GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";

const READY_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// What qemu-nbd said before it ended is kept up to this size.
const KEPT_OUTPUT_BYTES: u64 = 16 << 10;

#[derive(Debug, Clone)]
pub struct RootServerConfig {
    /// The sealed image.
    pub image: PathBuf,
    pub listen: SocketAddr,
    /// Name of the export, which the clients ask for.
    pub export: String,
    /// Mutual TLS: a directory with `ca-cert.pem`, `server-cert.pem` and `server-key.pem`. QEMU
    /// refuses certificates whose critical key usage lacks key encipherment, also for elliptic
    /// curves.
    /// `None` serves in the clear and is for tests on one machine.
    pub credentials: Option<PathBuf>,
}

/// A `qemu-nbd` that runs as our child. It ends with us, whatever ends us.
#[derive(Debug)]
pub struct RootServer {
    config: RootServerConfig,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    pidfd: OwnedFd,
    ended: watch::Receiver<Option<Ended>>,
}

#[derive(Debug, Clone)]
struct Ended {
    status: String,
    output: String,
}

impl RootServer {
    /// Starts the server and returns once it answers.
    pub async fn start(config: RootServerConfig) -> Result<Self, ExportError> {
        check(&config)?;
        let mut server = Self {
            config,
            running: None,
        };
        server.start_again().await?;
        Ok(server)
    }

    pub fn config(&self) -> &RootServerConfig {
        &self.config
    }

    /// Process id of the running `qemu-nbd`.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Ends the server (SIGTERM, then SIGKILL) and returns once it is gone. Twice does no harm.
    pub async fn stop(&mut self) -> Result<(), ExportError> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        for signal in [Signal::TERM, Signal::KILL] {
            // An error means that it is gone already, which the wait below then sees at once.
            let _ = rustix::process::pidfd_send_signal(&running.pidfd, signal);
            let gone = running.ended.wait_for(Option::is_some);
            if tokio::time::timeout(STOPPED_WITHIN, gone).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// Stops what runs and starts it anew.
    pub async fn restart(&mut self) -> Result<(), ExportError> {
        self.stop().await?;
        self.start_again().await
    }

    /// Waits until the server ends by itself, and says why as an error.
    pub async fn ended(&mut self) -> ExportError {
        let ended = match &mut self.running {
            Some(running) => match running.ended.wait_for(Option::is_some).await {
                Ok(ended) => ended.clone(),
                Err(_) => None,
            },
            None => None,
        };
        self.running = None;
        self.died(ended)
    }

    async fn start_again(&mut self) -> Result<(), ExportError> {
        check_free(self.config.listen)?;
        let mut running = spawn(&self.config).await?;
        let listen = self.config.listen;
        let outcome = tokio::select! {
            answered = tokio::time::timeout(READY_WITHIN, answers(listen)) => answered.is_ok(),
            ended = running.ended.wait_for(Option::is_some) => {
                let ended = ended.map(|ended| ended.clone()).unwrap_or_default();
                return Err(self.died(ended));
            }
        };
        self.running = Some(running);
        if !outcome {
            self.stop().await?;
            return Err(ExportError::ServerSilent {
                image: self.config.image.clone(),
                listen,
                seconds: READY_WITHIN.as_secs(),
            });
        }
        Ok(())
    }

    fn died(&self, ended: Option<Ended>) -> ExportError {
        let ended = ended.unwrap_or_else(|| Ended {
            status: "not running".to_owned(),
            output: String::new(),
        });
        let listen = self.config.listen;
        // Someone took the port between our look and qemu-nbd's bind.
        if ended.output.contains("Address already in use") {
            return ExportError::PortInUse { listen };
        }
        ExportError::ServerDied {
            image: self.config.image.clone(),
            listen,
            status: ended.status,
            output: ended.output,
        }
    }
}

impl Drop for RootServer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            let _ = rustix::process::pidfd_send_signal(&running.pidfd, Signal::KILL);
        }
    }
}

/// Serves until `shutdown`, starting the server again when it dies: what `estive storage` runs.
/// `ready` is called once, when the server answers. Fails if the server cannot be started, or
/// dies five times in a row within ten seconds of its start.
pub async fn serve(
    config: RootServerConfig,
    ready: impl FnOnce(&RootServer),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ExportError> {
    const DEATHS_IN_A_ROW: u32 = 5;
    const STEADY_AFTER: Duration = Duration::from_secs(10);
    let mut server = RootServer::start(config).await?;
    ready(&server);
    tokio::pin!(shutdown);
    let mut deaths = 0;
    loop {
        let started = tokio::time::Instant::now();
        tokio::select! {
            () = &mut shutdown => return server.stop().await,
            error = server.ended() => {
                deaths = if started.elapsed() > STEADY_AFTER { 1 } else { deaths + 1 };
                if deaths >= DEATHS_IN_A_ROW {
                    return Err(error);
                }
                tracing::warn!(%error, "the root server ended; starting it again");
                server.restart().await?;
            }
        }
    }
}

fn check(config: &RootServerConfig) -> Result<(), ExportError> {
    if !config.image.is_file() {
        return Err(ExportError::MissingImage {
            image: config.image.clone(),
        });
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
    if !(1..=128).contains(&config.export.len()) || !config.export.bytes().all(fits) {
        return Err(ExportError::BadExportName {
            name: config.export.clone(),
        });
    }
    if let Some(dir) = &config.credentials {
        for file in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
            if !dir.join(file).is_file() {
                return Err(ExportError::MissingCredential {
                    dir: dir.clone(),
                    file,
                });
            }
        }
    }
    Ok(())
}

fn check_free(listen: SocketAddr) -> Result<(), ExportError> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(ExportError::PortInUse { listen })
        }
        Err(source) => Err(ExportError::CannotListen { listen, source }),
    }
}

fn command(config: &RootServerConfig) -> Command {
    let mut command = Command::new("qemu-nbd");
    if let Some(dir) = &config.credentials {
        // A comma in a QEMU option value is written twice.
        let dir = dir.to_string_lossy().replace(',', ",,");
        command.arg("--object").arg(format!(
            "tls-creds-x509,id=tls0,dir={dir},endpoint=server,verify-peer=yes"
        ));
        command.args(["--tls-creds", "tls0"]);
    }
    command
        .args(["--read-only", "--format", "raw", "--persistent"])
        .arg(format!("--port={}", config.listen.port()))
        .arg(format!("--bind={}", config.listen.ip()))
        .arg(format!("--shared={CLIENTS_AT_ONCE}"))
        .arg(format!("--export-name={}", config.export))
        .arg("--")
        .arg(&config.image)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: prctl(PR_SET_PDEATHSIG) is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(std::io::Error::from)
        });
    }
    command
}

/// Starts the child from a thread that lives as long as the child: the kernel sends the parent's
/// death signal when the *thread* that forked ends, and a runtime's threads come and go.
async fn spawn(config: &RootServerConfig) -> Result<Running, ExportError> {
    let image = config.image.clone();
    let mut command = command(config);
    let (started_tx, started_rx) = oneshot::channel();
    let (ended_tx, ended_rx) = watch::channel(None);
    let keeper = move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = started_tx.send(Err(error));
                return;
            }
        };
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        if pidfd.is_err() {
            let _ = child.kill();
        }
        let _ = started_tx.send(pidfd.map(|fd| (child.id(), fd)).map_err(Into::into));
        let mut output = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            // Past the limit the rest is read and dropped, so that the child never blocks on it.
            let _ = stderr
                .by_ref()
                .take(KEPT_OUTPUT_BYTES)
                .read_to_end(&mut output);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        }
        let status = match child.wait() {
            Ok(status) => status_text(status),
            Err(error) => error.to_string(),
        };
        let output = String::from_utf8_lossy(&output).trim().replace('\n', "; ");
        let _ = ended_tx.send(Some(Ended { status, output }));
    };
    std::thread::Builder::new()
        .name("root-server".to_owned())
        .spawn(keeper)
        .map_err(ExportError::io("starting a thread to serve", &image))?;
    match started_rx.await {
        Ok(Ok((pid, pidfd))) => Ok(Running {
            pid,
            pidfd,
            ended: ended_rx,
        }),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(ExportError::ProgramMissing {
                program: "qemu-nbd",
                package: "qemu-utils",
            })
        }
        Ok(Err(error)) => Err(ExportError::io("running qemu-nbd for", &image)(error)),
        Err(_) => Err(ExportError::io("running qemu-nbd for", &image)(
            std::io::Error::other("its keeper thread ended"),
        )),
    }
}

fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Returns once something there greets as an NBD server does.
async fn answers(listen: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(listen).await {
            let mut greeting = [0; NBD_GREETING.len()];
            if stream.read_exact(&mut greeting).await.is_ok() && &greeting == NBD_GREETING {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! Named network namespaces that stand for machines in tests and in the demo.
//!
//! Programs are started by `nsenter --net`, never by `ip netns exec`: the latter makes a new mount namespace with each
//! call, in which nothing mounted later by others is seen.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::Error;
use crate::ip::Ip;
use crate::names::{MacAddress, NAME_BYTES_MAX, fit};

const DIRECTORY: &str = "/run/netns";

/// One named network namespace. Dropping the value removes nothing: see [`Namespace::remove`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace with `lo` up.
    pub async fn create(name: &str) -> Result<Self, Error> {
        fit("a network namespace", name, 64)?;
        Ip::default().run(&["netns", "add", name]).await?;
        let namespace = Self {
            name: name.to_owned(),
        };
        match namespace.batch(&["link set dev lo up".to_owned()]).await {
            Ok(()) => Ok(namespace),
            Err(error) => {
                let _ = namespace.remove().await;
                Err(error)
            }
        }
    }

    /// A namespace made before, by this process or another.
    pub fn existing(name: &str) -> Result<Self, Error> {
        Ok(Self {
            name: fit("a network namespace", name, 64)?.to_owned(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Removes the name; the namespace goes when its last process ends. One that is not there is no error.
    pub async fn remove(&self) -> Result<(), Error> {
        if !self.path().exists() {
            return Ok(());
        }
        Ip::default()
            .run(&["netns", "delete", &self.name])
            .await
            .map(drop)
    }

    /// The words before a program's own that start it in here (the process is the program's: nsenter executes it).
    #[must_use]
    pub fn prefix(&self) -> [String; 3] {
        [
            "nsenter".to_owned(),
            format!("--net={}", self.path().display()),
            "--".to_owned(),
        ]
    }

    /// A command that runs `program` in here.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let [nsenter, net, end] = self.prefix();
        let mut command = Command::new(nsenter);
        command.arg(net).arg(end).arg(program);
        command
    }

    /// Runs a program in here to its end and gives what it printed; a failed program is an error.
    pub async fn run_in(&self, argv: &[&str]) -> Result<std::process::Output, Error> {
        let shown = format!("{} (in namespace {})", argv.join(" "), self.name);
        let (program, arguments) = argv.split_first().ok_or_else(|| Error::Run {
            command: shown.clone(),
            source: std::io::Error::other("no program was named"),
        })?;
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.map_err(|source| Error::Start {
            program: "nsenter".to_owned(),
            package: "util-linux",
            source,
        })?;
        if output.status.success() {
            return Ok(output);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Refused {
            command: shown,
            status: output.status,
            stderr,
        })
    }

    /// Several `ip` commands in here, without the word `ip`.
    async fn batch(&self, lines: &[String]) -> Result<(), Error> {
        Ip::within(&self.name).batch(lines).await
    }

    /// A bridge with a fixed address, up.
    pub async fn bridge(&self, name: &str, mac: MacAddress) -> Result<(), Error> {
        fit("an interface", name, NAME_BYTES_MAX)?;
        self.batch(&[
            format!("link add name {name} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            format!("link set dev {name} up"),
        ])
        .await
    }

    /// A persistent tap of root's as a port of `bridge`, up.
    pub async fn tap(&self, name: &str, bridge: &str) -> Result<(), Error> {
        fit("an interface", name, NAME_BYTES_MAX)?;
        fit("an interface", bridge, NAME_BYTES_MAX)?;
        self.batch(&[
            format!("tuntap add dev {name} mode tap user root"),
            format!("link set dev {name} master {bridge} up"),
        ])
        .await
    }

    /// Makes `interface` a port of `bridge` and sets it up.
    pub async fn attach(&self, interface: &str, bridge: &str) -> Result<(), Error> {
        fit("an interface", interface, NAME_BYTES_MAX)?;
        fit("an interface", bridge, NAME_BYTES_MAX)?;
        self.batch(&[format!("link set dev {interface} master {bridge} up")])
            .await
    }

    /// Gives `interface` an address and sets it up.
    pub async fn address(
        &self,
        interface: &str,
        address: Ipv4Addr,
        prefix_bits: u8,
    ) -> Result<(), Error> {
        fit("an interface", interface, NAME_BYTES_MAX)?;
        self.batch(&[
            format!("address add {address}/{prefix_bits} brd + dev {interface}"),
            format!("link set dev {interface} up"),
        ])
        .await
    }

    /// A pair of linked interfaces: `interface` in here and `peer_interface` in `peer`, both down.
    pub async fn veth(
        &self,
        interface: &str,
        peer: &Self,
        peer_interface: &str,
    ) -> Result<(), Error> {
        fit("an interface", interface, NAME_BYTES_MAX)?;
        fit("an interface", peer_interface, NAME_BYTES_MAX)?;
        Ip::default()
            .batch(&[format!(
                "link add name {interface} netns {} type veth peer name {peer_interface} netns {}",
                self.name, peer.name
            )])
            .await
    }

    /// Cuts (`false`) or joins (`true`) a link.
    pub async fn set_link(&self, interface: &str, up: bool) -> Result<(), Error> {
        fit("an interface", interface, NAME_BYTES_MAX)?;
        self.batch(&[format!(
            "link set dev {interface} {}",
            if up { "up" } else { "down" }
        )])
        .await
    }
}

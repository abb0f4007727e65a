//! The agent's configuration file.

use crate::AgentError;
use estive_api::wire::{CacheDirectory, is_door};
use estive_hypervisor::{Accel, QemuConfig};
use estive_model::{Capacity, HostName};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The longest path of a unix socket (unix(7)).
const MAX_SOCKET_BYTES: usize = 107;

/// What an agent is told at start. YAML; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The host's name.
    pub name: HostName,
    /// Where manager and other agents reach it; without it only the unix socket is served.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Unix socket for this host's own users.
    pub socket: PathBuf,
    /// Journal, domains, files by digest.
    pub state: PathBuf,
    /// QEMU's sockets. Short: a unix socket's path has at most 107 bytes.
    pub runtime: PathBuf,
    /// Certificate and key of this agent; needed with `listen`.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Directory of this host's cache (`estive cache`), through which roots are read; `cache` in `state` without it.
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// Whether disks of other machines may be read and written in the clear. No domain's description and no storage host
    /// can say so for this host.
    #[serde(default)]
    pub plain_disks: bool,
    /// Directories beneath which ordinary machines may have their image files; none without it.
    #[serde(default)]
    pub images: Vec<PathBuf>,
    /// Bridge that domains are joined to.
    pub bridge: String,
    /// Address on the bridge that domains mount live references and shared directories from: the same on every host,
    /// and nobody else's. Without it, this host runs none that do.
    #[serde(default)]
    pub door: Option<Ipv4Addr>,
    /// What domains may use.
    pub capacity: CapacityConfig,
    /// How guests are executed.
    #[serde(default)]
    pub accel: AccelConfig,
    /// Where streams of moves come in.
    pub migration: MigrationConfig,
    /// Directory of the cgroup that QEMUs are put into.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// The emulator.
    #[serde(default)]
    pub emulator: Option<PathBuf>,
}

/// See [`Capacity`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityConfig {
    /// Cores.
    pub cores: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

/// How guests are executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelConfig {
    /// By emulation.
    #[default]
    Tcg,
    /// By the processor's virtualisation, which must have been proved to work.
    Kvm,
}

/// Where streams of moves come in: one port for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationConfig {
    /// Address of this host.
    pub address: IpAddr,
    /// First port.
    pub first_port: u16,
    /// Last port.
    pub last_port: u16,
    /// Whether streams are encrypted with the agents' credentials.
    pub tls: bool,
}

impl AgentConfig {
    /// Reads and checks the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, AgentError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| AgentError::file("read the configuration", path, source))?;
        Self::parse(&text).map_err(|reason| AgentError::Config {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let config: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| error.without_snippet().to_string())?;
        let migration = &config.migration;
        if migration.first_port == 0 || migration.first_port > migration.last_port {
            return Err("migration: first_port to last_port is an empty range".into());
        }
        if config.credentials.is_none() && (config.listen.is_some() || migration.tls) {
            return Err(
                "credentials are needed for `listen` and for `migration: tls: true`; issue them with \
                 'estive authority issue --role agent'"
                    .into(),
            );
        }
        let socket = config.cache().socket();
        if socket.as_os_str().len() > MAX_SOCKET_BYTES {
            return Err(format!(
                "cache: the path of its socket, {}, has more than {MAX_SOCKET_BYTES} bytes; name a shorter directory",
                socket.display()
            ));
        }
        if let Some(door) = config.door
            && !is_door(door)
        {
            return Err(format!(
                "door: {door} is no address that one interface can have"
            ));
        }
        if let Some(relative) = config.images.iter().find(|path| !path.is_absolute()) {
            return Err(format!(
                "images: {} is not an absolute path",
                relative.display()
            ));
        }
        if config.capacity.memory_mib == 0 || config.capacity.cores == 0 {
            return Err("capacity: a host without memory or cores can hold no domain".into());
        }
        Ok(config)
    }

    /// This host's cache of roots.
    pub fn cache(&self) -> CacheDirectory {
        let named = self.cache.clone();
        CacheDirectory(named.unwrap_or_else(|| self.state.join("cache")))
    }

    /// What it declares.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            cores: self.capacity.cores,
            memory_mib: self.capacity.memory_mib,
        }
    }

    /// How QEMU is used.
    pub fn qemu(&self) -> QemuConfig {
        let mut qemu = QemuConfig::new(&self.runtime);
        if let Some(emulator) = &self.emulator {
            qemu.emulator = emulator.clone();
        }
        qemu.accel = match self.accel {
            AccelConfig::Tcg => Accel::Tcg,
            AccelConfig::Kvm => Accel::Kvm,
        };
        qemu.credentials = self.credentials.clone();
        qemu.cgroup = self.cgroup.clone();
        qemu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "
name: host1
listen: 10.77.0.11:7601
socket: /run/estive/agent.sock
state: /var/lib/estive
runtime: /run/e
credentials: /etc/estive/agent
bridge: br0
capacity: {cores: 2, memory_mib: 2048}
accel: tcg
migration: {address: 10.77.0.11, first_port: 49152, last_port: 49215, tls: true}
";

    #[test]
    fn the_agreed_file_is_read() {
        let config = AgentConfig::parse(EXAMPLE).unwrap();
        assert_eq!(config.capacity().memory_mib, 2048);
        assert_eq!(config.accel, AccelConfig::Tcg);
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_with_its_name() {
        for (from, to, word) in [
            ("bridge: br0", "bridge: br0\nbrigde: br1", "brigde"),
            ("memory_mib: 2048", "memory_mib: 2048, disk: 1", "disk"),
            ("first_port: 49152", "first_port: 50000", "empty range"),
            ("credentials: /etc/estive/agent\n", "", "credentials"),
            ("memory_mib: 2048", "memory_mib: 0", "memory"),
            ("bridge: br0", "bridge: br0\ndoor: 0.0.0.0", "door: 0.0.0.0"),
            ("bridge: br0", "bridge: br0\ndoor: 224.0.0.1", "door: 224"),
            ("name: host1", "name: ../host1", "host name"),
            ("bridge: br0", "bridge: br0\nimages: [srv]", "absolute"),
            (
                "state: /var/lib/estive",
                &format!("state: /{}", "x".repeat(100)),
                "cache",
            ),
        ] {
            let error = AgentConfig::parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}

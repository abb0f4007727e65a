//! The manager's configuration file.

use crate::error::ManagerError;
use estive_api::Endpoint;
use estive_api::domain_xml::{LiveSource, RootSource};
use estive_api::wire::{MAX_ORIGINS, is_door, is_live_name};
use estive_model::{Digest, HostName, NameError, ReferenceName};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

const MAX_FILE_BYTES: u64 = 1 << 20;

/// What `manager.yaml` says; unknown keys are refused. Relative paths are relative to the file's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerConfig {
    /// Where it serves over mutual TLS, `ADDRESS:PORT`. Without it: only the local socket.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Its unix socket, for root and its own user.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Where it keeps its store and the deployments' secrets; made when missing.
    pub state: PathBuf,
    /// Its credentials, as `estive authority issue` wrote them. Needed for every `https://` agent and for `listen`.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// Hosts and the URLs of their agents.
    pub hosts: BTreeMap<HostName, Endpoint>,
    /// What clones are made from, by name; a herd file's `reference:` names one.
    pub references: BTreeMap<String, ReferenceConfig>,
    /// Where the volumes of stateful clones are kept; without it there are none.
    #[serde(default)]
    pub volumes: Option<VolumesConfig>,
    /// How long `up` waits for a clone to answer, in seconds.
    #[serde(default = "default_boot_timeout_s")]
    pub boot_timeout_s: u64,
}

/// A storage host's place for volumes, as hosts and manager reach it: always by mutual TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumesConfig {
    /// Its address.
    pub host: String,
    /// TCP port of its REST.
    pub port: u16,
}

/// One reference: a root and what boots it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    /// Its sealed root.
    #[serde(default)]
    pub root: Option<RootConfig>,
    /// In place of `root`: clones read its root as it is now.
    #[serde(default)]
    pub live: Option<LiveConfig>,
    /// Where clones of a sealed root get the directories that they share; those of a live one come with it.
    #[serde(default)]
    pub shares: Option<LiveConfig>,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM file system with `estive-init`.
    pub initramfs: PathBuf,
    /// Image with the kernel's modules.
    pub modules: PathBuf,
    /// What an initial RAM file system is made from for clones whose root needs more than `initramfs` has. Without it:
    /// from that one, and from the kernel's modules in `modules` or `tree`.
    #[serde(default)]
    pub early: Option<EarlyConfig>,
    /// Its root again, as this machine has it: a directory, or the sealed image. Scripts of template sets run in it;
    /// without it, sets that have scripts are refused.
    #[serde(default)]
    pub tree: Option<PathBuf>,
    /// Template sets of its clones when their herd file names none; empty for a root that only answers ping.
    #[serde(default)]
    pub sets: Vec<String>,
}

/// What an initial RAM file system is made from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyConfig {
    /// `estive-init`.
    pub init: PathBuf,
    /// The directory with `boot` and `lib/modules` of the reference's kernel.
    pub kernel_tree: PathBuf,
}

/// A live root or shared directories, as `estive storage` offers them by the reference's name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveConfig {
    /// URLs of the places that offer it, tried in turn.
    pub origins: Vec<Endpoint>,
    /// Address that clones mount from, on every host: `door` in the agents' configurations.
    pub door: Ipv4Addr,
    /// TCP port there.
    #[serde(default = "default_door_port")]
    pub port: u16,
}

/// Which sealed root, and where hosts get it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootConfig {
    /// Which: by digest, or by the name of a reference.
    pub name: RootName,
    /// URLs of the places that have it, asked in this order: `estive storage`, and hosts whose `estive cache` listens.
    pub origins: Vec<Endpoint>,
}

/// What names a root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RootName {
    /// As `estive seal` prints it, `sha256:` and 64 hex digits: this root and no other.
    Digest(Digest),
    /// As `estive seal --name` called it: the root that its origins give under that name, asked anew at each `up` and
    /// start.
    Reference(ReferenceName),
}

impl TryFrom<String> for RootName {
    type Error = NameError;

    fn try_from(given: String) -> Result<Self, NameError> {
        match given.starts_with("sha256:") {
            true => Digest::new(given).map(Self::Digest),
            false => ReferenceName::new(given).map(Self::Reference),
        }
    }
}

impl RootConfig {
    /// The root of this digest.
    pub(crate) fn source(&self, digest: &Digest) -> RootSource {
        RootSource {
            name: digest.clone(),
            origins: self.origins.clone(),
        }
    }
}

fn check_origins(origins: &[Endpoint]) -> Result<(), String> {
    let is_here = |origin: &&Endpoint| matches!(origin, Endpoint::Unix(_));
    if let Some(origin) = origins.iter().find(is_here) {
        return Err(format!(
            "origins: {origin} is on one host only; write an https:// URL"
        ));
    }
    match origins.len() {
        1..=MAX_ORIGINS => Ok(()),
        count => Err(format!(
            "origins: names {count} places, 1 to {MAX_ORIGINS} are taken"
        )),
    }
}

impl LiveConfig {
    /// As descriptions of clones have it.
    pub(crate) fn source(&self, reference: &str) -> LiveSource {
        LiveSource {
            reference: reference.to_owned(),
            door: SocketAddrV4::new(self.door, self.port),
            origins: self.origins.clone(),
        }
    }
}

impl ReferenceConfig {
    /// Where its clones mount from by their hosts' doors, if they do.
    pub(crate) fn route(&self) -> Option<&LiveConfig> {
        self.live.as_ref().or(self.shares.as_ref())
    }

    fn check(&self, name: &str) -> Result<(), String> {
        match (&self.root, &self.live, &self.shares) {
            (None, None, _) => {
                return Err("it has neither a sealed root, root:, nor a live one, live:".to_owned());
            }
            (Some(_), Some(_), _) => {
                return Err("it has root: and live:; write the one that its clones read".to_owned());
            }
            (_, Some(_), Some(_)) => {
                return Err("shares: of a live root come with it; leave them out".to_owned());
            }
            _ => {}
        }
        if let Some(root) = &self.root {
            check_origins(&root.origins).map_err(|reason| format!("root: {reason}"))?;
        }
        let Some(route) = self.route() else {
            return Ok(());
        };
        let key = if self.live.is_some() {
            "live"
        } else {
            "shares"
        };
        check_origins(&route.origins).map_err(|reason| format!("{key}: {reason}"))?;
        if !is_door(route.door) {
            return Err(format!(
                "{key}: door: {} is no address that one interface can have",
                route.door
            ));
        }
        if route.port == 0 {
            return Err(format!("{key}: port: 0 is no port; 2049 without it"));
        }
        if !is_live_name(name) {
            return Err(format!(
                "{key}: its name has other signs than letters, digits and -"
            ));
        }
        Ok(())
    }
}

/// IANA's of NFS.
fn default_door_port() -> u16 {
    2049
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/estive/manager.sock")
}

fn default_boot_timeout_s() -> u64 {
    300
}

impl ManagerConfig {
    /// Reads the file. Errors name it, and the line where its YAML is wrong.
    pub fn load(path: &Path) -> Result<Self, ManagerError> {
        let read = |source| ManagerError::File {
            doing: "read the configuration",
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_FILE_BYTES {
            return Err(ManagerError::Config {
                path: path.to_owned(),
                reason: format!("it has {length} bytes, the limit is {MAX_FILE_BYTES}"),
            });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, directory).map_err(|reason| ManagerError::Config {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let mut config: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| error.without_snippet().to_string())?;
        if config.hosts.is_empty() {
            return Err("hosts: names no host; write at least one NAME: URL".to_owned());
        }
        let is_named = |reference: &ReferenceConfig| {
            let root = reference.root.as_ref();
            root.is_some_and(|root| matches!(root.name, RootName::Reference(_)))
        };
        let uses_tls = config.listen.is_some()
            || config.references.values().any(is_named)
            || config
                .hosts
                .values()
                .any(|endpoint| matches!(endpoint, Endpoint::Tls { .. }));
        if uses_tls && config.credentials.is_none() {
            return Err(
                "credentials: is missing, and listen:, an https host or a root named by a reference needs it; issue them with \
                        \"estive authority issue --role manager\""
                    .to_owned(),
            );
        }
        for (name, reference) in &config.references {
            reference
                .check(name)
                .map_err(|reason| format!("references: {name}: {reason}"))?;
        }
        let absolute = |path: &mut PathBuf| *path = directory.join(&*path);
        absolute(&mut config.socket);
        absolute(&mut config.state);
        config.credentials.iter_mut().for_each(absolute);
        for reference in config.references.values_mut() {
            absolute(&mut reference.kernel);
            absolute(&mut reference.initramfs);
            if let Some(early) = &mut reference.early {
                absolute(&mut early.init);
                absolute(&mut early.kernel_tree);
            }
            absolute(&mut reference.modules);
            reference.tree.iter_mut().for_each(absolute);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
listen: 10.77.0.2:7600
socket: /run/m.sock
state: state
credentials: /c
hosts: {host1: \"https://10.77.0.11:7601\", host2: \"unix:/run/a.sock\"}
references:
  default:
    root:
      name: sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
      origins: ['https://10.77.0.5:7610']
    kernel: /k
    initramfs: /i
    modules: /m
    tree: root.erofs
    sets: [base-debian, web]
";

    #[test]
    fn the_documented_form_is_read_and_paths_are_made_absolute() {
        let config = ManagerConfig::parse(GOOD, Path::new("/etc/estive")).unwrap();
        assert_eq!(config.state, Path::new("/etc/estive/state"));
        assert_eq!(config.socket, Path::new("/run/m.sock"));
        assert_eq!(config.hosts.len(), 2);
        assert_eq!(config.boot_timeout_s, 300);
        let reference = &config.references["default"];
        assert_eq!(reference.root.as_ref().unwrap().origins.len(), 1);
        assert_eq!(
            reference.tree.as_deref(),
            Some(Path::new("/etc/estive/root.erofs"))
        );
    }

    const LIVE: &str = "
socket: /run/m.sock
state: state
hosts: {host2: \"unix:/run/a.sock\"}
references:
  web-1:
    live: {origins: ['https://10.77.0.5:7610'], door: 10.77.0.9}
    kernel: /k
    initramfs: /i
    modules: /m
";

    #[test]
    fn a_live_reference_has_no_sealed_root() {
        let config = ManagerConfig::parse(LIVE, Path::new("/")).unwrap();
        let route = config.references["web-1"].route().unwrap().source("web-1");
        assert_eq!(route.door, "10.77.0.9:2049".parse().unwrap());
        let sealed = "live: {origins: ['https://10.77.0.5:7610'], door: 10.77.0.9}";
        let root = format!(
            "root: {{name: 'sha256:{}', origins: ['https://a:1']}}",
            "0f".repeat(32)
        );
        for (from, to, wanted) in [
            (sealed, "sets: []", "neither a sealed root"),
            (sealed, &format!("{sealed}\n    {root}"), "root: and live:"),
            (
                sealed,
                &format!("{sealed}\n    {}", sealed.replace("live", "shares")),
                "come with it",
            ),
            ("web-1", "web_1", "letters, digits and -"),
            ("https://10.77.0.5:7610", "unix:/x", "live: origins"),
            ("door: 10.77.0.9", "door: host", "IPv4"),
            ("door: 10.77.0.9", "door: 0.0.0.0", "live: door: 0.0.0.0"),
            (
                "door: 10.77.0.9",
                "door: 10.77.0.9, port: 0",
                "live: port: 0",
            ),
        ] {
            let error =
                ManagerConfig::parse(&LIVE.replacen(from, to, 1), Path::new("/")).unwrap_err();
            assert!(error.contains(wanted), "{to}: {error}");
        }
        let shares = LIVE.replacen(
            sealed,
            &format!("{root}\n    {}", sealed.replace("live", "shares")),
            1,
        );
        let config = ManagerConfig::parse(&shares, Path::new("/")).unwrap();
        assert!(config.references["web-1"].route().is_some());
    }

    #[test]
    fn a_root_is_named_by_its_digest_or_by_its_reference() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        let config = ManagerConfig::parse(&GOOD.replace(&digest, "web-1"), Path::new("/"));
        let root = config.unwrap().references["default"].root.clone();
        assert_eq!(
            root.unwrap().name,
            RootName::Reference(ReferenceName::new("web-1").unwrap())
        );
        let config = ManagerConfig::parse(GOOD, Path::new("/")).unwrap();
        let name = &config.references["default"].root.as_ref().unwrap().name;
        assert_eq!(*name, RootName::Digest(Digest::new(digest).unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, wanted) in [
            ("state: state", "state: state\nstat: x", "stat"),
            ("state: state\n", "", "state"),
            ("https://10.77", "http://10.77", "http://10.77"),
            ("host1:", "-host1:", "-host1"),
            ("credentials: /c\n", "", "issue"),
            ("name: sha256:", "name: md5:", "line 10"),
            ("'https://10.77.0.5:7610'", "", "origins: names 0"),
            (
                "https://10.77.0.5:7610",
                "unix:/run/x",
                "default: root: origins",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = ManagerConfig::parse(&text, Path::new("/")).unwrap_err();
            assert!(error.contains(wanted), "{to}: {error}");
        }
    }
}

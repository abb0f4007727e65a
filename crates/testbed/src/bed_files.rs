//! What a bed's programs read: certificates, configurations, command lines.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use estive_api::wire::CacheDirectory;
use estive_network::namespace::Namespace;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::Error;
use crate::bed::BedConfig;
use crate::part::Recipe;
use crate::topology::{self, Topology};

const AGENT_PORT: u16 = 7601;
/// REST of the storage place, for volumes.
pub(crate) const VOLUMES_PORT: u16 = 7603;
const MANAGER_PORT: u16 = 7600;
pub(crate) const ROOTS_PORT: u16 = 7610;
const CACHE_PORT: u16 = 7611;

pub(crate) fn manager_socket() -> PathBuf {
    PathBuf::from("/run/estive/manager.sock")
}

/// The name that the agent of host `host` has: `host1`, `host2`, …
#[must_use]
pub fn host_name(host: u8) -> String {
    format!("host{host}")
}

/// QEMU's sockets: their paths are limited to 107 bytes.
pub(crate) fn runtime(host_directory: &Path) -> PathBuf {
    host_directory.join("q")
}

pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::system(format!("making {}", path.display())))
}

/// Writes JSON, which is YAML too, so that no value needs quoting by hand.
fn write_configuration(path: &Path, value: &Value) -> Result<(), Error> {
    std::fs::write(path, format!("{value:#}\n"))
        .map_err(Error::system(format!("writing {}", path.display())))
}

/// Where each part of a bed has its files.
pub(crate) struct BedFiles<'a> {
    pub(crate) config: &'a BedConfig,
}

impl BedFiles<'_> {
    fn credentials(&self, name: &str) -> PathBuf {
        self.config.directory.join("credentials").join(name)
    }

    fn recipe(
        &self,
        name: String,
        namespace: &Namespace,
        log: &str,
        arguments: Vec<OsString>,
    ) -> Recipe {
        let mut argv = vec![self.config.estive.clone().into_os_string()];
        argv.extend(arguments);
        Recipe {
            name,
            namespace: namespace.clone(),
            argv,
            log: self.config.directory.join("log").join(log),
        }
    }

    pub(crate) async fn issue(
        &self,
        role: &str,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<(), Error> {
        let mut command = Command::new(&self.config.estive);
        command.args([
            "authority",
            "issue",
            "--role",
            role,
            "--name",
            name,
            "--authority",
        ]);
        command
            .arg(self.config.directory.join("authority"))
            .arg("--out")
            .arg(self.credentials(name));
        for address in addresses {
            command.arg("--address").arg(address.to_string());
        }
        let shown = format!("estive authority issue --role {role} --name {name}");
        run(command, shown).await
    }

    /// Signs the manifests of all references with the bed's own authority.
    pub(crate) async fn sign_roots(&self) -> Result<(), Error> {
        let mut command = Command::new(&self.config.estive);
        command.args(["authority", "sign", "--authority"]);
        command.arg(self.config.directory.join("authority"));
        command.arg("--out").arg(self.signed());
        make_directory(&self.signed())?;
        for reference in self.config.references.values() {
            command.arg(estive_exports::seal::manifest_path(&reference.image));
        }
        run(command, "estive authority sign".to_owned()).await
    }

    fn signed(&self) -> PathBuf {
        self.config.directory.join("roots")
    }

    pub(crate) fn storage(&self, topology: &Topology) -> Recipe {
        let mut directories = vec![self.signed()];
        for reference in self.config.references.values() {
            let directory = reference.image.parent().unwrap_or(Path::new("."));
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
            }
        }
        let mut arguments: Vec<OsString> = vec![
            "storage".into(),
            "--listen".into(),
            format!("{}:{ROOTS_PORT}", topology::STORAGE_ADDRESS).into(),
            "--credentials".into(),
            self.credentials("storage").into_os_string(),
        ];
        for directory in directories {
            arguments.extend(["--directory".into(), directory.into_os_string()]);
        }
        let live = self.config.live.iter().map(|(name, directory)| {
            let text = format!("{name}={}", directory.display());
            ["--live".into(), text.into()]
        });
        arguments.extend(live.flatten());
        let shares = self.config.shares.iter();
        arguments.extend(shares.flat_map(|share| ["--share".into(), share.into()]));
        let state = self.config.directory.join("storage");
        arguments.extend(["--state".into(), state.into_os_string()]);
        let namespace = &topology.storage;
        self.recipe("storage".to_owned(), namespace, "storage.log", arguments)
    }

    /// The directory of a host's cache.
    pub(crate) fn cache_directory(&self, host: u8) -> CacheDirectory {
        let directory = self.config.directory.join(host_name(host));
        CacheDirectory(directory.join("cache"))
    }

    pub(crate) fn cache(&self, topology: &Topology, host: u8) -> Recipe {
        let name = host_name(host);
        let address = topology::host_address(host);
        let arguments = vec![
            "cache".into(),
            "--directory".into(),
            self.cache_directory(host).0.into_os_string(),
            "--credentials".into(),
            self.credentials(&name).into_os_string(),
            "--listen".into(),
            format!("{address}:{CACHE_PORT}").into(),
        ];
        self.recipe(
            format!("cache of {name}"),
            &topology.hosts[usize::from(host - 1)],
            &format!("{name}-cache.log"),
            arguments,
        )
    }

    pub(crate) fn volumes(&self, topology: &Topology, directory: &Path) -> Recipe {
        let listen = format!("{}:{VOLUMES_PORT}", topology::STORAGE_ADDRESS);
        let arguments = vec![
            "storage".into(),
            "--volumes".into(),
            directory.as_os_str().to_owned(),
            "--volumes-listen".into(),
            listen.into(),
            "--credentials".into(),
            self.credentials("storage").into_os_string(),
        ];
        self.recipe(
            "volumes".to_owned(),
            &topology.storage,
            "volumes.log",
            arguments,
        )
    }

    /// Where hosts get roots: the storage place, then each other.
    fn origins(&self) -> Vec<String> {
        let hosts = (1..=self.config.hosts.min(8))
            .map(|host| format!("https://{}:{CACHE_PORT}", topology::host_address(host)));
        let storage = format!("https://{}:{ROOTS_PORT}", topology::STORAGE_ADDRESS);
        std::iter::once(storage).chain(hosts).collect()
    }

    pub(crate) fn agent(&self, topology: &Topology, host: u8) -> Result<Recipe, Error> {
        let name = host_name(host);
        let directory = self.config.directory.join(&name);
        make_directory(&directory.join("state"))?;
        make_directory(&runtime(&directory))?;
        let address = topology::host_address(host);
        let file = directory.join("agent.yaml");
        let configuration = json!({
            "name": name,
            "listen": format!("{address}:{AGENT_PORT}"),
            "socket": directory.join("agent.sock"),
            "state": directory.join("state"),
            "runtime": runtime(&directory),
            "credentials": self.credentials(&name),
            "cache": self.cache_directory(host).0,
            "bridge": topology::HOST_BRIDGE,
            "door": topology::DOOR_ADDRESS,
            "capacity": self.config.capacity,
            "accel": self.config.accel,
            "migration": {
                "address": address,
                "first_port": 49152,
                "last_port": 49215,
                "tls": self.config.migration_tls,
            },
        });
        write_configuration(&file, &configuration)?;
        let arguments = vec!["agent".into(), "--config".into(), file.into_os_string()];
        let namespace = &topology.hosts[usize::from(host - 1)];
        Ok(self.recipe(
            format!("agent of {name}"),
            namespace,
            &format!("{name}.log"),
            arguments,
        ))
    }

    pub(crate) fn manager(&self, topology: &Topology) -> Result<Recipe, Error> {
        let directory = self.config.directory.join("manager");
        let hosts: serde_json::Map<String, Value> = (1..=self.config.hosts)
            .map(|host| {
                (
                    host_name(host),
                    format!("https://{}:{AGENT_PORT}", topology::host_address(host)).into(),
                )
            })
            .collect();
        let references: serde_json::Map<String, Value> = self
            .config
            .references
            .iter()
            .map(|(name, reference)| {
                let hex = reference.image.file_stem().unwrap_or_default();
                let named = self.config.root_names.get(name).cloned();
                let digest = || format!("sha256:{}", hex.to_string_lossy());
                let root = json!({
                    "name": named.unwrap_or_else(digest),
                    "origins": self.origins(),
                });
                let route = json!({
                    "origins": [format!("https://{}:{ROOTS_PORT}", topology::STORAGE_ADDRESS)],
                    "door": topology::DOOR_ADDRESS,
                });
                let is_live = self.config.live.contains_key(name);
                let prefix = format!("{name}:");
                let shares = self.config.shares.iter();
                let shares = shares.into_iter().any(|share| share.starts_with(&prefix));
                let early = reference.early.as_ref();
                let early = early
                    .map(|(init, kernel_tree)| json!({"init": init, "kernel_tree": kernel_tree}));
                let value = json!({
                    "early": early,
                    "root": (!is_live).then_some(root),
                    "live": is_live.then(|| route.clone()),
                    "shares": (shares && !is_live).then_some(route),
                    "kernel": reference.kernel,
                    "initramfs": reference.initramfs,
                    "modules": reference.modules,
                    "tree": reference.image,
                    "sets": reference.sets,
                });
                (name.clone(), value)
            })
            .collect();
        let volumes = self.config.volumes.as_ref();
        let volumes =
            volumes.map(|_| json!({"host": topology::STORAGE_ADDRESS, "port": VOLUMES_PORT}));
        let configuration = json!({
            "volumes": volumes,
            "listen": format!("{}:{MANAGER_PORT}", topology::MANAGER_ADDRESS),
            "socket": manager_socket(),
            "state": directory.join("state"),
            "credentials": self.credentials("manager"),
            "hosts": hosts,
            "references": references,
            "boot_timeout_s": self.config.boot_timeout_s,
        });
        let file = directory.join("manager.yaml");
        write_configuration(&file, &configuration)?;
        let arguments = vec!["manager".into(), "--config".into(), file.into_os_string()];
        Ok(self.recipe(
            "manager".to_owned(),
            &topology.manager,
            "manager.log",
            arguments,
        ))
    }
}

async fn run(mut command: Command, shown: String) -> Result<(), Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(Error::system(format!("running '{shown}'")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: shown,
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

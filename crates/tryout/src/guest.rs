//! The clone while it runs.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use estive_boot::Identity;
use estive_boot::identity::Seed;
use estive_hypervisor::{Accel, Hypervisor, InstanceHappening, QemuConfig, QemuHypervisor};
use estive_layers::{ClonePlan, HerdPlan, domain_uuid};
use estive_model::{BlockSource, Checksummed, DomainName, DomainSpec, Interface, LAYER_DISK_BYTES};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;

use crate::error::TryoutError;
use crate::network;
use crate::parts::Parts;

/// What is to be booted.
#[derive(Debug)]
pub struct Trial<'a> {
    pub herd: &'a HerdPlan,
    pub clone: &'a ClonePlan,
    /// Its layer's archive.
    pub layer: &'a [u8],
    pub parts: &'a Parts,
    pub accel: Accel,
    /// Ports of 127.0.0.1, each with the clone's.
    pub forwards: Vec<(u16, u16)>,
    /// A private directory, short: the paths of sockets in it are limited.
    pub directory: &'a Path,
}

/// A clone that runs, or is about to. To be ended by [`Guest::end`]: QEMU outlives whoever started it.
pub struct Guest {
    hypervisor: QemuHypervisor,
    clone: DomainName,
    events: tokio::sync::broadcast::Receiver<estive_hypervisor::InstanceEvent>,
    console: Option<UnixStream>,
}

/// How a clone ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    PoweredOff,
    Panicked,
    /// QEMU itself ended.
    Gone,
}

impl Guest {
    /// Boots the clone; its console is connected before its first word. Leaves nothing running when it fails.
    pub async fn start(trial: Trial<'_>) -> Result<Self, TryoutError> {
        let mut config = QemuConfig::new(trial.directory.join("run"));
        config.accel = trial.accel;
        config.user_network = Some(network::of(
            trial.herd,
            trial.clone,
            trial.forwards.clone(),
        )?);
        let spec = spec(&trial)?;
        let hypervisor = QemuHypervisor::new(config).await?;
        let mut guest = Self {
            events: hypervisor.events(),
            clone: trial.clone.name.clone(),
            console: None,
            hypervisor,
        };
        guest.hypervisor.create(&spec.into()).await?;
        match guest.begin().await {
            Ok(()) => Ok(guest),
            Err(error) => {
                guest.end().await?;
                Err(error)
            }
        }
    }

    async fn begin(&mut self) -> Result<(), TryoutError> {
        let socket = self.hypervisor.channels(&self.clone).console;
        let connected = UnixStream::connect(&socket).await;
        self.console = Some(connected.map_err(TryoutError::io("connecting to", socket))?);
        Ok(self.hypervisor.resume(&self.clone).await?)
    }

    /// `QEMU 10.0.2, tcg`
    pub fn describe(&self) -> String {
        self.hypervisor.describe()
    }

    /// The serial console, once.
    pub fn console(&mut self) -> Option<UnixStream> {
        self.console.take()
    }

    /// Waits until the clone ends by itself.
    pub async fn ended(&mut self) -> End {
        loop {
            match self.events.recv().await {
                Ok(event) => match event.what {
                    InstanceHappening::GuestPoweredOff => return End::PoweredOff,
                    InstanceHappening::GuestPanicked => return End::Panicked,
                    InstanceHappening::Gone => return End::Gone,
                    _ => {}
                },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return End::Gone,
            }
        }
    }

    /// Ends it at once, whatever it does; nothing of it runs afterwards.
    pub async fn end(self) -> Result<(), TryoutError> {
        Ok(self.hypervisor.kill(&self.clone).await?)
    }
}

fn spec(trial: &Trial<'_>) -> Result<DomainSpec, TryoutError> {
    let clone = trial.clone;
    let identity_error = |source| TryoutError::Identity {
        clone: clone.name.to_string(),
        source,
    };
    let mut seed = [0; 64];
    StdRng::from_os_rng().fill_bytes(&mut seed);
    let identity = Identity {
        version: 1,
        name: clone.name.to_string(),
        hostname: clone.name.to_string(),
        mac: clone.mac.parse().map_err(identity_error)?,
        address: clone
            .address_with_prefix()
            .parse()
            .map_err(identity_error)?,
        gateway: clone.gateway,
        seed: Seed(seed),
    };
    let file = |path: &Path| Checksummed {
        path: path.to_owned(),
        digest: None,
    };
    Ok(DomainSpec {
        name: clone.name.clone(),
        uuid: domain_uuid(&trial.herd.deployment, &clone.name),
        memory_mib: clone.memory_mib,
        cpus: clone.cpus,
        kernel: file(&trial.parts.kernel),
        initramfs: file(&trial.parts.initramfs),
        command_line: estive_boot::command_line(
            clone.init.as_deref(),
            clone.kernel_words().iter().map(String::as_str),
        )
        .map_err(identity_error)?,
        layer: layer_disk(trial)?,
        root: BlockSource::File(trial.parts.root.clone()),
        modules: BlockSource::File(trial.parts.modules.clone()),
        volume: None,
        interface: Some(Interface {
            mac: clone.mac.clone(),
            // Neither is looked at with a network of QEMU's own.
            bridge: String::new(),
            tap: String::new(),
        }),
        identity: Some(identity.to_json().map_err(identity_error)?),
    })
}

/// The archive on a disk of the size that every clone's has.
fn layer_disk(trial: &Trial<'_>) -> Result<PathBuf, TryoutError> {
    if trial.layer.len() as u64 > LAYER_DISK_BYTES {
        return Err(TryoutError::LayerTooLarge {
            clone: trial.clone.name.to_string(),
            size_bytes: trial.layer.len(),
            limit_bytes: LAYER_DISK_BYTES,
        });
    }
    let path = trial.directory.join("layer");
    let write = || -> std::io::Result<()> {
        // It holds host keys.
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(trial.layer)?;
        file.set_len(LAYER_DISK_BYTES)
    };
    write().map_err(TryoutError::io("writing", &path))?;
    Ok(path)
}

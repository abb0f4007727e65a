//! `boot`: from asking the host daemon for a start to `/sbin/init` in the clone. The peer: the same QEMU, kernel and
//! memory with the smallest initramfs that mounts a local ext4 virtio disk and executes init there.
//!
//! Both `/sbin/init`s are static programs that say so on the console at once; that line's arrival ends the time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use estive_api::wire::{DomainReport, StatusOrder};
use estive_api::{Client, Endpoint};
use estive_archive::{Kind, Member, Writer};
use estive_boot::KernelTree;
use estive_model::DomainState;
use serde_json::{Value, json};

use super::bare::{Bare, appears, problem};
use super::{BenchConfig, compared};
use crate::Error;
use crate::bed::{Bed, host_name};
use crate::instant::now_us;

const MEMORY_MIB: u64 = 256;
const HERD: &str = "name: bench\nnetwork: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 256\n\
    sets: []\nup: [ping]\nreference: bare\ngroups:\n  all:\n    hosts:\n      clone01:\n        host: host1\n";

pub(super) async fn measure(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(9);
    let directory = &bed.config().directory;
    let herd = directory.join("bench-herd");
    let doing = || Error::system(format!("writing {}", herd.display()));
    std::fs::create_dir_all(&herd).map_err(doing())?;
    std::fs::write(herd.join("herd.yaml"), HERD).map_err(doing())?;
    bed.estive_json(&["up", &herd.display().to_string(), "--name", "bench"])
        .await?;
    let client = Client::new(Endpoint::Unix(bed.agent_socket(1)), None)
        .map_err(|error| problem(&error.to_string()))?;
    let console = directory.join(host_name(1)).join("q/clone01/console.log");
    let peer_parts = PeerParts::make(config, directory)?;

    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for number in 0..runs {
        order(&client, DomainState::Stopped).await?;
        let _ = std::fs::remove_file(&console);
        let before_us = now_us();
        order(&client, DomainState::Running).await?;
        appears(&console, "estive-bare: init").await?;
        let ours_ms = since_ms(before_us);
        order(&client, DomainState::Stopped).await?;
        let peer_ms = peer_parts.boot(bed, number).await?;
        println!("run {number:>2}: ours {ours_ms:.0} ms, bare {peer_ms:.0} ms");
        ours.push(ours_ms);
        peer.push(peer_ms);
    }
    Ok(compared(
        "boot",
        &ours,
        &peer,
        json!({ "goal": 1.3, "memory_mib": MEMORY_MIB, "warm_ratio": Value::Null }),
    ))
}

/// The agent is driven alone, as a host daemon.
async fn order(client: &Client, state: DomainState) -> Result<(), Error> {
    let order = StatusOrder {
        state,
        generation: None,
        grace_ms: 0,
    };
    client
        .put_json::<DomainReport>("/domain/clone01/status", &order, Duration::from_secs(60))
        .await
        .map(drop)
        .map_err(|error| problem(&error.to_string()))
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of one boot")]
fn since_ms(before_us: u64) -> f64 {
    now_us().saturating_sub(before_us) as f64 / 1000.0
}

/// A root made by hand with `estive-bare` as `/sbin/init`: what clones of the reference `bare` boot from.
pub fn bare_root(programs: &Path, root: &Path) -> Result<(), Error> {
    for folder in ["sbin", "dev", "proc", "sys", "tmp", "run"] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder)
            .map_err(Error::system(format!("making {}", folder.display())))?;
    }
    let from = programs.join("estive-bare");
    std::fs::copy(&from, root.join("sbin/init"))
        .map(drop)
        .map_err(Error::system(format!("copying {}", from.display())))
}

/// What the peer boots: kernel, its own initramfs, an ext4 disk.
struct PeerParts {
    kernel: PathBuf,
    initramfs: PathBuf,
    disk: PathBuf,
    directory: PathBuf,
    accel: String,
}

impl PeerParts {
    fn make(config: &BenchConfig, directory: &Path) -> Result<Self, Error> {
        let words = |error: &dyn std::error::Error| problem(&crate::error_chain(error));
        let tree = KernelTree::find(&config.kernel_tree).map_err(|error| words(&error))?;
        let modules = tree.modules_dep().map_err(|error| words(&error))?;
        let closure = modules
            .closure(
                &["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"],
                &["crc32c_generic"],
            )
            .map_err(|error| words(&error))?;
        let init = std::fs::read(config.programs.join("estive-bare"))
            .map_err(Error::system("reading estive-bare"))?;
        let archive = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
            let mut writer = Writer::new(Vec::new());
            for folder in ["dev", "modules"] {
                writer.add(&Member::directory(folder, 0o755))?;
            }
            let console = Kind::CharacterDevice { major: 5, minor: 1 };
            writer.add(&Member::new("dev/console", 0o600, console))?;
            writer.add(&Member::file("init", 0o755, &init))?;
            let order: String = closure.iter().map(|name| format!("{name}\n")).collect();
            writer.add(&Member::file("modules/order", 0o644, order.as_bytes()))?;
            for name in &closure {
                let file = modules.file(name).unwrap_or(name);
                writer.add(&Member::file(
                    &format!("modules/{name}.ko"),
                    0o644,
                    &tree.module(file)?,
                ))?;
            }
            Ok(writer.finish()?)
        };
        let archive = archive().map_err(|error| problem(&error.to_string()))?;
        let own = directory.join("peer");
        let doing = || Error::system(format!("making {}", own.display()));
        let (root, disk, initramfs) = (own.join("root"), own.join("disk"), own.join("initramfs"));
        std::fs::create_dir_all(&root).map_err(doing())?;
        bare_root(&config.programs, &root)?;
        std::fs::write(&initramfs, archive).map_err(doing())?;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([&root, &disk])
            .arg("64M")
            .output()
            .map_err(Error::system("running mkfs.ext4 (package e2fsprogs)"))?;
        if !made.status.success() {
            return Err(problem(&String::from_utf8_lossy(&made.stderr)));
        }
        Ok(Self {
            kernel: tree.vmlinuz,
            initramfs,
            disk,
            directory: own,
            accel: config.bed.accel.clone(),
        })
    }

    /// From starting QEMU to the line of `/sbin/init`.
    async fn boot(&self, bed: &Bed, number: u32) -> Result<f64, Error> {
        let console = self.directory.join(format!("console{number}"));
        let argv = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "pc-q35-7.2,hpet=off,usb=off,sata=off,smbus=off",
            "-cpu",
            "max",
            "-accel",
            &self.accel,
            "-m",
            &format!("{MEMORY_MIB}M"),
            "-bios",
            "qboot.rom",
            "-kernel",
            &self.kernel.display().to_string(),
            "-initrd",
            &self.initramfs.display().to_string(),
            "-append",
            "console=ttyS0 quiet",
            "-drive",
            &format!(
                "if=virtio,format=raw,readonly=on,file={}",
                self.disk.display()
            ),
            "-serial",
            &format!("file:{}", console.display()),
        ]
        .map(str::to_owned);
        let before_us = now_us();
        let peer = Bare::start(&argv, &bed.topology().hosts[0], &self.directory)?;
        appears(&console, "estive-bare: init").await?;
        let took_ms = since_ms(before_us);
        peer.end().await;
        Ok(took_ms)
    }
}

//! `estive try`: one clone of a herd, booted here on the console, with no agent and no manager.

use crate::failure::{Failure, failed};
use crate::local::{Local, LocalLayer};
use crate::terminal;
use clap::{Args, ValueEnum};
use estive_boot::Root;
use estive_hypervisor::{Accel, KvmVerdict};
use estive_model::DomainName;
use estive_tryout::{End, Guest, Parts, PartsOptions, Prepared, Trial, TryoutError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SSH: u16 = 22;
const LAST_WORDS: Duration = Duration::from_millis(200);
const EMULATOR: &str = "qemu-system-x86_64";

#[derive(Debug, Args)]
pub struct Try {
    /// The clone, by its name in the herd file.
    clone: DomainName,
    #[command(flatten)]
    local: Local,
    /// The root that it shares: a directory, which is sealed first (/ for this system), or a sealed image. Without
    /// it, the one that ./x setup has made.
    #[arg(long, value_name = "DIR|IMAGE")]
    root: Option<PathBuf>,
    /// The kernel: a file, or a directory with boot/ and lib/modules/. Without it, the root's own, else the one of
    /// ./x setup.
    #[arg(long, value_name = "FILE|DIR")]
    kernel: Option<PathBuf>,
    /// The initial RAM file system; made when it is not given.
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,
    /// The image of the kernel's modules; made when it is not given.
    #[arg(long, value_name = "IMAGE")]
    modules: Option<PathBuf>,
    /// estive-init, for the initial RAM file system. Without it, the one beside this program.
    #[arg(long, env = "ESTIVE_INIT", value_name = "FILE")]
    init: Option<PathBuf>,
    /// How the guest is executed. Without it, by KVM if that is proved to work here.
    #[arg(long, value_enum)]
    accel: Option<AccelChoice>,
    /// The port of 127.0.0.1 that leads to the clone's SSH server; a free one when it is not given.
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// One more port of 127.0.0.1 and the clone's that it leads to.
    #[arg(long, value_name = "HERE:THERE", value_parser = forward)]
    forward: Vec<(u16, u16)>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AccelChoice {
    Kvm,
    Tcg,
}

impl Try {
    pub async fn run(self) -> Result<u8, Failure> {
        use tokio::signal::unix::SignalKind;
        let told_to_end = super::shutdown_at(&[
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ])?;
        let home = tempfile::Builder::new()
            .prefix("estive-try-")
            .tempdir()
            .map_err(failed)?;
        let ended = tokio::select! {
            ready = self.prepare(home.path().to_owned()) => match ready {
                Ok(ready) => self.boot(&ready, home.path(), &told_to_end).await,
                Err(failure) => Err(failure),
            },
            () = told_to_end.cancelled() => Ok(()),
        };
        let removed = home.close().map_err(failed);
        ended.and(removed).map(|()| 0)
    }

    /// Everything up to the boot, on a thread of its own: sealing takes seconds.
    async fn prepare(&self, directory: PathBuf) -> Result<Ready, Failure> {
        let (clone, local) = (self.clone.clone(), self.local.clone());
        let mut options = PartsOptions {
            root: self.root.clone(),
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            modules: self.modules.clone(),
            init: self.init.clone().or_else(init_beside_us),
            line: None,
        };
        let accel = self.accel;
        let work = move || {
            let cache = cache();
            let prepared = cache.as_deref().and_then(Prepared::load);
            let of_setup = prepared.as_ref().map(Prepared::reference_root);
            let layer = local.layer(&clone, options.root.as_deref().or(of_setup))?;
            let line = layer.clone()?.root.as_deref().map(Root::parse);
            options.line = line.transpose().map_err(failed)?;
            let parts = Parts::find(&options, prepared.as_ref(), &directory).map_err(|error| {
                let failure = failed(&error);
                match error {
                    TryoutError::Parts(_) => failure.advice(
                        "give --kernel a directory with boot/ and lib/modules/, or run ./x setup, which makes one",
                    ),
                    _ => failure,
                }
            })?;
            let accel = match accel {
                Some(AccelChoice::Kvm) => Accel::Kvm,
                Some(AccelChoice::Tcg) => Accel::Tcg,
                None => {
                    let place = match (&prepared, cache) {
                        (Some(_), Some(cache)) => cache.join("acceleration.json"),
                        _ => local.state()?.path().join("acceleration.json"),
                    };
                    proved(&place, &parts.kernel)?
                }
            };
            Ok(Ready {
                layer,
                parts,
                accel,
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }

    async fn boot(
        &self,
        ready: &Ready,
        directory: &Path,
        told_to_end: &CancellationToken,
    ) -> Result<(), Failure> {
        let ssh_port = match self.ssh_port {
            Some(port) => port,
            None => free_port().map_err(failed)?,
        };
        let mut forwards = vec![(ssh_port, SSH)];
        forwards.extend(&self.forward);
        let name = &self.clone;
        let mut guest = Guest::start(Trial {
            herd: &ready.layer.herd,
            clone: ready.layer.clone()?,
            layer: &ready.layer.bytes,
            parts: &ready.parts,
            accel: ready.accel,
            forwards,
            directory,
        })
        .await
        .map_err(failed)?;
        eprintln!(
            "{name} boots here ({}); leave with Ctrl-], which ends it; log in with: ssh -p {ssh_port} root@127.0.0.1",
            guest.describe()
        );
        let ended = watch(&mut guest, told_to_end).await;
        // Whatever else happened, it is not left running.
        guest.end().await.map_err(failed)?;
        eprintln!();
        match ended.map_err(failed)? {
            None => {}
            Some(End::PoweredOff) => eprintln!("{name} has powered itself off"),
            Some(End::Panicked) => {
                return Err(Failure::failed(format!("the kernel of {name} panicked")));
            }
            Some(End::Gone) => {
                return Err(Failure::failed(format!("QEMU of {name} ended by itself")));
            }
        }
        Ok(())
    }
}

/// What a boot needs.
struct Ready {
    layer: LocalLayer,
    parts: Parts,
    accel: Accel,
}

/// Shows the console until somebody leaves, or the clone ends (then how).
async fn watch(
    guest: &mut Guest,
    told_to_end: &CancellationToken,
) -> Result<Option<End>, std::io::Error> {
    let Some(console) = guest.console() else {
        return Ok(None);
    };
    let joined = terminal::join(console);
    tokio::pin!(joined);
    tokio::select! {
        left = &mut joined => left.map(|()| None),
        end = guest.ended() => {
            // Its last words may still be on their way.
            let _ = tokio::time::timeout(LAST_WORDS, joined).await;
            Ok(Some(end))
        }
        () = told_to_end.cancelled() => Ok(None),
    }
}

/// As remembered, else proved with this kernel.
fn proved(place: &Path, kernel: &Path) -> Result<Accel, Failure> {
    let emulator = Path::new(EMULATOR);
    let asking = |error| Failure::failed(format!("asking {EMULATOR} for its version: {error}"));
    if let Some(verdict) = KvmVerdict::remembered(place, emulator).map_err(asking)? {
        return Ok(verdict.accel);
    }
    eprintln!("proving that KVM works here, once");
    let verdict = KvmVerdict::prove(place, emulator, kernel).map_err(|error| {
        Failure::failed(format!("proving that KVM works: {error}"))
            .advice("say how with --accel kvm or --accel tcg")
    })?;
    Ok(verdict.accel)
}

/// Where ./x keeps what it makes: the same rule as its own.
fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(chosen) = variable("ESTIVE_CACHE") {
        return Some(chosen.into());
    }
    let base = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).map(|base| base.join("estive"))
}

/// Built by ./x near this program, or installed beside it.
pub(super) fn init_beside_us() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let directory = own.parent()?;
    [
        // First: what cargo puts beside us while it builds the rest is not static.
        directory.join("../init/x86_64-unknown-linux-gnu/init/estive-init"),
        directory.join("estive-init"),
    ]
    .into_iter()
    .find(|path| path.is_file())
}

/// QEMU takes it a moment later: another program could be faster, and QEMU then says so.
fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn forward(text: &str) -> Result<(u16, u16), String> {
    let parse = || {
        let (here, there) = text.split_once(':')?;
        Some((here.parse().ok()?, there.parse().ok()?))
    };
    parse().ok_or_else(|| "write two ports, as 8080:80".to_owned())
}

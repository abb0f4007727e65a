//! The simulated driver: behaves as QEMU does, without guests, in tokio's time.

mod fabric;
mod guest_agent;
mod stream;

pub use fabric::{Fault, SimulatedFabric, Step};
pub use guest_agent::{SimulatedCall, SimulatedGuestAgent};

use crate::image_files::{self, FileId, Grip};
use crate::seam::*;
use async_trait::async_trait;
use estive_model::{DomainName, Machine};
use fabric::{OpenFile, Place, UseOf, World};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;
use stream::{Stream, started};
use tokio::sync::broadcast;
use tokio::time::Instant;

/// How long a simulated instance is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A kernel of this path makes an instance that ends at its start.
pub const BROKEN_KERNEL: &str = "/broken";

/// The driver of one host of a [`SimulatedFabric`]. Dropping it disturbs no instance.
pub struct SimulatedHypervisor {
    fabric: SimulatedFabric,
    host: IpAddr,
}

impl SimulatedFabric {
    /// A driver of `host` that knows nothing, as after a restart of its agent.
    pub fn hypervisor(&self, host: IpAddr) -> SimulatedHypervisor {
        SimulatedHypervisor {
            fabric: self.clone(),
            host,
        }
    }
}

impl SimulatedHypervisor {
    fn place(&self, domain: &DomainName) -> Place {
        (self.host, domain.clone())
    }

    /// Does `work`, unless a fault strikes at `step`.
    async fn command<T>(
        &self,
        domain: &DomainName,
        step: Step,
        work: impl FnOnce(&mut World, &Place) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        let place = self.place(domain);
        // A command takes a turn of the scheduler, as an exchange with a process would.
        tokio::task::yield_now().await;
        let silent = || HypervisorError::Silent {
            domain: domain.clone(),
            command: format!("{step:?}"),
            waited_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
        };
        let lost = {
            let mut world = self.fabric.world();
            match world.strikes(&place, step) {
                None | Some(Fault::Hold | Fault::PeerDies) => return work(&mut world, &place),
                Some(Fault::Refuse(detail)) => {
                    return Err(rejected(domain, &format!("{step:?}"), detail));
                }
                Some(Fault::Die) if world.die(&place) => {
                    return Err(HypervisorError::Died(domain.clone()));
                }
                Some(Fault::Die) => {
                    let detail = "it was made to".to_owned();
                    return Err(HypervisorError::DiedAtStart {
                        domain: domain.clone(),
                        detail,
                    });
                }
                Some(Fault::AnswerLost) => work(&mut world, &place).map(drop),
                Some(Fault::Silent) => Ok(()),
            }
        };
        lost?;
        tokio::time::sleep(PATIENCE).await;
        Err(silent())
    }

    fn make(
        world: &mut World,
        place: &Place,
        machine: &Machine,
        state: InstanceState,
        count: u64,
    ) -> Result<(), HypervisorError> {
        if world.guests.contains_key(place) {
            return Err(HypervisorError::Exists(machine.name().clone()));
        }
        if matches!(machine, Machine::Clone(spec) if spec.kernel.path == Path::new(BROKEN_KERNEL)) {
            return Err(HypervisorError::DiedAtStart {
                domain: machine.name().clone(),
                detail: format!("could not load kernel '{BROKEN_KERNEL}'"),
            });
        }
        let files = files(machine)?;
        let refused = world.lock_refused(place, &files);
        let is_incoming = state == InstanceState::AwaitingStream;
        // What is loaded of a file stands all the same, and cannot be started.
        if let Some(words) = refused.filter(|_| state == InstanceState::Prelaunch) {
            return Err(HypervisorError::DiedAtStart {
                domain: machine.name().clone(),
                detail: words.to_owned(),
            });
        }
        world.born(place, state, machine.memory_mib(), count);
        if let Some(guest) = world.guests.get_mut(place) {
            guest.files = files;
            guest.locks = !is_incoming && refused.is_none();
        }
        Ok(())
    }
}

/// What a machine has open, as the real driver opens it.
fn files(machine: &Machine) -> Result<Vec<OpenFile>, HypervisorError> {
    let Machine::Images(spec) = machine else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    let mut add = |file: std::fs::File, use_of| {
        let id = FileId::of(&file).map_err(io("looking at an image".to_owned()))?;
        files.push(OpenFile { id, use_of });
        Ok(())
    };
    if let Some(boot) = &spec.kernel {
        for file in [Some(&boot.kernel), boot.initrd.as_ref()]
            .into_iter()
            .flatten()
        {
            add(image_files::open(file)?, UseOf::Boot)?;
        }
    }
    for disk in &spec.disks {
        let use_of = match disk.read_only {
            true => UseOf::ReadOnlyDisk,
            false => UseOf::Disk,
        };
        add(image_files::open_disk(disk)?, use_of)?;
    }
    Ok(files)
}

fn rejected(domain: &DomainName, command: &str, detail: impl Into<String>) -> HypervisorError {
    HypervisorError::Rejected {
        domain: domain.clone(),
        command: command.to_owned(),
        detail: detail.into(),
    }
}

fn state_of(world: &World, place: &Place) -> Result<InstanceState, HypervisorError> {
    let guest = world.guests.get(place);
    guest
        .map(|guest| guest.state)
        .ok_or_else(|| HypervisorError::NoInstance(place.1.clone()))
}

fn io(doing: String) -> impl FnOnce(std::io::Error) -> HypervisorError {
    move |source| HypervisorError::Io { doing, source }
}

#[async_trait]
impl Hypervisor for SimulatedHypervisor {
    async fn create(&self, machine: &Machine) -> Result<(), HypervisorError> {
        self.command(machine.name(), Step::Create, |world, place| {
            Self::make(world, place, machine, InstanceState::Prelaunch, 0)
        })
        .await
    }

    async fn create_incoming(
        &self,
        machine: &Machine,
        listen: IpAddr,
        port: u16,
        _tls: bool,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        self.command(machine.name(), Step::CreateIncoming, |world, place| {
            if world.listener(SocketAddr::new(listen, port)).is_some() {
                return Err(rejected(
                    machine.name(),
                    "migrate-incoming",
                    "address already in use",
                ));
            }
            Self::make(world, place, machine, InstanceState::AwaitingStream, 0)?;
            if let Some(guest) = world.guests.get_mut(place) {
                guest.listens = Some((port, parameters.post_copy));
            }
            Ok(())
        })
        .await
    }

    async fn restore(&self, machine: &Machine, from: &Path) -> Result<(), HypervisorError> {
        self.command(machine.name(), Step::Restore, |world, place| {
            let doing = format!("opening the saved state {}", from.display());
            let saved = std::fs::read(from).map_err(io(doing))?;
            let count = serde_json::from_slice(&saved)
                .map_err(|error| rejected(machine.name(), "migrate-incoming", error.to_string()))?;
            Self::make(world, place, machine, InstanceState::Loaded, count)
        })
        .await
    }

    async fn save(&self, domain: &DomainName, to: &Path) -> Result<(), HypervisorError> {
        self.command(domain, Step::Save, |world, place| {
            let state = state_of(world, place)?;
            if state == InstanceState::AwaitingStream {
                return Err(rejected(domain, "migrate", "its stream is not complete"));
            }
            let count = world.guests.get(place).map_or(0, |guest| guest.count());
            let doing = format!("writing the saved state {}", to.display());
            let secret = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(to);
            secret
                .and_then(|mut file| file.write_all(count.to_string().as_bytes()))
                .map_err(io(doing))?;
            world.turn(place, InstanceState::Sent);
            Ok(())
        })
        .await
    }

    async fn resume(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.command(domain, Step::Resume, |world, place| {
            let refusal = match state_of(world, place)? {
                InstanceState::AwaitingStream => Some("its incoming stream is not complete"),
                InstanceState::GuestStopped => Some("the guest has ended"),
                InstanceState::Paused
                    if world.guests.get(place).is_some_and(|guest| {
                        matches!(
                            guest.status(),
                            MigrationStatus::Switching | MigrationStatus::PostCopy
                        )
                    }) =>
                {
                    Some("migration is not finalized yet")
                }
                _ => world
                    .guests
                    .get(place)
                    .filter(|guest| !guest.locks)
                    .and_then(|guest| world.lock_refused(place, &guest.files)),
            };
            match refusal {
                Some(why) => Err(rejected(domain, "cont", why)),
                None => {
                    world.turn(place, InstanceState::Running);
                    Ok(())
                }
            }
        })
        .await
    }

    async fn pause(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.command(domain, Step::Pause, |world, place| {
            match state_of(world, place)? {
                InstanceState::AwaitingStream => Err(rejected(
                    domain,
                    "stop",
                    "it awaits a stream; its processors do not run",
                )),
                InstanceState::Running => {
                    world.turn(place, InstanceState::Paused);
                    Ok(())
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn power_button(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.command(domain, Step::PowerButton, |world, place| {
            if state_of(world, place)? == InstanceState::Running {
                world.turn(place, InstanceState::GuestStopped);
                world.tell(place, InstanceHappening::GuestPoweredOff);
            }
            Ok(())
        })
        .await
    }

    async fn kill(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.command(domain, Step::Kill, |world, place| {
            world.die(place);
            Ok(())
        })
        .await
    }

    async fn state(&self, domain: &DomainName) -> Result<InstanceState, HypervisorError> {
        let state = self
            .command(domain, Step::State, |world, place| {
                Ok(state_of(world, place).unwrap_or(InstanceState::Gone))
            })
            .await;
        match state {
            Err(HypervisorError::Died(_)) => Ok(InstanceState::Gone),
            other => other,
        }
    }

    async fn migrate(
        &self,
        domain: &DomainName,
        to: &StreamAddress,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        self.command(domain, Step::Migrate, |world, place| {
            let refusal = match state_of(world, place)? {
                InstanceState::AwaitingStream => Some("its own incoming stream is not complete"),
                InstanceState::Sent => Some("it was sent already; resume it first"),
                _ => None,
            };
            let Some(guest) = world.guests.get_mut(place) else {
                return Err(HypervisorError::NoInstance(domain.clone()));
            };
            let busy = guest
                .streams()
                .then_some("an outgoing migration is under way");
            if let Some(why) = refusal.or(busy) {
                return Err(rejected(domain, "migrate", why));
            }
            guest.outgoing = Some(started(guest.memory_bytes, MigrationStatus::Setup));
            (guest.peer, guest.before) = (None, None);
            let stream = Stream {
                fabric: self.fabric.clone(),
                source: place.clone(),
                incarnation: guest.incarnation,
                to: SocketAddr::new(to.host, to.port),
                parameters: parameters.clone(),
                start: Instant::now(),
            };
            world.tell(place, InstanceHappening::Migration(MigrationStatus::Setup));
            tokio::spawn(stream.run());
            Ok(())
        })
        .await
    }

    async fn migration(&self, domain: &DomainName) -> Result<MigrationProgress, HypervisorError> {
        self.command(domain, Step::Migration, |world, place| {
            let guest = world.guests.get(place);
            let guest = guest.ok_or_else(|| HypervisorError::NoInstance(domain.clone()))?;
            Ok(guest
                .outgoing
                .clone()
                .unwrap_or_else(|| started(0, MigrationStatus::None)))
        })
        .await
    }

    async fn cancel_migration(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.command(domain, Step::CancelMigration, |world, place| {
            let guest = world.guests.get_mut(place);
            let guest = guest.ok_or_else(|| HypervisorError::NoInstance(domain.clone()))?;
            if !guest.streams() {
                return Ok(());
            }
            if guest.status() == MigrationStatus::PostCopy {
                return Err(rejected(
                    domain,
                    "migrate_cancel",
                    "after the switch to post-copy neither side has the whole memory",
                ));
            }
            world.break_off(place, MigrationStatus::Cancelled, None);
            Ok(())
        })
        .await
    }

    async fn start_post_copy(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.command(domain, Step::StartPostCopy, |world, place| {
            let guest = world.guests.get_mut(place);
            let guest = guest.ok_or_else(|| HypervisorError::NoInstance(domain.clone()))?;
            match guest.outgoing.as_mut() {
                Some(outgoing) if outgoing.status == MigrationStatus::Active => {
                    outgoing.status = MigrationStatus::PostCopy;
                    world.tell(
                        place,
                        InstanceHappening::Migration(MigrationStatus::PostCopy),
                    );
                    Ok(())
                }
                _ => Err(rejected(
                    domain,
                    "migrate-start-postcopy",
                    "no pre-copy is under way",
                )),
            }
        })
        .await
    }

    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError> {
        tokio::task::yield_now().await;
        let world = self.fabric.world();
        let here = world
            .guests
            .iter()
            .filter(|((host, _), _)| *host == self.host);
        let found = here.map(|((_, domain), guest)| Found {
            domain: domain.clone(),
            state: Some(guest.state),
            pid: 0,
        });
        Ok(found.collect())
    }

    async fn grip(&self, domain: &DomainName, file: FileId) -> Result<Grip, HypervisorError> {
        tokio::task::yield_now().await;
        let world = self.fabric.world();
        let Some(guest) = world.guests.get(&self.place(domain)) else {
            return Ok(Grip::None);
        };
        let has = guest.files.iter().filter(|open| open.id == file);
        let grips = has.map(|open| match guest.locks && open.use_of != UseOf::Boot {
            true => Grip::Locked,
            false => Grip::Open,
        });
        Ok(grips.max().unwrap_or(Grip::None))
    }

    fn channels(&self, domain: &DomainName) -> Channels {
        let below = self.fabric.world().channels.clone();
        // Nothing is ever written there by the simulation itself.
        let directory = below
            .unwrap_or_else(|| "/nonexistent/simulated".into())
            .join(self.host.to_string())
            .join(domain.as_str());
        Channels {
            console: directory.join("console.sock"),
            console_log: directory.join("console.log"),
            report: directory.join("report"),
            identity: directory.join("identity.sock"),
            guest_agent: directory.join("qga.sock"),
        }
    }

    fn events(&self) -> broadcast::Receiver<InstanceEvent> {
        self.fabric.world().happenings(self.host).subscribe()
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn describe(&self) -> String {
        format!("simulation of {}", self.host)
    }
}

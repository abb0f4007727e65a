//! The world simulated hypervisors share: instances, addresses, and faults to come.

use crate::image_files::FileId;
use crate::seam::*;
use estive_model::DomainName;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

/// A simulated guest raises its number once in this time.
const COUNT_EVERY_MS: u128 = 10;
/// Events kept for a slow reader.
const EVENTS_KEPT: usize = 1024;

/// Where a fault strikes. The first ones are commands, the last four are steps of an outgoing stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// [`Hypervisor::create`].
    Create,
    /// [`Hypervisor::create_incoming`].
    CreateIncoming,
    /// [`Hypervisor::restore`].
    Restore,
    /// [`Hypervisor::save`].
    Save,
    /// [`Hypervisor::resume`].
    Resume,
    /// [`Hypervisor::pause`].
    Pause,
    /// [`Hypervisor::power_button`].
    PowerButton,
    /// [`Hypervisor::kill`].
    Kill,
    /// [`Hypervisor::state`].
    State,
    /// [`Hypervisor::migrate`].
    Migrate,
    /// [`Hypervisor::migration`].
    Migration,
    /// [`Hypervisor::cancel_migration`].
    CancelMigration,
    /// [`Hypervisor::start_post_copy`].
    StartPostCopy,
    /// The stream is about to connect.
    Connecting,
    /// The stream copies memory while the guest runs.
    Copying,
    /// The source's processors were just halted.
    Switching,
    /// Everything was sent, the destination has not loaded it yet.
    Completing,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A command is refused, a stream fails, with these words. Once.
    Refuse(String),
    /// A command has no answer and no effect. Once.
    Silent,
    /// A command takes effect but its answer is lost. Once; not for `Create`, `CreateIncoming` and `Restore`.
    AnswerLost,
    /// The instance the step belongs to dies just before it. Once.
    Die,
    /// The other side's instance dies just before the step (streams only). Once.
    PeerDies,
    /// The stream stands still at this step, or memory is dirtied as fast as it is sent, until
    /// [`SimulatedFabric::heal`].
    Hold,
}

pub(super) struct Guest {
    /// Tells this instance from a later one of the same domain on the same host.
    pub(super) incarnation: u64,
    pub(super) state: InstanceState,
    pub(super) memory_bytes: u64,
    /// The port it takes a stream on, and whether that may become post-copy.
    pub(super) listens: Option<(u16, bool)>,
    pub(super) outgoing: Option<MigrationProgress>,
    /// The destination its stream has reached.
    pub(super) peer: Option<(Place, u64)>,
    /// What it did before the switch halted it.
    pub(super) before: Option<InstanceState>,
    /// Files that it has open.
    pub(super) files: Vec<OpenFile>,
    /// It keeps others from writing to its disks.
    pub(super) locks: bool,
    counted: u64,
    /// What it counted before it came here is not shown here.
    shown_here: bool,
    running_since: Option<Instant>,
}

impl Guest {
    pub(super) fn count(&self) -> u64 {
        let now = self
            .running_since
            .map_or(0, |since| since.elapsed().as_millis() / COUNT_EVERY_MS);
        self.counted + u64::try_from(now).unwrap_or(u64::MAX)
    }

    pub(super) fn status(&self) -> MigrationStatus {
        self.outgoing
            .as_ref()
            .map_or(MigrationStatus::None, |outgoing| outgoing.status)
    }

    pub(super) fn streams(&self) -> bool {
        matches!(
            self.status(),
            MigrationStatus::Setup
                | MigrationStatus::Active
                | MigrationStatus::Switching
                | MigrationStatus::PostCopy
        )
    }
}

/// A file of an ordinary machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFile {
    pub(super) id: FileId,
    pub(super) use_of: UseOf,
}

/// What a file is to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseOf {
    /// Read once, at the start.
    Boot,
    ReadOnlyDisk,
    Disk,
}

pub(super) type Place = (IpAddr, DomainName);

#[derive(Default)]
pub(super) struct World {
    pub(super) guests: BTreeMap<Place, Guest>,
    pub(super) mute: BTreeSet<SocketAddr>,
    /// Highest number shown by the last instance at a place.
    shown: HashMap<Place, u64>,
    faults: Vec<(Place, Step, Fault)>,
    happenings: HashMap<IpAddr, broadcast::Sender<InstanceEvent>>,
    twice: BTreeSet<DomainName>,
    born: u64,
    pub(super) channels: Option<PathBuf>,
}

impl World {
    pub(super) fn happenings(&mut self, host: IpAddr) -> broadcast::Sender<InstanceEvent> {
        self.happenings
            .entry(host)
            .or_insert_with(|| broadcast::channel(EVENTS_KEPT).0)
            .clone()
    }

    pub(super) fn tell(&mut self, place: &Place, what: InstanceHappening) {
        let event = InstanceEvent {
            domain: place.1.clone(),
            what,
            time_us: 0,
        };
        // Nobody may be listening.
        let _ = self.happenings(place.0).send(event);
    }

    /// Takes the fault that strikes here now, if there is one.
    pub(super) fn strikes(&mut self, place: &Place, step: Step) -> Option<Fault> {
        let at = self
            .faults
            .iter()
            .position(|(at, when, _)| at == place && *when == step)?;
        let fault = self.faults[at].2.clone();
        if fault != Fault::Hold {
            self.faults.remove(at);
        }
        Some(fault)
    }

    pub(super) fn born(
        &mut self,
        place: &Place,
        state: InstanceState,
        memory_mib: u64,
        count: u64,
    ) {
        self.born += 1;
        let guest = Guest {
            incarnation: self.born,
            state,
            memory_bytes: memory_mib << 20,
            listens: None,
            outgoing: None,
            peer: None,
            before: None,
            files: Vec::new(),
            locks: false,
            counted: count,
            shown_here: false,
            running_since: None,
        };
        self.shown.insert(place.clone(), 0);
        self.guests.insert(place.clone(), guest);
    }

    /// Changes what a guest does, and keeps its count.
    pub(super) fn turn(&mut self, place: &Place, state: InstanceState) {
        let Some(guest) = self.guests.get_mut(place) else {
            return;
        };
        let before = guest.state;
        guest.counted = guest.count();
        guest.running_since = (state == InstanceState::Running).then(Instant::now);
        guest.shown_here |= state == InstanceState::Running;
        match state {
            InstanceState::Running => guest.locks = true,
            InstanceState::Sent => guest.locks = false,
            _ => {}
        }
        guest.state = state;
        if guest.shown_here {
            self.shown.insert(place.clone(), guest.counted);
        }
        let runs = |state| state == InstanceState::Running;
        if runs(state) && !runs(before) {
            self.tell(place, InstanceHappening::Resumed);
            let elsewhere = |((host, domain), guest): (&Place, &Guest)| {
                *domain == place.1 && *host != place.0 && runs(guest.state)
            };
            if self.guests.iter().any(elsewhere) {
                self.twice.insert(place.1.clone());
            }
        } else if runs(before) && !runs(state) {
            self.tell(place, InstanceHappening::Halted);
        }
    }

    /// The end of an instance; false when there was none. Half a stream is worth nothing: what was receiving one
    /// from it ends too.
    pub(super) fn die(&mut self, place: &Place) -> bool {
        let shown = self.shown(place);
        let Some(mut guest) = self.guests.remove(place) else {
            return false;
        };
        self.shown.insert(place.clone(), shown);
        self.tell(place, InstanceHappening::Gone);
        if guest.streams() {
            self.hang_up(guest.peer.take());
        }
        true
    }

    fn hang_up(&mut self, peer: Option<(Place, u64)>) {
        if let Some((place, incarnation)) = peer
            && self.same(&place, incarnation).is_some()
        {
            self.die(&place);
        }
    }

    /// The stream of `place` comes to nothing: the source goes on as it was, the destination's instance ends.
    /// In post-copy there is no way back for either: both stay as they are.
    pub(super) fn break_off(
        &mut self,
        place: &Place,
        status: MigrationStatus,
        error: Option<String>,
    ) {
        let Some(guest) = self.guests.get_mut(place) else {
            return;
        };
        if guest.status() == MigrationStatus::PostCopy {
            return;
        }
        let (peer, before) = (guest.peer.take(), guest.before.take());
        if let Some(outgoing) = &mut guest.outgoing {
            outgoing.status = status;
            outgoing.error = error;
        }
        self.hang_up(peer);
        if let Some(before) = before {
            self.turn(place, before);
        }
        self.tell(place, InstanceHappening::Migration(status));
    }

    /// The destination of `place`'s stream has all it needs to run.
    pub(super) fn load(&mut self, place: &Place) {
        let Some(guest) = self.guests.get(place) else {
            return;
        };
        let (count, peer) = (guest.count(), guest.peer.clone());
        let Some((to, incarnation)) = peer else {
            return;
        };
        // Given away with the switch.
        if let Some(source) = self.guests.get_mut(place) {
            source.locks = false;
        }
        if let Some(received) = self.same(&to, incarnation) {
            received.counted = count;
            self.turn(&to, InstanceState::Loaded);
            self.tell(
                &to,
                InstanceHappening::Migration(MigrationStatus::Completed),
            );
        }
    }

    pub(super) fn shown(&self, place: &Place) -> u64 {
        match self.guests.get(place) {
            Some(guest) if guest.shown_here => guest.count(),
            _ => self.shown.get(place).copied().unwrap_or_default(),
        }
    }

    /// QEMU's words when somebody else has locked one of these disks; every host sees every file.
    pub(super) fn lock_refused(&self, place: &Place, files: &[OpenFile]) -> Option<&'static str> {
        let clash = |ours: &OpenFile, theirs: &OpenFile| {
            let uses = [ours.use_of, theirs.use_of];
            ours.id == theirs.id && uses.contains(&UseOf::Disk) && !uses.contains(&UseOf::Boot)
        };
        let others = self.guests.iter();
        let mut others = others.filter(|(at, guest)| *at != place && guest.locks);
        others
            .any(|(_, guest)| {
                files
                    .iter()
                    .any(|ours| guest.files.iter().any(|theirs| clash(ours, theirs)))
            })
            .then_some("Failed to get \"write\" lock")
    }

    /// Who listens at an address.
    pub(super) fn listener(&self, at: SocketAddr) -> Option<Place> {
        let listens = |(place, guest): &(&Place, &Guest)| {
            place.0 == at.ip() && guest.listens.is_some_and(|(port, _)| port == at.port())
        };
        self.guests
            .iter()
            .find(listens)
            .map(|(place, _)| place.clone())
    }

    /// The guest at a place, if it still is the one meant.
    pub(super) fn same(&mut self, place: &Place, incarnation: u64) -> Option<&mut Guest> {
        self.guests
            .get_mut(place)
            .filter(|guest| guest.incarnation == incarnation)
    }
}

/// Hosts of a simulated world and the network between them. Instances live here, not in their drivers: these may be
/// dropped and made anew as agents die and restart. Time is tokio's, which a test may stop and own.
#[derive(Clone, Default)]
pub struct SimulatedFabric(Arc<Mutex<World>>);

impl SimulatedFabric {
    /// Gives the channels of all guests places below `directory`, for tests that speak for a guest there
    /// ([`super::SimulatedGuestAgent`]). Without it they are nowhere.
    pub fn channels_below(&self, directory: PathBuf) {
        self.world().channels = Some(directory);
    }

    /// A world with no instances. Hosts come to be by their address.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fault` strike at the next time the instance of `domain` on `host` comes to `step`. For a stream's steps the
    /// instance is the source's.
    pub fn inject(&self, host: IpAddr, domain: &DomainName, step: Step, fault: Fault) {
        self.world()
            .faults
            .push(((host, domain.clone()), step, fault));
    }

    /// Removes the faults of `domain` on `host` that have not struck, and ends its [`Fault::Hold`].
    pub fn heal(&self, host: IpAddr, domain: &DomainName) {
        self.world()
            .faults
            .retain(|((at, name), ..)| (*at, name) != (host, domain));
    }

    /// Ends an instance as a crash does; false when there is none.
    pub fn crash(&self, host: IpAddr, domain: &DomainName) -> bool {
        self.world().die(&(host, domain.clone()))
    }

    /// Ends every instance of a host, as a power cut does.
    pub fn power_cut(&self, host: IpAddr) {
        let mut world = self.world();
        let places: Vec<_> = world
            .guests
            .keys()
            .filter(|(at, _)| *at == host)
            .cloned()
            .collect();
        for place in places {
            world.die(&place);
        }
    }

    /// From now on nothing at this address takes or refuses a connection.
    pub fn mute(&self, at: SocketAddr) {
        self.world().mute.insert(at);
    }

    /// The highest number the instance of `domain` that stands (or stood last) on `host` has shown, 0 for none.
    pub fn count(&self, host: IpAddr, domain: &DomainName) -> u64 {
        self.world().shown(&(host, domain.clone()))
    }

    /// Domains whose processors ran on two hosts at once at any time. Must stay empty.
    pub fn ran_twice(&self) -> Vec<DomainName> {
        self.world().twice.iter().cloned().collect()
    }

    /// Where the processors of `domain` run now.
    pub fn runs_at(&self, domain: &DomainName) -> Vec<IpAddr> {
        let world = self.world();
        let running = |((_, name), guest): &(&Place, &Guest)| {
            name == domain && guest.state == InstanceState::Running
        };
        world
            .guests
            .iter()
            .filter(running)
            .map(|((host, _), _)| *host)
            .collect()
    }
}

pub(super) fn since_ms(start: Instant) -> u64 {
    u64::try_from(Duration::as_millis(&start.elapsed())).unwrap_or(u64::MAX)
}

//! What there is in the simulated world, and what may happen next in it.

use crate::explore::Bounds;
use estive_model::Generation;
use estive_moves::{
    Decision, Effect, Entry, Grant, Holding, HostView, Input, Ownership, Seen, Wanted, decide,
    leftover, step,
};

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// Where the domain is at first.
    A,
    /// The other one.
    B,
}

impl Host {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What the instance (QEMU) on a host is really doing. [`Seen`] is what its agent can tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// No process.
    Gone,
    /// Made, halted, nothing in its memory yet.
    Prelaunch,
    /// Processors run.
    Running,
    /// Halted for good, no stream.
    Paused,
    /// Processors run, a stream goes out (or tries to).
    Streaming,
    /// The stream's last part: processors halted, not complete.
    Switching,
    /// Post-copy: processors halted, the rest of memory follows.
    Following,
    /// The stream is complete here, processors halted.
    Sent,
    /// Waits for the stream of this grant.
    Awaiting(Generation),
    /// The stream is loaded, processors halted.
    Loaded,
}

impl Life {
    /// Whether processors run.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Streaming)
    }

    /// Whether it holds the guest's memory, or a part without which the guest is lost.
    pub fn holds_memory(self) -> bool {
        !matches!(self, Self::Gone | Self::Prelaunch | Self::Awaiting(_))
    }

    /// What an agent that can ask it sees.
    pub fn seen(self) -> Seen {
        match self {
            Self::Gone => Seen::Gone,
            Self::Prelaunch => Seen::Prelaunch,
            Self::Running => Seen::Running,
            Self::Paused => Seen::Paused,
            Self::Streaming | Self::Switching => Seen::Streaming,
            Self::Following => Seen::Following,
            Self::Sent => Seen::Sent,
            Self::Awaiting(_) => Seen::Awaiting,
            Self::Loaded => Seen::Loaded,
        }
    }
}

/// What was saved of the domain's memory, as a file on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum File {
    /// There is none.
    #[default]
    None,
    /// No processor of the domain has run since.
    Good,
    /// It has gone on since: to run from this would be to run what was there before once more.
    Stale,
}

/// The longest step: kill, write, make, fence, resume, answer; one is spare.
const EFFECTS: usize = 7;

/// Effects still to be done by an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Queue {
    effects: [Option<Effect>; EFFECTS],
    /// The generation that was asked about, for the answer.
    pub asked: Generation,
}

impl Queue {
    /// The next effect.
    pub fn first(&self) -> Option<Effect> {
        self.effects[0]
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.effects[0].is_none()
    }

    pub(crate) fn pop(&mut self) {
        self.effects.rotate_left(1);
        self.effects[EFFECTS - 1] = None;
        if self.is_empty() {
            self.asked = Generation(0);
        }
    }

    /// Answers to the manager and to people change nothing here, since the manager reads journals: they are left out.
    pub(crate) fn filled(effects: Vec<Effect>, input: Input) -> Self {
        let asked = match input {
            Input::AskReady(generation) | Input::Commit(generation) => Some(generation),
            _ => None,
        };
        let mut queue = Self::default();
        let kept = effects
            .into_iter()
            .filter(|effect| asked.is_some() || !matches!(effect, Effect::Answer(_)));
        for (slot, effect) in queue.effects.iter_mut().zip(kept) {
            *slot = Some(effect);
        }
        if !queue.is_empty() {
            queue.asked = asked.unwrap_or_default();
        }
        queue
    }
}

/// One host: journal, instance, and the agent's volatile part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostState {
    /// Durable.
    pub entry: Entry,
    /// Its instance.
    pub life: Life,
    /// Post-copy: pages are still missing, so the instance dies with its source.
    pub partial: bool,
    /// Effects of the step under way.
    pub queue: Queue,
    /// The agent is not there.
    pub down: bool,
    /// The storage did not answer when it was to cut older exports: the agent looks again.
    pub unfenced: bool,
    /// What was saved here. Never removed: whatever a journal says, somebody may still run from it.
    pub file: File,
    /// Its instance was made of that, and has not run.
    pub restored: bool,
    /// The storage's word (durable): the highest generation that this host may open. None is 0.
    pub granted: Generation,
}

/// The manager: what its store says (durable), and what it was told last (volatile).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManagerState {
    /// The store.
    pub record: Ownership<Host>,
    /// Each read at some earlier moment.
    pub views: [HostView; 2],
}

/// Something on its way to an agent: an order, an answer, or an event of its own instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    /// To whom.
    pub to: Host,
    /// What it is told.
    pub input: Input,
}

/// The rules under test.
#[derive(Clone, Copy)]
pub struct Rules {
    /// [`estive_moves::step`] or a variant.
    pub step: fn(&Entry, Seen, Input) -> Vec<Effect>,
    /// [`estive_moves::decide`] or a variant.
    pub decide: fn(&Ownership<Host>, HostView, HostView) -> Decision,
    /// [`estive_moves::leftover`] or a variant.
    pub leftover: fn(&Ownership<Host>, HostView) -> Option<Generation>,
    /// QEMU made without `-S`: it runs by itself when the stream is complete.
    pub runs_by_itself: bool,
    /// What was granted for a move is taken back once it is written that the move is over, not before.
    pub revokes_late: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            step,
            decide,
            leftover,
            runs_by_itself: false,
            revokes_late: false,
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// Host A, host B.
    pub hosts: [HostState; 2],
    /// The manager.
    pub manager: ManagerState,
    /// The host whose stream is connected to the other's instance.
    pub link: Option<Host>,
    /// Something other than the rules has ended an instance that held memory: the guest may be lost.
    pub excused: bool,
    /// Crashes still allowed to each agent.
    pub crashes_left: [u8; 2],
    /// Deaths still allowed to instances.
    pub deaths_left: u8,
    /// What the storage has confirmed (durable): no export of the volume below this generation is left, and none is made
    /// any more.
    pub fenced: Generation,
}

/// How a stream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The destination's instance ends.
    DestinationGone,
    /// The destination goes on waiting for a while.
    DestinationWaits,
    /// The destination has loaded everything, the source has not heard it and runs on.
    DestinationLoaded,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An agent is told something, and sees its instance as it is.
    Deliver(Message),
    /// An agent is told something while its instance cannot be asked.
    DeliverUnclear(Message),
    /// An agent does the next effect.
    Do(Host),
    /// The next effect fails (`CreateIncoming`, `Create`, `StartStream`; `Fence`: the storage is silent), or comes too
    /// late (`CancelStream`).
    DoInVain(Host),
    /// An agent dies.
    Crash(Host),
    /// It is started again.
    Restart(Host),
    /// It is started again while its instance cannot be asked.
    RestartUnclear(Host),
    /// An agent looks at its instance anew, as after a restart.
    Look(Host),
    /// The source decides that pre-copy does not converge.
    PostCopy(Host),
    /// The manager reads a host's journal.
    Poll(Host),
    /// The manager does what it decides.
    Act,
    /// The manager writes "stayed" without having reached the destination.
    ActUnheard,
    /// The manager tells a host to drop what nobody waits for.
    Sweep(Host),
    /// The manager dies and is started again.
    ManagerCrash,
    /// Somebody orders a move to the other host.
    OrderMove {
        /// Whether post-copy is allowed.
        post_copy: bool,
    },
    /// Somebody gives the move up.
    GiveUp,
    /// Somebody has the owner make it anew: the manager has read there that it is not to run.
    OrderDefine,
    /// Somebody orders a start.
    OrderStart,
    /// Somebody orders a stop.
    OrderStop,
    /// Somebody has its memory saved.
    OrderSave,
    /// Somebody has it go on from there.
    OrderRestore,
    /// Somebody drops what was saved.
    OrderDrop,
    /// A stream comes to its last part.
    Switch(Host),
    /// A stream is complete.
    Complete(Host),
    /// A stream fails.
    Fail(Host, Failure),
    /// The rest of memory has arrived (post-copy).
    RestArrives(Host),
    /// The stream is cut during post-copy.
    PostCopyFails(Host),
    /// An instance dies.
    Die(Host),
    /// An instance whose stream was cut ends.
    IncomingExits(Host),
}

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Broken {
    /// (i) Processors run on both hosts.
    Twice,
    /// (ii) Processors run where the journal has released the domain or never had it.
    RunsUnheld,
    /// (iii) A floor or generation went down.
    WentBack,
    /// (iv) The store named an owner that had not taken the domain.
    OwnerHasNotTaken,
    /// (v) The rules ended the last instance that held the guest's memory, and nobody had asked for it.
    LostByRules,
    /// (v) Left alone, it does not come to rest as one domain held by its owner.
    Stuck,
    /// (vii) Processors run under a generation while an export of an older one may be left: who holds that can write.
    Unfenced,
    /// (viii) The volume of processors that run was cut off under them.
    CutOff,
    /// (ix) It was made anew while an instance of what it was before stood: its files were replaced under it.
    ReplacedUnderIt,
    /// (x) It ran from what was saved, and had gone on since.
    RestoredTwice,
    /// (xi) Who must run it is refused by the storage: its generation is not granted to that host.
    Ungranted,
    /// (xii) Left alone and at rest, a host that does not have it may open its volume under a generation to come.
    GrantLeft,
    /// (vi) Left alone and at rest, the next move does not succeed.
    NextMoveFails,
}

/// A broken rule, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub broken: Broken,
    /// How.
    pub words: String,
}

impl World {
    /// Host A holds the domain under generation 1: running, or defined and stopped.
    pub fn new(running: bool, bounds: &Bounds) -> Self {
        let first = Generation(1);
        let nothing = HostState {
            entry: Entry::default(),
            life: Life::Gone,
            partial: false,
            queue: Queue::default(),
            down: false,
            unfenced: false,
            file: File::None,
            restored: false,
            granted: Generation(0),
        };
        let holding = if running {
            Holding::Running
        } else {
            Holding::Stopped
        };
        let owner = HostState {
            entry: Entry {
                holding,
                generation: first,
                floor: first,
            },
            life: if running { Life::Running } else { Life::Gone },
            granted: if running { first } else { Generation(0) },
            ..nothing
        };
        Self {
            hosts: [owner, nothing],
            manager: ManagerState {
                record: Ownership {
                    host: Host::A,
                    generation: first,
                    granted: first,
                    wanted: if running {
                        Wanted::Running
                    } else {
                        Wanted::Stopped
                    },
                    moving: None,
                },
                views: [HostView::Silent; 2],
            },
            link: None,
            excused: false,
            crashes_left: bounds.crashes,
            deaths_left: bounds.deaths,
            fenced: if running { first } else { Generation(0) },
        }
    }

    /// A host.
    pub fn at(&self, host: Host) -> &HostState {
        &self.hosts[host as usize]
    }

    pub(crate) fn at_mut(&mut self, host: Host) -> &mut HostState {
        &mut self.hosts[host as usize]
    }

    /// What the manager would do now.
    pub fn decision(&self, rules: &Rules) -> Decision {
        let record = &self.manager.record;
        let Some(pending) = &record.moving else {
            return Decision::Nothing;
        };
        let views = &self.manager.views;
        (rules.decide)(
            record,
            views[record.host as usize],
            views[pending.destination as usize],
        )
    }

    /// What the store will say when the manager has the owner make it anew: only of one that, as it was read there at
    /// some moment, is not to run.
    pub(crate) fn defining(&self) -> Option<Ownership<Host>> {
        let record = &self.manager.record;
        match self.manager.views[record.host as usize] {
            HostView::Says(
                Entry {
                    holding: Holding::Absent | Holding::Stopped,
                    floor,
                    ..
                },
                _,
            ) => record.defining(floor),
            HostView::Says(..) | HostView::Silent => None,
        }
    }

    /// What the manager reads when it asks this host now. Of the instance it keeps only what a decision can look at.
    pub fn view(&self, host: Host) -> HostView {
        let state = self.at(host);
        if state.down {
            return HostView::Silent;
        }
        let seen = match state.life.seen() {
            seen @ (Seen::Running | Seen::Awaiting) => seen,
            _ => Seen::Paused,
        };
        HostView::Says(state.entry, seen)
    }

    /// Puts into `out` everything that may happen now. `net`: every message sent so far, each of which may still come.
    pub fn enabled(&self, net: &[Message], bounds: &Bounds, rules: &Rules, out: &mut Vec<Action>) {
        out.clear();
        for host in Host::BOTH {
            self.enabled_agent(host, bounds, out);
            self.enabled_instance(host, bounds, out);
        }
        for message in net {
            let state = self.at(message.to);
            if !state.down && state.queue.is_empty() {
                out.push(Action::Deliver(*message));
                if bounds.unclear && state.life != Life::Gone {
                    out.push(Action::DeliverUnclear(*message));
                }
            }
        }
        self.enabled_manager(bounds, rules, out);
    }

    fn enabled_agent(&self, host: Host, bounds: &Bounds, out: &mut Vec<Action>) {
        let state = self.at(host);
        if state.down {
            out.push(Action::Restart(host));
            if bounds.unclear && state.life != Life::Gone {
                out.push(Action::RestartUnclear(host));
            }
            return;
        }
        if self.crashes_left[host as usize] > 0 {
            out.push(Action::Crash(host));
        }
        match state.queue.first() {
            Some(effect) => {
                out.push(Action::Do(host));
                if matches!(
                    effect,
                    Effect::Create
                        | Effect::CreateIncoming(_)
                        | Effect::StartStream(_)
                        | Effect::CancelStream
                        | Effect::Fence(_)
                        | Effect::SaveState
                        | Effect::CreateRestored
                ) {
                    out.push(Action::DoInVain(host));
                }
            }
            None => {
                if bounds.looks || state.unfenced {
                    out.push(Action::Look(host));
                }
                if matches!(state.entry.holding, Holding::Outgoing(grant) if grant.post_copy)
                    && state.life == Life::Streaming
                    && self.link == Some(host)
                {
                    out.push(Action::PostCopy(host));
                }
            }
        }
    }

    fn enabled_instance(&self, host: Host, bounds: &Bounds, out: &mut Vec<Action>) {
        let state = self.at(host);
        let linked = self.link == Some(host);
        match state.life {
            Life::Streaming if bounds.switching && linked => {
                out.push(Action::Switch(host));
            }
            Life::Streaming | Life::Switching if linked => out.push(Action::Complete(host)),
            Life::Following if linked => {
                out.push(Action::RestArrives(host));
                out.push(Action::PostCopyFails(host));
            }
            Life::Awaiting(_) if self.link != Some(host.other()) => {
                out.push(Action::IncomingExits(host));
            }
            _ => {}
        }
        if matches!(state.life, Life::Streaming | Life::Switching) {
            out.push(Action::Fail(host, Failure::DestinationWaits));
            if linked {
                out.push(Action::Fail(host, Failure::DestinationGone));
                if state.life == Life::Switching || !bounds.switching {
                    out.push(Action::Fail(host, Failure::DestinationLoaded));
                }
            }
        }
        if self.deaths_left > 0 && !matches!(state.life, Life::Gone | Life::Awaiting(_)) {
            out.push(Action::Die(host));
        }
    }

    fn enabled_manager(&self, bounds: &Bounds, rules: &Rules, out: &mut Vec<Action>) {
        let record = &self.manager.record;
        let views = &self.manager.views;
        for host in Host::BOTH {
            let now = self.view(host);
            if now != HostView::Silent && now != views[host as usize] {
                out.push(Action::Poll(host));
            }
            if (rules.leftover)(record, views[host as usize]).is_some() {
                out.push(Action::Sweep(host));
            }
        }
        if *views != [HostView::Silent; 2] {
            out.push(Action::ManagerCrash);
        }
        match self.decision(rules) {
            Decision::Nothing | Decision::Wait => {}
            Decision::Stay(_) => out.extend([Action::Act, Action::ActUnheard]),
            _ => out.push(Action::Act),
        }
        if let Some(pending) = &record.moving {
            if bounds.give_up && !pending.give_up {
                out.push(Action::GiveUp);
            }
            return;
        }
        if bounds.defines
            && let Some(defining) = self.defining()
            && defining.granted <= Generation(1 + bounds.grants)
        {
            out.push(Action::OrderDefine);
        }
        if record.granted < Generation(1 + bounds.grants) {
            if bounds.moves {
                out.push(Action::OrderMove { post_copy: false });
            }
            if bounds.post_copy {
                out.push(Action::OrderMove { post_copy: true });
            }
            if bounds.starts {
                out.push(Action::OrderStart);
            }
        }
        if bounds.starts && record.wanted == Wanted::Running {
            out.push(Action::OrderStop);
        }
        if bounds.saves {
            match record.wanted {
                Wanted::Running => out.push(Action::OrderSave),
                Wanted::Saved => out.push(Action::OrderDrop),
                Wanted::Stopped => {}
            }
            // Also again, when it was not answered.
            if record.granted < Generation(1 + bounds.grants) {
                out.push(Action::OrderRestore);
            }
        }
    }

    /// (i), (ii), (vii) and (viii), which must hold in every world.
    pub fn check(&self) -> Result<(), Violation> {
        if self.hosts.iter().all(|host| host.life.runs()) {
            return Err(Violation {
                broken: Broken::Twice,
                words: "processors run on host A and on host B".to_owned(),
            });
        }
        for host in Host::BOTH {
            let state = self.at(host);
            let may = match state.entry.holding {
                Holding::Running | Holding::Outgoing(_) | Holding::Stopped | Holding::Saving => {
                    true
                }
                // Between the journal and the switch to post-copy the source still runs; it is halted for good by
                // `StartPostCopy`, before the first `commit` leaves.
                Holding::Released(Grant { post_copy, .. }) => post_copy,
                Holding::Absent | Holding::Incoming(_) | Holding::Saved | Holding::Restoring => {
                    false
                }
            };
            if state.life.runs() && !may {
                return Err(Violation {
                    broken: Broken::RunsUnheld,
                    words: format!(
                        "processors run on host {host} although its journal says {}",
                        crate::words::entry(&state.entry)
                    ),
                });
            }
            if !state.life.runs() || self.fenced == state.entry.generation {
                continue;
            }
            let (broken, what) = match self.fenced < state.entry.generation {
                true => (Broken::Unfenced, "older exports may be left"),
                false => (Broken::CutOff, "its export was cut"),
            };
            return Err(Violation {
                broken,
                words: format!(
                    "processors run on host {host} under generation {}, the storage is fenced at {}: {what}",
                    state.entry.generation, self.fenced
                ),
            });
        }
        Ok(())
    }
}

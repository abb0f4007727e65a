//! The world driven fairly: everybody does the next thing, one named step at a time, until nothing is left to do.
//!
//! Two uses: from any world the exploration reaches, it shows that the world comes to rest well when no more faults
//! happen *and every message that was on its way is lost*; and it is what the fault table kills processes in.

use crate::apply::needs;
use crate::faults::Process;
use crate::words;
use crate::world::{
    Action, Broken, Failure, File, Host, Life, Message, Queue, Rules, Violation, World,
};
use estive_moves::{Decision, Effect, Holding, HostView, Input, Ownership, Seen};
use std::collections::VecDeque;

/// Before or after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Just before it.
    Before,
    /// Just after it.
    After,
}

/// One step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepName {
    /// Whose step.
    pub process: Process,
    /// What it did.
    pub name: String,
}

/// A process to be killed at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    pub step: usize,
    pub when: When,
    pub process: Process,
}

/// What somebody orders on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Define,
    Start,
    Stop,
    Move { post_copy: bool },
    GiveUp,
    Save,
    Restore,
}

/// So many rounds are far more than any scenario needs.
const ROUNDS_MAX: usize = 300;

/// A world being driven.
pub struct Run {
    /// The world.
    pub world: World,
    pub(crate) rules: Rules,
    inbox: [VecDeque<Input>; 2],
    /// Waits for an answer to "are you ready".
    asking: [bool; 2],
    outbox: VecDeque<Message>,
    pub(crate) manager_down: bool,
    /// The storage host's keeper of volumes is not there: nothing is granted, opened or cut.
    storage_down: bool,
    pub(crate) orders: VecDeque<Order>,
    /// Pre-copy converges by itself.
    pub(crate) converges: bool,
    /// An agent that could not ask its instance looks again until it can.
    pub(crate) looks: bool,
    /// A down process is started again at once, or when all others rest.
    pub(crate) restarts: bool,
    pub(crate) kills: Vec<Kill>,
    steps: usize,
    /// Something happened in this round.
    busy: bool,
    pub(crate) names: Option<Vec<StepName>>,
}

impl Run {
    /// Nothing is on its way.
    pub fn new(world: World, rules: Rules) -> Self {
        Self {
            world,
            rules,
            inbox: [VecDeque::new(), VecDeque::new()],
            asking: [false; 2],
            outbox: VecDeque::new(),
            manager_down: false,
            storage_down: false,
            orders: VecDeque::new(),
            converges: true,
            looks: false,
            restarts: true,
            kills: Vec::new(),
            steps: 0,
            busy: false,
            names: None,
        }
    }

    /// Takes one named step, unless its process is killed before it.
    fn point(
        &mut self,
        process: Process,
        name: impl FnOnce(&Self) -> String,
        act: impl FnOnce(&mut Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let step = self.steps;
        self.steps += 1;
        self.busy = true;
        if self.names.is_some() {
            let name = name(self);
            if let Some(names) = &mut self.names {
                names.push(StepName { process, name });
            }
        }
        let killed = self.kill_at(step, When::Before);
        if !killed.contains(&process) {
            act(self)?;
            self.world.check()?;
        }
        self.kill_at(step, When::After);
        Ok(())
    }

    fn kill_at(&mut self, step: usize, when: When) -> Vec<Process> {
        let due: Vec<Process> = self
            .kills
            .iter()
            .filter(|kill| kill.step == step && kill.when == when)
            .map(|kill| kill.process)
            .collect();
        for process in &due {
            self.kill(*process);
        }
        due
    }

    /// Kills a process, now.
    pub fn kill(&mut self, process: Process) {
        match process {
            Process::Command => self.orders.clear(),
            Process::Manager => {
                self.manager_down = true;
                self.outbox.clear();
                self.world.manager.views = [HostView::Silent; 2];
            }
            Process::Storage => self.storage_down = true,
            Process::Agent(host) => {
                let state = self.world.at_mut(host);
                state.queue = Queue::default();
                state.down = true;
                state.unfenced = false;
                self.inbox[host as usize].clear();
                self.asking[host as usize] = false;
            }
            Process::Instance(host) => {
                if self.world.at(host).life != Life::Gone {
                    let mut sent = Vec::new();
                    // Dying breaks no rule by itself.
                    let _ = self.world.apply(Action::Die(host), &self.rules, &mut sent);
                    self.carry(None, sent);
                }
            }
        }
    }

    fn restart(&mut self) -> Result<bool, Violation> {
        let mut any = std::mem::take(&mut self.manager_down);
        any |= std::mem::take(&mut self.storage_down);
        for host in Host::BOTH {
            if self.world.at(host).down {
                any = true;
                self.apply(Some(host), Action::Restart(host))?;
            }
        }
        Ok(any)
    }

    /// Brings messages to whoever is there.
    fn carry(&mut self, from: Option<Host>, sent: Vec<Message>) {
        for Message { to, input } in sent {
            if from == Some(to) && matches!(input, Input::Ready(_, false)) {
                // Not an answer: what it will take for one when none comes.
                self.asking[to as usize] = true;
            } else if !self.world.at(to).down {
                self.inbox[to as usize].push_back(input);
            }
        }
    }

    fn apply(&mut self, from: Option<Host>, action: Action) -> Result<(), Violation> {
        let mut sent = Vec::new();
        self.world.apply(action, &self.rules, &mut sent)?;
        self.carry(from, sent);
        Ok(())
    }

    /// Until nothing is left to do; what is down is started again.
    pub fn settle(&mut self) -> Result<(), Violation> {
        let mut retried = None;
        let mut in_vain = 0;
        for _ in 0..ROUNDS_MAX {
            if self.restarts {
                self.restart()?;
            }
            self.busy = false;
            self.round()?;
            if self.busy || self.restart()? {
                continue;
            }
            // Nobody has anything to do: what was not answered in time counts as not answered.
            let before = self.world.clone();
            // A retry may meet its own kill, of which there are two at most.
            in_vain = if retried.as_ref() == Some(&before) {
                in_vain + 1
            } else {
                0
            };
            if in_vain > self.kills.len() && self.asking == [false; 2] {
                return Ok(());
            }
            self.patience_ends();
            retried = Some(before);
        }
        Err(Violation {
            broken: Broken::Stuck,
            words: "left alone, it never comes to rest".to_owned(),
        })
    }

    fn patience_ends(&mut self) {
        for host in Host::BOTH {
            let waits = std::mem::take(&mut self.asking[host as usize]);
            match self.world.at(host).entry.holding {
                Holding::Outgoing(grant) if waits => {
                    self.inbox[host as usize].push_back(Input::Ready(grant.generation, false));
                }
                Holding::Released(grant) if !moves_on(self.world.at(host).life) => {
                    self.inbox[host.other() as usize].push_back(Input::Commit(grant.generation));
                }
                _ => {}
            }
        }
    }

    fn round(&mut self) -> Result<(), Violation> {
        self.command_turn()?;
        self.manager_turn()?;
        for host in Host::BOTH {
            self.agent_turn(host)?;
        }
        for host in Host::BOTH {
            self.instance_turn(host)?;
        }
        Ok(())
    }

    fn command_turn(&mut self) -> Result<(), Violation> {
        let Some(order) = self.orders.front().copied() else {
            return Ok(());
        };
        let record: &Ownership<Host> = &self.world.manager.record;
        if self.manager_down
            || order == Order::GiveUp
                && record.moving.is_some()
                && self.world.at(record.host).life != Life::Streaming
            // Asked first, see `manager_turn`.
            // Once it is saved.
            || order == Order::Restore && self.world.at(record.host).entry.holding != Holding::Saved
            || order == Order::Define && self.world.manager.views[record.host as usize] == HostView::Silent
        {
            return Ok(());
        }
        self.point(
            Process::Command,
            |_| format!("order {order:?}").to_lowercase(),
            |run| {
                run.orders.pop_front();
                run.manager_obeys(order)
            },
        )
    }

    /// The manager's first step of an order; what it sends are steps of their own.
    fn manager_obeys(&mut self, order: Order) -> Result<(), Violation> {
        let action = match order {
            Order::Define => Action::OrderDefine,
            Order::Start => Action::OrderStart,
            Order::Stop => Action::OrderStop,
            Order::Move { post_copy } => Action::OrderMove { post_copy },
            Order::GiveUp => Action::GiveUp,
            Order::Save => Action::OrderSave,
            Order::Restore => Action::OrderRestore,
        };
        self.point(
            Process::Manager,
            |_| format!("write {order:?}").to_lowercase(),
            |run| run.manager_does(action),
        )
    }

    fn manager_does(&mut self, action: Action) -> Result<(), Violation> {
        let mut sent = Vec::new();
        self.world.apply(action, &self.rules, &mut sent)?;
        self.outbox.extend(sent);
        Ok(())
    }

    fn manager_turn(&mut self) -> Result<(), Violation> {
        if self.manager_down {
            return Ok(());
        }
        if let Some(message) = self.outbox.pop_front() {
            if !self.is_granted(message)? {
                return Ok(());
            }
            return self.point(
                Process::Manager,
                |run| Action::Deliver(message).words(&run.world, &run.rules),
                |run| {
                    run.carry(None, vec![message]);
                    Ok(())
                },
            );
        }
        for host in Host::BOTH {
            // An agent answers between two steps, never within one: else a manager that is started again while an
            // instance is being made takes it for dead and gives the move up.
            let within = !self.world.at(host).queue.is_empty();
            if !within && self.world.view(host) != self.world.manager.views[host as usize] {
                self.point(
                    Process::Manager,
                    |_| format!("read the journal of {host}"),
                    |run| run.manager_does(Action::Poll(host)),
                )?;
                if self.manager_down {
                    return Ok(());
                }
            }
        }
        let decision = self.world.decision(&self.rules);
        if !matches!(decision, Decision::Nothing | Decision::Wait) && self.would_matter(decision) {
            let revoked = |run: &mut Self| match decision {
                Decision::Stay(generation) => {
                    let what = format!("take generation {generation} back");
                    run.storage_does(&what, |world| world.revoke(generation))
                        .map(drop)
                }
                _ => Ok(()),
            };
            if !self.rules.revokes_late {
                revoked(self)?;
            }
            if self.manager_down {
                return Ok(());
            }
            self.point(
                Process::Manager,
                |_| words::decision(decision),
                |run| run.manager_does(Action::Act),
            )?;
            if self.rules.revokes_late && !self.manager_down {
                revoked(self)?;
            }
            return Ok(());
        }
        for host in Host::BOTH {
            let manager = &self.world.manager;
            if (self.rules.leftover)(&manager.record, manager.views[host as usize]).is_some()
                && self.idle(host)
            {
                self.point(
                    Process::Manager,
                    |_| format!("tell {host} to discard what is left over"),
                    |run| run.manager_does(Action::Sweep(host)),
                )?;
            }
        }
        Ok(())
    }

    /// Whether the storage has granted what an order needs. Without its word the order is not given, and a move is
    /// given up.
    fn is_granted(&mut self, message: Message) -> Result<bool, Violation> {
        let Some(generation) = needs(message.input) else {
            return Ok(true);
        };
        let what = format!("grant generation {generation} to {}", message.to);
        let granted = self.storage_does(&what, |world| world.grant(message))?;
        if !granted && !self.manager_down && matches!(message.input, Input::Prepare(_)) {
            self.point(
                Process::Manager,
                |_| "write giveup".to_owned(),
                |run| run.manager_does(Action::GiveUp),
            )?;
        }
        Ok(granted)
    }

    /// The manager asks, the storage does it. Whether the manager has heard that it was done.
    fn storage_does(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut World),
    ) -> Result<bool, Violation> {
        let mut asked = false;
        self.point(
            Process::Manager,
            |_| format!("ask the storage to {what}"),
            |_| {
                asked = true;
                Ok(())
            },
        )?;
        if !asked || self.storage_down {
            return Ok(false);
        }
        self.point(
            Process::Storage,
            |_| what.to_owned(),
            |run| {
                act(&mut run.world);
                Ok(())
            },
        )?;
        Ok(!self.storage_down && !self.manager_down)
    }

    fn idle(&self, host: Host) -> bool {
        let state = self.world.at(host);
        !state.down && state.queue.is_empty() && self.inbox[host as usize].is_empty()
    }

    /// The manager does not repeat an order while the agent is still busy with it, nor to one that is not there.
    fn would_matter(&self, decision: Decision) -> bool {
        let source = self.world.manager.record.host;
        match decision {
            Decision::Prepare(_) => self.idle(source.other()),
            Decision::Send(_) | Decision::Abort(_) => self.idle(source),
            _ => true,
        }
    }

    fn agent_turn(&mut self, host: Host) -> Result<(), Violation> {
        let state = *self.world.at(host);
        if state.down {
            return Ok(());
        }
        if let Some(effect) = state.queue.first() {
            let asks_storage = matches!(
                effect,
                Effect::Create
                    | Effect::CreateIncoming(_)
                    | Effect::CreateRestored
                    | Effect::Fence(_)
            );
            return self.point(
                Process::Agent(host),
                |_| words::effect(effect),
                |run| match asks_storage && run.storage_down {
                    true => run.apply(Some(host), Action::DoInVain(host)),
                    false => run.apply(Some(host), Action::Do(host)),
                },
            );
        }
        let matters = |input: Input| {
            // What changes nothing is no step.
            let effects = (self.rules.step)(&state.entry, state.life.seen(), input);
            !Queue::filled(effects, input).is_empty()
        };
        let mut heard = None;
        while let Some(input) = self.inbox[host as usize].pop_front() {
            if matches!(input, Input::Ready(..)) {
                self.asking[host as usize] = false;
            }
            if matters(input) {
                heard = Some(input);
                break;
            }
            self.busy = true;
        }
        let Some(input) = heard.or_else(|| self.noticed(host).filter(|input| matters(*input)))
        else {
            return Ok(());
        };
        let heard = Message { to: host, input };
        self.point(
            Process::Agent(host),
            |run| Action::Deliver(heard).words(&run.world, &run.rules),
            |run| run.apply(Some(host), Action::Deliver(heard)),
        )
    }

    /// What an agent with nothing else to do sees in its instance.
    fn noticed(&self, host: Host) -> Option<Input> {
        let state = self.world.at(host);
        match (state.entry.holding, state.life) {
            // The commit is retried when its patience ends; before the first one, the processors must be halted.
            (Holding::Released(_), life) => {
                (self.looks && moves_on(life)).then_some(Input::Restarted)
            }
            (Holding::Outgoing(_), _) if self.asking[host as usize] => None,
            (Holding::Outgoing(_) | Holding::Running, Life::Sent) => Some(Input::StreamSent),
            (Holding::Outgoing(_) | Holding::Saving | Holding::Restoring, Life::Gone) => {
                Some(Input::InstanceGone)
            }
            (Holding::Outgoing(_), Life::Running) => Some(Input::StreamFailed),
            (Holding::Outgoing(grant), Life::Streaming) if grant.post_copy && !self.converges => {
                Some(Input::SwitchToPostCopy)
            }
            _ if self.looks || self.world.at(host).unfenced && !self.storage_down => {
                Some(Input::Restarted)
            }
            _ => None,
        }
    }

    fn instance_turn(&mut self, host: Host) -> Result<(), Violation> {
        let linked = self.world.link == Some(host);
        let held = self.world.at(host).entry.holding;
        let action = match self.world.at(host).life {
            Life::Streaming if linked => {
                let waits = !self.converges
                    && matches!(held, Holding::Outgoing(grant) if grant.post_copy)
                    || self.orders.front() == Some(&Order::GiveUp)
                    || self
                        .world
                        .manager
                        .record
                        .moving
                        .as_ref()
                        .is_some_and(|m| m.give_up)
                        && matches!(held, Holding::Outgoing(_));
                if waits {
                    return Ok(());
                }
                Action::Switch(host)
            }
            Life::Switching if linked => Action::Complete(host),
            // Late, so that what must wait for it is seen to wait.
            Life::Following if linked => {
                let other = self.world.at(host.other());
                if matches!(other.entry.holding, Holding::Incoming(_)) || !self.idle(host) {
                    return Ok(());
                }
                Action::RestArrives(host)
            }
            Life::Streaming | Life::Switching => Action::Fail(host, Failure::DestinationWaits),
            // Its stream was connected once (else the source would not have released it) and is cut.
            Life::Awaiting(granted)
                if self.world.link.is_none()
                    && matches!(
                        self.world.at(host.other()).entry.holding,
                        Holding::Released(grant) if grant.generation == granted
                    ) =>
            {
                Action::IncomingExits(host)
            }
            _ => return Ok(()),
        };
        self.point(
            Process::Instance(host),
            |run| action.words(&run.world, &run.rules),
            |run| {
                // Another process may have been killed just before.
                let possible = match action {
                    Action::Fail(..) | Action::IncomingExits(_) => {
                        run.world.at(host).life != Life::Gone
                    }
                    _ => run.world.link == Some(host),
                };
                if possible {
                    run.apply(None, action)
                } else {
                    Ok(())
                }
            },
        )
    }

    /// (v): at rest it is held once, by the owner that the store names, and nothing half-made is left.
    pub fn at_rest(&self) -> Result<(), Violation> {
        let record = &self.world.manager.record;
        let owner = self.world.at(record.host);
        let other = self.world.at(record.host.other());
        let stuck = |words: &str| {
            Err(Violation {
                broken: Broken::Stuck,
                words: format!("left alone, it rests, but {words}:\n{}", self.world),
            })
        };
        if record.moving.is_some() {
            return stuck("the move stays open");
        }
        let held = match owner.entry.holding {
            // Gone: it has crashed, and is shown so.
            Holding::Running => matches!(owner.life, Life::Running | Life::Gone),
            Holding::Stopped => owner.life == Life::Gone,
            Holding::Saved => owner.life == Life::Gone && owner.file == File::Good,
            _ => false,
        };
        if !held {
            return stuck("its owner does not hold it as it should");
        }
        if other.entry.holding != Holding::Absent || other.life != Life::Gone {
            return stuck("something is left on the other host");
        }
        if owner.partial {
            return stuck("pages are still missing");
        }
        // What a storage host that was dead has not heard, the next fence does.
        let heard = !self
            .kills
            .iter()
            .any(|kill| kill.process == Process::Storage);
        if other.granted > owner.entry.generation && heard {
            return Err(Violation {
                broken: Broken::GrantLeft,
                words: format!(
                    "left alone, it rests, and who does not have it may open its volume:\n{}",
                    self.world
                ),
            });
        }
        Ok(())
    }

    /// (vi): the next move succeeds at once, after a start when it does not run.
    pub fn next_move(&mut self) -> Result<(), Violation> {
        let from = self.world.manager.record.host;
        let fails = |run: &Self, words: &str| {
            Err(Violation {
                broken: Broken::NextMoveFails,
                words: format!("{words}:\n{}", run.world),
            })
        };
        self.kills.clear();
        self.orders.clear();
        if self.world.at(from).life != Life::Running {
            let order = match self.world.at(from).entry.holding {
                Holding::Saved => Order::Restore,
                _ => Order::Start,
            };
            self.orders.push_back(order);
            self.settle()?;
            if self.world.at(from).life.seen() != Seen::Running {
                return fails(self, "the next start does not make it run");
            }
        }
        self.orders.push_back(Order::Move { post_copy: false });
        self.settle()?;
        self.at_rest()?;
        let record = &self.world.manager.record;
        if record.host == from || self.world.at(record.host).life != Life::Running {
            return fails(self, "the next move does not succeed");
        }
        Ok(())
    }

    /// How many steps were taken.
    pub fn steps(&self) -> usize {
        self.steps
    }
}

/// Processors run, or may run again by themselves.
fn moves_on(life: Life) -> bool {
    life.runs() || life == Life::Switching
}

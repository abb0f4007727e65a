//! What changes when something happens.

use crate::world::{
    Action, Broken, Failure, File, Host, HostState, Life, Message, Queue, Rules, Violation, World,
};
use estive_model::Generation;
use estive_moves::{
    Answer, Decision, Effect, Entry, Grant, Holding, HostView, Input, Seen, Wanted,
};

fn broken(broken: Broken, words: impl Into<String>) -> Violation {
    Violation {
        broken,
        words: words.into(),
    }
}

impl World {
    /// As [`World::apply`], with a storage that always answers: what the manager sends is granted before, and what was
    /// granted for a move is taken back before it is written that the move is over.
    pub fn apply_granting(
        &mut self,
        action: Action,
        rules: &Rules,
        sent: &mut Vec<Message>,
    ) -> Result<(), Violation> {
        if matches!(action, Action::Act | Action::ActUnheard)
            && let Decision::Stay(generation) = self.decision(rules)
        {
            self.revoke(generation);
        }
        let before = sent.len();
        self.apply(action, rules, sent)?;
        for message in sent.iter().skip(before) {
            self.grant(*message);
        }
        Ok(())
    }

    /// The storage grants what an order of the manager needs.
    pub(crate) fn grant(&mut self, message: Message) {
        if let Some(generation) = needs(message.input) {
            let state = self.at_mut(message.to);
            state.granted = state.granted.max(generation);
        }
    }

    /// The storage takes back what was granted to the destination of the open move.
    pub(crate) fn revoke(&mut self, generation: Generation) {
        let destination = self.manager.record.host.other();
        let state = self.at_mut(destination);
        if state.granted == generation {
            state.granted = Generation(0);
        }
    }

    /// Lets `action` happen. What is sent is added to `sent`. An action that is not possible now changes nothing.
    pub fn apply(
        &mut self,
        action: Action,
        rules: &Rules,
        sent: &mut Vec<Message>,
    ) -> Result<(), Violation> {
        match action {
            Action::Deliver(message) => self.tell(message.to, message.input, rules),
            Action::DeliverUnclear(message) => {
                self.tell_seeing(message.to, Seen::Unclear, message.input, rules);
            }
            Action::Do(host) => self.do_next(host, rules, sent)?,
            Action::DoInVain(host) => self.do_in_vain(host, rules),
            Action::Crash(host) => {
                self.crashes_left[host as usize] =
                    self.crashes_left[host as usize].saturating_sub(1);
                let state = self.at_mut(host);
                state.queue = Queue::default();
                state.down = true;
                state.unfenced = false;
            }
            Action::Restart(host) => {
                self.at_mut(host).down = false;
                self.tell(host, Input::Restarted, rules);
            }
            Action::RestartUnclear(host) => {
                self.at_mut(host).down = false;
                self.tell_seeing(host, Seen::Unclear, Input::Restarted, rules);
            }
            Action::Look(host) => self.tell(host, Input::Restarted, rules),
            Action::PostCopy(host) => self.tell(host, Input::SwitchToPostCopy, rules),
            Action::Poll(host) => self.manager.views[host as usize] = self.view(host),
            Action::Act => self.act(rules, sent, true)?,
            Action::ActUnheard => self.act(rules, sent, false)?,
            Action::Sweep(host) => {
                let view = self.manager.views[host as usize];
                if let Some(generation) = (rules.leftover)(&self.manager.record, view) {
                    sent.push(Message {
                        to: host,
                        input: Input::Discard(generation),
                    });
                }
            }
            Action::ManagerCrash => self.manager.views = [HostView::Silent; 2],
            Action::OrderMove { post_copy } => {
                let record = &self.manager.record;
                if let Some(ordered) = record.ordered(record.host.other(), post_copy) {
                    self.manager.record = ordered;
                }
            }
            Action::GiveUp => {
                if let Some(pending) = &mut self.manager.record.moving {
                    pending.give_up = true;
                }
            }
            Action::OrderStart => {
                if let Some(starting) = self.manager.record.starting() {
                    sent.push(Message {
                        to: starting.host,
                        input: Input::Start(starting.generation),
                    });
                    self.manager.record = starting;
                }
            }
            Action::OrderDefine => {
                if let Some(defining) = self.defining() {
                    sent.push(Message {
                        to: defining.host,
                        input: Input::Define(defining.generation),
                    });
                    self.manager.record = defining;
                }
            }
            Action::OrderStop => {
                self.manager.record.wanted = Wanted::Stopped;
                sent.push(Message {
                    to: self.manager.record.host,
                    input: Input::Stop,
                });
            }
            Action::OrderSave => {
                if let Some(saving) = self.manager.record.saving() {
                    sent.push(Message {
                        to: saving.host,
                        input: Input::Save(saving.generation),
                    });
                    self.manager.record = saving;
                }
            }
            Action::OrderRestore => {
                if let Some(starting) = self.manager.record.starting() {
                    sent.push(Message {
                        to: starting.host,
                        input: Input::Restore(starting.generation),
                    });
                    self.manager.record = starting;
                }
            }
            Action::OrderDrop => {
                self.manager.record.wanted = Wanted::Stopped;
                sent.push(Message {
                    to: self.manager.record.host,
                    input: Input::DropSaved,
                });
            }
            Action::Switch(host) => self.at_mut(host).life = Life::Switching,
            Action::Complete(host) => {
                self.at_mut(host).life = Life::Sent;
                self.link = None;
                self.loaded(host.other(), rules);
                self.happened(host, Input::StreamSent, sent);
            }
            Action::Fail(host, how) => self.fail(host, how, rules, sent),
            Action::RestArrives(host) => {
                self.at_mut(host).life = Life::Sent;
                self.at_mut(host.other()).partial = false;
                self.link = None;
                self.happened(host, Input::StreamSent, sent);
            }
            Action::PostCopyFails(host) => {
                self.excused = true;
                self.end(host.other(), sent);
            }
            Action::Die(host) => {
                self.deaths_left = self.deaths_left.saturating_sub(1);
                self.excused |= self.at(host).life.holds_memory();
                self.end(host, sent);
            }
            Action::IncomingExits(host) => self.end(host, sent),
        }
        Ok(())
    }

    /// An agent is told something, and sees its instance as it is.
    pub(crate) fn tell(&mut self, host: Host, input: Input, rules: &Rules) {
        self.tell_seeing(host, self.at(host).life.seen(), input, rules);
    }

    fn tell_seeing(&mut self, host: Host, seen: Seen, input: Input, rules: &Rules) {
        let state = self.at_mut(host);
        let effects = (rules.step)(&state.entry, seen, input);
        if input == Input::Restarted {
            state.unfenced = false;
        }
        state.queue = Queue::filled(effects, input);
    }

    /// An event of the instance, heard only by an agent that is there.
    fn happened(&self, host: Host, input: Input, sent: &mut Vec<Message>) {
        if !self.at(host).down {
            sent.push(Message { to: host, input });
        }
    }

    fn loaded(&mut self, host: Host, rules: &Rules) {
        self.at_mut(host).life = if rules.runs_by_itself {
            Life::Running
        } else {
            Life::Loaded
        };
    }

    /// An instance ends, for whatever reason.
    fn end(&mut self, host: Host, sent: &mut Vec<Message>) {
        let other = host.other();
        if self.link == Some(host) {
            self.link = None;
            if self.at(other).partial {
                // Its missing pages are gone.
                self.end(other, sent);
            }
        } else if self.link == Some(other) {
            self.link = None;
            if self.at(other).life == Life::Following {
                self.at_mut(other).life = Life::Paused;
                self.happened(other, Input::StreamFailed, sent);
            }
        }
        let state = self.at_mut(host);
        state.life = Life::Gone;
        state.partial = false;
        state.restored = false;
        self.happened(host, Input::InstanceGone, sent);
    }

    fn fail(&mut self, host: Host, how: Failure, rules: &Rules, sent: &mut Vec<Message>) {
        // A source of post-copy that has just released: the network has taken it, the rules must not give it back.
        self.excused |= matches!(self.at(host).entry.holding, Holding::Released(_));
        let linked = self.link == Some(host);
        self.link = None;
        self.at_mut(host).life = Life::Running;
        self.happened(host, Input::StreamFailed, sent);
        if linked {
            match how {
                Failure::DestinationGone => self.end(host.other(), sent),
                Failure::DestinationWaits => {}
                Failure::DestinationLoaded => self.loaded(host.other(), rules),
            }
        }
    }

    fn do_in_vain(&mut self, host: Host, rules: &Rules) {
        let Some(effect) = self.at(host).queue.first() else {
            return;
        };
        let heard = match effect {
            Effect::Create | Effect::CreateIncoming(_) | Effect::CreateRestored => {
                Input::CreateFailed
            }
            Effect::SaveState => Input::SaveFailed,
            // Nothing was made yet: what was saved waits for the next time.
            Effect::Fence(_) if self.at(host).entry.holding == Holding::Restoring => {
                Input::CreateFailed
            }
            Effect::StartStream(_) => Input::StreamFailed,
            // The storage is silent: the processors are not started, and the agent looks again.
            Effect::Fence(_) => {
                self.at_mut(host).queue = Queue::default();
                self.at_mut(host).unfenced = true;
                return;
            }
            _ => {
                self.at_mut(host).queue.pop();
                return;
            }
        };
        // The rest of the step is not done.
        self.tell(host, heard, rules);
    }

    fn do_next(
        &mut self,
        host: Host,
        rules: &Rules,
        sent: &mut Vec<Message>,
    ) -> Result<(), Violation> {
        let state = *self.at(host);
        let Some(effect) = state.queue.first() else {
            return Ok(());
        };
        match effect {
            Effect::Create | Effect::CreateIncoming(_) | Effect::CreateRestored
                if state.life != Life::Gone =>
            {
                self.do_in_vain(host, rules);
                return Ok(());
            }
            // An export below the fence, or one that is not granted, is refused: there is no instance of that generation.
            Effect::Create | Effect::CreateRestored
                if !self.lets_in(&state, state.entry.generation) =>
            {
                self.do_in_vain(host, rules);
                return Ok(());
            }
            Effect::CreateIncoming(grant) if !self.lets_in(&state, grant.generation) => {
                self.do_in_vain(host, rules);
                return Ok(());
            }
            // Refused for good.
            Effect::Fence(generation) if state.granted < generation => {
                if state.entry.holding == Holding::Restoring {
                    self.do_in_vain(host, rules);
                    return Ok(());
                }
                return Err(broken(
                    Broken::Ungranted,
                    format!(
                        "host {host} must run it under generation {generation}, and was granted {}",
                        state.granted
                    ),
                ));
            }
            Effect::CreateRestored if state.file == File::None => {
                self.do_in_vain(host, rules);
                return Ok(());
            }
            Effect::SaveState if state.life != Life::Running => {
                self.do_in_vain(host, rules);
                return Ok(());
            }
            Effect::StartStream(_) if state.life != Life::Running => {
                self.do_in_vain(host, rules);
                return Ok(());
            }
            _ => self.at_mut(host).queue.pop(),
        }
        let other = host.other();
        match effect {
            Effect::Persist(entry) => self.persist(host, entry)?,
            Effect::Create => {
                self.at_mut(host).life = Life::Prelaunch;
                self.excused = false;
            }
            Effect::CreateIncoming(grant) => {
                self.at_mut(host).life = Life::Awaiting(grant.generation);
            }
            Effect::Fence(generation) => {
                self.fenced = self.fenced.max(generation);
                for each in Host::BOTH {
                    if self.at(each).granted < self.fenced {
                        self.at_mut(each).granted = Generation(0);
                    }
                }
            }
            Effect::Resume => {
                if matches!(
                    state.life,
                    Life::Prelaunch | Life::Paused | Life::Sent | Life::Loaded | Life::Following
                ) {
                    self.at_mut(host).life = Life::Running;
                    self.gone_on(host)?;
                }
            }
            Effect::CreateRestored => {
                let state = self.at_mut(host);
                state.life = Life::Loaded;
                state.restored = true;
                self.excused = false;
            }
            Effect::SaveState => {
                let state = self.at_mut(host);
                state.life = Life::Sent;
                state.file = File::Good;
            }
            Effect::Kill => self.kill(host, sent)?,
            Effect::StartStream(Grant { generation, .. }) => {
                self.at_mut(host).life = Life::Streaming;
                if self.at(other).life == Life::Awaiting(generation) && self.link.is_none() {
                    self.link = Some(host);
                }
            }
            Effect::CancelStream => {
                if matches!(state.life, Life::Streaming | Life::Switching) {
                    self.at_mut(host).life = Life::Running;
                    if self.link == Some(host) {
                        self.link = None;
                    }
                }
            }
            Effect::StartPostCopy => self.start_post_copy(host),
            Effect::AskReady(Grant { generation, .. }) => {
                sent.push(Message {
                    to: other,
                    input: Input::AskReady(generation),
                });
                // When it does not answer in time.
                sent.push(Message {
                    to: host,
                    input: Input::Ready(generation, false),
                });
            }
            Effect::SendCommit(Grant { generation, .. }) => sent.push(Message {
                to: other,
                input: Input::Commit(generation),
            }),
            Effect::Answer(answer) => {
                let asked = state.queue.asked;
                let input = match answer {
                    Answer::Ready(ready) => Input::Ready(asked, ready),
                    Answer::Committed(outcome) => Input::Committed(asked, outcome),
                    _ => return Ok(()),
                };
                sent.push(Message { to: other, input });
            }
        }
        Ok(())
    }

    fn lets_in(&self, host: &HostState, generation: Generation) -> bool {
        generation >= self.fenced && generation <= host.granted
    }

    /// Processors have been started on a host: whatever was saved before is worthless from now on.
    fn gone_on(&mut self, host: Host) -> Result<(), Violation> {
        let state = *self.at(host);
        self.at_mut(host).restored = false;
        for each in Host::BOTH {
            if self.at(each).file == File::Good {
                self.at_mut(each).file = File::Stale;
            }
        }
        match state.restored && state.file != File::Good {
            true => Err(broken(
                Broken::RestoredTwice,
                format!("it runs on host {host} from what was saved, and has gone on since"),
            )),
            false => Ok(()),
        }
    }

    fn start_post_copy(&mut self, host: Host) {
        let linked = self.link == Some(host);
        let state = self.at_mut(host);
        match state.life {
            Life::Streaming | Life::Switching if linked => {
                state.life = Life::Following;
                let destination = self.at_mut(host.other());
                destination.life = Life::Loaded;
                destination.partial = true;
            }
            Life::Streaming | Life::Switching | Life::Running => state.life = Life::Paused,
            _ => {}
        }
    }

    fn persist(&mut self, host: Host, entry: Entry) -> Result<(), Violation> {
        let state = self.at_mut(host);
        let before = std::mem::replace(&mut state.entry, entry);
        let is_anew = entry.holding == Holding::Stopped && entry.generation != before.generation;
        if is_anew && state.life != Life::Gone {
            return Err(broken(
                Broken::ReplacedUnderIt,
                format!(
                    "host {host} made it anew as generation {}, and an instance of generation {} stood",
                    entry.generation, before.generation
                ),
            ));
        }
        if entry.floor < before.floor || entry.generation < before.generation {
            return Err(broken(
                Broken::WentBack,
                format!(
                    "the journal of host {host} went from generation {} floor {} to {} floor {}",
                    before.generation, before.floor, entry.generation, entry.floor
                ),
            ));
        }
        Ok(())
    }

    fn kill(&mut self, host: Host, sent: &mut Vec<Message>) -> Result<(), Violation> {
        let state: HostState = *self.at(host);
        let other: HostState = *self.at(host.other());
        let lost = state.life.holds_memory()
            && !self.excused
            && match state.entry.holding {
                Holding::Stopped => false,
                Holding::Running | Holding::Outgoing(_) | Holding::Saving => true,
                Holding::Saved | Holding::Restoring => state.file != File::Good,
                Holding::Released(grant) => {
                    other.partial || other.entry.generation < grant.generation
                }
                Holding::Incoming(_) | Holding::Absent => {
                    matches!(other.entry.holding, Holding::Released(_))
                }
            };
        self.end(host, sent);
        if lost {
            return Err(broken(
                Broken::LostByRules,
                format!("host {host} ended the instance on which the guest's memory depended"),
            ));
        }
        Ok(())
    }

    fn act(
        &mut self,
        rules: &Rules,
        sent: &mut Vec<Message>,
        heard: bool,
    ) -> Result<(), Violation> {
        let decision = self.decision(rules);
        let record = &self.manager.record;
        let (source, destination) = (record.host, record.host.other());
        let mut send = |to: Host, input: Input| sent.push(Message { to, input });
        match decision {
            Decision::Nothing | Decision::Wait => {}
            Decision::Prepare(grant) => send(destination, Input::Prepare(grant)),
            Decision::Send(grant) => send(source, Input::Move(grant)),
            Decision::Abort(generation) => send(source, Input::Abort(generation)),
            Decision::Stay(generation) => {
                if heard {
                    send(destination, Input::Discard(generation));
                }
                self.manager.record = record.stayed();
            }
            Decision::Commit => {
                let committed = record.committed();
                let taken = self.at(committed.host).entry.generation;
                let granted: Generation = committed.generation;
                self.manager.record = committed;
                if taken < granted {
                    return Err(broken(
                        Broken::OwnerHasNotTaken,
                        format!(
                            "the store names host {destination} as owner under generation {granted}, \
                             its journal has only {taken}"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The generation that must be granted before an agent is told this.
pub(crate) fn needs(input: Input) -> Option<Generation> {
    match input {
        Input::Start(generation) | Input::Restore(generation) => Some(generation),
        Input::Prepare(grant) => Some(grant.generation),
        _ => None,
    }
}

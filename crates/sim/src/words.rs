//! The simulated world in readable words.

use crate::world::{Action, Failure, File, Host, Life, Message, World};
use estive_moves::{Answer, Decision, Effect, Entry, Grant, Holding, HostView, Input, Ownership};
use std::fmt;

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

fn grant(grant: Grant) -> String {
    let how = if grant.post_copy {
        ", post-copy allowed"
    } else {
        ""
    };
    format!("{}{how}", grant.generation)
}

fn holding(held: Holding) -> String {
    match held {
        Holding::Absent => "absent".to_owned(),
        Holding::Stopped => "stopped".to_owned(),
        Holding::Running => "running".to_owned(),
        Holding::Outgoing(held) => format!("outgoing({})", grant(held)),
        Holding::Released(held) => format!("released({})", grant(held)),
        Holding::Incoming(held) => format!("incoming({})", grant(held)),
        Holding::Saving => "saving".to_owned(),
        Holding::Saved => "saved".to_owned(),
        Holding::Restoring => "restoring".to_owned(),
    }
}

pub(crate) fn entry(entry: &Entry) -> String {
    format!(
        "{} generation {} floor {}",
        holding(entry.holding),
        entry.generation,
        entry.floor
    )
}

fn input(input: Input) -> String {
    match input {
        Input::Define(generation) => format!("define {generation}"),
        Input::Start(generation) => format!("start {generation}"),
        Input::Stop => "stop".to_owned(),
        Input::Forget => "forget".to_owned(),
        Input::Save(generation) => format!("save {generation}"),
        Input::Restore(generation) => format!("restore {generation}"),
        Input::DropSaved => "drop what was saved".to_owned(),
        Input::SaveFailed => "its memory could not be written".to_owned(),
        Input::Prepare(given) => format!("prepare {}", grant(given)),
        Input::Move(given) => format!("move {}", grant(given)),
        Input::Abort(generation) => format!("abort {generation}"),
        Input::Discard(generation) => format!("discard {generation}"),
        Input::AskReady(generation) => format!("are you ready for {generation}?"),
        Input::Commit(generation) => format!("commit {generation}"),
        Input::StreamSent => "the stream was sent".to_owned(),
        Input::StreamFailed => "the stream failed".to_owned(),
        Input::SwitchToPostCopy => "switch to post-copy".to_owned(),
        Input::InstanceGone => "the instance is gone".to_owned(),
        Input::CreateFailed => "the instance could not be made".to_owned(),
        Input::Ready(generation, true) => format!("ready for {generation}"),
        Input::Ready(generation, false) => format!("not ready for {generation}, or no answer"),
        Input::Committed(generation, outcome) => format!("committed {generation}: {outcome:?}"),
        Input::Restarted => "restarted".to_owned(),
    }
}

/// Short and the same for every run: a fault point's name.
pub(crate) fn effect(effect: Effect) -> String {
    match effect {
        Effect::Persist(written) => format!("write {}", entry(&written)),
        Effect::Create => "make the instance".to_owned(),
        Effect::CreateIncoming(given) => {
            format!("make the instance that awaits {}", grant(given))
        }
        Effect::CreateRestored => "make the instance of what was saved".to_owned(),
        Effect::SaveState => "write its memory".to_owned(),
        Effect::Fence(generation) => format!("have the storage cut all below {generation}"),
        Effect::Resume => "start the processors".to_owned(),
        Effect::Kill => "end the instance".to_owned(),
        Effect::StartStream(given) => format!("start the stream {}", grant(given)),
        Effect::CancelStream => "cancel the stream".to_owned(),
        Effect::StartPostCopy => "halt, let the rest of memory follow".to_owned(),
        Effect::AskReady(given) => format!("ask whether ready for {}", given.generation),
        Effect::SendCommit(given) => format!("send commit {}", given.generation),
        Effect::Answer(answer) => match answer {
            Answer::Ready(ready) => format!("answer ready={ready}"),
            Answer::Committed(outcome) => format!("answer committed: {outcome:?}"),
            other => format!("answer {other:?}"),
        },
    }
}

pub(crate) fn decision(decision: Decision) -> String {
    match decision {
        Decision::Nothing => "nothing".to_owned(),
        Decision::Wait => "wait".to_owned(),
        Decision::Prepare(given) => format!("tell the destination: prepare {}", grant(given)),
        Decision::Send(given) => format!("tell the source: move {}", grant(given)),
        Decision::Abort(generation) => format!("tell the source: abort {generation}"),
        Decision::Stay(generation) => {
            format!("tell the destination: discard {generation}; write: stayed")
        }
        Decision::Commit => "write: the destination owns it".to_owned(),
    }
}

fn record(record: &Ownership<Host>) -> String {
    let moving = match &record.moving {
        None => String::new(),
        Some(pending) => format!(
            ", moving {} to {}{}",
            grant(pending.grant),
            pending.destination,
            if pending.give_up { ", given up" } else { "" }
        ),
    };
    format!(
        "owner {} generation {} granted {}{moving}",
        record.host, record.generation, record.granted
    )
}

fn message(sent: Message) -> String {
    format!("agent {} is told: {}", sent.to, input(sent.input))
}

impl Action {
    /// What happens, given the world in which it does.
    pub(crate) fn words(&self, world: &World, rules: &crate::world::Rules) -> String {
        let next = |host: Host| {
            world
                .at(host)
                .queue
                .first()
                .map_or_else(|| "nothing".to_owned(), effect)
        };
        match *self {
            Self::Deliver(sent) => message(sent),
            Self::DeliverUnclear(sent) => format!("{} (its instance is unclear)", message(sent)),
            Self::Do(host) => format!("agent {host}: {}", next(host)),
            Self::DoInVain(host) => format!("agent {host}: {} (in vain)", next(host)),
            Self::Crash(host) => format!("agent {host} dies"),
            Self::Restart(host) => format!("agent {host} is started again"),
            Self::RestartUnclear(host) => {
                format!("agent {host} is started again (its instance is unclear)")
            }
            Self::Look(host) => format!("agent {host} looks at its instance"),
            Self::PostCopy(host) => format!("agent {host} finds that pre-copy does not converge"),
            Self::Poll(host) => format!("the manager reads the journal of {host}"),
            Self::Act => format!("manager: {}", decision(world.decision(rules))),
            Self::ActUnheard => "manager: write: stayed (the destination did not hear)".to_owned(),
            Self::Sweep(host) => format!("manager: tell {host} to discard what is left over"),
            Self::ManagerCrash => "the manager dies and is started again".to_owned(),
            Self::OrderMove { post_copy } => format!(
                "a move to {} is ordered{}",
                world.manager.record.host.other(),
                if post_copy { ", post-copy allowed" } else { "" }
            ),
            Self::GiveUp => "the move is given up".to_owned(),
            Self::OrderDefine => "it is to be made anew, of something else".to_owned(),
            Self::OrderStart => "a start is ordered".to_owned(),
            Self::OrderStop => "a stop is ordered".to_owned(),
            Self::OrderSave => "a save is ordered".to_owned(),
            Self::OrderRestore => "a restore is ordered".to_owned(),
            Self::OrderDrop => "what was saved is to be dropped".to_owned(),
            Self::Switch(host) => format!("stream from {host}: last part, processors halted"),
            Self::Complete(host) => format!("stream from {host}: complete and loaded"),
            Self::Fail(host, how) => format!(
                "stream from {host} fails; the destination {}",
                match how {
                    Failure::DestinationGone => "ends",
                    Failure::DestinationWaits => "goes on waiting",
                    Failure::DestinationLoaded => "has loaded everything",
                }
            ),
            Self::RestArrives(host) => format!("stream from {host}: the rest has arrived"),
            Self::PostCopyFails(host) => format!("stream from {host} is cut during post-copy"),
            Self::Die(host) => format!("the instance on {host} dies"),
            Self::IncomingExits(host) => format!("the waiting instance on {host} ends"),
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for host in Host::BOTH {
            let state = self.at(host);
            let life = match state.life {
                Life::Awaiting(generation) => format!("awaiting {generation}"),
                life => format!("{life:?}").to_lowercase(),
            };
            let view = match self.manager.views[host as usize] {
                HostView::Silent => "silent".to_owned(),
                HostView::Says(said, seen) => format!("{}, {seen:?}", entry(&said)),
            };
            writeln!(
                f,
                "      {host}: {} | instance {life}{}{}{} | may open {} | manager's view: {view}",
                entry(&state.entry),
                match state.file {
                    File::None => "",
                    File::Good => " | file good",
                    File::Stale => " | file stale",
                },
                if state.partial {
                    " (pages missing)"
                } else {
                    ""
                },
                if state.down { " | agent down" } else { "" },
                state.granted,
            )?;
        }
        write!(f, "      store: {}", record(&self.manager.record))
    }
}

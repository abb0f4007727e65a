//! What the manager says of a domain: the store's word joined with the agents'. Pure.

use crate::records::DomainRecord;
use estive_api::wire::{DomainReport, HerdDomain, MovingReport};
use estive_model::DomainState;
use estive_moves::{Holding, HostView, Wanted};

/// What is known of a domain on one host.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// The host does not answer.
    Silent,
    /// It answers, and holds no such domain.
    Nothing,
    /// What it says.
    Says(Box<DomainReport>),
}

impl Said {
    pub fn report(&self) -> Option<&DomainReport> {
        match self {
            Self::Says(report) => Some(report),
            _ => None,
        }
    }
}

/// Joins the store's record with what its owner, and the destination of its open move, say.
pub(crate) fn join(
    record: &DomainRecord,
    owner: &Said,
    destination: &Said,
    waiting_for: Option<&str>,
) -> HerdDomain {
    let ownership = &record.ownership;
    let taken = ownership.moving.as_ref().is_some_and(|pending| {
        destination.report().is_some_and(|report| {
            matches!(crate::agents::view_of(report), HostView::Says(entry, _) if entry.generation >= pending.grant.generation)
        })
    });
    // During a move the destination speaks as soon as it owns the domain by its own journal.
    let speaks = if taken { destination } else { owner };
    let (state, note) = match speaks {
        Said::Silent => (
            DomainState::Unknown,
            Some(format!(
                "host {} does not answer: the domain may well run on there; nothing of it is started elsewhere",
                ownership.host
            )),
        ),
        Said::Nothing => (
            DomainState::Unknown,
            Some(format!(
                "host {} holds nothing of it; {}",
                ownership.host,
                match &record.deployment {
                    Some(_) => "estive up makes it again, estive down removes it".to_owned(),
                    None => record.made_again_by(),
                }
            )),
        ),
        Said::Says(report) => (report.state, note(record, report)),
    };
    let moving = ownership
        .moving
        .as_ref()
        .zip(record.move_order.as_ref())
        .map(|(pending, order)| MovingReport {
            operation: order.operation.clone(),
            destination: pending.destination.clone(),
            generation: pending.grant.generation,
            waiting_for: waiting_for
                .map_or_else(|| waits_for(record, owner, destination), str::to_owned),
        });
    HerdDomain {
        name: record.name.clone(),
        deployment: record.deployment.clone(),
        host: ownership.host.clone(),
        generation: ownership.generation,
        state,
        wanted: match ownership.wanted {
            Wanted::Running => DomainState::Running,
            Wanted::Stopped => DomainState::Stopped,
            Wanted::Saved => DomainState::Saved,
        },
        address: record.address.clone(),
        memory_mib: record.memory_mib,
        cpus: record.cpus,
        groups: record.groups.clone(),
        reference: record.reference.clone(),
        older: Vec::new(),
        moving,
        note,
        boot: speaks
            .report()
            .map(|report| report.boot.clone())
            .unwrap_or_default(),
    }
}

fn note(record: &DomainRecord, report: &DomainReport) -> Option<String> {
    if let Some(error) = &report.boot.error {
        return Some(format!("its early userspace stopped: {error}"));
    }
    let why = report
        .note
        .as_ref()
        .map(|note| format!(": {note}"))
        .unwrap_or_default();
    match report.state {
        DomainState::Crashed => Some(format!(
            "its QEMU is gone though nobody stopped it{why}; estive start {}",
            record.name
        )),
        DomainState::Stopped if record.wants_to_run() => Some(format!(
            "it should run and does not{why}; estive start {}",
            record.name
        )),
        DomainState::Saved if record.wants_to_run() => Some(format!(
            "it should run and is saved{why}; estive restore {}",
            record.name
        )),
        DomainState::Running if record.ownership.wanted == Wanted::Saved => Some(format!(
            "it should be saved and runs{why}; estive save {}",
            record.name
        )),
        DomainState::Running if !record.wants_to_run() => Some(format!(
            "it should be stopped and runs{why}; estive stop {}",
            record.name
        )),
        _ => report.note.clone(),
    }
}

fn waits_for(record: &DomainRecord, owner: &Said, destination: &Said) -> String {
    let holding = |word: &Said| {
        word.report()
            .and_then(|report| match crate::agents::view_of(report) {
                HostView::Says(entry, _) => Some(entry.holding),
                HostView::Silent => None,
            })
    };
    let source = &record.ownership.host;
    match (owner, destination) {
        (Said::Silent, _) => format!("host {source}, which does not answer"),
        (_, Said::Silent) => match holding(owner) {
            Some(Holding::Released(_)) => {
                "the destination, which does not answer: only it may run the domain now".to_owned()
            }
            _ => "the destination, which does not answer".to_owned(),
        },
        _ => match holding(owner) {
            Some(Holding::Outgoing(_)) => "memory to be copied".to_owned(),
            Some(Holding::Released(_)) => "the destination to run it".to_owned(),
            _ => "the destination to stand ready".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::OpenMove;
    use estive_api::wire::{BootTimes, JournalReport};
    use estive_model::{DeploymentName, DomainName, Generation, HostName, OperationId};
    use estive_moves::{Entry, Grant, Ownership, PendingMove, Seen};

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn record(moving: bool) -> DomainRecord {
        let grant = Grant {
            generation: Generation(3),
            post_copy: false,
        };
        DomainRecord {
            name: DomainName::new("a").unwrap(),
            deployment: Some(DeploymentName::new("d").unwrap()),
            memory_mib: 256,
            cpus: 1,
            address: "10.0.0.1".into(),
            reference: "default".into(),
            words: None,
            made_of: None,
            given: Vec::new(),
            volume: Some(false),
            groups: Vec::new(),
            checks: vec![],
            post_copy_allowed: false,
            ownership: Ownership {
                host: host("h1"),
                generation: Generation(2),
                granted: Generation(if moving { 3 } else { 2 }),
                wanted: Wanted::Running,
                moving: moving.then(|| PendingMove {
                    grant,
                    destination: host("h2"),
                    give_up: false,
                }),
            },
            move_order: moving.then(|| OpenMove {
                operation: OperationId::new("move-1").unwrap(),
                ordered_ms: 1,
                problem: None,
            }),
        }
    }

    fn report(state: DomainState, holding: Holding, generation: u64, seen: Seen) -> DomainReport {
        let entry = Entry {
            holding,
            generation: Generation(generation),
            floor: Generation(3),
        };
        DomainReport {
            name: DomainName::new("a").unwrap(),
            state,
            journal: JournalReport {
                entry: serde_json::to_value(entry).unwrap(),
                seen: serde_json::to_value(seen).unwrap(),
                doubt: None,
            },
            memory_mib: 256,
            cpus: 1,
            pid: None,
            saved: None,
            operation: None,
            note: None,
            boot: BootTimes::default(),
        }
    }

    #[test]
    fn silence_is_unknown_and_not_dead() {
        let view = join(&record(false), &Said::Silent, &Said::Nothing, None);
        assert_eq!(view.state, DomainState::Unknown);
        assert!(view.note.unwrap().contains("may well run on"));
        assert!(view.moving.is_none());
    }

    #[test]
    fn a_crash_is_told_with_what_to_try() {
        let mut crashed = report(DomainState::Crashed, Holding::Running, 2, Seen::Gone);
        crashed.note = Some("ended by signal 9".into());
        let view = join(
            &record(false),
            &Said::Says(Box::new(crashed.clone())),
            &Said::Nothing,
            None,
        );
        assert_eq!(view.state, DomainState::Crashed);
        let note = view.note.unwrap();
        assert!(
            note.contains("signal 9") && note.contains("estive start a"),
            "{note}"
        );
    }

    #[test]
    fn the_destination_speaks_once_its_journal_holds_the_grant() {
        let grant = Grant {
            generation: Generation(3),
            post_copy: false,
        };
        let released = report(
            DomainState::Released,
            Holding::Released(grant),
            2,
            Seen::Sent,
        );
        let incoming = report(
            DomainState::Incoming,
            Holding::Incoming(grant),
            0,
            Seen::Loaded,
        );
        let view = join(
            &record(true),
            &Said::Says(Box::new(released.clone())),
            &Said::Says(Box::new(incoming.clone())),
            None,
        );
        assert_eq!(view.state, DomainState::Released);
        assert_eq!(
            view.moving.unwrap().waiting_for,
            "the destination to run it"
        );
        let taken = report(DomainState::Running, Holding::Running, 3, Seen::Running);
        for owner in [Said::Silent, Said::Says(Box::new(released.clone()))] {
            let view = join(
                &record(true),
                &owner,
                &Said::Says(Box::new(taken.clone())),
                None,
            );
            assert_eq!(view.state, DomainState::Running);
        }
        let view = join(
            &record(true),
            &Said::Says(Box::new(released.clone())),
            &Said::Silent,
            None,
        );
        assert_eq!(view.state, DomainState::Released);
        assert!(view.moving.unwrap().waiting_for.contains("only it may run"));
    }
}

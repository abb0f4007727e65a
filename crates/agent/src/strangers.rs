//! What lies on this host without a word of it in the journal: directories of domains, what QEMUs left, QEMUs that run.
//!
//! The journal was lost, or another state directory was given. "Cannot tell" changes nothing: nothing of such a domain
//! is ended, removed or written over, and every order about it is refused, until a person has it forgotten.

use crate::AgentError;
use crate::agent::Agent;
use crate::definition;
use crate::domain::{Answered, Domain, Handle};
use crate::journal::Record;
use estive_api::Problem;
use estive_hypervisor::Found;
use estive_model::{DomainName, Event, EventKind, Generation};
use estive_moves::{Answer, Entry, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

/// Names in one sentence.
const NAMED_MAX: usize = 20;

/// What a person can do about a domain that the journal cannot be asked about.
pub(crate) fn way_out(name: &DomainName) -> String {
    format!(
        "end what runs of it here and remove its files: estive --agent SOCKET delete {name} --forget"
    )
}

/// For who asks after this host: the domains whose journal cannot be believed.
pub(crate) fn note(agent: &Agent) -> Option<String> {
    let handles = agent.handles();
    let strangers = handles.iter().filter_map(|handle| {
        let shown = handle.shown.borrow();
        shown.damaged.is_some().then(|| shown.record.name.clone())
    });
    let strangers: Vec<DomainName> = strangers.collect();
    (!strangers.is_empty()).then(|| {
        format!(
            "{} domains here that its journal cannot tell of, nothing is done with them: {}",
            strangers.len(),
            listed(&strangers)
        )
    })
}

fn listed(names: &[DomainName]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(|n| n.as_str()).collect();
    match names.len() > NAMED_MAX {
        true => format!("{}, …", shown.join(", ")),
        false => shown.join(", "),
    }
}

impl Agent {
    /// Enters what is here and not in the journal as what cannot be told, and says so.
    pub(crate) async fn take_note_of_strangers(
        self: &Arc<Self>,
        records: &BTreeMap<DomainName, Result<Record, String>>,
        found: &[Found],
    ) -> Result<(), AgentError> {
        let mut here: BTreeSet<DomainName> = self.hypervisor.remains().await?.into_iter().collect();
        here.extend(found.iter().map(|found| found.domain.clone()));
        let places = self.config.state.join("domains");
        let failed = |source| AgentError::file("read the domains in", &places, source);
        for entry in fs::read_dir(&places).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| DomainName::new(name).ok()) {
                Some(name) => drop(here.insert(name)),
                None => {
                    tracing::warn!(path = %entry.path().display(), "this is no domain's; it is left")
                }
            }
        }
        here.retain(|name| !records.contains_key(name));
        for name in &here {
            let pid = found.iter().find(|found| found.domain == *name);
            self.enter_stranger(name, pid.map(|found| found.pid));
        }
        if !here.is_empty() {
            let names: Vec<DomainName> = here.into_iter().collect();
            let reason = format!(
                "found {} domains that the journal {} does not know: {}; nothing of them is touched, nor started here. If \
                 the journal was lost, put it back from a copy and restart the agent",
                names.len(),
                self.config.state.join("journal").display(),
                listed(&names)
            );
            tracing::error!("{reason}");
            self.tell(Event {
                sequence: 0,
                time_ms: 0,
                kind: EventKind::NotInJournal,
                domain: None,
                host: None,
                generation: None,
                operation: None,
                reason,
            });
        }
        Ok(())
    }

    fn enter_stranger(self: &Arc<Self>, name: &DomainName, pid: Option<u32>) {
        let stands = match pid {
            Some(pid) => format!("QEMU {pid} of {name} stands here"),
            None => format!("files of {name} lie here"),
        };
        let reason = format!(
            "{stands}, and the journal of {} does not know it: whether it may run here cannot be told, so nothing is done \
             with it. Put the journal back from a copy and restart the agent; or look whether it runs elsewhere, then {}",
            self.config.name,
            way_out(name)
        );
        let handle = self.add(self.distrusted(name), Some(reason));
        handle.shown.send_modify(|shown| shown.pid = pid);
    }

    /// For a domain of which the journal says nothing that can be believed.
    pub(crate) fn distrusted(&self, name: &DomainName) -> Record {
        let mut record = Record::new(name.clone());
        if let Ok(xml) = definition::read_xml(&self.place(name)) {
            (record.memory_mib, record.cpus) = (xml.memory_mib(), xml.cpus());
        }
        record
    }
}

/// A problem, if what the journal says of the domain cannot be believed.
pub(crate) fn refuse_distrusted(handle: &Handle) -> Result<(), Problem> {
    match &handle.shown.borrow().damaged {
        Some(reason) => Err(Problem::impossible(reason.clone())),
        None => Ok(()),
    }
}

impl Domain {
    /// A person says that nothing of it is needed here: its QEMU is ended, its files go, and no grant up to `floor` is
    /// taken any more.
    pub(crate) async fn disown(&mut self, floor: Option<Generation>) -> Answered {
        if self.handle.shown.borrow().damaged.is_none() {
            return Err(Problem::impossible(format!(
                "the journal knows {}: it is not forgotten, but stopped and deleted",
                self.name
            ))
            .advice(format!("estive delete {}", self.name)));
        }
        let mut record = Record::new(self.name.clone());
        record.entry = Entry {
            floor: floor.unwrap_or_default(),
            ..record.entry
        };
        let (journal, written) = (self.agent.journal.clone(), record.clone());
        tokio::task::spawn_blocking(move || journal.write(&written))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| {
                Problem::failed(format!(
                    "that {} is forgotten could not be written down: {error}",
                    self.name
                ))
                .advice("see to the disk of the agent's state directory")
            })?;
        let tasks = [self.watcher.take(), self.asker.take()];
        let committer = self.committer.take().map(|(_, task)| task);
        for task in tasks.into_iter().flatten().chain(committer) {
            task.abort();
        }
        self.record = record.clone();
        self.handle.shown.send_modify(|shown| {
            (shown.record, shown.damaged, shown.note) = (record, None, None);
        });
        self.agent.tell(Event {
            sequence: 0,
            time_ms: 0,
            kind: EventKind::Deleted,
            domain: Some(self.name.clone()),
            host: None,
            generation: None,
            operation: None,
            reason: "the journal did not know it, and a person had it forgotten".to_owned(),
        });
        // As after a restart: what the journal says is not here is ended, and cleaned up after.
        self.restarted().await;
        match self.see().await {
            Seen::Gone => Ok(Answer::Done),
            _ => Err(Problem::failed(format!(
                "{} is forgotten, but its QEMU does not end; it is tried again",
                self.name
            ))),
        }
    }
}

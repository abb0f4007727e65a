//! What is known of the hosts: each agent is asked every second, and on demand. A silent host is unknown, not dead.

use crate::agents::{Agent, chain, is_silence, view_of};
use crate::event_log::About;
use crate::manager::{Manager, lock};
use crate::placement::Space;
use crate::records::DomainRow;
use crate::view::{self, Said};
use estive_api::wire::{AgentAbout, DomainReport, HerdDomain, HostReport};
use estive_api::{ClientError, Problem};
use estive_model::{DomainName, EventKind, HostHealth, HostName};
use estive_moves::{Holding, HostView, Ownership, Wanted, leftover};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often an agent is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long somebody who wants to see the herd waits for a host that answered before.
const ON_DEMAND: Duration = Duration::from_secs(3);

/// One host: its agent and what it said last.
pub(crate) struct Host {
    pub agent: Agent,
    state: Mutex<State>,
    /// One sends files there at a time.
    pub uploads: tokio::sync::Mutex<()>,
    /// Two at once would tell an event twice.
    events: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// `None`: never asked yet.
    health: Option<HostHealth>,
    note: Option<String>,
    about: Option<AgentAbout>,
    reports: BTreeMap<DomainName, DomainReport>,
}

impl Host {
    pub fn new(agent: Agent) -> Self {
        Self {
            agent,
            state: Mutex::default(),
            uploads: tokio::sync::Mutex::default(),
            events: tokio::sync::Mutex::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        lock(&self.state).health == Some(HostHealth::Up)
    }

    /// Takes who it says it is, when it was asked only that.
    pub fn learn(&self, about: AgentAbout) {
        lock(&self.state).about = Some(about);
    }

    /// Where it stands with a domain, as of the last time it was asked; `None`: it holds nothing of it.
    pub fn view(&self, domain: &DomainName) -> Option<HostView> {
        match self.said(domain) {
            Said::Says(report) => Some(view_of(&report)),
            Said::Nothing => None,
            Said::Silent => Some(HostView::Silent),
        }
    }

    /// What it says of a domain, as of the last time it was asked.
    fn said(&self, domain: &DomainName) -> Said {
        let state = lock(&self.state);
        match (state.health, state.reports.get(domain)) {
            (Some(HostHealth::Up), Some(report)) => Said::Says(Box::new(report.clone())),
            (Some(HostHealth::Up), None) => Said::Nothing,
            _ => Said::Silent,
        }
    }
}

impl Manager {
    /// Asks every agent again and again, until the shutdown.
    pub fn watch_hosts(self: &Arc<Self>) {
        let names: Vec<HostName> = self.hosts.keys().cloned().collect();
        for name in names {
            let manager = self.clone();
            self.spawn(async move {
                let mut ticks = tokio::time::interval(PERIOD);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        () = manager.shutdown.cancelled() => return,
                        _ = ticks.tick() => {}
                    }
                    let Some(host) = manager.hosts.get(&name) else {
                        return;
                    };
                    manager.ask(host).await;
                    if host.is_up() {
                        manager.gather_events(host).await;
                    }
                }
            });
        }
    }

    /// Asks all hosts that answered last time, at once; silent ones are asked in the background anyway.
    pub async fn ask_all(&self) {
        let asked = self
            .hosts
            .values()
            .filter(|host| host.is_up() || lock(&host.state).health.is_none());
        let _ = tokio::time::timeout(ON_DEMAND, join_all(asked.map(|host| self.ask(host)))).await;
    }

    /// Asks one agent who it is and what it holds.
    pub async fn ask(&self, host: &Host) {
        let answers = tokio::try_join!(host.agent.about(), host.agent.domains());
        let answers = answers.and_then(|(about, domains)| {
            if about.name == host.agent.name {
                Ok((about, domains))
            } else {
                Err(ClientError::Protocol {
                    endpoint: host.agent.endpoint.clone(),
                    reason: format!("it calls itself {}, not {}", about.name, host.agent.name),
                })
            }
        });
        match answers {
            Ok((about, domains)) => {
                let before = {
                    let mut state = lock(&host.state);
                    state.about = Some(about);
                    state.note = None;
                    state.reports = domains
                        .into_iter()
                        .map(|report| (report.name.clone(), report))
                        .collect();
                    state.health.replace(HostHealth::Up)
                };
                if before == Some(HostHealth::Unknown) {
                    self.tell_host(
                        host,
                        EventKind::HostUp,
                        "its agent answers again".to_owned(),
                    );
                }
                self.discard_leftovers(host).await;
            }
            Err(error) => {
                let why = match is_silence(&error) {
                    true => format!("its agent does not answer: {}", chain(&error)),
                    false => format!("its agent cannot be spoken with: {}", chain(&error)),
                };
                let before = {
                    let mut state = lock(&host.state);
                    state.note = Some(why.clone());
                    state.health.replace(HostHealth::Unknown)
                };
                if before != Some(HostHealth::Unknown) {
                    self.tell_host(
                        host,
                        EventKind::HostUnknown,
                        format!("{why}; what runs there may well run on"),
                    );
                }
            }
        }
    }

    fn tell_host(&self, host: &Host, kind: EventKind, reason: String) {
        let about = About {
            host: Some(host.agent.name.clone()),
            ..About::default()
        };
        self.events.tell(kind, about, reason);
    }

    /// What was prepared for a move that is over is dropped, so that nothing half-made stays.
    async fn discard_leftovers(&self, host: &Host) {
        let incoming: Vec<(DomainName, HostView)> = lock(&host.state)
            .reports
            .values()
            .map(|report| (report.name.clone(), view_of(report)))
            .filter(|(_, view)| matches!(view, HostView::Says(entry, _) if matches!(entry.holding, Holding::Incoming(_))))
            .collect();
        for (domain, view) in incoming {
            let Ok(Some(row)) = self.records.domain_row(&domain).await else {
                continue;
            };
            let ownership = match row {
                DomainRow::Live(record) => record.ownership,
                DomainRow::Retired { granted } => Ownership {
                    host: host.agent.name.clone(),
                    generation: granted,
                    granted,
                    wanted: Wanted::Stopped,
                    moving: None,
                },
            };
            if let Some(generation) = leftover(&ownership, view) {
                tracing::info!(%domain, host = %host.agent.name, %generation, "discarding what was prepared for a move that is over");
                if let Err(error) = host.agent.discard(&domain, generation).await {
                    tracing::warn!(%domain, host = %host.agent.name, error = %chain(&error), "it could not be discarded; it will be tried again");
                }
            }
        }
    }

    /// Takes the agent's new events into the manager's log.
    pub async fn gather_events(&self, host: &Host) {
        let _one = host.events.lock().await;
        let key = format!("cursor/{}", host.agent.name);
        let gathered = async {
            let after: u64 = self.records.get(&key).await?.unwrap_or(0);
            let events = host.agent.events(after).await.map_err(|error| {
                crate::agents::problem(&host.agent.name, "reading its events", &error)
            })?;
            let Some(last) = events.last().map(|event| event.sequence) else {
                return Ok(());
            };
            for mut event in events {
                event.host.get_or_insert_with(|| host.agent.name.clone());
                self.events.add(event);
            }
            self.records.put(&key, &last).await
        };
        let gathered: Result<(), Problem> = gathered.await;
        if let Err(problem) = gathered {
            tracing::debug!(host = %host.agent.name, %problem, "no events were gathered");
        }
    }

    /// Takes all agents' new events into the log, now.
    pub async fn gather_all_events(&self) {
        let asked = self.hosts.values().filter(|host| host.is_up());
        let _ = tokio::time::timeout(
            ON_DEMAND,
            join_all(asked.map(|host| self.gather_events(host))),
        )
        .await;
    }

    pub async fn host_reports(&self) -> Result<Vec<HostReport>, Problem> {
        self.ask_all().await;
        Ok(self
            .hosts
            .values()
            .map(|host| {
                let state = lock(&host.state);
                let about = state.about.as_ref();
                HostReport {
                    name: host.agent.name.clone(),
                    url: host.agent.endpoint.to_string(),
                    health: state.health.unwrap_or(HostHealth::Unknown),
                    note: state
                        .note
                        .clone()
                        .or_else(|| about.and_then(|about| about.note.clone())),
                    capacity: about.map(|about| about.capacity),
                    used_memory_mib: about.map_or(0, |about| about.used_memory_mib),
                    domains: about.map_or(0, |about| about.domains),
                    hypervisor: about
                        .map(|about| about.hypervisor.clone())
                        .unwrap_or_default(),
                }
            })
            .collect())
    }

    /// What every host declares, and what of it nobody was promised, by what it said last and what the store says.
    pub async fn spaces(&self) -> Result<Vec<Space>, Problem> {
        // Memory in MiB, and virtual processors.
        let mut promised: BTreeMap<HostName, (u64, u64)> = BTreeMap::new();
        for record in self.records.domains().await? {
            let destination = record.ownership.moving.map(|pending| pending.destination);
            for host in [Some(record.ownership.host), destination]
                .into_iter()
                .flatten()
            {
                let promised = promised.entry(host).or_default();
                promised.0 += record.memory_mib;
                promised.1 += u64::from(record.cpus);
            }
        }
        let space = |host: &Host| {
            let state = lock(&host.state);
            let promised = promised.get(&host.agent.name).copied();
            let (promised_mib, promised_cpus) = promised.unwrap_or_default();
            let capacity = state.about.as_ref().map(|about| about.capacity);
            let free = |about: &AgentAbout| {
                // A domain that was defined past us counts by the agent's word, one not yet defined by the store's.
                about
                    .capacity
                    .memory_mib
                    .saturating_sub(promised_mib.max(about.used_memory_mib))
            };
            Space {
                host: host.agent.name.clone(),
                free_memory_mib: state
                    .about
                    .as_ref()
                    .filter(|_| state.health == Some(HostHealth::Up))
                    .map(free),
                memory_mib: capacity.map_or(0, |capacity| capacity.memory_mib),
                cores: capacity.map_or(0, |capacity| capacity.cores),
                promised_cpus,
            }
        };
        Ok(self.hosts.values().map(space).collect())
    }

    /// All domains, each as store and agents see it now.
    pub async fn herd(&self) -> Result<Vec<HerdDomain>, Problem> {
        self.ask_all().await;
        let records = self.records.domains().await?;
        Ok(records
            .iter()
            .map(|record| self.herd_domain(record))
            .collect())
    }

    /// One domain, its hosts asked now.
    pub async fn herd_domain_now(&self, name: &DomainName) -> Result<HerdDomain, Problem> {
        let record = self.records.domain(name).await?;
        let destination = record
            .ownership
            .moving
            .as_ref()
            .map(|pending| &pending.destination);
        let asked = [Some(&record.ownership.host), destination]
            .into_iter()
            .flatten()
            .filter_map(|host| self.hosts.get(host));
        let _ = tokio::time::timeout(ON_DEMAND, join_all(asked.map(|host| self.ask(host)))).await;
        // A move may have ended meanwhile.
        let record = self.records.domain(name).await?;
        Ok(self.herd_domain(&record))
    }

    fn herd_domain(&self, record: &crate::records::DomainRecord) -> HerdDomain {
        let waiting_for = lock(&self.moves)
            .get(&record.name)
            .and_then(|active| active.stage.borrow().waiting_for.clone());
        let said = |host: &HostName| {
            self.hosts
                .get(host)
                .map_or(Said::Silent, |host| host.said(&record.name))
        };
        let owner = said(&record.ownership.host);
        let destination = match &record.ownership.moving {
            Some(pending) => said(&pending.destination),
            None => Said::Nothing,
        };
        let mut view = view::join(record, &owner, &destination, waiting_for.as_deref());
        if !self.hosts.contains_key(&record.ownership.host) {
            view.note = Some(format!(
                "host {} is not in the manager's configuration any more",
                record.ownership.host
            ));
        }
        let made_of = record.made_of.as_ref();
        if let Some((made_of, reference)) = made_of.zip(self.references.get(&record.reference)) {
            let older = made_of.older_than_reference(&reference);
            view.older = older.into_iter().map(str::to_owned).collect();
        }
        view
    }
}

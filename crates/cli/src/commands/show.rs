//! `estive show`: one domain, whole.

use crate::arguments::Global;
use crate::commands::ls;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::wire::{BootTimes, DomainReport, HerdDomain};
use estive_model::DomainName;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, Args)]
pub struct Show {
    /// The domain.
    domain: DomainName,
}

impl Show {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        match service(global)? {
            Service::Manager(client) => {
                let path = format!("/domain/{}", self.domain);
                let domain: HerdDomain = client.get_json(&path, PATIENCE).await?;
                match global.output {
                    Output::Json => output::json(&domain)?,
                    Output::Table => output::print(&render(&domain))?,
                }
            }
            Service::Agent(client) => {
                let path = format!("/domain/{}/status", self.domain);
                let domain: DomainReport = client.get_json(&path, PATIENCE).await?;
                match global.output {
                    Output::Json => output::json(&domain)?,
                    Output::Table => output::print(&render_alone(&domain))?,
                }
            }
        }
        Ok(0)
    }
}

fn lines(pairs: &[(&str, String)]) -> String {
    pairs
        .iter()
        .map(|(key, value)| format!("{key:<12}{value}\n"))
        .collect()
}

fn render(domain: &HerdDomain) -> String {
    let mut pairs = vec![
        ("domain", domain.name.to_string()),
        ("deployment", ls::deployment(domain)),
        ("host", domain.host.to_string()),
        ("state", domain.state.to_string()),
        ("wanted", domain.wanted.to_string()),
        ("generation", domain.generation.to_string()),
        ("address", ls::or_dash(&domain.address)),
        ("memory", format!("{} MiB", domain.memory_mib)),
        ("reference", ls::reference(domain)),
    ];
    if let Some(moving) = &domain.moving {
        pairs.push((
            "moving",
            format!(
                "to {} under generation {} ({}), waiting for {}",
                moving.destination, moving.generation, moving.operation, moving.waiting_for
            ),
        ));
    }
    if let Some(note) = &domain.note {
        pairs.push(("note", note.clone()));
    }
    lines(&pairs) + &boot(&domain.boot)
}

fn render_alone(domain: &DomainReport) -> String {
    let mut pairs = vec![
        ("domain", domain.name.to_string()),
        ("state", domain.state.to_string()),
        ("journal", domain.journal.entry.to_string()),
        ("memory", format!("{} MiB", domain.memory_mib)),
    ];
    if let Some(saved) = &domain.saved {
        let at = UNIX_EPOCH + Duration::from_millis(saved.saved_ms);
        let at = humantime::format_rfc3339_seconds(at);
        let size = output::mib(saved.bytes);
        pairs.push(("saved", format!("{at}, {size}")));
    }
    if let Some(pid) = domain.pid {
        pairs.push(("pid", pid.to_string()));
    }
    if let Some(note) = &domain.note {
        pairs.push(("note", note.clone()));
    }
    lines(&pairs) + &boot(&domain.boot)
}

/// The phases of the last boot, in the order in which they came.
fn boot(times: &BootTimes) -> String {
    let mut phases: Vec<(&String, &u64)> = times.phases_ms.iter().collect();
    phases.sort_by_key(|(_, at_ms)| **at_ms);
    let mut text = String::new();
    for (phase, at_ms) in phases {
        let after = times
            .asked_ms
            .map(|asked_ms| at_ms.saturating_sub(asked_ms));
        text.push_str(&format!(
            "boot        {phase:<10} {}\n",
            output::seconds(after)
        ));
    }
    if let Some(error) = &times.error {
        text.push_str(&format!("boot error  {error}\n"));
    }
    if let Some(registered) = &times.registered {
        let since = UNIX_EPOCH + Duration::from_millis(registered.since_ms);
        text.push_str(&format!(
            "registered  {}, {} processors, since {}\n",
            registered.address,
            registered.cpus,
            humantime::format_rfc3339_millis(since)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::wire::Registration;

    #[test]
    fn what_a_clone_registered_is_shown() {
        let times = BootTimes {
            registered: Some(Registration {
                address: [10, 77, 0, 101].into(),
                cpus: 2,
                since_ms: 1_000,
            }),
            ..BootTimes::default()
        };
        assert_eq!(
            boot(&times),
            "registered  10.77.0.101, 2 processors, since 1970-01-01T00:00:01.000Z\n"
        );
    }

    #[test]
    fn boot_phases_come_in_order_of_time() {
        let times = BootTimes {
            asked_ms: Some(1_000),
            phases_ms: [("switch".to_owned(), 3_100), ("init".to_owned(), 2_700)].into(),
            ..BootTimes::default()
        };
        assert_eq!(
            boot(&times),
            "boot        init       1.70 s\nboot        switch     2.10 s\n"
        );
    }
}

//! `estive ls`: the domains, where each is and what it does.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::Args;
use estive_api::wire::{DomainReport, HerdDomain};

#[derive(Debug, Args)]
pub struct Ls {
    /// Also the generation, the reference, and what of that a domain has older than the reference is now
    #[arg(long)]
    wide: bool,
}

impl Ls {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        match service(global)? {
            Service::Manager(client) => {
                let domains: Vec<HerdDomain> = client.get_json("/domains", PATIENCE).await?;
                match global.output {
                    Output::Json => output::json(&domains)?,
                    Output::Table => output::print(&render(&domains, self.wide))?,
                }
            }
            Service::Agent(client) => {
                let domains: Vec<DomainReport> = client.get_json("/domains", PATIENCE).await?;
                match global.output {
                    Output::Json => output::json(&domains)?,
                    Output::Table => output::print(&render_alone(&domains))?,
                }
            }
        }
        Ok(0)
    }
}

/// What a domain of no herd has not: an address that is known, a reference.
pub fn or_dash(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

/// Its herd, if it has one.
pub fn deployment(domain: &HerdDomain) -> String {
    let deployment = domain.deployment.as_ref();
    deployment.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// `default`, or `default (older root, kernel)`.
pub fn reference(domain: &HerdDomain) -> String {
    match &domain.older[..] {
        [] => or_dash(&domain.reference),
        older => format!("{} (older {})", domain.reference, older.join(", ")),
    }
}

fn render(domains: &[HerdDomain], is_wide: bool) -> String {
    let rows: Vec<Vec<String>> = domains
        .iter()
        .map(|domain| {
            let mut row = vec![
                domain.name.to_string(),
                deployment(domain),
                domain.host.to_string(),
                domain.state.to_string(),
                or_dash(&domain.address),
                format!("{} MiB", domain.memory_mib),
            ];
            if is_wide {
                row.extend([domain.generation.to_string(), reference(domain)]);
            }
            row.push(match (&domain.moving, &domain.note) {
                (Some(moving), _) => format!("moving to {}", moving.destination),
                (None, Some(note)) => note.clone(),
                (None, None) => String::new(),
            });
            row
        })
        .collect();
    let mut heads = vec!["domain", "deployment", "host", "state", "address", "memory"];
    if is_wide {
        heads.extend(["generation", "reference"]);
    }
    heads.push("note");
    table(&heads, &rows)
}

fn render_alone(domains: &[DomainReport]) -> String {
    let rows: Vec<Vec<String>> = domains
        .iter()
        .map(|domain| {
            vec![
                domain.name.to_string(),
                domain.state.to_string(),
                format!("{} MiB", domain.memory_mib),
                domain
                    .pid
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                domain.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["domain", "state", "memory", "pid", "note"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::wire::{BootTimes, MovingReport};
    use estive_model::{
        DeploymentName, DomainName, DomainState, Generation, HostName, OperationId,
    };

    #[test]
    fn a_moving_domain_says_where_to() {
        let domain = HerdDomain {
            name: DomainName::new("clone01").unwrap(),
            deployment: Some(DeploymentName::new("first-herd").unwrap()),
            host: HostName::new("host1").unwrap(),
            generation: Generation(3),
            state: DomainState::Running,
            wanted: DomainState::Running,
            address: "10.77.0.101".to_owned(),
            memory_mib: 384,
            cpus: 1,
            groups: Vec::new(),
            reference: "default".to_owned(),
            older: vec!["root".to_owned()],
            moving: Some(MovingReport {
                operation: OperationId::new("move-1").unwrap(),
                destination: HostName::new("host2").unwrap(),
                generation: Generation(4),
                waiting_for: "the stream".to_owned(),
            }),
            note: None,
            boot: BootTimes::default(),
        };
        let wide = render(std::slice::from_ref(&domain), true);
        assert!(
            wide.contains("384 MiB  3           default (older root)  moving"),
            "{wide}"
        );
        let shop = HerdDomain {
            name: DomainName::new("shop").unwrap(),
            deployment: None,
            address: String::new(),
            reference: String::new(),
            older: Vec::new(),
            moving: None,
            ..domain.clone()
        };
        assert_eq!(
            render(&[domain, shop], false),
            "DOMAIN   DEPLOYMENT  HOST   STATE    ADDRESS      MEMORY   NOTE\n\
             clone01  first-herd  host1  running  10.77.0.101  384 MiB  moving to host2\n\
             shop     -           host1  running  -            384 MiB\n"
        );
    }
}

//! `estive hosts`: who is there, what they offer, and whether they answer.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::Failure;
use crate::output::{self, Output, table};
use estive_api::wire::HostReport;
use estive_model::HostHealth;

pub async fn run(global: &Global) -> Result<u8, Failure> {
    let hosts: Vec<HostReport> = manager(global)?.get_json("/hosts", PATIENCE).await?;
    match global.output {
        Output::Json => output::json(&hosts)?,
        Output::Table => output::print(&render(&hosts))?,
    }
    Ok(0)
}

fn render(hosts: &[HostReport]) -> String {
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| {
            vec![
                host.name.to_string(),
                match host.health {
                    HostHealth::Up => "up".to_owned(),
                    HostHealth::Unknown => "unknown".to_owned(),
                },
                host.domains.to_string(),
                match host.capacity {
                    Some(capacity) => {
                        format!("{} / {} MiB", host.used_memory_mib, capacity.memory_mib)
                    }
                    None => "-".to_owned(),
                },
                host.capacity
                    .map_or_else(|| "-".to_owned(), |capacity| capacity.cores.to_string()),
                host.note.clone().unwrap_or_else(|| host.hypervisor.clone()),
            ]
        })
        .collect();
    table(
        &["host", "health", "domains", "memory", "cores", "note"],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::{Capacity, HostName};

    #[test]
    fn a_silent_host_is_unknown_and_says_why() {
        let host = |name: &str, health, note: Option<&str>| HostReport {
            name: HostName::new(name).unwrap(),
            url: String::new(),
            health,
            note: note.map(str::to_owned),
            capacity: Some(Capacity {
                cores: 2,
                memory_mib: 2048,
            }),
            used_memory_mib: 384,
            domains: 1,
            hypervisor: "QEMU 10.0.2, tcg".to_owned(),
        };
        let text = render(&[
            host("host1", HostHealth::Up, None),
            host(
                "host2",
                HostHealth::Unknown,
                Some("no answer since 12:00:00"),
            ),
        ]);
        assert_eq!(
            text,
            "HOST   HEALTH   DOMAINS  MEMORY          CORES  NOTE\n\
             host1  up       1        384 / 2048 MiB  2      QEMU 10.0.2, tcg\n\
             host2  unknown  1        384 / 2048 MiB  2      no answer since 12:00:00\n"
        );
    }
}

//! `estive events`: what was done, when, and why.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::Args;
use estive_model::{DomainName, Event};
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, Args)]
pub struct Events {
    /// Only those of this domain.
    #[arg(long, value_name = "NAME")]
    domain: Option<DomainName>,
    /// Only those after this number.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    after: u64,
}

impl Events {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (Service::Manager(client) | Service::Agent(client)) = service(global)?;
        let path = format!("/events?after={}", self.after);
        let mut events: Vec<Event> = client.get_json(&path, PATIENCE).await?;
        if let Some(domain) = &self.domain {
            events.retain(|event| event.domain.as_ref() == Some(domain));
        }
        match global.output {
            Output::Json => output::json(&events)?,
            Output::Table => output::print(&render(&events))?,
        }
        Ok(0)
    }
}

fn render(events: &[Event]) -> String {
    let word = |value: &estive_model::EventKind| {
        serde_json::to_value(value)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
    };
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            let time = UNIX_EPOCH + Duration::from_millis(event.time_ms);
            vec![
                event.sequence.to_string(),
                humantime::format_rfc3339_millis(time).to_string(),
                event
                    .domain
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                event
                    .host
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                word(&event.kind).unwrap_or_default(),
                event.reason.clone(),
            ]
        })
        .collect();
    table(&["number", "time", "domain", "host", "what", "why"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::{EventKind, Generation, HostName};

    #[test]
    fn an_event_is_a_line_with_its_reason() {
        let event = Event {
            sequence: 7,
            time_ms: 1_000,
            kind: EventKind::MoveReleased,
            domain: Some(DomainName::new("clone01").unwrap()),
            host: Some(HostName::new("host1").unwrap()),
            generation: Some(Generation(4)),
            operation: None,
            reason: "the destination has the whole stream".to_owned(),
        };
        assert_eq!(
            render(&[event]),
            "NUMBER  TIME                      DOMAIN   HOST   WHAT           WHY\n\
             7       1970-01-01T00:00:01.000Z  clone01  host1  move_released  the destination has the whole stream\n"
        );
    }
}

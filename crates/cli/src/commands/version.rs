//! `estive version`: of this command, and of the service it speaks to.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::Failure;
use crate::output::{self, Output};
use estive_api::wire::{AgentAbout, ManagerAbout};

pub async fn run(global: &Global) -> Result<u8, Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    let (kind, theirs) = match service(global)? {
        Service::Manager(client) => (
            "manager",
            client
                .get_json::<ManagerAbout>("/about", PATIENCE)
                .await
                .map(|about| about.version),
        ),
        Service::Agent(client) => (
            "agent",
            client
                .get_json::<AgentAbout>("/about", PATIENCE)
                .await
                .map(|about| about.version),
        ),
    };
    // Its own version can be told without any service.
    let theirs = theirs.ok();
    match global.output {
        Output::Json => output::json(&serde_json::json!({ "estive": ours, kind: theirs }))?,
        Output::Table => output::print(&format!(
            "estive  {ours}\n{kind:<7} {}\n",
            theirs.as_deref().unwrap_or("does not answer")
        ))?,
    }
    Ok(0)
}

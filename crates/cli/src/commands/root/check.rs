//! `estive root check`: a line read, and what it needs.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::Args;
use estive_boot::loaders::Root;
use serde_json::json;

#[derive(Debug, Args)]
pub struct Check {
    /// The line, with or without root= before it.
    line: String,
}

impl Check {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let line = self.line.strip_prefix("root=").unwrap_or(&self.line);
        let root = Root::parse(line).map_err(|problem| Failure::impossible(problem.pointed()))?;
        let needs = root.needs();
        let programs: Vec<String> = needs
            .programs
            .iter()
            .map(|wanted| format!("{} ({})", wanted.program.name, wanted.program.package))
            .collect();
        match global.output {
            Output::Json => {
                let devices = root.devices.iter().map(|device| {
                    let stages = device.stages.iter().map(|stage| stage.loader().name);
                    json!({ "device": device.to_string(), "loaders": stages.collect::<Vec<_>>() })
                });
                output::json(&json!({
                    "root": root.to_string(),
                    "devices": devices.collect::<Vec<_>>(),
                    "modules": needs.modules,
                    "modules_if_there": needs.modules_if_there,
                    "modules_at_hand": needs.modules_at_hand,
                    "programs": programs,
                    "network": needs.network,
                    "identity": needs.identity,
                }))?;
            }
            Output::Table => {
                let rows: Vec<Vec<String>> = root
                    .devices
                    .iter()
                    .enumerate()
                    .map(|(number, device)| {
                        let stages = device.stages.iter().map(|stage| stage.loader().name);
                        let stages: Vec<&str> = stages.collect();
                        vec![number.to_string(), device.to_string(), stages.join("+")]
                    })
                    .collect();
                let listed = |list: &[String]| match list.is_empty() {
                    true => "none".to_owned(),
                    false => list.join(" "),
                };
                let whether = |is: bool| if is { "yes" } else { "no" };
                output::print(&format!(
                    "{}\nmodules   {}\nprograms  {}\nnetwork   {}\nidentity  {}\n",
                    table(&["layer", "device", "loaders"], &rows),
                    listed(&needs.modules),
                    listed(&programs),
                    whether(needs.network),
                    whether(needs.identity),
                ))?;
            }
        }
        Ok(0)
    }
}

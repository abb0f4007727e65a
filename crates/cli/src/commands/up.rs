//! `estive up`: from a herd's folder to clones that answer.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::{Failure, chain};
use crate::output::{self, Output, seconds, table};
use clap::Args;
use estive_api::fault;
use estive_api::wire::{UpLine, UpRow};
use estive_layers::{HerdFolder, LayerError};
use estive_model::DeploymentName;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Up {
    /// The herd's folder, which holds herd.yaml.
    herd: PathBuf,
    /// Name of the deployment; the folder's name without it.
    #[arg(long)]
    name: Option<DeploymentName>,
}

impl Up {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let name = deployment_name(self.name, &self.herd)?;
        let body = pack(&self.herd)?;
        let client = manager(global)?;
        fault::before("command.sent");
        let mut lines = client
            .stream_lines_of::<UpLine>(
                http::Method::PUT,
                &format!("/deployment/{name}"),
                "application/x-tar",
                body,
                PATIENCE,
            )
            .await?;
        fault::after("command.sent");
        let progress = Progress::new(global.output);
        while let Some(line) = lines.next().await {
            match line? {
                UpLine::Warning { text } => progress.warn(&text),
                UpLine::Planned { placements } => {
                    progress.planned(placements.len());
                    for place in placements {
                        progress.say(&format!(
                            "{} → {}: {}",
                            place.domain, place.host, place.reason
                        ));
                    }
                }
                UpLine::Step {
                    domain,
                    step,
                    after_ms,
                } => {
                    progress.step(&step);
                    progress.say(&format!(
                        "{domain} {step} after {}",
                        seconds(Some(after_ms))
                    ));
                }
                UpLine::Done { clones } => {
                    progress.end();
                    match global.output {
                        Output::Json => output::json(&clones)?,
                        Output::Table => output::print(&render(&clones))?,
                    }
                    return Ok(0);
                }
                UpLine::Failed { problem } => {
                    progress.end();
                    return Err(problem.into());
                }
            }
        }
        progress.end();
        Err(
            Failure::failed("the manager ended its answer before the herd was up")
                .advice("estive ls, to see what is there; estive up again"),
        )
    }
}

/// The name that was given, or the folder's.
pub fn deployment_name(
    given: Option<DeploymentName>,
    herd: &Path,
) -> Result<DeploymentName, Failure> {
    if let Some(name) = given {
        return Ok(name);
    }
    let folder = herd.canonicalize().map_err(|error| {
        Failure::impossible(format!("no herd at {}: {error}", herd.display()))
            .advice("give the folder that holds herd.yaml")
    })?;
    let folder = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    DeploymentName::new(folder.unwrap_or_default())
        .map_err(|error| Failure::impossible(error.to_string()).advice("--name NAME"))
}

/// The herd's folder as a tar archive: herd file and sets, with all that their files are.
pub fn pack(herd: &Path) -> Result<Vec<u8>, Failure> {
    let folder = HerdFolder::read(herd).map_err(unfit)?;
    folder.to_tar().map_err(unfit)
}

fn unfit(error: LayerError) -> Failure {
    let advice = match &error {
        LayerError::NoHerd { .. } => "give the folder that holds herd.yaml",
        LayerError::Set { .. } => "correct the herd's template sets",
        _ => "keep only herd.yaml and template sets in the herd's folder",
    };
    Failure::impossible(chain(&error)).advice(advice)
}

fn render(clones: &[UpRow]) -> String {
    let rows: Vec<Vec<String>> = clones
        .iter()
        .map(|clone| {
            vec![
                clone.domain.to_string(),
                clone.host.to_string(),
                clone.address.clone(),
                seconds(clone.to_init_ms),
                seconds(clone.to_switched_ms),
                seconds(clone.to_answering_ms),
                clone.answered_by.clone(),
            ]
        })
        .collect();
    table(
        &[
            "clone",
            "host",
            "address",
            "to init",
            "root switched",
            "answering",
            "by",
        ],
        &rows,
    )
}

/// A bar on a terminal, plain lines elsewhere, nothing beside JSON.
struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
}

impl Progress {
    fn new(output: Output) -> Self {
        let bar = (output::draws()).then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} {msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            lines: bar.is_none() && output == Output::Table,
            bar,
        }
    }
    fn planned(&self, clones: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(u64::try_from(clones).unwrap_or(0));
            bar.set_message("clones answer");
        }
    }
    fn step(&self, step: &str) {
        if let Some(bar) = &self.bar
            && step == "answering"
        {
            bar.inc(1);
        }
    }
    fn say(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.println(line);
        } else if self.lines {
            eprintln!("{line}");
        }
    }
    /// Also beside JSON: it goes to standard error.
    fn warn(&self, text: &str) {
        let line = format!("estive: warning: {text}");
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::{DomainName, HostName};

    #[test]
    fn the_table_has_the_three_times_of_a_boot() {
        let row = UpRow {
            domain: DomainName::new("clone01").unwrap(),
            host: HostName::new("host1").unwrap(),
            address: "10.77.0.101".to_owned(),
            to_init_ms: Some(1_740),
            to_switched_ms: Some(1_960),
            to_answering_ms: Some(7_250),
            answered_by: "http, ssh".to_owned(),
        };
        assert_eq!(
            render(&[row]),
            "CLONE    HOST   ADDRESS      TO INIT  ROOT SWITCHED  ANSWERING  BY\n\
             clone01  host1  10.77.0.101  1.74 s   1.96 s         7.25 s     http, ssh\n"
        );
    }

    #[test]
    fn a_folder_without_a_herd_file_is_impossible() {
        let folder = std::env::temp_dir();
        let failure = pack(&folder.join("no-such-herd")).unwrap_err();
        assert_eq!(failure.code, estive_model::ExitCode::Impossible);
        assert!(failure.message.contains("herd.yaml"), "{}", failure.message);
    }
}

//! `estive layers push`: a change of a herd's folder reaches the clones that are up, while they run.

use crate::arguments::Global;
use crate::commands::up::{deployment_name, pack};
use crate::connection::{PATIENCE, manager};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::wire::{PushLine, PushOutcome, PushReport, PushRow};
use estive_model::{DeploymentName, DomainName};
use std::fmt::Write as _;
use std::path::PathBuf;

/// A running clone takes each changed file through its guest agent; what it has changed itself is left and said. A
/// clone that does not run, or has no guest agent, takes the layer at its next start.
#[derive(Debug, Args)]
pub struct Push {
    /// The herd's folder, which holds herd.yaml.
    #[arg(env = "ESTIVE_HERD", default_value = ".")]
    herd: PathBuf,
    /// Name of the deployment; the folder's name without it.
    #[arg(long)]
    name: Option<DeploymentName>,
    /// Only this clone; may be given several times.
    #[arg(long = "clone", value_name = "NAME")]
    clones: Vec<DomainName>,
    /// Change nothing and say what would be.
    #[arg(long)]
    dry_run: bool,
}

impl Push {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let name = deployment_name(self.name, &self.herd)?;
        let body = pack(&self.herd)?;
        let client = manager(global)?;
        let mut path = format!("/deployment/{name}/layers?dry_run={}", self.dry_run);
        if !self.clones.is_empty() {
            let names: Vec<&str> = self.clones.iter().map(DomainName::as_str).collect();
            path.push_str(&format!("&clones={}", names.join(",")));
        }
        let mut lines = client
            .stream_lines_of::<PushLine>(
                http::Method::PUT,
                &path,
                "application/x-tar",
                body,
                PATIENCE,
            )
            .await?;
        let said = global.output == Output::Table;
        while let Some(line) = lines.next().await {
            match line? {
                PushLine::Warning { text } => eprintln!("estive: warning: {text}"),
                PushLine::Planned { .. } | PushLine::Laying { .. } => {}
                PushLine::Clone { row } if said => {
                    output::print(&render(&row, self.dry_run))?;
                }
                PushLine::Clone { .. } => {}
                PushLine::Done { clones } => {
                    if !said {
                        output::json(&clones)?;
                    }
                    return ended(&clones);
                }
                PushLine::Failed { problem } => return Err(problem.into()),
            }
        }
        Err(
            Failure::failed("the manager ended its answer before all clones were pushed to")
                .advice("push again: what was done is left as it is"),
        )
    }
}

fn ended(clones: &[PushRow]) -> Result<u8, Failure> {
    let open = clones.iter().filter(|row| !row.outcome.is_done()).count();
    if open == 0 {
        return Ok(0);
    }
    Err(Failure::failed(format!(
        "{open} of {} clones do not have their layer now",
        clones.len()
    ))
    .advice("see what is said of each; push again"))
}

/// What came of one clone: a line, and one for each path that was left.
fn render(row: &PushRow, dry_run: bool) -> String {
    let mut text = String::new();
    let domain = &row.domain;
    // Writing to a string cannot fail.
    let _ = match &row.outcome {
        PushOutcome::Laid { report } => {
            text = laid(domain, report, dry_run);
            Ok(())
        }
        PushOutcome::NextStart { reason } => writeln!(text, "{domain}: {reason}"),
        PushOutcome::Unreached { reason } => writeln!(text, "{domain}: not reached: {reason}"),
        PushOutcome::Failed { problem } => match &problem.advice {
            Some(advice) => writeln!(text, "{domain}: {} (try: {advice})", problem.error),
            None => writeln!(text, "{domain}: {}", problem.error),
        },
    };
    text
}

fn laid(domain: &DomainName, report: &PushReport, dry_run: bool) -> String {
    let (written, removed) = (report.written_count(), report.removed_count());
    let verb = if dry_run { "would push" } else { "pushed" };
    let mut parts = Vec::new();
    if written == 0 && removed == 0 {
        parts.push("nothing to push".to_owned());
    } else {
        let files = |count: u64| if count == 1 { "file" } else { "files" };
        parts.push(format!("{verb} {written} {}", files(written)));
        if removed > 0 {
            parts.push(format!("took away {removed}"));
        }
    }
    for service in &report.services {
        parts.push(match (&service.failure, dry_run) {
            (Some(failure), _) => {
                format!("could not {} {}: {failure}", service.act, service.name)
            }
            (None, true) => format!("would {} {}", service.act, service.name),
            (None, false) => format!("{}ed {}", service.act, service.name),
        });
    }
    let left = report.left_count();
    if left > 0 {
        parts.push(format!("left {left}"));
    }
    let mut text = format!("{domain}: {}\n", parts.join(", "));
    for left in &report.left {
        let _ = writeln!(text, "  left /{}: {}", left.path, left.reason);
    }
    if report.unnamed.left > 0 {
        let _ = writeln!(text, "  and {} more", report.unnamed.left);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::wire::{ServiceAct, WhyLeft};
    use estive_model::ExitCode;

    fn row(outcome: PushOutcome) -> PushRow {
        PushRow {
            domain: DomainName::new("clone03").unwrap(),
            host: None,
            outcome,
        }
    }

    #[test]
    fn a_clone_is_told_in_a_line_and_what_was_left_below() {
        let mut report = PushReport::new();
        report.add_written("etc/nginx/nginx.conf");
        report.add_written("var/www/html/index.html");
        report.add_removed("etc/old");
        report.add_left("etc/motd", WhyLeft::Own, "changed in the clone");
        let service = |name: &str, failure: Option<&str>| ServiceAct {
            name: name.to_owned(),
            act: "restart".to_owned(),
            failure: failure.map(str::to_owned),
        };
        report.services = vec![service("nginx", None), service("x", Some("no such unit"))];
        let row = row(PushOutcome::Laid { report });
        assert_eq!(
            render(&row, false),
            "clone03: pushed 2 files, took away 1, restarted nginx, could not restart x: no such unit, left 1\n  \
             left /etc/motd: changed in the clone\n"
        );
        assert!(
            render(&row, true)
                .starts_with("clone03: would push 2 files, took away 1, would restart nginx")
        );
    }

    #[test]
    fn a_second_push_says_that_there_is_nothing_to_do() {
        let report = PushReport::new();
        let row = row(PushOutcome::Laid { report });
        assert_eq!(render(&row, false), "clone03: nothing to push\n");
    }

    #[test]
    fn one_that_could_not_be_reached_is_a_failure() {
        let rows = [
            row(PushOutcome::NextStart {
                reason: "it is stopped".to_owned(),
            }),
            row(PushOutcome::Unreached {
                reason: "no guest agent answers".to_owned(),
            }),
        ];
        assert!(ended(&rows[..1]).is_ok());
        let failure = ended(&rows).unwrap_err();
        assert_eq!(failure.code, ExitCode::Failed);
        assert!(failure.message.contains("1 of 2"), "{}", failure.message);
    }
}

//! `estive migrate`: a running domain goes to another host.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::{Failure, failed};
use crate::output::{self, Output, mib};
use clap::Args;
use estive_api::fault;
use estive_api::wire::{MigrateLine, MigrateOrder, OperationReport};
use estive_model::{DomainName, HostName};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, Args)]
pub struct Migrate {
    /// The domain.
    domain: DomainName,
    /// Where to; without it, where memory and cores are promised most evenly then.
    #[arg(long, value_name = "HOST")]
    to: Option<HostName>,
    /// Why, for the event log.
    #[arg(long)]
    reason: Option<String>,
}

impl Migrate {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let client = manager(global)?;
        let order = MigrateOrder {
            to: self.to,
            reason: self.reason,
        };
        let body = serde_json::to_vec(&order).map_err(failed)?;
        let path = format!("/domain/{}/migrate", self.domain);
        fault::before("command.sent");
        let mut lines = client
            .stream_lines_of::<MigrateLine>(
                http::Method::POST,
                &path,
                "application/json",
                body,
                PATIENCE,
            )
            .await?;
        fault::after("command.sent");
        let bar = output::draws().then(bar);
        while let Some(line) = lines.next().await {
            match line? {
                MigrateLine::Ordered {
                    source,
                    destination,
                    generation,
                    reason,
                    ..
                } => {
                    if global.output == Output::Table {
                        eprintln!(
                            "{} goes from {source} to {destination} under generation {generation}: {reason}",
                            self.domain
                        );
                    }
                }
                MigrateLine::Progress { report } => {
                    if let Some(bar) = &bar {
                        show(bar, &report);
                    }
                }
                MigrateLine::Done { report, whole_ms } => {
                    if let Some(bar) = &bar {
                        bar.finish_and_clear();
                    }
                    match global.output {
                        Output::Json => output::json(
                            &serde_json::json!({ "whole_ms": whole_ms, "report": report }),
                        )?,
                        Output::Table => output::print(&render(&report, whole_ms))?,
                    }
                    return Ok(0);
                }
                MigrateLine::Failed { problem } => {
                    if let Some(bar) = &bar {
                        bar.finish_and_clear();
                    }
                    return Err(problem.into());
                }
            }
        }
        Err(
            Failure::failed("the manager ended its answer before the move was over")
                .advice(format!("estive show {}, to see where it is", self.domain)),
        )
    }
}

fn render(report: &OperationReport, whole_ms: u64) -> String {
    format!(
        "{} moved in {whole_ms} ms ({} sent in {} ms, downtime {} ms by QEMU's measure; {})\n",
        report.domain,
        mib(report.sent_bytes),
        report.total_ms,
        report
            .downtime_ms
            .map_or_else(|| "?".to_owned(), |ms| ms.to_string()),
        report.choice
    )
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, report: &OperationReport) {
    bar.set_length(report.total_bytes);
    bar.set_position(report.total_bytes.saturating_sub(report.remaining_bytes));
    bar.set_message(format!(
        "dirtied {}/s, expected downtime {} ms",
        mib(report.dirty_rate_bytes_per_s),
        report.expected_downtime_ms
    ));
}

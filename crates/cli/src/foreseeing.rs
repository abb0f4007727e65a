//! What domains will use, for a command: how far it is asked for, and how it is shown with its error on the past.

use clap::Args;
use estive_forecast::{Foreseen, Method, fill};
use estive_world::{PlanFile, UsedKind, World};

use crate::output::table;
use crate::plan_words::Names;

/// Rows of the table; the rest is counted.
const ROWS: usize = 20;

/// How far is foreseen.
#[derive(Debug, Args)]
pub struct Foreseeing {
    /// Seconds for which what domains use is foreseen from their windows, where it was nearer than "as now" on the past; 0: not at all. Without it, the time within which a move must pay back
    #[arg(long, value_name = "S")]
    horizon: Option<u32>,
}

/// What was foreseen.
pub struct Forecasts(Vec<Foreseen>);

impl Foreseeing {
    /// Seconds; 0: nothing is foreseen.
    pub fn horizon_s(&self, world: &World) -> u32 {
        (self.horizon).unwrap_or(world.rules.hysteresis.pays_back_within_s)
    }

    /// Foresees, and writes it into the world; without windows there is nothing to foresee from.
    pub fn fill(&self, world: &mut World) -> Forecasts {
        match self.horizon_s(world) {
            0 => Forecasts(Vec::new()),
            horizon_s => Forecasts(fill(world, u64::from(horizon_s))),
        }
    }
}

impl Forecasts {
    /// Those that count, for a plan's report.
    pub fn used(&self) -> Vec<estive_world::Foreseen> {
        estive_forecast::used(&self.0)
    }

    /// A table of those that count, and a line of how many do not.
    pub fn table(&self, file: &PlanFile) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let names = Names(file);
        let all = || self.0.iter().filter(|one| one.method != Method::AsNow);
        let rows: Vec<Vec<String>> = all()
            .take(ROWS)
            .map(|one| {
                let shown = |amount: f64| shown(one.kind, amount);
                vec![
                    names.domain(one.domain).to_owned(),
                    kind(one.kind).to_owned(),
                    shown(one.expected as f64),
                    one.method.words().to_owned(),
                    shown(one.held.error),
                    shown(one.held.as_now),
                ]
            })
            .collect();
        let counts = all().count();
        let mut text = format!(
            "\n{counts} of {} forecasts count: the others were no nearer than \"as now\" on the past\n",
            self.0.len()
        );
        if !rows.is_empty() {
            let heads = ["domain", "use", "foreseen", "by", "off by", "as now off by"];
            text += &table(&heads, &rows);
        }
        if counts > ROWS {
            text += &format!("and {} more; --output json has all\n", counts - ROWS);
        }
        text
    }
}

fn kind(kind: UsedKind) -> &'static str {
    match kind {
        UsedKind::CpuMicrocores => "processors",
        UsedKind::MemoryKib => "memory",
        UsedKind::DiskBytesPerS => "disk",
        UsedKind::NetworkBytesPerS => "network",
    }
}

fn shown(kind: UsedKind, amount: f64) -> String {
    match kind {
        UsedKind::CpuMicrocores => format!("{:.3} cores", amount / 1e6),
        UsedKind::MemoryKib => format!("{:.1} MiB", amount / 1024.0),
        UsedKind::DiskBytesPerS | UsedKind::NetworkBytesPerS => format!("{:.2} MB/s", amount / 1e6),
    }
}

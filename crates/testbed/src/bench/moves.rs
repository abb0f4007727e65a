//! `downtime` and `lost`: one clone moved many times, idle and under load.

use std::time::Duration;

use estive_model::DomainName;
use serde_json::{Value, json};

use super::{BenchConfig, Spread};
use crate::bed::Bed;
use crate::demo;
use crate::instant::now_us;
use crate::ping::Ping;
use crate::trial::{MoveRow, Trial, TrialConfig};
use crate::{Error, topology};

const HERD: &str = "name: bench\nnetwork: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 384\n\
    sets: [base-debian, web]\nup: [http, ssh]\ngroups:\n  all:\n    hosts:\n      clone01:\n      clone02:\n";

/// Brings two clones up; gives what a trial of the first needs.
async fn up(bed: &Bed) -> Result<(TrialConfig, String), Error> {
    let directory = &bed.config().directory;
    let key = demo::make_key(directory)?;
    let source = directory.join("bench-herd");
    let doing = || Error::system(format!("writing {}", source.display()));
    std::fs::create_dir_all(&source).map_err(doing())?;
    std::fs::write(source.join("herd.yaml"), HERD).map_err(doing())?;
    let herd = demo::herd_with_key(&source, directory, &key, true)?;
    bed.estive_json(&["up", &herd.display().to_string(), "--name", "bench"])
        .await?;
    let domains = bed.estive_json(&["ls"]).await?;
    let (clone, address, home) = demo::domain(&domains, 0)?;
    let (peer, _, _) = demo::domain(&domains, 1)?;
    Ok((
        TrialConfig {
            clone,
            address,
            peer,
            ssh_key: key,
            rate_per_s: 50,
        },
        home,
    ))
}

/// Where move `number` (from 0) goes, when the clone is at home before the first.
fn target(number: u32, home: &str) -> String {
    let other = if home == "host2" { "host3" } else { "host2" };
    if number.is_multiple_of(2) {
        other
    } else {
        home
    }
    .to_owned()
}

/// Ping gap at 10 ms over 20 moves idle and as many under load.
pub(super) async fn downtime(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(20);
    let (trial, home) = up(bed).await?;
    let mut idle = Vec::new();
    for number in 0..runs {
        let to = target(number, &home);
        let (gap_ms, qemu_ms) = idle_move(bed, &trial.clone, trial.address, &to).await?;
        println!("idle {number:>3}: ping gap {gap_ms:.0} ms, QEMU's downtime {qemu_ms:.0} ms");
        idle.push((gap_ms, qemu_ms));
    }
    // Twenty moves bring it home again; an odd number leaves it away.
    let home = if runs.is_multiple_of(2) {
        home.clone()
    } else {
        target(runs - 1, &home)
    };
    let rows = under_load(bed, trial, &home, runs).await?.0;
    let gaps = |rows: &[MoveRow]| rows.iter().map(|row| row.ping_gap_ms).collect::<Vec<_>>();
    let qemu: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.downtime_ms)
        .map(as_f64)
        .collect();
    let idle_gaps = Spread::of(&idle.iter().map(|(gap, _)| *gap).collect::<Vec<_>>());
    let idle_qemu = Spread::of(&idle.iter().map(|(_, qemu)| *qemu).collect::<Vec<_>>());
    let loaded = Spread::of(&gaps(&rows));
    Ok(json!({
        "name": "downtime",
        "runs": runs,
        "p50_ms": idle_gaps.median.max(loaded.median),
        "worst_ms": idle_gaps.most.max(loaded.most),
        "ours": idle_gaps.median,
        "peer": idle_qemu.median,
        "ratio": super::round(idle_gaps.median / idle_qemu.median),
        "spread": { "idle": idle_gaps, "loaded": loaded, "qemu_idle": idle_qemu, "qemu_loaded": Spread::of(&qemu) },
        "goal_p50_ms": 100,
        "goal_worst_ms": 400,
    }))
}

async fn idle_move(
    bed: &Bed,
    clone: &DomainName,
    address: std::net::Ipv4Addr,
    to: &str,
) -> Result<(f64, f64), Error> {
    let ping = Ping::start(&bed.config().tool, &bed.topology().client, address).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let from_us = now_us();
    let done = bed
        .estive_json(&["migrate", clone.as_str(), "--to", to])
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let gap_us = ping.longest_gap_us(from_us, now_us());
    ping.finish().await?;
    let qemu_ms = done
        .pointer("/report/downtime_ms")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    Ok((as_f64(gap_us) / 1000.0, as_f64(qemu_ms)))
}

/// Requests lost over 100 moves under load.
pub(super) async fn lost(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(100);
    let (trial, home) = up(bed).await?;
    debug_assert_eq!(
        bed.topology().hosts.len(),
        3,
        "host addresses start at {}",
        topology::host_address(1)
    );
    let (rows, report) = under_load(bed, trial, &home, runs).await?;
    Ok(json!({
        "name": "lost",
        "runs": rows.len(),
        "requests": report.load.requests,
        "lost": report.load.lost,
        "in_flight": report.in_flight(),
        "ours": report.load.lost,
        "peer": 0,
        "p50_ms": report.load.p50_ms,
        "p99_ms": report.load.p99_ms,
        "worst_ms": report.load.worst_ms,
        "streams_broken": report.broken(),
        "gaps": report.gaps,
        "reasons": report.load.reasons,
    }))
}

async fn under_load(
    bed: &Bed,
    config: TrialConfig,
    home: &str,
    runs: u32,
) -> Result<(Vec<MoveRow>, crate::trial::TrialReport), Error> {
    let mut trial = Trial::start(bed, config).await?;
    let mut rows = Vec::new();
    for number in 0..runs {
        let row = trial.migrate(&target(number, home)).await?;
        println!("loaded {number:>3}: {}", demo::line(number + 1, &row));
        rows.push(row);
    }
    Ok((rows, trial.finish().await?))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "times of one benchmark, far below 2^52"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

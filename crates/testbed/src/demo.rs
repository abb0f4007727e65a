//! `./x demo`, inside the outer namespace: a herd comes up, one clone is moved under load, everything is judged.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use estive_model::DomainName;
use serde_json::{Value, json};

use crate::bed::{Bed, BedConfig};
use crate::trial::{MoveRow, Trial, TrialConfig, TrialReport};
use crate::{Error, outer};

/// What the demo is told.
#[derive(Debug, Clone)]
pub struct DemoConfig {
    /// The bed.
    pub bed: BedConfig,
    /// The herd's folder.
    pub herd: PathBuf,
    /// How many moves.
    pub moves: u32,
    /// Stay up at the end.
    pub keep: bool,
    /// The reference has systemd, nginx and sshd: clones can be put under the whole load. Otherwise they only come up.
    pub full: bool,
}

/// Runs it; gives the exit code.
pub async fn run(config: DemoConfig) -> Result<i32, Error> {
    let keep = config.keep;
    say("three hosts, a manager and a storage place are being started");
    let mut bed = Bed::start(config.bed.clone()).await?;
    let outcome = shown(&mut bed, &config).await;
    if let Err(error) = &outcome {
        eprintln!("demo: {}", crate::error::chain(error));
        eprintln!("{}", bed.logs());
    }
    if keep && outcome.is_ok() {
        outer::report_ready(true)?;
        std::future::pending::<()>().await;
    }
    if outcome.is_ok() {
        say("everything is being taken down");
        let down = bed.estive(&["down", "first-herd"]).await?;
        if !down.status.success() {
            eprintln!(
                "demo: down: {}",
                String::from_utf8_lossy(&down.stderr).trim()
            );
        }
    }
    bed.stop().await;
    outcome
}

async fn shown(bed: &mut Bed, config: &DemoConfig) -> Result<i32, Error> {
    let directory = &config.bed.directory;
    let key = make_key(directory)?;
    let herd = herd_with_key(&config.herd, directory, &key, config.full)?;
    say("four clones of one shared root are coming up");
    let up = bed
        .estive_command()
        .args(["up", &herd.display().to_string(), "--name", "first-herd"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(Error::system("running 'estive up'"))?;
    if !up.success() {
        return Ok(up.code().unwrap_or(1));
    }
    if !config.full || config.moves == 0 {
        return Ok(0);
    }
    let domains = bed.estive_json(&["ls"]).await?;
    let (clone, address, home) = domain(&domains, 0)?;
    let (peer, _, _) = domain(&domains, 1)?;
    let other = if home == "host2" { "host3" } else { "host2" };
    say(&format!(
        "{clone} is put under load: 50 new connections a second, a download, a writer with fsync, a stream from {peer}"
    ));
    let trial = TrialConfig {
        clone,
        address,
        peer,
        ssh_key: key,
        rate_per_s: 50,
    };
    let mut trial = Trial::start(bed, trial).await?;
    println!("{}", heading());
    for number in 1..=config.moves {
        let to = if number % 2 == 1 {
            other
        } else {
            home.as_str()
        };
        let row = trial.migrate(to).await?;
        println!("{}", line(number, &row));
    }
    let report = trial.finish().await?;
    println!("{}", verdict(&report));
    println!("RESULT {}", result(&report));
    Ok(i32::from(!report.is_clean()))
}

fn say(what: &str) {
    println!("== {what}");
}

/// The name, address and host of domain `index` of `estive ls`.
pub fn domain(domains: &Value, index: usize) -> Result<(DomainName, Ipv4Addr, String), Error> {
    let missing = || Error::Gauge {
        what: "estive ls".to_owned(),
        problem: format!(
            "it does not show {} domains with name, address and host",
            index + 1
        ),
    };
    let domain = domains.get(index).ok_or_else(missing)?;
    let word = |key: &str| domain.get(key).and_then(Value::as_str).ok_or_else(missing);
    Ok((
        DomainName::new(word("name")?).map_err(|_| missing())?,
        word("address")?.parse().map_err(|_| missing())?,
        word("host")?.to_owned(),
    ))
}

/// A key pair for this demo alone.
pub fn make_key(directory: &Path) -> Result<PathBuf, Error> {
    let key = directory.join("ssh-key");
    if !key.exists() {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "estive-demo", "-f"])
            .arg(&key)
            .stdin(Stdio::null())
            .output()
            .map_err(Error::system("running ssh-keygen (package openssh-client)"))?;
        if !made.status.success() {
            return Err(Error::Command {
                command: "ssh-keygen".to_owned(),
                status: made.status,
                stderr: String::from_utf8_lossy(&made.stderr).into_owned(),
            });
        }
    }
    Ok(key)
}

/// A copy of the herd's folder whose clones let our key in, and that asks only for what the root can do.
pub fn herd_with_key(
    herd: &Path,
    directory: &Path,
    key: &Path,
    full: bool,
) -> Result<PathBuf, Error> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(Error::system(format!("reading {}", path.display())))
    };
    let mut text = read(&herd.join("herd.yaml"))?;
    if full {
        let public = read(&key.with_extension("pub"))?;
        text.push_str(&format!(
            "\nssh_authorized_keys:\n  - {}\n",
            json!(public.trim())
        ));
    } else {
        text = text
            .lines()
            .filter(|line| !line.starts_with("sets:") && !line.starts_with("up:"))
            .map(|line| format!("{line}\n"))
            .collect();
        text.push_str("\nsets: []\nup: [ping]\n");
    }
    let copy = directory.join("first-herd");
    std::fs::create_dir_all(&copy).map_err(Error::system(format!("making {}", copy.display())))?;
    let file = copy.join("herd.yaml");
    std::fs::write(&file, text).map_err(Error::system(format!("writing {}", file.display())))?;
    Ok(copy)
}

fn heading() -> String {
    format!(
        "{:>4}  {:<14} {:>8} {:>8} {:>9} {:>8} {:>9} {:>9} {:>14}  {}",
        "move",
        "from → to",
        "whole",
        "total",
        "downtime",
        "switch",
        "ping gap",
        "in flight",
        "clock offset",
        "how"
    )
}

/// One move as a line of the table.
#[must_use]
pub fn line(number: u32, row: &MoveRow) -> String {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    format!(
        "{number:>4}  {:<14} {:>5} ms {:>5} ms {:>6} ms {:>5} ms {:>6.0} ms {:>9} {:>6} ± {} ms  {}",
        format!("{} → {}", row.from, row.to),
        row.whole_ms,
        row.total_ms,
        optional(row.downtime_ms.map(|ms| ms.to_string())),
        optional(row.switch_ms.map(|ms| format!("{ms:.0}"))),
        row.ping_gap_ms,
        row.in_flight,
        row.clock_offset_ms,
        row.clock_unsure_ms,
        row.choice,
    )
}

fn verdict(report: &TrialReport) -> String {
    let load = &report.load;
    let mut text = format!(
        "requests sent {}, p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms; in flight at the switches {}\n\
         requests lost {}, streams broken {}, gaps in the file {} (of {} lines); {} KiB downloaded and checked",
        load.requests,
        load.p50_ms,
        load.p99_ms,
        load.worst_ms,
        report.in_flight(),
        load.lost,
        report.broken(),
        report.gaps,
        report.lines,
        report.downloaded_bytes >> 10,
    );
    for (reason, count) in &load.reasons {
        text.push_str(&format!("\nlost {count}: {reason}"));
    }
    if let Some(reason) = &report.download_broken {
        text.push_str(&format!("\ndownload broken: {reason}"));
    }
    text
}

/// The demo's last line, for programs.
#[must_use]
pub fn result(report: &TrialReport) -> Value {
    json!({
        "name": "demo",
        "moves": report.moves.len(),
        "requests": report.load.requests,
        "lost": report.load.lost,
        "in_flight": report.in_flight(),
        "p99_ms": report.load.p99_ms,
        "worst_ms": report.load.worst_ms,
        "streams_broken": report.broken(),
        "gaps": report.gaps,
    })
}

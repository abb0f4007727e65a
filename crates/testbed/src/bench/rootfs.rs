//! `rootfs`: a cold `find` over the root, a cold `tar` of /usr and `dbench`, in a clone. The peer: the same guest on a
//! local raw ext4 virtio disk made from the same tree.
//!
//! One script is PID 1 of both: nothing else runs in the guest. It prints what it measured on the console.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use estive_api::{Client, Endpoint};
use estive_model::DomainState;
use serde_json::{Value, json};

use super::bare::{appears, problem};
use super::boot::order;
use super::peer::Peer;
use super::{BenchConfig, Spread, round};
use crate::Error;
use crate::bed::{Bed, host_name};

const MEMORY_MIB: u64 = 512;
const HERD: &str = "name: rootfs\nnetwork: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 512\n\
    sets: [measured]\nup: [ping]\ninit: /usr/local/sbin/measured\nhosts:\n  clone01:\n    host: host1\n";
const SET: &str = "help: A program that measures the root it runs in.\nfiles:\n  \
    usr/local/sbin/measured: {mode: \"0755\"}\n";

/// Milliseconds for the first two, megabytes a second for the third.
const SCRIPT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec >/dev/console 2>&1 </dev/null
[ -e /proc/uptime ] || mount -t proc proc /proc
[ -e /sys/block ] || mount -t sysfs sysfs /sys
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
now() { date +%s%N; }
cold; from=$(now); find / -xdev -ls | wc -l >/dev/null; echo "measured: find $((($(now) - from) / 1000000))"
cold; from=$(now); tar -C / -cf - usr | wc -c >/dev/null; echo "measured: tar $((($(now) - from) / 1000000))"
mkdir -p /var/tmp/measured
dbench -D /var/tmp/measured -t 15 2 | sed -n 's/^Throughput \([0-9.]*\) MB.*/measured: dbench \1/p'
sync
echo "measured: done"
while :; do sleep 3600; done
"#;

/// Which of the cases is a time, so that less is better.
const CASES: [(&str, bool); 3] = [("find", true), ("tar", true), ("dbench", false)];

pub(super) async fn measure(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(5);
    let directory = &bed.config().directory;
    let herd = directory.join("rootfs-herd");
    let script = write_herd(&herd)?;
    let mut peer = Peer::make(config, directory, &config.tree, (1024, MEMORY_MIB))?;
    peer.set_init(&script)?;
    peer.writable = true;

    bed.estive_json(&["up", &herd.display().to_string(), "--name", "rootfs"])
        .await?;
    let client = Client::new(Endpoint::Unix(bed.agent_socket(1)), None)
        .map_err(|error| problem(&error.to_string()))?;
    let console = directory.join(host_name(1)).join("q/clone01/console.log");

    let (mut ours, mut theirs) = (Measured::default(), Measured::default());
    for number in 0..runs {
        order(&client, DomainState::Stopped).await?;
        let _ = std::fs::remove_file(&console);
        order(&client, DomainState::Running).await?;
        ours.take(&console).await?;
        order(&client, DomainState::Stopped).await?;
        let (bare, bare_console) = peer.start(bed, number)?;
        theirs.take(&bare_console).await?;
        bare.end().await;
        println!(
            "run {number:>2}: ours {}, local disk {}",
            ours.last(),
            theirs.last()
        );
    }
    Ok(result(&ours, &theirs, runs))
}

fn write_herd(herd: &Path) -> Result<std::path::PathBuf, Error> {
    let set = herd.join("sets/measured");
    let program = set.join("usr/local/sbin");
    let doing = || Error::system(format!("writing {}", herd.display()));
    std::fs::create_dir_all(&program).map_err(doing())?;
    let script = program.join("measured");
    for (file, text) in [
        (herd.join("herd.yaml"), HERD),
        (set.join("set.yaml"), SET),
        (script.clone(), SCRIPT),
    ] {
        std::fs::write(file, text).map_err(doing())?;
    }
    Ok(script)
}

/// What was measured in each run, by case.
#[derive(Default)]
struct Measured(BTreeMap<String, Vec<f64>>);

impl Measured {
    /// Waits until the guest is done, and takes its figures.
    async fn take(&mut self, console: &Path) -> Result<(), Error> {
        let limit = Duration::from_secs(300);
        tokio::time::timeout(limit, async {
            // One call waits two minutes.
            while appears(console, "measured: done").await.is_err() {}
        })
        .await
        .map_err(|_| Error::TooSlow {
            what: "a guest that measures its root".to_owned(),
            limit_s: limit.as_secs(),
        })?;
        let text = std::fs::read(console).map_err(Error::system("reading a console"))?;
        let figures = figures(&String::from_utf8_lossy(&text));
        for (case, _) in CASES {
            let figure = figures
                .get(case)
                .copied()
                .filter(|figure| *figure > 0.0)
                .ok_or_else(|| problem(&format!("the guest said nothing of {case}")))?;
            self.0.entry(case.to_owned()).or_default().push(figure);
        }
        Ok(())
    }

    fn last(&self) -> String {
        let shown = |(case, time): (&str, bool)| {
            let figure = self.0.get(case).and_then(|all| all.last())?;
            let unit = if time { "ms" } else { "MB/s" };
            Some(format!("{case} {figure:.0} {unit}"))
        };
        CASES
            .into_iter()
            .filter_map(shown)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn figures(console: &str) -> BTreeMap<String, f64> {
    let figure = |line: &str| {
        let (case, figure) = line.trim().strip_prefix("measured: ")?.split_once(' ')?;
        Some((case.to_owned(), figure.parse().ok()?))
    };
    console.lines().filter_map(figure).collect()
}

/// Ours ÷ peer in throughput for each case; the worst is the ratio.
fn result(ours: &Measured, theirs: &Measured, runs: u32) -> Value {
    let mut cases = serde_json::Map::new();
    let mut worst: Option<(f64, f64, f64)> = None;
    for (case, time) in CASES {
        let spread = |from: &Measured| Spread::of(from.0.get(case).map_or(&[][..], Vec::as_slice));
        let (our, their) = (spread(ours), spread(theirs));
        let ratio = if time {
            their.median / our.median
        } else {
            our.median / their.median
        };
        let unit = if time { "ms" } else { "MB/s" };
        cases.insert(
            case.to_owned(),
            json!({ "ours": our, "peer": their, "unit": unit, "ratio": round(ratio) }),
        );
        if worst.is_none_or(|(before, ..)| ratio < before) {
            worst = Some((ratio, our.median, their.median));
        }
    }
    let (ratio, our, their) = worst.unwrap_or((f64::NAN, f64::NAN, f64::NAN));
    json!({
        "name": "rootfs",
        "ours": our,
        "peer": their,
        "ratio": round(ratio),
        "cases": cases,
        "mode": "stateless, sealed",
        "goal": 0.7,
        "memory_mib": MEMORY_MIB,
        "runs": runs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_is_the_ratio_and_times_are_turned_round() {
        let of = |find: f64, tar: f64, dbench: f64| {
            Measured(BTreeMap::from([
                ("find".to_owned(), vec![find]),
                ("tar".to_owned(), vec![tar]),
                ("dbench".to_owned(), vec![dbench]),
            ]))
        };
        let line = result(&of(200.0, 100.0, 90.0), &of(100.0, 100.0, 100.0), 1);
        assert_eq!(line["ratio"], 0.5);
        assert_eq!(line["cases"]["dbench"]["ratio"], 0.9);
        assert_eq!(line["cases"]["tar"]["ratio"], 1.0);
    }

    #[test]
    fn figures_are_read_among_other_lines() {
        let found = figures(
            "[ 1.0] x\r\nmeasured: find 812\r\nmeasured: dbench 61.5\r\nmeasured: done\r\n",
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found["dbench"], 61.5);
    }
}

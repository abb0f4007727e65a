//! `rootfs`: a cold `find` over the root, a cold `tar` of /usr and `dbench`, in a clone. The peer: the same guest on a
//! local raw ext4 virtio disk made from the same tree.

use std::time::Duration;

use estive_api::{Client, Endpoint};
use estive_model::DomainState;
use serde_json::{Value, json};

use super::BenchConfig;
use super::bare::problem;
use super::boot::order;
use super::guest_job::{Case, GuestFile, Measured, SCRIPT_PATH, worst_of, write_herd};
use super::peer::{Peer, PeerSize};
use crate::Error;
use crate::bed::{Bed, host_name};

const MEMORY_MIB: u64 = 512;
const HERD: &str = "name: rootfs\nnetwork: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 512\n\
    sets: [measured]\nup: [ping]\ninit: /usr/local/sbin/measured\nhosts:\n  clone01:\n    host: host1\n";
const LIMIT: Duration = Duration::from_secs(300);

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

const CASES: [Case; 3] = [
    Case::time("find"),
    Case::time("tar"),
    Case::rate("dbench", "MB/s"),
];

pub(super) async fn measure(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(5);
    let directory = &bed.config().directory;
    let herd = directory.join("rootfs-herd");
    let files = [GuestFile {
        path: SCRIPT_PATH,
        mode: 0o755,
        content: SCRIPT.into(),
    }];
    let set = write_herd(
        &herd,
        &format!("{HERD}{}", config.mode.herd_lines()),
        &files,
    )?;
    let size = PeerSize {
        disk_mib: 1024,
        memory_mib: MEMORY_MIB,
        has_network: false,
    };
    let mut peer = Peer::make(config, directory, &config.tree, &size)?;
    peer.set_init(&set.join(SCRIPT_PATH))?;
    peer.writable = true;

    bed.estive_json(&["up", &herd.display().to_string(), "--name", "rootfs"])
        .await?;
    let client = Client::new(Endpoint::Unix(bed.agent_socket(1)), None)
        .map_err(|error| problem(&error.to_string()))?;
    let console = directory.join(host_name(1)).join("q/clone01/console.log");

    let (mut ours, mut theirs) = (Measured::default(), Measured::default());
    for number in 0..runs {
        order(&client, "clone01", DomainState::Stopped).await?;
        let _ = std::fs::remove_file(&console);
        order(&client, "clone01", DomainState::Running).await?;
        ours.take(&console, &CASES, LIMIT).await?;
        order(&client, "clone01", DomainState::Stopped).await?;
        let (bare, bare_console) = peer.start(bed, number)?;
        theirs.take(&bare_console, &CASES, LIMIT).await?;
        bare.end().await;
        println!(
            "run {number:>2}: ours {}, local disk {}",
            ours.last(&CASES),
            theirs.last(&CASES)
        );
    }
    let mut line = worst_of(&CASES, &ours, &theirs);
    line.insert("name".to_owned(), json!("rootfs"));
    line.insert("mode".to_owned(), json!(config.mode.words()));
    line.insert("goal".to_owned(), json!(0.7));
    line.insert("memory_mib".to_owned(), json!(MEMORY_MIB));
    line.insert("runs".to_owned(), json!(runs));
    Ok(Value::Object(line))
}

//! `rootfs`: a cold `find` over the root, a cold `tar` of /usr and `dbench`, in a clone of each mode that is asked for.
//! The peer: the same guest on a local raw ext4 virtio disk made from the same tree.

use std::time::Duration;

use serde_json::{Value, json};

use super::BenchConfig;
use super::ganesha;
use super::guest_job::{Case, GuestFile, Measured, SCRIPT_PATH, of_modes, worst_of, write_files};
use super::mode::{Clones, Shape, each};
use super::peer::{Peer, PeerSize};
use crate::Error;
use crate::bed::Bed;

const MEMORY_MIB: u64 = 512;
const LIMIT: Duration = Duration::from_secs(300);

/// Milliseconds for the first two, megabytes a second for the third. The modules of a clone's kernel, a disk of their own below
/// /usr which the peer has not, are left out by both.
const SCRIPT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec >/dev/console 2>&1 </dev/null
[ -e /proc/uptime ] || mount -t proc proc /proc
[ -e /sys/block ] || mount -t sysfs sysfs /sys
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
now() { date +%s%N; }
since() { echo "measured: $1 $((($(now) - $2) / 1000000))"; }
# Requests to disks so far, and the time that they waited.
requests() { awk '$3 ~ /^vd/ { reads += $4; ms += $7 } END { printf "%d reads of %d ms", reads, ms }' /proc/diskstats; }
before=$(requests); cold; from=$(now); count=$(find / -xdev -ls | wc -l); since find "$from"; found=$(requests)
cold; from=$(now); bytes=$(tar -C / --one-file-system -cf - usr | wc -c); since tar "$from"; tarred=$(requests)
mkdir -p /var/tmp/measured
dbench -D /var/tmp/measured -t 8 2 | sed -n 's/^Throughput \([0-9.]*\) MB.*/measured: dbench \1/p'
sync
echo "sized: find $count names"
echo "sized: tar $((bytes >> 20)) MiB"
echo "sized: requests before $before; after find $found; after tar $tarred"
echo "sized: dbench 2 clients for 8 s"
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
    let files = [GuestFile {
        path: SCRIPT_PATH,
        mode: 0o755,
        content: SCRIPT.into(),
    }];
    let size = PeerSize {
        disk_mib: 1024,
        memory_mib: MEMORY_MIB,
        has_network: false,
    };
    let mut peer = Peer::make(config, directory, &config.tree, &size)?;
    let peer_files = directory.join("peer-files");
    write_files(&peer_files, &files)?;
    peer.set_init(&peer_files.join(SCRIPT_PATH))?;
    peer.writable = true;

    let modes = each(&config.modes);
    let _ganesha = ganesha::serve(bed, config, &modes).await?;
    let shape = Shape {
        name: "rootfs",
        memory_mib: MEMORY_MIB,
        places: &[0],
    };
    let mut ours = Vec::new();
    for mode in modes {
        let clones = Clones::up(bed, mode, &shape, &files).await?;
        ours.push((clones, Measured::default()));
    }
    let mut theirs = Measured::default();
    for number in 0..runs {
        for (clones, measured) in &mut ours {
            clones.start().await?;
            measured.take(clones.console(), &CASES, LIMIT).await?;
            clones.stop().await?;
            let name = clones.mode.name();
            println!("run {number:>2}: {name:<10} {}", measured.last(&CASES));
        }
        let (bare, bare_console) = peer.start(bed, number)?;
        theirs.take(&bare_console, &CASES, LIMIT).await?;
        bare.end().await;
        println!("        local disk {}", theirs.last(&CASES));
    }
    let lines = ours.iter().map(|(clones, measured)| {
        let mut line = worst_of(&CASES, measured, &theirs);
        line.insert("sizes".to_owned(), json!(measured.sizes));
        (clones.mode, line)
    });
    let mut line = of_modes("rootfs", lines.collect());
    line.insert("goal".to_owned(), json!(0.7));
    line.insert("memory_mib".to_owned(), json!(MEMORY_MIB));
    line.insert("peer_sizes".to_owned(), json!(theirs.sizes));
    line.insert("runs".to_owned(), json!(runs));
    Ok(Value::Object(line))
}

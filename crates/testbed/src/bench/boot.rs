//! `boot`: from asking the host daemon for a start to `/sbin/init` in the clone. The peer: the same QEMU, kernel and
//! memory with the smallest initramfs that mounts a local ext4 virtio disk and executes init there.
//!
//! Both `/sbin/init`s are static programs that say so on the console at once; that line's arrival ends the time.

use std::path::Path;
use std::time::Duration;

use estive_api::wire::StatusOrder;
use estive_api::{Client, Endpoint};
use estive_model::DomainState;
use serde_json::{Value, json};

use super::bare::{appears, problem};
use super::peer::{Peer, PeerSize};
use super::{BenchConfig, compared};
use crate::Error;
use crate::bed::{Bed, host_name};
use crate::instant::now_us;

const MEMORY_MIB: u64 = 256;
const HERD: &str = "name: bench\nnetwork: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 256\n\
    sets: []\nup: [ping]\nreference: bare\ngroups:\n  all:\n    hosts:\n      clone01:\n        host: host1\n";

pub(super) async fn measure(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(9);
    let directory = &bed.config().directory;
    let herd = directory.join("bench-herd");
    let doing = || Error::system(format!("writing {}", herd.display()));
    std::fs::create_dir_all(&herd).map_err(doing())?;
    std::fs::write(herd.join("herd.yaml"), HERD).map_err(doing())?;
    bed.estive_json(&["up", &herd.display().to_string(), "--name", "bench"])
        .await?;
    let client = Client::new(Endpoint::Unix(bed.agent_socket(1)), None)
        .map_err(|error| problem(&error.to_string()))?;
    let console = directory.join(host_name(1)).join("q/clone01/console.log");
    let peer_root = directory.join("peer-root");
    bare_root(&config.programs, &peer_root)?;
    let the_peer = Peer::make(
        config,
        directory,
        &peer_root,
        &PeerSize {
            disk_mib: 64,
            memory_mib: MEMORY_MIB,
            has_network: false,
        },
    )?;

    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for number in 0..runs {
        order(&client, "clone01", DomainState::Stopped).await?;
        let _ = std::fs::remove_file(&console);
        let before_us = now_us();
        order(&client, "clone01", DomainState::Running).await?;
        appears(&console, "estive-bare: init").await?;
        let ours_ms = since_ms(before_us);
        order(&client, "clone01", DomainState::Stopped).await?;
        let before_us = now_us();
        let (bare, bare_console) = the_peer.start(bed, number)?;
        appears(&bare_console, "estive-bare: init").await?;
        let peer_ms = since_ms(before_us);
        bare.end().await;
        println!("run {number:>2}: ours {ours_ms:.0} ms, bare {peer_ms:.0} ms");
        ours.push(ours_ms);
        peer.push(peer_ms);
    }
    Ok(compared(
        "boot",
        &ours,
        &peer,
        json!({ "goal": 1.3, "memory_mib": MEMORY_MIB, "warm_ratio": Value::Null }),
    ))
}

/// The agent is driven alone, as a host daemon.
pub(super) async fn order(client: &Client, domain: &str, state: DomainState) -> Result<(), Error> {
    let order = StatusOrder {
        state,
        generation: None,
        grace_ms: 0,
    };
    client
        .put_json::<Value>(
            &format!("/domain/{domain}/status"),
            &order,
            Duration::from_secs(60),
        )
        .await
        .map(drop)
        .map_err(|error| problem(&error.to_string()))
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of one boot")]
fn since_ms(before_us: u64) -> f64 {
    now_us().saturating_sub(before_us) as f64 / 1000.0
}

/// A root made by hand with `estive-bare` as `/sbin/init`: what clones of the reference `bare` boot from.
pub fn bare_root(programs: &Path, root: &Path) -> Result<(), Error> {
    for folder in ["sbin", "dev", "proc", "sys", "tmp", "run"] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder)
            .map_err(Error::system(format!("making {}", folder.display())))?;
    }
    let from = programs.join("estive-bare");
    std::fs::copy(&from, root.join("sbin/init"))
        .map(drop)
        .map_err(Error::system(format!("copying {}", from.display())))
}

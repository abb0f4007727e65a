//! A stateful clone: what it has written and synced is there after a stop, a start elsewhere, a move, and the death of
//! its QEMU, its storage daemon and the keeper of volumes; and an old generation writes nothing.
//!
//! The clone's program appends numbered lines to a file, each synced before the next (`estive-beat`), and goes on from
//! the last at every start. So a line that is missing, or a number that went back, was acknowledged and lost.
#![allow(clippy::disallowed_methods)]

mod common;

use common::{
    BOUND, ShownBed, bed_config, done, fails, herd, listed, name, on_guests, run, stdout, until,
    work,
};
use estive_api::wire::{ExportPlace, VolumeWish};
use estive_hypervisor::qmp::Qmp;
use estive_model::{DeploymentName, Generation};
use estive_volumes::{By, StorageHost, StorageHostConfig, Volumes};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

const CLONE: &str = "clone01";
/// What a guest can write within a moment even on a busy machine.
const LINES: u64 = 10;

#[test]
fn state_lives_through_everything() {
    on_guests("inside_volumes");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_volumes() {
    // Nothing is said of volumes at the reference.
    let mut config = bed_config(2, common::tiny_reference("tiny", |_| {}));
    config.volumes = Some(work().join("volumes"));
    let mut clone = Clone {
        bed: ShownBed::start(config).await,
        address: String::new(),
        last: 0,
    };
    clone.comes_up("host1").await;
    clone.daemons_die().await;
    clone.moves().await;
    clone.is_not_written_by_who_released_it().await;
    clone.is_not_written_by_a_host_that_was_cut_off().await;
    clone.crashes_and_starts().await;
    clone.goes_down_and_comes_up_elsewhere().await;
    clone.is_restored().await;
    clone.is_removed().await;
    clone.bed.stop().await;
}

struct Clone {
    bed: ShownBed,
    address: String,
    /// The last line that is known to be on disk.
    last: u64,
}

impl Clone {
    async fn comes_up(&mut self, host: &str) {
        let yaml = format!(
            "network: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 160\ncpus: 1\nsets: []\nup: [ping]\n\
             mode: stateful\nvolume: {{size: 64M}}\nhosts:\n  {CLONE}: {{host: {host}}}\n"
        );
        let rows = self.bed.estive_json(&["up", &herd("kept", &yaml)]).await;
        let rows = rows.unwrap();
        assert_eq!(rows[0]["host"], host, "{rows}");
        rows[0]["address"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.address);
        self.writes_on().await;
        self.has_one_export(host).await;
    }

    /// What its file holds: the last number. `None`: it does not answer.
    async fn log(&self) -> Option<u64> {
        let url = format!("http://{}/log", self.address);
        let asked = ["curl", "-sS", "-m", "10", &url];
        let said = self.bed.topology().client.run_in(&asked).await.ok()?;
        let said: Value = serde_json::from_str(stdout(&said).trim()).ok()?;
        assert_eq!(said["contiguous"], true, "a line is lost: {said}");
        let last = said["last"].as_u64()?;
        assert!(last >= self.last, "{last} after {} was synced", self.last);
        Some(last)
    }

    /// Nothing is lost, and more comes.
    async fn writes_on(&mut self) {
        let first = until("the clone's file is read", async || self.log().await).await;
        self.last = until("the clone writes on", async || {
            self.log().await.filter(|last| *last >= first + LINES)
        })
        .await;
    }

    async fn volume(&self) -> Value {
        let shown = self.bed.estive_json(&["volume", "show", CLONE]).await;
        shown.unwrap()
    }

    async fn has_one_export(&self, host: &str) {
        let volume = self.volume().await;
        let exports = volume["exports"].as_array().unwrap();
        assert_eq!(exports.len(), 1, "{volume}");
        assert_eq!(exports[0]["client"], host, "{volume}");
        assert_eq!(exports[0]["generation"], volume["fenced"], "{volume}");
    }

    fn daemon_pid(&self) -> String {
        let path = work().join("volumes").join(CLONE).join("pid");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    async fn daemons_die(&mut self) {
        // QEMU connects again, to a daemon that is another.
        let before = self.daemon_pid();
        run("kill", &["-9", &before]);
        self.writes_on().await;
        assert_ne!(self.daemon_pid(), before);
        // The keeper dies: nothing is felt, and the daemon is taken over.
        let before = self.daemon_pid();
        self.bed.kill_volumes().await;
        self.writes_on().await;
        self.bed.start_volumes().await.unwrap();
        self.has_one_export("host1").await;
        assert_eq!(self.daemon_pid(), before);
        // Both die.
        self.bed.kill_volumes().await;
        run("kill", &["-9", &before]);
        self.bed.start_volumes().await.unwrap();
        self.writes_on().await;
    }

    async fn moves(&mut self) {
        // The storage host is silent at the switch: it does not run before that has said that it may.
        done(&self.bed, &["migrate", CLONE, "--to", "host2"]).await;
        self.writes_on().await;
        self.has_one_export("host2").await;
    }

    /// The source's agent dies when the destination has it, before it has ended its own QEMU; and that one is let loose.
    async fn is_not_written_by_who_released_it(&mut self) {
        self.bed.kill_agent(2).await.unwrap();
        let fault = [("ESTIVE_FAULT", "move.source_killed:before")];
        self.bed.start_agent_with(2, &fault).await.unwrap();
        let moved = self.bed.estive(&["migrate", CLONE, "--to", "host1"]).await;
        drop(moved);
        self.bed.agent_ended(2, BOUND).await.unwrap();
        until("the destination has it", async || {
            let listed = listed(&self.bed).await;
            (listed.get(CLONE)?.0 == "host1").then_some(())
        })
        .await;
        self.writes_on().await;
        self.has_one_export("host1").await;
        let loose = Loose::on("host2").await;
        let before = loose.written().await;
        loose.runs().await;
        let began = self.last;
        while self.last < began + 5 * LINES {
            self.writes_on().await;
        }
        assert_eq!(loose.written().await, before, "who released it has written");
        drop(loose);
        self.bed.start_agent(2).await.unwrap();
        until("the source forgets it", async || {
            self.bed.qemu_pid(&name(CLONE), 2).is_none().then_some(())
        })
        .await;
        self.writes_on().await;
    }

    /// The source is cut off after it has released the domain and before the destination runs it, with its processors
    /// let loose against all rules: what it then sends comes to the storage host after the fence, and is refused there.
    async fn is_not_written_by_a_host_that_was_cut_off(&mut self) {
        let fault = [("ESTIVE_FAULT", "move.fenced:before")];
        self.bed.kill_agent(2).await.unwrap();
        self.bed.start_agent_with(2, &fault).await.unwrap();
        let mut moving = self.bed.estive_command();
        let mut moving = moving
            .args(["migrate", CLONE, "--to", "host2"])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.bed.agent_ended(2, BOUND).await.unwrap();
        // Released, committed, and it runs nowhere: its new host has not come to the fence.
        let exports = self.volume().await["exports"].clone();
        assert_eq!(exports.as_array().unwrap().len(), 2, "{exports}");
        self.bed.kill_agent(1).await.unwrap();
        self.bed.topology().set_cable(1, false).await.unwrap();
        let loose = Loose::on("host1").await;
        let before = loose.written().await;
        loose.runs().await;
        // It has sent what nobody gets yet.
        until("it writes into the cut cable", async || {
            (self.unconfirmed_bytes().await? > 0).then_some(())
        })
        .await;
        self.bed.start_agent(2).await.unwrap();
        until("the destination has it", async || {
            self.log().await.filter(|last| *last > self.last)
        })
        .await;
        self.bed.topology().set_cable(1, true).await.unwrap();
        let began = self.last;
        while self.last < began + 10 * LINES {
            self.writes_on().await;
        }
        // Judged once nothing of it is on its way any more.
        until("what it sent came through, or was reset", async || {
            (self.unconfirmed_bytes().await? == 0).then_some(())
        })
        .await;
        assert_eq!(
            loose.written().await,
            before,
            "an old generation has written"
        );
        drop(loose);
        self.bed.start_agent(1).await.unwrap();
        until("the move is over and the source forgets it", async || {
            self.bed.qemu_pid(&name(CLONE), 1).is_none().then_some(())
        })
        .await;
        moving.wait().await.unwrap();
        self.has_one_export("host2").await;
        // Back where the next steps look for it; what is read there comes from the disk.
        done(&self.bed, &["stop", CLONE]).await;
        done(&self.bed, &["start", CLONE]).await;
        self.writes_on().await;
        done(&self.bed, &["migrate", CLONE, "--to", "host1"]).await;
        self.writes_on().await;
    }

    /// What the first host has sent to the volume's own port and was not told of yet.
    async fn unconfirmed_bytes(&self) -> Option<u64> {
        let record = work().join("volumes").join(CLONE).join("record.json");
        let record: Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        let storage = estive_testbed::topology::STORAGE_ADDRESS.to_string();
        let port = format!(":{}", record["port"].as_u64()?);
        let mut asked = vec!["ss", "-tnH", "state", "established"];
        asked.extend(["dst", &storage, "and", "dport", "=", &port]);
        let said = self.bed.topology().hosts[0].run_in(&asked).await.ok()?;
        // The second word of each connection, where one state is asked for: sent and not confirmed.
        let text = stdout(&said);
        let waiting = text
            .lines()
            .map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        waiting.sum()
    }

    async fn crashes_and_starts(&mut self) {
        let pid = self.bed.qemu_pid(&name(CLONE), 1).unwrap().to_string();
        run("kill", &["-9", &pid]);
        until("the crash is seen", async || {
            (listed(&self.bed).await.get(CLONE)?.1 == "crashed").then_some(())
        })
        .await;
        done(&self.bed, &["start", CLONE]).await;
        self.writes_on().await;
        self.has_one_export("host1").await;
    }

    async fn goes_down_and_comes_up_elsewhere(&mut self) {
        let used = fails(&self.bed, 2, &["volume", "rm", CLONE], &["down"]).await;
        drop(used);
        done(&self.bed, &["down", "kept"]).await;
        self.comes_up("host2").await;
        // Another deployment's clone of that name gets nothing of it.
        let others = self.volume().await;
        assert_eq!(others["owner"], "kept");
    }

    async fn is_restored(&mut self) {
        // While it runs: what a crash at this moment would leave.
        done(&self.bed, &["volume", "snapshot", CLONE, "before"]).await;
        let kept = self.last;
        self.writes_on().await;
        fails(
            &self.bed,
            2,
            &["volume", "restore", CLONE, "before"],
            &["stop"],
        )
        .await;
        done(&self.bed, &["stop", CLONE]).await;
        let last = self.last;
        done(&self.bed, &["volume", "resize", CLONE, "96M"]).await;
        done(&self.bed, &["volume", "restore", CLONE, "before"]).await;
        self.last = kept;
        done(&self.bed, &["start", CLONE]).await;
        let first = until("the clone's file is read", async || self.log().await).await;
        assert!(first < last + 100 * LINES, "{first} after {kept}");
        self.writes_on().await;
    }

    async fn is_removed(&mut self) {
        done(&self.bed, &["down", "kept", "--volumes"]).await;
        let left = self.bed.estive_json(&["volume", "ls"]).await.unwrap();
        assert_eq!(left, json!([]));
        assert!(!work().join("volumes").join(CLONE).exists());
    }
}

/// A QEMU that is told by somebody else than its agent.
struct Loose(Qmp);

impl Loose {
    async fn on(host: &str) -> Self {
        let socket: PathBuf = work().join(host).join("q").join(CLONE).join("qmp.sock");
        let (qmp, _events) = Qmp::connect(&socket, BOUND).await.unwrap();
        Self(qmp)
    }

    async fn tell(&self, command: &str, arguments: Value) -> Value {
        let patience = Duration::from_secs(10);
        self.0.execute(command, arguments, patience).await.unwrap()
    }

    /// Without a network: two that answer under one address tell nothing.
    async fn runs(&self) {
        self.tell("set_link", json!({"name": "n0", "up": false}))
            .await;
        self.tell("cont", json!({})).await;
    }

    /// Writes to its volume that were answered. (Nodes are not asked: QEMU counts at the devices only.)
    async fn written(&self) -> u64 {
        let stats = self.tell("query-blockstats", json!({})).await;
        let mut devices = stats.as_array().unwrap().iter();
        let volume = devices.find(|device| device["node-name"] == "volume");
        let written = volume.unwrap()["stats"]["wr_operations"].as_u64();
        written.filter(|written| *written > 0).unwrap()
    }
}

#[test]
fn a_full_storage_host_harms_who_writes() {
    on_guests("inside_full");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_full() {
    let place = work().join("full");
    std::fs::create_dir_all(&place).unwrap();
    let directory = place.display().to_string();
    let mounted = run(
        "mount",
        &["-t", "tmpfs", "-o", "size=24m", "none", &directory],
    );
    assert!(mounted.status.success());
    run("ip", &["link", "set", "lo", "up"]);
    let config = || StorageHostConfig {
        directory: place.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
        first_port: 18_400,
        last_port: 18_401,
        credentials: None,
    };
    let host = StorageHost::open(config()).await.unwrap();
    let wish = VolumeWish {
        owner: DeploymentName::new("web").unwrap(),
        size_bytes: 64 << 20,
    };
    let (greedy, other) = (name("greedy"), name("other"));
    let mut exports = Vec::new();
    for volume in [&greedy, &other] {
        host.create(volume, &wish).await.unwrap();
        host.grant(volume, Generation(1), "h1").await.unwrap();
        exports.push(host.export(volume, Generation(1), "h1").await.unwrap());
    }
    let io = |export: &ExportPlace, command: &str| {
        let url = format!("nbd://127.0.0.1:{}/{}", export.port, export.export);
        let output = run("qemu-io", &["-f", "raw", "-c", command, &url]);
        (
            output.status.success(),
            stdout(&output) + &common::stderr(&output),
        )
    };
    let well = |export: &ExportPlace, command: &str| {
        let (went, said) = io(export, command);
        assert!(went && !said.contains("failed"), "{command}: {said}");
    };
    well(&exports[1], "write -P 3 16M 4M");
    let mut written = 0;
    let said = loop {
        let at = 16 + written;
        let (went, said) = io(&exports[0], &format!("write -P 5 {at}M 1M"));
        if !went || said.contains("failed") {
            break said;
        }
        written += 1;
        assert!(written < 24, "more than there is room for");
    };
    assert!(said.contains("No space left"), "{said}");
    for _ in 0..2 {
        // What was answered is there, for both; what has its room can be written over.
        well(&exports[0], &format!("read -P 5 16M {written}M"));
        well(&exports[1], "read -P 3 16M 4M");
        well(&exports[1], "write -P 3 17M 1M");
        for volume in [&greedy, &other] {
            assert_eq!(host.show(volume).await.unwrap().note, None);
            let pid = std::fs::read_to_string(place.join(volume.as_str()).join("pid")).unwrap();
            run("kill", &["-9", pid.trim()]);
            // Checked, found sound, and served again, on a disk that is full.
            let again = host.export(volume, Generation(1), "h1").await.unwrap();
            assert!(exports.contains(&again));
        }
    }
    // Room that is given back is everybody's.
    well(&exports[0], "discard 16M 8M");
    well(&exports[1], "write -P 4 24M 4M");
    well(&exports[1], "read -P 4 24M 4M");
    for volume in [&greedy, &other] {
        host.fence(volume, Generation(2), By::Keeper).await.unwrap();
        host.remove(volume).await.unwrap();
    }
}

//! PostgreSQL on a stateful clone: what it has committed is there after a move under pgbench, after the death of all that
//! stands beneath it, a cut link and the death of its QEMU under pgbench, and after a stop; and its sums agree.
#![allow(clippy::disallowed_methods)]

mod common;

use common::{
    ShownBed, bed_config, done, herd, listed, name, on_guests, place, run, told, until, work,
};
use estive_boot::KernelTree;
use estive_testbed::BedReference;
use estive_testbed::demo::make_key;
use estive_testbed::trial::ssh;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CLONE: &str = "db";
/// Longer than a host is missed, shorter than QEMU waits for its storage.
const CUT: Duration = Duration::from_secs(20);
const PROGRAMS: &str = "cd /tmp; PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
    as() { su postgres -s /bin/sh -c \"$*\"; }
    query() { as \"psql -X -A -t -d bench -c \\\"$1\\\"\" 2>/dev/null; }
    for i in $(seq 120); do [ \"$(query 'SELECT 1')\" = 1 ] && break; sleep 1; done";
/// What pgbench keeps true: every transaction adds the same to an account, a teller and a branch, and says so.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
    AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
    AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";

#[test]
fn what_is_committed_stays() {
    on_guests("inside_postgresql");
}

fn reference() -> BedReference {
    let place = place("sets");
    let root = told("ESTIVE_SETS_ROOT");
    let tree = KernelTree::find(&root).unwrap();
    BedReference {
        initramfs: common::boot_parts(&tree, &place),
        kernel: tree.vmlinuz.clone(),
        modules: estive_exports::modules::image(None, &place).unwrap().path,
        image: told("ESTIVE_SETS_REFERENCE"),
        sets: Vec::new(),
        early: None,
    }
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_postgresql() {
    let mut config = bed_config(2, reference());
    config.volumes = Some(work().join("volumes"));
    config.boot_timeout_s = 900;
    let key = make_key(work()).unwrap();
    let mut database = Database {
        bed: ShownBed::start(config).await,
        key: key.clone(),
    };
    database.comes_up(&key).await;
    let mut committed = database.moves_under_load().await;
    committed = database.dies_under_load(committed).await;
    database.stops(committed).await;
    database.bed.stop().await;
}

struct Database {
    bed: ShownBed,
    key: PathBuf,
}

impl Database {
    async fn comes_up(&self, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let yaml = format!(
            "network: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 512\ncpus: 1\n\
             sets: [base-debian, postgresql]\nup: [ssh]\nmode: stateful\nvolume: {{size: 1G}}\n\
             postgresql_database: bench\npostgresql_user: postgres\npostgresql_settings: {{shared_buffers: 16MB}}\n\
             ssh_authorized_keys: [\"{}\"]\nhosts:\n  {CLONE}: {{}}\n",
            public.trim()
        );
        done(&self.bed, &["up", &herd("database", &yaml)]).await;
        let made = self
            .inside("as pgbench -i -q -s 1 bench >/dev/null 2>&1; echo made=$?")
            .await;
        assert!(made.contains("made=0"), "{made}");
    }

    async fn inside(&self, script: &str) -> String {
        let script = format!("{PROGRAMS}\n{script}");
        let said = ssh(&self.bed, &name(CLONE), &self.key, &script).await;
        let said = said.unwrap_or_else(|error| panic!("{}", estive_testbed::error_chain(&error)));
        println!("{said}");
        said
    }

    /// A start does not wait for the guest.
    async fn answers(&self) {
        until("it is reached", async || {
            let said = ssh(&self.bed, &name(CLONE), &self.key, "true").await;
            said.ok()
        })
        .await;
    }

    /// Rows of pgbench's history; its sums must agree.
    async fn history(&self) -> u64 {
        let said = self
            .inside(&format!(
                "echo agree=$(query '{SUMS}'); echo rows=$(query 'SELECT count(*) FROM pgbench_history')"
            ))
            .await;
        assert!(said.contains("agree=t"), "{said}");
        fact(&said, "rows=")
    }

    async fn moves_under_load(&self) -> u64 {
        let load = self.inside("as pgbench -n -c 2 -T 20 bench 2>&1 | grep -E 'processed|failed'");
        let moving = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            let from = listed(&self.bed).await[CLONE].0.clone();
            let to = if from == "host1" { "host2" } else { "host1" };
            done(&self.bed, &["migrate", CLONE, "--to", to]).await;
        };
        let (said, ()) = tokio::join!(load, moving);
        let processed = fact(&said, "actually processed: ");
        assert!(processed > 0, "{said}");
        let rows = self.history().await;
        assert_eq!(rows, processed, "what was committed and what is there");
        rows
    }

    async fn dies_under_load(&mut self, committed: u64) -> u64 {
        // In the background: its connection would die with the clone.
        self.inside("as 'nohup pgbench -n -c 2 -T 3000 bench >/dev/null 2>&1 &'")
            .await;
        let rows = self.commits_more_than(committed).await;
        let rows = self.goes_on_without_its_parts(rows).await;
        let pid = [1, 2].map(|host| self.bed.qemu_pid(&name(CLONE), host));
        let pid = pid.into_iter().flatten().next().unwrap().to_string();
        run("kill", &["-9", &pid]);
        until("the crash is seen", async || {
            (listed(&self.bed).await.get(CLONE)?.1 == "crashed").then_some(())
        })
        .await;
        done(&self.bed, &["start", CLONE]).await;
        self.answers().await;
        let after = self.history().await;
        assert!(after >= rows, "{after} rows, {rows} were committed");
        after
    }

    /// All that stands beneath it dies and comes again, and its host is cut off for a while, under pgbench.
    async fn goes_on_without_its_parts(&mut self, committed: u64) -> u64 {
        let host = listed(&self.bed).await[CLONE].0.clone();
        let host: u8 = host.trim_start_matches("host").parse().unwrap();
        let pid = work().join("volumes").join(CLONE).join("pid");
        let pid = std::fs::read_to_string(pid).unwrap();
        let bed = &mut self.bed;
        bed.kill_agent(host).await.unwrap();
        bed.kill_cache(host).await;
        bed.kill_storage().await;
        bed.kill_volumes().await;
        run("kill", &["-9", pid.trim()]);
        bed.start_volumes().await.unwrap();
        bed.start_storage().await.unwrap();
        bed.start_cache(host).await.unwrap();
        bed.start_agent(host).await.unwrap();
        let rows = self.commits_more_than(committed).await;
        let topology = self.bed.topology();
        topology.set_cable(host, false).await.unwrap();
        tokio::time::sleep(CUT).await;
        topology.set_cable(host, true).await.unwrap();
        self.answers().await;
        self.commits_more_than(rows).await
    }

    async fn commits_more_than(&self, committed: u64) -> u64 {
        until("it commits", async || {
            let rows = self.history().await;
            (rows > committed).then_some(rows)
        })
        .await
    }

    async fn stops(&self, committed: u64) {
        done(&self.bed, &["stop", CLONE]).await;
        done(&self.bed, &["start", CLONE]).await;
        self.answers().await;
        assert_eq!(self.history().await, committed);
        done(&self.bed, &["down", "database", "--volumes"]).await;
    }
}

fn fact(said: &str, what: &str) -> u64 {
    let found = said.lines().find_map(|line| line.split_once(what));
    let (_, value) = found.unwrap_or_else(|| panic!("no {what:?} in:\n{said}"));
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("{what:?} in:\n{said}"))
}

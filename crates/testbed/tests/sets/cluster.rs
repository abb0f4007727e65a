//! A herd of five: four Debian clones with OpenMPI, one of them with nginx, one with PostgreSQL, and a clone of a root
//! with OpenRC.

use std::fs;
use std::path::Path;

use estive_boot::KernelTree;
use estive_testbed::demo::make_key;
use estive_testbed::{BedReference, trial};

use crate::common::{
    ShownBed, assert_nothing_stays, bed_config, boot_parts, debian_reference, done, herd, name,
    place, shown, stdout, told, until, work,
};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../../../examples/mpi-cluster/herd.yaml");
const CLUSTER: [&str; 4] = ["clone01", "clone02", "clone03", "clone04"];

/// What the example says besides, for this test.
const MORE: &str = "
mounts: [{device: scratch, at: /scratch, type: tmpfs, options: \"size=24m,mode=0711\"}]
dump_to: /scratch/clone
dump_exclude: [/usr, /boot, /var/lib/dpkg, /var/lib/postgresql]
kernel_modules: [dummy]
services_on: [systemd-networkd]
register_dir: /scratch/clones
postgresql_settings: {shared_buffers: 16MB}
";

/// The fifth clone, beside the group of the example.
const OPENRC: &str = "  others:
    hosts:
      clone05:
        reference: openrc
        sets: [base-openrc, register]
        memory_mib: 256
        services_on: [dbus]
        services_off: [bootlogs]
";

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_a_cluster() {
    let mut config = bed_config(2, sets_reference());
    config
        .references
        .insert("openrc".to_owned(), openrc_reference());
    config.capacity.memory_mib = 2048;
    config.boot_timeout_s = 900;
    let bed = ShownBed::start(config).await;
    let key = make_key(work()).unwrap();
    comes_up(&bed, &key).await;
    base_debian(&bed, &key).await;
    register(&bed, &key).await;
    web(&bed).await;
    mpi(&bed, &key).await;
    postgresql(&bed, &key).await;
    base_openrc(&bed, &key).await;
    dump_to_a_directory(&bed, &key).await;
    done(&bed, &["down", "mpi-cluster"]).await;
    assert_nothing_stays(&bed).await;
    bed.stop().await;
}

/// The root with everything that the sets speak of, which has a kernel of its own.
pub fn sets_reference() -> BedReference {
    let place = place("sets");
    let tree = KernelTree::find(&told("ESTIVE_SETS_ROOT")).unwrap();
    BedReference {
        initramfs: boot_parts(&tree, &place),
        kernel: tree.vmlinuz.clone(),
        modules: estive_exports::modules::image(None, &place).unwrap().path,
        image: told("ESTIVE_SETS_REFERENCE"),
        sets: Vec::new(),
        early: None,
    }
}

fn openrc_reference() -> BedReference {
    BedReference {
        image: told("ESTIVE_OPENRC_REFERENCE"),
        sets: Vec::new(),
        ..debian_reference()
    }
}

async fn inside(bed: &ShownBed, clone: &str, key: &Path, script: &str) -> String {
    let said = trial::ssh(bed, &name(clone), key, script).await;
    said.unwrap_or_else(|error| panic!("{}", estive_testbed::error_chain(&error)))
}

async fn comes_up(bed: &ShownBed, key: &Path) {
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let example = EXAMPLE.replace(
        "clone[02-03]:",
        "clone02: {sets+: [dummy]}\n      clone03: {sets+: [dump]}",
    );
    assert_ne!(example, EXAMPLE);
    let yaml = format!(
        "{example}{OPENRC}{MORE}ssh_authorized_keys: [\"{}\"]\n",
        public.trim()
    );
    let rows = bed
        .estive_json(&["up", &herd("mpi-cluster", &yaml)])
        .await
        .unwrap();
    println!("{rows:#}");
    let names: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["domain"].as_str())
        .collect();
    assert_eq!(names, [&CLUSTER[..], &["clone05"]].concat());
}

/// Runs `script` in a clone; its lines `NAME=VALUE`, with what else it says kept for the message.
async fn facts_of(bed: &ShownBed, clone: &str, key: &Path, script: &str) -> Facts {
    let said = inside(bed, clone, key, script).await;
    println!("{clone}:\n{said}");
    Facts(said)
}

struct Facts(String);

impl Facts {
    fn of(&self, wanted: &str) -> &str {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once('='));
        let found = pairs.find(|(fact, _)| *fact == wanted);
        found
            .unwrap_or_else(|| panic!("no {wanted} in:\n{}", self.0))
            .1
    }
}

async fn base_debian(bed: &ShownBed, key: &Path) {
    let script = "
        echo state=$(systemctl is-system-running --wait)
        echo failed=$(systemctl list-units --failed --plain --no-legend | cut -d' ' -f1)
        echo networkd=$(systemctl is-active systemd-networkd)
        echo of_clones=$(systemctl is-active of-clones)
        echo nginx=$(systemctl is-active nginx) $(systemctl is-enabled nginx)
        echo postgres=$(pgrep -c postgres)
        echo scratch=$(findmnt -no FSTYPE,OPTIONS /scratch)
        echo module=$(grep -c '^dummy ' /proc/modules)
        echo logs=$(stat -c '%a %U:%G' /var/log/nginx)
        echo sealed_logs=$(find /.unions/root/var/log -type f | wc -l)
        echo address=$(ip -4 -o addr show dev eth0 | wc -l)
        echo dummy=$(cat /etc/dummy)";
    let facts = facts_of(bed, "clone02", key, script).await;
    for (fact, value) in [
        ("state", "running"),
        ("failed", ""),
        ("networkd", "active"),
        ("of_clones", "active"),
        ("nginx", "inactive masked-runtime"),
        ("postgres", "0"),
        ("module", "1"),
        ("logs", "755 root:adm"),
        ("sealed_logs", "0"),
        ("address", "1"),
        ("dummy", "clone02 of mpi-cluster: nothing to say"),
    ] {
        assert_eq!(facts.of(fact), value, "{fact}");
    }
    assert!(facts.of("scratch").starts_with("tmpfs ") && facts.of("scratch").contains("mode=711"));
}

async fn registered(bed: &ShownBed, clone: &str) -> Option<Value> {
    let shown = shown(bed, clone).await;
    shown.pointer("/boot/registered").cloned()
}

/// Every clone says its address and processors; a move changes nothing of that, a stop takes it back.
async fn register(bed: &ShownBed, key: &Path) {
    for clone in CLUSTER.iter().chain(&["clone05"]) {
        let said = until("it registers", async || registered(bed, clone).await).await;
        assert_eq!(said["address"], address(bed, clone).await);
        assert_eq!(said["cpus"], 1);
    }
    let table = done(bed, &["show", "clone03"]).await;
    assert!(table.contains(", 1 processors, since "), "{table}");
    let before = registered(bed, "clone03").await.unwrap();
    let to = if shown(bed, "clone03").await["host"] == "host1" {
        "host2"
    } else {
        "host1"
    };
    bed.estive_json(&["migrate", "clone03", "--to", to])
        .await
        .unwrap();
    let after = until("it registers there", async || {
        registered(bed, "clone03").await
    })
    .await;
    assert_eq!(after["address"], before["address"]);
    assert!(after["since_ms"].as_u64() > before["since_ms"].as_u64());

    let files = "cd /scratch/clones/clone03 2>/dev/null && cat address processors";
    let said = inside(bed, "clone03", key, files).await;
    assert_eq!(said, format!("{}\n1\n", after["address"].as_str().unwrap()));
    let stop = format!("systemctl stop estive-register; {files}; true");
    assert_eq!(inside(bed, "clone03", key, &stop).await, "");
    until("it takes it back", async || {
        registered(bed, "clone03").await.is_none().then_some(())
    })
    .await;
}

async fn web(bed: &ShownBed) {
    let address = address(bed, "clone01").await;
    let curl = [
        "curl",
        "-sS",
        "-f",
        "-m",
        "60",
        &format!("http://{address}/"),
    ];
    let page = stdout(&bed.topology().client.run_in(&curl).await.unwrap());
    assert!(
        page.contains("<h1>clone01</h1>") && page.contains("A cluster of four."),
        "{page}"
    );
}

async fn address(bed: &ShownBed, clone: &str) -> String {
    shown(bed, clone).await["address"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// No host key is asked for and none is learnt: every connection is checked against the derived keys.
async fn mpi(bed: &ShownBed, key: &Path) {
    let script =
        "mpirun --hostfile /etc/openmpi/openmpi-default-hostfile -np 4 mpi-pi 2>&1; echo ended=$?
        keys() { grep -c estive_cluster_key; }
        echo keys=$(ssh -G clone02 | keys) $(runuser -u nobody -- ssh -G clone02 2>/dev/null | keys)
        ls /root/.ssh";
    let facts = facts_of(bed, "clone01", key, script).await;
    assert_eq!(facts.of("ended"), "0");
    // Root's alone: it would keep others from their own.
    assert_eq!(facts.of("keys"), "1 0");
    let mut hosts: Vec<&str> = facts
        .0
        .lines()
        .filter_map(|line| line.strip_prefix("rank ")?.split(" on ").nth(1))
        .collect();
    hosts.sort_unstable();
    assert_eq!(hosts, CLUSTER);
    assert!(facts.0.contains("pi 3.141592654"), "{}", facts.0);
    assert!(!facts.0.contains("known_hosts"), "{}", facts.0);
}

async fn postgresql(bed: &ShownBed, key: &Path) {
    let address = address(bed, "clone04").await;
    let script = format!(
        "export PGPASSWORD='change me'
        query() {{ psql -X -A -t -h {address} -U worker -d results -c \"$1\" 2>&1; }}
        query 'CREATE TABLE answers (value integer); INSERT INTO answers VALUES (40), (2)' >/dev/null
        echo sum=$(query 'SELECT sum(value) FROM answers')
        echo name=$(query 'SHOW cluster_name') $(query 'SHOW shared_buffers')
        PGPASSWORD=wrong
        echo refused=$(query 'SELECT 1')"
    );
    let facts = facts_of(bed, "clone01", key, &script).await;
    assert_eq!(facts.of("sum"), "42");
    assert_eq!(facts.of("name"), "clone04 16MB");
    assert!(
        facts
            .of("refused")
            .contains("password authentication failed")
    );
    // Another password, as a pushed layer would bring it: the data stay. It holds what a shell's
    // echo would take for a line's end.
    let script = r"
        printf '%s\n' 'an\nother' >/etc/estive/postgresql-password
        systemctl restart postgresql
        export PGPASSWORD='an\nother'
        echo kept=$(psql -X -A -t -h localhost -U worker -d results -c 'SELECT sum(value) FROM answers' 2>&1)";
    let facts = facts_of(bed, "clone04", key, script).await;
    assert_eq!(facts.of("kept"), "42");
    // The reference has a cluster of its own, which no clone sees.
    let script = "
        echo own=$(ls /var/lib/postgresql) $(stat -c '%a %U' /var/lib/postgresql/clone/data)
        echo theirs=$(ls /.unions/root/var/lib/postgresql /.unions/root/etc/postgresql | grep -c '^[0-9]')
        echo seen=$(ls /etc/postgresql)
        echo state=$(systemctl is-system-running --wait)";
    let facts = facts_of(bed, "clone04", key, script).await;
    for (fact, value) in [
        ("own", "clone 700 postgres"),
        ("theirs", "2"),
        ("seen", "clone"),
        ("state", "running"),
    ] {
        assert_eq!(facts.of(fact), value, "{fact}");
    }
}

async fn base_openrc(bed: &ShownBed, key: &Path) {
    let script = "
        echo init=$(cat /proc/1/comm) $(cat /run/openrc/softlevel)
        echo host=$(hostname) $(cat /etc/machine-id | wc -c)
        echo services=$(for one in cron dbus; do rc-service $one status >/dev/null 2>&1 && echo $one; done)
        echo bootlogs=$(rc-status -a 2>/dev/null | grep -c bootlogs)
        echo scratch=$(findmnt -no FSTYPE /scratch)
        echo crashed=$(rc-status --crashed)
        echo told=$(for one in ssh sshd; do rc-service --ifexists --ifstarted $one restart >/dev/null 2>&1 || echo $one; done)
        rc-status -a";
    let facts = facts_of(bed, "clone05", key, script).await;
    for (fact, value) in [
        ("init", "init default"),
        ("host", "clone05 33"),
        ("services", "cron dbus"),
        ("bootlogs", "0"),
        ("scratch", "tmpfs"),
        ("crashed", ""),
        ("told", ""),
    ] {
        assert_eq!(facts.of(fact), value, "{fact}");
    }
}

/// To a disk: see `dumped`.
async fn dump_to_a_directory(bed: &ShownBed, key: &Path) {
    let script = "
        mkdir /scratch/clone
        echo refused=$(dump-clone /scratch 2>&1)
        dump-clone 2>&1
        cd /scratch/clone
        echo name=$(cat etc/hostname) $(stat -c %a tmp var/tmp)
        echo left_out=$(ls -d .unions usr boot/vmlinuz* 2>/dev/null) $(ls proc sys dev run | grep -v :)
        echo logs=$(ls -d var/log/nginx)
        echo again=$(dump-clone 2>&1)";
    let facts = facts_of(bed, "clone03", key, script).await;
    let said = "dump-clone: clone03 is copied to /scratch/clone";
    assert!(facts.0.contains(said), "{}", facts.0);
    for (fact, value) in [
        ("name", "clone03 1777 1777"),
        ("left_out", ""),
        ("logs", "var/log/nginx"),
    ] {
        assert_eq!(facts.of(fact), value, "{fact}");
    }
    for fact in ["refused", "again"] {
        assert!(facts.of(fact).contains("is not empty; --force"), "{fact}");
    }
}

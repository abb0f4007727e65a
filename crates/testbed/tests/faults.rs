//! Faults beneath two clones that sync numbered lines, each line told to a log outside as soon as it is on disk: whatever
//! is killed, cut or filled, nothing that was acknowledged is lost; whatever flips, nothing wrong is read; and the
//! neighbour goes on.
#![allow(clippy::disallowed_methods)]

mod common;

use common::{
    BOUND, ShownBed, bed_config, done, herd, on_guests, run, stderr, stdout, until, work,
};
use estive_network::namespace::Namespace;
use estive_testbed::BedReference;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Child;

/// What a guest can write within a moment even on a busy machine.
const LINES: u64 = 10;
/// Longer than a host is missed, shorter than QEMU waits for its storage.
const CUT: Duration = Duration::from_secs(20);
const HERD: &str = "network: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 160\ncpus: 1\nsets: []\nup: [ping]\n\
    mode: stateful\nvolume: {size: 64M}\nhosts:\n  one: {host: host1}\n  two: {host: host2}\n";
const CHUNK_BYTES: usize = 1 << 20;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_wrong_is_read() {
    on_guests("inside_faults");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_faults() {
    let data = text();
    let reference = common::tiny_reference("tiny", |root| {
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/text"), &data).unwrap();
    });
    let root = Root::new(&reference, data);
    let mut config = bed_config(2, reference);
    let disk = Disk::of_the_storage_host();
    config.volumes = Some(disk.volumes());
    // Before anybody has read it.
    flip(&root.image, root.at);
    let mut bed = ShownBed::start(config).await;
    let rows = bed.estive_json(&["up", &herd("pair", HERD)]).await.unwrap();
    let address = |at: usize| rows[at]["address"].as_str().unwrap().to_owned();
    let mut one = Writer::new(&bed, "one", address(0));
    let mut two = Writer::new(&bed, "two", address(1));
    both_write_on(&mut one, &mut two).await;
    what_flips_is_never_read(&mut bed, &one, &root).await;
    each_part_dies(&mut bed, &mut one, &mut two).await;
    a_link_is_cut(&bed, &mut one, &mut two).await;
    a_volume_is_full(&bed, &mut one, &mut two).await;
    the_storage_hosts_disk_is_full(&bed, &mut one, &mut two, &disk).await;
    done(&bed, &["down", "pair", "--volumes"]).await;
    bed.stop().await;
}

/// What volumes lie on: a file system of its own.
struct Disk;

impl Disk {
    fn of_the_storage_host() -> Disk {
        fs::create_dir_all(Self::place()).unwrap();
        let place = Self::place().display().to_string();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=320m", "none", &place]);
        assert!(mounted.status.success(), "{}", stderr(&mounted));
        Disk
    }

    fn place() -> PathBuf {
        work().join("disk")
    }

    fn volumes(&self) -> PathBuf {
        Self::place().join("volumes")
    }

    fn ballast() -> PathBuf {
        Self::place().join("ballast")
    }

    /// Somebody else's file takes the room, but for so many bytes.
    fn takes_all_but(&self, left_bytes: u64) {
        let disk = rustix::fs::statvfs(Self::place()).unwrap();
        let free_bytes = disk.f_bavail * disk.f_frsize;
        let mut ballast = fs::File::options()
            .create(true)
            .append(true)
            .open(Self::ballast())
            .unwrap();
        let page = [1; 4096];
        for _ in 0..free_bytes.saturating_sub(left_bytes) / page.len() as u64 {
            if ballast.write_all(&page).is_err() {
                return;
            }
        }
    }

    fn has_room_again(&self) {
        fs::remove_file(Self::ballast()).unwrap();
    }
}

/// A clone that writes, and what it has acknowledged.
struct Writer {
    name: &'static str,
    address: String,
    /// Where people are.
    client: Namespace,
    /// A line for each that was synced, written outside of the clone.
    acknowledged: PathBuf,
    _listening: Child,
}

impl Writer {
    fn new(bed: &ShownBed, name: &'static str, address: String) -> Writer {
        let acknowledged = work().join(format!("acknowledged-{name}"));
        let log = fs::File::create(&acknowledged).unwrap();
        // A connection of a QEMU that was killed is silent for ever; what was told of half a line is a line of its own.
        let listen = format!(
            "while :; do curl -sSN -Y 1 -y 30 http://{address}/acks; echo; sleep 0.2; done"
        );
        let mut command = bed.topology().client.command("sh");
        command
            .args(["-c", &listen])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Writer {
            name,
            address,
            client: bed.topology().client.clone(),
            acknowledged,
            _listening: command.spawn().unwrap(),
        }
    }

    /// The last line that was acknowledged.
    fn promised(&self) -> u64 {
        let log = fs::read_to_string(&self.acknowledged).unwrap();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter_map(|line| line.parse().ok())
            .max()
            .unwrap_or(0)
    }

    async fn asked(&self, path: &str) -> Option<String> {
        let url = format!("http://{}{path}", self.address);
        let limit = BOUND.as_secs().to_string();
        let asked = ["curl", "-sSf", "-m", &limit, "--connect-timeout", "5", &url];
        let said = self.client.run_in(&asked).await.ok()?;
        Some(stdout(&said))
    }

    /// What its file holds: every line that was acknowledged until now.
    async fn holds(&self) -> u64 {
        until("the clone's file is read", async || {
            let promised = self.promised();
            let said: Value = serde_json::from_str(&self.asked("/log").await?).ok()?;
            assert_eq!(
                said["contiguous"], true,
                "{}: a line is lost: {said}",
                self.name
            );
            let last = said["last"].as_u64()?;
            assert!(
                last >= promised,
                "{}: {last}, and {promised} was acknowledged",
                self.name
            );
            Some(last)
        })
        .await
    }

    /// Nothing is lost, and more comes.
    async fn writes_on(&mut self) {
        let first = self.holds().await;
        until("more is acknowledged", async || {
            (self.promised() >= first + LINES).then_some(())
        })
        .await;
        self.holds().await;
    }
}

async fn both_write_on(one: &mut Writer, two: &mut Writer) {
    tokio::join!(one.writes_on(), two.writes_on());
}

/// Lines that are all different.
fn text() -> String {
    let line = |number: u32| format!("{number:08} of the root of all\n");
    (0..200_000).map(line).collect()
}

/// A sealed root with a long file in it.
struct Root {
    image: PathBuf,
    data: String,
    /// A byte of a chunk that has nothing but that file.
    at: usize,
}

impl Root {
    fn new(reference: &BedReference, data: String) -> Root {
        let image = reference.image.clone();
        let bytes = fs::read(&image).unwrap();
        let (head, begin) = (data.as_bytes(), 4096);
        let start = bytes
            .chunks(begin)
            .position(|block| block == &head[..begin]);
        let start = start.expect("the file's data begins a block") * begin;
        let at = (start / CHUNK_BYTES + 1) * CHUNK_BYTES + 4711;
        assert!(
            at + CHUNK_BYTES < start + data.len(),
            "the chunk is all of that file"
        );
        assert_eq!(bytes[at], head[at - start]);
        Root { image, data, at }
    }

    /// The name of the chunk.
    fn chunk(&self) -> String {
        let bytes = fs::read(&self.image).unwrap();
        let start = self.at / CHUNK_BYTES * CHUNK_BYTES;
        let alone = work().join("chunk");
        fs::write(&alone, &bytes[start..start + CHUNK_BYTES]).unwrap();
        let said = run("sha256sum", &[&alone.display().to_string()]);
        stdout(&said)[..64].to_owned()
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Somebody is told of it, in these words.
async fn is_told(bed: &ShownBed, words: &[&str]) {
    until("it is told", async || {
        let events = bed.estive_json(&["events"]).await.ok()?;
        let told = |event: &Value| {
            let reason = event["reason"].as_str().unwrap_or_default();
            event["kind"] == "chunk_refused" && words.iter().all(|word| reason.contains(word))
        };
        events.as_array()?.iter().any(told).then_some(())
    })
    .await;
}

async fn what_flips_is_never_read(bed: &mut ShownBed, one: &Writer, root: &Root) {
    let text = "/file/data/text";
    // On the server's disk, and nobody else has it.
    assert_eq!(one.asked(text).await.as_deref(), Some("errno 5"));
    is_told(bed, &["a read was refused"]).await;
    flip(&root.image, root.at);
    let right = async || {
        one.asked("/forget").await.unwrap();
        let read = one.asked(text).await.unwrap();
        assert!(read == root.data, "{} bytes: {read:.80}", read.len());
    };
    right().await;
    // In the file of the host's cache: fetched again.
    let chunk = root.chunk();
    let kept = bed.cache_directory(1).chunks();
    let kept = kept.join(&chunk[..2]).join(&chunk);
    until("it is kept", async || kept.exists().then_some(())).await;
    flip(&kept, 4711);
    bed.kill_cache(1).await;
    bed.start_cache(1).await.unwrap();
    right().await;
    is_told(bed, &[&kept.display().to_string()]).await;
    // Its cache dies under the clone's reads, which wait, and is there again without the root's server.
    bed.kill_storage().await;
    one.asked("/forget").await.unwrap();
    bed.kill_cache(1).await;
    let reading = one.asked(text);
    let (read, started) = tokio::join!(reading, bed.start_cache(1));
    started.unwrap();
    assert!(read.unwrap() == root.data);
    bed.start_storage().await.unwrap();
}

async fn each_part_dies(bed: &mut ShownBed, one: &mut Writer, two: &mut Writer) {
    for host in [1, 2] {
        bed.kill_agent(host).await.unwrap();
        bed.kill_cache(host).await;
    }
    bed.kill_storage().await;
    bed.kill_volumes().await;
    bed.kill_manager().await;
    // Nothing is left but QEMUs and storage daemons.
    both_write_on(one, two).await;
    let pid = |name: &str| {
        let path = Disk::place().join("volumes").join(name).join("pid");
        fs::read_to_string(path).unwrap().trim().to_owned()
    };
    run("kill", &["-9", &pid(one.name)]);
    // Nobody starts it again yet; the neighbour does not feel it.
    two.writes_on().await;
    bed.start_volumes().await.unwrap();
    bed.start_storage().await.unwrap();
    for host in [1, 2] {
        bed.start_cache(host).await.unwrap();
        bed.start_agent(host).await.unwrap();
    }
    bed.start_manager().await.unwrap();
    both_write_on(one, two).await;
}

async fn a_link_is_cut(bed: &ShownBed, one: &mut Writer, two: &mut Writer) {
    let before = one.holds().await;
    bed.topology().set_cable(1, false).await.unwrap();
    let (_, ()) = tokio::join!(tokio::time::sleep(CUT), two.writes_on());
    bed.topology().set_cable(1, true).await.unwrap();
    both_write_on(one, two).await;
    assert!(one.holds().await > before);
}

async fn a_volume_is_full(bed: &ShownBed, one: &mut Writer, two: &mut Writer) {
    let said = one.asked("/fill").await.unwrap();
    println!("{said}");
    assert!(said.starts_with("errno 28 after "), "{said}");
    two.writes_on().await;
    // What it had is there, and it goes on once there is room.
    one.holds().await;
    done(bed, &["stop", one.name]).await;
    done(bed, &["volume", "resize", one.name, "96M"]).await;
    done(bed, &["start", one.name]).await;
    both_write_on(one, two).await;
    // The herd file still says what it was: that is said, and left so.
    let again = bed.estive(&["up", &herd("pair", HERD)]).await.unwrap();
    let said = stderr(&again);
    assert!(again.status.success(), "{said}");
    assert!(said.contains("the volume of one has 96 MiB"), "{said}");
    assert!(!said.contains("the volume of two"), "{said}");
}

/// Not the volume's quota: the file system below all of them. Whose write needs room is told of it, and by its own guest
/// only; both keep what they have, and go on once there is room and they were started again.
async fn the_storage_hosts_disk_is_full(
    bed: &ShownBed,
    one: &mut Writer,
    two: &mut Writer,
    disk: &Disk,
) {
    both_write_on(one, two).await;
    disk.takes_all_but(6 << 20);
    let said = one.asked("/fill").await.unwrap();
    println!("{said}");
    // A broken disk, to the guest: its own file system has room.
    assert!(said.starts_with("errno 5 after "), "{said}");
    disk.takes_all_but(0);
    for clone in [&*one, &*two] {
        clone.holds().await;
        let shown = bed.estive_json(&["show", clone.name]).await.unwrap();
        assert_eq!(shown["state"], "running", "{shown}");
    }
    // Their daemons die on it: the images are sound, and served again.
    for clone in [&*one, &*two] {
        let pid = disk.volumes().join(clone.name).join("pid");
        let pid = fs::read_to_string(pid).unwrap();
        run("kill", &["-9", pid.trim()]);
        until("its volume is served again", async || {
            let volume = bed
                .estive_json(&["volume", "show", clone.name])
                .await
                .ok()?;
            let pid_now = fs::read_to_string(disk.volumes().join(clone.name).join("pid")).ok()?;
            (volume["note"].is_null() && pid_now != pid).then_some(())
        })
        .await;
        clone.holds().await;
    }
    // Nobody new is let in: that could not be written down. It is said, and nothing is lost by it.
    done(bed, &["stop", one.name, "--grace", "0"]).await;
    let refused = ["storage host", "No space left"];
    common::fails(bed, 1, &["start", one.name], &refused).await;
    two.holds().await;
    disk.has_room_again();
    done(bed, &["start", one.name]).await;
    one.writes_on().await;
    // What its guest made of failed writes is up to its file system; it was promised no more than it was told.
    done(bed, &["stop", two.name, "--grace", "0"]).await;
    done(bed, &["start", two.name]).await;
    both_write_on(one, two).await;
}

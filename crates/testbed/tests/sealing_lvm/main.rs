//! Sealing file systems on logical volumes, in a guest: this machine's kernel may have no device-mapper. Two files are
//! kept in step there all the while: an image shows one instant when they are in step in it.
//!
//! One guest does all of it (`sealer.sh`) and writes what came of it to a disk; each test looks at a part.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use estive_boot::KernelModules;
use estive_erofs::{Image, Kind, Limits, Visit};
use estive_rig::machine::Machine;
use estive_rig::{compiled, from_environment, kernel, run};
use serde_json::Value;

/// What the guest reports on its console, in this order.
const STEPS: [&str; 15] = [
    "made",
    "thick",
    "live",
    "own",
    "overflow",
    "killed",
    "after",
    "stopped",
    "meanwhile",
    "beside",
    "kept",
    "thin",
    "full",
    "missing",
    "results",
];
const GROUP_MIB: u64 = 512;
const RESULTS_MIB: u64 = 256;
/// How what a seal has made is called.
const OURS: &str = "estive-seal-";

/// The directory that the guest has left.
fn results() -> &'static Path {
    static RESULTS: OnceLock<PathBuf> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealing-lvm");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let results = directory.join("results.tar");
        in_guest(&results);
        run(Command::new("tar")
            .arg("-xf")
            .arg(&results)
            .arg("-C")
            .arg(&directory));
        directory
    })
}

fn in_guest(results: &Path) {
    let mut machine = Machine::new("tmpfs");
    machine.words = vec![
        "root=serial=loaders:fs=erofs;serial=script;tmpfs".into(),
        "init=/sealer".into(),
    ];
    machine.memory_mib = 640;
    let (script, group) = (machine.path("script"), machine.path("group"));
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-E", "root_owner=0:0,lazy_itable_init=1", "-d"])
        .arg(tree(&machine.path("tree")))
        .arg(&script)
        .arg("128M"));
    for (disk, size_mib) in [(group.as_path(), GROUP_MIB), (results, RESULTS_MIB)] {
        let disk = File::create(disk).unwrap();
        disk.set_len(size_mib << 20).unwrap();
    }
    let root = from_environment("ESTIVE_LOADERS_REFERENCE");
    machine = machine
        .disk(&root, "virtio-blk-pci,serial=loaders")
        .disk(&script, "virtio-blk-pci,serial=script")
        .disk(&group, "virtio-blk-pci,serial=group")
        .disk(results, "virtio-blk-pci,serial=results");
    machine.disks[0].read_only = true;
    let mut guest = machine.boot();
    for step in STEPS {
        guest.wait_until(step, |guest| {
            guest.text("console").contains(&format!("fact {step}="))
        });
    }
    guest.facts();
}

/// The script, what it runs, and kernel modules in the order in which they are loaded.
fn tree(directory: &Path) -> &Path {
    fs::create_dir_all(directory.join("modules")).unwrap();
    fs::create_dir_all(directory.join("lvm")).unwrap();
    let here = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sealing_lvm"));
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::copy(here.join("lvm.conf"), directory.join("lvm/lvm.conf")).unwrap();
    fs::copy(here.join("sealer.sh"), directory.join("sealer")).unwrap();
    let writer = compiled(&here.join("writer.rs"), place);
    fs::copy(writer, directory.join("writer")).unwrap();
    run(Command::new("strip")
        .arg("-o")
        .arg(directory.join("estive"))
        .arg(from_environment("ESTIVE_BIN")));
    for program in ["sealer", "writer", "estive"] {
        let program = directory.join(program);
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let modules = kernel().modules_dep().unwrap();
    let wanted = ["dm_snapshot", "dm_thin_pool", "xfs"];
    for (index, name) in modules.closure(&wanted, &[]).unwrap().iter().enumerate() {
        let module = kernel().module(modules.file(name).unwrap()).unwrap();
        let file = format!("modules/{index:02}-{name}.ko");
        fs::write(directory.join(file), module).unwrap();
    }
    directory
}

/// What came of one seal.
struct Seal {
    directory: PathBuf,
}

impl Seal {
    fn of(name: &str) -> Seal {
        Seal {
            directory: results().join(name),
        }
    }

    fn text(&self, name: &str) -> String {
        let path = self.directory.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What it notes about how it was read.
    fn notes(&self, part: &str) {
        let notes = self.consistency()["notes"].to_string();
        assert!(notes.contains(part), "{part:?} is not said: {notes}");
    }

    fn consistency(&self) -> Value {
        assert_eq!(self.text("status"), "0\n", "{}", self.text("said"));
        let sealed: Value = serde_json::from_str(&self.text("sealed")).unwrap();
        sealed["consistency"].clone()
    }

    /// The files of the image, by their paths.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let sealed: Value = serde_json::from_str(&self.text("sealed")).unwrap();
        let image = Path::new(sealed["path"].as_str().unwrap());
        let image = File::open(self.directory.join(image.file_name().unwrap())).unwrap();
        let image = Image::open(image).unwrap();
        let mut files = BTreeMap::new();
        image
            .walk(Limits::default(), &mut |entry| {
                if entry.inode.kind == Kind::File {
                    let mut bytes = vec![0; usize::try_from(entry.inode.size_bytes).unwrap()];
                    image.read_at(&entry.inode, &mut bytes, 0)?;
                    files.insert(String::from_utf8(entry.path.clone()).unwrap(), bytes);
                }
                Ok(Visit::Below)
            })
            .unwrap();
        files
    }

    /// By how much the writer's first file is ahead of its second in the image; and all that nobody writes to is whole.
    fn ahead(&self) -> i64 {
        let files = self.files();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let bulk: Vec<String> = (1..=8).map(|number| format!("bulk/{number}")).collect();
        let mut expected = vec!["a/first"];
        expected.extend(bulk.iter().map(String::as_str));
        // Nothing of what is mounted over `other`, nor of what lies below that.
        expected.push("z/last");
        assert_eq!(names, expected);
        for (number, name) in (1..).zip(&bulk) {
            let lines = (0..100_000).map(|line| format!("{}\n", number * 100_000 + line));
            assert_eq!(
                files[name],
                lines.collect::<String>().into_bytes(),
                "{name}"
            );
        }
        step(&String::from_utf8_lossy(&files["a/first"]))
            - step(&String::from_utf8_lossy(&files["z/last"]))
    }

    /// Steps of the writer from before the seal until after it.
    fn steps(&self) -> i64 {
        step(&self.text("after")) - step(&self.text("before"))
    }

    /// Volumes of seals that were there after it.
    fn left(&self) -> Vec<String> {
        let volumes = self.text("volumes");
        let ours = volumes.lines().filter(|name| name.starts_with(OURS));
        ours.map(str::to_owned).collect()
    }

    /// It was read from a snapshot, of one instant, while the writer went on.
    fn is_of_one_instant(&self) {
        let how = self.consistency();
        assert_eq!(how["read_from"], "LVM snapshot", "{}", self.text("said"));
        assert_eq!(how["one_instant"], true, "{how}");
        assert_eq!(how["rounds"], 1);
        let (ahead, steps) = (self.ahead(), self.steps());
        println!(
            "{}: {ahead} ahead, {steps} steps meanwhile",
            self.directory.display()
        );
        assert!((0..=1).contains(&ahead), "{ahead} ahead");
        assert!(steps > 1, "{steps} steps");
    }

    /// The root itself was read.
    fn is_live(&self) {
        let how = self.consistency();
        assert_eq!(how["read_from"], "live", "{}", self.text("said"));
    }
}

/// The number that a file of the writer says.
fn step(text: &str) -> i64 {
    let text = text.trim();
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no step"))
}

#[test]
fn a_directory_on_a_volume_is_sealed_as_it_was_at_one_instant() {
    let made = fs::read_to_string(results().join("made")).unwrap();
    let volumes = fs::read_to_string(results().join("volumes")).unwrap();
    assert!(
        volumes.contains("web-root") && volumes.contains("thin"),
        "{made}"
    );
    let thick = Seal::of("thick");
    thick.is_of_one_instant();
    assert_eq!(thick.left(), [""; 0]);
}

#[test]
fn so_it_is_when_the_image_is_written_to_that_volume() {
    let own = Seal::of("own");
    own.is_of_one_instant();
    assert_eq!(own.left(), [""; 0]);
}

#[test]
fn so_is_one_on_a_thin_volume_with_another_file_system() {
    let thin = Seal::of("thin");
    thin.is_of_one_instant();
    assert_eq!(thin.left(), [""; 0]);
}

#[test]
fn without_a_snapshot_the_same_tree_is_of_no_one_instant() {
    let live = Seal::of("live");
    live.is_live();
    let how = live.consistency();
    println!("live: {} ahead, {how}", live.ahead());
    assert_eq!(how["one_instant"], false, "{how}");
}

#[test]
fn a_snapshot_that_runs_full_while_it_is_read_gives_no_image() {
    let overflow = Seal::of("overflow");
    let invalid = overflow.text("invalid");
    let ours = invalid.lines().find(|line| line.contains(OURS));
    assert!(
        ours.is_some_and(|line| line.trim_end().ends_with(" 1")),
        "{invalid}"
    );
    overflow.is_live();
    overflow.notes("the snapshot was given up");
    overflow.notes("--snapshot-share");
    println!("overflow: {} ahead", overflow.ahead());
    assert_eq!(overflow.left(), [""; 0]);
}

#[test]
fn what_a_killed_seal_leaves_the_next_one_removes() {
    let (killed, after) = (Seal::of("killed"), Seal::of("after"));
    assert_eq!(killed.text("status"), "137\n");
    assert_eq!(killed.left().len(), 1, "{}", killed.text("volumes"));
    let mounted = killed.text("mounted");
    assert_eq!(mounted.split_whitespace().count(), 1, "{mounted}");
    after.is_of_one_instant();
    after.notes("a killed seal had left was removed");
    assert_eq!(after.left(), [""; 0]);
}

#[test]
fn a_seal_that_is_stopped_leaves_nothing() {
    let stopped = Seal::of("stopped");
    assert_eq!(stopped.text("status"), "1\n", "{}", stopped.text("said"));
    let said = stopped.text("said");
    assert!(said.contains("sealing was stopped"), "{said}");
    assert_eq!(stopped.left(), [""; 0]);
    let files = stopped.text("files");
    assert!(
        !files.contains(".seal-") && !files.contains("erofs"),
        "{files}"
    );
}

#[test]
fn a_snapshot_that_another_seal_reads_stays() {
    let (beside, meanwhile) = (Seal::of("beside"), Seal::of("meanwhile"));
    meanwhile.is_of_one_instant();
    assert_eq!(meanwhile.left().len(), 1, "{}", meanwhile.text("volumes"));
    beside.is_of_one_instant();
    assert_eq!(beside.left(), [""; 0]);
}

#[test]
fn what_was_changed_beside_a_snapshot_is_of_another_instant() {
    let kept = Seal::of("kept");
    let how = kept.consistency();
    assert_eq!(how["read_from"], "LVM snapshot", "{}", kept.text("said"));
    assert_eq!(how["one_instant"], false, "{how}");
    assert_eq!(kept.files()["other/file"], b"other\nchanged\n");
}

#[test]
fn without_room_or_tools_the_root_itself_is_read_and_it_is_said_why() {
    for (name, why) in [
        ("full", "0 extents of 1 MiB are free"),
        ("missing", "package lvm2"),
    ] {
        let seal = Seal::of(name);
        seal.is_live();
        seal.notes("no snapshot was made");
        seal.notes(why);
        assert_eq!(seal.consistency()["one_instant"], true);
        assert!((0..=1).contains(&seal.ahead()));
    }
}

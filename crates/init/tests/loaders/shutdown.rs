//! The union is taken apart at shutdown: a disk that is written to until the end is left clean.
//!
//! `ESTIVE_SHUTDOWNS` says how often; the suite needs only few. Real systemd and OpenRC: the suite `testbed-sets`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::bed::{Machine, Tree, compiled, run};

/// Of ext4's superblock, from the start of the disk (kernel, Documentation/filesystems/ext4/globals.rst).
const STATE_OFFSET: u64 = 1024 + 0x3A;
const INCOMPATIBLE_OFFSET: u64 = 1024 + 0x60;
const STATE_CLEAN: u16 = 1;
const NEEDS_RECOVERY: u32 = 4;

/// What the superblock says of how the file system was left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Clean,
    /// Its journal must be replayed.
    NeedsRecovery,
}

fn left(image: &Path) -> Left {
    let image = File::open(image).unwrap();
    let (mut state, mut features) = ([0; 2], [0; 4]);
    image.read_exact_at(&mut state, STATE_OFFSET).unwrap();
    image
        .read_exact_at(&mut features, INCOMPATIBLE_OFFSET)
        .unwrap();
    let needs_recovery = u32::from_le_bytes(features) & NEEDS_RECOVERY != 0;
    assert_eq!(
        u16::from_le_bytes(state) & 3,
        STATE_CLEAN,
        "errors, or not unmounted"
    );
    match needs_recovery {
        false => Left::Clean,
        true => Left::NeedsRecovery,
    }
}

fn ender() -> &'static Path {
    static ENDER: OnceLock<PathBuf> = OnceLock::new();
    ENDER.get_or_init(|| compiled("ender"))
}

struct Disks {
    _directory: tempfile::TempDir,
    root: PathBuf,
    state: PathBuf,
}

fn disks() -> Disks {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let tree = Tree::new("root").file("bin/ender", std::fs::read(ender()).unwrap());
    use std::os::unix::fs::PermissionsExt;
    let program = tree.path().join("bin/ender");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    tree.erofs(&path("root"), &[]);
    Tree::new("state").ext4(&path("state"), 64, &[]);
    Disks {
        root: path("root"),
        state: path("state"),
        _directory: directory,
    }
}

/// Boots, is written to, and ends; what it said.
fn end(disks: &Disks, how: &str) -> String {
    let mut machine = Machine::new("/dev/vda;/dev/vdb:rw");
    machine.words[1] = "init=/bin/ender".into();
    machine
        .word(&format!("ender={how}"))
        .disk(&disks.root, "virtio-blk-pci")
        .disk(&disks.state, "virtio-blk-pci")
        .boot()
        .ending()
}

fn ends_clean(how: &str, said: &str) {
    let wanted = std::env::var("ESTIVE_SHUTDOWNS").ok();
    let times = wanted.map_or(1, |times| times.parse::<u32>().unwrap());
    let disks = disks();
    for time in 0..times {
        let story = end(&disks, how);
        assert!(story.contains(said), "{story}");
        assert!(!story.contains("fact error"), "{story}");
        assert_eq!(
            left(&disks.state),
            Left::Clean,
            "{how}, time {time}:\n{story}"
        );
        run(Command::new("e2fsck").args(["-f", "-n"]).arg(&disks.state));
    }
    println!("{how}: clean {times} times");
}

#[test]
fn a_union_is_taken_apart_where_systemd_makes_way() {
    ends_clean("systemd", "shutdown: the root is taken apart");
}

#[test]
fn a_union_is_made_read_only_where_init_stays() {
    ends_clean("stay", "fact ending=stay");
}

#[test]
fn without_care_the_journal_is_left_to_be_replayed() {
    let disks = disks();
    end(&disks, "none");
    assert_eq!(left(&disks.state), Left::NeedsRecovery);
}

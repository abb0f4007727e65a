//! Sealing a root that is written to: every file of an image is one that existed at some instant, or is listed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use estive_erofs::{Image, Inode, Kind, Limits, Visit};
use estive_exports::diff::{Change, What, diff};
use estive_exports::seal::{Action, Asked, SealOptions};
use estive_exports::{ExportError, seal, seal_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sha2::{Digest, Sha256};

/// Everything of an image by its path.
fn read(image: &Path) -> Vec<(String, Inode, Vec<u8>)> {
    let image = Image::open(File::open(image).unwrap()).unwrap();
    let mut found = Vec::new();
    image
        .walk(Limits::default(), &mut |entry| {
            let mut bytes = Vec::new();
            if entry.inode.kind == Kind::File && entry.inode.size_bytes < 64 << 20 {
                bytes.resize(entry.inode.size_bytes as usize, 0);
                image.read_at(&entry.inode, &mut bytes, 0)?;
            }
            let path = String::from_utf8(entry.path.clone()).unwrap();
            found.push((path, entry.inode.clone(), bytes));
            Ok(Visit::Below)
        })
        .unwrap();
    found
}

/// Content that says of itself whether it is whole: its length, a number, filling, its own digest.
fn checked(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![(number % 251) as u8; length.max(48)];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let length = bytes.len();
    bytes[8..16].copy_from_slice(&(length as u64).to_le_bytes());
    let digest = Sha256::digest(&bytes[..length - 32]);
    bytes[length - 32..].copy_from_slice(&digest);
    bytes
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() >= 48
        && bytes[8..16] == (bytes.len() as u64).to_le_bytes()
        && bytes[bytes.len() - 32..] == Sha256::digest(&bytes[..bytes.len() - 32])[..]
}

/// Records of a log before the next one is begun.
const LOG_RECORDS: u64 = 20_000;

/// Records of an appended file, each whole and numbered in order.
fn is_a_log(bytes: &[u8]) -> bool {
    bytes.len().is_multiple_of(64)
        && bytes.chunks(64).enumerate().all(|(number, record)| {
            is_whole(record) && record[..8] == (number as u64).to_le_bytes()
        })
}

/// Writes to `root` until told to stop, in the ways that programs do.
fn disturb(root: PathBuf, stop: Arc<AtomicBool>) -> Vec<thread::JoinHandle<u64>> {
    let ways: [fn(&Path, u64); 4] = [
        // Written aside and renamed over, as package managers and editors do.
        |root, number| {
            let length = (number as usize * 7919) % 300_000;
            let aside = root.join("renamed/file.new");
            fs::write(&aside, checked(number, length)).unwrap();
            let name = format!("renamed/file-{}", number % 7);
            fs::rename(&aside, root.join(name)).unwrap();
        },
        // One record appended by one write; now and then a new file is begun.
        |root, number| {
            let (file, record) = (number / LOG_RECORDS, number % LOG_RECORDS);
            File::options()
                .append(true)
                .create(true)
                .open(root.join(format!("logs/{file}")))
                .unwrap()
                .write_all(&checked(record, 64))
                .unwrap();
            if record == 0 && file > 0 {
                fs::remove_file(root.join(format!("logs/{}", file - 1))).unwrap();
            }
        },
        // Written over in place, by one write; a reader may see half of it.
        |root, number| {
            let length = 200_000 + (number as usize % 3) * 100_000;
            File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(root.join(format!("rewritten-{}", number % 3)))
                .unwrap()
                .write_all_at(&checked(number, length), 0)
                .unwrap();
        },
        // Made and deleted, with directories.
        |root, number| {
            let dir = root.join(format!("come-and-go/{}", number % 5));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(dir.join("below")).unwrap();
            fs::write(dir.join("below/file"), checked(number, 5000)).unwrap();
        },
    ];
    for dir in ["renamed", "come-and-go", "logs"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    ways.into_iter()
        .map(|way| {
            let (root, stop) = (root.clone(), stop.clone());
            thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    way(&root, number);
                    number += 1;
                    // Leaves the processors to the reader and to other tests, too.
                    thread::sleep(std::time::Duration::from_micros(500));
                }
                number
            })
        })
        .collect()
}

/// 20 times, or as often as ESTIVE_SEALS says.
#[test]
fn whatever_writes_meanwhile_each_file_is_whole_or_listed() {
    let seals = std::env::var("ESTIVE_SEALS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(20);
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("still")).unwrap();
    for number in 0..200 {
        let bytes = checked(number, number as usize * 500);
        fs::write(root.join(format!("still/{number}")), bytes).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers = disturb(root.clone(), stop.clone());
    for round in 0..seals {
        let sealed = seal(&root, &home.path().join("out")).unwrap();
        let torn: BTreeSet<&str> = sealed
            .consistency
            .torn
            .iter()
            .map(|path| path.trim_start_matches('/'))
            .collect();
        let things = read(&sealed.path);
        let still = things.iter().filter(|thing| thing.0.starts_with("still/"));
        assert_eq!(still.count(), 200);
        for (path, inode, bytes) in &things {
            // The place aside holds what is half written, and is kept so.
            if inode.kind != Kind::File || torn.contains(&**path) || path.ends_with(".new") {
                continue;
            }
            let sound = match path.as_str() {
                // Between being made and being written it is empty.
                _ if bytes.is_empty() => true,
                _ if path.starts_with("logs/") => is_a_log(bytes),
                // Where a shorter content lies over a longer one, that one's end stays.
                _ if path.starts_with("rewritten") => {
                    let length = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
                    bytes.get(..length).is_some_and(is_whole)
                }
                _ => is_whole(bytes),
            };
            assert!(sound, "seal {round}: {path} ({} bytes)", bytes.len());
        }
        fs::remove_file(&sealed.path).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.join().unwrap() > 0);
    }
    // Nobody writes any more: all of it at one instant, and nothing is listed.
    let sealed = seal(&root, &home.path().join("out")).unwrap();
    assert!(sealed.consistency.one_instant, "{:?}", sealed.consistency);
    assert_eq!(sealed.consistency.torn_count, 0);
    assert_eq!(sealed.consistency.changing_count, 0);
}

/// File systems give the number of a removed file to the next one, while a walk goes on.
#[test]
fn no_file_has_the_content_of_another_that_had_its_number() {
    const DIRECTORIES: u64 = 40;
    const FILES: u64 = 20;
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    let name = |number: u64| format!("{:02}/{}", number / FILES, number % FILES);
    for directory in 0..DIRECTORIES {
        fs::create_dir_all(root.join(format!("{directory:02}"))).unwrap();
    }
    fs::create_dir_all(root.join("aside")).unwrap();
    let put = move |root: &Path, number: u64| {
        let name = name(number);
        let aside = root.join("aside/new");
        fs::write(&aside, &name).unwrap();
        fs::rename(&aside, root.join(name)).unwrap();
    };
    for number in 0..DIRECTORIES * FILES {
        put(&root, number);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (root, stop) = (root.clone(), stop.clone());
        thread::spawn(move || {
            let mut number = 1;
            while !stop.load(Ordering::Relaxed) {
                // To and fro over all of them: every number goes round.
                number = number * 16807 % 2_147_483_647;
                put(&root, number % (DIRECTORIES * FILES));
            }
        })
    };
    for _ in 0..5 {
        let sealed = seal(&root, &home.path().join("out")).unwrap();
        for (path, inode, bytes) in read(&sealed.path) {
            if inode.kind == Kind::File && !path.starts_with("aside/") {
                assert_eq!(String::from_utf8_lossy(&bytes), path);
            }
        }
        fs::remove_file(&sealed.path).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

/// What a path of a root is, however it came to be.
fn make(root: &Path, reversed: bool) {
    let mut names: Vec<usize> = (0..300).collect();
    if reversed {
        names.reverse();
        // Other numbers of inodes.
        for number in 0..50 {
            fs::create_dir_all(root.join(format!("gone-{number}"))).unwrap();
        }
    }
    for number in names {
        let path = root.join(format!("d{}/file-{number}", number % 9));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, checked(number as u64, number * 333)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    }
    for number in 0..50 {
        let _ = fs::remove_dir(root.join(format!("gone-{number}")));
    }
    fs::hard_link(root.join("d1/file-1"), root.join("hard")).unwrap();
    symlink("d2/file-2", root.join("soft")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    if reversed {
        // The same bytes, with blocks for the zeros.
        sparse.write_all_at(&vec![0; 3 << 20], 0).unwrap();
    }
    sparse.write_all_at(b"end", 5 << 20).unwrap();
    sparse.set_len((6 << 20) + 5).unwrap();
}

#[test]
fn the_bytes_depend_on_names_contents_and_rights_alone() {
    let home = tempfile::tempdir().unwrap();
    let mut digests = Vec::new();
    for reversed in [false, true] {
        let root = home.path().join(format!("root-{reversed}"));
        fs::create_dir(&root).unwrap();
        make(&root, reversed);
        let touched = File::open(root.join("d3/file-3")).unwrap();
        touched
            .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000))
            .unwrap();
        digests.push(seal(&root, &home.path().join("out")).unwrap().digest);
        // Read again after it had changed: not a trace of that in the bytes.
        let stop = Arc::new(AtomicBool::new(false));
        let (writing, stopped) = (root.join("d4/file-4"), stop.clone());
        let writer = thread::spawn(move || {
            let bytes = fs::read(&writing).unwrap();
            for round in 0..200_u32 {
                let mut other = bytes.clone();
                other.truncate(round as usize);
                fs::write(&writing, other).unwrap();
                fs::write(&writing, &bytes).unwrap();
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let busy = seal(&root, &home.path().join("out")).unwrap();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        if busy.consistency.one_instant {
            let length = fs::metadata(root.join("d4/file-4")).unwrap().len();
            let things = read(&busy.path);
            let thing = things.iter().find(|thing| thing.0 == "d4/file-4").unwrap();
            if thing.1.size_bytes == length {
                digests.push(busy.digest);
            }
        }
        let options = SealOptions {
            keep_times: true,
            ..SealOptions::default()
        };
        let timed = seal_with(&root, &home.path().join("timed"), &options).unwrap();
        assert_ne!(timed.digest, digests[0]);
        let things = read(&timed.path);
        let thing = things.iter().find(|thing| thing.0 == "d3/file-3").unwrap();
        assert_eq!(thing.1.mtime_s, 1000);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn each_kind_of_thing_is_what_it_was() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    make(&root, false);
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let device = rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("device"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::RUSR,
        rustix::fs::makedev(259, 70_000),
    );
    // Apparently 8 TiB, in nothing.
    let huge = File::create(root.join("huge")).unwrap();
    huge.set_len(8 << 40).unwrap();
    huge.write_all_at(b"far", 7 << 40).unwrap();
    let plain = root.join("d1/file-10");
    let flags = rustix::fs::XattrFlags::empty();
    let xattr = rustix::fs::setxattr(&plain, "user.note", b"kept", flags);
    // cap_net_raw=ep, as /usr/bin/ping has it.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capable = rustix::fs::setxattr(&plain, "security.capability", &capability, flags);
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/machine-id"), "0123456789abcdef\n").unwrap();

    let sealed = seal(&root, &home.path().join("out")).unwrap();
    assert!(sealed.size_bytes < 64 << 20, "{}", sealed.size_bytes);
    assert!(sealed.consistency.one_instant);
    let things = read(&sealed.path);
    let thing = |path: &str| things.iter().find(|thing| thing.0 == path).unwrap();
    assert_eq!(thing("hard").1.nid, thing("d1/file-1").1.nid);
    assert_eq!(thing("hard").1.links, 2);
    assert_eq!(thing("d2/file-2").1.mode & 0o7777, 0o4750);
    assert_eq!(thing("sparse").2, fs::read(root.join("sparse")).unwrap());
    assert_eq!(thing("socket").1.kind, Kind::Socket);
    assert_eq!(thing("fifo").1.kind, Kind::Fifo);
    assert_eq!(thing("etc/machine-id").1.size_bytes, 0);
    let image = Image::open(File::open(&sealed.path).unwrap()).unwrap();
    let huge = &thing("huge").1;
    assert_eq!(huge.size_bytes, 8 << 40);
    let mut bytes = [1; 4];
    image.read_at(huge, &mut bytes, 7 << 40).unwrap();
    assert_eq!(&bytes, b"far\0");
    if device.is_ok() {
        assert_eq!(thing("device").1.kind, Kind::CharacterDevice);
        let encoded = (70_000 & 0xff) | 259 << 8 | (70_000 & !0xff) << 12;
        assert_eq!(thing("device").1.device, encoded);
    }
    let xattrs = image.xattrs(&thing("d1/file-10").1).unwrap();
    for (set, name, value) in [
        (xattr.is_ok(), "user.note", b"kept".as_slice()),
        (capable.is_ok(), "security.capability", &capability),
    ] {
        if set {
            assert_eq!(xattrs[name.as_bytes()], value);
        }
    }
}

/// Whether pages that get the numbers 0, 1, 2, … one behind the other, over and over, were all read at one instant: the
/// last number says what each of them must hold.
fn is_one_instant(bytes: &[u8]) -> bool {
    const FIRST: u64 = 0x0101_0101_0101_0101;
    let pages: Vec<u64> = bytes
        .chunks(4096)
        .map(|page| u64::from_le_bytes(page[..8].try_into().unwrap()))
        .collect();
    let count = pages.len() as u64;
    let Some(last) = pages
        .iter()
        .copied()
        .filter(|number| *number != FIRST)
        .max()
    else {
        return true;
    };
    pages.iter().zip(0..).all(|(number, page)| {
        let behind = (last + count - page) % count;
        *number == last.checked_sub(behind).unwrap_or(FIRST)
    })
}

/// A file of 8 MiB that is written to without a pause, page after page.
struct Restless {
    stop: Arc<AtomicBool>,
    writer: thread::JoinHandle<()>,
}

impl Restless {
    fn start(path: &Path) -> Self {
        fs::write(path, vec![1; 8 << 20]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let file = File::options().write(true).open(path).unwrap();
        let writer = thread::spawn(move || {
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let at = (number * 4096) % (8 << 20);
                file.write_all_at(&number.to_le_bytes(), at).unwrap();
                number += 1;
            }
        });
        Self { stop, writer }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().unwrap();
    }
}

/// Where the file system shares blocks, a file that never holds still is cloned, and whole: each file of one instant, not
/// all of the same.
#[test]
fn where_blocks_are_shared_no_file_is_torn() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (disk, mounted) = (home.path().join("disk"), home.path().join("mounted"));
    File::create(&disk).unwrap().set_len(300 << 20).unwrap();
    fs::create_dir(&mounted).unwrap();
    // SAFETY: this thread gets mounts, and a working directory, of its own, which go with it; no descriptor is closed.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    let run = |program: &str, words: &[&std::ffi::OsStr]| {
        let ended = Command::new(program).args(words).output().unwrap();
        assert!(ended.status.success(), "{program}: {ended:?}");
    };
    run("mkfs.btrfs", &["-q".as_ref(), disk.as_ref()]);
    run("mount", &["--make-rprivate".as_ref(), "/".as_ref()]);
    let loop_mount = ["-o".as_ref(), "loop".as_ref()];
    run(
        "mount",
        &[&loop_mount[..], &[disk.as_ref(), mounted.as_ref()]].concat(),
    );
    let root = mounted.join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("still"), checked(1, 100)).unwrap();
    let restless = Restless::start(&root.join("restless"));
    let options = SealOptions {
        no_snapshot: true,
        ..SealOptions::default()
    };
    let sealed = seal_with(&root, &mounted.join("out"), &options);
    restless.end();
    let sealed = sealed.unwrap();
    assert_eq!(sealed.consistency.read_from, "live");
    assert_eq!(sealed.consistency.torn, [""; 0]);
    let things = read(&sealed.path);
    let restless = things.iter().find(|thing| thing.0 == "restless").unwrap();
    assert!(is_one_instant(&restless.2));
    run("umount", &[mounted.as_ref()]);
}

/// Written without a pause, a file does not hold still for as long as it takes to read: it is listed.
#[test]
fn a_file_that_never_holds_still_is_listed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("still"), checked(1, 100)).unwrap();
    let restless = Restless::start(&root.join("restless"));
    let sealed = seal(&root, &home.path().join("out"));
    restless.end();
    let sealed = sealed.unwrap();
    let things = read(&sealed.path);
    let restless = things.iter().find(|thing| thing.0 == "restless").unwrap();
    // A file system with clones gives it whole; so does a writer that did not get a processor for a while.
    if sealed.consistency.torn.is_empty() {
        assert!(is_one_instant(&restless.2));
    } else {
        assert_eq!(sealed.consistency.torn, ["/restless"]);
        assert!(!sealed.consistency.one_instant);
    }
    let thing = things.iter().find(|thing| thing.0 == "still").unwrap();
    assert!(is_whole(&thing.2));
}

#[test]
fn a_difference_is_told_by_what_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (root, out) = (home.path().join("root"), home.path().join("out"));
    fs::create_dir(&root).unwrap();
    make(&root, false);
    let old = seal(&root, &out).unwrap();
    assert_eq!(diff(&old.path, &old.path).unwrap(), []);
    fs::write(root.join("d0/new"), "x").unwrap();
    fs::remove_file(root.join("d2/file-11")).unwrap();
    let mut other = fs::read(root.join("d3/file-30")).unwrap();
    other[5000] ^= 1;
    fs::write(root.join("d3/file-30"), other).unwrap();
    fs::set_permissions(root.join("d3/file-3"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(root.join("soft")).unwrap();
    symlink("elsewhere", root.join("soft")).unwrap();
    fs::remove_file(root.join("d4/file-4")).unwrap();
    fs::create_dir(root.join("d4/file-4")).unwrap();
    fs::remove_file(root.join("hard")).unwrap();
    fs::copy(root.join("d1/file-1"), root.join("hard")).unwrap();
    let new = seal(&root, &out).unwrap();
    let changed = |path: &str, what: What| Change::Changed {
        path: path.into(),
        what: vec![what],
    };
    let expected = [
        Change::Added {
            path: "/d0/new".into(),
        },
        Change::Removed {
            path: "/d2/file-11".into(),
        },
        changed("/d3/file-3", What::Mode),
        // Writing to a file takes its setuid bit away, unless root writes.
        changed("/d3/file-30", What::Content),
        changed("/d4/file-4", What::Kind),
        changed("/hard", What::HardLink),
        changed("/soft", What::Link),
    ];
    assert_eq!(diff(&old.path, &new.path).unwrap(), expected);
}

#[test]
fn what_is_asked_for_decides() {
    let home = tempfile::tempdir().unwrap();
    let (root, out) = (home.path().join("root"), home.path().join("out"));
    for path in [
        "var/log/a/x.log",
        "var/log/keep.log",
        "opt/big/1",
        "root/.netrc",
    ] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "x").unwrap();
    }
    let rule = |action, pattern: &str| Asked {
        action,
        pattern: pattern.into(),
    };
    let options = SealOptions {
        rules: vec![
            rule(Action::Keep, "/var/log/keep.log"),
            rule(Action::LeaveOut, "/opt/big"),
        ],
        ..SealOptions::default()
    };
    let sealed = seal_with(&root, &out, &options).unwrap();
    let paths: Vec<String> = read(&sealed.path)
        .into_iter()
        .map(|thing| thing.0)
        .collect();
    assert_eq!(
        paths,
        [
            "",
            "opt",
            "root",
            "var",
            "var/log",
            "var/log/a",
            "var/log/keep.log"
        ]
    );
    let told: Vec<&str> = sealed
        .left_out
        .iter()
        .map(|rule| rule.pattern.as_str())
        .collect();
    assert_eq!(told, ["~/.netrc", "/var/log/**", "/opt/big"]);
}

#[test]
fn a_seal_that_is_stopped_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (root, out) = (home.path().join("root"), home.path().join("out"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), checked(1, 100)).unwrap();
    let options = SealOptions::default();
    options.stop.ask();
    let stopped = seal_with(&root, &out, &options).unwrap_err();
    assert!(matches!(stopped, ExportError::Stopped), "{stopped}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

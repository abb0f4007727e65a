//! What a quota counts while files come, go and change beside each other is what is there.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::client::{Client, mode, place, service, size, writable};
use estive_nfs::{Held, Key, Quota, Service};
use nfs3_types::nfs3::*;

const LARGE: Quota = Quota {
    bytes: Some(1 << 30),
    files: Some(100_000),
};
/// What a file system may have given out or taken back since it was last looked at.
const SLACK_BYTES: u64 = 16 << 10;

fn open(directory: &Path, quota: Quota) -> Arc<Service> {
    service(vec![writable("/home", directory, quota)], &Key::fresh())
}

fn guarded(bits: u32) -> createhow3 {
    createhow3::GUARDED(mode(bits))
}

/// What is there, counted by another hand.
fn there(directory: &Path, links: &mut HashSet<u64>) -> Held {
    let mut held = Held {
        bytes: directory.metadata().unwrap().blocks() * 512,
        files: 0,
    };
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let below = match meta.is_dir() {
            true => there(&entry.path(), links),
            false if !links.insert(meta.ino()) => continue,
            false => Held {
                bytes: meta.blocks() * 512,
                files: 0,
            },
        };
        held.bytes += below.bytes;
        held.files += below.files + 1;
    }
    held
}

fn is_counted(service: &Service, directory: &Path) {
    let counted = service.held("/home").unwrap();
    let there = there(directory, &mut HashSet::new());
    assert_eq!(counted.files, there.files);
    let off = counted.bytes.abs_diff(there.bytes);
    assert!(off <= SLACK_BYTES, "{counted:?}, and there is {there:?}");
}

#[test]
fn names_take_room_too() {
    let home = tempfile::tempdir().unwrap();
    let service = open(home.path(), LARGE);
    let mut client = Client::root_of(&service, "/home");
    let root = client.root.clone();
    let name = |number: usize| format!("{number:0>200}");
    let attributes = mode(0o755);
    let where_ = place(&root, b"links");
    let links = ask!(client, mkdir, MKDIR3args { where_, attributes }).unwrap();
    let links = links.obj.unwrap();
    for number in 0..300 {
        let name = name(number);
        let file = client.create(&root, name.as_bytes(), guarded(0o600));
        let link = LINK3args {
            file: file.unwrap(),
            link: place(&links, name.as_bytes()),
        };
        ask!(client, link, link).unwrap();
    }
    is_counted(&service, home.path());
    for number in 0..200 {
        let name = name(number);
        let to_name = format!("{name}-renamed");
        let rename = RENAME3args {
            from: place(&root, name.as_bytes()),
            to: place(&links, to_name.as_bytes()),
        };
        ask!(client, rename, rename).unwrap();
        client.remove(&links, name.as_bytes()).unwrap();
    }
    is_counted(&service, home.path());
}

#[test]
fn empty_files_do_not_fill_a_disk() {
    let home = tempfile::tempdir().unwrap();
    let quota = Quota {
        bytes: Some(32 << 10),
        files: None,
    };
    let service = open(home.path(), quota);
    let mut client = Client::root_of(&service, "/home");
    let root = client.root.clone();
    let refused = (0..2000).find_map(|number| {
        let name = format!("{number:0>250}");
        client.create(&root, name.as_bytes(), guarded(0o600)).err()
    });
    assert_eq!(refused, Some(nfsstat3::NFS3ERR_DQUOT));
    // Who has too much may still take away.
    client
        .remove(&root, format!("{:0>250}", 0).as_bytes())
        .unwrap();
}

#[test]
fn what_a_file_system_gives_out_late_is_not_given_back_uncounted() {
    let home = tempfile::tempdir().unwrap();
    let service = open(home.path(), LARGE);
    let mut client = Client::root_of(&service, "/home");
    let root = client.root.clone();
    let ballast = client.create(&root, b"ballast", guarded(0o600)).unwrap();
    let data = vec![1; 1 << 20];
    client
        .write(&ballast, 0, &data, stable_how::FILE_SYNC)
        .unwrap();
    for _ in 0..3 {
        let file = client.create(&root, b"scattered", guarded(0o600)).unwrap();
        // Each piece is one of its own, and their list takes blocks when all is written to disk.
        for piece in 0..2500 {
            client
                .write(&file, piece * 8192, &data[..4096], stable_how::UNSTABLE)
                .unwrap();
        }
        std::fs::File::open(home.path().join("scattered"))
            .unwrap()
            .sync_all()
            .unwrap();
        client.remove(&root, b"scattered").unwrap();
    }
    is_counted(&service, home.path());
}

#[test]
fn clients_that_race_are_counted_once() {
    let home = tempfile::tempdir().unwrap();
    let service = open(home.path(), LARGE);
    let race = |who: u8| {
        let mut client = Client::root_of(&service, "/home");
        let root = client.root.clone();
        let data = vec![who; 100 << 10];
        for round in 0..60 {
            let own = [b'a' + who];
            let Ok(file) = client.create(&root, &own, createhow3::UNCHECKED(mode(0o600))) else {
                continue;
            };
            let written = &data[..(round % 7) * 10_000];
            let _ = client.write(&file, 0, written, stable_how::UNSTABLE);
            // Over what another has just renamed, taken away by a third while a fourth writes to it.
            let rename = RENAME3args {
                from: place(&root, &own),
                to: place(&root, b"target"),
            };
            let _ = ask!(client, rename, rename);
            if let Ok(target) = client.lookup(&root, b"target") {
                let _ = client.write(&target, 50_000, written, stable_how::UNSTABLE);
                let _ = client.set(&target, size(round as u64 * 1000));
            }
            let _ = client.remove(&root, b"target");
        }
    };
    std::thread::scope(|scope| {
        for who in 0..4 {
            let race = &race;
            scope.spawn(move || race(who));
        }
    });
    is_counted(&service, home.path());
}

#[test]
fn a_directory_that_is_shared_twice_is_counted_once() {
    let home = tempfile::tempdir().unwrap();
    let small = Quota {
        bytes: Some(100 << 10),
        files: Some(3),
    };
    let free = Quota {
        bytes: None,
        files: None,
    };
    // To two references, the second without a limit; a third comes later.
    let one = open(home.path(), small);
    let two = open(home.path(), free);
    let mut client = Client::root_of(&two, "/home");
    let root = client.root.clone();
    for name in [b"a", b"b"] {
        let file = client.create(&root, name, guarded(0o600)).unwrap();
        let data = vec![1; 60 << 10];
        client
            .write(&file, 0, &data, stable_how::FILE_SYNC)
            .unwrap();
    }
    is_counted(&one, home.path());
    let mut client = Client::root_of(&one, "/home");
    let file = client.find("a").unwrap();
    let more = client.write(&file, 60 << 10, &[1], stable_how::UNSTABLE);
    assert_eq!(more.map(drop), Err(nfsstat3::NFS3ERR_DQUOT));
    let root = client.root.clone();
    client.remove(&root, b"b").unwrap();
    is_counted(&open(home.path(), LARGE), home.path());
    drop(client);
    // Counted as soon as somebody has a limit.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("there"), [1; 5000]).unwrap();
    let _free = open(other.path(), free);
    is_counted(&open(other.path(), small), other.path());
}

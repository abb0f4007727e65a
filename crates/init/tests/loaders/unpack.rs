//! `unpack=` on a real machine: archives of every kind, and what stops the boot.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bed::{Machine, Tree, run};

/// Where the archives lie, by the paper.
const PLACE: &str = "/var/tmpfs-overlay";

/// A tar of a tree with one file, as `tar` itself makes it.
fn tar(directory: &Path, name: &str, compression: &str) {
    let tree = directory.join(name);
    let from = tree.join("etc");
    fs::create_dir_all(&from).unwrap();
    fs::write(from.join(format!("layer-{name}")), name).unwrap();
    fs::create_dir_all(tree.join("lib")).unwrap();
    fs::write(tree.join(format!("lib/{name}.so")), name).unwrap();
    let archive = directory.join(format!("archives/{name}"));
    run(Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg("."));
    if !compression.is_empty() {
        let packed = run_for_bytes(Command::new(compression).arg("-c").arg(&archive));
        fs::write(&archive, packed).unwrap();
    }
}

fn run_for_bytes(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// A package as `dpkg-deb` makes it, with a script that would be run.
fn deb(directory: &Path, name: &str, compression: &str) {
    let tree = directory.join(name);
    let at = |path: &str| tree.join(path);
    fs::create_dir_all(at("DEBIAN")).unwrap();
    fs::create_dir_all(at("etc")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: x\n"
    );
    fs::write(at("DEBIAN/control"), control).unwrap();
    fs::write(at("DEBIAN/postinst"), "#!/bin/sh\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(at("DEBIAN/postinst"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at(&format!("etc/layer-{name}")), name).unwrap();
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", &format!("-Z{compression}"), "-b"])
        .arg(&tree)
        .arg(directory.join(format!("archives/{name}"))));
}

/// A root with `/lib` as distributions have it, and these archives.
fn root(directory: &Path) -> Tree {
    let tree = Tree::with_probe("root")
        .file("usr/lib/x", "")
        .file("etc/hidden", "root");
    std::os::unix::fs::symlink("usr/lib", tree.path().join("lib")).unwrap();
    let place = tree.path().join(PLACE.trim_start_matches('/'));
    fs::create_dir_all(&place).unwrap();
    for entry in fs::read_dir(directory.join("archives")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.join(entry.file_name())).unwrap();
    }
    tree
}

fn machine(line: &str, unpack: &str, fill: impl FnOnce(&Path)) -> Machine {
    let machine = Machine::new(line).word(&format!("unpack={unpack}"));
    let directory = machine.path("made");
    fs::create_dir_all(directory.join("archives")).unwrap();
    fill(&directory);
    let image = machine.path("image");
    root(&directory).ext4(&image, 64, &[]);
    machine.disk(&image, "virtio-blk-pci")
}

#[test]
fn archives_of_every_kind_are_unpacked_into_memory() {
    let guest = machine(
        "/dev/vda:ro;tmpfs",
        &format!("{PLACE};/etc/one%20more"),
        |directory| {
            tar(directory, "plain", "");
            tar(directory, "gz", "gzip");
            tar(directory, "bz2", "bzip2");
            tar(directory, "xz", "xz");
            tar(directory, "zst", "zstd");
            deb(directory, "deb", "xz");
            deb(directory, "debgz", "gzip");
            // Its own archive lies in one that comes before it.
            let inner = directory.join("inner/etc");
            fs::create_dir_all(&inner).unwrap();
            fs::write(inner.join("layer-inner"), "inner").unwrap();
            fs::write(inner.join(".wh.hidden"), "").unwrap();
            let outer = directory.join("outer/etc");
            fs::create_dir_all(&outer).unwrap();
            let pack = |from: &Path, to: &Path| {
                run(Command::new("tar")
                    .arg("-czf")
                    .arg(to)
                    .arg("-C")
                    .arg(from)
                    .arg("etc"));
            };
            pack(&directory.join("inner"), &outer.join("one more"));
            pack(&directory.join("outer"), &directory.join("archives/outer"));
        },
    )
    .word("probe.list=/usr/lib,/.unions/1/upper/usr/lib")
    .word("probe.read=/etc/hidden,/.unions/0/etc/hidden")
    .boot();
    let facts = guest.facts();
    let every = [
        "bz2", "deb", "debgz", "gz", "inner", "plain", "root", "xz", "zst",
    ];
    assert_eq!(facts.layers(), every);
    let libraries = "bz2.so,gz.so,plain.so,xz.so,zst.so";
    facts.are(&[
        ("/etc/hidden", "NotFound"),
        ("/.unions/0/etc/hidden", "root"),
        ("/.unions/1/upper/usr/lib", libraries),
        ("/usr/lib", "bz2.so,gz.so,plain.so,x,xz.so,zst.so"),
    ]);
    facts.said("the next package has scripts that are not run here: postinst");
}

#[test]
fn half_an_archive_stops_the_boot() {
    let error = machine("/dev/vda:ro;tmpfs", PLACE, |directory| {
        tar(directory, "a", "");
        tar(directory, "b", "gzip");
        let path = directory.join("archives/b");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    })
    .boot()
    .failure();
    assert!(
        error.contains("unpack=/var/tmpfs-overlay/b: it is not a whole tar"),
        "{error}"
    );
}

#[test]
fn archives_are_not_unpacked_onto_a_disk() {
    let error = machine("/dev/vda:rw", PLACE, |_| ()).boot().failure();
    assert!(error.contains("uppermost layer is none"), "{error}");
}

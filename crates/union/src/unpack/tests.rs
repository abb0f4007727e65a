//! Facts about the unpacker, on a real directory: above all, that it never leaves it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use estive_archive::{LayerArchive, MANIFEST_PATH, Writer};
use proptest::prelude::*;

use super::*;

fn opened(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn unpack_into(tree: &Path, archive: &[u8]) -> Result<Unpacked> {
    unpack(archive, &opened(tree), Rights::Mine)
}

/// An archive that the layer builder would refuse to make.
fn hostile(members: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer
        .add(&Member::file(MANIFEST_PATH, 0o600, br#"{"version":1}"#))
        .unwrap();
    for member in members {
        writer.add(member).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_layer_comes_out_as_it_went_in() {
    let mut layer = LayerArchive::new();
    layer.file("etc/a", 0o640, 0, 0, "content").unwrap();
    layer.file("etc/set", 0o4755, 0, 0, "").unwrap();
    layer.hardlink("b", "etc/a").unwrap();
    layer.hardlink("z", "etc/a").unwrap();
    layer.symlink("etc/link", "/nowhere").unwrap();
    layer.dir("closed", 0o1770, 0, 0).unwrap();
    layer.whiteout("etc/gone").unwrap();
    let tree = tempfile::tempdir().unwrap();
    let unpacked = unpack_into(tree.path(), &layer.finish().unwrap()).unwrap();
    assert_eq!(unpacked.manifest.implied, ["etc"]);
    assert_eq!(unpacked.whiteouts, ["etc/gone"]);

    let at = |path: &str| tree.path().join(path);
    let mode = |path: &str| at(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read(at("etc/a")).unwrap(), b"content");
    assert_eq!(
        (mode("etc/a"), mode("etc/set"), mode("closed")),
        (0o640, 0o4755, 0o1770)
    );
    for other in ["b", "z"] {
        assert_eq!(
            at(other).metadata().unwrap().ino(),
            at("etc/a").metadata().unwrap().ino()
        );
    }
    assert_eq!(
        fs::read_link(at("etc/link")).unwrap(),
        Path::new("/nowhere")
    );
    let whiteout = at("etc/gone").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert!(!at(".estive").exists());
}

#[test]
fn a_file_through_a_link_does_not_leave_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "untouched").unwrap();
    let target = outside.path().to_str().unwrap();
    let file = outside.path().join("file");
    for members in [
        [
            Member::symlink("d", target),
            Member::file("d/new", 0o644, b"x"),
        ],
        [
            Member::symlink("d", ".."),
            Member::file("d/new", 0o644, b"x"),
        ],
        [
            Member::symlink("f", file.to_str().unwrap()),
            Member::file("f", 0o644, b"x"),
        ],
        [
            Member::symlink("d", target),
            Member::directory("d/new", 0o777),
        ],
        [Member::symlink("d", target), Member::symlink("d/new", "x")],
    ] {
        let parent = tempfile::tempdir().unwrap();
        let tree = parent.path().join("tree");
        fs::create_dir(&tree).unwrap();
        assert!(
            unpack_into(&tree, &hostile(&members)).is_err(),
            "{members:?}"
        );
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(file).unwrap(), b"untouched");
}

#[test]
fn an_attribute_through_a_link_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Vec::new());
    let manifest = br#"{"version":1,"xattrs":{"d/file":{"user.x":"eQ=="}}}"#;
    writer
        .add(&Member::file(MANIFEST_PATH, 0o600, manifest))
        .unwrap();
    let target = outside.path().to_str().unwrap();
    writer.add(&Member::symlink("d", target)).unwrap();
    fs::write(outside.path().join("file"), "").unwrap();
    let tree = tempfile::tempdir().unwrap();
    let error = unpack_into(tree.path(), &writer.finish().unwrap()).unwrap_err();
    assert!(error.to_string().contains("d/file"), "{error}");
}

fn hostile_member() -> impl Strategy<Value = (String, u8, String)> {
    // Few names, so that links, files and directories meet.
    let path = "[ab](/[abc]){0,3}";
    let target = prop_oneof![
        "[ab](/[abc]){0,2}",
        Just("..".into()),
        Just("../canary".into()),
        Just("/".into())
    ];
    (path, 0u8..5, target)
}

proptest! {
    #[test]
    fn nothing_outside_changes(members in proptest::collection::vec(hostile_member(), 1..14)) {
        let outside = tempfile::tempdir().unwrap();
        let canary = outside.path().join("canary");
        let tree = outside.path().join("tree");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("a"), "untouched").unwrap();
        fs::create_dir(&tree).unwrap();
        let canary_text = canary.to_str().unwrap().to_owned();

        let members: Vec<Member> = members
            .iter()
            .map(|(path, kind, target)| {
                let target = if target == "/" { &canary_text } else { target };
                let mut member = match kind {
                    0 => Member::directory(path, 0o755),
                    1 => Member::symlink(path, target),
                    2 => Member::new(path, 0o644, Kind::Fifo),
                    _ => Member::file(path, 0o644, b"hostile"),
                };
                if *kind == 4 {
                    // All of these claim to be one file.
                    (member.inode, member.links) = (7, 9);
                }
                member
            })
            .collect();
        // Each alone as well, in a tree that the others have filled: what is refused stops a boot,
        // and the law must hold for what comes after it too.
        let _ = unpack_into(&tree, &hostile(&members));
        for member in &members {
            let _ = unpack_into(&tree, &hostile(&[*member]));
        }
        prop_assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
        prop_assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
        prop_assert_eq!(fs::read(canary.join("a")).unwrap(), b"untouched".to_vec());
    }
}

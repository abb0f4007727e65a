//! What is true of a sealed root, with the real mkfs.erofs and, where the kernel lets us, a mount.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use estive_chunks::{Manifest, SignedManifest};
use estive_exports::seal::{Action, Asked};
use estive_exports::{ExportError, SealOptions, modules, seal, seal_with};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

const FILES: [(&str, &str); 5] = [
    ("etc/hostname", "reference"),
    ("etc/ssh/ssh_host_ed25519_key", "PRIVATE"),
    ("etc/ssh/ssh_host_ed25519_key.pub", "public"),
    ("usr/bin/tool", "program"),
    ("a.b/file", "x"),
];

fn tree(root: &Path, reversed: bool) {
    let mut files = FILES.to_vec();
    if reversed {
        files.reverse();
    }
    for (path, text) in files {
        write(root, path, text);
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same")).unwrap();
    fs::set_permissions(
        root.join("usr/bin/tool"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
}

/// Paths in an image, by mounting it; `None` where loop mounts of EROFS are not to be had.
fn paths_in(image: &Path) -> Option<BTreeSet<String>> {
    let script =
        r#"mount -t erofs -o loop,ro "$1" /mnt && cd /mnt && find . -mindepth 1 -printf '%P\n'"#;
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(image)
        .output()
        .ok()?;
    if !output.status.success() {
        eprintln!(
            "not looked inside: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return None;
    }
    Some(
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn same_tree_same_bytes_whatever_the_order_of_making() {
    let dir = tempfile::tempdir().unwrap();
    tree(&dir.path().join("one"), false);
    tree(&dir.path().join("two"), true);
    let one = seal(&dir.path().join("one"), &dir.path().join("out1")).unwrap();
    let two = seal(&dir.path().join("two"), &dir.path().join("out2")).unwrap();
    assert_eq!(one.digest, two.digest);
    assert_eq!(one.size_bytes, fs::metadata(&one.path).unwrap().len());
    let beside = fs::read(seal::manifest_path(&one.path)).unwrap();
    let signed = SignedManifest::decode(&beside).unwrap();
    let image = Manifest::read(&mut fs::File::open(&one.path).unwrap()).unwrap();
    assert_eq!(signed.manifest, image);
    assert_eq!(image.name().to_string(), one.digest);
    let name = one.path.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        format!("sha256:{}", name.strip_suffix(".erofs").unwrap()),
        one.digest
    );

    write(&dir.path().join("two"), "etc/hostname", "Reference");
    let changed = seal(&dir.path().join("two"), &dir.path().join("out2")).unwrap();
    assert_ne!(changed.digest, one.digest);
}

#[test]
fn what_does_not_belong_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    tree(&root, false);
    write(&root, "aXb/file", "the dot in a.b is a dot");
    write(&root, "tmp/kept", "not the running system");
    write(&root, "out/old-image", "big");
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let options = SealOptions {
        rules: vec![Asked {
            action: Action::LeaveOut,
            pattern: "/a.b/".into(),
        }],
        ..SealOptions::default()
    };
    let sealed = seal_with(&root, &root.join("out"), &options).unwrap();
    let Some(paths) = paths_in(&sealed.path) else {
        return;
    };
    let expected = [
        "a.b",
        "aXb",
        "aXb/file",
        "bin",
        "etc",
        "etc/hostname",
        "etc/ssh",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "out",
        "socket",
        "tmp",
        "tmp/kept",
        "usr",
        "usr/bin",
        "usr/bin/same",
        "usr/bin/tool",
    ];
    assert_eq!(
        paths,
        expected.iter().map(|path| (*path).to_owned()).collect()
    );
}

#[test]
fn a_root_that_is_not_there_or_empty_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = seal(&dir.path().join("none"), &dir.path().join("out"));
    assert!(
        matches!(missing, Err(ExportError::MissingRoot { .. })),
        "{missing:?}"
    );
    assert!(!dir.path().join("out").exists());
    fs::create_dir(dir.path().join("empty")).unwrap();
    let empty = seal(&dir.path().join("empty"), &dir.path().join("out"));
    assert!(
        matches!(empty, Err(ExportError::EmptyRoot { .. })),
        "{empty:?}"
    );
}

#[test]
fn half_made_images_of_the_killed_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    tree(&root, false);
    write(
        dir.path(),
        "out/.seal-1-0.tmp",
        "left by a maker that was killed",
    );
    seal(&root, &dir.path().join("out")).unwrap();
    let names: Vec<_> = fs::read_dir(dir.path().join("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "image and manifest: {names:?}");
}

#[test]
fn modules_have_the_kernel_version_on_top() {
    let dir = tempfile::tempdir().unwrap();
    let modules_dir = dir.path().join("modules");
    write(&modules_dir, "6.1.0/kernel/a.ko", "module");
    let bare = modules::image(Some(&modules_dir), &dir.path().join("out"));
    assert!(matches!(bare, Err(ExportError::Modules { .. })), "{bare:?}");
    write(&modules_dir, "6.1.0/modules.dep", "kernel/a.ko:\n");
    let image = modules::image(Some(&modules_dir), &dir.path().join("out")).unwrap();
    assert!(!seal::manifest_path(&image.path).exists(), "no root");
    if let Some(paths) = paths_in(&image.path) {
        assert!(paths.contains("6.1.0/modules.dep"), "{paths:?}");
    }
    let empty = modules::image(None, &dir.path().join("out")).unwrap();
    assert!(empty.size_bytes < 65536, "{empty:?}");
    if let Some(paths) = paths_in(&empty.path) {
        assert!(paths.is_empty(), "{paths:?}");
    }
    let again = modules::image(None, &dir.path().join("other")).unwrap();
    assert_eq!(again.digest, empty.digest);
}

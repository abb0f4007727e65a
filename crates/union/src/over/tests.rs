//! Facts about unpacking over a tree: what comes out, and that nothing leaves the tree.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

const PLENTY: OverLimits = OverLimits {
    bytes: 64 << 20,
    names: 10_000,
};

/// A member: its path, its kind, and its content or the target of its link.
type Given<'a> = (&'a str, EntryType, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIRECTORY: EntryType = EntryType::Directory;

fn header(kind: EntryType, mode: u32, size_bytes: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_000_000);
    let status = fs::metadata("/proc/self").unwrap();
    header.set_uid(status.uid().into());
    header.set_gid(status.gid().into());
    header.set_size(size_bytes as u64);
    header
}

/// A stream that the library would refuse to write: names are put down as they are.
fn stream(members: &[Given]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, text) in members {
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let content = if is_link { "" } else { text };
        let mode = if *kind == DIRECTORY { 0o750 } else { 0o640 };
        let mut header = header(*kind, mode, content.len());
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if is_link {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn opened(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn unpack(tree: &Path, stream: &[u8]) -> Result<u64> {
    unpack_within(tree, stream, PLENTY)
}

fn unpack_within(tree: &Path, stream: &[u8], limits: OverLimits) -> Result<u64> {
    let tree = opened(tree);
    Over::new(&tree, Rights::Mine, limits).unpack(stream, DirectoriesThere::Change)
}

/// What a refusal says.
fn refused(tree: &Path, members: &[Given]) -> String {
    unpack(tree, &stream(members)).unwrap_err().to_string()
}

/// A root as distributions have it: `/lib` is a link.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for directory in ["usr/lib/old", "etc/conf.d"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    symlink("usr/lib", at("lib")).unwrap();
    symlink("/usr/lib", at("absolute")).unwrap();
    for file in [
        "usr/lib/old/file",
        "etc/conf.d/a",
        "etc/conf.d/b",
        "etc/plain",
    ] {
        fs::write(at(file), "root").unwrap();
    }
    root
}

#[test]
fn files_go_where_the_root_leads_them() {
    let root = root();
    let at = |path: &str| root.path().join(path);
    let members = [
        ("./", DIRECTORY, ""),
        ("./lib/", DIRECTORY, ""),
        ("./lib/new", FILE, "new"),
        ("absolute/other", FILE, "other"),
        ("etc/plain", FILE, "replaced"),
        ("etc/conf.d", DIRECTORY, ""),
        ("etc/conf.d/a", EntryType::Symlink, "/nowhere"),
        ("opt/made/on/the/way", FILE, ""),
        ("opt/one", FILE, "linked"),
        ("opt/two", EntryType::Link, "./opt/one"),
    ];
    let top = fs::metadata(root.path()).unwrap().permissions();
    assert_eq!(unpack(root.path(), &stream(&members)).unwrap(), 10);
    assert_eq!(fs::metadata(root.path()).unwrap().permissions(), top);
    assert!(at("lib").is_symlink());
    assert_eq!(fs::read_to_string(at("usr/lib/new")).unwrap(), "new");
    assert_eq!(fs::read_to_string(at("usr/lib/other")).unwrap(), "other");
    assert_eq!(fs::read_to_string(at("etc/plain")).unwrap(), "replaced");
    assert_eq!(
        fs::read_link(at("etc/conf.d/a")).unwrap(),
        Path::new("/nowhere")
    );
    let mode = |path: &str| fs::metadata(at(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (
            mode("etc/plain"),
            mode("etc/conf.d"),
            mode("opt/made"),
            mode("usr/lib")
        ),
        (0o640, 0o750, 0o755, mode("usr"))
    );
    let status = |path: &str| fs::metadata(at(path)).unwrap();
    assert_eq!(status("opt/one").ino(), status("opt/two").ino());
    assert_eq!(status("etc/conf.d").mtime(), 1_000_000);
}

#[test]
fn a_package_leaves_directories_as_they_are() {
    let root = root();
    let tree = opened(root.path());
    let mode = || {
        fs::metadata(root.path().join("etc"))
            .unwrap()
            .permissions()
            .mode()
    };
    let before = mode();
    let package = stream(&[("etc", DIRECTORY, ""), ("srv", DIRECTORY, "")]);
    Over::new(&tree, Rights::Mine, PLENTY)
        .unpack(&package[..], DirectoriesThere::Stay)
        .unwrap();
    assert_eq!(mode(), before);
    assert!(root.path().join("srv").is_dir());
}

#[test]
fn marks_hide_what_was_there_before() {
    let root = root();
    let at = |path: &str| root.path().join(path);
    let members = [
        ("etc/conf.d/c", FILE, "c"),
        ("etc/conf.d/.wh.__dir_opaque", FILE, ""),
        ("etc/conf.d/d", FILE, "d"),
        ("etc/.wh.plain", FILE, ""),
        ("etc/.wh.absent", FILE, ""),
        ("usr/lib/.wh.old", FILE, ""),
        ("usr/.wh..wh.plnk", FILE, ""),
    ];
    unpack(root.path(), &stream(&members)).unwrap();
    let names = |path: &str| {
        let tree = opened(&at(path));
        estive_beneath::names(&tree, 100).unwrap().unwrap()
    };
    assert_eq!(names("etc/conf.d"), ["c", "d"]);
    assert_eq!((names("etc").len(), names("usr/lib").len()), (1, 0));
    let both = [("x/f", FILE, ""), ("x/.wh.f", FILE, "")];
    assert!(refused(root.path(), &both).contains("both there and hidden"));
    assert!(refused(root.path(), &[(".wh.__dir_opaque", FILE, "")]).contains("whole root"));
}

#[test]
fn nothing_leads_out_of_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(outer.path().join("secret"), "kept").unwrap();
    let outside = outer.path().to_str().unwrap().to_owned();
    for members in [
        vec![("../secret", FILE, "x")],
        vec![("/secret", FILE, "x")],
        vec![("a/../../secret", FILE, "x")],
        vec![("up", EntryType::Symlink, ".."), ("up/secret", FILE, "x")],
        vec![
            ("up", EntryType::Symlink, "../.."),
            ("up/secret", FILE, "x"),
        ],
        vec![
            ("out", EntryType::Symlink, &outside),
            ("out/secret", FILE, "x"),
        ],
        vec![("f", EntryType::Symlink, "../secret"), ("f", FILE, "x")],
        vec![("f", EntryType::Link, "../secret")],
        vec![
            ("proc", EntryType::Symlink, "/proc/self/root"),
            ("proc/etc/estive-was-here", FILE, "x"),
        ],
    ] {
        // Some are refused, others stay inside.
        let _ = unpack(&root, &stream(&members));
        assert_eq!(
            fs::read_to_string(outer.path().join("secret")).unwrap(),
            "kept",
            "{members:?}"
        );
        assert_eq!(
            fs::read_dir(outer.path()).unwrap().count(),
            2,
            "{members:?}"
        );
        assert!(!Path::new("/etc/estive-was-here").exists());
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let root = root();
    for (members, said) in [
        (vec![("etc/conf.d", FILE, "")], "is a directory in the root"),
        (vec![("etc/plain/below", FILE, "")], "no directory"),
        (vec![(".unions/0/etc/x", FILE, "")], "where the layers"),
        (
            vec![("l", EntryType::Link, "etc")],
            "no file that comes before it",
        ),
        (vec![("l", EntryType::Link, "gone/x")], "not there"),
        (vec![("s", EntryType::GNUSparse, "")], "of the kind"),
        (
            vec![("d", EntryType::Symlink, "gone"), ("d/f", FILE, "")],
            "leads nowhere",
        ),
    ] {
        let error = refused(root.path(), &members);
        assert!(error.contains(said), "{members:?}: {error}");
    }
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let root = root();
    let large = "x".repeat(9000);
    let one = stream(&[("large", FILE, &large)]);
    let tight = OverLimits {
        bytes: 9000,
        ..PLENTY
    };
    let error = unpack_within(root.path(), &one, tight)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"large\"") && error.contains("8 KiB"),
        "{error}"
    );
    let few = OverLimits { names: 2, ..PLENTY };
    let three = stream(&[("a", FILE, ""), ("b", FILE, ""), ("c", FILE, "")]);
    let error = unpack_within(root.path(), &three, few)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"c\"") && error.contains("2 names"),
        "{error}"
    );
}

#[test]
fn half_an_archive_is_an_error() {
    let root = root();
    let whole = stream(&[("a", FILE, "some content"), ("b", FILE, "more")]);
    // Without its end mark, inside a content, inside a header, between two members, nothing at all.
    for length in [whole.len() - 1024, 520, 100, 1024, 0] {
        let error = unpack(root.path(), &whole[..length])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cut short") || error.contains("not a whole tar"),
            "{length}: {error}"
        );
    }
}

#[test]
fn attributes_come_with_a_file() {
    let root = root();
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.user.note", &b"a\nb"[..]),
            ("SCHILY.xattr.security.selinux", b"passed over"),
        ])
        .unwrap();
    let mut header = header(FILE, 0o600, 0);
    builder.append_data(&mut header, "noted", &b""[..]).unwrap();
    unpack(root.path(), &builder.into_inner().unwrap()).unwrap();
    let top = opened(root.path());
    let found = estive_beneath::xattrs(&top, "noted", |name| name.starts_with("user.")).unwrap();
    assert_eq!(found, [("user.note".to_owned(), b"a\nb".to_vec())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random members, in a root inside another directory that must not change.
    #[test]
    fn no_stream_leaves_the_root(members in proptest::collection::vec(
        (
            "(\\.\\./|/|\\./|a/|b/|up/|\\.wh\\.){0,3}(a|b|up|\\.wh\\.a|\\.wh\\.__dir_opaque)",
            prop_oneof![
                Just(FILE), Just(DIRECTORY), Just(EntryType::Symlink), Just(EntryType::Link), Just(EntryType::Fifo),
            ],
            "(\\.\\./|/|a/|b/|up/){0,3}(a|b|\\.\\.)",
        ),
        0..12,
    )) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        for name in ["a", "b"] {
            fs::write(outer.path().join(name), "kept").unwrap();
        }
        let given: Vec<Given> = members
            .iter()
            .map(|(path, kind, text)| (path.as_str(), *kind, text.as_str()))
            .collect();
        let _ = unpack(&root, &stream(&given));
        for name in ["a", "b"] {
            prop_assert_eq!(fs::read_to_string(outer.path().join(name)).unwrap(), "kept");
        }
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 3);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let root = tempfile::tempdir().unwrap();
        let _ = unpack(root.path(), &bytes);
    }
}

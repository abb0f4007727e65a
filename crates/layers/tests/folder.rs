//! A herd's folder: what is in it travels whole, and what should not be in it is refused by name.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use common::Scratch;
use estive_layers::{
    DeploymentSecret, HerdFolder, NodeKind, OwnSets, RenderRequest, Renderer, SetKind, Tree, herd,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

const HERD: &str = "sets: [own]\nhosts: {a: }\n";

fn write(top: &Path, path: &str, text: &str) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn device(top: &Path, path: &str, kind: FileType, major: u32, minor: u32) {
    let mode = Mode::from_raw_mode(0o660);
    mknodat(CWD, top.join(path), kind, mode, makedev(major, minor)).unwrap();
}

fn xattr(top: &Path, path: &str, name: &str, value: &[u8]) {
    lsetxattr(top.join(path), name, value, XattrFlags::empty()).unwrap();
}

fn mode(top: &Path, path: &str, mode: u32) {
    fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with a set of every kind of node.
fn whole(top: &Path) {
    write(top, "herd.yaml", HERD);
    write(top, "README.md", "not sent");
    write(top, "sets/README.md", "no set");
    let set = &top.join("sets/own");
    write(set, "usr/bin/tool", "tool");
    mode(set, "usr/bin/tool", 0o4755);
    fs::hard_link(set.join("usr/bin/tool"), set.join("usr/bin/also")).unwrap();
    write(set, "etc/name.j2", "{{ clone.name }}\n");
    fs::hard_link(set.join("etc/name.j2"), set.join("etc/alias.j2")).unwrap();
    write(set, "srv/data/owned", "x");
    chown(set.join("srv/data/owned"), Some(33), Some(44)).unwrap();
    chown(set.join("srv/data"), Some(33), Some(33)).unwrap();
    mode(set, "srv/data", 0o2750);
    fs::create_dir_all(set.join("empty/in")).unwrap();
    let long = format!("/{}", "long/".repeat(60));
    for (path, target) in [
        ("dev/log", "/run/log"),
        ("etc/up", "../var"),
        ("etc/long", &long),
    ] {
        fs::create_dir_all(set.join(path).parent().unwrap()).unwrap();
        symlink(target, set.join(path)).unwrap();
    }
    lchown(set.join("dev/log"), Some(7), Some(8)).unwrap();
    device(set, "dev/null0", FileType::CharacterDevice, 1, 3);
    device(set, "dev/disk", FileType::BlockDevice, 8, 1);
    device(set, "etc/hidden", FileType::CharacterDevice, 0, 0);
    write(set, "etc/.wh.marked", "");
    write(set, "var/only/file", "");
    xattr(set, "var/only", "trusted.overlay.opaque", b"y");
    xattr(set, "var/only", "trusted.overlay.origin", b"dropped");
    xattr(
        set,
        "usr/bin/tool",
        "user.note",
        b"two\nlines = \0 and a NUL",
    );
    xattr(set, "usr/bin/tool", "trusted.note", b"root's");
    xattr(set, "dev/log", "trusted.link", b"on a link");
    xattr(set, "dev/disk", "trusted.disk", b"on a device");
    let deep = format!(
        "{}/file",
        ["name-of-forty-bytes-name-of-forty-bytes-"; 8].join("/")
    );
    write(set, &deep, "deep");
    xattr(set, &deep, "user.deep", b"1");
}

fn tree(sets: &OwnSets) -> Tree {
    let plan = herd::parse("herd.yaml", HERD, "d").unwrap();
    let secret = DeploymentSecret::new([7; 32]);
    let request = RenderRequest::new(&plan, sets, &secret).unwrap();
    Renderer::new(&request).unwrap().tree("a").unwrap()
}

#[test]
fn a_folder_travels_whole_and_comes_out_in_the_layer() {
    let scratch = Scratch::new();
    whole(scratch.path());
    let folder = HerdFolder::read(scratch.path()).unwrap();
    assert_eq!(folder.herd_file, HERD);
    assert_eq!(folder.sets.keys().collect::<Vec<_>>(), ["own"]);
    let sent = folder.to_tar().unwrap();
    assert_eq!(HerdFolder::from_tar(&sent[..]).unwrap(), folder);
    assert_eq!(folder.to_tar().unwrap(), sent);

    let set = &folder.sets["own"];
    let tool = set.get("usr/bin/tool").unwrap();
    // In the order of names: the file is the first, the link the second.
    assert_eq!(tool.kind, SetKind::HardLink("usr/bin/also".to_owned()));
    let also = set.get("usr/bin/also").unwrap();
    assert_eq!(also.owner.mode, 0o4755);
    assert_eq!(also.xattrs["user.note"].0, b"two\nlines = \0 and a NUL");

    let tree = tree(&folder.sets);
    let node = |path: &str| tree.get(path).unwrap_or_else(|| panic!("{path}"));
    let owner = |path: &str| {
        let owner = node(path).owner;
        (owner.mode, owner.uid, owner.gid)
    };
    assert_eq!(owner("usr/bin/tool"), (0o4755, 0, 0));
    assert_eq!(owner("srv/data/owned"), (0o644, 33, 44));
    let log = node("dev/log");
    assert_eq!(log.kind, NodeKind::Symlink("/run/log".to_owned()));
    assert_eq!((log.owner.uid, log.xattrs["trusted.link"].0.len()), (7, 9));
    assert_eq!(
        node("dev/null0").kind,
        NodeKind::Character { major: 1, minor: 3 }
    );
    assert_eq!(
        node("dev/disk").kind,
        NodeKind::Block { major: 8, minor: 1 }
    );
    assert_eq!(node("dev/disk").owner.mode, 0o660 & !umask());
    assert_eq!(node("etc/hidden").kind, NodeKind::Whiteout);
    assert_eq!(node("etc/marked").kind, NodeKind::Whiteout);
    assert_eq!(tree.opaque().collect::<Vec<_>>(), ["var/only"]);
    assert_eq!(node("empty/in").kind, NodeKind::Directory { joined: true });

    let archive = tree.to_archive().unwrap();
    let mut reader = estive_archive::Reader::new(&archive, estive_archive::Limits::default());
    let manifest = estive_archive::Manifest::read_from(&mut reader).unwrap();
    assert_eq!(
        manifest.xattrs["var/only"].keys().collect::<Vec<_>>(),
        ["trusted.overlay.opaque"]
    );
    assert_eq!(manifest.xattrs["usr/bin/also"].len(), 2);
    let members: Vec<_> = reader.map(|member| member.unwrap()).collect();
    let member = |path: &str| members.iter().find(|member| member.path == path).unwrap();
    assert_eq!(member("usr/bin/also").inode, member("usr/bin/tool").inode);
    assert_eq!(member("etc/name").inode, member("etc/alias").inode);
    let data = member("srv/data");
    assert_eq!((data.mode, data.uid, data.gid), (0o2750, 33, 33));
    assert!(manifest.implied.contains(&"srv/data".to_owned()));
}

fn umask() -> u32 {
    let file = tempfile::tempdir().unwrap();
    fs::create_dir(file.path().join("d")).unwrap();
    !file.path().join("d").metadata().unwrap().mode() & 0o777
}

#[test]
fn what_should_not_be_in_a_folder_is_refused() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &str); 13] = [
        ("no herd file", |_| {}, "there is no herd.yaml in "),
        (
            "a linked herd file",
            |top| symlink("/etc/passwd", top.join("herd.yaml")).unwrap(),
            "\"herd.yaml\" is a symbolic link",
        ),
        (
            "a long herd file",
            |top| {
                fs::File::create(top.join("herd.yaml"))
                    .unwrap()
                    .set_len(10 << 30)
                    .unwrap()
            },
            "\"herd.yaml\" has more than 1048576 bytes",
        ),
        (
            "linked sets",
            |top| symlink("/etc", top.join("sets")).unwrap(),
            "\"sets\" is a symbolic link",
        ),
        (
            "a linked set",
            |top| symlink("/etc", top.join("sets/own")).unwrap(),
            "\"sets/own\" is a symbolic link",
        ),
        (
            "a link out",
            |top| symlink("../../etc", top.join("sets/own/d/link")).unwrap(),
            "own: d/link: is a symbolic link to \"../../etc\", which leads above the clone's root",
        ),
        (
            "a fifo",
            |top| device(top, "sets/own/fifo", FileType::Fifo, 0, 0),
            "own: fifo: is no file, directory, link or device",
        ),
        (
            "10 GiB that take no place",
            |top| {
                let file = fs::File::create(top.join("sets/own/sparse")).unwrap();
                file.set_len(10 << 30).unwrap();
            },
            "own: sparse: has 10737418240 bytes; a file of a set has at most 15728640",
        ),
        (
            "many files",
            |top| {
                write(top, "sets/own/many/0", "");
                for number in 1..100_000 {
                    let many = top.join("sets/own/many");
                    fs::hard_link(many.join("0"), many.join(number.to_string())).unwrap();
                }
            },
            "own: .: the set has more than 10000 files and directories",
        ),
        (
            "a deep tree",
            |top| write(top, &format!("sets/own/{}/f", ["d"; 40].join("/")), ""),
            "d: lies deeper than 32 names",
        ),
        (
            "another file system",
            |top| {
                let place = top.join("sets/own/d");
                let flags = rustix::mount::MountFlags::empty();
                rustix::mount::mount("tmpfs", &place, "tmpfs", flags, None).unwrap();
            },
            "own: d: is another file system mounted there",
        ),
        (
            "half of an overlay",
            |top| xattr(top, "sets/own/d", "trusted.overlay.redirect", b"/x"),
            "own: d: has trusted.overlay.redirect",
        ),
        (
            "a name that is no text",
            |top| {
                use std::os::unix::ffi::OsStrExt;
                let name = std::ffi::OsStr::from_bytes(b"\xff");
                fs::write(top.join("sets/own/d").join(name), "").unwrap();
            },
            "own: d: the name \"\\xFF\" is not UTF-8",
        ),
    ];
    for (number, (what, make, expected)) in cases.iter().enumerate() {
        let scratch = Scratch::new();
        let top = scratch.path();
        if number > 2 {
            write(top, "herd.yaml", HERD);
        }
        if number > 4 {
            fs::create_dir_all(top.join("sets/own/d")).unwrap();
        } else if number == 4 {
            fs::create_dir(top.join("sets")).unwrap();
        }
        make(top);
        let error = HerdFolder::read(top).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

struct Raw(tar::Builder<Vec<u8>>);

impl Raw {
    fn new() -> Self {
        let mut raw = Self(tar::Builder::new(Vec::new()));
        raw.add("herd.yaml", tar::EntryType::Regular, "", HERD.as_bytes());
        raw
    }

    /// Written by hand, as an attacker would: the library refuses such names.
    fn add(&mut self, name: &str, kind: tar::EntryType, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
    }

    fn read(self) -> Result<HerdFolder, String> {
        let bytes = self.0.into_inner().unwrap();
        HerdFolder::from_tar(&bytes[..]).map_err(|error| error.to_string())
    }
}

#[test]
fn tricks_with_names_in_an_archive_are_refused() {
    use tar::EntryType as Kind;
    const OWN: &str = "sets/own/a";
    for (name, kind, link, expected) in [
        ("../evil", Kind::Regular, "", "\"../evil\" is no plain path"),
        ("/evil", Kind::Regular, "", "\"/evil\" is no plain path"),
        (
            "sets/own/../../../evil",
            Kind::Regular,
            "",
            "is no plain path",
        ),
        ("sets/../../evil", Kind::Symlink, "/etc", "is no plain path"),
        (
            "sets",
            Kind::Symlink,
            "/etc",
            "\"sets\" is of the kind Symlink",
        ),
        (
            "sets/own",
            Kind::Symlink,
            "/etc",
            "is no directory, as a set is",
        ),
        (
            "link",
            Kind::Symlink,
            "/etc",
            "\"link\" is of the kind Symlink",
        ),
        ("null", Kind::Char, "", "\"null\" is of the kind Char"),
        (
            "sets/own/fifo",
            Kind::Fifo,
            "",
            "\"sets/own/fifo\" is of the kind Fifo",
        ),
        (
            "sets/own/sparse",
            Kind::GNUSparse,
            "",
            "is of the kind GNUSparse",
        ),
        (
            "sets/own/l",
            Kind::Symlink,
            "../x",
            "leads above the clone's root",
        ),
        (
            "sets/own/h",
            Kind::Link,
            "/etc/shadow",
            "outside of its set",
        ),
        ("sets/own/h", Kind::Link, "herd.yaml", "outside of its set"),
        (
            "sets/own/h",
            Kind::Link,
            "sets/own/../../x",
            "outside of its set",
        ),
        (
            "sets/own/h",
            Kind::Link,
            "sets/other/a",
            "outside of its set",
        ),
        (
            "sets/own/h",
            Kind::Link,
            "sets/own/missing",
            "is no file of the set that comes before",
        ),
        (OWN, Kind::Regular, "", "a: is there twice"),
        ("sets/own/./a", Kind::Symlink, "x", "a: is there twice"),
        (
            "sets/own/a/b",
            Kind::Regular,
            "",
            "a/b: lies under a, which is no directory",
        ),
        (
            "herd.yaml",
            Kind::Regular,
            "",
            "\"herd.yaml\" is there twice",
        ),
    ] {
        let mut raw = Raw::new();
        raw.add(OWN, Kind::Regular, "", b"");
        raw.add(name, kind, link, b"");
        let error = raw.read().expect_err(name);
        assert!(error.contains(expected), "{name} {kind:?}: {error}");
    }
    let error = HerdFolder::from_tar(&[7; 700][..]).unwrap_err().to_string();
    assert!(error.contains("is not a whole tar archive"), "{error}");
    let empty = Raw(tar::Builder::new(Vec::new())).read().unwrap_err();
    assert!(empty.contains("there is no herd.yaml"), "{empty}");
}

#[test]
fn what_an_archive_claims_takes_no_memory() {
    use tar::EntryType as Kind;
    let mut raw = Raw::new();
    let mut header = tar::Header::new_gnu();
    header.set_path("sets/own/sparse").unwrap();
    header.set_entry_type(Kind::Regular);
    header.set_size(10 << 30);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    raw.0.append(&header, &b""[..]).unwrap();
    let error = raw.read().unwrap_err();
    assert!(error.contains("sparse: has 10737418240 bytes"), "{error}");

    let mut raw = Raw::new();
    for number in 0..10_001 {
        raw.add(&format!("sets/own/{number}"), Kind::Directory, "", b"");
    }
    let error = raw.read().unwrap_err();
    assert!(error.contains("more than 10000 files"), "{error}");

    // Names and attributes may come in pax headers, and lie there too.
    for (record, expected) in [
        ("path", "is no plain path"),
        ("size", "is a sparse or enormous file"),
        ("GNU.sparse.major", "is a sparse or enormous file"),
        ("uid", "has an owner that is no number"),
        (
            "SCHILY.xattr.trusted.overlay.metacopy",
            "has trusted.overlay.metacopy",
        ),
    ] {
        let mut raw = Raw::new();
        raw.0
            .append_pax_extensions([(record, &b"../../99999999999"[..])])
            .unwrap();
        raw.add("sets/own/a", Kind::Regular, "", b"");
        let error = raw.read().expect_err(record);
        assert!(error.contains(expected), "{record}: {error}");
    }
    let mut raw = Raw::new();
    raw.add("x", Kind::XHeader, "", b"9 path=a");
    raw.add("sets/own/a", Kind::Regular, "", b"");
    let error = raw.read().unwrap_err();
    assert!(error.contains("pax header is not understood"), "{error}");
}

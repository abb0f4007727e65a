//! Laws of the format: what is written is read back, and no input does harm.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::*;

fn read_all(bytes: &[u8]) -> Result<Vec<Member<'_>>> {
    Reader::new(bytes, Limits::default()).collect()
}

#[derive(Debug, Clone)]
enum Owned {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

impl Owned {
    fn kind(&self) -> Kind<'_> {
        match self {
            Owned::File(content) => Kind::File(content),
            Owned::Directory => Kind::Directory,
            Owned::Symlink(target) => Kind::Symlink(target),
            &Owned::Character(major, minor) => Kind::CharacterDevice { major, minor },
            &Owned::Block(major, minor) => Kind::BlockDevice { major, minor },
            Owned::Fifo => Kind::Fifo,
            Owned::Socket => Kind::Socket,
        }
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Owned::File),
        Just(Owned::Directory),
        "[a-z./ü]{1,20}".prop_map(Owned::Symlink),
        any::<(u32, u32)>().prop_map(|(major, minor)| Owned::Character(major, minor)),
        any::<(u32, u32)>().prop_map(|(major, minor)| Owned::Block(major, minor)),
        Just(Owned::Fifo),
        Just(Owned::Socket),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        members in proptest::collection::vec(
            ("[a-zü]{1,9}(/[a-z .]{1,5}x){0,3}", owned(), any::<[u32; 5]>()),
            0..12,
        )
    ) {
        let mut writer = Writer::new(Vec::new());
        let mut expected = Vec::new();
        for (index, (path, owned, [mode, uid, gid, mtime_s, links])) in members.iter().enumerate() {
            let member = Member {
                path,
                kind: owned.kind(),
                mode: mode & 0o7777,
                uid: *uid,
                gid: *gid,
                mtime_s: *mtime_s,
                inode: index as u32 + 1,
                links: (*links).max(2),
            };
            writer.add(&member).unwrap();
            expected.push(member);
        }
        let bytes = writer.finish().unwrap();
        prop_assert_eq!(bytes.len() % 4, 0);
        prop_assert_eq!(read_all(&bytes).unwrap(), expected);
        for cut in 0..bytes.len() {
            let truncated = matches!(read_all(&bytes[..cut]), Err(Error::Truncated { .. }));
            prop_assert!(truncated, "cut at {}", cut);
        }
    }

    #[test]
    fn hostile_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        spoilt in proptest::collection::vec((0usize..600, any::<u8>()), 0..8),
    ) {
        let _ = read_all(&bytes);
        let mut layer = LayerArchive::new();
        layer.file("etc/a", 0o644, 0, 0, "x").unwrap().symlink("b", "/etc").unwrap();
        bytes = layer.finish().unwrap();
        for (at, byte) in spoilt {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let mut reader = Reader::new(&bytes, Limits::default());
        let _ = Manifest::read_from(&mut reader);
        for member in reader.flatten() {
            prop_assert!(check_path(member.path).is_ok());
        }
    }
}

#[test]
fn archives_follow_each_other() {
    let one = |path: &str| {
        let mut writer = Writer::new(Vec::new());
        writer.add(&Member::directory(path, 0o755)).unwrap();
        writer.finish().unwrap()
    };
    let mut bytes = one("a");
    bytes.extend([0; 512]);
    bytes.extend(one("b"));
    let mut first = Reader::new(&bytes, Limits::default());
    assert!(first.next_archive().is_none(), "not read to its end yet");
    assert_eq!(
        first.by_ref().map(|m| m.unwrap().path).collect::<Vec<_>>(),
        ["a"]
    );
    let mut second = first.next_archive().unwrap();
    assert_eq!(
        second.by_ref().map(|m| m.unwrap().path).collect::<Vec<_>>(),
        ["b"]
    );
    assert!(second.next_archive().is_none());
}

#[test]
fn limits_hold() {
    let mut writer = Writer::new(Vec::new());
    for path in ["a", "b", "c"] {
        writer.add(&Member::file(path, 0o644, &[7; 100])).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let read = |limits: Limits| Reader::new(&bytes, limits).find_map(|member| member.err());
    let all = Limits {
        members: 3,
        file_bytes: 100,
        total_bytes: 300,
    };
    assert!(read(all).is_none());
    for less in [
        Limits { members: 2, ..all },
        Limits {
            file_bytes: 99,
            ..all
        },
        Limits {
            total_bytes: 299,
            ..all
        },
    ] {
        assert!(matches!(read(less), Some(Error::Limit { .. })), "{less:?}");
    }
    // A size that the archive only claims takes no memory.
    let mut lie = bytes.clone();
    lie[6 + 6 * 8..6 + 7 * 8].copy_from_slice(b"FFFFFFFF");
    assert!(read_all(&lie).is_err());
}

#[test]
fn a_layer_is_sorted_whole_and_says_what_newc_cannot() {
    let mut layer = LayerArchive::new();
    layer.file("usr/bin/tool", 0o4755, 0, 0, "tool").unwrap();
    layer.hardlink("usr/bin/also", "usr/bin/tool").unwrap();
    layer.dir("srv/data", 0o700, 33, 33).unwrap();
    layer.whiteout("etc/motd").unwrap();
    layer.opaque("etc/conf.d").unwrap();
    layer.xattr("usr/bin/tool", "security.x", [0, 255]).unwrap();
    let again = layer.clone().finish().unwrap();
    let bytes = layer.finish().unwrap();
    assert_eq!(bytes, again, "the same layer, the same bytes");

    let mut reader = Reader::new(&bytes, Limits::default());
    let manifest = Manifest::read_from(&mut reader).unwrap();
    assert_eq!(
        manifest.implied,
        ["etc", "etc/conf.d", "srv", "usr", "usr/bin"]
    );
    assert_eq!(manifest.xattrs["etc/conf.d"][OPAQUE_XATTR].0, b"y");
    assert_eq!(manifest.xattrs["usr/bin/tool"]["security.x"].0, [0, 255]);

    let members: BTreeMap<&str, Member> = reader
        .map(|member| member.unwrap())
        .map(|m| (m.path, m))
        .collect();
    let paths: Vec<&str> = members.keys().copied().collect();
    assert_eq!(
        paths,
        [
            "etc",
            "etc/conf.d",
            "etc/motd",
            "srv",
            "srv/data",
            "usr",
            "usr/bin",
            "usr/bin/also",
            "usr/bin/tool"
        ]
    );
    let whiteout = Kind::CharacterDevice { major: 0, minor: 0 };
    assert_eq!(members["etc/motd"].kind, whiteout);
    let (also, tool) = (members["usr/bin/also"], members["usr/bin/tool"]);
    assert_eq!((also.inode, also.links, also.mode), (tool.inode, 2, 0o4755));
    assert_eq!(
        (also.kind, tool.kind),
        (Kind::File(b""), Kind::File(b"tool"))
    );
    assert_eq!(members["srv/data"].uid, 33);
}

#[test]
fn what_a_layer_cannot_be_is_refused() {
    let layer = LayerArchive::new;
    assert!(layer().file("../etc/passwd", 0o644, 0, 0, "").is_err());
    assert!(
        layer()
            .file(".estive/manifest.json", 0o644, 0, 0, "")
            .is_err()
    );
    assert!(layer().symlink("a", "").is_err());
    assert!(layer().xattr("a", "opaque", "y").is_err());
    let mut twice = layer();
    twice.whiteout("a").unwrap();
    assert!(matches!(
        twice.dir("a", 0o755, 0, 0),
        Err(Error::Duplicate { .. })
    ));
    let mut under = layer();
    under
        .symlink("a", "b")
        .unwrap()
        .file("a/c", 0o644, 0, 0, "")
        .unwrap();
    assert!(matches!(
        under.finish(),
        Err(Error::UnderNonDirectory { .. })
    ));
    let mut link = layer();
    link.hardlink("a", "b").unwrap();
    assert!(matches!(link.finish(), Err(Error::LinkTarget { .. })));
    let mut xattr = layer();
    xattr.xattr("a", "user.x", "y").unwrap();
    assert!(matches!(
        xattr.finish(),
        Err(Error::XattrWithoutMember { .. })
    ));
    let mut large = layer();
    large
        .file("a", 0o644, 0, 0, vec![0; LAYER_DISK_BYTES as usize])
        .unwrap();
    assert!(matches!(large.finish(), Err(Error::Limit { .. })));
}

#[test]
fn the_manifest_of_the_contract_is_read() {
    let text = br#"{"version":1,"xattrs":{"etc/foo":{"trusted.overlay.opaque":"eQ=="}}}"#;
    let manifest = Manifest::parse(text).unwrap();
    assert_eq!(manifest.xattrs["etc/foo"][OPAQUE_XATTR].0, b"y");
    for bad in [
        &br#"{"version":2}"#[..],
        br#"{"version":1,"xattrs":{"../a":{}}}"#,
        br#"{"version":1,"xattrs":{"a":{"user.x":"*"}}}"#,
        br#"{"version":1,"xattrs":{"a":{"x":""}}}"#,
        br#"{"version":1,"implied":["/"]}"#,
        b"[]",
    ] {
        assert!(
            Manifest::parse(bad).is_err(),
            "{}",
            String::from_utf8_lossy(bad)
        );
    }
}

#[test]
fn a_tail_filled_gives_the_files_of_one_clone() {
    let mut layer = LayerArchive::new();
    layer.file("etc/shared", 0o644, 0, 0, "same").unwrap();
    layer.own_file("etc/own", 0o600, 1, 2, 1).unwrap();
    layer.own_file("new/place/b", 0o644, 0, 0, 0).unwrap();
    layer.hardlink("a", "new/place/b").unwrap();
    layer.hardlink("z", "new/place/b").unwrap();
    layer.implied_dir("new", 0o711, 3, 4).unwrap();
    let form = layer.form().unwrap();
    let mut tails = Vec::new();
    for clone in ["one", "the other"] {
        let tail = form.tail(&["b".into(), clone.into()]).unwrap();
        let bytes = [form.head(), &tail[..]].concat();
        let mut reader = Reader::new(&bytes, Limits::default());
        let manifest = Manifest::read_from(&mut reader).unwrap();
        assert_eq!(manifest.implied, ["etc", "new", "new/place"]);
        let members: Vec<Member> = reader.map(|member| member.unwrap()).collect();
        let paths: Vec<&str> = members.iter().map(|member| member.path).collect();
        assert_eq!(
            paths,
            [
                "etc",
                "etc/shared",
                "new",
                "new/place",
                "a",
                "etc/own",
                "new/place/b",
                "z"
            ]
        );
        assert_eq!((members[2].mode, members[2].uid), (0o711, 3));
        assert_eq!((members[5].mode, members[5].gid), (0o600, 2));
        assert_eq!(members[5].kind, Kind::File(clone.as_bytes()));
        let names: Vec<_> = [4, 6, 7]
            .map(|at| (members[at].inode, members[at].links))
            .into();
        assert_eq!(names, [names[0]; 3]);
        assert_eq!(members[7].kind, Kind::File(b"b"));
        let mut inodes: Vec<u32> = members.iter().map(|member| member.inode).collect();
        inodes.sort();
        inodes.dedup();
        assert_eq!(
            inodes.len(),
            6,
            "each file its number, across head and tail"
        );
        tails.push(tail);
    }
    assert_ne!(tails[0], tails[1]);
    assert!(matches!(
        form.tail(&["b".into()]),
        Err(Error::ContentMissing { number: 1 })
    ));
}

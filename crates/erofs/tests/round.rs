//! What is written is read back, by us, by the kernel's own checker and by the kernel; what others wrote is read; and
//! bytes that are no image, or a hostile one, end in an error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use estive_erofs::{
    Body, Content, DataArea, Image, Kind, Limits, Node, Tree, Visit, finish, is_canonical,
};
use proptest::prelude::*;

/// What a tree of these tests holds.
#[derive(Debug, Clone)]
enum Thing {
    File(Vec<u8>),
    Link(Vec<u8>),
    Fifo,
    Device(u32),
    /// The file of this number again, or the last.
    Again(usize),
    Directory(BTreeMap<Vec<u8>, Thing>),
}

/// What must come back of a name.
type Facts = (Kind, u16, u32, u32, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>);

struct Maker<'a> {
    tree: Tree,
    data: DataArea<'a>,
    files: Vec<usize>,
}

impl Maker<'_> {
    fn add(&mut self, thing: &Thing, salt: u32) -> usize {
        let mut node = Node::directory(0);
        node.uid = salt * 997;
        node.gid = salt;
        for index in 0..salt % 4 {
            let name = format!("user.n{index}");
            let value = vec![index as u8; (salt as usize * 37) % 900];
            node.xattrs.insert(name.into_bytes(), value);
        }
        node.mode = (salt as u16 * 7) & 0o7777;
        let place = self.tree.nodes.len();
        match thing {
            Thing::Again(which) if !self.files.is_empty() => {
                return self.files[which % self.files.len()];
            }
            Thing::Again(_) | Thing::Fifo => {
                node.mode |= 0o010_000;
                node.body = Body::Other;
            }
            Thing::Device(number) => {
                node.mode |= 0o020_000;
                node.device = *number;
                node.body = Body::Other;
            }
            Thing::Link(target) => {
                node.mode |= 0o120_000;
                node.body = Body::Link(target.clone());
            }
            Thing::File(bytes) => {
                node.mode |= 0o100_000;
                let fits = node.tail_fits();
                let content = self
                    .data
                    .store(&mut bytes.as_slice(), bytes.len() as u64, fits)
                    .unwrap();
                node.body = Body::File(content);
                self.files.push(place);
            }
            Thing::Directory(entries) => {
                node.mode |= 0o040_000;
                self.tree.nodes.push(node);
                let mut numbers = BTreeMap::new();
                // Data of what a directory names comes before that of what lies deeper.
                let (deep, flat): (Vec<_>, Vec<_>) = entries
                    .iter()
                    .partition(|(_, thing)| matches!(thing, Thing::Directory(_)));
                for (index, (name, thing)) in (1..).zip(flat.into_iter().chain(deep)) {
                    numbers.insert(name.clone(), self.add(thing, salt + index));
                }
                self.tree.nodes[place].body = Body::Directory(numbers);
                return place;
            }
        }
        self.tree.nodes.push(node);
        place
    }
}

fn image_of(things: &BTreeMap<Vec<u8>, Thing>, path: &Path) -> Tree {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    let mut maker = Maker {
        tree: Tree { nodes: Vec::new() },
        data: DataArea::new(&file),
        files: Vec::new(),
    };
    maker.add(&Thing::Directory(things.clone()), 1);
    let tree = maker.tree;
    assert!(is_canonical(&tree).unwrap());
    finish(&file, &tree).unwrap();
    tree
}

fn facts(path: &Path) -> BTreeMap<Vec<u8>, Facts> {
    let image = Image::open(File::open(path).unwrap()).unwrap();
    let mut found = BTreeMap::new();
    image
        .walk(Limits::default(), &mut |entry| {
            let inode = &entry.inode;
            let bytes = match inode.kind {
                Kind::File => {
                    let mut bytes = vec![0; inode.size_bytes as usize];
                    assert_eq!(image.read_at(inode, &mut bytes, 0)?, bytes.len());
                    bytes
                }
                Kind::Link => image.link(inode)?,
                Kind::CharacterDevice => inode.device.to_le_bytes().to_vec(),
                _ => Vec::new(),
            };
            let xattrs = image.xattrs(inode)?;
            let facts = (inode.kind, inode.mode, inode.uid, inode.gid, bytes, xattrs);
            found.insert(entry.path.clone(), facts);
            Ok(Visit::Below)
        })
        .unwrap();
    found
}

/// The facts of a tree as it was meant.
fn meant(
    tree: &Tree,
    things: &BTreeMap<Vec<u8>, Thing>,
    at: usize,
    path: &[u8],
    contents: &mut BTreeMap<usize, Vec<u8>>,
    found: &mut BTreeMap<Vec<u8>, Facts>,
) {
    let node = &tree.nodes[at];
    let fact = |node: &Node, kind, bytes| {
        let xattrs = node.xattrs.clone();
        (kind, node.mode, node.uid, node.gid, bytes, xattrs)
    };
    found.insert(path.to_vec(), fact(node, Kind::Directory, Vec::new()));
    let Body::Directory(entries) = &node.body else {
        panic!("{path:?}")
    };
    for pass in [false, true] {
        for (name, thing) in things {
            if matches!(thing, Thing::Directory(_)) != pass {
                continue;
            }
            let number = entries[name];
            let node = &tree.nodes[number];
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name);
            let kind = Kind::of(node.mode).unwrap();
            match thing {
                Thing::Directory(things) => {
                    meant(tree, things, number, &below, contents, found);
                }
                Thing::File(bytes) => {
                    contents.insert(number, bytes.clone());
                    found.insert(below, fact(node, kind, bytes.clone()));
                }
                Thing::Link(target) => {
                    found.insert(below, fact(node, kind, target.clone()));
                }
                Thing::Device(number) => {
                    found.insert(below, fact(node, kind, number.to_le_bytes().to_vec()));
                }
                Thing::Again(_) | Thing::Fifo => {
                    let bytes = contents.get(&number).cloned().unwrap_or_default();
                    found.insert(below, fact(node, kind, bytes));
                }
            }
        }
    }
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z!+.-]{1,12}".prop_map(String::into_bytes),
        1 => "[a-zA-Z]{200,255}".prop_map(String::into_bytes),
        1 => prop::collection::vec(128..=255_u8, 1..20),
    ]
    .prop_filter("names that a directory has by itself", |name| {
        name != b"." && name != b".."
    })
}

fn files() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![
        0..100_usize,
        1..70_usize,
        4000..4200_usize,
        5000..5200_usize,
        130_000..132_000_usize,
        200_000..300_000_usize,
    ];
    // Stretches of zeros, so that there are holes.
    (sizes, 1..=255_u8, 0..5_usize).prop_map(|(size, byte, zeros)| {
        let mut bytes = vec![byte; size];
        if zeros < 3 {
            let start = (zeros * 65_536).min(size);
            let end = (start + 70_000).min(size);
            bytes[start..end].fill(0);
        }
        bytes
    })
}

fn things() -> impl Strategy<Value = BTreeMap<Vec<u8>, Thing>> {
    let leaf = prop_oneof![
        4 => files().prop_map(Thing::File),
        1 => "[a-z/]{1,60}".prop_map(|link| Thing::Link(link.into_bytes())),
        1 => "[a-z/]{3900,4095}".prop_map(|link| Thing::Link(link.into_bytes())),
        1 => Just(Thing::Fifo),
        1 => any::<u32>().prop_map(Thing::Device),
        1 => any::<usize>().prop_map(Thing::Again),
    ];
    let thing = leaf.prop_recursive(3, 60, 40, |inner| {
        prop::collection::btree_map(names(), inner, 0..40).prop_map(Thing::Directory)
    });
    prop::collection::btree_map(names(), thing, 0..12)
}

fn checked_by_others(path: &Path) {
    let output = Command::new("fsck.erofs").arg(path).output().unwrap();
    assert!(
        output.status.success(),
        "fsck.erofs: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_tree_comes_back(things in things()) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("image");
        let tree = image_of(&things, &path);
        let mut expected = BTreeMap::new();
        meant(&tree, &things, 0, b"", &mut BTreeMap::new(), &mut expected);
        prop_assert_eq!(facts(&path), expected);
        checked_by_others(&path);
        let again = home.path().join("again");
        image_of(&things, &again);
        prop_assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
    }

    #[test]
    fn a_damaged_image_is_an_error_or_a_tree(
        things in things(),
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..20),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("image");
        image_of(&things, &path);
        let mut bytes = fs::read(&path).unwrap();
        let meta = 4096 * u32::from_le_bytes(bytes[1024 + 40..1024 + 44].try_into().unwrap()) as usize;
        for (place, byte, any_place) in harm {
            // Most of it among inodes and names, where it tells.
            let from = if any_place { 0 } else { meta };
            let at = from + place.index(bytes.len() - from);
            bytes[at] = byte;
        }
        // The checksum would catch what this is to try.
        bytes[1024 + 8] &= !1;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(bytes);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_tree(
        mut bytes in prop::collection::vec(any::<u8>(), 4096..12_000),
        root in 0..200_u16,
        meta in 0..3_u32,
    ) {
        let start = 1024;
        bytes[start..start + 4].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        bytes[start + 8] &= !1;
        bytes[start + 12] = 12;
        bytes[start + 14..start + 16].copy_from_slice(&root.to_le_bytes());
        bytes[start + 36..start + 40].copy_from_slice(&1_u32.to_le_bytes());
        bytes[start + 40..start + 44].copy_from_slice(&meta.to_le_bytes());
        bytes[start + 80..start + 84].copy_from_slice(&4_u32.to_le_bytes());
        bytes[start + 86..start + 88].copy_from_slice(&[0, 0]);
        read_all(bytes);
    }
}

/// Reads everything there is, within limits; whatever comes, it ends.
fn read_all(bytes: Vec<u8>) {
    let Ok(image) = Image::open(bytes) else {
        return;
    };
    let limits = Limits {
        entries: 20_000,
        depth: 64,
    };
    let _ = image.walk(limits, &mut |entry| {
        let _ = image.xattrs(&entry.inode);
        let _ = image.link(&entry.inode);
        let mut offset = 0;
        for _ in 0..1000 {
            if offset >= entry.inode.size_bytes {
                break;
            }
            let Ok(extent) = image.extent(&entry.inode, offset) else {
                break;
            };
            assert!(extent.length() > 0);
            offset += extent.length();
        }
        let mut some = vec![0; 5000];
        let _ = image.read_at(&entry.inode, &mut some, 0);
        Ok(Visit::Below)
    });
}

/// A thousand names, long links, sparse files: mounted by the kernel, where it lets us, and compared.
#[test]
fn the_kernel_reads_the_same() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("many")).unwrap();
    let mut things = BTreeMap::new();
    let mut many = BTreeMap::new();
    for index in 0..1000 {
        let name = format!("name-{index}-{}", "x".repeat(index % 90));
        let text = vec![b'a' + (index % 26) as u8; index * 7];
        fs::write(root.join("many").join(&name), &text).unwrap();
        many.insert(name.into_bytes(), Thing::File(text));
    }
    things.insert(b"many".to_vec(), Thing::Directory(many));
    let mut sparse = vec![0; 3 << 20];
    sparse[2 << 20] = 7;
    fs::write(root.join("sparse"), &sparse).unwrap();
    things.insert(b"sparse".to_vec(), Thing::File(sparse));
    let long = "l/".repeat(2047);
    std::os::unix::fs::symlink(&long, root.join("link")).unwrap();
    things.insert(b"link".to_vec(), Thing::Link(long.into_bytes()));
    let path = home.path().join("image");
    let tree = image_of(&things, &path);
    assert!(
        tree.nodes
            .iter()
            .any(|node| matches!(node.body, Body::File(Content::Chunks { .. })))
    );
    checked_by_others(&path);
    let script = r#"mount -t erofs -o loop,ro "$1" /mnt && diff -r --no-dereference /mnt "$2" && find /mnt -ls | wc -l"#;
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([&path, &root])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("mount:") {
        eprintln!("not mounted: {said}");
        return;
    }
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1004");
}

/// Images of another maker, with and without shared attributes.
#[test]
fn what_mkfs_made_is_read() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("a/b")).unwrap();
    for index in 0..300 {
        let path = root.join(format!("a/file-{index}"));
        fs::write(&path, vec![1; index * 31]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
    for sharing in ["-x1", "-x2147483647"] {
        let path = home.path().join("image");
        let output = Command::new("mkfs.erofs")
            .args(["--quiet", "-T0", sharing])
            .args([&path, &root])
            .output()
            .unwrap();
        assert!(output.status.success());
        let found = facts(&path);
        assert_eq!(found.len(), 304);
        assert_eq!(found[b"a/file-299".as_slice()].4, vec![1; 299 * 31]);
        assert_eq!(found[b"link".as_slice()].4, b"a/b");
        assert_eq!(found[b"a/file-7".as_slice()].1, 0o100_640);
    }
}

//! The law of layers: sets put together by us and laid over a root are what the kernel's overlayfs
//! makes of the same sets as layers of their own. On random trees, with every kind of node.

#[path = "../../layers/tests/common/mod.rs"]
mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use common::Scratch;
use estive_layers::{DeploymentSecret, HerdFolder, OwnSets, RenderRequest, Renderer, Tree, herd};
use estive_union::{Rights, UnionError, settle, unpack};
use proptest::prelude::*;
use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// One node of a random tree.
#[derive(Debug, Clone)]
struct Node {
    what: What,
    mode: u32,
    owner: u32,
    xattrs: Vec<(&'static str, u8)>,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    File(u8),
    Directory {
        /// Named in `set.yaml`: its attributes are the set's.
        named: bool,
        opaque: bool,
    },
    Symlink(&'static str),
    /// Another name of the file that comes before it, if one does.
    Link,
    Device(u32),
    Whiteout,
}

const PLAIN_DIRECTORY: What = What::Directory {
    named: false,
    opaque: false,
};

impl Node {
    fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory { .. })
    }

    /// A directory whose attributes count, whatever lies below it.
    fn is_own(&self) -> bool {
        matches!(self.what, What::Directory { named: true, .. }) || !self.xattrs.is_empty()
    }
}

type RandomTree = BTreeMap<String, Node>;

/// How a set spells what it hides.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spelling {
    Marks,
    /// As overlayfs itself leaves a tree.
    Kernel,
}

fn node(of_root: bool) -> impl Strategy<Value = Node> {
    let opaque = prop::bool::weighted(if of_root { 0.0 } else { 0.2 });
    let directory =
        (any::<bool>(), opaque).prop_map(|(named, opaque)| What::Directory { named, opaque });
    let what = prop_oneof![
        6 => (0..4u8).prop_map(What::File),
        4 => directory,
        1 => prop::sample::select(vec!["a", "./b", "/c"]).prop_map(What::Symlink),
        1 => Just(What::Link),
        1 => (3..6u32).prop_map(What::Device),
        3 => Just(if of_root { PLAIN_DIRECTORY } else { What::Whiteout }),
    ];
    let modes = prop::sample::select(vec![0o644, 0o755, 0o700, 0o4711, 0o1777, 0o2750]);
    let xattrs = prop_oneof![
        4 => Just(Vec::new()),
        1 => (0..9u8).prop_map(|value| vec![("user.x", value)]),
        1 => (0..9u8).prop_map(|value| vec![("trusted.y", value), ("user.x", value)]),
    ];
    (what, modes, 0..3u32, xattrs).prop_map(|(what, mode, owner, mut xattrs)| {
        // Links and devices have no user.* attributes.
        let plain = matches!(what, What::File(_) | What::Directory { .. });
        xattrs.retain(|(name, _)| plain || name.starts_with("trusted."));
        if what == What::Whiteout {
            xattrs.clear();
        }
        Node {
            what,
            mode,
            owner,
            xattrs,
        }
    })
}

/// Few names, so that trees meet.
fn tree(of_root: bool) -> impl Strategy<Value = RandomTree> {
    prop::collection::btree_map("[abc](/[abc]){0,2}", node(of_root), 0..12).prop_map(|given| {
        let mut tree = RandomTree::new();
        for (path, node) in given {
            // What lies under something else than a directory makes it one.
            for (end, _) in path.match_indices('/') {
                let parent = tree.entry(path[..end].to_owned()).or_insert_with(|| Node {
                    what: PLAIN_DIRECTORY,
                    mode: 0o755,
                    owner: 0,
                    xattrs: Vec::new(),
                });
                if !parent.is_directory() {
                    parent.what = PLAIN_DIRECTORY;
                }
            }
            tree.insert(path, node);
        }
        tree
    })
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn give(path: &Path, node: &Node) {
    lchown(path, Some(node.owner), Some(node.owner)).unwrap();
    if !matches!(node.what, What::Symlink(_)) {
        fs::set_permissions(path, fs::Permissions::from_mode(node.mode)).unwrap();
    }
    for (name, value) in &node.xattrs {
        xattr(path, name, &[*value]);
    }
}

fn device(place: &Path, major: u32, minor: u32) {
    let mode = Mode::from_raw_mode(0o600);
    let number = makedev(major, minor);
    mknodat(CWD, place, FileType::CharacterDevice, mode, number).unwrap();
}

/// Writes a tree; gives what `set.yaml` would say of it.
fn write(tree: &RandomTree, top: &Path, spelling: Spelling) -> String {
    let mut settings = String::new();
    let mut last_file: Option<PathBuf> = None;
    fs::create_dir_all(top).unwrap();
    for (path, node) in tree {
        let place = top.join(path);
        match &node.what {
            What::File(content) => {
                fs::write(&place, vec![*content; usize::from(*content)]).unwrap();
                last_file = Some(place.clone());
            }
            What::Directory { named, opaque } => {
                fs::create_dir(&place).unwrap();
                if *named {
                    settings += &format!("  {path}: {{}}\n");
                }
                if *opaque && spelling == Spelling::Marks {
                    fs::write(place.join(".wh.__dir_opaque"), "").unwrap();
                } else if *opaque {
                    xattr(&place, "trusted.overlay.opaque", b"y");
                }
            }
            What::Symlink(target) => symlink(target, &place).unwrap(),
            What::Link => match &last_file {
                Some(first) => {
                    fs::hard_link(first, &place).unwrap();
                    continue;
                }
                None => {
                    fs::write(&place, "alone").unwrap();
                    last_file = Some(place.clone());
                }
            },
            What::Device(minor) => device(&place, 1, *minor),
            What::Whiteout if spelling == Spelling::Marks => {
                let name = place.file_name().unwrap().to_str().unwrap();
                fs::write(place.with_file_name(format!(".wh.{name}")), "").unwrap();
                continue;
            }
            What::Whiteout => {
                device(&place, 0, 0);
                continue;
            }
        }
        give(&place, node);
    }
    settings
}

/// A place for one case, and the mounts made in it.
struct Bench {
    top: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Bench {
    /// The union of directories, the lowest first, with a memory of its own above.
    fn union(&mut self, name: &str, layers: &[PathBuf]) -> PathBuf {
        let own = self.top.join(name);
        let [upper, work, place] = ["upper", "work", "union"].map(|part| own.join(part));
        for directory in [&upper, &work, &place] {
            fs::create_dir_all(directory).unwrap();
        }
        let lower: Vec<String> = layers
            .iter()
            .rev()
            .map(|layer| layer.display().to_string())
            .collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::empty();
        mount("overlay", &place, "overlay", flags, options.as_c_str()).unwrap();
        self.mounted.push(place.clone());
        place
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for place in self.mounted.iter().rev() {
            let _ = unmount(place, UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(&self.top);
    }
}

/// Directories that are only on the way take their attributes from what lies below.
fn take_from_below(tree: &RandomTree, layer: &Path, below: &Path) {
    for (path, node) in tree.iter().filter(|(_, node)| node.is_directory()) {
        let found = below.join(path);
        let through_link = Path::new(path)
            .ancestors()
            .any(|part| below.join(part).is_symlink());
        // What this very layer hides is not its directory.
        let hidden = Path::new(path).ancestors().skip(1).any(|parent| {
            let parent = parent.to_str().and_then(|parent| tree.get(parent));
            parent.is_some_and(|node| matches!(node.what, What::Directory { opaque: true, .. }))
        });
        if node.is_own() || hidden || through_link || !found.is_dir() {
            continue;
        }
        let meta = found.metadata().unwrap();
        let place = layer.join(path);
        lchown(&place, Some(meta.uid()), Some(meta.gid())).unwrap();
        fs::set_permissions(&place, meta.permissions()).unwrap();
        for (name, value) in xattrs(&found) {
            xattr(&place, &name, &value);
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 4096];
    let length = llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 256];
            let length = lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

/// All that a program can see of a path.
#[derive(Debug, PartialEq)]
struct Seen {
    what: String,
    mode: u32,
    owner: (u32, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name of the same file.
    same_as: String,
}

/// Everything below `top`; names that are listed and not there go to `ghosts`.
fn see(top: &Path, ghosts: &mut Vec<String>) -> BTreeMap<String, Seen> {
    let mut paths: Vec<String> = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(top.join(&directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = match directory.as_str() {
                "" => name,
                directory => format!("{directory}/{name}"),
            };
            match top.join(&path).symlink_metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(path.clone()),
                Ok(_) => {}
                Err(_) => {
                    ghosts.push(path);
                    continue;
                }
            }
            paths.push(path);
        }
    }
    paths.sort();
    let mut firsts: BTreeMap<u64, String> = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let place = top.join(&path);
        let meta = place.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let mut same_as = String::new();
        let what = if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&place).unwrap().display())
        } else if kind.is_char_device() {
            format!("device {:x}", meta.rdev())
        } else {
            let first = firsts.entry(meta.ino()).or_insert_with(|| path.clone());
            same_as.clone_from(first);
            format!("file {:?}", fs::read(&place).unwrap())
        };
        let value = Seen {
            what,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            xattrs: xattrs(&place),
            same_as,
        };
        seen.insert(path, value);
    }
    seen
}

fn opened(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn our_tree(sets: &OwnSets) -> Tree {
    let names: Vec<&str> = sets.keys().map(String::as_str).collect();
    let text = format!("sets: [{}]\nhosts: {{a: }}\n", names.join(", "));
    let plan = herd::parse("herd.yaml", &text, "d").unwrap();
    let secret = DeploymentSecret::new([7; 32]);
    let request = RenderRequest::new(&plan, sets, &secret).unwrap();
    Renderer::new(&request).unwrap().tree("a").unwrap()
}

/// Whether the two were compared: a layer that clashes with its root is refused instead.
fn check(scratch: &Path, root: &RandomTree, sets: &[(RandomTree, Spelling)]) -> bool {
    let mut bench = Bench {
        top: scratch.join("case"),
        mounted: Vec::new(),
    };
    let top = bench.top.clone();
    let root_place = top.join("root");
    write(root, &root_place, Spelling::Kernel);

    // The kernel's: each set is a layer.
    let common = top.join("common");
    fs::create_dir_all(common.join("etc")).unwrap();
    let mut layers = vec![root_place.clone(), common];
    for (number, (tree, spelling)) in sets.iter().enumerate() {
        let below = bench.union(&format!("below{number}"), &layers);
        let layer = top.join(format!("layer{number}"));
        write(tree, &layer, Spelling::Kernel);
        take_from_below(tree, &layer, &below);
        layers.push(layer);
        let set = top.join(format!("sets/set{number}"));
        let settings = write(tree, &set, *spelling);
        if !settings.is_empty() {
            fs::write(set.join("set.yaml"), format!("files:\n{settings}")).unwrap();
        }
    }
    let theirs = bench.union("theirs", &layers);
    // Of a directory that only one layer has, overlayfs lists the whiteouts too.
    let theirs = see(&theirs, &mut Vec::new());

    // Ours: read, put together, archived, unpacked, settled, one layer.
    let tree = our_tree(&HerdFolder::read_sets(&top.join("sets")).unwrap());
    let layer = top.join("layer");
    fs::create_dir(&layer).unwrap();
    let archive = tree.to_archive().unwrap();
    let unpacked = unpack(&archive, &opened(&layer), Rights::Root).unwrap();
    match settle(&unpacked, &opened(&layer), &opened(&root_place)) {
        Ok(()) => {}
        // Said to whoever made the set, instead of hiding what the root's link leads to.
        Err(UnionError::Clash { path, .. }) => {
            let found = root_place.join(&path).symlink_metadata().unwrap();
            assert!(!found.is_dir(), "{path}");
            return false;
        }
        Err(error) => panic!("{error}"),
    }
    let ours = bench.union("ours", &[root_place, layer]);
    let mut ghosts = Vec::new();
    let mut ours = see(&ours, &mut ghosts);
    assert_eq!(ghosts, Vec::<String>::new(), "names that are not there");
    for common in ["etc/hostname", "etc/hosts", "etc/machine-id"] {
        ours.remove(common).unwrap();
    }
    for (path, theirs) in &theirs {
        assert_eq!(ours.get(path), Some(theirs), "{path}: ours, theirs");
    }
    let more = ours.keys().filter(|path| !theirs.contains_key(*path));
    assert_eq!(more.collect::<Vec<_>>(), Vec::<&String>::new(), "only ours");
    true
}

#[test]
fn sets_laid_over_a_root_are_what_overlayfs_makes_of_them() {
    let scratch = Scratch::new();
    let spelling = prop::sample::select(vec![Spelling::Marks, Spelling::Kernel]);
    let sets = prop::collection::vec((tree(false), spelling), 1..4);
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let compared = Cell::new(0);
    let result =
        proptest::test_runner::TestRunner::new(config).run(&(tree(true), sets), |(root, sets)| {
            compared.set(compared.get() + u32::from(check(scratch.path(), &root, &sets)));
            Ok(())
        });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(
        compared.get() > 50,
        "only {} cases were compared",
        compared.get()
    );
}

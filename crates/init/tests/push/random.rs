//! Laws of a push, on random trees: roots, layers, and what clones do to their files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use estive_archive::LayerArchive;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::{XattrFlags, lsetxattr};

use crate::bed::{Clone, End, in_own_namespace};

/// Few names and contents, so that trees meet.
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Node {
    File {
        content: u8,
        mode: u32,
        owner: u32,
        attribute: bool,
    },
    Symlink(u8),
    Device,
    Whiteout,
    /// Another name of the last file of the layer, if there is one.
    Link,
    Directory {
        explicit: Option<(u32, u32)>,
        opaque: bool,
        attribute: bool,
        inside: Nodes,
    },
}

type Nodes = BTreeMap<&'static str, Node>;

fn nodes(is_layer: bool) -> impl Strategy<Value = Nodes> {
    let modes = prop_oneof![Just(0o644u32), Just(0o600), Just(0o4755)];
    let file = (0..3u8, modes, 0..2u32, prop::bool::weighted(0.2)).prop_map(
        |(content, mode, owner, attribute)| Node::File {
            content,
            mode,
            owner,
            attribute,
        },
    );
    let special = match is_layer {
        true => prop_oneof![
            Just(Node::Device),
            Just(Node::Whiteout),
            Just(Node::Whiteout),
            Just(Node::Link)
        ]
        .boxed(),
        false => Just(Node::Device).boxed(),
    };
    let leaf = prop_oneof![4 => file, 1 => (0..2u8).prop_map(Node::Symlink), 2 => special];
    let inside = |node: BoxedStrategy<Node>| {
        prop::collection::btree_map(prop::sample::select(&NAMES[..]), node, 0..4)
    };
    let explicit = prop::option::of((prop_oneof![Just(0o755u32), Just(0o1700)], 0..2u32));
    let node = leaf.prop_recursive(3, 24, 3, move |node| {
        (
            explicit.clone(),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.1),
            inside(node.boxed()),
        )
            .prop_map(|(explicit, opaque, attribute, inside)| Node::Directory {
                explicit,
                opaque,
                attribute,
                inside,
            })
    });
    prop::collection::btree_map(prop::sample::select(&NAMES[..]), node, 1..4)
}

fn content(of: u8) -> String {
    "content".repeat(usize::from(of))
}

fn archive(nodes: &Nodes) -> Vec<u8> {
    fn add(layer: &mut LayerArchive, below: &str, nodes: &Nodes, last: &mut Option<String>) {
        for (name, node) in nodes {
            let path = format!("{below}{name}");
            match node {
                Node::File {
                    content: of,
                    mode,
                    owner,
                    attribute,
                } => {
                    layer
                        .file(&path, *mode, *owner, *owner, content(*of))
                        .unwrap();
                    if *attribute {
                        layer.xattr(&path, "trusted.t", "file").unwrap();
                    }
                    *last = Some(path);
                }
                Node::Symlink(to) => drop(layer.symlink(&path, &format!("to{to}")).unwrap()),
                Node::Device => drop(layer.device(&path, 0o600, 1, 1, true, (1, 3)).unwrap()),
                Node::Whiteout => drop(layer.whiteout(&path).unwrap()),
                Node::Link => match last {
                    Some(last) => drop(layer.hardlink(&path, last).unwrap()),
                    None => drop(layer.file(&path, 0o644, 0, 0, "alone").unwrap()),
                },
                Node::Directory {
                    explicit,
                    opaque,
                    attribute,
                    inside,
                } => {
                    // One with attributes must be named.
                    let named =
                        explicit.or((*attribute || inside.is_empty()).then_some((0o755, 0)));
                    if let Some((mode, owner)) = named {
                        layer.dir(&path, mode, owner, owner).unwrap();
                    }
                    if *opaque {
                        layer.opaque(&path).unwrap();
                    }
                    if *attribute {
                        layer.xattr(&path, "trusted.t", "directory").unwrap();
                    }
                    add(layer, &format!("{path}/"), inside, last);
                }
            }
        }
    }
    let mut layer = LayerArchive::new();
    add(&mut layer, "", nodes, &mut None);
    layer.finish().unwrap()
}

fn fill(at: &Path, nodes: &Nodes) {
    for (name, node) in nodes {
        let path = at.join(name);
        let mut attributes = None;
        match node {
            Node::File {
                content: of,
                mode,
                owner,
                attribute,
            } => {
                fs::write(&path, format!("{}of the root", content(*of))).unwrap();
                attributes = Some((*mode, *owner, *attribute));
            }
            Node::Symlink(to) => symlink(format!("to{to}"), &path).unwrap(),
            Node::Directory {
                explicit,
                attribute,
                inside,
                ..
            } => {
                fs::create_dir(&path).unwrap();
                fill(&path, inside);
                let (mode, owner) = explicit.unwrap_or((0o711, 2));
                attributes = Some((mode, owner, *attribute));
            }
            _ => {
                let device = rustix::fs::makedev(1, 5);
                let mode = rustix::fs::Mode::from_raw_mode(0o640);
                let kind = rustix::fs::FileType::BlockDevice;
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).unwrap();
            }
        }
        if let Some((mode, owner, attribute)) = attributes {
            chown(&path, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if attribute {
                lsetxattr(&path, "trusted.t", b"root", XattrFlags::empty()).unwrap();
            }
        }
    }
}

/// What a clone does to one of its paths.
#[derive(Debug, Clone)]
enum Deed {
    Write,
    Remove,
    Mode,
    Symlink,
    MakeInside,
}

fn deeds() -> impl Strategy<Value = Vec<(prop::sample::Index, Deed)>> {
    let deed = prop_oneof![
        Just(Deed::Write),
        Just(Deed::Remove),
        Just(Deed::Mode),
        Just(Deed::Symlink),
        Just(Deed::MakeInside),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), deed), 0..4)
}

fn do_all(clone: &Clone, deeds: &[(prop::sample::Index, Deed)]) {
    for (index, deed) in deeds {
        let paths: Vec<String> = clone.dump().into_keys().collect();
        if paths.is_empty() {
            return;
        }
        let path = clone.at(index.get(&paths[..]).as_str());
        let found = path.symlink_metadata().unwrap();
        let remove = || match found.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        };
        match deed {
            Deed::Write if found.is_file() => fs::write(&path, "the clone wrote this").unwrap(),
            Deed::Mode if !found.is_symlink() => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
            }
            Deed::MakeInside if found.is_dir() => {
                fs::write(path.join("own"), "the clone made this").unwrap();
            }
            Deed::Symlink => {
                remove();
                symlink("/etc", &path).unwrap();
            }
            _ => remove(),
        }
    }
}

/// Runs a law on so many random cases, in a mount namespace.
fn law<S: Strategy>(
    cases: u32,
    strategy: impl FnOnce() -> S + Send + 'static,
    law: impl Fn(S::Value) -> Result<(), TestCaseError> + Send + 'static,
) {
    in_own_namespace(move || {
        let config = ProptestConfig {
            cases,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        TestRunner::new(config)
            .run(&strategy(), law)
            .unwrap_or_else(|error| panic!("{error}"));
    });
}

/// A layer that cannot be laid over this root is no case.
fn start(root: &Nodes, layer: &[u8]) -> Result<Clone, TestCaseError> {
    Clone::start(|at| fill(at, root), layer)
        .ok_or_else(|| TestCaseError::reject("no layer for this root"))
}

#[test]
fn pushes_one_after_the_other_are_as_good_as_a_start() {
    let layers = || prop::collection::vec(nodes(true), 2..4);
    law(
        120,
        move || (nodes(false), layers()),
        |(root, layers)| {
            let layers: Vec<Vec<u8>> = layers.iter().map(archive).collect();
            let clone = start(&root, &layers[0])?;
            for layer in layers[1..].iter().chain([&layers[0]]) {
                let started = start(&root, layer)?;
                let report = clone.push(layer).report();
                prop_assert_eq!(&report.left, &[]);
                prop_assert_eq!(clone.dump(), started.dump());
                let again = clone.push(layer).report();
                prop_assert!(again.did_nothing() && again.left.is_empty(), "{:?}", again);
            }
            Ok(())
        },
    );
}

#[test]
fn what_a_clone_has_changed_is_never_touched() {
    law(
        150,
        || (nodes(false), nodes(true), nodes(true), deeds()),
        |(root, a, b, deeds)| {
            let (a, b) = (archive(&a), archive(&b));
            let clone = start(&root, &a)?;
            let wanted = start(&root, &b)?.dump();
            let started = clone.dump();
            do_all(&clone, &deeds);
            let before = clone.dump();
            let report = clone.push(&b).report();
            let after = clone.dump();
            let changed: Vec<&String> = before
                .keys()
                .chain(started.keys())
                .filter(|path| before.get(*path) != started.get(*path))
                .collect();
            let is_near = |path: &str, changed: &str| {
                path == changed
                    || changed.starts_with(&format!("{path}/"))
                    || path.starts_with(&format!("{changed}/"))
            };
            let paths: Vec<&String> = before
                .keys()
                .chain(after.keys())
                .chain(wanted.keys())
                .collect();
            for path in paths {
                let state = |of: &BTreeMap<String, String>| of.get(path).cloned();
                if changed.contains(&path) {
                    prop_assert_eq!(state(&after), state(&before), "{} was touched", path);
                } else if changed.iter().any(|changed| is_near(path, changed)) {
                    let known = [state(&before), state(&wanted)].contains(&state(&after));
                    prop_assert!(known, "{} is {:?}", path, state(&after));
                } else {
                    prop_assert_eq!(state(&after), state(&wanted), "{}", path);
                }
            }
            // Whatever is not as a start would have it is said, or lies near what is.
            for path in after.keys().chain(wanted.keys()) {
                let is_said = report.left.iter().any(|left| is_near(path, &left.path));
                let is_asked = started.get(path) != wanted.get(path);
                prop_assert!(
                    is_said || !is_asked || after.get(path) == wanted.get(path),
                    "{} is not said: {:?}",
                    path,
                    report
                );
            }
            let again = clone.push(&b).report();
            prop_assert!(again.did_nothing(), "{:?}", again);
            prop_assert_eq!(clone.dump(), after);
            Ok(())
        },
    );
}

#[test]
fn a_push_killed_anywhere_is_made_good_by_any_other() {
    let layers = || (nodes(true), nodes(true), nodes(true));
    law(
        120,
        move || (nodes(false), layers(), 1..60u64, any::<bool>()),
        |(root, (a, b, c), step, same)| {
            let (a, b, c) = (archive(&a), archive(&b), archive(&c));
            let next = if same { &b } else { &c };
            let wanted = start(&root, next)?.dump();
            start(&root, &b)?;
            let clone = start(&root, &a)?;
            let end = clone.push_until(step, &b);
            prop_assert!(!matches!(end, End::Refused(_)), "{:?}", end);
            let report = clone.push(next).report();
            prop_assert_eq!(&report.left, &[]);
            prop_assert_eq!(clone.dump(), wanted);
            Ok(())
        },
    );
}

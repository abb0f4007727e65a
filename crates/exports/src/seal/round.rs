//! One walk over a root: what is known and has not changed is taken over, all else is read.
//!
//! A round that reads nothing new shows that all of the tree stood as it is known at one instant: when the round began,
//! and all was read before.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;

use estive_beneath::Errno;
use estive_erofs::{Body, Error, Node, Tree};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, fstat, readlinkat, statat};

use super::capture::{self, Captured, Into, node_of, open_name, xattrs_of, xattrs_of_name};
use super::rules::{Rules, Verdict, shown};
use super::signature::{Signature, Time};
use crate::ExportError;

/// Directories in each other. Each is held open.
const DEPTH_MAX: usize = 400;

/// A directory whose names change while it is listed is listed so often.
const LISTINGS: usize = 5;

/// Names that are told of; beyond, they are counted.
const TOLD_MAX: usize = 1000;

/// Where a root is read.
pub(super) struct Roots {
    /// The root, or a snapshot of it.
    pub top: OwnedFd,
    /// The root itself, where `top` is a snapshot.
    pub live: Option<Live>,
}

/// A root beside its snapshot: what that does not hold (other subvolumes, other volumes that are kept) is read here.
pub(super) struct Live {
    pub root: OwnedFd,
    /// Before the snapshot was made.
    pub since: Time,
}

/// What rounds leave to each other.
#[derive(Default)]
pub(super) struct Known {
    /// With the name that each was read by.
    things: HashMap<(u64, u64), (Captured, Vec<u8>)>,
}

/// What a round has found.
pub(super) struct Round {
    pub tree: Tree,
    /// Equal when the same names led to the same things in the same state.
    pub shape: u64,
    /// What was read because it had changed or was new, or came and went.
    pub changed: Names,
    pub torn: Names,
    /// For each rule how many names it has kept out.
    pub left_out: HashMap<usize, u64>,
    /// Attributes that an image has no place for.
    pub unfit_xattrs: u64,
    /// Something was read from the root itself though there is a snapshot.
    pub went_live: bool,
    /// Some of that may be of after the snapshot.
    pub live_changed: bool,
}

/// Some names, and how many there are.
#[derive(Debug, Default, Clone)]
pub(super) struct Names {
    pub first: Vec<String>,
    pub count: u64,
}

impl Names {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(shown(path));
        }
    }
}

struct Walk<'a, 'b, 'f> {
    rules: &'a Rules,
    roots: &'a Roots,
    into: &'a mut Into<'b, 'f>,
    known: &'a mut Known,
    /// Of the top: in a snapshot, what is on another was read from the root itself.
    device: u64,
    /// Of what this walk has met: a file's number alone is nothing, since file systems give those of removed files again.
    numbers: HashMap<(u64, u64), (usize, Signature)>,
    hasher: DefaultHasher,
    round: Round,
}

/// Walks once.
pub(super) fn round(
    rules: &Rules,
    roots: &Roots,
    known: &mut Known,
    into: &mut Into,
) -> Result<Round, ExportError> {
    let device = fstat(&roots.top).map_err(|errno| at(b"", errno))?.st_dev;
    let mut walk = Walk {
        rules,
        roots,
        into,
        known,
        device,
        numbers: HashMap::new(),
        hasher: DefaultHasher::new(),
        round: Round {
            tree: Tree { nodes: Vec::new() },
            shape: 0,
            changed: Names::default(),
            torn: Names::default(),
            left_out: HashMap::new(),
            unfit_xattrs: 0,
            went_live: false,
            live_changed: false,
        },
    };
    let top = rustix::io::dup(&roots.top).map_err(|errno| at(b"", errno))?;
    walk.directory(top, Vec::new(), 0)?;
    walk.round.shape = walk.hasher.finish();
    Ok(walk.round)
}

fn at(path: &[u8], errno: Errno) -> ExportError {
    ExportError::io("reading, below the root,", shown(path))(errno.into())
}

fn unfit(path: &[u8], source: Error) -> ExportError {
    match source {
        Error::Io(source) => ExportError::io("reading, below the root,", shown(path))(source),
        source => ExportError::Image {
            doing: "sealing",
            path: shown(path).into(),
            source,
        },
    }
}

impl Walk<'_, '_, '_> {
    /// An open directory with all below it; gives its number.
    fn directory(
        &mut self,
        directory: OwnedFd,
        path: Vec<u8>,
        depth: usize,
    ) -> Result<usize, ExportError> {
        if depth > DEPTH_MAX {
            return Err(ExportError::TooDeep {
                path: shown(&path).into(),
                limit: DEPTH_MAX,
            });
        }
        let stat = fstat(&directory).map_err(|errno| at(&path, errno))?;
        let node = self.directory_node(&directory, &stat, &path)?;
        let number = self.push(node);
        let mut listing = 0;
        let (entries, below) = loop {
            listing += 1;
            let (names, steady) = names_of(&directory).map_err(|errno| at(&path, errno))?;
            let found = self.names(&directory, &path, names)?;
            // Names that went while they were looked at may have come back as others.
            if (steady && !found.vanished) || listing == LISTINGS {
                if !steady {
                    self.round.changed.add(&path);
                }
                break (found.entries, found.below);
            }
        };
        let mut entries = entries;
        for name in below {
            let path = join(&path, name.to_bytes());
            if let Some(child) = self.child(&directory, &name, &path, depth)? {
                entries.insert(name.into_bytes(), child);
            }
        }
        self.round.tree.nodes[number].body = Body::Directory(entries);
        Ok(number)
    }

    fn directory_node(
        &mut self,
        directory: &OwnedFd,
        stat: &Stat,
        path: &[u8],
    ) -> Result<Node, ExportError> {
        let signature = Signature::of(stat);
        self.dates(&signature);
        let mut node = node_of(stat, self.into.keep_times);
        node.xattrs = xattrs_of(directory).map_err(ExportError::io("reading", shown(path)))?;
        self.round.unfit_xattrs += node.drop_unfit_xattrs().len() as u64;
        (path, &signature.key(), node.mode, node.uid, node.gid).hash(&mut self.hasher);
        node.xattrs.hash(&mut self.hasher);
        Ok(node)
    }

    /// A directory by its name. `None`: it has gone.
    fn child(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> Result<Option<usize>, ExportError> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let crosses = self.rules.is_asked_for(&parts);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match open_name(directory, name, flags, crosses) {
            Ok(child) => {
                let child = self.live_instead(child, path, crosses)?;
                self.directory(child, path.to_vec(), depth + 1).map(Some)
            }
            // Another volume, mounted a moment ago: the place stays.
            Err(Errno::XDEV) => {
                let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| at(path, errno))?;
                let node = node_of(&stat, false);
                Ok(Some(self.push(node)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.round.changed.add(path);
                Ok(None)
            }
            Err(errno) => Err(at(path, errno)),
        }
    }

    /// Of a snapshot's directory the one of the root itself, where another subvolume or volume lies there.
    fn live_instead(
        &mut self,
        child: OwnedFd,
        path: &[u8],
        crosses: bool,
    ) -> Result<OwnedFd, ExportError> {
        /// The number of the empty directory where a btrfs snapshot has left out a subvolume.
        const SUBVOLUME_LEFT_OUT: u64 = 2;
        let Some(live) = &self.roots.live else {
            return Ok(child);
        };
        let stat = fstat(&child).map_err(|errno| at(path, errno))?;
        if stat.st_ino != SUBVOLUME_LEFT_OUT && !(crosses && self.rules.is_mount(path)) {
            return Ok(child);
        }
        let name = CString::new(path).map_err(|_| at(path, Errno::INVAL))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match open_name(&live.root, &name, flags, crosses) {
            Ok(there) => {
                self.round.went_live = true;
                Ok(there)
            }
            Err(Errno::NOENT | Errno::XDEV) => Ok(child),
            Err(errno) => Err(at(path, errno)),
        }
    }

    /// Notes what was read beside a snapshot and may have changed since.
    fn dates(&mut self, signature: &Signature) {
        if let Some(live) = &self.roots.live {
            self.round.live_changed |=
                signature.device != self.device && signature.changed >= live.since;
        }
    }

    fn names(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        names: Vec<CString>,
    ) -> Result<Found, ExportError> {
        let mut found = Found::default();
        for name in names {
            self.into.stop.check()?;
            let below = join(path, name.to_bytes());
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    found.vanished = true;
                    continue;
                }
                Err(errno) => return Err(at(&below, errno)),
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            let parts: Vec<&[u8]> = below.split(|byte| *byte == b'/').collect();
            let verdict = self.rules.verdict(&parts, is_directory);
            if let Verdict::LeftOut(rule) | Verdict::Emptied(rule) = verdict {
                *self.round.left_out.entry(rule).or_default() += 1;
            }
            if matches!(verdict, Verdict::LeftOut(_)) {
                continue;
            }
            if is_directory {
                found.below.push(name);
                continue;
            }
            let emptied = matches!(verdict, Verdict::Emptied(_));
            match self.leaf(directory, &name, &below, &stat, emptied)? {
                Some(number) => {
                    found.entries.insert(name.into_bytes(), number);
                }
                None => found.vanished = true,
            }
        }
        Ok(found)
    }

    /// Anything but a directory. `None`: it has gone.
    fn leaf(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
        emptied: bool,
    ) -> Result<Option<usize>, ExportError> {
        let signature = Signature::of(stat);
        let key = signature.key();
        path.hash(&mut self.hasher);
        if emptied {
            (key, "emptied").hash(&mut self.hasher);
            return Ok(Some(self.push(node_of(stat, false))));
        }
        signature.hash(&mut self.hasher);
        self.dates(&signature);
        // Another name of the same file. One whose names change meanwhile is kept as two.
        if let Some((number, met)) = self.numbers.get(&key)
            && *met == signature
        {
            return Ok(Some(*number));
        }
        let known = self
            .known
            .things
            .get(&key)
            .filter(|(known, _)| known.signature == signature && !known.torn);
        let mut captured = match known {
            Some((known, _)) => known.clone(),
            None => {
                self.round.changed.add(path);
                let before = self.known.things.get(&key);
                match before.filter(|(_, by)| by == path).cloned() {
                    // As it was in an earlier walk, where it changes more than can be kept up with.
                    Some((before, _)) if !self.into.may_again(signature.size_bytes) => before,
                    _ => match self.capture(directory, name, path, stat)? {
                        Some(captured) => captured,
                        None => return Ok(None),
                    },
                }
            }
        };
        self.round.unfit_xattrs += captured.node.drop_unfit_xattrs().len() as u64;
        if captured.torn {
            self.round.torn.add(path);
        }
        let number = self.push(captured.node.clone());
        let key = captured.signature.key();
        self.numbers.insert(key, (number, captured.signature));
        self.known.things.insert(key, (captured, path.to_vec()));
        Ok(Some(number))
    }

    fn capture(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<Option<Captured>, ExportError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_file() {
            let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            let crosses = self.rules.is_asked_for(&parts);
            return capture::file(directory, name, crosses, self.into)
                .map_err(|error| unfit(path, error));
        }
        let mut node = node_of(stat, self.into.keep_times);
        if kind.is_symlink() {
            match readlinkat(directory, name, Vec::new()) {
                Ok(target) => node.body = Body::Link(target.into_bytes()),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(at(path, errno)),
            }
        }
        node.xattrs =
            xattrs_of_name(directory, name).map_err(ExportError::io("reading", shown(path)))?;
        let signature = Signature::of(stat);
        Ok(Some(Captured {
            node,
            torn: !signature.settles(),
            signature,
        }))
    }

    fn push(&mut self, node: Node) -> usize {
        self.round.tree.nodes.push(node);
        self.round.tree.nodes.len() - 1
    }
}

#[derive(Default)]
struct Found {
    entries: BTreeMap<Vec<u8>, usize>,
    below: Vec<CString>,
    vanished: bool,
}

/// The names in a directory, sorted, and whether they were all there at one instant.
pub(super) fn names_of(directory: &OwnedFd) -> Result<(Vec<CString>, bool), Errno> {
    let before = Signature::of(&fstat(directory)?);
    let settled = before.settles();
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    let after = Signature::of(&fstat(directory)?);
    Ok((names, settled && before == after))
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        return name.to_vec();
    }
    [path, b"/", name].concat()
}

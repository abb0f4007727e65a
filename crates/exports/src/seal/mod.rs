//! Sealing: a root as it stands, or runs, becomes one read-only EROFS image, named by its manifest
//! (`estive_chunks`), which lies beside it.
//!
//! The image is plain, has no times (unless they are asked for) and a fixed UUID, and all in it has its place by its
//! name: the same tree gives the same bytes. How a root that changes meanwhile is read: `reading.rs`,
//! `round.rs`, `capture.rs`.

mod builtin;
mod capture;
mod kept;
mod mapped;
mod mounts;
mod notes;
mod pattern;
mod preview;
mod reading;
mod round;
mod rules;
mod signature;
mod snapshot;
mod stop;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use estive_chunks::Manifest;
use estive_erofs::{Body, Content, DataArea, Tree};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Serialize;

use crate::ExportError;
pub(crate) use kept::put_file;
use kept::{Temporary, remove_abandoned, write_manifest};
pub use kept::{manifest_path, put_manifest, read_manifest};
use notes::Notes;
pub use preview::{Effect, preview};
use reading::Read;
use round::Names;
pub(crate) use rules::shown;
pub use rules::{Action, Asked, Rule, Rules, read_rules};
pub use stop::Stop;

/// How much of what its group has free a snapshot takes that needs room of its own, unless it is said, in percent.
pub const SNAPSHOT_SHARE_PERCENT: u8 = 80;

/// A sealed image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// `sha256:<64 hex digits>`: the name that the image's manifest gives it ([`Manifest::name`]).
    pub digest: String,
    /// `<out_dir>/<64 hex digits>.erofs`, mode 0600 (it may hold /etc/shadow). The manifest of a root lies beside it,
    /// [`manifest_path`].
    pub path: PathBuf,
    pub size_bytes: u64,
    /// How the root was read.
    pub consistency: Consistency,
    /// What each rule kept out that kept something out.
    pub left_out: Vec<LeftOut>,
    /// Extended attributes that an image has no place for.
    pub lost_xattrs: u64,
}

/// What is known of the moment that an image shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Consistency {
    /// The whole tree stood so at one instant.
    pub one_instant: bool,
    /// What the root was read from: `live`, or the kind of the snapshot.
    pub read_from: &'static str,
    /// Walks over the root.
    pub rounds: usize,
    /// Files that never were as the image has them: they changed at each try. At most 1000 are named.
    pub torn: Vec<String>,
    pub torn_count: u64,
    /// What still changed when the last walk began: each file is whole, of that moment or later. At most 1000 are named.
    pub changing: Vec<String>,
    pub changing_count: u64,
    /// Why no snapshot was read where one could have been, and what became of snapshots that should be gone.
    pub notes: Vec<String>,
}

/// How much a rule kept out; a directory that goes with all in it counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub pattern: String,
    pub reason: String,
    pub action: Action,
    pub names: u64,
}

#[derive(Debug, Clone)]
pub struct SealOptions {
    /// What to leave out, to empty and to keep besides the rules that come with Estive.
    pub rules: Vec<Asked>,
    /// Directories of this machine, wherever they are, whose contents stay out.
    pub leave_out: Vec<PathBuf>,
    /// Keeps the times of modification: trees that differ in them give different images.
    pub keep_times: bool,
    /// Reads the root itself also where its file system could make a snapshot.
    pub no_snapshot: bool,
    /// How much of what its group has free a snapshot takes that needs room of its own (LVM, but for thin volumes).
    pub snapshot_share_percent: u8,
    /// Ends it before it is done.
    pub stop: Stop,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            leave_out: Vec::new(),
            keep_times: false,
            no_snapshot: false,
            snapshot_share_percent: SNAPSHOT_SHARE_PERCENT,
            stop: Stop::default(),
        }
    }
}

/// Seals `root` into `out_dir` (made when missing, mode 0700). Blocks for seconds on a whole system.
///
/// Left out: what [`Rules`] say, among it what is mounted below the root and `out_dir` itself.
pub fn seal(root: &Path, out_dir: &Path) -> Result<Sealed, ExportError> {
    seal_with(root, out_dir, &SealOptions::default())
}

/// [`seal`] with wishes.
pub fn seal_with(
    root: &Path,
    out_dir: &Path,
    options: &SealOptions,
) -> Result<Sealed, ExportError> {
    let root = canonical_root(root)?;
    let mut entries = fs::read_dir(&root).map_err(ExportError::io("reading the root", &root))?;
    if entries.next().is_none() {
        return Err(ExportError::EmptyRoot { root });
    }
    let half_made = HalfMade::of(&root, out_dir, options)?;
    // The manifest first: an image never lies there without one.
    let manifest = half_made.image.manifest()?;
    write_manifest(&half_made.out_dir, &manifest)?;
    half_made.keep(&manifest)
}

/// The image of any directory, also an empty one, without a manifest.
pub(crate) fn image_of(
    root: &Path,
    out_dir: &Path,
    options: &SealOptions,
) -> Result<Sealed, ExportError> {
    let half_made = HalfMade::of(root, out_dir, options)?;
    let manifest = half_made.image.manifest()?;
    half_made.keep(&manifest)
}

/// What the rules say of a root that would be sealed into `out_dir`.
pub fn rules_of(
    root: &Path,
    out_dir: Option<&Path>,
    asked: &[Asked],
) -> Result<Rules, ExportError> {
    let out_dir = out_dir.map(|dir| fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()));
    Rules::new(&canonical_root(root)?, out_dir.as_slice(), asked)
}

/// An image that vanishes unless it is kept, where it is to be kept, and what is known of it.
struct HalfMade {
    image: Temporary,
    out_dir: PathBuf,
    consistency: Consistency,
    left_out: Vec<LeftOut>,
    lost_xattrs: u64,
}

impl HalfMade {
    fn of(root: &Path, out_dir: &Path, options: &SealOptions) -> Result<Self, ExportError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(out_dir)
            .map_err(ExportError::io("making the directory", out_dir))?;
        let out_dir =
            fs::canonicalize(out_dir).map_err(ExportError::io("finding the directory", out_dir))?;
        remove_abandoned(&out_dir);
        let mut outside = vec![out_dir.clone()];
        for place in &options.leave_out {
            outside.push(fs::canonicalize(place).unwrap_or_else(|_| place.clone()));
        }
        let rules = Rules::new(root, &outside, &options.rules)?;
        let notes = Notes::default();
        let read = Read::of(root, &rules, &out_dir, options, &notes)?;
        let notes = notes.take();
        let round = read.round;
        let image = finished(read.image, &out_dir, round.tree)?;
        let changing = if read.one_instant {
            Names::default()
        } else {
            round.changed
        };
        Ok(Self {
            image,
            out_dir,
            consistency: Consistency {
                one_instant: read.one_instant,
                read_from: read.from,
                rounds: read.rounds,
                torn: round.torn.first,
                torn_count: round.torn.count,
                changing: changing.first,
                changing_count: changing.count,
                notes,
            },
            left_out: told(&rules, &round.left_out),
            lost_xattrs: round.unfit_xattrs,
        })
    }

    fn keep(self, manifest: &Manifest) -> Result<Sealed, ExportError> {
        Ok(Sealed {
            digest: manifest.name().to_string(),
            path: self.image.keep(&self.out_dir, manifest)?,
            size_bytes: manifest.size_bytes(),
            consistency: self.consistency,
            left_out: self.left_out,
            lost_xattrs: self.lost_xattrs,
        })
    }
}

/// Writes the rest of an image; where files were read again, first their data in order into another.
fn finished(image: Temporary, out_dir: &Path, mut tree: Tree) -> Result<Temporary, ExportError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Image {
            doing: "writing the image",
            path,
            source,
        }
    };
    if estive_erofs::is_canonical(&tree).map_err(wrong(&image.path))? {
        estive_erofs::finish(&image.file, &tree).map_err(wrong(&image.path))?;
        return Ok(image);
    }
    let ordered = Temporary::new(out_dir)?;
    let mut data = DataArea::new(&ordered.file);
    for number in estive_erofs::order(&tree).map_err(wrong(&image.path))? {
        if let Body::File(content) = &mut tree.nodes[number].body
            && *content != Content::empty()
        {
            *content = data
                .copy(&image.file, content)
                .map_err(wrong(&ordered.path))?;
        }
    }
    estive_erofs::finish(&ordered.file, &tree).map_err(wrong(&ordered.path))?;
    Ok(ordered)
}

fn told(rules: &Rules, counts: &std::collections::HashMap<usize, u64>) -> Vec<LeftOut> {
    let rules = rules.rules().iter().enumerate();
    rules
        .filter_map(|(number, rule)| {
            Some(LeftOut {
                pattern: rule.pattern.clone(),
                reason: rule.reason.clone(),
                action: rule.action,
                names: *counts.get(&number)?,
            })
        })
        .collect()
}

fn open_root(root: &Path) -> Result<OwnedFd, ExportError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, root, flags, Mode::empty())
        .map_err(|errno| ExportError::io("reading the root", root)(errno.into()))
}

pub(crate) fn canonical_root(root: &Path) -> Result<PathBuf, ExportError> {
    let missing = || ExportError::MissingRoot {
        root: root.to_path_buf(),
    };
    let canonical = fs::canonicalize(root).map_err(|_| missing())?;
    if canonical.is_dir() {
        Ok(canonical)
    } else {
        Err(missing())
    }
}

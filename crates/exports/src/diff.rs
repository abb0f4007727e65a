//! What changed from one sealed image to another: names that came and went, and of those that stayed, what differs.
//!
//! Images are read in user space, within limits: either may come from anywhere. Times are compared where both have them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use estive_erofs::{Error, Extent, Image, Inode, Kind, Limits, Visit};
use serde::Serialize;

use crate::ExportError;
use crate::seal::shown;

const BUFFER_BYTES: usize = 1 << 20;

/// Files may share their bytes; they are compared so often in all before it is given up.
const SHARING_MAX: u64 = 64;

/// What of something that stayed differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A file became a link, a directory, ….
    Kind,
    Content,
    Mode,
    Owner,
    Xattr,
    /// Where a symbolic link leads.
    Link,
    /// What else has the same file.
    HardLink,
    Device,
    Time,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Xattr => "xattr",
            Self::Link => "link",
            Self::HardLink => "hard-link",
            Self::Device => "device",
            Self::Time => "time",
        }
    }
}

/// One name that differs. A directory that came or went is followed by all that is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    Added { path: String },
    Removed { path: String },
    Changed { path: String, what: Vec<What> },
}

struct Side<'a> {
    path: &'a Path,
    image: Image<File>,
    things: BTreeMap<Vec<u8>, Inode>,
    /// The first name of each inode that has several.
    first_names: HashMap<u64, Vec<u8>>,
}

impl<'a> Side<'a> {
    fn read(path: &'a Path) -> Result<Self, ExportError> {
        let file = File::open(path).map_err(ExportError::io("reading the image", path))?;
        let image = Image::open(file).map_err(wrong(path))?;
        let mut things = BTreeMap::new();
        image
            .walk(Limits::default(), &mut |entry| {
                things.insert(entry.path.clone(), entry.inode.clone());
                Ok(Visit::Below)
            })
            .map_err(wrong(path))?;
        let mut first_names = HashMap::new();
        for (name, inode) in &things {
            if inode.kind != Kind::Directory && inode.links > 1 {
                first_names.entry(inode.nid).or_insert_with(|| name.clone());
            }
        }
        Ok(Self {
            path,
            image,
            things,
            first_names,
        })
    }
}

fn wrong(path: &Path) -> impl FnOnce(Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Image {
        doing: "reading the image",
        path,
        source,
    }
}

/// Everything that differs, by path.
///
/// # Errors
/// A file cannot be read, is no sound image, or one in a form that is not read here (compressed).
pub fn diff(old: &Path, new: &Path) -> Result<Vec<Change>, ExportError> {
    let (old, new) = (Side::read(old)?, Side::read(new)?);
    let mut changes = Vec::new();
    let mut buffers = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut budget = SHARING_MAX * (old.image.size_bytes() + new.image.size_bytes());
    let mut names: Vec<&Vec<u8>> = old.things.keys().chain(new.things.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let path = shown(name);
        match (old.things.get(name), new.things.get(name)) {
            (Some(before), Some(after)) => {
                let what = compare(&old, &new, before, after, name, &mut buffers, &mut budget)?;
                if !what.is_empty() {
                    changes.push(Change::Changed { path, what });
                }
            }
            (Some(_), None) => changes.push(Change::Removed { path }),
            (None, _) => changes.push(Change::Added { path }),
        }
    }
    Ok(changes)
}

fn compare(
    old: &Side,
    new: &Side,
    before: &Inode,
    after: &Inode,
    name: &[u8],
    buffers: &mut (Vec<u8>, Vec<u8>),
    budget: &mut u64,
) -> Result<Vec<What>, ExportError> {
    let mut what = Vec::new();
    let mut see = |differs: bool, kind: What| {
        if differs {
            what.push(kind);
        }
    };
    if before.kind != after.kind {
        return Ok(vec![What::Kind]);
    }
    see(before.mode != after.mode, What::Mode);
    see(
        (before.uid, before.gid) != (after.uid, after.gid),
        What::Owner,
    );
    see(before.device != after.device, What::Device);
    let times = |inode: &Inode| (inode.mtime_s, inode.mtime_ns);
    let both = before.mtime_s != 0 && after.mtime_s != 0;
    see(both && times(before) != times(after), What::Time);
    let xattrs = |side: &Side, inode| side.image.xattrs(inode).map_err(wrong(side.path));
    see(xattrs(old, before)? != xattrs(new, after)?, What::Xattr);
    match before.kind {
        Kind::Link => {
            let target = |side: &Side, inode| side.image.link(inode).map_err(wrong(side.path));
            see(target(old, before)? != target(new, after)?, What::Link);
        }
        Kind::File => {
            let differs = before.size_bytes != after.size_bytes
                || differ(old, new, before, after, buffers, budget)?;
            see(differs, What::Content);
        }
        _ => {}
    }
    let first = |side: &Side, inode: &Inode| {
        let first = side.first_names.get(&inode.nid);
        first.map_or_else(|| name.to_vec(), Clone::clone)
    };
    see(first(old, before) != first(new, after), What::HardLink);
    what.sort_unstable();
    Ok(what)
}

/// Whether the bytes of two files of one size differ.
fn differ(
    old: &Side,
    new: &Side,
    before: &Inode,
    after: &Inode,
    buffers: &mut (Vec<u8>, Vec<u8>),
    budget: &mut u64,
) -> Result<bool, ExportError> {
    let size = before.size_bytes;
    let mut offset = 0;
    while offset < size {
        let left = old.image.extent(before, offset).map_err(wrong(old.path))?;
        let right = new.image.extent(after, offset).map_err(wrong(new.path))?;
        let length = left.length().min(right.length());
        if let (Extent::Hole { .. }, Extent::Hole { .. }) = (left, right) {
            offset += length;
            continue;
        }
        let count = length.min(BUFFER_BYTES as u64) as usize;
        *budget = budget.checked_sub(count as u64).ok_or_else(|| {
            wrong(new.path)(Error::Limit {
                of: "times that its files share their bytes",
                limit: SHARING_MAX,
            })
        })?;
        let (one, two) = (&mut buffers.0[..count], &mut buffers.1[..count]);
        old.image
            .read_at(before, one, offset)
            .map_err(wrong(old.path))?;
        new.image
            .read_at(after, two, offset)
            .map_err(wrong(new.path))?;
        if one != two {
            return Ok(true);
        }
        offset += count as u64;
    }
    Ok(false)
}

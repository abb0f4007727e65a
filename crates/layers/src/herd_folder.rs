//! A herd's folder as a value: its herd file and its own template sets. Read from a directory on
//! the machine of whoever asks, sent as a tar stream, read from that without ever being unpacked.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use estive_archive::TarMember;
use estive_beneath::{self as beneath, Errno};
use rustix::fs::{FileType, fstat};
use tar::EntryType;

use crate::error::LayerError;
use crate::set_folder::{self, directory_in};
use crate::set_tar;
use crate::set_tree::{SetTree, SetTreeBuilder};
use crate::yaml::MAX_FILE_BYTES;

/// The file that makes a folder a herd's.
pub const HERD_FILE: &str = "herd.yaml";
/// Where a herd keeps template sets of its own, one directory each.
const SETS: &str = "sets";

const MAX_SETS: usize = 256;
/// All of it, as a tar stream.
pub const MAX_HERD_FOLDER_BYTES: usize = 32 << 20;

/// Sets by name.
pub type OwnSets = BTreeMap<String, SetTree>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HerdFolder {
    /// Text of the herd file.
    pub herd_file: String,
    pub sets: OwnSets,
}

impl HerdFolder {
    /// Reads the folder at `path`. Nothing outside of it is read, and no link in it followed.
    pub fn read(path: &Path) -> Result<Self, LayerError> {
        let io = |doing, error: Errno| LayerError::Io {
            doing,
            path: path.to_owned(),
            source: error.into(),
        };
        let top = beneath::open_top(path).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => no_herd(&format!(
                "there is no {HERD_FILE} in {}: there is no such folder",
                path.display()
            )),
            error => io("opening the herd's folder", error),
        })?;
        let herd_file = read_herd_file(&top)?
            .ok_or_else(|| no_herd(&format!("there is no {HERD_FILE} in {}", path.display())))?;
        let mut folder = Self {
            herd_file,
            sets: OwnSets::new(),
        };
        if let Some(sets) = directory_in(&top, SETS, SETS)? {
            folder.sets = Self::sets_in(&sets)?;
        }
        Ok(folder)
    }

    /// The sets that lie in a directory, each a directory of its own.
    pub fn read_sets(path: &Path) -> Result<OwnSets, LayerError> {
        let list = beneath::open_top(path)
            .and_then(|top| beneath::open_list(top, "."))
            .map_err(|error| LayerError::Io {
                doing: "opening",
                path: path.to_owned(),
                source: error.into(),
            })?;
        Self::sets_in(&list)
    }

    fn sets_in(list: &OwnedFd) -> Result<OwnSets, LayerError> {
        let wrong = |what: String| folder_error(SETS, what);
        let names = beneath::names(list, 10 * MAX_SETS)
            .map_err(|error| wrong(format!("could not be listed: {error}")))?
            .ok_or_else(|| wrong(format!("holds more than {} names", 10 * MAX_SETS)))?;
        let mut sets = OwnSets::new();
        for name in names {
            let shown = name.to_string_lossy().into_owned();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let kind = beneath::status(list, name).map(|status| beneath::kind(&status));
            if kind == Ok(FileType::RegularFile) {
                continue;
            }
            if sets.len() >= MAX_SETS {
                return Err(wrong(format!("holds more than {MAX_SETS} sets")));
            }
            let place = format!("{SETS}/{shown}");
            if let Some(top) = directory_in(list, name, &place)? {
                sets.insert(name.to_owned(), set_folder::read(name, &top)?);
            }
        }
        Ok(sets)
    }

    /// Reads a tar stream as [`HerdFolder::to_tar`] writes it, or as `tar` does. Files beside the
    /// herd file and the sets are passed over.
    pub fn from_tar(archive: impl Read) -> Result<Self, LayerError> {
        let mut herd_file = None;
        let mut sets: BTreeMap<String, SetTreeBuilder> = BTreeMap::new();
        set_tar::read(archive, |mut member| {
            let wrong = |what: &str| folder_error(&member.path, what.to_owned());
            if member.path == HERD_FILE {
                let text = herd_text(&mut member)?;
                if herd_file.replace(text).is_some() {
                    return Err(folder_error(HERD_FILE, "is there twice".to_owned()));
                }
                return Ok(());
            }
            let below = member.path.strip_prefix("sets/").map(str::to_owned);
            let Some(below) = below else {
                return match member.kind {
                    EntryType::Directory => Ok(()),
                    EntryType::Regular if member.path != SETS => Ok(()),
                    other => Err(wrong(&format!(
                        "is of the kind {other:?}; beside its sets a herd has files and directories"
                    ))),
                };
            };
            let (set, path) = below.split_once('/').unwrap_or((&below, ""));
            if path.is_empty() && member.kind != EntryType::Directory {
                return match member.kind {
                    EntryType::Regular => Ok(()),
                    _ => Err(wrong("is no directory, as a set is")),
                };
            }
            if set.starts_with('.') {
                return Ok(());
            }
            if sets.len() >= MAX_SETS && !sets.contains_key(set) {
                let what = format!("holds more than {MAX_SETS} sets");
                return Err(folder_error(SETS, what));
            }
            let builder = sets
                .entry(set.to_owned())
                .or_insert_with(|| SetTreeBuilder::new(set));
            if path.is_empty() {
                return Ok(());
            }
            builder.admit(path, member.size_bytes)?;
            let prefix = format!("{SETS}/{set}/");
            let node = set_tar::node(&mut member, |link| {
                let link = set_tar::inside(link.as_bytes())?;
                link.strip_prefix(&prefix).map(str::to_owned)
            })?;
            builder.put(path, node)
        })?;
        let herd_file = herd_file
            .ok_or_else(|| no_herd(&format!("there is no {HERD_FILE} in the herd's folder")))?;
        let finished = |(name, builder): (String, SetTreeBuilder)| Ok((name, builder.finish()?));
        Ok(Self {
            herd_file,
            sets: sets
                .into_iter()
                .map(finished)
                .collect::<Result<_, LayerError>>()?,
        })
    }

    /// The folder as a tar stream; the same folder, the same bytes.
    pub fn to_tar(&self) -> Result<Vec<u8>, LayerError> {
        let write = || -> io::Result<Vec<u8>> {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(self.herd_file.len() as u64);
            archive.append_data(&mut header, HERD_FILE, self.herd_file.as_bytes())?;
            for (name, tree) in &self.sets {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o755);
                header.set_size(0);
                header.set_entry_type(EntryType::Directory);
                archive.append_data(&mut header, format!("{SETS}/{name}"), io::empty())?;
                set_tar::write(&mut archive, &format!("{SETS}/{name}/"), tree)?;
            }
            archive.into_inner()
        };
        let bytes =
            write().map_err(|error| folder_error(".", format!("could not be packed: {error}")))?;
        if bytes.len() > MAX_HERD_FOLDER_BYTES {
            let what = format!(
                "has {} bytes with its sets; it may have {MAX_HERD_FOLDER_BYTES}",
                bytes.len()
            );
            return Err(folder_error(".", what));
        }
        Ok(bytes)
    }
}

fn herd_text<R: Read>(member: &mut TarMember<'_, R>) -> Result<String, LayerError> {
    if member.kind != EntryType::Regular {
        return Err(folder_error(HERD_FILE, "is no plain file".to_owned()));
    }
    if member.size_bytes > MAX_FILE_BYTES as u64 {
        return Err(too_long());
    }
    let mut text = String::new();
    let read = member.content.read_to_string(&mut text);
    read.map_err(|error| folder_error(HERD_FILE, format!("could not be read: {error}")))?;
    Ok(text)
}

fn read_herd_file(top: &OwnedFd) -> Result<Option<String>, LayerError> {
    let wrong = |what: &str| folder_error(HERD_FILE, what.to_owned());
    let io = |error: io::Error| LayerError::Io {
        doing: "reading",
        path: HERD_FILE.into(),
        source: error,
    };
    let file = match beneath::open_file(top, HERD_FILE) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            return Err(wrong(
                "is a symbolic link; what a herd needs lies in its folder",
            ));
        }
        Err(error) => return Err(io(error.into())),
    };
    let status = fstat(&file).map_err(|error| io(error.into()))?;
    if beneath::kind(&status) != FileType::RegularFile {
        return Err(wrong("is no plain file"));
    }
    let limit = MAX_FILE_BYTES as u64;
    if u64::try_from(status.st_size).unwrap_or(u64::MAX) > limit {
        return Err(too_long());
    }
    let mut text = String::new();
    std::fs::File::from(file)
        .take(limit)
        .read_to_string(&mut text)
        .map_err(io)?;
    Ok(Some(text))
}

fn too_long() -> LayerError {
    let what = format!("has more than {MAX_FILE_BYTES} bytes, the limit of a herd file");
    folder_error(HERD_FILE, what)
}

fn folder_error(path: &str, what: String) -> LayerError {
    LayerError::Folder {
        path: path.to_owned(),
        what,
    }
}

fn no_herd(what: &str) -> LayerError {
    LayerError::NoHerd {
        what: what.to_owned(),
    }
}

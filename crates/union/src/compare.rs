//! A layer held against a root: what it adds, changes and hides, without joining the two.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use estive_archive::{Kind, Limits, MANIFEST_DIRECTORY, Manifest, Member, OPAQUE_XATTR, Reader};
use estive_beneath::{self as beneath, Errno};
use rustix::fs::{FileType, Stat, major, minor, readlinkat};

use crate::error::{Result, While};
use crate::settle::is_hidden;

/// Names hidden in one directory that are told; the rest is counted.
const HIDDEN_NAMES_MAX: usize = 10_000;

/// How a path of the layer stands to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The root has nothing there.
    Added,
    /// The root has something else there.
    Changed,
    /// As in the root.
    Same,
    /// The root's is not seen.
    Hidden,
    /// Cannot be laid over this root: a clone would not start.
    Clash,
}

/// One path of a layer, or one that it hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub verdict: Verdict,
    /// What the layer has there; nothing when it only hides.
    pub layer: Option<Look>,
    /// What the root has there.
    pub root: Option<Look>,
}

/// What can be said of a node in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// `file`, `directory`, `link to TARGET`, `device c 1:3`…
    pub what: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of files.
    pub size_bytes: Option<u64>,
}

/// Every path of the layer that says something, and every name that it hides, in order. What is
/// mounted in the root is not of the root.
pub fn compare(archive: &[u8], root: &OwnedFd) -> Result<Vec<Difference>> {
    let mut reader = Reader::new(archive, Limits::default());
    let manifest = Manifest::read_from(&mut reader)?;
    let mut members: BTreeMap<&str, Member<'_>> = BTreeMap::new();
    let mut contents: BTreeMap<u32, &[u8]> = BTreeMap::new();
    for member in reader {
        let member = member?;
        if member.path.split('/').next() == Some(MANIFEST_DIRECTORY) {
            continue;
        }
        // The content of a file with several names comes with one of them.
        if let Kind::File(content) = member.kind
            && (member.links > 1 && !content.is_empty())
        {
            contents.insert(member.inode, content);
        }
        members.insert(member.path, member);
    }
    let implied: BTreeSet<&str> = manifest.implied.iter().map(String::as_str).collect();
    let mut differences = Vec::new();
    for (path, member) in &members {
        let mut member = *member;
        if let (Kind::File(_), Some(content)) = (member.kind, contents.get(&member.inode)) {
            member.kind = Kind::File(content);
        }
        let is_implied = implied.contains(path);
        differences.extend(of_member(&member, is_implied, &manifest, root)?);
        // Also a directory in one that hides: nothing of the root's is joined to it.
        if member.kind == Kind::Directory && is_hidden(&manifest, path) {
            differences.extend(hidden_in(path, &members, root)?);
        }
    }
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(differences)
}

fn of_member(
    member: &Member<'_>,
    is_implied: bool,
    manifest: &Manifest,
    root: &OwnedFd,
) -> Result<Option<Difference>> {
    let path = member.path;
    let below = in_root(root, path)?;
    let difference = |verdict, layer, root| {
        Ok(Some(Difference {
            path: path.to_owned(),
            verdict,
            layer,
            root,
        }))
    };
    if member.kind == (Kind::CharacterDevice { major: 0, minor: 0 }) {
        return match below {
            Some((_, _, look)) => difference(Verdict::Hidden, None, Some(look)),
            None => Ok(None),
        };
    }
    let layer = look_of(member);
    let Some((parent, status, look)) = below else {
        return difference(Verdict::Added, Some(layer), None);
    };
    if member.kind == Kind::Directory && is_implied {
        return match beneath::kind(&status) {
            FileType::Directory => Ok(None),
            // What is not seen stands in nobody's way: see `settle`.
            _ if is_hidden(manifest, beneath::split(path).0) => {
                difference(Verdict::Changed, Some(layer), Some(look))
            }
            _ => difference(Verdict::Clash, Some(layer), Some(look)),
        };
    }
    let same =
        layer == look && same_content(member, &parent)? && same_xattrs(member, manifest, &parent)?;
    let verdict = if same {
        Verdict::Same
    } else {
        Verdict::Changed
    };
    difference(verdict, Some(layer), Some(look))
}

/// What a directory hides that is opaque, or lies in such a one: names of the root's that the layer does not have.
fn hidden_in(
    directory: &str,
    members: &BTreeMap<&str, Member<'_>>,
    root: &OwnedFd,
) -> Result<Vec<Difference>> {
    let listing = || format!("listing {directory} in the root");
    let list = match beneath::open_list(root, directory) {
        Ok(list) => list,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(listing),
    };
    let names = beneath::names(&list, HIDDEN_NAMES_MAX).doing(listing)?;
    let mut hidden = Vec::new();
    let Some(names) = names else {
        hidden.push(Difference {
            path: format!("{directory}/"),
            verdict: Verdict::Hidden,
            layer: None,
            root: Some(Look {
                what: format!("more than {HIDDEN_NAMES_MAX} names"),
                mode: 0,
                uid: 0,
                gid: 0,
                size_bytes: None,
            }),
        });
        return Ok(hidden);
    };
    for name in names {
        let path = format!("{directory}/{}", name.to_string_lossy());
        if members.contains_key(path.as_str()) {
            continue;
        }
        if let Some((_, _, look)) = in_root(root, &path)? {
            hidden.push(Difference {
                path,
                verdict: Verdict::Hidden,
                layer: None,
                root: Some(look),
            });
        }
    }
    Ok(hidden)
}

/// A path of the root, reached through no link: its directory, its status, and what to say of it.
fn in_root(root: &OwnedFd, path: &str) -> Result<Option<(OwnedFd, Stat, Look)>> {
    let looking = || format!("looking at {path} in the root");
    let (parent, name) = match beneath::open_parent(root, path) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
        Err(error) => return Err(error).doing(looking),
    };
    let status = match beneath::status(&parent, name) {
        Ok(status) => status,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).doing(looking),
    };
    let what = match beneath::kind(&status) {
        FileType::RegularFile => "file".to_owned(),
        FileType::Directory => "directory".to_owned(),
        FileType::Symlink => {
            let target = readlinkat(&parent, name, Vec::new()).doing(looking)?;
            format!("link to {}", target.to_string_lossy())
        }
        FileType::CharacterDevice => device('c', status.st_rdev),
        FileType::BlockDevice => device('b', status.st_rdev),
        FileType::Fifo => "fifo".to_owned(),
        FileType::Socket => "socket".to_owned(),
        FileType::Unknown => "unknown".to_owned(),
    };
    let is_file = beneath::kind(&status) == FileType::RegularFile;
    let look = Look {
        what,
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        size_bytes: is_file.then(|| u64::try_from(status.st_size).unwrap_or_default()),
    };
    Ok(Some((parent, status, look)))
}

fn device(letter: char, number: u64) -> String {
    format!("device {letter} {}:{}", major(number), minor(number))
}

fn look_of(member: &Member<'_>) -> Look {
    let what = match member.kind {
        Kind::File(_) => "file".to_owned(),
        Kind::Directory => "directory".to_owned(),
        Kind::Symlink(target) => format!("link to {target}"),
        Kind::CharacterDevice { major, minor } => format!("device c {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("device b {major}:{minor}"),
        Kind::Fifo => "fifo".to_owned(),
        Kind::Socket => "socket".to_owned(),
    };
    let size_bytes = match member.kind {
        Kind::File(content) => Some(content.len() as u64),
        _ => None,
    };
    Look {
        what,
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        size_bytes,
    }
}

fn same_content(member: &Member<'_>, parent: &OwnedFd) -> Result<bool> {
    let Kind::File(content) = member.kind else {
        return Ok(true);
    };
    let reading = || format!("reading {} in the root", member.path);
    let name = beneath::split(member.path).1;
    let file = beneath::open_file(parent, name).doing(reading)?;
    let mut bytes = Vec::new();
    File::from(file)
        .take(content.len() as u64 + 1)
        .read_to_end(&mut bytes)
        .doing(reading)?;
    Ok(bytes == content)
}

fn same_xattrs(member: &Member<'_>, manifest: &Manifest, parent: &OwnedFd) -> Result<bool> {
    let name = beneath::split(member.path).1;
    let found = beneath::xattrs(parent, name, |attribute| {
        !attribute.starts_with("trusted.overlay.") && !attribute.starts_with("system.")
    })
    .doing(|| format!("reading the attributes of {} in the root", member.path))?;
    let wanted = manifest.xattrs.get(member.path);
    let wanted = wanted.into_iter().flatten();
    let wanted: Vec<(&str, &[u8])> = wanted
        .filter(|(name, _)| *name != OPAQUE_XATTR)
        .map(|(name, value)| (name.as_str(), value.0.as_slice()))
        .collect();
    let found = found.iter();
    let found: Vec<(&str, &[u8])> = found
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    Ok(wanted == found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use estive_archive::LayerArchive;

    use super::*;

    #[test]
    fn each_path_is_added_changed_the_same_or_hidden() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in ["etc", "tmp/deep", "tmp/both", "own", "kept"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for (path, text) in [
            ("etc/same", "x"),
            ("etc/other", "x"),
            ("etc/mode", "x"),
            ("etc/gone", "x"),
            ("tmp/a", "x"),
            ("tmp/both/a", "x"),
            ("tmp/stays", "x"),
            ("file", "x"),
            ("kept/x", "x"),
        ] {
            fs::write(at(path), text).unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("target", at("etc/link")).unwrap();
        symlink("own", at("linked")).unwrap();
        symlink("deep", at("tmp/link")).unwrap();
        let (uid, gid) = {
            use std::os::unix::fs::MetadataExt;
            let meta = at("file").metadata().unwrap();
            (meta.uid(), meta.gid())
        };
        let mut layer = LayerArchive::new();
        for (path, mode, text) in [
            ("etc/same", 0o644, "x"),
            ("etc/other", 0o644, "yy"),
            ("etc/mode", 0o600, "x"),
            ("etc/new", 0o644, ""),
            ("tmp/stays", 0o644, "x"),
            ("tmp/both/b", 0o644, "x"),
            ("file/below", 0o644, ""),
            ("linked/below", 0o644, ""),
        ] {
            layer.file(path, mode, uid, gid, text).unwrap();
        }
        layer.hardlink("etc/z-other", "etc/other").unwrap();
        layer.symlink_of("etc/link", "elsewhere", uid, gid).unwrap();
        layer.dir("own", 0o700, uid, gid).unwrap();
        layer.whiteout("etc/gone").unwrap();
        layer.whiteout("etc/never").unwrap();
        layer.opaque("tmp").unwrap();
        // Over a link of the root that is not seen.
        layer.file("tmp/link/below", 0o644, uid, gid, "").unwrap();
        let archive = layer.finish().unwrap();
        let found = compare(&archive, &beneath::open_top(root.path()).unwrap()).unwrap();
        let told: Vec<(&str, Verdict)> = found
            .iter()
            .map(|difference| (difference.path.as_str(), difference.verdict))
            .collect();
        assert_eq!(
            told,
            [
                ("etc/gone", Verdict::Hidden),
                ("etc/link", Verdict::Changed),
                ("etc/mode", Verdict::Changed),
                ("etc/new", Verdict::Added),
                ("etc/other", Verdict::Changed),
                ("etc/same", Verdict::Same),
                ("etc/z-other", Verdict::Added),
                ("file", Verdict::Clash),
                ("file/below", Verdict::Added),
                ("linked", Verdict::Clash),
                ("linked/below", Verdict::Added),
                ("own", Verdict::Changed),
                ("tmp/a", Verdict::Hidden),
                ("tmp/both/a", Verdict::Hidden),
                ("tmp/both/b", Verdict::Added),
                ("tmp/deep", Verdict::Hidden),
                ("tmp/link", Verdict::Changed),
                ("tmp/link/below", Verdict::Added),
                ("tmp/stays", Verdict::Same),
            ]
        );
        let other = found
            .iter()
            .find(|found| found.path == "etc/other")
            .unwrap();
        let sizes = [&other.root, &other.layer].map(|look| look.as_ref().unwrap().size_bytes);
        assert_eq!(sizes, [Some(1), Some(2)]);
    }
}

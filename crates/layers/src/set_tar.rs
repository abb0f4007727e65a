//! Sets in a tar stream: read without unpacking, and written so that nothing is lost on the way.
//!
//! Headers are those of POSIX pax and of GNU tar. Records of a pax header are read here and not by
//! the library: it ends a record at a newline, and attributes may hold one.

use std::collections::BTreeMap;
use std::io::{self, Read};

use estive_archive::XattrValue;
use tar::{Archive, Builder, EntryType, Header};

use crate::error::LayerError;
use crate::set_folder::carried;
use crate::set_tree::{SetKind, SetNode, SetTree};
use crate::tree::Owner;

/// Where pax keeps extended attributes.
const XATTR_PREFIX: &str = "SCHILY.xattr.";
/// All records of one file.
const MAX_PAX_BYTES: u64 = 8 << 20;
const MAX_PATH_BYTES: usize = 1000;

/// One member of a tar stream, with all that its extra headers say.
pub(crate) struct TarMember<'a, R: Read> {
    pub path: String,
    /// Of links.
    pub link: String,
    pub kind: EntryType,
    pub owner: Owner,
    pub xattrs: BTreeMap<String, XattrValue>,
    pub device: (u32, u32),
    pub size_bytes: u64,
    pub content: tar::Entry<'a, R>,
}

/// Calls `member` for each file, directory, link and device of an archive, in its order.
pub(crate) fn read<R: Read>(
    archive: R,
    mut member: impl FnMut(TarMember<'_, R>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let broken = |error: io::Error| LayerError::Folder {
        path: ".".to_owned(),
        what: format!("is not a whole tar archive: {error}"),
    };
    let mut archive = Archive::new(archive);
    let mut extra = Extra::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XHeader => {
                let bytes = limited(&mut entry).map_err(broken)?;
                let not_pax = || broken(io::Error::other("a pax header is not understood"));
                extra.pax = records(&bytes).ok_or_else(not_pax)?;
            }
            EntryType::GNULongName => extra.path = Some(limited(&mut entry).map_err(broken)?),
            EntryType::GNULongLink => extra.link = Some(limited(&mut entry).map_err(broken)?),
            // Of the whole archive: comments and times, which we do not take.
            EntryType::XGlobalHeader => {}
            _ => {
                let taken = std::mem::take(&mut extra);
                member(taken.member(entry)?)?;
            }
        }
    }
    Ok(())
}

/// What stands before a member's own header.
#[derive(Default)]
struct Extra {
    pax: Vec<(String, Vec<u8>)>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extra {
    fn member<R: Read>(self, entry: tar::Entry<'_, R>) -> Result<TarMember<'_, R>, LayerError> {
        let header = entry.header().clone();
        let records = self.pax;
        let record = |key: &str| {
            let found = records.iter().rev().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_slice())
        };
        let until_nul = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            bytes[..end.unwrap_or(bytes.len())].to_vec()
        };
        let raw_path = match (record("path"), &self.path) {
            (Some(path), _) => path.to_vec(),
            (None, Some(path)) => until_nul(path),
            (None, None) => header.path_bytes().to_vec(),
        };
        let raw_link = match (record("linkpath"), &self.link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => until_nul(link),
            (None, None) => header
                .link_name_bytes()
                .map(|link| link.to_vec())
                .unwrap_or_default(),
        };
        let shown: String = String::from_utf8_lossy(&raw_path)
            .chars()
            .take(80)
            .collect();
        let wrong = |what: &str| LayerError::Folder {
            path: shown.clone(),
            what: what.to_owned(),
        };
        let path = inside(&raw_path).ok_or_else(|| wrong("is no plain path within its folder"))?;
        let Ok(link) = String::from_utf8(raw_link) else {
            return Err(wrong("is a link whose target is not UTF-8"));
        };
        let number = |key: &str, own: io::Result<u64>| -> Result<u32, LayerError> {
            let given = match record(key) {
                Some(text) => std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok()),
                None => own.ok(),
            };
            // All ones means "leave it" to chown(2).
            let fits = given.filter(|id| *id < u64::from(u32::MAX));
            fits.and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| wrong("has an owner that is no number"))
        };
        let owner = Owner {
            mode: header
                .mode()
                .map_err(|_| wrong("has a mode that is no number"))?
                & 0o7777,
            uid: number("uid", id(&header.as_old().uid, header.uid()))?,
            gid: number("gid", id(&header.as_old().gid, header.gid()))?,
        };
        let size_bytes = header
            .entry_size()
            .map_err(|_| wrong("has a size that is no number"))?;
        let odd = records
            .iter()
            .any(|(key, _)| key == "size" || key.starts_with("GNU.sparse."));
        if odd {
            return Err(wrong("is a sparse or enormous file; make it a plain one"));
        }
        let mut xattrs = BTreeMap::new();
        for (key, value) in &records {
            let Some(attribute) = key.strip_prefix(XATTR_PREFIX) else {
                continue;
            };
            if let Some(attribute) = carried(attribute).map_err(|what| wrong(&what))? {
                xattrs.insert(attribute.to_owned(), XattrValue(value.clone()));
            }
        }
        let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
        Ok(TarMember {
            path,
            link,
            kind: header.entry_type(),
            owner,
            xattrs,
            device: (device(header.device_major()), device(header.device_minor())),
            size_bytes,
            content: entry,
        })
    }
}

/// Who writes a header by hand may leave root's number out.
fn id(field: &[u8], parsed: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    parsed
}

fn limited(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_PAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PAX_BYTES {
        return Err(io::Error::other("a header with more than 8 MiB"));
    }
    Ok(bytes)
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`, where the length counts all of it (POSIX
/// pax, "Extended Header"). `None` when one is not so.
fn records(mut bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let key = String::from_utf8(record[..equals].to_vec()).ok()?;
        records.push((key, record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// The path with only plain names; empty for the folder itself.
pub(crate) fn inside(path: &[u8]) -> Option<String> {
    if path.len() > MAX_PATH_BYTES || path.first() == Some(&b'/') {
        return None;
    }
    let text = std::str::from_utf8(path).ok()?;
    let mut plain = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return None,
            name if name.contains('\0') => return None,
            name => plain.push(name),
        }
    }
    Some(plain.join("/"))
}

/// The node that a member of a set describes; its content is read here, after it was let in.
pub(crate) fn node<R: Read>(
    member: &mut TarMember<'_, R>,
    link_in_set: impl Fn(&str) -> Option<String>,
) -> Result<SetNode, LayerError> {
    let wrong = |path: &str, what: String| LayerError::Folder {
        path: path.to_owned(),
        what,
    };
    let (major, minor) = member.device;
    let kind = match member.kind {
        EntryType::Regular | EntryType::Continuous => {
            let mut bytes = Vec::new();
            let read = member.content.read_to_end(&mut bytes);
            if let Err(error) = read {
                return Err(wrong(&member.path, format!("could not be read: {error}")));
            }
            SetKind::File(bytes.into())
        }
        EntryType::Directory => SetKind::Directory,
        EntryType::Symlink => SetKind::Symlink(member.link.clone()),
        EntryType::Link => {
            let target = link_in_set(&member.link).ok_or_else(|| {
                let link: String = member.link.chars().take(80).collect();
                wrong(
                    &member.path,
                    format!("is a hard link to {link:?}, outside of its set"),
                )
            })?;
            SetKind::HardLink(target)
        }
        EntryType::Char => SetKind::Character { major, minor },
        EntryType::Block => SetKind::Block { major, minor },
        other => {
            let what = format!(
                "is of the kind {other:?}; a set has files, directories, links and devices"
            );
            return Err(wrong(&member.path, what));
        }
    };
    Ok(SetNode {
        owner: member.owner,
        xattrs: std::mem::take(&mut member.xattrs),
        kind,
    })
}

/// Appends a set below `prefix`, which ends in `/`.
pub(crate) fn write<W: io::Write>(
    archive: &mut Builder<W>,
    prefix: &str,
    tree: &SetTree,
) -> io::Result<()> {
    let (mut links, mut others) = (Vec::new(), Vec::new());
    for (path, node) in tree.iter() {
        match node.kind {
            SetKind::HardLink(_) => links.push((path, node)),
            _ => others.push((path, node)),
        }
    }
    // A link comes after its file, whatever their names are.
    for (path, node) in others.into_iter().chain(links) {
        if !node.xattrs.is_empty() {
            let records: Vec<(String, &[u8])> = node
                .xattrs
                .iter()
                .map(|(name, value)| (format!("{XATTR_PREFIX}{name}"), value.0.as_slice()))
                .collect();
            let records = records.iter().map(|(key, value)| (key.as_str(), *value));
            archive.append_pax_extensions(records)?;
        }
        let path = format!("{prefix}{path}");
        let mut header = header_of(node);
        match &node.kind {
            SetKind::File(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &path, &bytes[..])?;
            }
            SetKind::Symlink(target) => append_link(archive, &mut header, &path, target)?,
            SetKind::HardLink(target) => {
                append_link(archive, &mut header, &path, &format!("{prefix}{target}"))?;
            }
            _ => archive.append_data(&mut header, &path, io::empty())?,
        }
    }
    Ok(())
}

fn header_of(node: &SetNode) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(node.owner.mode);
    header.set_uid(node.owner.uid.into());
    header.set_gid(node.owner.gid.into());
    header.set_size(0);
    let kind = match node.kind {
        SetKind::File(_) => EntryType::Regular,
        SetKind::Directory => EntryType::Directory,
        SetKind::Symlink(_) => EntryType::Symlink,
        SetKind::HardLink(_) => EntryType::Link,
        SetKind::Character { .. } => EntryType::Char,
        SetKind::Block { .. } => EntryType::Block,
    };
    header.set_entry_type(kind);
    if let SetKind::Character { major, minor } | SetKind::Block { major, minor } = node.kind {
        // Cannot fail: a GNU header has both.
        let _ = header.set_device_major(major);
        let _ = header.set_device_minor(minor);
    }
    header
}

/// The library would tidy a target of `./a` or `a//b`; ours are kept as they are.
fn append_link<W: io::Write>(
    archive: &mut Builder<W>,
    header: &mut Header,
    path: &str,
    target: &str,
) -> io::Result<()> {
    if target.len() > 100 {
        let mut long = Header::new_gnu();
        let name = b"././@LongLink";
        if let Some(gnu) = long.as_gnu_mut() {
            gnu.name[..name.len()].copy_from_slice(name);
        }
        long.set_mode(0o644);
        long.set_entry_type(EntryType::GNULongLink);
        long.set_size(target.len() as u64 + 1);
        long.set_cksum();
        archive.append(&long, [target.as_bytes(), &[0]].concat().as_slice())?;
    } else {
        header.set_link_name_literal(target)?;
    }
    archive.append_data(header, path, io::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_anything() {
        let text = b"24 SCHILY.xattr.user.x=\n27 SCHILY.xattr.user.y=\n\0=\n12 path=a\nb\n";
        assert_eq!(
            records(b"9 path=a\n").unwrap(),
            [("path".to_owned(), b"a".to_vec())]
        );
        let found = records(text).unwrap();
        assert_eq!(found[1].1, b"\n\0=");
        assert_eq!(found[2], ("path".to_owned(), b"a\nb".to_vec()));
        for broken in [
            &b"9 path=a"[..],
            b"8 path=a\n",
            b"99 path=a\n",
            b"x",
            b"5 a=\n\n",
            b"0 a=b\n",
        ] {
            assert_eq!(records(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_plain_paths_are_taken() {
        for bad in ["/a", "..", "a/../b", "a/..", "\0"] {
            assert_eq!(inside(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(inside(&[b'a', 0xff]), None);
        assert_eq!(inside("./a//b/".as_bytes()).as_deref(), Some("a/b"));
        assert_eq!(inside(b"./").as_deref(), Some(""));
    }
}

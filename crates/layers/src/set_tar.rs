//! Sets in a tar stream: read without unpacking, and written so that nothing is lost on the way.

use std::collections::BTreeMap;
use std::io::{self, Read};

use estive_archive::{
    TAR_XATTR_PREFIX, TarFault, TarMember, XattrValue, carried_xattr, plain_path, read_tar,
};
use tar::{Builder, EntryType, Header};

use crate::error::LayerError;
use crate::set_tree::{SetKind, SetNode, SetTree};
use crate::tree::Owner;

const MAX_PATH_BYTES: usize = 1000;

impl From<TarFault> for LayerError {
    fn from(TarFault { path, what }: TarFault) -> Self {
        LayerError::Folder { path, what }
    }
}

/// Calls `member` for each file, directory, link and device of an archive, in its order.
pub(crate) fn read<R: Read>(
    archive: R,
    member: impl FnMut(TarMember<'_, R>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    read_tar(archive, MAX_PATH_BYTES, member)
}

/// The path of a member with only plain names; empty for the folder itself.
pub(crate) fn inside(path: &[u8]) -> Option<String> {
    plain_path(path, MAX_PATH_BYTES)
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
    let mut xattrs = BTreeMap::new();
    for (attribute, value) in std::mem::take(&mut member.xattrs) {
        let attribute = carried_xattr(&attribute).map_err(|what| wrong(&member.path, what))?;
        if let Some(attribute) = attribute {
            xattrs.insert(attribute.to_owned(), XattrValue(value));
        }
    }
    Ok(SetNode {
        owner: Owner {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
        },
        xattrs,
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
                .map(|(name, value)| (format!("{TAR_XATTR_PREFIX}{name}"), value.0.as_slice()))
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

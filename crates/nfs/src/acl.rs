//! NFSACL, version 3: lists of rights beside NFSv3 (Linux `fs/nfs_common/nfsacl.c`, `include/uapi/linux/nfsacl.h`).
//!
//! Without an answer to GETACL, overlayfs in a guest cannot copy up a file that is not root's: it asks for the lists
//! and is told that the operation is not supported.

use rustix::fs::{FileType, OFlags, XattrFlags, fstat, fsync, getxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::attributes;
use crate::caller::Caller;
use crate::export::{Export, Node};
use crate::handle;
use crate::status::{Fault, Status};
use crate::xdr::{Reader, Writer};

pub const PROGRAM: u32 = 100_227;
pub const VERSION: u32 = 3;

const ACL: u32 = 1;
const ACL_COUNT: u32 = 2;
const DEFAULT: u32 = 4;
const DEFAULT_COUNT: u32 = 8;
/// In the tags of a default list.
const IS_DEFAULT: u32 = 0x1000;
/// NFS_ACL_MAX_ENTRIES.
const MOST_ENTRIES: usize = 1024;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// Of the attribute's own format (`include/uapi/linux/posix_acl_xattr.h`).
const XATTR_VERSION: u32 = 2;
const XATTR_ENTRY_BYTES: usize = 8;
const NO_ID: u32 = u32::MAX;

const ACCESS_NAME: &str = "system.posix_acl_access";
const DEFAULT_NAME: &str = "system.posix_acl_default";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    rights: u16,
    id: u32,
}

/// GETACL.
pub(crate) fn get(
    export: &Export,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let mut node = export.locate(arguments.opaque(handle::MOST_BYTES)?)?;
    let mask = arguments.u32()? & (ACL | ACL_COUNT | DEFAULT | DEFAULT_COUNT);
    let access = match mask & (ACL | ACL_COUNT) {
        0 => Vec::new(),
        _ => match kept(&node, ACCESS_NAME)? {
            list if list.is_empty() => of_mode(&node),
            list => list,
        },
    };
    let is_directory = node.kind() == FileType::Directory;
    let default = match mask & (DEFAULT | DEFAULT_COUNT) {
        0 => Vec::new(),
        _ if is_directory => kept(&node, DEFAULT_NAME)?,
        _ => Vec::new(),
    };
    writer.u32(0);
    attributes::write_after(writer, export, &mut node);
    writer.u32(mask);
    write(writer, &node, access, mask & ACL != 0, 0);
    write(writer, &node, default, mask & DEFAULT != 0, IS_DEFAULT);
    Ok(())
}

/// SETACL.
pub(crate) fn set(
    export: &Export,
    caller: &Caller,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let mut node = export.locate(arguments.opaque(handle::MOST_BYTES)?)?;
    let mask = arguments.u32()?;
    let access = read(arguments)?;
    let default = read(arguments)?;
    let usage = export.writable()?;
    let is_directory = node.kind() == FileType::Directory;
    if !(access.is_empty() && default.is_empty()) {
        usage.room_for_names()?;
    }
    // A list may take a block of its own.
    let keep_all = || {
        if mask & ACL != 0 {
            keep(&node, caller, ACCESS_NAME, &access)?;
        }
        if mask & DEFAULT != 0 && is_directory {
            keep(&node, caller, DEFAULT_NAME, &default)?;
        }
        Ok(())
    };
    match is_directory {
        true => usage.naming(&[&node], keep_all)?,
        false => {
            let _alone = usage.alone(&node.status);
            let before = fstat(&node.fd)?;
            let kept = keep_all();
            usage.settle(&before, &fstat(&node.fd)?);
            kept?;
        }
    }
    // As after SETATTR.
    if let Ok(file) = node.open(&Caller::root(), OFlags::RDONLY) {
        fsync(&file)?;
    }
    writer.u32(0);
    attributes::write_after(writer, export, &mut node);
    Ok(())
}

/// The list that says what the mode says.
fn of_mode(node: &Node) -> Vec<Entry> {
    let mode = node.status.st_mode;
    [(USER_OBJ, 6), (GROUP_OBJ, 3), (OTHER, 0)]
        .map(|(tag, shift)| Entry {
            tag,
            rights: ((mode >> shift) & 7) as u16,
            id: NO_ID,
        })
        .to_vec()
}

fn write(writer: &mut Writer, node: &Node, mut list: Vec<Entry>, with_entries: bool, flag: u32) {
    if list.len() == 3 {
        // Clients expect a mask, as Solaris has it: the group's rights.
        let rights = list[1].rights;
        list.insert(
            2,
            Entry {
                tag: MASK,
                rights,
                id: NO_ID,
            },
        );
    }
    let count = u32::try_from(list.len()).unwrap_or(0);
    writer.u32(count);
    if !with_entries {
        writer.u32(0);
        return;
    }
    writer.u32(count);
    for entry in list {
        writer.u32(u32::from(entry.tag) | flag);
        writer.u32(match entry.tag {
            USER_OBJ => node.status.st_uid,
            GROUP_OBJ => node.status.st_gid,
            USER | GROUP => entry.id,
            _ => 0,
        });
        writer.u32(entry.rights.into());
    }
}

fn read(arguments: &mut Reader<'_>) -> Result<Vec<Entry>, Fault> {
    arguments.u32()?;
    let count = arguments.u32()? as usize;
    if count > MOST_ENTRIES {
        return Err(Status::Inval.into());
    }
    let mut list = Vec::new();
    for _ in 0..count {
        let [tag, id, rights] = [arguments.u32()?, arguments.u32()?, arguments.u32()?];
        let tag = u16::try_from(tag & !IS_DEFAULT).map_err(|_| Status::Inval)?;
        list.push(Entry {
            tag,
            rights: u16::try_from(rights & 7).unwrap_or(0),
            id: if matches!(tag, USER | GROUP) {
                id
            } else {
                NO_ID
            },
        });
    }
    // The mask that was put in for clients; one that says less than the group's entry is the client's own.
    let rights = |tag| {
        let entry = list.iter().find(|entry: &&Entry| entry.tag == tag);
        entry.map(|entry| entry.rights)
    };
    let is_ours = rights(MASK) == rights(GROUP_OBJ);
    if list.len() == 4 && list.iter().all(|entry| !matches!(entry.tag, USER | GROUP)) && is_ours {
        list.retain(|entry| entry.tag != MASK);
    }
    list.sort_by_key(|entry| (entry.tag, entry.id));
    Ok(list)
}

/// The list of a file; empty where the mode says all.
fn kept(node: &Node, name: &str) -> Result<Vec<Entry>, Fault> {
    if node.kind() == FileType::Symlink {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; 4 + XATTR_ENTRY_BYTES * MOST_ENTRIES];
    match getxattr(node.magic(), name, &mut bytes[..]) {
        Ok(size) => Ok(parse(&bytes[..size])),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

fn parse(bytes: &[u8]) -> Vec<Entry> {
    let short = |at: &[u8]| u16::from_le_bytes([at[0], at[1]]);
    let long = |at: &[u8]| u32::from_le_bytes([at[0], at[1], at[2], at[3]]);
    match bytes.split_at_checked(4) {
        Some((version, entries)) if long(version) == XATTR_VERSION => entries
            .chunks_exact(XATTR_ENTRY_BYTES)
            .map(|entry| Entry {
                tag: short(entry),
                rights: short(&entry[2..]),
                id: long(&entry[4..]),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn keep(node: &Node, caller: &Caller, name: &str, list: &[Entry]) -> Result<(), Fault> {
    let mut bytes = XATTR_VERSION.to_le_bytes().to_vec();
    for entry in list {
        bytes.extend(entry.tag.to_le_bytes());
        bytes.extend(entry.rights.to_le_bytes());
        bytes.extend(entry.id.to_le_bytes());
    }
    caller.act(|| {
        if list.is_empty() {
            return match removexattr(node.magic(), name) {
                Ok(()) | Err(Errno::NODATA) => Ok(()),
                Err(errno) => Err(errno.into()),
            };
        }
        Ok(setxattr(node.magic(), name, &bytes, XattrFlags::empty())?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_attribute_and_any_argument_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
            let _ = read(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn only_the_mask_that_was_put_in_is_taken_out() {
        let kept = |mask: u32| {
            let mut writer = Writer::default();
            let entries = [(USER_OBJ, 6), (GROUP_OBJ, 6), (MASK, mask), (OTHER, 0)];
            writer.u32(4);
            writer.u32(4);
            for (tag, rights) in entries {
                [tag.into(), 0, rights]
                    .iter()
                    .for_each(|word| writer.u32(*word));
            }
            let bytes = writer.into_bytes();
            let list = read(&mut Reader::new(&bytes)).unwrap();
            list.iter().map(|entry| entry.tag).collect::<Vec<_>>()
        };
        assert_eq!(kept(6), [USER_OBJ, GROUP_OBJ, OTHER]);
        // The group would have more than it was given.
        assert_eq!(kept(4), [USER_OBJ, GROUP_OBJ, MASK, OTHER]);
    }
}

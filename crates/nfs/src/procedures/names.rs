//! Procedures that change names alone: taking away, renaming, another name for a file.

use rustix::fs::{AtFlags, CWD, FileType, OFlags, fsync, linkat, renameat, unlinkat};

use super::{Asked, MOST_NAME_BYTES};
use crate::attributes;
use crate::caller::Caller;
use crate::export::{Export, Node};
use crate::handle;
use crate::quota::Usage;
use crate::status::{Fault, Status};
use crate::xdr::{Reader, Writer};

pub fn remove(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    take_away(asked, arguments, writer, AtFlags::empty())
}

pub fn rmdir(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    take_away(asked, arguments, writer, AtFlags::REMOVEDIR)
}

fn take_away(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
    flags: AtFlags,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let usage = asked.export.writable()?;
    let mut directory = asked.export.locate_directory(asked.handle)?;
    asked.export.check_new_name(&directory, name)?;
    let gone = usage.naming(&[&directory], || {
        let mut node = asked.export.lookup(&asked.caller, &directory, name)?;
        if flags.is_empty() && node.kind() == FileType::Directory {
            return Err(Status::IsDir.into());
        }
        let _alone = usage.alone(&node.status);
        node.look_again()?;
        let away = || Ok(unlinkat(&directory.fd, name, flags)?);
        asked.caller.act(away)?;
        settle_gone(usage, &mut node)?;
        Ok(node)
    })?;
    // Nobody else waits while the file system takes back what was a large file.
    drop(gone);
    make_lasting(&directory)?;
    writer.u32(0);
    attributes::write_weak(writer, asked.export, &mut directory);
    Ok(())
}

/// A name of it is gone; perhaps it was the last.
fn settle_gone(usage: &Usage, node: &mut Node) -> Result<(), Fault> {
    let before = node.status;
    node.look_again()?;
    if node.status.st_nlink == 0 {
        usage.gone(&before);
    }
    Ok(())
}

pub fn rename(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let to_handle = arguments.opaque(handle::MOST_BYTES)?;
    let to_name = arguments.opaque(MOST_NAME_BYTES)?;
    let usage = asked.export.writable()?;
    let mut from = asked.export.locate_directory(asked.handle)?;
    let mut to = other_directory(asked, to_handle)?;
    asked.export.check_new_name(&from, name)?;
    asked.export.check_new_name(&to, to_name)?;
    let gone = usage.naming(&[&from, &to], || {
        let mut covered = match asked.export.lookup(&asked.caller, &to, to_name) {
            Ok(node) => Some(node),
            Err(Fault::Status(Status::NoEnt)) => None,
            Err(fault) => return Err(fault),
        };
        let _alone = covered.as_ref().map(|node| usage.alone(&node.status));
        if let Some(node) = &mut covered {
            node.look_again()?;
        }
        let rename = || Ok(renameat(&from.fd, name, &to.fd, to_name)?);
        asked.caller.act(rename)?;
        if let Some(node) = &mut covered {
            settle_gone(usage, node)?;
        }
        Ok(covered)
    })?;
    drop(gone);
    make_lasting(&from)?;
    make_lasting(&to)?;
    writer.u32(0);
    attributes::write_weak(writer, asked.export, &mut from);
    attributes::write_weak(writer, asked.export, &mut to);
    Ok(())
}

pub fn link(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let to_handle = arguments.opaque(handle::MOST_BYTES)?;
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let usage = asked.export.writable()?;
    let mut node = asked.export.locate(asked.handle)?;
    let mut directory = other_directory(asked, to_handle)?;
    asked.export.check_new_name(&directory, name)?;
    if node.kind() == FileType::Directory {
        return Err(Status::IsDir.into());
    }
    let link = || {
        let follow = AtFlags::SYMLINK_FOLLOW;
        Ok(linkat(CWD, node.magic(), &directory.fd, name, follow)?)
    };
    usage.room_for_names()?;
    usage.naming(&[&directory], || asked.caller.act(link))?;
    make_lasting(&directory)?;
    writer.u32(0);
    attributes::write_after(writer, asked.export, &mut node);
    attributes::write_weak(writer, asked.export, &mut directory);
    Ok(())
}

/// The directory of a second handle: of the same export.
fn other_directory(asked: &Asked<'_>, handle: &[u8]) -> Result<Node, Fault> {
    let other: &Export = asked.service.export_of(handle)?;
    match std::ptr::eq(other, asked.export) {
        true => other.locate_directory(handle),
        false => Err(Status::XDev.into()),
    }
}

/// The names of a directory are on disk when the client is told of them.
pub(super) fn make_lasting(directory: &Node) -> Result<(), Fault> {
    let open = directory.open(&Caller::root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok(fsync(&open)?)
}

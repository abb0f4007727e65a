//! Procedures that change a file: attributes, size, data, and making data lasting.

use rustix::fs::{FileType, OFlags, fdatasync, fsync, ftruncate};
use rustix::io::Errno;

use super::Asked;
use crate::attributes::{self, SetTime, Wanted};
use crate::caller::Caller;
use crate::export::{Export, Node};
use crate::quota;
use crate::rpc::MOST_DATA_BYTES;
use crate::status::{Fault, Status};
use crate::xdr::{Garbage, Reader, Writer};

const UNSTABLE: u32 = 0;
const DATA_SYNC: u32 = 1;
const FILE_SYNC: u32 = 2;

pub fn setattr(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let wanted = Wanted::read(arguments)?;
    let guard = arguments.option(|reader| Ok((reader.u32()?, reader.u32()?)))?;
    asked.export.writable()?;
    let mut node = asked.export.locate(asked.handle)?;
    if let Some((seconds, nanoseconds)) = guard {
        let (changed, part) = (node.status.st_ctime, node.status.st_ctime_nsec);
        if (i64::from(seconds), i64::from(nanoseconds)) != (changed, part as i64) {
            return Err(Status::NotSync.into());
        }
    }
    set(asked.export, &asked.caller, &mut node, &wanted)?;
    make_attributes_lasting(asked, &node)?;
    writer.u32(0);
    attributes::write_weak(writer, asked.export, &mut node);
    Ok(())
}

/// Of what can be opened.
pub(super) fn make_attributes_lasting(asked: &Asked<'_>, node: &Node) -> Result<(), Fault> {
    match node.kind() {
        FileType::RegularFile | FileType::Directory => {
            let file = node.open(&Caller::root(), OFlags::RDONLY)?;
            asked.service.lasting(fsync(&file))
        }
        _ => Ok(()),
    }
}

/// All that is wanted, the size first: the mode may take the right to write away, and sizes set times.
pub(super) fn set(
    export: &Export,
    caller: &Caller,
    node: &mut Node,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let mut rest = *wanted;
    if let Some(size) = wanted.size {
        resize(export, caller, node, size)?;
        // That did it, as whoever may write may; only the owner may set one of the times alone (utimensat(2)), and this
        // is what clients ask of every file that is opened to be written anew.
        if rest.modified == SetTime::Now {
            rest.modified = SetTime::Keep;
        }
    }
    rest.set(caller, node)
}

fn resize(export: &Export, caller: &Caller, node: &mut Node, size: u64) -> Result<(), Fault> {
    match node.kind() {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Status::IsDir.into()),
        _ => return Err(Status::Inval.into()),
    }
    let usage = export.writable()?;
    let file = node.open(caller, OFlags::WRONLY)?;
    let _alone = usage.alone(&node.status);
    look_if_there(node)?;
    let before = node.status;
    let size = i64::try_from(size).map_err(|_| Status::FBig)?;
    caller.act(|| Ok(ftruncate(&file, size as u64)?))?;
    node.look_again()?;
    usage.settle(&before, &node.status);
    Ok(())
}

/// A file whose last name went since its handle was opened has given its room back, and gets none any more.
fn look_if_there(node: &mut Node) -> Result<(), Fault> {
    node.look_again()?;
    match node.status.st_nlink {
        0 => Err(Status::Stale.into()),
        _ => Ok(()),
    }
}

pub fn write(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let offset = arguments.u64()?;
    let count = arguments.u32()? as usize;
    let stable = arguments.u32()?;
    let data = arguments.opaque(MOST_DATA_BYTES as usize)?;
    let data = data.get(..count).ok_or(Garbage)?;
    if !(UNSTABLE..=FILE_SYNC).contains(&stable) {
        return Err(Fault::Garbage);
    }
    let usage = asked.export.writable()?;
    let mut node = asked.export.locate(asked.handle)?;
    match node.kind() {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Status::IsDir.into()),
        _ => return Err(Status::Inval.into()),
    }
    let end = offset.checked_add(data.len() as u64);
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(Status::FBig.into());
    }
    let file = node.open(&asked.caller, OFlags::WRONLY)?;
    // Of before: if the data is lost from now on, that is another one than COMMIT tells.
    let verifier = asked.service.write_verifier();
    let written = {
        let _alone = usage.alone(&node.status);
        look_if_there(&mut node)?;
        let more = quota::growth(&node.status, offset, data.len() as u64);
        let _room = usage.reserve(more, 0)?;
        let before = node.status;
        // As the caller: set-user-ID goes when somebody else writes.
        let written = asked.caller.act(|| write_at(&file, data, offset));
        node.look_again()?;
        usage.settle(&before, &node.status);
        written?
    };
    match stable {
        UNSTABLE => {}
        DATA_SYNC => make_lasting(asked, &mut node, || fdatasync(&file))?,
        _ => make_lasting(asked, &mut node, || fsync(&file))?,
    }
    writer.u32(0);
    attributes::write_weak(writer, asked.export, &mut node);
    writer.u32(u32::try_from(written).unwrap_or(0));
    writer.u32(stable);
    writer.fixed(&verifier);
    Ok(())
}

/// What was written is on disk, and what the file system needed to put it there is counted.
fn make_lasting(
    asked: &Asked<'_>,
    node: &mut Node,
    sync: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Fault> {
    let usage = asked.export.writable()?;
    asked.service.lasting(sync())?;
    if node.kind() == FileType::RegularFile {
        let _alone = usage.alone(&node.status);
        node.look_again()?;
        usage.settle(&node.status, &node.status);
    }
    Ok(())
}

/// As much as there is room for, and something.
fn write_at(file: &std::os::fd::OwnedFd, data: &[u8], offset: u64) -> Result<usize, Fault> {
    let mut size = 0;
    while size < data.len() {
        match rustix::io::pwrite(file, &data[size..], offset + size as u64) {
            Ok(written) if written > 0 => size += written,
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) if size == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(size)
}

pub fn commit(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    // Always the whole file: it is what the kernel has a call for.
    let (_, _) = (arguments.u64()?, arguments.u32()?);
    asked.export.writable()?;
    let mut node = asked.export.locate(asked.handle)?;
    let file = node.open(&Caller::root(), OFlags::RDONLY)?;
    make_lasting(asked, &mut node, || fsync(&file))?;
    writer.u32(0);
    attributes::write_weak(writer, asked.export, &mut node);
    writer.fixed(&asked.service.write_verifier());
    Ok(())
}

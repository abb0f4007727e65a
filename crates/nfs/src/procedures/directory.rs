//! READDIR and READDIRPLUS. A cookie is where the file system says the next name is (`d_off`): it holds while names
//! come and go, and over a restart.

use std::mem::MaybeUninit;

use rustix::fs::{OFlags, RawDir, SeekFrom, fstat, seek};

use super::Asked;
use crate::attributes;
use crate::export::{Export, Node, open_beneath};
use crate::status::{Fault, Status};
use crate::xdr::{Reader, Writer};

/// Names read at a time from the file system.
const BUFFER_BYTES: usize = 32 << 10;
pub const MOST_REPLY_BYTES: usize = 256 << 10;
/// What stands behind the last entry.
const END_BYTES: usize = 8;

pub fn readdir(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let (cookie, _) = (arguments.u64()?, arguments.u64()?);
    let most = arguments.u32()?;
    list(asked, cookie, most, false, writer)
}

pub fn readdirplus(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let (cookie, _) = (arguments.u64()?, arguments.u64()?);
    let (_, most) = (arguments.u32()?, arguments.u32()?);
    list(asked, cookie, most, true, writer)
}

fn list(
    asked: &Asked<'_>,
    cookie: u64,
    most: u32,
    with_attributes: bool,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let Asked { export, caller, .. } = asked;
    let mut directory = export.locate_directory(asked.handle)?;
    let open = directory.open(caller, OFlags::RDONLY | OFlags::DIRECTORY)?;
    if i64::try_from(cookie).is_err() {
        return Err(Status::BadCookie.into());
    }
    seek(&open, SeekFrom::Start(cookie)).map_err(|_| Status::BadCookie)?;
    let limit = writer.len() + (most as usize).min(MOST_REPLY_BYTES);
    writer.u32(0);
    attributes::write_after(writer, export, &mut directory);
    writer.u64(0);
    let hidden = export.hides(&directory)?;
    let is_root = directory.status.st_ino == export.root()?.status.st_ino;
    // All with the caller's rights, taken on once.
    let is_end = caller.act(|| {
        let began = writer.len();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(&open, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if hidden.hides(name) {
                continue;
            }
            let before = writer.len();
            writer.bool(true);
            // Nothing above the root has a number here.
            writer.u64(match is_root && name == b".." {
                true => directory.status.st_ino,
                false => entry.ino(),
            });
            writer.opaque(name);
            writer.u64(entry.next_entry_cookie());
            if with_attributes {
                write_entry(writer, export, &directory, name);
            }
            if writer.len() + END_BYTES > limit {
                writer.truncate(before);
                if before == began {
                    return Err(Status::TooSmall.into());
                }
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    writer.bool(false);
    writer.bool(is_end);
    Ok(())
}

/// Attributes and handle of a name, if it is still there and may be looked at.
fn write_entry(writer: &mut Writer, export: &Export, directory: &Node, name: &[u8]) {
    let look = || {
        if matches!(name, b"." | b"..") {
            return None;
        }
        let node = open_beneath(&directory.fd, name, OFlags::PATH).ok()?;
        let status = fstat(&node).ok()?;
        (status.st_dev == directory.status.st_dev).then_some(())?;
        Some((status, export.handle_of_open(&node).ok()?))
    };
    let Some((status, handle)) = look() else {
        writer.bool(false);
        writer.bool(false);
        return;
    };
    writer.bool(true);
    attributes::write(writer, export, &status);
    writer.bool(true);
    writer.opaque(&handle);
}

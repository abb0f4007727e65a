//! Procedures that look: attributes, names, rights, data, and what the file system is.

use rustix::fs::{FileType, OFlags, StatVfsMountFlags, fstatvfs, readlinkat};

use super::{Asked, MOST_NAME_BYTES};
use crate::attributes;
use crate::export::{NAME_BYTES, Node};
use crate::rpc::MOST_DATA_BYTES;
use crate::status::{Fault, Status};
use crate::xdr::{Reader, Writer};

const READ: u32 = 1;
const LOOKUP: u32 = 2;
const MODIFY: u32 = 4;
const EXTEND: u32 = 8;
const DELETE: u32 = 16;
const EXECUTE: u32 = 32;

/// FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS, FSF3_CANSETTIME.
const PROPERTIES: u32 = 1 | 2 | 8 | 16;
/// What a client asks for at a time of a directory.
const PREFERRED_DIRECTORY_BYTES: u32 = 64 << 10;
const MOST_FILE_BYTES: u64 = i64::MAX as u64;
/// As ext4 has it; only told.
const MOST_LINKS: u32 = 65_000;

pub fn getattr(asked: &Asked<'_>, _: &mut Reader<'_>, writer: &mut Writer) -> Result<(), Fault> {
    let node = asked.export.locate(asked.handle)?;
    writer.u32(0);
    attributes::write(writer, asked.export, &node.status);
    Ok(())
}

pub fn lookup(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let mut directory = asked.export.locate_directory(asked.handle)?;
    let found = asked
        .export
        .lookup(&asked.caller, &directory, name)
        .and_then(|node| Ok((asked.export.handle_of(&node)?, node)));
    match found {
        Ok((handle, node)) => {
            writer.u32(0);
            writer.opaque(&handle);
            writer.bool(true);
            attributes::write(writer, asked.export, &node.status);
        }
        // With the directory's attributes: a client remembers then that there is no such name.
        Err(Fault::Status(status)) => writer.u32(status as u32),
        Err(fault) => return Err(fault),
    }
    attributes::write_after(writer, asked.export, &mut directory);
    Ok(())
}

pub fn access(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let wanted = arguments.u32()?;
    let node = asked.export.locate(asked.handle)?;
    let is_directory = node.kind() == FileType::Directory;
    let changes = match is_directory {
        true => MODIFY | EXTEND | DELETE,
        false => MODIFY | EXTEND,
    };
    let running = if is_directory { LOOKUP } else { EXECUTE };
    let mut may = 0;
    for (bits, right) in [
        (READ, libc::R_OK),
        (changes, libc::W_OK),
        (running, libc::X_OK),
    ] {
        let is_allowed_here = right != libc::W_OK || asked.export.is_writable();
        if wanted & bits != 0 && is_allowed_here && node.may(&asked.caller, right) {
            may |= wanted & bits;
        }
    }
    writer.u32(0);
    writer.bool(true);
    attributes::write(writer, asked.export, &node.status);
    writer.u32(may);
    Ok(())
}

pub fn readlink(asked: &Asked<'_>, _: &mut Reader<'_>, writer: &mut Writer) -> Result<(), Fault> {
    let node = asked.export.locate(asked.handle)?;
    if node.kind() != FileType::Symlink {
        return Err(Status::Inval.into());
    }
    let target = readlinkat(&node.fd, "", Vec::new())?;
    writer.u32(0);
    writer.bool(true);
    attributes::write(writer, asked.export, &node.status);
    writer.opaque(target.as_bytes());
    Ok(())
}

pub fn read(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let offset = arguments.u64()?;
    let count = arguments.u32()?.min(MOST_DATA_BYTES) as usize;
    // Attributes from before the reading: a client that takes them for newer than they are looks again, one that took
    // older data for newer would not.
    let node = asked.export.locate(asked.handle)?;
    match node.kind() {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Status::IsDir.into()),
        _ => return Err(Status::Inval.into()),
    }
    let file = node.open(&asked.caller, OFlags::RDONLY)?;
    writer.u32(0);
    writer.bool(true);
    attributes::write(writer, asked.export, &node.status);
    let counts_at = writer.len();
    writer.u32(0);
    writer.bool(false);
    let mut is_end = false;
    let size = writer.filled(count, |buffer| {
        let read;
        (read, is_end) = read_at(&file, buffer, offset)?;
        Ok::<_, Fault>(read)
    })?;
    let file_bytes = u64::try_from(node.status.st_size).unwrap_or(0);
    is_end |= offset.saturating_add(size as u64) >= file_bytes;
    writer.set_u32(counts_at, u32::try_from(size).unwrap_or(0));
    writer.set_u32(counts_at + 4, is_end.into());
    Ok(())
}

/// As much as there is, and whether that is all: what cannot be read is not the end, behind which clients see zeros.
fn read_at(
    file: &std::os::fd::OwnedFd,
    buffer: &mut [u8],
    offset: u64,
) -> Result<(usize, bool), Fault> {
    let mut size = 0;
    while size < buffer.len() {
        let at = offset
            .checked_add(size as u64)
            .filter(|at| *at <= MOST_FILE_BYTES);
        let Some(at) = at else {
            return Ok((size, true));
        };
        match rustix::io::pread(file, &mut buffer[size..], at) {
            Ok(0) => return Ok((size, true)),
            Ok(read) => size += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) if size == 0 => return Err(errno.into()),
            // The client asks for the rest, and is told.
            Err(_) => break,
        }
    }
    Ok((size, false))
}

pub fn fsstat(asked: &Asked<'_>, _: &mut Reader<'_>, writer: &mut Writer) -> Result<(), Fault> {
    let mut node = asked.export.locate(asked.handle)?;
    let there = fstatvfs(asked.export.anchor())?;
    debug_assert!(asked.export.is_writable() || there.f_flag.contains(StatVfsMountFlags::RDONLY));
    let mut bytes = [there.f_blocks, there.f_bfree, there.f_bavail]
        .map(|blocks| blocks.saturating_mul(there.f_frsize));
    let mut files = [there.f_files, there.f_ffree, there.f_favail];
    if let Some(usage) = &asked.export.usage {
        let held = usage.held();
        limit(&mut bytes, usage.quota.bytes, held.bytes);
        limit(&mut files, usage.quota.files, held.files);
    }
    writer.u32(0);
    attributes::write_after(writer, asked.export, &mut node);
    bytes
        .iter()
        .chain(&files)
        .for_each(|number| writer.u64(*number));
    writer.u32(0);
    Ok(())
}

/// All, free and free for everybody, under a quota.
fn limit(numbers: &mut [u64; 3], quota: Option<u64>, held: u64) {
    if let Some(quota) = quota {
        let free = quota.saturating_sub(held);
        numbers[0] = numbers[0].min(quota);
        numbers[1] = numbers[1].min(free);
        numbers[2] = numbers[2].min(free);
    }
}

pub fn fsinfo(asked: &Asked<'_>, _: &mut Reader<'_>, writer: &mut Writer) -> Result<(), Fault> {
    let mut node: Node = asked.export.locate(asked.handle)?;
    writer.u32(0);
    attributes::write_after(writer, asked.export, &mut node);
    let data = [MOST_DATA_BYTES, MOST_DATA_BYTES, 4096];
    data.iter().chain(&data).for_each(|word| writer.u32(*word));
    writer.u32(PREFERRED_DIRECTORY_BYTES);
    writer.u64(MOST_FILE_BYTES);
    // Times are exact to a nanosecond.
    writer.u32(0);
    writer.u32(1);
    writer.u32(PROPERTIES);
    Ok(())
}

pub fn pathconf(asked: &Asked<'_>, _: &mut Reader<'_>, writer: &mut Writer) -> Result<(), Fault> {
    let mut node = asked.export.locate(asked.handle)?;
    writer.u32(0);
    attributes::write_after(writer, asked.export, &mut node);
    writer.u32(MOST_LINKS);
    writer.u32(NAME_BYTES as u32);
    // Long names are refused; giving files away is root's; case matters and is kept.
    for answer in [true, true, false, true] {
        writer.bool(answer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn what_cannot_be_read_is_not_the_end() {
        // SAFETY: a number is asked for.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        // SAFETY: memory of its own, whose second page is taken away again before anything looks at it.
        let at = unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                2 * page,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            assert_eq!(libc::munmap(at.byte_add(page), page), 0);
            at as u64
        };
        // A file with a page that is there and one that is not.
        let file = OwnedFd::from(std::fs::File::open("/proc/self/mem").unwrap());
        let mut buffer = vec![1; 2 * page];
        assert_eq!(read_at(&file, &mut buffer, at), Ok((page, false)));
        let behind = read_at(&file, &mut buffer, at + page as u64);
        assert_eq!(behind, Err(Fault::Status(Status::Io)));
        let file = OwnedFd::from(std::fs::File::open("/proc/self/cmdline").unwrap());
        assert!(matches!(read_at(&file, &mut buffer, 0), Ok((1.., true))));
    }
}

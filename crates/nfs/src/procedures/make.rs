//! Procedures that make something with a name: files, directories, links by name, devices, sockets.

use std::cell::Cell;

use rustix::fs::{Dev, FileType, Mode, OFlags, makedev, mkdirat, mknodat, symlinkat};

use super::change::{make_attributes_lasting, set};
use super::names::make_lasting;
use super::{Asked, MOST_NAME_BYTES};
use crate::attributes::{self, SetTime, Wanted};
use crate::export::{Node, open_new_beneath};
use crate::status::{Fault, Status};
use crate::xdr::{Garbage, Reader, Writer};

const UNCHECKED: u32 = 0;
const GUARDED: u32 = 1;
const EXCLUSIVE: u32 = 2;

/// PATH_MAX.
const MOST_TARGET_BYTES: usize = 4095;
/// What a directory or a long link takes at first.
const FIRST_BYTES: u64 = 4096;

const BLOCK: u32 = 3;
const CHARACTER: u32 = 4;
const SOCKET: u32 = 6;
const FIFO: u32 = 7;

pub fn create(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let how = arguments.u32()?;
    let (wanted, verifier) = match how {
        UNCHECKED | GUARDED => (Wanted::read(arguments)?, None),
        EXCLUSIVE => {
            let verifier = arguments.fixed()?;
            // On disk with the file: a client that asks again after a power failure has made it.
            (remembered(verifier), Some(verifier))
        }
        _ => return Err(Fault::Garbage),
    };
    let place = Place::new(asked, name)?;
    let make = |mode: Mode| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NONBLOCK;
        open_new_beneath(&place.directory.fd, name, flags, mode)?;
        Ok(())
    };
    let made = place.make(0, &wanted, make);
    let mut node = match (made, verifier) {
        (Ok(node), _) => node,
        (Err(Fault::Status(Status::Exist)), _) if how != GUARDED => {
            let mut node = asked.export.lookup(&asked.caller, &place.directory, name)?;
            if node.kind() != FileType::RegularFile {
                return Err(Status::Exist.into());
            }
            match verifier {
                // The answer to the first call was lost: it is made by this very caller.
                Some(verifier) if is_remembered(&node, verifier) => {}
                Some(_) => return Err(Status::Exist.into()),
                // What is there stays as it is, but for its size.
                None => {
                    let size = Wanted {
                        size: wanted.size,
                        ..Wanted::nothing()
                    };
                    set(asked.export, &asked.caller, &mut node, &size)?;
                    make_attributes_lasting(asked, &node)?;
                }
            }
            node
        }
        (Err(fault), _) => return Err(fault),
    };
    place.reply(&mut node, writer)
}

/// Times that stand for the verifier of an exclusive create until its client sets true ones: they are kept over a
/// restart, which our memory is not.
fn remembered(verifier: [u8; 8]) -> Wanted {
    let time = |bytes: &[u8]| {
        let seconds = bytes
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
        SetTime::To {
            // Any file system has these.
            seconds: seconds & (u32::MAX >> 1),
            nanoseconds: 0,
        }
    };
    Wanted {
        accessed: time(&verifier[..4]),
        modified: time(&verifier[4..]),
        ..Wanted::nothing()
    }
}

fn is_remembered(node: &Node, verifier: [u8; 8]) -> bool {
    let is = |time: SetTime, seconds: i64| matches!(time, SetTime::To { seconds: wanted, .. } if i64::from(wanted) == seconds);
    let wanted = remembered(verifier);
    node.status.st_size == 0
        && is(wanted.accessed, node.status.st_atime)
        && is(wanted.modified, node.status.st_mtime)
}

pub fn mkdir(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let wanted = Wanted::read(arguments)?;
    let place = Place::new(asked, name)?;
    let make = |mode: Mode| Ok(mkdirat(&place.directory.fd, name, mode)?);
    let mut node = place.make(FIRST_BYTES, &wanted, make)?;
    place.reply(&mut node, writer)
}

pub fn symlink(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let wanted = Wanted::read(arguments)?;
    let target = arguments.opaque(MOST_TARGET_BYTES)?;
    if target.is_empty() || target.contains(&0) {
        return Err(Status::Inval.into());
    }
    let place = Place::new(asked, name)?;
    // A link has no mode, and its size is its target's.
    let wanted = Wanted {
        mode: None,
        size: None,
        ..wanted
    };
    let make = |_| Ok(symlinkat(target, &place.directory.fd, name)?);
    let mut node = place.make(FIRST_BYTES, &wanted, make)?;
    place.reply(&mut node, writer)
}

pub fn mknod(
    asked: &Asked<'_>,
    arguments: &mut Reader<'_>,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let name = arguments.opaque(MOST_NAME_BYTES)?;
    let (kind, has_device) = match arguments.u32()? {
        BLOCK => (FileType::BlockDevice, true),
        CHARACTER => (FileType::CharacterDevice, true),
        SOCKET => (FileType::Socket, false),
        FIFO => (FileType::Fifo, false),
        1 | 2 | 5 => return Err(Status::BadType.into()),
        _ => return Err(Garbage.into()),
    };
    let wanted = Wanted::read(arguments)?;
    let device: Dev = match has_device {
        true => device_of(arguments.u32()?, arguments.u32()?)?,
        false => 0,
    };
    let place = Place::new(asked, name)?;
    let wanted = Wanted {
        size: None,
        ..wanted
    };
    let make = |mode: Mode| Ok(mknodat(&place.directory.fd, name, kind, mode, device)?);
    let mut node = place.make(0, &wanted, make)?;
    place.reply(&mut node, writer)
}

/// As wide as numbers of devices are in the kernel: mknod(2) would make another one of what is wider.
fn device_of(major: u32, minor: u32) -> Result<Dev, Status> {
    match major < 1 << 12 && minor < 1 << 20 {
        true => Ok(makedev(major, minor)),
        false => Err(Status::Inval),
    }
}

/// Where something is to be made.
struct Place<'a> {
    asked: &'a Asked<'a>,
    directory: Node,
    name: &'a [u8],
}

impl<'a> Place<'a> {
    fn new(asked: &'a Asked<'a>, name: &'a [u8]) -> Result<Place<'a>, Fault> {
        asked.export.writable()?;
        let directory = asked.export.locate_directory(asked.handle)?;
        asked.export.check_new_name(&directory, name)?;
        Ok(Place {
            asked,
            directory,
            name,
        })
    }

    /// Makes it and sets what is wanted of it; all is on disk afterwards.
    fn make(
        &self,
        bytes: u64,
        wanted: &Wanted,
        make: impl FnOnce(Mode) -> Result<(), Fault>,
    ) -> Result<Node, Fault> {
        let Asked { export, caller, .. } = self.asked;
        let usage = export.writable()?;
        usage.room_for_names()?;
        let _room = usage.reserve(bytes, 1)?;
        let mode = Mode::from_raw_mode(wanted.mode.unwrap_or(0) & 0o7777);
        let mut node = usage.naming(&[&self.directory], || {
            let _own = OwnUmask::none()?;
            caller.act(|| make(mode))?;
            let node = export.lookup(caller, &self.directory, self.name)?;
            usage.made(&node.status);
            Ok(node)
        })?;
        // The mode was given as it was made: the directory's own list of rights, and its group, had their say.
        // Only mkdir(2) leaves something of it out.
        let present = node.status.st_mode & 0o7777;
        let lost = mode.as_raw_mode() & 0o6000 & !present;
        let rest = Wanted {
            mode: (lost != 0).then_some(present | lost),
            ..*wanted
        };
        set(export, caller, &mut node, &rest)?;
        make_attributes_lasting(self.asked, &node)?;
        make_lasting(&self.directory)?;
        Ok(node)
    }

    fn reply(mut self, node: &mut Node, writer: &mut Writer) -> Result<(), Fault> {
        let export = self.asked.export;
        let handle = export.handle_of(node)?;
        writer.u32(0);
        writer.bool(true);
        writer.opaque(&handle);
        attributes::write_after(writer, export, node);
        attributes::write_weak(writer, export, &mut self.directory);
        Ok(())
    }
}

/// Clients have taken off their own umask, and this process' is none of theirs. It belongs to the whole process, unless
/// a thread has one of its own (unshare(2), CLONE_FS); what else the thread does has it back afterwards.
struct OwnUmask(Mode);

impl OwnUmask {
    fn none() -> Result<OwnUmask, Fault> {
        thread_local!(static IS_OWN: Cell<bool> = const { Cell::new(false) });
        if !IS_OWN.get() {
            // SAFETY: this thread gets a copy of root directory, working directory and umask; no memory is concerned.
            if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
                return Err(crate::caller::last_errno().into());
            }
            IS_OWN.set(true);
        }
        Ok(OwnUmask(rustix::process::umask(Mode::empty())))
    }
}

impl Drop for OwnUmask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

//! Attributes of files as NFS writes them (`fattr3`), and those that are to be set (`sattr3`; RFC 1813, section 2.6).

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::fs::{UTIME_NOW, UTIME_OMIT, chmodat, chownat, utimensat};

use crate::caller::Caller;
use crate::export::{Export, Node};
use crate::status::{Fault, Status};
use crate::xdr::{Reader, Result as Read, Writer};

/// `ftype3`.
pub fn kind_number(kind: FileType) -> u32 {
    match kind {
        FileType::Directory => 2,
        FileType::BlockDevice => 3,
        FileType::CharacterDevice => 4,
        FileType::Symlink => 5,
        FileType::Socket => 6,
        FileType::Fifo => 7,
        FileType::RegularFile | FileType::Unknown => 1,
    }
}

pub fn write(writer: &mut Writer, export: &Export, status: &Stat) {
    let size = u64::try_from(status.st_size).unwrap_or(0);
    writer.u32(kind_number(FileType::from_raw_mode(status.st_mode)));
    // With set-user-ID, set-group-ID and sticky.
    writer.u32(status.st_mode & 0o7777);
    writer.u32(u32::try_from(status.st_nlink).unwrap_or(u32::MAX));
    writer.u32(status.st_uid);
    writer.u32(status.st_gid);
    writer.u64(size);
    writer.u64(crate::quota::bytes_of(status));
    writer.u32(rustix::fs::major(status.st_rdev));
    writer.u32(rustix::fs::minor(status.st_rdev));
    writer.u64(export.file_system_id);
    writer.u64(status.st_ino);
    write_time(writer, status.st_atime, status.st_atime_nsec);
    write_time(writer, status.st_mtime, status.st_mtime_nsec);
    write_time(writer, status.st_ctime, status.st_ctime_nsec);
}

/// Seconds are unsigned on the wire: from 1970 to 2106.
fn write_time(writer: &mut Writer, seconds: i64, nanoseconds: impl TryInto<u32>) {
    writer.u32(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX));
    writer.u32(nanoseconds.try_into().unwrap_or(0));
}

/// `post_op_attr`, of what is open.
pub fn write_after(writer: &mut Writer, export: &Export, node: &mut Node) {
    match node.look_again() {
        Ok(()) => {
            writer.bool(true);
            write(writer, export, &node.status);
        }
        Err(_) => writer.bool(false),
    }
}

/// `wcc_data`. What was before is left out: nothing here makes looking and changing one step, and a client that is told
/// so would miss what others changed between.
pub fn write_weak(writer: &mut Writer, export: &Export, node: &mut Node) {
    writer.bool(false);
    write_after(writer, export, node);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    Keep,
    Now,
    To { seconds: u32, nanoseconds: u32 },
}

/// What is to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: SetTime,
    pub modified: SetTime,
}

impl Wanted {
    pub fn nothing() -> Wanted {
        Wanted {
            mode: None,
            uid: None,
            gid: None,
            size: None,
            accessed: SetTime::Keep,
            modified: SetTime::Keep,
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Read<Wanted> {
        Ok(Wanted {
            mode: reader.option(Reader::u32)?,
            uid: reader.option(Reader::u32)?,
            gid: reader.option(Reader::u32)?,
            size: reader.option(Reader::u64)?,
            accessed: read_time(reader)?,
            modified: read_time(reader)?,
        })
    }

    /// Sets all but the size, as the caller may.
    pub(crate) fn set(&self, caller: &Caller, node: &Node) -> Result<(), Fault> {
        caller.act(|| {
            if self.uid.is_some() || self.gid.is_some() {
                // All ones means "leave it" to the kernel, and is nobody's number.
                if self.uid == Some(u32::MAX) || self.gid == Some(u32::MAX) {
                    return Err(Status::Inval.into());
                }
                let uid = self.uid.map(Uid::from_raw);
                let gid = self.gid.map(Gid::from_raw);
                chownat(&node.fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
            // After the owner: that takes set-user-ID away.
            if let Some(mode) = self.mode {
                if node.kind() == FileType::Symlink {
                    return Err(Status::NotSupp.into());
                }
                let mode = Mode::from_raw_mode(mode & 0o7777);
                chmodat(rustix::fs::CWD, node.magic(), mode, AtFlags::empty())?;
            }
            if (self.accessed, self.modified) != (SetTime::Keep, SetTime::Keep) {
                let times = Timestamps {
                    last_access: self.accessed.timespec()?,
                    last_modification: self.modified.timespec()?,
                };
                match node.kind() {
                    FileType::Symlink => {
                        utimensat(&node.fd, "", &times, AtFlags::EMPTY_PATH)?;
                    }
                    _ => utimensat(rustix::fs::CWD, node.magic(), &times, AtFlags::empty())?,
                }
            }
            Ok(())
        })
    }
}

impl SetTime {
    fn timespec(self) -> Result<Timespec, Fault> {
        let (tv_sec, tv_nsec) = match self {
            SetTime::Keep => (0, UTIME_OMIT),
            SetTime::Now => (0, UTIME_NOW),
            SetTime::To { nanoseconds, .. } if nanoseconds > 999_999_999 => {
                return Err(Status::Inval.into());
            }
            SetTime::To {
                seconds,
                nanoseconds,
            } => (seconds.into(), nanoseconds.into()),
        };
        Ok(Timespec { tv_sec, tv_nsec })
    }
}

fn read_time(reader: &mut Reader<'_>) -> Read<SetTime> {
    match reader.u32()? {
        0 => Ok(SetTime::Keep),
        1 => Ok(SetTime::Now),
        2 => Ok(SetTime::To {
            seconds: reader.u32()?,
            nanoseconds: reader.u32()?,
        }),
        _ => Err(crate::xdr::Garbage),
    }
}

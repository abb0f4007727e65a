//! What a procedure says of itself: `nfsstat3` (RFC 1813, section 2.6).

use rustix::io::Errno;

use crate::xdr::Garbage;

/// Why a procedure did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Perm = 1,
    NoEnt = 2,
    Io = 5,
    NxIo = 6,
    Acces = 13,
    Exist = 17,
    XDev = 18,
    NoDev = 19,
    NotDir = 20,
    IsDir = 21,
    Inval = 22,
    FBig = 27,
    NoSpc = 28,
    RoFs = 30,
    MLink = 31,
    NameTooLong = 63,
    NotEmpty = 66,
    DQuot = 69,
    Stale = 70,
    BadHandle = 10001,
    NotSync = 10002,
    BadCookie = 10003,
    NotSupp = 10004,
    TooSmall = 10005,
    ServerFault = 10006,
    BadType = 10007,
    Jukebox = 10008,
}

/// Why a call has no result of its procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Status(Status),
    Garbage,
}

impl From<Status> for Fault {
    fn from(status: Status) -> Fault {
        Fault::Status(status)
    }
}

impl From<Garbage> for Fault {
    fn from(_: Garbage) -> Fault {
        Fault::Garbage
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::Status(errno.into())
    }
}

impl From<Errno> for Status {
    fn from(errno: Errno) -> Status {
        match errno {
            Errno::PERM => Status::Perm,
            Errno::NOENT => Status::NoEnt,
            Errno::NXIO => Status::NxIo,
            // Beneath its root nothing is a link that would be followed: whoever put one there meanwhile gains nothing.
            Errno::ACCESS | Errno::LOOP => Status::Acces,
            Errno::EXIST => Status::Exist,
            Errno::XDEV => Status::XDev,
            Errno::NODEV => Status::NoDev,
            Errno::NOTDIR => Status::NotDir,
            Errno::ISDIR => Status::IsDir,
            Errno::INVAL => Status::Inval,
            Errno::FBIG => Status::FBig,
            Errno::NOSPC => Status::NoSpc,
            Errno::ROFS => Status::RoFs,
            Errno::MLINK => Status::MLink,
            Errno::NAMETOOLONG => Status::NameTooLong,
            Errno::NOTEMPTY => Status::NotEmpty,
            Errno::DQUOT => Status::DQuot,
            Errno::STALE => Status::Stale,
            Errno::OPNOTSUPP | Errno::NOSYS => Status::NotSupp,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::TXTBSY => {
                Status::Jukebox
            }
            _ => Status::Io,
        }
    }
}

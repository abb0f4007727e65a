//! One file of a root that lives, read so that what is kept is what it was at one instant.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use estive_beneath::Errno;
use estive_erofs::{Body, Content, DataArea, Error, Node, Source, Xattrs};
use rustix::fs::{
    Mode, OFlags, ResolveFlags, SeekFrom, Stat, fgetxattr, flistxattr, flistxattr_query, fstat,
    ioctl_ficlone, lgetxattr, llistxattr, llistxattr_query, openat2, seek,
};

use super::mapped::Mapped;
use super::signature::Signature;
use super::stop::Stop;

/// A file that changes while it is read is read so often in all, before it counts as torn for this round.
const TRIES: usize = 4;

/// XATTR_SIZE_MAX and XATTR_LIST_MAX.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Something that was read.
#[derive(Debug, Clone)]
pub(super) struct Captured {
    pub node: Node,
    pub signature: Signature,
    /// It never was as it was read.
    pub torn: bool,
}

/// Where data goes, and what it may be cloned into.
pub(super) struct Into<'a, 'f> {
    pub data: &'a mut DataArea<'f>,
    pub mapped: &'a Mapped,
    /// A file beside the image that a hot file may be cloned into, where the file system can.
    pub clone: Option<&'a File>,
    pub keep_times: bool,
    pub stop: &'a Stop,
    /// What may still be read that was read before: files that change take no more time and room than this.
    pub again_bytes: u64,
}

impl Into<'_, '_> {
    /// Whether a file of this size may be read once more; counts it.
    pub fn may_again(&mut self, size_bytes: u64) -> bool {
        let left = self.again_bytes.checked_sub(size_bytes);
        self.again_bytes = left.unwrap_or(self.again_bytes);
        left.is_some()
    }
}

/// Opens a name of a directory: no link, and no mount unless `crosses`.
pub(super) fn open_name(
    directory: &OwnedFd,
    name: &CStr,
    flags: OFlags,
    crosses: bool,
) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    if !crosses {
        resolve |= ResolveFlags::NO_XDEV;
    }
    loop {
        match openat2(
            directory,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            // A rename went on at the same time (openat2(2)).
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn open_to_read(directory: &OwnedFd, name: &CStr, crosses: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    match open_name(directory, name, flags | OFlags::NOATIME, crosses) {
        // Somebody else's file, without the right to leave its access time.
        Err(Errno::PERM) => open_name(directory, name, flags, crosses),
        other => other,
    }
}

/// Reads a file. `None`: it has gone, or is no file any more.
pub(super) fn file(
    directory: &OwnedFd,
    name: &CStr,
    crosses: bool,
    into: &mut Into,
) -> Result<Option<Captured>, Error> {
    for attempt in 1.. {
        let file = match open_to_read(directory, name, crosses) {
            Ok(file) => file,
            // A device or a socket lies there now, or it is gone.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(Error::Io(errno.into())),
        };
        let before = stat(&file)?;
        if !is_file(&before) {
            return Ok(None);
        }
        let signature = Signature::of(&before);
        let mut sound = into.mapped.uncover(&file, &signature);
        let before = stat(&file)?;
        let signature = Signature::of(&before);
        sound &= signature.settles();
        let mut node = node_of(&before, into.keep_times);
        node.xattrs = xattrs_of(&file)?;
        let mut from = Reader {
            file: &file,
            pads: false,
            stop: into.stop,
        };
        let stored = into
            .data
            .store(&mut from, signature.size_bytes, node.tail_fits());
        let content = match stored {
            Ok(content) => Some(content),
            Err(Error::Shrank { .. }) => None,
            Err(error) => return Err(error),
        };
        let after = Signature::of(&stat(&file)?);
        if let Some(content) = content {
            if sound && after == signature {
                node.body = Body::File(content);
                return Ok(Some(Captured {
                    node,
                    signature,
                    torn: false,
                }));
            }
            into.data.take_back(&content);
        }
        if attempt >= TRIES || !into.may_again(signature.size_bytes) {
            return torn(&file, into).map(Some);
        }
    }
    Ok(None)
}

/// The last try of a file that does not hold still: a clone of it, which the file system makes at one instant; else what
/// can be read of it.
fn torn(file: &OwnedFd, into: &mut Into) -> Result<Captured, Error> {
    let before = stat(file)?;
    let mut node = node_of(&before, into.keep_times);
    node.xattrs = xattrs_of(file)?;
    let signature = Signature::of(&before);
    if let Some(clone) = into.clone
        && ioctl_ficlone(clone, file).is_ok()
    {
        let size_bytes = clone.metadata()?.len();
        let mut from = Reader {
            file: clone,
            pads: false,
            stop: into.stop,
        };
        let content = into.data.store(&mut from, size_bytes, node.tail_fits())?;
        node.body = Body::File(content);
        return Ok(Captured {
            node,
            signature,
            torn: false,
        });
    }
    let mut from = Reader {
        file,
        pads: true,
        stop: into.stop,
    };
    let content = into
        .data
        .store(&mut from, signature.size_bytes, node.tail_fits())?;
    node.body = Body::File(content);
    Ok(Captured {
        node,
        signature,
        torn: true,
    })
}

fn stat(file: &OwnedFd) -> io::Result<Stat> {
    Ok(fstat(file)?)
}

fn is_file(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
}

/// A node of what `stat` says, with nothing in it.
pub(super) fn node_of(stat: &Stat, keep_times: bool) -> Node {
    let mut node = Node::directory(0);
    // All of a mode is in 16 bits.
    node.mode = stat.st_mode as u16;
    node.uid = stat.st_uid;
    node.gid = stat.st_gid;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind.is_char_device() || kind.is_block_device() {
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        node.device = minor & 0xff | major << 8 | (minor & !0xff) << 12;
    }
    if keep_times && stat.st_mtime >= 0 {
        node.mtime_s = stat.st_mtime as u64;
        node.mtime_ns = stat.st_mtime_nsec as u32;
    }
    node.body = if kind.is_dir() {
        Body::Directory(BTreeMap::new())
    } else if kind.is_file() {
        Body::File(Content::empty())
    } else {
        Body::Other
    };
    node
}

/// Attributes of an open file or directory.
pub(super) fn xattrs_of(file: &OwnedFd) -> io::Result<Xattrs> {
    collect_xattrs(
        flistxattr_query(file),
        |list| flistxattr(file, list),
        |name, value| fgetxattr(file, name, value),
    )
}

/// Attributes of a name that is not opened: a link, a device, a fifo, a socket.
pub(super) fn xattrs_of_name(directory: &OwnedFd, name: &CStr) -> io::Result<Xattrs> {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend(name.to_bytes());
    let path = std::ffi::OsStr::from_bytes(&path);
    collect_xattrs(
        llistxattr_query(path),
        |list| llistxattr(path, list),
        |name, value| lgetxattr(path, name, value),
    )
}

fn collect_xattrs(
    length: Result<usize, Errno>,
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    let mut found = Xattrs::new();
    // Most have none: the length is asked for first.
    match length {
        Ok(0) | Err(Errno::NOTSUP | Errno::NOENT) => return Ok(found),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = match list(&mut names) {
        Err(Errno::NOENT) => return Ok(found),
        other => other?,
    };
    let mut value = vec![0; XATTR_BYTES_MAX];
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        match get(name, &mut value) {
            Ok(count) => {
                found.insert(name.to_bytes().to_vec(), value[..count].to_vec());
            }
            // Taken away meanwhile, or not for our eyes.
            Err(Errno::NODATA | Errno::NOENT | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

/// Bytes of a file that is open.
struct Reader<'a, F> {
    file: F,
    stop: &'a Stop,
    /// Goes on with zeros where the file ends early.
    pads: bool,
}

impl<F: AsFd> Source for Reader<'_, F> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.stop.check_reading()?;
        let count = rustix::io::pread(&self.file, &mut *buffer, offset)?;
        if count == 0 && self.pads {
            buffer.fill(0);
            return Ok(buffer.len());
        }
        Ok(count)
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            // No file system that knows holes.
            Err(_) => Ok(Some(offset)),
        }
    }
}

//! A directory that is exported: a mount of its own, and nodes reached in it.
//!
//! The mount is a private copy of the directory's (`open_tree`), attached nowhere: nothing is mounted below it, `..` at
//! its top is the top, and an export to be read is a read-only mount, by the kernel.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::caller::{Caller, last_errno};
use crate::error::NfsError;
use crate::handle::{Key, Signer};
use crate::hidden::{Hidden, matches};
use crate::quota::{Quota, Usage};
use crate::status::{Fault, Status};
use crate::turns::Turns;

/// The longest name in a directory (NAME_MAX).
pub const NAME_BYTES: usize = 255;

/// What is exported, and to whom it looks how.
#[derive(Debug, Clone)]
pub struct ExportConfig {
    /// What clients mount: an absolute path, `/` or `/home`.
    pub name: String,
    pub directory: PathBuf,
    pub access: Access,
    /// Root of a client is nobody here.
    pub squash_root: bool,
    pub hidden: Hidden,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite(Quota),
}

/// An export that is open.
pub struct Export {
    pub(crate) config: ExportConfig,
    tree: OwnedFd,
    /// As `tree`, not only as a place: what the kernel asks for to open handles.
    anchor: OwnedFd,
    root: Stat,
    signer: Signer,
    pub(crate) turns: Arc<Turns>,
    pub(crate) usage: Option<Usage>,
    /// A number for the file system that is the same after a restart.
    pub(crate) file_system_id: u64,
}

impl Export {
    /// Blocks: an export with a quota is counted.
    pub fn open(config: ExportConfig, key: &Key) -> Result<Export, NfsError> {
        let path = config.directory.clone();
        if !is_export_name(&config.name) {
            return Err(NfsError::Name(config.name));
        }
        let directory = std::fs::canonicalize(&path).map_err(NfsError::io("finding", &path))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree =
            open_tree(rustix::fs::CWD, &directory, flags).map_err(|source| match source {
                Errno::PERM => NfsError::Rights {
                    path: path.clone(),
                    source,
                },
                other => NfsError::io("taking a mount of", &path)(other),
            })?;
        attach_nothing(&tree, config.access).map_err(NfsError::io("taking a mount of", &path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let anchor = openat(&tree, ".", flags, Mode::empty())
            .map_err(NfsError::io("opening the directory", &path))?;
        let root = fstat(&tree).map_err(NfsError::io("looking at", &path))?;
        let no_handles = |source| NfsError::NoHandles {
            path: path.clone(),
            source,
        };
        let signer = Signer::new(key, &config.name, &tree).map_err(no_handles)?;
        let handle = signer.handle_of(&tree).map_err(no_handles)?;
        signer
            .open(&anchor, &handle)
            .map_err(|_| NfsError::Rights {
                path: path.clone(),
                source: Errno::PERM,
            })?;
        let usage = match config.access {
            Access::ReadOnly => None,
            Access::ReadWrite(quota) => Some(
                Usage::count(anchor.as_fd(), quota)
                    .map_err(NfsError::io("counting the use of", &path))?,
            ),
        };
        let file_system_id = fnv(config.name.as_bytes());
        Ok(Export {
            config,
            tree,
            anchor,
            root,
            signer,
            turns: Turns::new(),
            usage,
            file_system_id,
        })
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn is_writable(&self) -> bool {
        self.config.access != Access::ReadOnly
    }

    /// How a caller looks to this export.
    pub(crate) fn caller(&self, caller: Caller) -> Caller {
        match self.config.squash_root {
            true => caller.squashed(),
            false => caller,
        }
    }

    pub(crate) fn owns(&self, handle: &[u8]) -> bool {
        self.signer.is_ours(handle)
    }

    pub(crate) fn root(&self) -> Result<Node, Fault> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Node::new(openat(&self.tree, ".", flags, Mode::empty())?)
    }

    pub(crate) fn handle_of(&self, node: &Node) -> Result<Vec<u8>, Fault> {
        self.handle_of_open(&node.fd)
    }

    /// Of what was opened beneath a directory of this export.
    pub(crate) fn handle_of_open(&self, node: &OwnedFd) -> Result<Vec<u8>, Fault> {
        Ok(self.signer.handle_of(node)?)
    }

    /// What a handle names, if it is still beneath the root.
    pub(crate) fn locate(&self, handle: &[u8]) -> Result<Node, Fault> {
        let node = Node::new(self.signer.open(&self.anchor, handle)?)?;
        self.contained(&node)?;
        Ok(node)
    }

    pub(crate) fn locate_directory(&self, handle: &[u8]) -> Result<Node, Fault> {
        let node = self.locate(handle)?;
        match node.kind() {
            FileType::Directory => Ok(node),
            _ => Err(Status::NotDir.into()),
        }
    }

    /// A directory may have been moved out of the root since its handle was given out: from there the way would lead
    /// everywhere. (A file so moved stays readable to who has its handle, as one that is open.)
    fn contained(&self, node: &Node) -> Result<(), Fault> {
        if node.status.st_dev != self.root.st_dev {
            return Err(Status::Stale.into());
        }
        if node.kind() != FileType::Directory {
            return Ok(());
        }
        // The kernel goes up from what is beneath the top of a mount, and from the top itself, and from nothing else
        // (`path_connected` in fs/namei.c). A path would tell too, but only up to PATH_MAX.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(&node.fd, "..", flags, Mode::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Err(Status::Stale.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What a name in a directory is, itself if it is a link, as the caller may.
    pub(crate) fn lookup(&self, caller: &Caller, at: &Node, name: &[u8]) -> Result<Node, Fault> {
        if name == b"." {
            return at.again();
        }
        let node = if name == b".." {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Node::new(caller.act(|| Ok(openat(&at.fd, "..", flags, Mode::empty())?))?)?
        } else {
            check_name(name)?;
            if self.hides(at)?.hides(name) {
                return Err(Status::NoEnt.into());
            }
            Node::new(caller.act(|| Ok(open_beneath(&at.fd, name, OFlags::PATH)?))?)?
        };
        match self.contained(&node) {
            Ok(()) => Ok(node),
            Err(Fault::Status(Status::Stale)) => Err(Status::Acces.into()),
            // Of this moment, as too many open files.
            Err(fault) => Err(fault),
        }
    }

    /// What is hidden in a directory.
    pub(crate) fn hides(&self, directory: &Node) -> Result<HiddenHere<'_>, Fault> {
        if self.config.hidden.is_empty() {
            return Ok(HiddenHere(Vec::new()));
        }
        Ok(HiddenHere(
            self.config.hidden.in_directory(&directory.path()?),
        ))
    }

    /// The name of something to make, to change or to take away in a directory.
    pub(crate) fn check_new_name(&self, at: &Node, name: &[u8]) -> Result<(), Fault> {
        if self.usage.is_none() {
            return Err(Status::RoFs.into());
        }
        match name {
            b"." => return Err(Status::Inval.into()),
            b".." => return Err(Status::Exist.into()),
            _ => check_name(name)?,
        }
        match self.hides(at)?.hides(name) {
            true => Err(Status::Acces.into()),
            false => Ok(()),
        }
    }

    /// That something may be changed here at all.
    pub(crate) fn writable(&self) -> Result<&Usage, Fault> {
        self.usage.as_ref().ok_or(Status::RoFs.into())
    }

    pub(crate) fn anchor(&self) -> BorrowedFd<'_> {
        self.anchor.as_fd()
    }
}

/// Parts of patterns that speak of names in one directory.
pub(crate) struct HiddenHere<'a>(Vec<&'a [u8]>);

impl HiddenHere<'_> {
    pub(crate) fn hides(&self, name: &[u8]) -> bool {
        !matches!(name, b"." | b"..") && self.0.iter().any(|part| matches(part, name))
    }
}

/// A file, directory or anything else, open as a place, and what it was when it was opened.
pub(crate) struct Node {
    pub(crate) fd: OwnedFd,
    pub(crate) status: Stat,
}

impl Node {
    fn new(fd: OwnedFd) -> Result<Node, Fault> {
        let status = fstat(&fd)?;
        Ok(Node { fd, status })
    }

    fn again(&self) -> Result<Node, Fault> {
        Node::new(rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)?)
    }

    /// What it is now.
    pub(crate) fn look_again(&mut self) -> Result<(), Fault> {
        self.status = fstat(&self.fd)?;
        Ok(())
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.status.st_mode)
    }

    pub(crate) fn is_owned_by(&self, caller: &Caller) -> bool {
        self.status.st_uid == caller.uid
    }

    /// A name for the node itself, to calls that take no descriptor of a place.
    pub(crate) fn magic(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// From the export's root, `/`.
    pub(crate) fn path(&self) -> Result<Vec<u8>, Fault> {
        let path = readlinkat(rustix::fs::CWD, self.magic(), Vec::new())?;
        Ok(path.into_bytes())
    }

    /// A regular file for its data, or a directory for its names. Who owns a file, or may run it, may read it: a client
    /// asks when it opens, and the rights of a file that is open may change (RFC 1813, section 4.4).
    pub(crate) fn open(&self, caller: &Caller, how: OFlags) -> Result<OwnedFd, Fault> {
        match self.kind() {
            FileType::RegularFile | FileType::Directory => {}
            _ => return Err(Status::Inval.into()),
        }
        let flags = how | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let open = || Ok(openat(rustix::fs::CWD, self.magic(), flags, Mode::empty())?);
        match caller.act(open) {
            Err(Fault::Status(Status::Acces | Status::Perm))
                if self.is_owned_by(caller) || (how == OFlags::RDONLY && self.may_run(caller)) =>
            {
                open()
            }
            other => other,
        }
    }

    fn may_run(&self, caller: &Caller) -> bool {
        self.kind() == FileType::RegularFile && self.may(caller, libc::X_OK)
    }

    /// Whether the caller may (`R_OK`, `W_OK`, `X_OK`).
    pub(crate) fn may(&self, caller: &Caller, what: libc::c_int) -> bool {
        let asked = caller.act(|| {
            // SAFETY: a descriptor, an empty path and numbers.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_faccessat2,
                    self.fd.as_raw_fd(),
                    c"".as_ptr(),
                    what,
                    // The identity for file systems, which `act` sets, and not the real one.
                    libc::AT_EMPTY_PATH | libc::AT_EACCESS,
                )
            };
            match result {
                0 => Ok(()),
                _ => Err(Fault::from(last_errno())),
            }
        });
        asked.is_ok()
    }
}

/// Opens one component beneath a directory, through no link.
pub(crate) fn open_beneath(
    directory: impl AsFd,
    name: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    open_new_beneath(directory, name, flags, Mode::empty())
}

/// Likewise, with the mode of what is made.
pub(crate) fn open_new_beneath(
    directory: impl AsFd,
    name: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match openat2(&directory, name, flags, mode, resolve) {
            // A rename went on at the same time (openat2(2)).
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// A name in a directory, and neither the directory itself nor the one above.
fn check_name(name: &[u8]) -> Result<(), Status> {
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Status::Inval);
    }
    match name.len() {
        ..=NAME_BYTES => Ok(()),
        _ => Err(Status::NameTooLong),
    }
}

fn is_export_name(name: &str) -> bool {
    let is_component = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    name == "/"
        || (name.len() <= crate::mount::PATH_BYTES
            && name
                .strip_prefix('/')
                .is_some_and(|rest| rest.split('/').all(is_component)))
}

/// Nothing that lies in an export acts here: no device, no other user's rights; what is only read stays as it is.
/// (`noexec` would take the right to run files from clients too: `ACCESS` asks the kernel.)
fn attach_nothing(tree: &OwnedFd, access: Access) -> Result<(), Errno> {
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if access == Access::ReadOnly {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = libc::mount_attr {
        attr_set: attributes | libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        // What is mounted below the directory later is not there either.
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the struct is as long as is said; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// FNV-1a: a number for a name, no more.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Where an export of this machine begins, for messages.
impl std::fmt::Debug for Export {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let directory: &Path = &self.config.directory;
        write!(formatter, "{} of {}", self.config.name, directory.display())
    }
}

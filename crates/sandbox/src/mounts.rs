//! The few mount operations that the view is made of, each on descriptors: no path of the host is walked twice.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};
use rustix::path::Arg;
use rustix::process::{chdir, fchdir, pivot_root};

/// Read-only, without devices and without programs that run as their owner.
pub(crate) const SEALED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// A new file system that is nowhere yet.
pub(crate) fn file_system(
    kind: &str,
    options: &[(&str, String)],
    read_only: bool,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let making = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(making.as_fd(), *name, value.as_str())?;
    }
    if read_only {
        fsconfig_set_flag(making.as_fd(), "ro")?;
    }
    fsconfig_create(making.as_fd())?;
    fsmount(making.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Its top directory, to be read.
pub(crate) fn top_of(mount: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(mount, c".", flags, Mode::empty())
}

/// What `place` (a file or a directory, without what is mounted below it) as a mount of its own that is nowhere yet.
pub(crate) fn copy_of(place: impl AsFd, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(place, c"", flags)?;
    restrict(&tree, attributes)?;
    Ok(tree)
}

/// Adds attributes to one mount.
pub(crate) fn restrict(mount: &OwnedFd, attributes: MountAttrFlags) -> Result<()> {
    let wanted = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let empty: &CStr = c"";
    // SAFETY: the path ends with a NUL and `wanted` is as large as is said; the kernel only reads both.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// Puts a mount that is nowhere yet on `path` in `directory`.
pub(crate) fn put(mount: &OwnedFd, directory: impl AsFd, path: impl Arg) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, c"", directory, path, flags)
}

/// Makes `root`, which is mounted on `/`, this process's root, and lets go of the host's with all that is mounted in
/// it.
pub(crate) fn enter(root: &OwnedFd) -> std::result::Result<(), String> {
    let doing = |error: Errno| format!("entering the new root: {error}");
    fchdir(root).map_err(doing)?;
    // pivot_root(2): the old root then lies over the new one, and is the one that is unmounted.
    pivot_root(".", ".").map_err(doing)?;
    unmount(".", UnmountFlags::DETACH).map_err(doing)?;
    chdir("/").map_err(doing)
}

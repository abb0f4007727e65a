//! A place of a test's own that takes every kind of node and attribute.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A tmpfs at a new directory, seen by this thread and its children alone. Needs root.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        // SAFETY: only this thread's view of mounts changes; no memory or descriptor is unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("tests of trees run as root");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let place = tempfile::tempdir().unwrap();
        let flags = MountFlags::empty();
        mount("tmpfs", place.path(), "tmpfs", flags, c"mode=0755").unwrap();
        Self(place)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The directory below is removed by its owner.
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

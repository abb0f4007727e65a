//! A file system mounted nowhere: nobody else sees it, and it goes with the last descriptor in it, also when its
//! holder is killed.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// What the kernel says of a mount that it refuses, at most: one message is one read.
const MESSAGE_BYTES_MAX: usize = 1024;

/// What a file system is told besides `ro`, to be read from a copy of its device while it is mounted itself.
///
/// A journal that is not clean is replayed into the snapshot, which is writable below: without that, what stands in
/// the journal alone would be missing. `None`: it is not known what would have to be said.
fn options(file_system: &str) -> Option<&'static [(&'static str, Option<&'static str>)]> {
    match file_system {
        // The device may say `panic`, and a snapshot that ran full is full of errors.
        "ext2" | "ext3" | "ext4" => Some(&[("errors", Some("continue"))]),
        // It has the UUID of what it is a snapshot of.
        "xfs" => Some(&[("nouuid", None)]),
        _ => None,
    }
}

/// Whether a file system of this type can be read from a snapshot of its device.
pub(super) fn is_known(file_system: &str) -> bool {
    options(file_system).is_some()
}

/// Mounts what is on `device`, to be read.
///
/// # Errors
/// In a few words, with what the kernel said.
pub(super) fn mount(file_system: &str, device: &Path) -> Result<OwnedFd, String> {
    let options = options(file_system).unwrap_or_default();
    let context = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| format!("mounting {file_system}: {errno}"))?;
    let mounted = || -> Result<OwnedFd, Errno> {
        fsconfig_set_flag(&context, "ro")?;
        fsconfig_set_string(&context, "source", device)?;
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_set_string(&context, *key, *value)?,
                None => fsconfig_set_flag(&context, *key)?,
            }
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    mounted().map_err(|errno| {
        let mut message = [0; MESSAGE_BYTES_MAX];
        let length = rustix::io::read(&context, &mut message).unwrap_or(0);
        let message = String::from_utf8_lossy(&message[..length]);
        format!("mounting {}: {errno} {}", device.display(), message.trim())
            .trim_end()
            .to_owned()
    })
}

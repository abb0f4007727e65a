//! Mounts: the kernel's own file systems, and the sealed root.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use estive_boot::disk;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::MountFlags;

use crate::devices;
use crate::failure::{Result, While};

/// Where everything is before it is joined.
pub const BEFORE: &str = "/u";
/// What the loaders of `root=` mount that is not a layer itself, in a tmpfs; afterwards `/.unions/under`.
pub const UNDER: &str = "/u/under";
/// The layers of a clone before they are joined; afterwards under `/.unions` of the union.
pub const LAYER: &str = "/u/layer";
pub const ROOT: &str = "/u/root";
pub const MEMORY: &str = "/u/memory";
pub const MODULES: &str = "/u/modules";
/// The union before it is the root.
pub const UNION: &str = "/new";

/// A cold tar of /usr over a sealed root took 11,780 requests by the kernel's 128, 9,662 by this and 9,439 by 1024: but a
/// program that is run has as much read around each page it lacks.
const READ_AHEAD_KIB: &str = "512";

/// `/proc`, `/sys` and `/dev`.
pub fn mount_kernel_file_systems() -> Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount("proc", "/proc", "proc", quiet, "")?;
    mount("sysfs", "/sys", "sysfs", quiet, "")?;
    mount(
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::NOSUID,
        "mode=0755",
    )
}

/// The sealed root at [`ROOT`].
pub fn mount_root() -> Result<()> {
    let path = devices::disk(disk::ROOT)?;
    let path = path.to_string_lossy();
    mount(&path, ROOT, "erofs", MountFlags::RDONLY, "").map_err(|mut failure| {
        failure.0 += " (the root disk must be an EROFS image, as `estive` seals it)";
        failure
    })?;
    read_further_ahead(ROOT);
    Ok(())
}

/// What comes over the network is asked for in larger pieces than the kernel would: each request costs a way to the host's
/// cache and back. A kernel that does not take it reads as it does.
pub fn read_further_ahead(directory: &str) {
    let Ok(top) = fs::metadata(directory) else {
        return;
    };
    let (major, minor) = (rustix::fs::major(top.dev()), rustix::fs::minor(top.dev()));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let _ = fs::write(setting, READ_AHEAD_KIB);
}

/// Mounts, and makes the mount point first.
pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<()> {
    fs::create_dir_all(target).doing(|| format!("making {target}"))?;
    let options = std::ffi::CString::new(options).doing(|| format!("the options of {target}"))?;
    rustix::mount::mount(source, target, kind, flags, options.as_c_str())
        .doing(|| format!("mounting {source} at {target} as {kind}"))
}

pub fn open_directory(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).doing(|| format!("opening {path}"))
}

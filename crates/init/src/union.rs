//! Joining root, layer and memory into one tree, with the layers reachable under `/.unions`.

mod known;
pub mod stack;
mod upper;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};

use estive_boot::disk;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, chmodat, fstat, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_move, unmount};

use crate::devices;
use crate::failure::{Result, While, fail};
use crate::modules::kernel_release;
use crate::root::{LAYER, MEMORY, MODULES, ROOT, UNION, mount, open_directory};

/// Where the joined layers stay reachable, for root only: a file that a layer hides or replaces
/// may have been replaced for a reason.
const UNIONS: &str = ".unions";
/// What every directory with a kernel's modules has, beside them.
const MODULES_LIST: &str = "modules.dep";
/// What systemd itself gives `/run` (its `TMPFS_LIMITS_RUN`).
const RUN_OPTIONS: &str = "mode=0755,size=20%,nr_inodes=800k";
/// What an init expects to find, for roots that do not have them.
const MOUNT_POINTS: [(&str, u32); 5] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Mounts the union at [`UNION`], with modules of this kernel if the root has none, and moves the
/// layers into it.
pub fn join() -> Result<()> {
    let plain = MountFlags::empty();
    mount("tmpfs", MEMORY, "tmpfs", plain, "mode=0755")?;
    let (upper, work) = (format!("{MEMORY}/upper"), format!("{MEMORY}/work"));
    for directory in [&upper, &work] {
        fs::create_dir(directory).doing(|| format!("making {directory}"))?;
    }
    // The union's top directory has the attributes of its uppermost one.
    let top = fs::metadata(ROOT).doing(|| format!("looking at {ROOT}"))?;
    chown(&upper, Some(top.uid()), Some(top.gid()))
        .and_then(|()| fs::set_permissions(&upper, top.permissions()))
        .doing(|| format!("giving {upper} the owner and mode of the root"))?;
    let options = format!("lowerdir={LAYER}:{ROOT},upperdir={upper},workdir={work}");
    mount("overlay", UNION, "overlay", plain, &options)?;

    let union = open_directory(UNION)?;
    for (path, mode) in MOUNT_POINTS {
        directory_in(&union, path, mode)?;
    }
    let has_modules = mount_modules(&union)?;
    directory_in(&union, UNIONS, 0o700)?;
    let layers = [
        (LAYER, "layer", true),
        (ROOT, "root", true),
        (MEMORY, "memory", true),
        (MODULES, "modules", has_modules),
    ];
    for (mounted, name, _) in layers.iter().filter(|(_, _, present)| *present) {
        let target = directory_in(&union, &format!("{UNIONS}/{name}"), 0o755)?;
        mount_move(*mounted, of_descriptor(&target))
            .doing(|| format!("moving {mounted} to /{UNIONS}/{name}"))?;
    }
    Ok(())
}

/// The modules disk, if it has modules for this kernel and the root has none. Says whether.
///
/// A directory without them is not modules: the frame of a stack has one for this very mount.
fn mount_modules(union: &OwnedFd) -> Result<bool> {
    let release = kernel_release();
    let place = format!("lib/modules/{release}");
    if open_in(union, &format!("{place}/{MODULES_LIST}")).is_ok() {
        return Ok(false);
    }
    // An initial RAM file system made for another root may not have the driver.
    if !knows_erofs() {
        return Ok(false);
    }
    // It is attached to every clone; one booted by hand may do without.
    let Some(path) = devices::present_disk(disk::MODULES) else {
        return Ok(false);
    };
    mount(
        &path.to_string_lossy(),
        MODULES,
        "erofs",
        MountFlags::RDONLY,
        "",
    )?;
    let source = format!("{MODULES}/{release}");
    if !fs::metadata(&source).is_ok_and(|found| found.is_dir()) {
        unmount(MODULES, UnmountFlags::empty()).doing(|| format!("unmounting {MODULES}"))?;
        return Ok(false);
    }
    let target = directory_in(union, &place, 0o755)?;
    mount_bind(&source, of_descriptor(&target))
        .doing(|| format!("mounting the modules of {release} at /{place}"))?;
    Ok(true)
}

fn knows_erofs() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known
        .lines()
        .any(|line| line.split('\t').next_back() == Some("erofs"))
}

/// Memory at `run`, if nothing is mounted there yet. An init that finds it so keeps it.
pub fn mount_run(union: &OwnedFd) -> Result<()> {
    let run = directory_in(union, "run", 0o755)?;
    let device = |directory: &OwnedFd| {
        fstat(directory)
            .map(|status| status.st_dev)
            .doing(|| "looking at /run in the root".into())
    };
    if device(&run)? != device(union)? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::STRICTATIME;
    mount("tmpfs", &of_descriptor(&run), "tmpfs", flags, RUN_OPTIONS)
}

/// A directory of the union, made if it is not there. Links are the union's own: `lib` may be one
/// to `usr/lib`, and an absolute one begins at the union.
pub fn directory_in(union: &OwnedFd, path: &str, mode: u32) -> Result<OwnedFd> {
    let ends = path.match_indices('/').map(|(end, _)| end);
    let mut parent = open_in(union, ".").doing(|| "opening the union".into())?;
    for end in ends.chain([path.len()]) {
        let so_far = &path[..end];
        parent = match open_in(union, so_far) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => {
                let name = so_far.rsplit('/').next().unwrap_or(so_far);
                let mode = if end == path.len() { mode } else { 0o755 };
                let mode = Mode::from_raw_mode(mode);
                // The mask of PID 1 would take bits from /tmp.
                mkdirat(&parent, name, mode)
                    .and_then(|()| chmodat(&parent, name, mode, AtFlags::empty()))
                    .doing(|| format!("making /{so_far} in the root"))?;
                open_in(union, so_far).doing(|| format!("opening /{so_far} in the root"))?
            }
            Err(errno) => {
                return fail(format!(
                    "/{so_far} of the root cannot be used as a directory: {errno}"
                ));
            }
        };
    }
    Ok(parent)
}

fn open_in(union: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(union, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

/// A path to what a descriptor refers to, for calls that take a path only.
pub fn of_descriptor(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

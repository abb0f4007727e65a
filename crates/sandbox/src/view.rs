//! The world of a script: the reference's root read-only, its set, its output, and nothing else.
//!
//! A small file system in memory is the new root. Each directory and file at the top of the reference is bound into
//! it, read-only and without what is mounted below; links are made again; what a running system fills by itself
//! (`/dev`, `/proc`, `/run`, `/sys`, `/tmp`) is empty. Then the host's root is let go of.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat, fstat,
    fstatvfs, mkdirat, open, openat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::fchdir;

use crate::cage::Outside;
use crate::limits::{Limits, shown_bytes};
use crate::mounts::{self, SEALED};
use crate::request::ScriptRequest;
use crate::set_files;

/// Where the script finds its set and leaves its output, without the leading slash.
pub(crate) const SET: &str = "estive/set";
pub(crate) const OUTPUT: &str = "estive/out";

/// Names at the top of the reference whose content is not the reference's: a running system fills them. And ours.
const EMPTY: [&CStr; 5] = [c"dev", c"proc", c"run", c"sys", c"tmp"];
const OURS: &CStr = c"estive";

/// Where a sealed image stands until its parts are bound.
const IMAGE: &CStr = c"estive-image";

/// Whether a name at the top of the reference shows nothing of it.
pub(crate) fn is_empty_in_the_view(name: &CStr) -> bool {
    EMPTY.contains(&name) || name == OURS
}

/// Devices of the view, with their numbers (the kernel's devices.txt).
const DEVICES: [(&str, u32, u32); 5] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
];

/// A root with more names at its top is none.
const MAX_TOP_NAMES: usize = 512;

/// The new root holds the set and some directories.
const ROOT_BYTES: u64 = 128 << 20;
const ROOT_FILES: u64 = 32_000;

/// This process's own root, once made.
pub(crate) struct View {
    output: OwnedFd,
    scratch: OwnedFd,
}

impl View {
    /// Makes the view, and makes it this process's root.
    pub(crate) fn make(request: &ScriptRequest, outside: &Outside) -> Result<Self, String> {
        let root = new_root()?;
        let reference = reference(&request.root, &root, outside)?;
        for name in names_at_the_top(&reference, &request.root)? {
            show(&reference, &name, &root, request)?;
        }
        let directory = |path: &str| {
            mkdirat(&root, path, Mode::from_raw_mode(0o755))
                .map_err(|error| format!("making /{path}: {error}"))
        };
        for path in ["dev", "tmp", "estive", SET, OUTPUT] {
            directory(path)?;
        }
        devices(&root)?;
        let output = writable(OUTPUT, &root, request, outside)?;
        let scratch = writable("tmp", &root, request, outside)?;
        set_files::write(&request.set, &root, SET, outside)?;
        take_image_away(&root).map_err(|error| format!("leaving the sealed image: {error}"))?;
        mounts::restrict(&root, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(|error| format!("making the root read-only: {error}"))?;
        mounts::enter(&root)?;
        Ok(Self { output, scratch })
    }

    /// What the script left, only to be looked at when it is over.
    pub(crate) fn output(&self) -> &OwnedFd {
        &self.output
    }

    /// Whether it has filled what it may write to, and what.
    pub(crate) fn full(&self, limits: &Limits) -> Option<String> {
        for (place, what) in [(&self.output, "its output"), (&self.scratch, "its /tmp")] {
            let Ok(state) = fstatvfs(place) else {
                continue;
            };
            if state.f_bfree == 0 {
                let most = shown_bytes(limits.output_bytes);
                return Some(format!("filled {what}, which holds {most}"));
            }
            if state.f_ffree == 0 {
                return Some(format!(
                    "filled {what}, which holds {} files",
                    limits.output_files
                ));
            }
        }
        None
    }
}

/// The reference's top directory.
fn reference(path: &Path, root: &OwnedFd, outside: &Outside) -> Result<OwnedFd, String> {
    let shown = path.display();
    let opened = open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| format!("opening the reference's root {shown}: {error}"))?;
    let stat = fstat(&opened).map_err(|error| format!("looking at {shown}: {error}"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(opened),
        FileType::RegularFile if !outside.is_root => Err(format!(
            "{shown} is an image, which only root can look into: give the directory that it was sealed from, or run \
             as root"
        )),
        FileType::RegularFile => image(&File::from(opened), root)
            .map_err(|error| format!("mounting the sealed image {shown}: {error}")),
        _ => Err(format!(
            "the reference's root {shown} is neither a directory nor a sealed image"
        )),
    }
}

fn image(file: &File, root: &OwnedFd) -> Result<OwnedFd, std::io::Error> {
    let (device, path) = estive_loop_device::attach(file, Path::new("root"), true)?;
    let path = path.display().to_string();
    let mounted = mounts::file_system("erofs", &[("source", path)], true, SEALED)?;
    drop(device);
    // Its parts can be bound only while it stands somewhere.
    mkdirat(root, IMAGE, Mode::from_raw_mode(0o755))?;
    mounts::put(&mounted, root, IMAGE)?;
    Ok(mounts::top_of(&mounted)?)
}

/// Its parts stay.
fn take_image_away(root: &OwnedFd) -> Result<(), Errno> {
    match statat(root, IMAGE, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    fchdir(root.as_fd())?;
    unmount(IMAGE, UnmountFlags::DETACH)?;
    unlinkat(root, IMAGE, AtFlags::REMOVEDIR)
}

fn new_root() -> Result<OwnedFd, String> {
    let options = [
        ("size", ROOT_BYTES.to_string()),
        ("nr_inodes", ROOT_FILES.to_string()),
        ("mode", "755".to_owned()),
    ];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    mounts::file_system("tmpfs", &options, false, attributes)
        .and_then(|root| {
            mounts::put(&root, CWD, "/")?;
            Ok(root)
        })
        .map_err(|error| format!("making an empty root: {error}"))
}

fn names_at_the_top(reference: &OwnedFd, path: &Path) -> Result<Vec<std::ffi::CString>, String> {
    let listing =
        |error: Errno| format!("listing the reference's root {}: {error}", path.display());
    let mut names = Vec::new();
    for entry in Dir::read_from(reference).map_err(listing)? {
        let entry = entry.map_err(listing)?;
        let name = entry.file_name();
        if name == c"." || name == c".." || name == OURS || name == IMAGE {
            continue;
        }
        if names.len() >= MAX_TOP_NAMES {
            return Err(format!(
                "{} has more than {MAX_TOP_NAMES} names at its top: it is no root",
                path.display()
            ));
        }
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

/// Shows one name at the top of the reference.
fn show(
    reference: &OwnedFd,
    name: &CStr,
    root: &OwnedFd,
    request: &ScriptRequest,
) -> Result<(), String> {
    let doing = |error: Errno| {
        let more = match error {
            // The kernel does not let an ordinary user look below what is mounted there.
            Errno::INVAL => {
                " (something is mounted below it: give the sealed image as root, or a root without mounts)"
            }
            _ => "",
        };
        format!(
            "showing {} of the reference's root {}: {error}{more}",
            name.to_string_lossy(),
            request.root.display()
        )
    };
    let stat = statat(reference, name, AtFlags::SYMLINK_NOFOLLOW).map_err(doing)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = readlinkat(reference, name, Vec::new()).map_err(doing)?;
            // Ours are made later as directories.
            if name != c"dev" && name != c"tmp" {
                symlinkat(target, root, name).map_err(doing)?;
            }
        }
        FileType::Directory if name == c"dev" || name == c"tmp" => {}
        FileType::Directory => {
            mkdirat(root, name, Mode::from_raw_mode(0o755)).map_err(doing)?;
            if !EMPTY.contains(&name)
                && let Some(place) = beneath(reference, name).map_err(doing)?
            {
                bind(&place, root, name, SEALED).map_err(doing)?;
            }
        }
        FileType::RegularFile => {
            if let Some(place) = beneath(reference, name).map_err(doing)? {
                empty_file(root, name).map_err(doing)?;
                bind(&place, root, name, SEALED).map_err(doing)?;
            }
        }
        // A device, a pipe or a socket is nothing to be looked at.
        _ => {}
    }
    Ok(())
}

/// Opens one name; `None` when another file system is mounted there, which is not the reference's.
fn beneath(directory: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::XDEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn empty_file(directory: &OwnedFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}

fn bind(
    place: &OwnedFd,
    root: &OwnedFd,
    name: impl rustix::path::Arg,
    attributes: MountAttrFlags,
) -> Result<(), Errno> {
    let copy = mounts::copy_of(place, attributes)?;
    mounts::put(&copy, root, name)
}

fn devices(root: &OwnedFd) -> Result<(), String> {
    for (name, major, minor) in DEVICES {
        let path = format!("dev/{name}");
        let doing = |error: Errno| format!("showing /{path}: {error}");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = open(format!("/{path}"), flags, Mode::empty()).map_err(doing)?;
        let stat = fstat(&place).map_err(doing)?;
        if !is_device(&stat, major, minor) {
            return Err(format!("/{path} of this machine is not what it should be"));
        }
        empty_file(root, path.as_str()).map_err(doing)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        bind(&place, root, path.as_str(), attributes).map_err(doing)?;
    }
    Ok(())
}

fn is_device(stat: &Stat, major: u32, minor: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor)
}

/// An empty file system in memory that belongs to the script.
fn writable(
    path: &str,
    root: &OwnedFd,
    request: &ScriptRequest,
    outside: &Outside,
) -> Result<OwnedFd, String> {
    let limits = &request.limits;
    let options = [
        ("size", limits.output_bytes.to_string()),
        // One is its top directory.
        ("nr_inodes", (limits.output_files + 1).to_string()),
        ("mode", "755".to_owned()),
        ("uid", outside.id.to_string()),
        ("gid", outside.id.to_string()),
    ];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mounts::file_system("tmpfs", &options, false, attributes)
        .and_then(|made| {
            mounts::put(&made, root, path)?;
            mounts::top_of(&made)
        })
        .map_err(|error| format!("making /{path}: {error}"))
}

/// Gives a file or directory of the new root to the script.
pub(crate) fn give(directory: &OwnedFd, name: &str, outside: &Outside) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(outside.id), Gid::from_raw(outside.id));
    chownat(
        directory,
        name,
        Some(user),
        Some(group),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

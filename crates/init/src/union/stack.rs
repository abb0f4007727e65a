//! Joining the layers of a line of any length, with each reachable under `/.unions`.
//!
//! ```text
//! top is memory, or holds nothing    overlay(upper on top; layers, frame)
//! top holds files of its own         overlay(.estive/upper on top; overlay(hide, top, layers, frame))
//! nothing is written to              overlay(layers, frame)
//! one layer that is written to       itself
//! ```
//!
//! The kernel refuses an upper directory inside a lower one; a lower overlay over the top's own
//! tree is no such thing. `frame` is a lowest layer with the mount points that an init expects:
//! nothing is written to a disk for them. `hide` has a whiteout over `.estive`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use estive_boot::disk;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, mount_bind, mount_move};

use super::{MOUNT_POINTS, UNIONS, directory_in, mount_modules, of_descriptor, open_in};
use crate::devices;
use crate::failure::{Result, While, fail};
use crate::loaders::{Layer, Layers, OWN_DIRECTORY};
use crate::modules::kernel_release;
use crate::root::{UNDER, UNION, mount, open_directory};

const FRAME: &str = "/u/under/frame";
const HIDE: &str = "/u/under/hide";
/// The lower of two overlays.
const LOWER: &str = "/u/under/lower";
/// What a clone's layer was settled over, when that is more than one layer.
const BELOW_CLONES: &str = "/u/under/below";
/// What mount(2) takes of options, with its zero byte.
const OPTION_BYTES_MAX: usize = 4095;

/// Mounts the union at [`UNION`] and moves the layers into it.
pub fn join(layers: &Layers) -> Result<()> {
    let Some((top, below)) = layers.all.split_last() else {
        return fail("root= names no device that could be mounted");
    };
    make_frame(layers)?;
    let plain = MountFlags::empty();
    match &top.upper {
        Some(upper) if below.is_empty() && upper.starts_with(&top.directory) => {
            fs::create_dir_all(UNION).doing(|| format!("making {UNION}"))?;
            mount_bind(&top.directory, UNION).doing(|| "making the one layer the root".into())?;
        }
        None => overlay(UNION, &seen(&layers.all), None)?,
        Some(place) => {
            let mut lower = seen(&layers.all);
            if top.is_seen {
                hide_own_directory()?;
                lower.push(HIDE.into());
            }
            if top.is_seen && place.starts_with(&top.directory) {
                overlay(LOWER, &lower, None)?;
                let upper = make_upper(place, Path::new(LOWER))?;
                mount_overlay(UNION, &format!("lowerdir={LOWER},{upper}"), plain)?;
            } else {
                let topmost = lower.last().cloned().unwrap_or_else(|| FRAME.into());
                let upper = make_upper(place, &topmost)?;
                overlay(UNION, &lower, Some(&upper))?;
            }
        }
    }
    move_layers(layers)
}

/// What stands to the left of a clone's layer, as one tree to settle it over.
pub fn below_clones(layers: &Layers) -> Result<PathBuf> {
    match &layers.all[..] {
        [] => fail("there is nothing to its left for a layer to lie over"),
        [below] => Ok(below.directory.clone()),
        _ => {
            fs::create_dir_all(FRAME).doing(|| format!("making {FRAME}"))?;
            overlay(BELOW_CLONES, &seen(&layers.all), None)?;
            Ok(BELOW_CLONES.into())
        }
    }
}

/// What stands to the left of a device as one tree at `at`, to run a program of it.
pub fn join_read_only(layers: &Layers, at: &Path) -> Result<()> {
    make_frame(layers)?;
    overlay(&at.to_string_lossy(), &seen(&layers.all), None)
}

/// The trees that are seen, bottom first.
fn seen(layers: &[Layer]) -> Vec<PathBuf> {
    let seen = layers.iter().filter(|layer| layer.is_seen);
    seen.map(|layer| layer.directory.clone()).collect()
}

/// An overlay of these, bottom first, over the frame.
fn overlay(at: &str, lower: &[PathBuf], upper: Option<&str>) -> Result<()> {
    let mut options = String::from("lowerdir=");
    for directory in lower.iter().rev() {
        options += &format!("{}:", directory.display());
    }
    options += FRAME;
    let mut flags = MountFlags::RDONLY;
    if let Some(upper) = upper {
        options += &format!(",{upper}");
        flags = MountFlags::empty();
    }
    mount_overlay(at, &options, flags)
}

fn mount_overlay(at: &str, options: &str, flags: MountFlags) -> Result<()> {
    if options.len() > OPTION_BYTES_MAX {
        return fail("so many layers cannot be joined: their names do not fit one mount");
    }
    mount("overlay", at, "overlay", flags, options).map_err(|mut failure| {
        failure.0 += &format!(" ({options}; the kernel's log says why)");
        failure
    })
}

/// `upper` and `work` of an overlay. The upper directory has the owner and mode of what it covers:
/// they are the union's.
fn make_upper(place: &Path, covered: &Path) -> Result<String> {
    let (upper, work) = (place.join("upper"), place.join("work"));
    let is_new = !upper.exists();
    for directory in [&upper, &work] {
        let making = || {
            format!(
                "making {} for what is written (is it a file system of Linux with room?)",
                directory.display()
            )
        };
        fs::create_dir_all(directory).doing(making)?;
    }
    if is_new {
        let top = fs::metadata(covered).doing(|| format!("looking at {}", covered.display()))?;
        chown(&upper, Some(top.uid()), Some(top.gid()))
            .and_then(|()| fs::set_permissions(&upper, top.permissions()))
            .doing(|| format!("giving {} the owner and mode of the root", upper.display()))?;
    }
    // Of an earlier boot: what stands there is of the running system alone.
    let unions = upper.join(UNIONS);
    if unions.exists() {
        fs::remove_dir_all(&unions).doing(|| format!("removing {}", unions.display()))?;
    }
    Ok(format!(
        "upperdir={},workdir={}",
        upper.display(),
        work.display()
    ))
}

/// The directories that an init, and our own mounts, expect.
fn make_frame(layers: &Layers) -> Result<()> {
    fs::create_dir_all(FRAME).doing(|| format!("making {FRAME}"))?;
    let frame = open_directory(FRAME)?;
    for (path, mode) in MOUNT_POINTS {
        directory_in(&frame, path, mode)?;
    }
    directory_in(&frame, UNIONS, 0o700)?;
    for (_, name) in reachable(layers) {
        directory_in(&frame, &format!("{UNIONS}/{name}"), 0o755)?;
    }
    let program = Path::new(FRAME).join(estive_boot::push::PROGRAM.trim_start_matches('/'));
    fs::write(&program, "").doing(|| format!("making {}", program.display()))?;
    match modules_place(&layers.all) {
        Some(place) => directory_in(&frame, &place, 0o755).map(drop),
        None => Ok(()),
    }
}

/// Where the modules disk will be mounted, if it is there and no layer has modules itself.
fn modules_place(layers: &[Layer]) -> Option<String> {
    devices::present_disk(disk::MODULES)?;
    let place = format!("lib/modules/{}", kernel_release());
    let has = |layer: &&Layer, path: &str| {
        let tree = open_directory(&layer.directory.to_string_lossy()).ok();
        tree.is_some_and(|tree| open_in(&tree, path).is_ok())
    };
    let seen = || layers.iter().rev().filter(|layer| layer.is_seen);
    if seen().any(|layer| has(&layer, &place)) {
        return None;
    }
    // A link as in the layer that decides what `lib` is.
    let lib = seen().find_map(|layer| fs::symlink_metadata(layer.directory.join("lib")).ok());
    let is_link = lib.is_some_and(|lib| lib.is_symlink());
    Some(if is_link {
        format!("usr/{place}")
    } else {
        place
    })
}

fn hide_own_directory() -> Result<()> {
    fs::create_dir_all(HIDE).doing(|| format!("making {HIDE}"))?;
    let path = format!("{HIDE}/{OWN_DIRECTORY}");
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)
        .doing(|| format!("making the whiteout {path}"))
}

/// What is reachable in the running system, and as what: every layer by its number; of a clone, what
/// `apply` compares; and what loaders have mounted besides.
fn reachable(layers: &Layers) -> Vec<(PathBuf, String)> {
    let mut names = Vec::new();
    for (number, layer) in layers.all.iter().enumerate() {
        if layer.is_clones {
            names.push((layer.directory.clone(), "layer".to_owned()));
            let below = match number {
                1 => layers.all[0].directory.clone(),
                _ => BELOW_CLONES.into(),
            };
            names.push((below, "root".to_owned()));
        }
    }
    let numbered = layers.all.iter().enumerate();
    names.extend(numbered.map(|(number, layer)| (layer.directory.clone(), number.to_string())));
    names.push((UNDER.into(), "under".to_owned()));
    names
}

fn move_layers(layers: &Layers) -> Result<()> {
    let union = open_directory(UNION)?;
    for (path, mode) in MOUNT_POINTS {
        directory_in(&union, path, mode)?;
    }
    mount_modules(&union)?;
    directory_in(&union, UNIONS, 0o700)?;
    for (mounted, name) in reachable(layers) {
        let target = directory_in(&union, &format!("{UNIONS}/{name}"), 0o755)?;
        let target = of_descriptor(&target);
        // Those that have a number too are moved with that.
        match name.parse::<usize>().is_ok() || mounted == Path::new(UNDER) {
            true => mount_move(&mounted, target),
            false => mount_bind(&mounted, target),
        }
        .doing(|| format!("moving {} to /{UNIONS}/{name}", mounted.display()))?;
    }
    Ok(())
}

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
//! nothing is written to a disk for them. `hide` is the topmost layer that is read where one has, or will have,
//! `.estive`: a whiteout over it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use estive_boot::disk;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, mount_bind, mount_move};

use super::upper::{self, Over};
use super::{
    MODULES_LIST, MOUNT_POINTS, UNIONS, directory_in, known, mount_modules, of_descriptor, open_in,
};
use crate::devices;
use crate::failure::{Result, While, fail};
use crate::loaders::{Layer, Layers, OWN_DIRECTORY};
use crate::modules::kernel_release;
use crate::root::{MODULES, UNDER, UNION, mount, open_directory};

const FRAME: &str = "/u/under/frame";
/// The lower of two overlays.
const LOWER: &str = "/u/under/lower";
/// What a clone's layer was settled over, when that is more than one layer.
const BELOW_CLONES: &str = "/u/under/below";
/// What mount(2) takes of options, with its zero byte.
const OPTION_BYTES_MAX: usize = 4095;

/// Mounts the union at [`UNION`] and moves the layers into it. `over_any`: what was written may lie over other layers than
/// those it was made over.
pub fn join(layers: &Layers, over_any: bool) -> Result<()> {
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
        None => overlay(UNION, &seen(&layers.all), false, None)?,
        Some(place) => {
            // Memory forgets what it lay over.
            let over = (*place != top.directory).then(|| Over {
                below: known::identities(below),
                is_any: over_any,
            });
            let lower = seen(&layers.all);
            if top.is_seen && place.starts_with(&top.directory) {
                overlay(LOWER, &lower, true, None)?;
                let upper = upper::make(place, Path::new(LOWER), over.as_ref())?;
                mount_overlay(UNION, &format!("lowerdir={LOWER},{upper}"), plain)?;
            } else {
                let topmost = lower.last().cloned().unwrap_or_else(|| FRAME.into());
                let upper = upper::make(place, &topmost, over.as_ref())?;
                overlay(UNION, &lower, false, Some(&upper))?;
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
            overlay(BELOW_CLONES, &seen(&layers.all), false, None)?;
            Ok(BELOW_CLONES.into())
        }
    }
}

/// What stands to the left of a device as one tree at `at`, to run a program of it.
pub fn join_read_only(layers: &Layers, at: &Path) -> Result<()> {
    make_frame(layers)?;
    overlay(&at.to_string_lossy(), &seen(&layers.all), false, None)
}

/// The trees that are seen, bottom first.
fn seen(layers: &[Layer]) -> Vec<PathBuf> {
    let seen = layers.iter().filter(|layer| layer.is_seen);
    seen.map(|layer| layer.directory.clone()).collect()
}

/// An overlay of these, bottom first, over the frame. `will_have`: one of them is to have `.estive`, which is not seen.
fn overlay(at: &str, lower: &[PathBuf], will_have: bool, upper: Option<&str>) -> Result<()> {
    let mut options = String::from("lowerdir=");
    for directory in hiding(at, lower, will_have)?.iter().rev() {
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
        Some(place) => {
            directory_in(&frame, &format!("{UNIONS}/modules"), 0o755)?;
            directory_in(&frame, &place, 0o755).map(drop)
        }
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
    if seen().any(|layer| has(&layer, &format!("{place}/{MODULES_LIST}"))) {
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

/// The same, and over them a whiteout for `.estive`, where one of them has it, or will.
fn hiding(at: &str, lower: &[PathBuf], will_have: bool) -> Result<Vec<PathBuf>> {
    let mut lower = lower.to_vec();
    let has = |directory: &PathBuf| fs::symlink_metadata(directory.join(OWN_DIRECTORY)).is_ok();
    if !will_have && !lower.iter().any(has) {
        return Ok(lower);
    }
    let name = Path::new(at).file_name().unwrap_or_default();
    let hide = format!("{UNDER}/hide-{}", name.to_string_lossy());
    fs::create_dir_all(&hide).doing(|| format!("making {hide}"))?;
    let path = format!("{hide}/{OWN_DIRECTORY}");
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)
        .doing(|| format!("making the whiteout {path}"))?;
    // The uppermost directory gives the union's own its owner and mode.
    let covered = lower.last().cloned().unwrap_or_else(|| FRAME.into());
    let top = fs::metadata(&covered).doing(|| format!("looking at {}", covered.display()))?;
    chown(&hide, Some(top.uid()), Some(top.gid()))
        .and_then(|()| fs::set_permissions(&hide, top.permissions()))
        .doing(|| format!("giving {hide} the owner and mode of the root"))?;
    lower.push(hide.into());
    Ok(lower)
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
    let has_modules = mount_modules(&union)?;
    directory_in(&union, UNIONS, 0o700)?;
    if has_modules {
        let target = directory_in(&union, &format!("{UNIONS}/modules"), 0o755)?;
        mount_move(MODULES, of_descriptor(&target))
            .doing(|| format!("moving {MODULES} to /{UNIONS}/modules"))?;
    }
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

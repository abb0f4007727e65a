//! `livecd`: the file systems that a live CD has in it, each a layer.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_boot::loaders::livecd::{DIRECTORIES, Options};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::{Context, Given};
use crate::console::uptime_ms;
use crate::devices;
use crate::failure::{Result, While, fail};
use crate::root::open_directory;

const POLL: Duration = Duration::from_millis(250);
/// What an image of a layer is called.
const ENDINGS: [&str; 4] = [".squashfs", ".sfs", ".erofs", ".img"];
/// Fedora's image of an image.
const INNER: &str = "LiveOS/rootfs.img";
const ENTRIES_MAX: usize = 10_000;

pub fn open(options: &Options, below: Option<Given>, context: &mut Context) -> Result<Given> {
    context.reads_only = true;
    let cd = match below {
        Some(Given::Directory(directory)) => image_in(&directory, options, context)?,
        Some(below) => context.directory(below)?,
        None => drive(options, context)?,
    };
    let top = open_directory(&cd.to_string_lossy())?;
    let layers = match options.layers.is_empty() {
        true => find_layers(&top)?,
        false => options.layers.clone(),
    };
    let mut directories = Vec::new();
    for path in &layers {
        let (file, shown) = (open_beneath(&top, path)?, cd.join(path));
        let mut directory = context.mount_file(&file, &shown)?;
        let inner = open_directory(&directory.to_string_lossy())?;
        if let Ok(file) = open_beneath(&inner, INNER) {
            directory = context.mount_file(&file, &directory.join(INNER))?;
        }
        directories.push(directory);
    }
    Ok(Given::Directories(directories))
}

/// The CD in a directory: the image that is named, the only one there is, or the directory itself.
fn image_in(directory: &Path, options: &Options, context: &mut Context) -> Result<PathBuf> {
    let top = open_directory(&directory.to_string_lossy())?;
    let image = match &options.image {
        Some(image) => image.clone(),
        None if is_live(&top) => return Ok(directory.to_owned()),
        None => {
            let images: Vec<String> = names(&top, ".")?
                .into_iter()
                .filter(|name| name.to_ascii_lowercase().ends_with(".iso"))
                .collect();
            match &images[..] {
                [only] => only.clone(),
                [] => {
                    return fail(
                        "there is no ISO image, and no casper/, live/ or LiveOS/: name the image, as in livecd+nfs:/PATH:SERVER:EXPORT",
                    );
                }
                several => {
                    return fail(format!(
                        "there are several images ({}): name one, as in livecd+nfs:/PATH:SERVER:EXPORT",
                        several.join(", ")
                    ));
                }
            }
        }
    };
    let file = open_beneath(&top, &image)?;
    context.mount_file(&file, &directory.join(&image))
}

/// The device that is named, or the first one with a live CD in it; both waited for.
fn drive(options: &Options, context: &mut Context) -> Result<PathBuf> {
    if let Some(which) = &options.which {
        let device = devices::find(which, context.line.wait_s)?;
        return context.mount_device(&device);
    }
    if let Some(image) = &options.image {
        return fail(format!(
            "/{image} is no device; a path stands before what has it, as in livecd+nfs:/{image}:SERVER:EXPORT"
        ));
    }
    let deadline_ms = uptime_ms() + u64::from(context.line.wait_s) * 1000;
    let mut known: Vec<PathBuf> = Vec::new();
    loop {
        for device in devices::with_iso_9660() {
            if known.contains(&device) {
                continue;
            }
            let directory = context.mount_device(&device)?;
            if is_live(&open_directory(&directory.to_string_lossy())?) {
                return Ok(directory);
            }
            known.push(device);
        }
        if uptime_ms() > deadline_ms {
            return fail(format!(
                "no live CD: of {} with ISO 9660 none has casper/, live/ or LiveOS/: put one in, or name its device, as in livecd:/dev/sr0",
                match known.len() {
                    1 => "one device".to_owned(),
                    number => format!("{number} devices"),
                }
            ));
        }
        std::thread::sleep(POLL);
    }
}

fn is_live(top: &OwnedFd) -> bool {
    DIRECTORIES.iter().any(|directory| {
        names(top, directory).is_ok_and(|names| names.iter().any(|name| is_layer(name)))
    })
}

/// Paths of the images, bottom first.
fn find_layers(top: &OwnedFd) -> Result<Vec<String>> {
    for directory in DIRECTORIES {
        let found: Vec<String> = match names(top, directory) {
            Ok(names) => names.into_iter().filter(|name| is_layer(name)).collect(),
            Err(_) => continue,
        };
        if !found.is_empty() {
            let ordered = in_order(found)?;
            return Ok(ordered
                .iter()
                .map(|name| format!("{directory}/{name}"))
                .collect());
        }
    }
    fail(
        "the CD has no SquashFS or EROFS image in casper/, live/ or LiveOS/: name the images by layers=PATH[,PATH]",
    )
}

fn is_layer(name: &str) -> bool {
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// By their names; where names grow out of each other (`minimal`, `minimal.standard`), they must be one line of descent.
fn in_order(mut names: Vec<String>) -> Result<Vec<String>> {
    let stem = |name: &str| match name.rsplit_once('.') {
        Some((stem, _)) => stem.to_owned(),
        None => name.to_owned(),
    };
    names.sort_by_key(|name| (stem(name), name.clone()));
    let grows = |one: &String, other: &String| stem(other).starts_with(&(stem(one) + "."));
    let is_grown = |name: &String| names.iter().any(|other| grows(other, name));
    let are_of_a_kind = names.windows(2).all(|pair| grows(&pair[0], &pair[1]));
    if names.iter().any(is_grown) && !are_of_a_kind {
        return fail(format!(
            "the CD has several systems ({}): choose by layers=, bottom first",
            names.join(", ")
        ));
    }
    Ok(names)
}

/// A file of the CD, opened for reading. Who made the CD does not choose what of us it reads.
fn open_beneath(top: &OwnedFd, path: &str) -> Result<File> {
    let doing = || format!("opening {path} of the CD");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(top, path, flags, Mode::empty(), beneath).doing(doing)?;
    let status = fstat(&file).doing(doing)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        _ => fail(format!("{path} of the CD is no file")),
    }
}

/// Of the files in a directory.
fn names(top: &OwnedFd, directory: &str) -> Result<Vec<String>> {
    let doing = || format!("reading {directory} of the CD");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = openat2(top, directory, flags, Mode::empty(), beneath).doing(doing)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&opened).doing(doing)? {
        let entry = entry.doing(doing)?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if !name.starts_with('.') && entry.file_type() != FileType::Directory {
            names.push(name.to_owned());
        }
        if names.len() > ENTRIES_MAX {
            return Err(Errno::TOOBIG).doing(doing);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(names: &[&str]) -> std::result::Result<String, String> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        match in_order(names) {
            Ok(names) => Ok(names.join(" ")),
            Err(failure) => Err(failure.0),
        }
    }

    #[test]
    fn images_lie_in_the_order_of_their_names() {
        assert_eq!(
            ordered(&["b.squashfs", "a.erofs"]).as_deref(),
            Ok("a.erofs b.squashfs")
        );
        assert_eq!(
            ordered(&["minimal.standard.squashfs", "minimal.squashfs"]).as_deref(),
            Ok("minimal.squashfs minimal.standard.squashfs")
        );
        let several = ordered(&[
            "minimal.de.squashfs",
            "minimal.squashfs",
            "minimal.fr.squashfs",
        ]);
        assert!(several.unwrap_err().contains("layers="));
    }
}

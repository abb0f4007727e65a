//! `loop`: a file system in a file, or in each file of a directory.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use estive_boot::loaders::loop_file::Options;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, openat2};
use rustix::io::Errno;

use super::{Context, Given};
use crate::failure::{Result, While, fail};
use crate::root::open_directory;
use crate::union::of_descriptor;

/// No directory of images has more of them.
const IMAGES_MAX: usize = 64;

pub fn open(options: &Options, below: Option<Given>, context: &mut Context) -> Result<Given> {
    let below = match below {
        Some(Given::File(file, path)) if options.file.is_none() => {
            return context
                .mount_file(&file, &path)
                .map(|directory| Given::Directories(vec![directory]));
        }
        Some(below) => Some(container(below, context)?),
        None => None,
    };
    let path = options.file.as_deref().unwrap_or("/");
    let (file, shown) = match &below {
        Some(directory) => (open_in(directory, path)?, directory),
        None => match &options.file {
            Some(_) => in_layers(path, context)?,
            None => return fail("which file? write loop:/path"),
        },
    };
    let shown = shown.join(path.trim_start_matches('/'));
    // An image is what many machines start from: it is written to only where the line says so, and by one.
    context.reads_only |= !context.must_be_writable();
    let status = fstat(&file).doing(|| format!("looking at {}", shown.display()))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile if context.wants_writing() && !is_ours(&file)? => fail(format!(
            "{} is written to by another machine or device",
            shown.display()
        )),
        FileType::RegularFile => context
            .mount_file(&File::from(file), &shown)
            .map(|directory| Given::Directories(vec![directory])),
        FileType::Directory => images(&file, &shown, context),
        _ => fail(format!("{} is neither file nor directory", shown.display())),
    }
}

/// Takes the lock of a file that is to be written to. The loop device keeps the file, and with it the lock.
fn is_ours(file: &OwnedFd) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => fail(format!("locking the file that is written to: {errno}")),
    }
}

/// What the file lies in is only read, whatever the file is.
fn container(below: Given, context: &mut Context) -> Result<PathBuf> {
    context.directory(below)
}

/// The topmost layer to the left that has it.
fn in_layers<'a>(path: &str, context: &'a Context) -> Result<(OwnedFd, &'a PathBuf)> {
    for layer in context.layers.all.iter().rev() {
        match open_in(&layer.directory, path) {
            Ok(file) => return Ok((file, &layer.directory)),
            Err(_) => continue,
        }
    }
    fail(format!(
        "no device to the left of it has {path}: write loop+block:{path}:DEVICE for a file on a disk"
    ))
}

/// Links are the directory's own.
fn open_in(directory: &Path, path: &str) -> Result<OwnedFd> {
    let top = open_directory(&directory.to_string_lossy())?;
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // For writing, if the file system it is on lets us: what is mounted decides later.
    openat2(&top, path, flags | OFlags::RDWR, Mode::empty(), resolve)
        .or_else(|errno| match errno {
            Errno::ROFS | Errno::ACCESS | Errno::ISDIR | Errno::PERM => {
                openat2(&top, path, flags | OFlags::RDONLY, Mode::empty(), resolve)
            }
            other => Err(other),
        })
        .doing(|| format!("opening {path} in {}", directory.display()))
}

/// Every file of a directory, mounted, in the order of their names.
fn images(directory: &OwnedFd, shown: &Path, context: &mut Context) -> Result<Given> {
    let reading = || format!("reading {}", shown.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(of_descriptor(directory)).doing(reading)? {
        let entry = entry.doing(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().doing(reading)?.is_file() && !name.starts_with('.') {
            names.push(name);
        }
        if names.len() > IMAGES_MAX {
            return fail(format!(
                "{} has more than {IMAGES_MAX} images",
                shown.display()
            ));
        }
    }
    names.sort();
    context.reads_only = true;
    let mut directories = Vec::new();
    for name in names {
        let path = shown.join(&name);
        let file = open_in(shown, &name)?;
        directories.push(context.mount_file(&File::from(file), &path)?);
    }
    match directories.is_empty() {
        true => fail(format!("{} has no file", shown.display())),
        false => Ok(Given::Directories(directories)),
    }
}

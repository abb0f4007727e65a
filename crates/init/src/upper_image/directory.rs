//! The directory `.estive` of an export: its files by name, none through a link.

use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, linkat, mkdirat, openat2, renameat, statat, unlinkat,
};
use rustix::io::{Errno, Result};

use crate::loaders::OWN_DIRECTORY;
use crate::root::open_directory;

/// Of a file that is read.
const TEXT_BYTES_MAX: u64 = 512;
const PROBE: &str = "probe.";
const TRIES: usize = 8;

pub struct Directory(OwnedFd);

impl Directory {
    /// That of the export mounted at `place`, made if it is not there. An error of the server when it lets nothing be
    /// written there.
    pub fn open(place: &Path) -> Result<Directory> {
        let top = open_directory(&place.to_string_lossy()).map_err(|_| Errno::IO)?;
        match mkdirat(&top, OWN_DIRECTORY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = openat2(&top, OWN_DIRECTORY, flags, Mode::empty(), beneath)?;
        let directory = Directory(directory);
        // One that is there says nothing of what may be done in it.
        let (_, name) = directory.private(PROBE)?;
        directory.remove(&name)?;
        Ok(directory)
    }

    pub fn file(&self, name: &str, flags: OFlags) -> Result<File> {
        let mode = match flags.contains(OFlags::CREATE) {
            true => Mode::RUSR | Mode::WUSR,
            false => Mode::empty(),
        };
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.0, name, flags | OFlags::CLOEXEC, mode, beneath).map(File::from)
    }

    /// A new file with a name that nobody else has.
    pub fn private(&self, prefix: &str) -> Result<(File, String)> {
        let mut last = Errno::EXIST;
        for _ in 0..TRIES {
            // Seeded from the kernel's random numbers, which this early may not be asked for otherwise.
            let random = std::hash::RandomState::new().build_hasher().finish();
            let name = format!("{prefix}{random:016x}");
            match self.file(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
                Ok(file) => return Ok((file, name)),
                Err(Errno::EXIST) => last = Errno::EXIST,
                Err(errno) => return Err(errno),
            }
        }
        Err(last)
    }

    /// What a file says; `None` if it is not there.
    pub fn text(&self, name: &str) -> std::io::Result<Option<String>> {
        let file = match self.file(name, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut bytes = Vec::new();
        file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Gives a file a second name, if nothing has that.
    pub fn link(&self, from: &str, to: &str) -> Result<()> {
        linkat(&self.0, from, &self.0, to, AtFlags::empty())
    }

    /// Gives a file the name of another, which is gone then.
    pub fn replace(&self, from: &str, to: &str) -> Result<()> {
        renameat(&self.0, from, &self.0, to)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    pub fn inode(&self, name: &str) -> Result<u64> {
        Ok(statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
    }

    /// Of the files that begin so.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let entries = Dir::read_from(&self.0).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(prefix))
            .collect()
    }
}

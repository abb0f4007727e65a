//! Changing a file that belongs to somebody else: whole or not at all, with mode, owner and
//! attributes kept. The new one is written aside in the same directory, synced and renamed.
//!
//! A symbolic link is followed to its real file, and that one is changed: the link stays a link.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, XattrFlags};

use crate::error::FilesError;
use crate::state::sync_directory;

/// Files that people keep by hand are smaller.
const MAX_BYTES: u64 = 64 << 20;

/// How often to begin anew when another program writes the file meanwhile.
const ATTEMPTS: usize = 5;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The real file, where links lead.
    pub path: PathBuf,
    /// Otherwise it was as wanted already, and is untouched.
    pub written: bool,
}

/// Replaces a file's bytes by what `change` makes of them; a file that is not there counts as empty
/// and is made when there is something to write. When `change` refuses, nothing is written.
pub fn change_file<E>(
    path: &Path,
    mut change: impl FnMut(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Result<Changed, E>, FilesError> {
    let path = real_path(path)?;
    for _ in 0..ATTEMPTS {
        let known = read(&path)?;
        let before = known
            .as_ref()
            .map_or(&[][..], |(_, bytes)| bytes.as_slice());
        let after = match change(before) {
            Ok(after) => after,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if after == before {
            let written = false;
            return Ok(Ok(Changed { path, written }));
        }
        if replace(&path, known.as_ref().map(|(file, _)| file), &after)? {
            let written = true;
            return Ok(Ok(Changed { path, written }));
        }
    }
    let what = format!("was written by another program {ATTEMPTS} times meanwhile; try again");
    Err(FilesError::refused(&path, what))
}

/// Where links lead. The file itself need not be there, its directory must.
fn real_path(path: &Path) -> Result<PathBuf, FilesError> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(FilesError::refused(path, "is a link that leads nowhere"));
            }
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let name = path
                .file_name()
                .ok_or_else(|| FilesError::refused(path, "names no file"))?;
            let directory = fs::canonicalize(directory)
                .map_err(FilesError::io("looking for the directory of", path))?;
            Ok(directory.join(name))
        }
        Err(error) => Err(FilesError::io("looking for", path)(error)),
    }
}

fn read(path: &Path) -> Result<Option<(File, Vec<u8>)>, FilesError> {
    // Not blocking, should it be a fifo.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FilesError::io("opening", path)(error)),
    };
    let metadata = file
        .metadata()
        .map_err(FilesError::io("looking at", path))?;
    if !metadata.is_file() {
        return Err(FilesError::refused(path, "is no file"));
    }
    let mut bytes = Vec::new();
    (&file)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(FilesError::io("reading", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = format!("has more than {MAX_BYTES} bytes; it is left alone");
        return Err(FilesError::refused(path, what));
    }
    Ok(Some((file, bytes)))
}

/// Whether it was replaced; not when the file is no longer the one that was read.
fn replace(path: &Path, known: Option<&File>, bytes: &[u8]) -> Result<bool, FilesError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut aside = tempfile::Builder::new()
        .prefix(".estive-")
        .tempfile_in(directory)
        .map_err(FilesError::io("making a file beside", path))?;
    aside
        .write_all(bytes)
        .map_err(FilesError::io("writing beside", path))?;
    let file = aside.as_file();
    let before = match known {
        Some(known) => {
            let metadata = known
                .metadata()
                .map_err(FilesError::io("looking at", path))?;
            keep_attributes(file, known, &metadata)
                .map_err(FilesError::io("keeping owner and mode of", path))?;
            Some(metadata)
        }
        None => {
            file.set_permissions(Permissions::from_mode(0o644))
                .map_err(FilesError::io("setting the mode of", path))?;
            None
        }
    };
    file.sync_all()
        .map_err(FilesError::io("syncing beside", path))?;
    let now = match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(FilesError::io("looking at", path)(error)),
    };
    if before.as_ref().map(stamp) != now.as_ref().map(stamp) {
        return Ok(false);
    }
    let renamed = match &before {
        Some(_) => aside.persist(path),
        None => aside.persist_noclobber(path),
    };
    match renamed {
        Ok(_) => {
            sync_directory(directory)?;
            Ok(true)
        }
        Err(error) if before.is_none() && error.error.kind() == ErrorKind::AlreadyExists => {
            Ok(false)
        }
        Err(error) if error.error.kind() == ErrorKind::ResourceBusy => {
            let what = "is mounted by itself (as in a container) and cannot be replaced; name another with --file, or change it outside";
            Err(FilesError::refused(path, what))
        }
        Err(error) => Err(FilesError::io("replacing", path)(error.error)),
    }
}

/// Which file it is, and when it was last changed in any way.
fn stamp(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

fn keep_attributes(new: &File, old: &File, metadata: &Metadata) -> std::io::Result<()> {
    let fresh = new.metadata()?;
    if (fresh.uid(), fresh.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::fchown(new, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    new.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
    // Labels and access lists, as far as this file system and this user may set them.
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::flistxattr(old, &mut names) else {
        return Ok(());
    };
    for name in names[..length].split(|byte| *byte == 0) {
        let mut value = vec![0; 64 << 10];
        if !name.is_empty()
            && let Ok(length) = rustix::fs::fgetxattr(old, name, &mut value)
        {
            let _ = rustix::fs::fsetxattr(new, name, &value[..length], XattrFlags::empty());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::os::unix::fs::symlink;

    fn to(text: &str) -> impl FnMut(&[u8]) -> Result<Vec<u8>, Infallible> {
        let text = text.to_owned();
        move |_| Ok(text.clone().into_bytes())
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn mode_owner_attributes_and_links_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let (real, link) = (home.path().join("real"), home.path().join("link"));
        fs::write(&real, "before").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        let root = rustix::process::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&real, Some(12), Some(34)).unwrap();
        }
        let labelled = rustix::fs::setxattr(&real, "user.label", b"x", XattrFlags::empty()).is_ok();
        let inode = fs::metadata(&real).unwrap().ino();
        let changed = change_file(&link, to("after")).unwrap().unwrap();
        assert_eq!(changed.path, fs::canonicalize(&real).unwrap());
        assert!(changed.written);
        assert_eq!(fs::read(&real).unwrap(), b"after");
        assert!(link.is_symlink());
        let metadata = fs::metadata(&real).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_ne!(metadata.ino(), inode);
        if root {
            assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
        }
        if labelled {
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(&real, "user.label", &mut value).unwrap();
            assert_eq!(&value[..length], b"x");
        }
        assert_eq!(names(home.path()), ["link", "real"]);
    }

    #[test]
    fn what_is_as_wanted_or_refused_is_not_touched() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let absent = change_file(&path, to("")).unwrap().unwrap();
        assert!(!absent.written && !path.exists());
        let made = change_file(&path, to("text")).unwrap().unwrap();
        assert!(made.written);
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.mode() & 0o7777, 0o644);
        let same = change_file(&path, to("text")).unwrap().unwrap();
        assert!(!same.written);
        let refused = change_file(&path, |_| Err::<Vec<u8>, _>("no")).unwrap();
        assert_eq!(refused, Err("no"));
        assert_eq!(stamp(&fs::metadata(&path).unwrap()), stamp(&before));
        assert_eq!(names(home.path()), ["file"]);
    }

    #[test]
    fn a_file_that_another_program_writes_meanwhile_is_read_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "one ").unwrap();
        let mut asked = 0;
        let changed = change_file(&path, |bytes| {
            asked += 1;
            if asked == 1 {
                // Aside and renamed, as a careful program does.
                fs::write(home.path().join("new"), "one two ").unwrap();
                fs::rename(home.path().join("new"), &path).unwrap();
            }
            Ok::<_, Infallible>([bytes, b"ours"].concat())
        });
        assert!(changed.unwrap().unwrap().written);
        assert_eq!(
            (asked, fs::read(&path).unwrap()),
            (2, b"one two ours".to_vec())
        );
        let restless = change_file(&path, |bytes| {
            let new = home.path().join("new");
            fs::write(&new, [bytes, b"."].concat()).unwrap();
            fs::rename(&new, &path).unwrap();
            Ok::<_, Infallible>(Vec::new())
        });
        let error = restless.unwrap_err().to_string();
        assert!(error.contains("was written by another program"), "{error}");
        assert_eq!(names(home.path()), ["file"]);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let error = |path: &Path| change_file(path, to("x")).unwrap_err().to_string();
        assert!(error(home.path()).contains("is no file"));
        let fifo = home.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(error(&fifo).contains("is no file"));
        symlink("nowhere", home.path().join("dangling")).unwrap();
        assert!(error(&home.path().join("dangling")).contains("leads nowhere"));
        fs::File::create(home.path().join("huge"))
            .unwrap()
            .set_len(MAX_BYTES + 1)
            .unwrap();
        assert!(error(&home.path().join("huge")).contains("left alone"));
        assert_eq!(names(home.path()), ["dangling", "fifo", "huge"]);
    }
}

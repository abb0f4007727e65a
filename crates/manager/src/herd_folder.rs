//! The herd's folder as it comes over the wire: a tar archive from outside, unpacked within limits.

use estive_api::Problem;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// The largest folder, packed or not, in bytes.
pub(crate) const MAX_BYTES: usize = 33 << 20;
const MAX_ENTRIES: usize = 10_000;
const MAX_PATH_BYTES: usize = 1000;
const MAX_DEPTH: usize = 32;

/// A herd's folder on disk; removed when dropped.
#[derive(Debug)]
pub(crate) struct HerdFolder {
    directory: PathBuf,
}

impl HerdFolder {
    /// Unpacks `archive` into the new directory `directory`; blocks. Only plain files and directories below it are
    /// made, whatever the archive says.
    pub fn unpack(archive: &[u8], directory: PathBuf) -> Result<Self, Problem> {
        let own = |error: io::Error| {
            Problem::failed(format!(
                "could not unpack the herd into {}: {error}",
                directory.display()
            ))
        };
        fs::create_dir_all(&directory).map_err(own)?;
        let folder = Self {
            directory: directory.clone(),
        };
        let broken = |error: io::Error| {
            Problem::invalid(format!(
                "the herd's archive is not a whole tar archive: {error}"
            ))
        };
        let mut left_bytes = MAX_BYTES as u64;
        let mut reader = tar::Archive::new(archive);
        for (index, entry) in reader.entries().map_err(broken)?.enumerate() {
            let mut entry = entry.map_err(broken)?;
            if index >= MAX_ENTRIES {
                return Err(Problem::invalid(format!(
                    "the herd's archive has more than {MAX_ENTRIES} entries"
                )));
            }
            let shown = String::from_utf8_lossy(&entry.path_bytes())
                .chars()
                .take(80)
                .collect::<String>();
            let path = entry.path().ok().and_then(|path| inside(&path)).ok_or_else(|| {
                Problem::invalid(format!("the herd's archive holds {shown:?}, which is no plain path within its folder"))
            })?;
            if path.as_os_str().is_empty() {
                continue;
            }
            let place = directory.join(path);
            match entry.header().entry_type() {
                tar::EntryType::Directory => fs::create_dir_all(&place).map_err(own)?,
                tar::EntryType::Regular => {
                    left_bytes = left_bytes.checked_sub(entry.size()).ok_or_else(|| {
                        Problem::invalid(format!(
                            "the herd's archive unpacks to more than {MAX_BYTES} bytes"
                        ))
                    })?;
                    if let Some(parent) = place.parent() {
                        fs::create_dir_all(parent).map_err(own)?;
                    }
                    let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes).map_err(broken)?;
                    write(&place, &bytes, executable).map_err(own)?;
                }
                other => {
                    return Err(Problem::invalid(format!(
                        "the herd's archive holds {shown:?} of the kind {other:?}; only files and directories are taken"
                    )));
                }
            }
        }
        Ok(folder)
    }

    /// The text of `herd.yaml`.
    pub fn herd_file(&self) -> Result<String, Problem> {
        fs::read_to_string(self.directory.join("herd.yaml")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Problem::impossible("there is no herd.yaml in the herd's folder")
                    .advice("give the folder that holds it")
            }
            _ => Problem::impossible(format!("herd.yaml could not be read: {error}")),
        })
    }

    /// Where a herd keeps template sets of its own.
    pub fn sets(&self) -> PathBuf {
        self.directory.join("sets")
    }
}

impl Drop for HerdFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "could not remove an unpacked herd");
        }
    }
}

fn write(place: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if executable { 0o755 } else { 0o644 };
    // A file that is there twice is refused by create_new, and nothing here is ever a link.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(place)?;
    io::Write::write_all(&mut file, bytes)
}

/// The path with only plain components; empty for the folder itself.
fn inside(path: &Path) -> Option<PathBuf> {
    if path.as_os_str().len() > MAX_PATH_BYTES || path.components().count() > MAX_DEPTH {
        return None;
    }
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Written by hand, as an attacker would: the library refuses such names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if *kind == tar::EntryType::Symlink {
                header.set_link_name("/etc").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_come_out_and_the_folder_goes_with_its_owner() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("work");
        let bytes = archive(&[
            ("./herd.yaml", tar::EntryType::Regular, b"hosts: {a: }"),
            ("sets/own/etc/motd", tar::EntryType::Regular, b"x"),
        ]);
        let folder = HerdFolder::unpack(&bytes, place.clone()).unwrap();
        assert_eq!(folder.herd_file().unwrap(), "hosts: {a: }");
        assert!(folder.sets().join("own/etc/motd").is_file());
        drop(folder);
        assert!(!place.exists());
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let home = tempfile::tempdir().unwrap();
        for (name, kind) in [
            ("../evil", tar::EntryType::Regular),
            ("/evil", tar::EntryType::Regular),
            ("a/../../evil", tar::EntryType::Regular),
            ("link", tar::EntryType::Symlink),
            ("fifo", tar::EntryType::Fifo),
        ] {
            let bytes = archive(&[(name, kind, b"")]);
            let problem = HerdFolder::unpack(&bytes, home.path().join("work")).unwrap_err();
            assert!(problem.error.contains(name), "{problem}");
            assert_eq!(
                fs::read_dir(home.path()).unwrap().count(),
                0,
                "{name} left something"
            );
        }
        let twice = archive(&[
            ("a", tar::EntryType::Regular, b"1"),
            ("a", tar::EntryType::Regular, b"2"),
        ]);
        assert!(HerdFolder::unpack(&twice, home.path().join("work")).is_err());
        assert!(HerdFolder::unpack(&[7; 700], home.path().join("work")).is_err());
    }
}

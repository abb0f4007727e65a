//! The directory that takes what is written, and what it was made over.
//!
//! ```text
//! .estive/upper      what was written; there only when it is whole, with its record
//! .estive/upper.new  while it is made: nobody has written to it
//! .estive/work       overlayfs's own
//! .estive/over       the layers below, bottom first: what was written belongs over these
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use estive_boot::{OVER_ANY, OVER_WORD};

use super::UNIONS;
use crate::console::say;
use crate::failure::{Result, While, fail};
use crate::loaders::OWN_DIRECTORY;

const UPPER: &str = "upper";
const MAKING: &str = "upper.new";
const WORK: &str = "work";
const RECORD: &str = "over";
const RECORD_MAKING: &str = "over.new";
/// The first line of a record.
const VERSION: &str = "estive-over 1";
/// More than any line of `root=` has.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// What stands below what is written.
pub struct Over {
    /// What each layer is known by, bottom first.
    pub below: Vec<String>,
    /// Whether what was written may lie over other layers than those it was made over.
    pub is_any: bool,
}

/// `upper` and `work` of an overlay, in `place`. The upper directory has the owner and mode of what it covers: they are
/// the union's. `over` of what is kept: it is compared with what `upper` was made over.
pub fn make(place: &Path, covered: &Path, over: Option<&Over>) -> Result<String> {
    let making = || {
        format!(
            "making {} for what is written (is it a file system of Linux with room?)",
            place.display()
        )
    };
    if place.ends_with(OWN_DIRECTORY) {
        if !is_directory(place)? {
            let made = DirBuilder::new().mode(0o700).create(place);
            made.doing(making)?;
        }
        // What is in it passes by the union's own modes.
        fs::set_permissions(place, Permissions::from_mode(0o700)).doing(making)?;
    }
    let (upper, work) = (place.join(UPPER), place.join(WORK));
    match is_directory(&upper)? {
        true => {
            if let Some(over) = over {
                over.check(place)?;
            }
        }
        false => {
            let new = place.join(MAKING);
            if is_directory(&new)? {
                fs::remove_dir_all(&new).doing(making)?;
            }
            fs::create_dir(&new).doing(making)?;
            let top =
                fs::metadata(covered).doing(|| format!("looking at {}", covered.display()))?;
            chown(&new, Some(top.uid()), Some(top.gid()))
                .and_then(|()| fs::set_permissions(&new, top.permissions()))
                .doing(|| format!("giving {} the owner and mode of the root", new.display()))?;
            if let Some(over) = over {
                over.write(place)?;
            }
            fs::rename(&new, &upper)
                .and_then(|()| sync(place))
                .doing(making)?;
        }
    }
    if !is_directory(&work)? {
        fs::create_dir(&work).doing(making)?;
    }
    // Of an earlier boot: what stands there is of the running system alone.
    let unions = upper.join(UNIONS);
    if is_directory(&unions)? {
        fs::remove_dir_all(&unions).doing(|| format!("removing {}", unions.display()))?;
    }
    Ok(format!(
        "upperdir={},workdir={}",
        upper.display(),
        work.display()
    ))
}

/// Whether it is there. What else has its name is an error: a link would lead elsewhere.
fn is_directory(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => fail(format!("{} is no directory: remove it", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing(|| format!("looking at {}", path.display())),
    }
}

fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

impl Over {
    fn text(&self) -> String {
        let lines = self.below.iter().map(|layer| {
            let shown = |c: char| if c.is_control() { '?' } else { c };
            layer.chars().map(shown).collect::<String>()
        });
        let mut text = format!("{VERSION}\n");
        lines.for_each(|line| text += &format!("{line}\n"));
        text
    }

    fn write(&self, place: &Path) -> Result<()> {
        let new = place.join(RECORD_MAKING);
        let written = || {
            let mut file = File::create(&new)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, place.join(RECORD))?;
            sync(place)
        };
        written().doing(|| format!("writing {}", place.join(RECORD).display()))
    }

    fn check(&self, place: &Path) -> Result<()> {
        let shown = place.join(RECORD);
        let mut recorded = String::new();
        let read = File::open(&shown)
            .and_then(|file| file.take(RECORD_BYTES_MAX).read_to_string(&mut recorded));
        match read {
            Ok(_) if recorded == self.text() => return Ok(()),
            Ok(_) if !self.is_any => {}
            Ok(_) => {
                say(&format!(
                    "{} was made over other layers, and lies over these from now on",
                    place.join(UPPER).display()
                ));
                return self.write(place);
            }
            // Made before there was a record.
            Err(error) if error.kind() == ErrorKind::NotFound => return self.write(place),
            Err(error) => return Err(error).doing(|| format!("reading {}", shown.display())),
        }
        let was: Vec<&str> = recorded.lines().skip(1).collect();
        let difference = (0..was.len().max(self.below.len()))
            .map(|index| (index, was.get(index).copied(), self.below.get(index)))
            .find(|(_, was, is)| *was != is.map(String::as_str));
        let difference = difference.map_or_else(String::new, |(index, was, is)| {
            format!(
                "layer {index} was {} and is {}: ",
                was.unwrap_or("not there"),
                is.map_or("not there", String::as_str)
            )
        });
        fail(format!(
            "what was written is not of these layers: {difference}put back what it was made over ({}), or say {OVER_WORD}={OVER_ANY} to lay it over what is there now",
            shown.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(below: &[&str], is_any: bool) -> Over {
        Over {
            below: below.iter().map(|layer| (*layer).to_owned()).collect(),
            is_any,
        }
    }

    struct Disk {
        directory: tempfile::TempDir,
    }

    impl Disk {
        fn new() -> Disk {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("root")).unwrap();
            let mode = Permissions::from_mode(0o711);
            fs::set_permissions(directory.path().join("root"), mode).unwrap();
            Disk { directory }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(OWN_DIRECTORY).join(name)
        }

        fn make(&self, over: &Over) -> std::result::Result<String, String> {
            let covered = self.directory.path().join("root");
            make(&self.path(""), &covered, Some(over)).map_err(|failure| failure.0)
        }
    }

    #[test]
    fn what_was_written_is_laid_over_other_layers_only_where_that_is_asked_for() {
        let disk = Disk::new();
        disk.make(&over(&["ext4 UUID=1", "erofs UUID=2"], false))
            .unwrap();
        fs::write(disk.path("upper/kept"), "").unwrap();
        disk.make(&over(&["ext4 UUID=1", "erofs UUID=2"], false))
            .unwrap();
        let error = disk.make(&over(&["ext4 UUID=1", "erofs UUID=3"], false));
        let error = error.unwrap_err();
        assert!(
            error.contains("layer 1 was erofs UUID=2 and is erofs UUID=3")
                && error.contains("estive.over=any"),
            "{error}"
        );
        let error = disk.make(&over(&["ext4 UUID=1"], false)).unwrap_err();
        assert!(error.contains("and is not there"), "{error}");
        disk.make(&over(&["ext4 UUID=1"], true)).unwrap();
        disk.make(&over(&["ext4 UUID=1"], false)).unwrap();
        assert!(disk.path("upper/kept").exists());
    }

    #[test]
    fn one_from_before_there_were_records_gets_one() {
        let disk = Disk::new();
        fs::create_dir_all(disk.path("upper")).unwrap();
        disk.make(&over(&["ext4 UUID=1"], false)).unwrap();
        assert!(disk.make(&over(&["ext4 UUID=2"], false)).is_err());
    }

    #[test]
    fn the_upper_directory_comes_whole_and_is_hidden_from_others() {
        let disk = Disk::new();
        // Of a boot that ended in the midst of it.
        fs::create_dir_all(disk.path("upper.new")).unwrap();
        fs::write(disk.path("over"), "garbage").unwrap();
        disk.make(&over(&["ext4 UUID=1"], false)).unwrap();
        let mode = |path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(disk.path("")), 0o700);
        assert_eq!(mode(disk.path("upper")), 0o711);
        assert!(!disk.path("upper.new").exists());
        let record = fs::read_to_string(disk.path("over")).unwrap();
        assert_eq!(record, "estive-over 1\next4 UUID=1\n");
        // The mode of what somebody made otherwise is mended, and no link is followed.
        fs::set_permissions(disk.path(""), Permissions::from_mode(0o755)).unwrap();
        fs::remove_dir(disk.path("work")).unwrap();
        std::os::unix::fs::symlink("/tmp", disk.path("work")).unwrap();
        let error = disk.make(&over(&["ext4 UUID=1"], false)).unwrap_err();
        assert!(error.contains("work is no directory"), "{error}");
        assert_eq!(mode(disk.path("")), 0o700);
    }
}

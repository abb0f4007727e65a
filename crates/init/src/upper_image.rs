//! A place to write on an NFS server: a file system in one file there, since overlayfs refuses to write to NFS.
//!
//! ```text
//! EXPORT/.estive/upper.img        ext4, sparse; made by the root's own mkfs.ext4 when it is not there
//! EXPORT/.estive/upper.img.new.…  while it is made, by whoever has made the name
//! EXPORT/.estive/lock             who has it: see `mark`
//! ```
//!
//! Two machines that write to one file system destroy it. With NFS 4 the image is locked at the server: the loop device
//! over it holds the lock as long as it lives, and the server drops it when the machine has gone. With NFS 3, whose
//! locks need more daemons than an early userspace has, a file that only one can make names the machine that may; the
//! same machine may come again, and another one only when somebody has removed the file. Both leave the file, and both
//! look at it.
//!
//! An image that is there is never made anew: each machine makes its own aside, and `link`, which replaces nothing,
//! gives the first of them its name.

mod directory;
mod file_system;
mod mark;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock, fstat};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::console::{say, uptime_ms};
use crate::failure::{Result, While, fail};
use crate::loaders::{Context, OWN_DIRECTORY};
use crate::loop_device;
use crate::network::Network;
use crate::root::mount;
use directory::Directory;
use mark::{Claim, Mark};

const IMAGE: &str = "upper.img";
/// A random ending follows.
const MAKING: &str = "upper.img.new.";
const RETRY: Duration = Duration::from_millis(500);

/// How one machine at a time is seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    OfServer,
    ByName,
}

/// The mounted image of the NFS directory `place`. `None` where the server lets nothing be written, and nobody said that
/// it must.
pub fn open(
    place: &Path,
    size_bytes: u64,
    lock: Lock,
    network: &Network,
    context: &mut Context,
) -> Result<Option<PathBuf>> {
    let directory = match Directory::open(place) {
        Ok(directory) => directory,
        Err(errno) if !refuses_writing(errno) => {
            return Err(errno).doing(|| format!("making {OWN_DIRECTORY} on the NFS server"));
        }
        Err(errno) if context.must_be_writable() => {
            return fail(format!(
                "the NFS server lets nothing be written ({errno}): export it rw and no_root_squash, or put tmpfs over it"
            ));
        }
        Err(errno) => {
            say(&format!(
                "the NFS server lets nothing be written to {} ({errno}): the root is read-only (export it rw and no_root_squash, or put tmpfs over it)",
                context.device
            ));
            context.reads_only = true;
            return Ok(None);
        }
    };
    let home = Home {
        directory,
        ours: Mark::of(network, lock),
        lock,
        patience_ms: u64::from(context.line.wait_s) * 1000,
    };
    let image = home.image(|image| {
        let began_ms = uptime_ms();
        image
            .set_len(size_bytes)
            .doing(|| format!("making {IMAGE} on the NFS server"))?;
        file_system::make(image, context)?;
        let what = format!("{IMAGE} is made on the server");
        context.report.step(&what, began_ms, uptime_ms());
        Ok(())
    })?;
    let shown = place.join(OWN_DIRECTORY).join(IMAGE);
    let device = loop_device::attach(&image, &shown, false)?;
    mount_image(&device, context).map(Some)
}

/// Whether a server says so that it does not let us write; all else is a failure of its own.
fn refuses_writing(errno: Errno) -> bool {
    [Errno::ROFS, Errno::ACCESS, Errno::PERM].contains(&errno)
}

fn mount_image(device: &Path, context: &mut Context) -> Result<PathBuf> {
    let place = context.place()?;
    // Inode tables that are holes read as zeros: writing them would only fill the server.
    mount(
        &device.to_string_lossy(),
        &place.to_string_lossy(),
        "ext4",
        MountFlags::NOATIME,
        "noinit_itable",
    )
    .map_err(|mut failure| {
        failure.0 += &format!(
            " (the image {OWN_DIRECTORY}/{IMAGE} on the NFS server: repair it there with e2fsck, or move it away to begin anew)"
        );
        failure
    })?;
    Ok(place)
}

/// `.estive` on the server, and who wants it.
struct Home {
    directory: Directory,
    ours: Mark,
    lock: Lock,
    patience_ms: u64,
}

impl Home {
    /// The image, ours alone; `make` makes a file system in a new file.
    fn image(&self, mut make: impl FnMut(&File) -> Result<()>) -> Result<File> {
        let doing = || format!("opening {OWN_DIRECTORY}/{IMAGE} on the NFS server");
        let deadline_ms = uptime_ms() + self.patience_ms;
        let claim = Claim {
            directory: &self.directory,
            ours: &self.ours,
            deadline_ms,
        };
        match self.lock {
            Lock::ByName => claim.take()?,
            // Nothing is made where another machine may be at work.
            Lock::OfServer => claim.is_free()?,
        }
        let mut is_made = false;
        loop {
            let file = match self.directory.file(IMAGE, OFlags::RDWR) {
                Ok(file) => file,
                Err(Errno::NOENT) if !is_made => {
                    self.make(&mut make)?;
                    is_made = true;
                    continue;
                }
                // Another machine has made it, and what is known of the directory is from before.
                Err(Errno::NOENT) if uptime_ms() < deadline_ms => {
                    std::thread::sleep(RETRY);
                    continue;
                }
                Err(errno) => return Err(errno).doing(doing),
            };
            if self.lock == Lock::OfServer {
                self.lock_at_server(&file, deadline_ms)?;
            }
            // Somebody may have moved it away while its lock was waited for.
            let ours = fstat(&file).doing(doing)?;
            if self.directory.inode(IMAGE) != Ok(ours.st_ino) && uptime_ms() < deadline_ms {
                continue;
            }
            if self.lock == Lock::OfServer {
                claim.take()?;
            }
            return Ok(file);
        }
    }

    /// Makes an image aside and gives it its name, unless another has it by then.
    fn make(&self, make: &mut impl FnMut(&File) -> Result<()>) -> Result<()> {
        let doing = || format!("making {OWN_DIRECTORY}/{IMAGE} on the NFS server");
        if self.lock == Lock::OfServer {
            self.remove_abandoned();
        }
        let (file, name) = self.directory.private(MAKING).doing(doing)?;
        let made = || {
            if self.lock == Lock::OfServer {
                // Whoever looks for abandoned ones passes it over.
                flock(&file, FlockOperation::NonBlockingLockExclusive).doing(doing)?;
            }
            make(&file)?;
            file.sync_all().doing(doing)?;
            match self.directory.link(&name, IMAGE) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno).doing(doing),
            }
        };
        let made = { made }();
        // Closed first: the client would keep the name of an open file, changed.
        drop(file);
        let removed = self.directory.remove(&name);
        made?;
        removed.doing(|| format!("removing {OWN_DIRECTORY}/{name} on the NFS server"))
    }

    /// Images that were never finished, by machines that have gone. What cannot be removed only takes its place.
    fn remove_abandoned(&self) {
        for name in self.directory.names(MAKING) {
            let file = self.directory.file(&name, OFlags::RDWR);
            let is_free = file
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
            if is_free {
                let _ = self.directory.remove(&name);
            }
        }
    }

    fn lock_at_server(&self, file: &File, deadline_ms: u64) -> Result<()> {
        let mut is_said = false;
        loop {
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if uptime_ms() < deadline_ms => {
                    if !std::mem::replace(&mut is_said, true) {
                        say(&format!(
                            "{IMAGE} is in use by {}: waiting",
                            self.present_owner()
                        ));
                    }
                    std::thread::sleep(RETRY);
                }
                Err(Errno::WOULDBLOCK) => {
                    return fail(format!(
                        "{OWN_DIRECTORY}/{IMAGE} on the NFS server is in use by {}: stop that machine (the server notices within some two minutes when it is gone), or give this one a directory of its own",
                        self.present_owner()
                    ));
                }
                Err(errno) => {
                    return Err(errno)
                        .doing(|| format!("locking {OWN_DIRECTORY}/{IMAGE} at the NFS server"));
                }
            }
        }
    }

    fn present_owner(&self) -> String {
        let mark = self.directory.text(mark::LOCK).ok().flatten();
        let mark = mark.and_then(|text| Mark::parse(&text));
        mark.map_or_else(|| "another machine".to_owned(), |mark| mark.words)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn home(place: &Path, machine: &str, lock: Lock) -> Home {
        Home {
            directory: Directory::open(place).unwrap(),
            ours: Mark::new(Some(machine.into()), format!("host ({machine})"), lock),
            lock,
            patience_ms: 0,
        }
    }

    const ONE: &str = "52:54:00:00:00:01";
    const TWO: &str = "52:54:00:00:00:02";

    fn writes(text: &'static str) -> impl FnMut(&File) -> Result<()> {
        move |mut file| {
            file.write_all(text.as_bytes())
                .doing(|| "writing".to_owned())
        }
    }

    fn content(mut file: &File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(place.join(OWN_DIRECTORY)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_image_that_another_made_meanwhile_is_left_as_it_is() {
        for lock in [Lock::OfServer, Lock::ByName] {
            let place = tempfile::tempdir().unwrap();
            let home = home(place.path(), ONE, lock);
            let path = place.path().join(OWN_DIRECTORY).join(IMAGE);
            let file = home.image(|mut file| {
                std::fs::write(&path, "theirs").unwrap();
                file.write_all(b"ours").doing(|| "writing".to_owned())
            });
            let Ok(file) = file else {
                panic!("it is refused")
            };
            assert_eq!(content(&file), "theirs");
            assert_eq!(names(place.path()), [mark::LOCK, IMAGE]);
        }
    }

    #[test]
    fn an_image_that_could_not_be_made_leaves_nothing_and_one_that_was_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let home = home(place.path(), ONE, Lock::OfServer);
        let own = place.path().join(OWN_DIRECTORY);
        std::fs::write(own.join(format!("{MAKING}1")), "abandoned").unwrap();
        assert!(home.image(|_| fail("no mkfs")).is_err());
        assert_eq!(names(place.path()), [""; 0]);
        assert!(home.image(writes("made")).is_ok());
        let Ok(again) = home.image(|_| fail("it is there")) else {
            panic!("it is made again")
        };
        assert_eq!(content(&again), "made");
    }

    #[test]
    fn machines_of_both_versions_refuse_each_other() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let by_4 = home(place, ONE, Lock::OfServer).image(writes("made"));
        let refused = |machine, lock| {
            let image = home(place, machine, lock).image(|_| fail("it is made"));
            image.err().map(|failure| failure.0)
        };
        assert!(by_4.is_ok());
        let error = refused(TWO, Lock::ByName).unwrap();
        assert!(error.contains(ONE) && error.contains("by NFS 4"), "{error}");
        let error = refused(TWO, Lock::OfServer).unwrap();
        assert!(
            error.contains(&format!("in use by host ({ONE})")),
            "{error}"
        );
        // It has gone: the server knows, and the file names the next.
        drop(by_4);
        assert_eq!(refused(TWO, Lock::OfServer), None);
        assert!(refused(ONE, Lock::ByName).unwrap().contains(TWO));
        assert_eq!(refused(TWO, Lock::ByName), None);
        // Nobody knows whether that one has gone.
        let error = refused(ONE, Lock::OfServer).unwrap();
        assert!(error.contains(TWO) && error.contains("remove"), "{error}");
        assert_eq!(refused(TWO, Lock::OfServer), None);
    }

    #[test]
    fn only_a_server_that_refuses_makes_a_root_read_only() {
        assert!([Errno::ROFS, Errno::ACCESS, Errno::PERM].map(refuses_writing) == [true; 3]);
        assert!(
            [Errno::NOSPC, Errno::DQUOT, Errno::STALE, Errno::IO].map(refuses_writing)
                == [false; 4]
        );
    }
}

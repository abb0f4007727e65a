//! Taking mounts apart: those on others first, the union, then its layers from the top down, then
//! the devices below.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, mount_remount, unmount};

use super::flush::flush;
use super::mounts::{self, Mount};
use super::patience::{Deadline, bounded};
use super::{READ_ONLY, stacked};
use crate::console::say;

/// The union's layers on their way out of it.
const LAYERS: &str = "/layers";
const UNIONS: &str = ".unions";
const UNION_KIND: &str = "overlay";
/// One call, when all that could be written has been; a server that is gone never answers.
const CALL_SECONDS: u64 = 20;
const REMOUNT_SECONDS: u64 = 5;
const POLL: Duration = Duration::from_millis(50);

/// What is still mounted, and what the kernel said.
pub struct Leftover {
    pub mount: Mount,
    pub why: String,
}

/// A root that is taken apart.
pub struct Apart {
    root: PathBuf,
    /// Where the layers go, and other places that are emptied after the root.
    after: Vec<PathBuf>,
    /// Calls on these have not come back: they are not made again.
    hung: BTreeSet<PathBuf>,
}

impl Apart {
    pub fn new(root: &str) -> Apart {
        Apart {
            root: root.into(),
            after: vec![LAYERS.into()],
            hung: BTreeSet::new(),
        }
    }

    /// One more place that is emptied, after all others.
    pub fn and(mut self, place: &str) -> Apart {
        self.after.push(place.into());
        self
    }

    /// Unmounts all of it, or what can be until the deadline: says what is left.
    pub fn dismantle(&mut self, deadline: Deadline) -> Vec<Leftover> {
        flush();
        loop {
            stacked::swap_off();
            self.move_layers_out();
            let mut left = Vec::new();
            let mut progress = false;
            for mount in self.mounts() {
                // With what is detached goes all that lies on it.
                let is_under = |left: &Leftover| left.mount.point.starts_with(&mount.point);
                let may_detach =
                    !mount.is_on_disk() && mount.kind != UNION_KIND && !left.iter().any(is_under);
                match self.unmount(&mount, may_detach) {
                    Ok(went) => progress |= went,
                    Err(why) => left.push(Leftover { mount, why }),
                }
            }
            progress |= stacked::take_down();
            if left.is_empty() && !progress {
                return left;
            }
            if !progress {
                if deadline.is_over() {
                    return left;
                }
                std::thread::sleep(POLL);
            }
        }
    }

    /// What is mounted, in the order in which it goes.
    fn mounts(&self) -> Vec<Mount> {
        let all = mounts::read();
        let mut order = mounts::at_or_below(&all, &self.root);
        for place in &self.after {
            order.extend(mounts::at_or_below(&all, place));
        }
        order
    }

    /// The layers lie in the union, which could not be unmounted before them: but it stands on them.
    fn move_layers_out(&self) {
        let unions = self.root.join(UNIONS);
        let all = mounts::read();
        // In the order in which they were mounted, which stays the order of the list.
        for layer in all
            .iter()
            .filter(|mount| mount.point.parent() == Some(&unions))
        {
            let name = layer.point.file_name().unwrap_or_default();
            // This program is kept there as a file.
            if Path::new(estive_boot::push::PROGRAM).file_name() == Some(name) {
                continue;
            }
            let (layer, target) = (layer.point.clone(), Path::new(LAYERS).join(name));
            // What cannot be moved is unmounted where it is.
            if fs::create_dir_all(&target).is_ok() {
                let _ = bounded(CALL_SECONDS, move || mount_move(layer, target));
            }
        }
    }

    /// Says whether it went now: what was gone before is no progress, or a mount under another one, which is listed and
    /// not found, would be tried for ever.
    fn unmount(&mut self, mount: &Mount, may_detach: bool) -> Result<bool, String> {
        if self.hung.contains(&mount.point) {
            return Err("it does not answer".to_owned());
        }
        let mut flags = vec![UnmountFlags::empty()];
        if may_detach {
            flags.push(UnmountFlags::DETACH);
        }
        let mut why = Errno::BUSY.to_string();
        for flags in flags {
            let point = mount.point.clone();
            let call = move || unmount(&point, flags | UnmountFlags::NOFOLLOW);
            match bounded(CALL_SECONDS, call) {
                // The kernel lists a mount that went with another one no more.
                Some(Ok(())) => return Ok(true),
                Some(Err(Errno::INVAL | Errno::NOENT)) => return Ok(false),
                Some(Err(errno)) => why = errno.to_string(),
                None => {
                    self.hung.insert(mount.point.clone());
                    let point = mount.point.clone();
                    // For servers that are gone: calls that wait for them come back with an error.
                    let _ = bounded(1, move || unmount(&point, UnmountFlags::FORCE));
                    return Err("it does not answer".to_owned());
                }
            }
        }
        Err(why)
    }
}

/// `/proc`, `/sys` and `/dev`, where systemd has not left them.
pub fn mount_kernel_file_systems() {
    for (kind, point, witness) in [
        ("proc", "/proc", "/proc/self/mountinfo"),
        ("sysfs", "/sys", "/sys/block"),
        ("devtmpfs", "/dev", "/dev/console"),
    ] {
        if Path::new(witness).exists() {
            continue;
        }
        let mounted = fs::create_dir_all(point)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                mount(kind, point, kind, MountFlags::empty(), c"")
                    .map_err(|errno| errno.to_string())
            });
        if let Err(error) = mounted {
            say(&format!("shutdown: mounting {point}: {error}"));
        }
    }
}

/// Makes one file system read-only, waiting a while for whoever still writes.
pub fn make_read_only(point: &Path) -> Result<(), String> {
    let deadline = Deadline::in_seconds(REMOUNT_SECONDS);
    loop {
        let target = point.to_path_buf();
        match bounded(CALL_SECONDS, move || mount_remount(&target, READ_ONLY, "")) {
            Some(Ok(())) => return Ok(()),
            Some(Err(Errno::BUSY)) if !deadline.is_over() => std::thread::sleep(POLL),
            Some(Err(errno)) => return Err(errno.to_string()),
            None => return Err("it does not answer".to_owned()),
        }
    }
}

/// In a system that runs: unmounts what is not part of its root, then makes the root read-only,
/// then its layers, the last one mounted first. Says what refused.
pub fn make_all_read_only() -> Vec<(PathBuf, String)> {
    let root = Path::new("/");
    let unions = root.join(UNIONS);
    flush();
    let mut apart = Apart::new("/");
    let mut refused = Vec::new();
    for mount in mounts::at_or_below(&mounts::read(), root) {
        let is_of_root = mount.point == root || mount.point.starts_with(&unions);
        if mount.is_on_disk() && !is_of_root && apart.unmount(&mount, false).is_err() {
            refused.extend(refusal(&mount.point));
        }
    }
    // After a union its layers: what is written to it goes to them.
    let mut of_root: Vec<Mount> = mounts::read();
    of_root.retain(|mount| {
        mount.point == root || mount.point.starts_with(&unions) && mount.is_on_disk()
    });
    of_root.reverse();
    of_root.sort_by_key(|mount| mount.point != root);
    for mount in of_root.iter().filter(|mount| !mount.is_read_only) {
        refused.extend(refusal(&mount.point));
    }
    refused
}

fn refusal(point: &Path) -> Option<(PathBuf, String)> {
    let error = make_read_only(point).err()?;
    Some((point.to_path_buf(), error))
}

/// What the kernel says from now on.
pub struct KernelLog(Option<File>);

impl KernelLog {
    pub fn at_its_end() -> KernelLog {
        let log = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open("/dev/kmsg");
        let log = log
            .ok()
            .filter(|log| rustix::fs::seek(log, rustix::fs::SeekFrom::End(0)).is_ok());
        KernelLog(log)
    }

    /// Waits until it says so.
    pub fn says(mut self, text: &str, seconds: u64) -> bool {
        let deadline = Deadline::in_seconds(seconds);
        let mut record = [0; 8192];
        loop {
            let read = self.0.as_mut().map(|log| log.read(&mut record));
            match read {
                // Each read gives one record.
                Some(Ok(count)) if count > 0 => {
                    if String::from_utf8_lossy(&record[..count]).contains(text) {
                        return true;
                    }
                }
                _ if deadline.is_over() => return false,
                _ => std::thread::sleep(POLL),
            }
        }
    }
}

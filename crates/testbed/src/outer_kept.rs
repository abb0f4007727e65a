//! A testbed that stays up after the command that made it, until it is taken down.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::Error;

const DIRECTORY: &str = "/run/estive";
const RECORD: &str = "/run/estive/testbed.json";

/// Longer than what the first process gives its program.
const DOWN_LIMIT_S: i64 = 75;

/// The outer namespace of a kept testbed, known by its first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    first_pid: u32,
    /// When that process started, in clock ticks since boot: a number that was given again has another.
    started_ticks: u64,
    /// Links made outside that go when it goes.
    #[serde(default)]
    links: Vec<PathBuf>,
}

impl Kept {
    /// The kept testbed of this machine, if one is up. The record of one that is gone is removed.
    pub fn find() -> Result<Option<Self>, Error> {
        let text = match fs::read(RECORD) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(Error::System {
                    doing: format!("reading {RECORD}"),
                    source,
                });
            }
        };
        let Ok(kept) = serde_json::from_slice::<Self>(&text) else {
            let _ = fs::remove_file(RECORD);
            return Ok(None);
        };
        if started_ticks(kept.first_pid) == Some(kept.started_ticks) {
            return Ok(Some(kept));
        }
        kept.forget();
        Ok(None)
    }

    /// An error if one is up.
    pub(crate) fn none_is_up() -> Result<(), Error> {
        match Self::find()? {
            Some(kept) => Err(Error::AlreadyKept {
                pid: kept.first_pid,
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn record(first_pid: u32) -> Result<Self, Error> {
        Self::none_is_up()?;
        let started_ticks = started_ticks(first_pid).ok_or(Error::EndedEarly { code: -1 })?;
        let kept = Self {
            first_pid,
            started_ticks,
            links: Vec::new(),
        };
        kept.write()?;
        Ok(kept)
    }

    fn write(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .map_err(Error::system("writing a record"))?;
        fs::create_dir_all(DIRECTORY).map_err(Error::system(format!("making {DIRECTORY}")))?;
        fs::write(RECORD, text).map_err(Error::system(format!("writing {RECORD}")))
    }

    /// The first process, as seen from here.
    #[must_use]
    pub fn first_pid(&self) -> u32 {
        self.first_pid
    }

    /// How `inside`, an absolute path inside, is reached from outside (by root).
    #[must_use]
    pub fn outside_path(&self, inside: &Path) -> PathBuf {
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        Path::new("/proc")
            .join(self.first_pid.to_string())
            .join("root")
            .join(relative)
    }

    /// Makes `path` outside a symbolic link to the same path inside, as `/run/estive/manager.sock`.
    pub fn link(&mut self, path: &Path) -> Result<(), Error> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                fs::remove_file(path).map_err(Error::system(format!(
                    "removing the old {}",
                    path.display()
                )))?;
            }
            Ok(_) => {
                return Err(Error::PathTaken {
                    path: path.to_owned(),
                });
            }
            Err(_) => {}
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .map_err(Error::system(format!("making {}", parent.display())))?;
        }
        std::os::unix::fs::symlink(self.outside_path(path), path)
            .map_err(Error::system(format!("linking {}", path.display())))?;
        self.links.push(path.to_owned());
        self.write()
    }

    /// The words before a program's own that start it inside, in the outer network or in the named namespace there.
    #[must_use]
    pub fn prefix(&self, namespace: Option<&str>) -> Vec<String> {
        let pid = self.first_pid;
        let mut words = vec![
            "nsenter".to_owned(),
            format!("--target={pid}"),
            "--mount".to_owned(),
            "--pid".to_owned(),
        ];
        words.push(match namespace {
            Some(name) => format!("--net=/proc/{pid}/root/run/netns/{name}"),
            None => "--net".to_owned(),
        });
        words.push("--".to_owned());
        words
    }

    /// Takes it down: asks the program inside to end, waits, and removes the links. Whatever is left is killed.
    pub fn down(self) -> Result<(), Error> {
        let ended = self.end();
        self.forget();
        ended
    }

    fn end(&self) -> Result<(), Error> {
        let doing = || format!("ending the kept testbed (process {})", self.first_pid);
        let Some(pid) = i32::try_from(self.first_pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        if started_ticks(self.first_pid) != Some(self.started_ticks) {
            return Ok(());
        }
        for (signal, limit_s) in [(Signal::TERM, DOWN_LIMIT_S), (Signal::KILL, 30)] {
            match pidfd_send_signal(&handle, signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                other => other
                    .map_err(io::Error::from)
                    .map_err(Error::system(doing()))?,
            }
            let limit = Timespec {
                tv_sec: limit_s,
                tv_nsec: 0,
            };
            let ready = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit))
                .map_err(io::Error::from)
                .map_err(Error::system(doing()))?;
            if ready > 0 {
                return Ok(());
            }
        }
        Err(Error::System {
            doing: doing(),
            source: io::Error::other("it did not end though killed"),
        })
    }

    pub(crate) fn forget(&self) {
        for link in &self.links {
            if fs::symlink_metadata(link).is_ok_and(|found| found.is_symlink()) {
                let _ = fs::remove_file(link);
            }
        }
        let _ = fs::remove_file(RECORD);
        // Only if nothing else is in it.
        let _ = fs::remove_dir(DIRECTORY);
    }
}

/// Field 22 of `/proc/PID/stat`, counted after the name in brackets, which may hold anything.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_start_and_no_other_has_it() {
        let own = started_ticks(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(started_ticks(std::process::id()), Some(own));
        assert_eq!(started_ticks(0), None);
    }

    #[test]
    fn paths_inside_are_reached_through_the_first_process() {
        let kept = Kept {
            first_pid: 42,
            started_ticks: 1,
            links: Vec::new(),
        };
        assert_eq!(
            kept.outside_path(Path::new("/run/estive/manager.sock")),
            Path::new("/proc/42/root/run/estive/manager.sock")
        );
    }
}

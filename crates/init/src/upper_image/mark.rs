//! The file `.estive/lock`: which machine has the image, and by which version of NFS.
//!
//! ```text
//! clone01 (52:54:00:12:34:56)
//! nfs 4
//! ```
//!
//! It comes whole: written aside and linked, which one machine alone can. One that is there is changed by the machine
//! that has linked `lock.turn`, and by that only if it is its own, is empty (left by a crash), or was left by NFS 4 and the
//! image's lock at the server is held: then whoever left it has gone.

use std::io::Write;

use rustix::io::Errno;

use super::directory::Directory;
use super::{IMAGE, Lock, RETRY};
use crate::console::uptime_ms;
use crate::failure::{Result, While, fail};
use crate::loaders::OWN_DIRECTORY;
use crate::network::Network;

pub const LOCK: &str = "lock";
const MAKING: &str = "lock.new.";
const TURN: &str = "lock.turn";
const BY_VERSION_4: &str = "nfs 4";
const BY_VERSION_3: &str = "nfs 3";
const MAC_CHARACTERS: usize = 17;

/// A machine that has the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The address of its card: host names are lent, and change.
    machine: Option<String>,
    /// For people.
    pub words: String,
    is_by_version_4: bool,
}

impl Mark {
    /// This machine's.
    pub fn of(network: &Network, lock: Lock) -> Mark {
        Mark::new(network.machine_name(), network.owner(), lock)
    }

    pub fn new(machine: Option<String>, words: String, lock: Lock) -> Mark {
        Mark {
            machine: machine.map(|mac| mac.to_ascii_lowercase()),
            words: clean(&words),
            is_by_version_4: lock == Lock::OfServer,
        }
    }

    /// `None` of an empty file. What a server holds may hold anything: it is somebody's then.
    pub fn parse(text: &str) -> Option<Mark> {
        let words = text.lines().next()?.trim();
        let is_mac = |word: &&str| {
            word.len() == MAC_CHARACTERS
                && word.split(':').count() == 6
                && word.split(':').all(|byte| byte.len() == 2)
        };
        let mac = words
            .split(|c: char| !c.is_ascii_hexdigit() && c != ':')
            .rfind(is_mac);
        (!words.is_empty()).then(|| Mark {
            machine: mac.map(str::to_ascii_lowercase),
            words: clean(words),
            is_by_version_4: text.lines().any(|line| line == BY_VERSION_4),
        })
    }

    fn text(&self) -> String {
        let version = match self.is_by_version_4 {
            true => BY_VERSION_4,
            false => BY_VERSION_3,
        };
        format!("{}\n{version}\n", self.words)
    }

    fn is_of_same_machine(&self, other: &Mark) -> bool {
        self.machine.is_some() && self.machine == other.machine
    }
}

fn clean(words: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    words.chars().map(shown).collect()
}

/// What the file says.
enum Found {
    Nothing,
    Empty,
    Of(Mark),
}

/// A machine that wants the image.
pub struct Claim<'a> {
    pub directory: &'a Directory,
    pub ours: &'a Mark,
    pub deadline_ms: u64,
}

impl Claim<'_> {
    /// Fails if the file names a machine that may be at work, and that no lock at the server would tell of.
    pub fn is_free(&self) -> Result<()> {
        self.check(&self.found()?)
    }

    /// Makes the file ours. With NFS 4 the image is locked before.
    pub fn take(&self) -> Result<()> {
        let doing = || format!("making {OWN_DIRECTORY}/{LOCK} on the NFS server");
        let (mut file, name) = self.directory.private(MAKING).doing(doing)?;
        let written = file.write_all(self.ours.text().as_bytes());
        let written = written.and_then(|()| file.sync_all()).doing(doing);
        drop(file);
        let taken = written.and_then(|()| {
            while !self.try_take(&name)? {
                std::thread::sleep(RETRY);
            }
            Ok(())
        });
        let removed = self.directory.remove(&name).doing(doing);
        taken.and(removed)
    }

    /// Says whether it is taken; if not, another machine has its turn just now.
    fn try_take(&self, name: &str) -> Result<bool> {
        let doing = || format!("making {OWN_DIRECTORY}/{LOCK} on the NFS server");
        match self.directory.link(name, LOCK) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        self.is_free()?;
        match self.directory.link(name, TURN) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let turn = self.directory.text(TURN).doing(doing)?;
                let turn = turn.and_then(|text| Mark::parse(&text));
                // Ours is from before a crash.
                if !turn.is_some_and(|turn| turn.is_of_same_machine(self.ours)) {
                    return match uptime_ms() < self.deadline_ms {
                        true => Ok(false),
                        false => fail(format!(
                            "another machine is taking {OWN_DIRECTORY}/{LOCK} on the NFS server: if there is none, remove {OWN_DIRECTORY}/{TURN} there"
                        )),
                    };
                }
            }
            Err(errno) => return Err(errno).doing(doing),
        }
        let replaced = self.replace(name);
        self.directory.remove(TURN).doing(doing)?;
        replaced
    }

    /// What was read before one's turn may have changed since.
    fn replace(&self, name: &str) -> Result<bool> {
        let found = self.found()?;
        self.check(&found)?;
        if let Found::Nothing = found {
            return Ok(false);
        }
        self.directory
            .replace(name, LOCK)
            .doing(|| format!("making {OWN_DIRECTORY}/{LOCK} on the NFS server"))?;
        Ok(true)
    }

    fn found(&self) -> Result<Found> {
        let text = self
            .directory
            .text(LOCK)
            .doing(|| format!("reading {OWN_DIRECTORY}/{LOCK} on the NFS server"))?;
        Ok(match text {
            None => Found::Nothing,
            Some(text) => Mark::parse(&text).map_or(Found::Empty, Found::Of),
        })
    }

    fn check(&self, found: &Found) -> Result<()> {
        let Found::Of(mark) = found else {
            return Ok(());
        };
        let are_both_by_4 = mark.is_by_version_4 && self.ours.is_by_version_4;
        if are_both_by_4 || mark.is_of_same_machine(self.ours) {
            return Ok(());
        }
        let (how, other) = match (mark.is_by_version_4, self.ours.is_by_version_4) {
            (true, _) => (", by NFS 4", ", or use vers=4.2 as it does"),
            (false, true) => (", by NFS 3", ""),
            (false, false) => ("", ", or use vers=4.2"),
        };
        fail(format!(
            "{OWN_DIRECTORY}/{IMAGE} on the NFS server belongs to {}{how}: if that machine is gone for good, remove {OWN_DIRECTORY}/{LOCK} there; else give this one a directory of its own{other}",
            mark.words
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "52:54:00:00:00:0a";

    fn mark(words: &str, lock: Lock) -> Mark {
        Mark::new(Some(MAC.into()), words.into(), lock)
    }

    #[test]
    fn a_machine_is_known_by_its_card_whatever_it_is_called() {
        let ours = mark(&format!("node7 ({MAC})"), Lock::ByName);
        for text in [
            format!("clone01 ({MAC})\n"),
            format!("the machine with {}\nnfs 4\n", MAC.to_uppercase()),
            ours.text(),
        ] {
            let found = Mark::parse(&text).unwrap();
            assert!(found.is_of_same_machine(&ours), "{text}");
            assert_eq!(found.is_by_version_4, text.contains("nfs 4"));
        }
        for text in [
            "node7 (52:54:00:00:00:0b)",
            "node7",
            "node7 (52:54:00:00:00)",
        ] {
            assert!(!Mark::parse(text).unwrap().is_of_same_machine(&ours));
        }
        // Two of which nothing is known are not one.
        let unknown = Mark::new(None, "x".into(), Lock::ByName);
        assert!(!unknown.is_of_same_machine(&unknown));
        assert_eq!(Mark::parse("\n"), None);
        assert_eq!(Mark::parse("a\x1bb").unwrap().words, "a?b");
    }

    #[test]
    fn an_empty_file_is_nobodys_and_a_turn_of_before_a_crash_is_ones_own() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let path = |name: &str| place.path().join(OWN_DIRECTORY).join(name);
        let ours = mark(&format!("node7 ({MAC})"), Lock::ByName);
        let claim = Claim {
            directory: &directory,
            ours: &ours,
            deadline_ms: 0,
        };
        std::fs::write(path(LOCK), "").unwrap();
        std::fs::write(path(TURN), ours.text()).unwrap();
        assert!(claim.take().is_ok());
        assert_eq!(std::fs::read_to_string(path(LOCK)).unwrap(), ours.text());
        assert!(!path(TURN).exists());
        // While another machine changes it, it is left alone.
        std::fs::write(path(LOCK), "").unwrap();
        std::fs::write(path(TURN), "other (52:54:00:00:00:0b)\n").unwrap();
        let Err(failure) = claim.take() else {
            panic!("it is taken")
        };
        assert!(failure.0.contains("remove .estive/lock.turn"), "{failure}");
        assert_eq!(std::fs::read_to_string(path(LOCK)).unwrap(), "");
        assert_eq!(directory.names(MAKING), [""; 0]);
    }
}

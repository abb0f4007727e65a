//! What was refused, told to the agent: a small file each, which the agent takes away and makes an event of.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use estive_api::wire::{Trouble, write_note};
use estive_chunks::ChunkDigest;

/// Files that may wait for the agent.
const MAX_WAITING: usize = 256;
/// The longest told, in characters: part of it are words of others, and what the agent reads has a limit.
const MAX_TOLD: usize = 2000;
/// Told ones that are remembered, so that a guest that asks for ever does not fill a log.
const MAX_REMEMBERED: usize = 4096;

pub(crate) struct Troubles {
    directory: PathBuf,
    told: Mutex<BTreeSet<ChunkDigest>>,
}

impl Troubles {
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            told: Mutex::default(),
        }
    }

    /// Tells it, once. Blocks for a moment.
    pub fn tell(&self, reason: String) {
        let reason = one_line(&reason);
        let id = ChunkDigest::of(reason.as_bytes());
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= MAX_REMEMBERED {
                told.clear();
            }
            if !told.insert(id) {
                return;
            }
        }
        tracing::error!("{reason}");
        let waiting = std::fs::read_dir(&self.directory).map_or(0, Iterator::count);
        if waiting >= MAX_WAITING {
            return;
        }
        let path = self.directory.join(format!("{id}.json"));
        if let Err(error) = write_note(&path, &Trouble { reason }) {
            tracing::warn!(%error, path = %path.display(), "the agent cannot be told");
        }
    }
}

/// One line of bounded length: an origin chooses some of the words.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_TOLD).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_not_without_end() {
        let home = tempfile::tempdir().unwrap();
        let troubles = Troubles::new(home.path().to_owned());
        let count = || std::fs::read_dir(home.path()).unwrap().count();
        for _ in 0..3 {
            troubles.tell("a chunk is not what it should be".into());
        }
        assert_eq!(count(), 1);
        for number in 0..2 * MAX_WAITING {
            troubles.tell(format!("chunk {number}"));
        }
        assert_eq!(count(), MAX_WAITING);
    }

    #[test]
    fn whatever_an_origin_says_the_agent_can_read_it_as_one_line() {
        let home = tempfile::tempdir().unwrap();
        let said = format!("it says: {}", "\n\u{1b}[2Jé\"".repeat(100_000));
        Troubles::new(home.path().to_owned()).tell(said);
        let file = std::fs::read_dir(home.path()).unwrap().next().unwrap();
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(bytes.len() as u64 <= estive_api::wire::MAX_NOTE_BYTES);
        let told: Trouble = serde_json::from_slice(&bytes).unwrap();
        assert!(told.reason.starts_with("it says: ") && !told.reason.contains(char::is_control));
    }
}

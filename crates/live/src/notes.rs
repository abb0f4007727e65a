//! What the agent wrote: which clone of this host may read which reference.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use estive_api::wire::{LiveNote, MAX_NOTE_BYTES};

use crate::LiveError;

/// A host has some tens of clones.
const MOST_NOTES: usize = 4096;

/// All notes at one time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notes {
    notes: Vec<LiveNote>,
}

impl Notes {
    /// What cannot be understood is said and lets nobody in. Blocks.
    pub fn read(directory: &Path) -> io::Result<Notes> {
        let top = match estive_beneath::open_top(directory) {
            Err(estive_beneath::Errno::NOENT) => return Ok(Notes::default()),
            top => top?,
        };
        let mut notes = Vec::new();
        for entry in std::fs::read_dir(directory)?.take(MOST_NOTES) {
            let name = entry?.file_name();
            let Some(domain) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            // Written aside, under a name that is not yet one.
            if domain.starts_with('.') {
                continue;
            }
            let read = || -> io::Result<LiveNote> {
                let name = format!("{domain}.json");
                let file = File::from(estive_beneath::open_file(&top, &name)?);
                let mut bytes = Vec::new();
                file.take(MAX_NOTE_BYTES).read_to_end(&mut bytes)?;
                Ok(serde_json::from_slice(&bytes)?)
            };
            match read() {
                Ok(note) => notes.push(note),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%domain, %error, "what the agent wrote cannot be understood");
                }
            }
        }
        Ok(Notes { notes })
    }

    /// Where to listen for clones.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.notes.iter().map(|note| note.listen).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// What a clone may read by this address. Two clones of one address read nothing: who asks cannot be told.
    pub fn of_clone(&self, listen: SocketAddr, clone: IpAddr) -> Option<&LiveNote> {
        let of_clone = |note: &&LiveNote| note.listen == listen && note.clone == clone;
        let mut found = self.notes.iter().filter(of_clone);
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }
}

/// The directory of notes, made when it is missing. Blocks.
pub fn directory(directory: PathBuf) -> Result<PathBuf, LiveError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    match made {
        Ok(()) => Ok(directory),
        Err(source) => Err(LiveError::File {
            what: "making the directory",
            path: directory,
            source,
        }),
    }
}

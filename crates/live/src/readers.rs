//! Who may read a live reference: a manager says which clone, and from which host. It is kept, so nobody misses a manager
//! that is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use estive_api::Problem;
use estive_api::wire::{LiveReader, LiveReaders, write_note};
use tokio::sync::{Mutex, watch};

use crate::LiveError;

const FILE: &str = "readers.json";
/// Of one manager, for one reference.
const MOST: usize = 65_536;

/// By reference, and by the manager that said so.
type Known = BTreeMap<String, BTreeMap<String, BTreeSet<LiveReader>>>;

/// What managers have said.
#[derive(Debug)]
pub struct Readers {
    path: PathBuf,
    known: watch::Sender<Arc<Known>>,
    /// One says something at a time.
    saying: Mutex<()>,
}

impl Readers {
    /// As it was kept in `state`. Blocks.
    pub fn open(state: &Path) -> Result<Readers, LiveError> {
        let path = state.join(FILE);
        let known = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::from),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::new()),
            Err(error) => Err(error),
        };
        let known = known.map_err(|source| LiveError::File {
            what: "reading who may read live references, from",
            path: path.clone(),
            source,
        })?;
        Ok(Readers {
            path,
            known: watch::Sender::new(Arc::new(known)),
            saying: Mutex::default(),
        })
    }

    /// Durable when it returns; who may read no more is cut.
    pub async fn say(
        &self,
        reference: &str,
        manager: &str,
        said: LiveReaders,
    ) -> Result<(), Problem> {
        let _one = self.saying.lock().await;
        let mut known = Known::clone(&self.known.borrow());
        let of = known.entry(reference.to_owned()).or_default();
        let of = of.entry(manager.to_owned()).or_default();
        let before = of.clone();
        of.retain(|reader| !said.gone.contains(reader));
        of.extend(said.readers);
        if *of == before {
            return Ok(());
        }
        if of.len() > MOST {
            return Err(Problem::impossible(format!(
                "more than {MOST} clones of one manager cannot read {reference}"
            )));
        }
        let known = Arc::new(known);
        let (path, kept) = (self.path.clone(), Arc::clone(&known));
        let written = tokio::task::spawn_blocking(move || write_note(&path, &*kept)).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| {
            Problem::failed(format!(
                "who may read {reference} could not be written to {}: {error}",
                self.path.display()
            ))
        })?;
        self.known.send_replace(known);
        Ok(())
    }

    /// Whether any manager lets this host read it for that clone.
    pub fn may(&self, reference: &str, host: &str, clone: IpAddr) -> bool {
        may(&self.known.borrow(), reference, host, clone)
    }

    /// Ends when it may no more.
    pub async fn until_gone(&self, reference: &str, host: &str, clone: IpAddr) {
        let mut known = self.known.subscribe();
        // We hold the other end.
        let _ = known
            .wait_for(|known| !may(known, reference, host, clone))
            .await;
    }
}

fn may(known: &Known, reference: &str, host: &str, clone: IpAddr) -> bool {
    let is_it = |reader: &LiveReader| reader.clone == clone && reader.host.as_str() == host;
    let said = known.get(reference).into_iter().flat_map(BTreeMap::values);
    said.flatten().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::HostName;

    fn reader(number: u8, host: &str) -> LiveReader {
        LiveReader {
            clone: [10, 77, 0, number].into(),
            host: HostName::new(host).unwrap(),
        }
    }

    #[tokio::test]
    async fn what_managers_say_is_kept_and_each_takes_away_its_own() {
        let state = tempfile::tempdir().unwrap();
        let readers = Readers::open(state.path()).unwrap();
        let of = |number: u8| IpAddr::from([10, 77, 0, number]);
        assert!(!readers.may("demo", "h1", of(1)));
        let let_in = |all: &[LiveReader]| LiveReaders {
            readers: all.iter().cloned().collect(),
            gone: BTreeSet::new(),
        };
        let both = let_in(&[reader(1, "h1"), reader(2, "h2")]);
        readers.say("demo", "a", both).await.unwrap();
        let one = let_in(&[reader(1, "h1")]);
        readers.say("demo", "b", one.clone()).await.unwrap();
        readers.say("other", "a", one.clone()).await.unwrap();
        // One that knows nothing takes nothing away.
        readers
            .say("demo", "a", LiveReaders::default())
            .await
            .unwrap();
        let again = Readers::open(state.path()).unwrap();
        for readers in [&readers, &again] {
            assert!(readers.may("demo", "h1", of(1)) && readers.may("demo", "h2", of(2)));
            assert!(!readers.may("demo", "h1", of(2)) && !readers.may("demo", "h2", of(1)));
            assert!(readers.may("other", "h1", of(1)) && !readers.may("third", "h1", of(1)));
        }
        let gone = LiveReaders {
            readers: BTreeSet::new(),
            gone: one.readers,
        };
        readers.say("demo", "a", gone.clone()).await.unwrap();
        assert!(readers.may("demo", "h1", of(1)), "another manager's clone");
        let cut = readers.until_gone("demo", "h1", of(1));
        let (said, ()) = tokio::join!(readers.say("demo", "b", gone), cut);
        said.unwrap();
        assert!(
            !Readers::open(state.path())
                .unwrap()
                .may("demo", "h1", of(1))
        );
        // What cannot be understood lets nobody in by chance.
        std::fs::write(state.path().join(FILE), "{").unwrap();
        assert!(Readers::open(state.path()).is_err());
    }
}

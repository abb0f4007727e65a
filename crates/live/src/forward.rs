//! The host's side: an address for clones, and links to references.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use estive_api::wire::{CacheDirectory, DoorAbout, LiveNote, live_path};
use estive_api::{Client, Credentials};
use estive_nfs::{Memory, Share};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::LiveError;
use crate::notes::{self, Notes};
use crate::relay::relay;

/// How soon a new address is listened on, and a clone that may no longer read is cut.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LINK_PATIENCE: Duration = Duration::from_secs(5);
/// Of one clone. Its kernel has one, and one more while it mounts.
const MOST_CONNECTIONS: usize = 16;

/// Serves what the notes in the cache's directory say, until `shutdown`. `told` has where, and what is in the way; calls
/// under way take `memory`.
pub async fn forward(
    directory: &CacheDirectory,
    credentials: Credentials,
    told: watch::Sender<Vec<DoorAbout>>,
    memory: Arc<Memory>,
    shutdown: CancellationToken,
) -> Result<(), LiveError> {
    let directory = notes::directory(directory.live())?;
    let host = Arc::new(Host {
        directory,
        credentials,
        memory,
        links: Mutex::default(),
    });
    let mut doors: HashMap<SocketAddr, Door> = HashMap::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = tick.tick() => {}
        }
        let Some(notes) = host.notes().await else {
            continue;
        };
        let wanted = notes.addresses();
        doors.retain(|address, _| wanted.contains(address));
        let mut state = Vec::new();
        for address in wanted {
            let mut wrong = None;
            if let Entry::Vacant(place) = doors.entry(address) {
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        tracing::info!(%address, "clones with live references are let in here");
                        let task = tokio::spawn(accept(Arc::clone(&host), listener, address));
                        place.insert(Door(task.abort_handle()));
                    }
                    Err(error) => {
                        // The agent makes the address; perhaps it is about to. All else somebody has to mend.
                        let waits = error.kind() == ErrorKind::AddrNotAvailable;
                        let known = is_told(&told.borrow(), address, &error);
                        if !waits && !known {
                            tracing::warn!(%address, %error, "clones with live references are not let in here");
                        }
                        wrong = Some(error.to_string());
                    }
                }
            }
            state.push(DoorAbout {
                listen: address,
                wrong,
            });
        }
        told.send_if_modified(|told| {
            let is_other = *told != state;
            *told = state;
            is_other
        });
        host.cut(&notes);
    }
}

/// Once is enough to be said.
fn is_told(told: &[DoorAbout], address: SocketAddr, error: &std::io::Error) -> bool {
    let wrong = Some(error.to_string());
    told.iter()
        .any(|door| door.listen == address && door.wrong == wrong)
}

struct Door(AbortHandle);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Host {
    directory: PathBuf,
    credentials: Credentials,
    memory: Arc<Memory>,
    links: Mutex<Vec<Link>>,
}

/// A connection of a clone that is passed on.
struct Link {
    listen: SocketAddr,
    clone: IpAddr,
    reference: String,
    task: AbortHandle,
}

impl Host {
    async fn notes(&self) -> Option<Notes> {
        let directory = self.directory.clone();
        match tokio::task::spawn_blocking(move || Notes::read(&directory)).await {
            Ok(Ok(notes)) => Some(notes),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look which clones may read what");
                None
            }
            Err(_) => None,
        }
    }

    fn links(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts those that may no longer read, and forgets those that have ended.
    fn cut(&self, notes: &Notes) {
        self.links().retain(|link| {
            let now = notes.of_clone(link.listen, link.clone);
            let may = now.is_some_and(|note| note.reference == link.reference);
            if !may {
                link.task.abort();
            }
            may && !link.task.is_finished()
        });
    }
}

async fn accept(host: Arc<Host>, listener: TcpListener, listen: SocketAddr) {
    // Ends with the door: what a clone has open goes when its address goes.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a clone");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let clone = peer.ip();
        // Read anew: a clone that has just come must not be turned away.
        let Some(notes) = host.notes().await else {
            continue;
        };
        let Some(note) = notes.of_clone(listen, clone).cloned() else {
            tracing::warn!(%clone, %listen, "refused: no reference is for this address");
            continue;
        };
        let count = host
            .links()
            .iter()
            .filter(|link| link.clone == clone)
            .count();
        if count >= MOST_CONNECTIONS {
            tracing::warn!(%clone, "refused: it has {count} connections");
            continue;
        }
        let reference = note.reference.clone();
        let share = host.memory.share(&clone.to_string());
        let task = connections.spawn(pass(host.credentials.clone(), stream, share, note));
        host.links().push(Link {
            listen,
            clone,
            reference,
            task,
        });
    }
}

async fn pass(credentials: Credentials, stream: TcpStream, share: Share, note: LiveNote) {
    let _ = stream.set_nodelay(true);
    let path = live_path(&note.reference, note.clone);
    // Another origin at each try, so that one that is silent is not asked for ever.
    let mut next = 0;
    let link = || {
        let origin = note.origins.get(next % note.origins.len().max(1)).cloned();
        next += 1;
        let (credentials, path) = (&credentials, &path);
        async move {
            let origin = origin.ok_or("its note names no origin")?;
            let client =
                Client::new(origin, Some(credentials)).map_err(|error| error.to_string())?;
            client
                .upgrade(path, LINK_PATIENCE)
                .await
                .map_err(|error| error.to_string())
        }
    };
    if let Err(error) = relay(stream, share, link).await {
        tracing::debug!(clone = %note.clone, reference = note.reference, %error, "a clone's connection broke");
    }
}

//! Our own NBD server on a unix socket, read-only, of what the cache can give.
//!
//! The protocol is doc/proto.md of the NetworkBlockDevice project: fixed newstyle negotiation, simple and structured
//! replies. What a client sends has limits, each with its answer or the end of that connection.

mod negotiation;
mod transmission;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use estive_api::server::SocketFile;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Cache;

/// Connections at once: every clone of the host, some of them twice while they move.
const CONNECTIONS: usize = 1024;
/// From the connection until a root is chosen.
const NEGOTIATION: Duration = Duration::from_secs(30);

/// Error numbers of the protocol, which are those of Linux.
mod errno {
    pub const EPERM: u32 = 1;
    pub const EIO: u32 = 5;
    pub const EINVAL: u32 = 22;
    pub const EOVERFLOW: u32 = 75;
    pub const ESHUTDOWN: u32 = 108;
}

/// Serves until `shutdown`; then every connection is closed, which a client that reconnects gets over.
pub async fn serve(
    cache: Arc<Cache>,
    listener: UnixListener,
    file: SocketFile,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept an NBD connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !file.lets_in(&stream) {
            tracing::warn!("refused a local user");
            continue;
        }
        let (cache, shutdown) = (cache.clone(), shutdown.clone());
        connections.spawn(async move {
            cache.count_clients().fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                ended = converse(&cache, stream) => if let Err(error) = ended {
                    tracing::debug!(%error, "an NBD connection ended");
                },
                () = shutdown.cancelled() => {}
            }
            cache.count_clients().fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    drop((listener, file));
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

async fn converse(cache: &Arc<Cache>, mut stream: UnixStream) -> io::Result<()> {
    let agreed = timeout(NEGOTIATION, negotiation::negotiate(cache, &mut stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    match agreed {
        Some(agreed) => transmission::transmit(cache, stream, agreed).await,
        None => Ok(()),
    }
}

/// What is said to a client, cut to what the protocol allows in a string, and less.
fn said(why: &str) -> &[u8] {
    let most = (0..=why.len().min(1024))
        .rev()
        .find(|&at| why.is_char_boundary(at))
        .unwrap_or(0);
    &why.as_bytes()[..most]
}

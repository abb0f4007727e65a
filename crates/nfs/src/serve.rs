//! Connections: records in, replies out, some calls of one client at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::record;
use crate::service::Service;

/// What clients may have of this process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// Calls under way of one connection; more wait in its stream. Each may take 2 MiB.
    pub calls: usize,
    /// For the rest of a record that has begun, and for a reply to be taken.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            calls: 16,
            patience: Duration::from_secs(60),
        }
    }
}

/// Serves one client until it closes. Errors are those of its stream, and records without measure.
pub async fn serve<S>(
    service: Arc<Service>,
    peer: String,
    stream: S,
    limits: Limits,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reading, mut writing) = tokio::io::split(stream);
    let (replies, mut to_write) = mpsc::channel::<Reply>(limits.calls);
    let write = async move {
        while let Some(Reply { bytes, permit }) = to_write.recv().await {
            let head = record::head(bytes.len());
            let mut record = io::Cursor::new(head).chain(io::Cursor::new(bytes));
            timeout(
                limits.patience,
                tokio::io::copy_buf(&mut record, &mut writing),
            )
            .await??;
            writing.flush().await?;
            drop(permit);
        }
        Ok::<_, io::Error>(())
    };
    let calls = Arc::new(Semaphore::new(limits.calls));
    let peer = Arc::<str>::from(peer);
    let read = async move {
        loop {
            let mut head = [0; 4];
            if let Err(error) = reading.read_exact(&mut head).await {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof => Ok(()),
                    _ => Err(error),
                };
            }
            // Before the record is taken: what waits, waits in the client.
            let permit = Arc::clone(&calls)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let record = record::read_rest(&mut reading, head);
            let record = timeout(limits.patience, record).await??;
            let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
            let replies = replies.clone();
            tokio::task::spawn_blocking(move || {
                // The client is gone, and perhaps asks again elsewhere: what waited must not be done after what it asks then.
                if replies.is_closed() {
                    return;
                }
                if let Some(bytes) = service.answer(&peer, &record) {
                    // Nobody is there when the client is gone.
                    let _ = replies.blocking_send(Reply { bytes, permit });
                }
            });
        }
    };
    // Whichever ends: a client that has closed its side waits for no reply.
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}

struct Reply {
    bytes: Vec<u8>,
    permit: tokio::sync::OwnedSemaphorePermit,
}

/// Serves whoever connects, until it is dropped.
pub async fn listen(service: Arc<Service>, listener: TcpListener, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = Arc::clone(&service);
        clients.spawn(async move {
            // A reply is one small piece: it does not wait for more.
            let _ = stream.set_nodelay(true);
            if let Err(error) = serve(service, peer.ip().to_string(), stream, limits).await {
                tracing::debug!(%peer, %error, "a client is gone");
            }
            drop(permit);
        });
    }
}

//! Connections: records in, replies out, some calls of one client at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::record;
use crate::service::Service;

/// Calls that are done at a time in this process, of all clients; others take their turn. Each has a thread, and up to
/// eight files open: a process has mostly 1024, and other work for its threads.
const AT_ONCE: usize = 64;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

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
            timeout(limits.patience, record::write(&mut writing, &bytes)).await??;
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
            let turn = TURNS.acquire().await.map_err(io::Error::other)?;
            tokio::task::spawn_blocking(move || {
                // The client is gone, and perhaps asks again elsewhere: what waited must not be done after what it asks then.
                if replies.is_closed() {
                    return;
                }
                let answer = service.answer(&peer, &record);
                drop(turn);
                if let Some(bytes) = answer {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Key;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn calls_take_their_turn_whoever_asks() {
        let service = Arc::new(Service::open(Vec::new(), &Key::fresh()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let all = u32::try_from(AT_ONCE).unwrap();
            let others = TURNS.acquire_many(all).await.unwrap();
            let (mut ours, theirs) = tokio::io::duplex(1 << 10);
            let serving = serve(service, "test".into(), theirs, Limits::default());
            let serving = tokio::spawn(serving);
            // NULL of NFS, without credentials.
            for word in [40 | 1 << 31, 7, 0, 2, 100_003, 3, 0, 0, 0, 0, 0] {
                ours.write_u32(word).await.unwrap();
            }
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            // Behind whatever the one thread was given to do.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            let mut head = [0; 8];
            tokio::select! {
                biased;
                _ = ours.read_exact(&mut head) => panic!("it had no turn"),
                () = tokio::task::yield_now() => {}
            }
            drop(others);
            ours.read_exact(&mut head).await.unwrap();
            assert_eq!(head[4..], [0, 0, 0, 7]);
            assert_eq!(TURNS.available_permits(), AT_ONCE);
            serving.abort();
        });
    }
}

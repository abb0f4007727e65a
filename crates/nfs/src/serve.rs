//! Connections: records in, replies out, some calls of one client at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::record;
use crate::service::Service;
use crate::turns::Turn;

/// What clients may have of this process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// Calls under way of one connection; more wait in its stream. Each may take 2 MiB. More than an export has turns, or
    /// one that hangs would take those of others from a client of both.
    pub calls: usize,
    /// For the rest of a record that has begun, and for a reply to be taken.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            calls: 48,
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
        // Of what waits for its turn; it goes with the client.
        let mut waiting = JoinSet::new();
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
            let call = Asked {
                service: Arc::clone(&service),
                peer: Arc::clone(&peer),
                replies: replies.clone(),
                record,
                permit,
            };
            while waiting.try_join_next().is_some() {}
            match service.turns_for(&call.record) {
                None => call.answer(None),
                Some(turns) => match turns.try_take() {
                    Some(turn) => call.answer(Some(turn)),
                    None => {
                        waiting.spawn(async move {
                            match turns.take().await {
                                Some(turn) => call.answer(Some(turn)),
                                None => call.come_again().await,
                            }
                        });
                    }
                },
            }
        }
    };
    // Whichever ends: a client that has closed its side waits for no reply.
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}

/// A call that has come in.
struct Asked {
    service: Arc<Service>,
    peer: Arc<str>,
    replies: mpsc::Sender<Reply>,
    record: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

impl Asked {
    fn answer(self, turn: Option<Turn>) {
        tokio::task::spawn_blocking(move || {
            // The client is gone, and perhaps asks again elsewhere: what waited must not be done after what it asks then.
            if self.replies.is_closed() {
                return;
            }
            let answer = self.service.answer(&self.peer, &self.record);
            drop(turn);
            let permit = self.permit;
            if let Some(bytes) = answer {
                // Nobody is there when the client is gone.
                let _ = self.replies.blocking_send(Reply { bytes, permit });
            }
        });
    }

    async fn come_again(self) {
        let permit = self.permit;
        if let Some(bytes) = self.service.come_again(&self.record) {
            let _ = self.replies.send(Reply { bytes, permit }).await;
        }
    }
}

struct Reply {
    bytes: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

/// Serves whoever connects, until it is dropped.
pub async fn listen(service: Arc<Service>, listener: TcpListener, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let mut clients = JoinSet::new();
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
    use crate::export::{Access, ExportConfig};
    use crate::handle::Key;
    use crate::hidden::Hidden;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    /// GETATTR of an export's root, without credentials.
    async fn ask(client: &mut DuplexStream, xid: u32, handle: &[u8]) {
        let words = [xid, 0, 2, 100_003, 3, 1, 0, 0, 0, 0];
        let mut call: Vec<u8> = words
            .iter()
            .flat_map(|word: &u32| word.to_be_bytes())
            .collect();
        call.extend((handle.len() as u32).to_be_bytes());
        call.extend(handle);
        call.resize(call.len().next_multiple_of(4), 0);
        let head = (call.len() as u32 | 1 << 31).to_be_bytes();
        client.write_all(&head).await.unwrap();
        client.write_all(&call).await.unwrap();
    }

    /// The number of the call that is answered next, and its status.
    async fn answered(client: &mut DuplexStream) -> (u32, u32) {
        let length = client.read_u32().await.unwrap() & !(1 << 31);
        let mut reply = vec![0; length as usize];
        client.read_exact(&mut reply).await.unwrap();
        let word = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
        (word(0), word(24))
    }

    #[tokio::test]
    async fn an_export_that_hangs_holds_up_no_other() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let exports = ["/", "/home"].map(|name| ExportConfig {
            name: name.to_owned(),
            directory: directory.path().to_owned(),
            access: Access::ReadOnly,
            squash_root: false,
            hidden: Hidden::default(),
        });
        let service = Arc::new(Service::open(exports.into(), &Key::fresh()).unwrap());
        let exports: Vec<_> = service.exports().collect();
        let handles: Vec<Vec<u8>> = exports
            .iter()
            .map(|export| export.handle_of(&export.root().unwrap()).unwrap())
            .collect();
        let limits = Limits::default();
        // As many calls hang below /home as it has turns.
        let turns = exports[1].turns.take_all();
        assert!(
            turns.len() < limits.calls,
            "the connection has room for others"
        );
        tokio::time::pause();
        let (mut client, theirs) = tokio::io::duplex(1 << 16);
        let serving = serve(Arc::clone(&service), "test".into(), theirs, limits);
        let serving = tokio::spawn(serving);
        ask(&mut client, 1, &handles[1]).await;
        tokio::task::yield_now().await;
        // The same client's, behind it on the same connection.
        ask(&mut client, 2, &handles[0]).await;
        assert_eq!(answered(&mut client).await, (2, 0));
        // What hangs is not waited for without end (NFS3ERR_JUKEBOX), and is done when it goes on.
        assert_eq!(answered(&mut client).await, (1, 10_008));
        ask(&mut client, 3, &handles[1]).await;
        assert_eq!(answered(&mut client).await, (3, 10_008));
        drop(turns);
        ask(&mut client, 4, &handles[1]).await;
        assert_eq!(answered(&mut client).await, (4, 0));
        serving.abort();
    }
}

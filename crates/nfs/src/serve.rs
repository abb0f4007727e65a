//! Connections: records in, replies out, some calls of one client at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::memory::{Memory, Room, Share};
use crate::procedures::answer_bytes_at_most;
use crate::record;
use crate::rpc::MOST_DATA_BYTES;
use crate::service::Service;
use crate::turns::Turn;

/// What clients may have of this process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// Calls under way of one connection; more wait in its stream. What they take together is bounded by [`Memory`]. More than an export has turns, or
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

/// Serves one client until it closes: calls that it repeats over another connection are known by its name. Errors are those of its stream, and records without measure.
pub async fn serve<S>(
    service: Arc<Service>,
    client: Share,
    stream: S,
    limits: Limits,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reading, mut writing) = tokio::io::split(stream);
    let (replies, mut to_write) = mpsc::channel::<Reply>(limits.calls);
    let write = async move {
        while let Some(Reply { bytes, held }) = to_write.recv().await {
            timeout(limits.patience, record::write(&mut writing, &bytes)).await??;
            drop(held);
        }
        Ok::<_, io::Error>(())
    };
    let calls = Arc::new(Semaphore::new(limits.calls));
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
            let most = record::bytes_at_most(head) + MOST_DATA_BYTES as usize;
            let mut room = client.room(most).await?;
            let record = record::read_rest(&mut reading, head);
            let record = timeout(limits.patience, record).await??;
            room.shrink(record.len() + answer_bytes_at_most(&record));
            let call = Asked {
                service: Arc::clone(&service),
                peer: Arc::clone(client.client()),
                replies: replies.clone(),
                record,
                held: Held {
                    _permit: permit,
                    _room: room,
                },
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
    held: Held,
}

/// What a call holds until its answer is written.
struct Held {
    _permit: OwnedSemaphorePermit,
    _room: Room,
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
            let held = self.held;
            if let Some(bytes) = answer {
                // Nobody is there when the client is gone.
                let _ = self.replies.blocking_send(Reply { bytes, held });
            }
        });
    }

    async fn come_again(self) {
        let held = self.held;
        if let Some(bytes) = self.service.come_again(&self.record) {
            let _ = self.replies.send(Reply { bytes, held }).await;
        }
    }
}

struct Reply {
    bytes: Vec<u8>,
    held: Held,
}

/// Serves whoever connects, until it is dropped.
pub async fn listen(service: Arc<Service>, listener: TcpListener, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let memory = Memory::of(Memory::USUAL_BYTES);
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
        let (service, memory) = (Arc::clone(&service), Arc::clone(&memory));
        clients.spawn(async move {
            // A reply is one small piece: it does not wait for more.
            let _ = stream.set_nodelay(true);
            let client = memory.share(&peer.ip().to_string());
            if let Err(error) = serve(service, client, stream, limits).await {
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
    async fn a_call_waits_in_its_stream_until_there_is_memory_for_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let export = ExportConfig {
            name: "/".to_owned(),
            directory: directory.path().to_owned(),
            access: Access::ReadOnly,
            squash_root: false,
            hidden: Hidden::default(),
        };
        let service = Arc::new(Service::open(vec![export], &Key::fresh()).unwrap());
        let export = service.exports().next().unwrap();
        let handle = export.handle_of(&export.root().unwrap()).unwrap();
        let memory = Memory::of(0);
        let mut others = Vec::new();
        for other in ["a", "b", "c", "d"] {
            others.push(memory.share(other).room(usize::MAX).await.unwrap());
        }
        assert_eq!(memory.free_bytes(), 0);
        let (mut client, theirs) = tokio::io::duplex(1 << 16);
        let share = memory.share("test");
        let limits = Limits::default();
        let serving = tokio::spawn(serve(Arc::clone(&service), share, theirs, limits));
        ask(&mut client, 1, &handle).await;
        tokio::time::pause();
        let answer = tokio::time::timeout(Duration::from_secs(30), answered(&mut client));
        assert!(answer.await.is_err(), "it is answered out of nothing");
        tokio::time::resume();
        others.pop();
        assert_eq!(answered(&mut client).await, (1, 0));
        // All of it is given back.
        drop(others);
        while memory.free_bytes() < Memory::LEAST_BYTES {
            tokio::task::yield_now().await;
        }
        serving.abort();
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
        let share = Memory::of(0).share("test");
        let serving = tokio::spawn(serve(Arc::clone(&service), share, theirs, limits));
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

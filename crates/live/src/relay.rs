//! One connection of a clone, over as many links as it takes.

use std::future::Future;
use std::io;
use std::time::Duration;

use estive_nfs::{MOST_DATA_BYTES, Share, answer_bytes_at_most, record};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::outstanding::{MOST, Message, Outstanding};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For the rest of a call that has begun, and for an answer to be taken: what stands still in the middle has room that
/// others wait for. A clone that was paused so long makes another connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passes calls on and answers back until the clone closes; then `Ok`. A call is read once there is room for it and its
/// answer in the clone's `share`. An error is the clone's own: a stream that broke, or is no RPC, or stands still in the
/// middle. What the links suffer is told to nobody but the log.
pub async fn relay<C, L, F>(clone: C, share: Share, mut link: impl FnMut() -> F) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = Result<L, String>>,
{
    let (from_clone, mut to_clone) = tokio::io::split(clone);
    let mut calls = records(from_clone, 1, Some(share));
    let mut outstanding = Outstanding::default();
    let mut pause = FIRST_PAUSE;
    'links: loop {
        let stream = match link().await {
            Ok(stream) => stream,
            Err(why) => {
                tracing::debug!(%why, "no link yet");
                tokio::select! {
                    () = sleep(pause) => {}
                    () = calls.closed_side.closed() => return calls.end().await,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        let (from_link, mut to_link) = tokio::io::split(stream);
        // As many as may be under way: reading never waits for our writing, which may wait for it.
        let mut replies = records(from_link, MOST, None);
        for call in outstanding.calls() {
            if record::write(&mut to_link, call).await.is_err() {
                sleep(pause).await;
                continue 'links;
            }
        }
        loop {
            tokio::select! {
                call = calls.next(), if !outstanding.is_full() => {
                    let Some(call) = call? else { return Ok(()) };
                    let call = outstanding.add(call);
                    if record::write(&mut to_link, call).await.is_err() {
                        continue 'links;
                    }
                }
                reply = replies.next() => match reply {
                    Ok(Some(reply)) => {
                        pause = FIRST_PAUSE;
                        if let Some(_call) = outstanding.answered(&reply.bytes) {
                            let write = record::write(&mut to_clone, &reply.bytes);
                            timeout(PATIENCE, write).await??;
                        }
                    }
                    Ok(None) | Err(_) => {
                        tracing::debug!("the link is cut; it is made again");
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue 'links;
                    }
                }
            }
        }
    }
}

/// Records as they come, read by a task of its own: half a record is never lost to something else that happened.
fn records(
    mut stream: impl AsyncRead + Send + Unpin + 'static,
    most: usize,
    share: Option<Share>,
) -> Records {
    let (sender, receiver) = mpsc::channel(most);
    let (alive, closed_side) = mpsc::channel::<()>(1);
    let task = tokio::spawn(async move {
        let _alive = alive;
        loop {
            let next = match &share {
                Some(share) => call(&mut stream, share).await,
                None => {
                    let reply = record::read(&mut stream).await;
                    reply.map(|reply| reply.map(|bytes| Message { bytes, _room: None }))
                }
            };
            let is_last = !matches!(next, Ok(Some(_)));
            if sender.send(next).await.is_err() || is_last {
                return;
            }
        }
    });
    Records {
        receiver,
        closed_side: Closed(closed_side),
        _task: Task(task),
    }
}

/// The next call, once there is room for it; `None` where the stream ends between two.
async fn call(stream: &mut (impl AsyncRead + Unpin), share: &Share) -> io::Result<Option<Message>> {
    let mut head = [0; 4];
    if let Err(error) = stream.read_exact(&mut head).await {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        };
    }
    let most = record::bytes_at_most(head) + MOST_DATA_BYTES as usize;
    let mut room = share.room(most).await?;
    let bytes = timeout(PATIENCE, record::read_rest(stream, head)).await??;
    room.shrink(bytes.len() + answer_bytes_at_most(&bytes));
    Ok(Some(Message {
        bytes,
        _room: Some(room),
    }))
}

struct Records {
    receiver: mpsc::Receiver<io::Result<Option<Message>>>,
    closed_side: Closed,
    _task: Task,
}

impl Records {
    /// `None` at the end of the stream.
    async fn next(&mut self) -> io::Result<Option<Message>> {
        self.receiver.recv().await.unwrap_or(Ok(None))
    }

    /// What is left of a stream that has ended.
    async fn end(&mut self) -> io::Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

/// The other half of something that the reading task holds while it reads.
struct Closed(mpsc::Receiver<()>);

impl Closed {
    async fn closed(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_nfs::Memory;
    use tokio::io::AsyncWriteExt;

    const MIB: usize = 1 << 20;

    /// A call of a MiB: so long is what a clone writes at once.
    async fn send(clone: &mut (impl AsyncWrite + Unpin), number: u32) -> bool {
        let mut call = vec![0; MIB];
        call[..4].copy_from_slice(&number.to_be_bytes());
        let head = (call.len() as u32 | 1 << 31).to_be_bytes();
        let write = async {
            clone.write_all(&head).await?;
            clone.write_all(&call).await
        };
        let sent = timeout(Duration::from_secs(10), write).await;
        sent.is_ok_and(|sent| sent.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_nobody_answers_take_no_more_than_the_clones_share() {
        let memory = Memory::of(32 << 20);
        let relayed = |client: &str| {
            let (ours, theirs) = tokio::io::duplex(1 << 10);
            let share = memory.share(client);
            // A reference that is away.
            let link = || async { Err::<tokio::io::DuplexStream, _>("away".to_owned()) };
            (ours, tokio::spawn(relay(theirs, share, link)))
        };
        let mut connections: Vec<_> = (0..8).map(|_| relayed("greedy")).collect();
        let mut taken = 0;
        for (connection, _) in &mut connections {
            for number in 0..4 {
                taken += usize::from(send(connection, number).await);
            }
        }
        // A quarter of all, and not as many as there are connections for.
        assert!((2..=7).contains(&taken), "{taken} MiB taken");
        assert!(memory.free_bytes() >= 24 << 20);
        let (mut neighbour, task) = relayed("neighbour");
        assert!(send(&mut neighbour, 1).await);
        for (_, task) in connections {
            task.abort();
        }
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_still_in_the_middle_of_a_call_is_cut() {
        let memory = Memory::of(0);
        let (mut clone, theirs) = tokio::io::duplex(1 << 10);
        let link = || async { Ok(tokio::io::duplex(1 << 10).0) };
        let relayed = tokio::spawn(relay(theirs, memory.share("slow"), link));
        let head = (1_u32 << 20 | 1 << 31).to_be_bytes();
        clone.write_all(&head).await.unwrap();
        clone.write_all(b"and no more").await.unwrap();
        let ended = timeout(2 * PATIENCE, relayed).await.unwrap();
        assert!(ended.unwrap().is_err());
        while memory.free_bytes() < Memory::LEAST_BYTES {
            tokio::task::yield_now().await;
        }
    }
}

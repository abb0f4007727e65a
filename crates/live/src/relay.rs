//! One connection of a clone, over as many links as it takes.

use std::future::Future;
use std::io;
use std::time::Duration;

use estive_nfs::record;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::outstanding::{MOST, Outstanding};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Passes calls on and answers back until the clone closes; then `Ok`. An error is the clone's own: a stream that broke,
/// or is no RPC. What the links suffer is told to nobody but the log.
pub async fn relay<C, L, F>(clone: C, mut link: impl FnMut() -> F) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = Result<L, String>>,
{
    let (from_clone, mut to_clone) = tokio::io::split(clone);
    let mut calls = records(from_clone, 1);
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
        let mut replies = records(from_link, MOST);
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
                    outstanding.add(&call);
                    if record::write(&mut to_link, &call).await.is_err() {
                        continue 'links;
                    }
                }
                reply = replies.next() => match reply {
                    Ok(Some(reply)) => {
                        pause = FIRST_PAUSE;
                        if outstanding.answered(&reply) {
                            record::write(&mut to_clone, &reply).await?;
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
fn records(mut stream: impl AsyncRead + Send + Unpin + 'static, most: usize) -> Records {
    let (sender, receiver) = mpsc::channel(most);
    let (alive, closed_side) = mpsc::channel::<()>(1);
    let task = tokio::spawn(async move {
        let _alive = alive;
        loop {
            let next = record::read(&mut stream).await;
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

struct Records {
    receiver: mpsc::Receiver<io::Result<Option<Vec<u8>>>>,
    closed_side: Closed,
    _task: Task,
}

impl Records {
    /// `None` at the end of the stream.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
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

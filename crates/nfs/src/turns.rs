//! Calls of one export take turns: a file system that hangs under it holds up its own callers and nobody else's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Calls of one export that are done at a time, of all clients. Each has a thread, and up to eight files open.
const AT_ONCE: usize = 32;
/// All turns taken, and none given back for so long: it hangs. Callers are then told to come again, which the kernel's
/// client does after as long.
const SILENCE: Duration = Duration::from_secs(5);

/// The turns of one export.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    /// When one was last taken or given back.
    heard: Mutex<Instant>,
}

/// One call's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new() -> Arc<Turns> {
        Arc::new(Turns {
            free: Arc::new(Semaphore::new(AT_ONCE)),
            heard: Mutex::new(Instant::now()),
        })
    }

    /// One that is free now, and that nobody waits for.
    pub fn try_take(self: &Arc<Turns>) -> Option<Turn> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.taken(permit))
    }

    /// One, in the order of asking; `None` when the export hangs.
    pub async fn take(self: &Arc<Turns>) -> Option<Turn> {
        let mut asking = Box::pin(Arc::clone(&self.free).acquire_owned());
        loop {
            let until = *self.heard() + SILENCE;
            match timeout_at(until, &mut asking).await {
                Ok(permit) => return Some(self.taken(permit.ok()?)),
                Err(_) if *self.heard() + SILENCE <= Instant::now() => return None,
                Err(_) => {}
            }
        }
    }

    fn taken(self: &Arc<Turns>, permit: OwnedSemaphorePermit) -> Turn {
        *self.heard() = Instant::now();
        Turn {
            turns: Arc::clone(self),
            _permit: permit,
        }
    }

    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.turns.heard() = Instant::now();
    }
}

#[cfg(test)]
impl Turns {
    /// All that are free.
    pub fn take_all(self: &Arc<Turns>) -> Vec<Turn> {
        std::iter::from_fn(|| self.try_take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_when_nothing_moves_any_more() {
        let turns = Turns::new();
        let mut all = turns.take_all();
        assert_eq!(all.len(), AT_ONCE);
        // As long as one is given back now and then, whoever waits goes on waiting.
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take().await.is_some() }
        });
        tokio::task::yield_now().await;
        for _ in 0..3 {
            tokio::time::sleep(SILENCE - Duration::from_millis(1)).await;
            assert!(!waiting.is_finished());
            *turns.heard() = Instant::now();
        }
        drop(all.pop());
        assert!(waiting.await.unwrap());
        let _all = turns.take_all();
        assert!(turns.take().await.is_none());
        // And at once from then on.
        let asked = Instant::now();
        assert!(turns.take().await.is_none());
        assert_eq!(Instant::now(), asked);
        drop(all);
        assert!(turns.take().await.is_some());
    }
}

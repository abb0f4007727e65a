//! Memory for calls under way, of all clients of a process together. What is over it waits where it was sent from: a call
//! is not read before there is room for it and for its answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What is counted in.
const UNIT_BYTES: u64 = 64 << 10;
/// No client has more than this part of all, so that none keeps the others out.
const SHARES: u32 = 4;
/// That it waits is said so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Of one process.
pub struct Memory {
    units: u32,
    free: Arc<Semaphore>,
    /// The shares of those who are there.
    clients: Mutex<HashMap<String, Weak<Semaphore>>>,
    told: Mutex<Option<Instant>>,
}

impl Memory {
    /// The least: every share has room for the largest call and the largest answer.
    pub const LEAST_BYTES: u64 = 16 << 20;
    /// Enough for a hundred of the largest.
    pub const USUAL_BYTES: u64 = 256 << 20;

    /// So many bytes, but [`Memory::LEAST_BYTES`] at least.
    #[must_use]
    pub fn of(bytes: u64) -> Arc<Memory> {
        let units = bytes.max(Self::LEAST_BYTES) / UNIT_BYTES;
        // No machine has more.
        let units = u32::try_from(units).unwrap_or(u32::MAX >> 4);
        Arc::new(Memory {
            units,
            free: Arc::new(Semaphore::new(units as usize)),
            clients: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// A client's share, the same for all its connections.
    #[must_use]
    pub fn share(self: &Arc<Memory>, client: &str) -> Share {
        let mut clients = self.clients();
        clients.retain(|_, share| share.strong_count() > 0);
        let known = clients.get(client).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            let own = Arc::new(Semaphore::new((self.units / SHARES) as usize));
            clients.insert(client.to_owned(), Arc::downgrade(&own));
            own
        });
        Share {
            memory: Arc::clone(self),
            client: client.into(),
            own,
        }
    }

    /// What nobody has, in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free.available_permits() as u64 * UNIT_BYTES
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, Weak<Semaphore>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, client: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        let (all_mib, free_mib) = (
            (u64::from(self.units) * UNIT_BYTES) >> 20,
            self.free_bytes() >> 20,
        );
        tracing::warn!(
            client,
            all_mib,
            free_mib,
            "calls of clones wait for memory: one has its quarter under way, or all have all; --live-memory gives more"
        );
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Memory({} of {} units free)",
            self.free.available_permits(),
            self.units
        )
    }
}

/// A client, and what it may have of it.
#[derive(Debug, Clone)]
pub struct Share {
    memory: Arc<Memory>,
    client: Arc<str>,
    own: Arc<Semaphore>,
}

impl Share {
    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Waits for room for so many bytes; more than a share has is all of it.
    pub async fn room(&self, bytes: usize) -> std::io::Result<Room> {
        let units = units(bytes).min(self.memory.units / SHARES);
        let taken = |permit: Result<OwnedSemaphorePermit, AcquireError>| {
            permit.map_err(std::io::Error::other)
        };
        let quick =
            |semaphore: &Arc<Semaphore>| Arc::clone(semaphore).try_acquire_many_owned(units).ok();
        // Its own first: who waits for that holds nothing that others wait for.
        let own = match quick(&self.own) {
            Some(own) => own,
            None => {
                self.memory.tell(&self.client);
                taken(Arc::clone(&self.own).acquire_many_owned(units).await)?
            }
        };
        let free = &self.memory.free;
        let all = match quick(free) {
            Some(all) => all,
            None => {
                self.memory.tell(&self.client);
                taken(Arc::clone(free).acquire_many_owned(units).await)?
            }
        };
        Ok(Room { own, all })
    }
}

/// Room for a call and its answer, until it is dropped.
#[derive(Debug)]
pub struct Room {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Room {
    /// What is needed is known by now: the rest is given back.
    pub fn shrink(&mut self, bytes: usize) {
        let rest = self.all.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.own.split(rest));
        drop(self.all.split(rest));
    }
}

fn units(bytes: usize) -> u32 {
    let units = (bytes as u64).div_ceil(UNIT_BYTES);
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn all_have_no_more_than_there_is_and_none_more_than_its_share() {
        let memory = Memory::of(16 << 20);
        let greedy = memory.share("greedy");
        // Over two connections.
        let mut rooms = vec![greedy.room(2 * MIB).await.unwrap()];
        rooms.push(memory.share("greedy").room(2 * MIB).await.unwrap());
        let waits = |share: &Share| {
            let share = share.clone();
            async move {
                let room = share.room(MIB);
                tokio::time::timeout(TOLD_EVERY, room).await.is_err()
            }
        };
        assert!(waits(&greedy).await);
        // The others feel nothing of it, until there is nothing left.
        for other in ["a", "b", "c"] {
            rooms.push(memory.share(other).room(100 * MIB).await.unwrap());
        }
        assert_eq!(memory.free_bytes(), 0);
        let late = memory.share("late");
        assert!(waits(&late).await);
        rooms[0].shrink(MIB);
        assert_eq!(memory.free_bytes(), 1 << 20);
        assert!(!waits(&late).await);
        drop(rooms);
        assert_eq!(memory.free_bytes(), 16 << 20);
        assert!(!waits(&greedy).await);
        drop((greedy, late));
        drop(memory.share("new"));
        assert_eq!(memory.clients().len(), 1, "who is gone is forgotten");
    }
}

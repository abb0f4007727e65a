//! Replies to what must not be done twice: a client that got no answer asks again, over another connection.
//!
//! Kept in memory only, as other servers do: over a restart, a repeated REMOVE is told that there is no such name.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// Of one client, which has some tens of calls under way; a reply has some hundred bytes. Each has its own, so that none
/// makes others' be forgotten.
const KEPT: usize = 256;
/// Of those clients who asked last.
const MOST_PEERS: usize = 256;

type Name = [u8; 32];

#[derive(Debug, Default)]
struct Kept {
    peers: HashMap<String, Peer>,
    /// Calls so far: the clock of who asked last.
    calls: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// `None` while it is being done.
    replies: HashMap<Name, Option<Vec<u8>>>,
    order: VecDeque<Name>,
    asked: u64,
}

impl Kept {
    fn peer(&mut self, peer: &str) -> &mut Peer {
        self.calls += 1;
        if !self.peers.contains_key(peer) && self.peers.len() >= MOST_PEERS {
            let is_idle = |peer: &Peer| peer.replies.len() == peer.order.len();
            let idle = self.peers.iter().filter(|(_, peer)| is_idle(peer));
            let oldest = idle.min_by_key(|(_, peer)| peer.asked);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.peers.remove(&oldest);
            }
        }
        let kept = self.peers.entry(peer.to_owned()).or_default();
        kept.asked = self.calls;
        kept
    }
}

#[derive(Debug, Default)]
pub struct Replies {
    kept: Mutex<Kept>,
    done: Condvar,
}

impl Replies {
    /// Does it, or answers what was answered. The same bytes from the same client are the same call: they begin with
    /// its number.
    pub fn once(&self, peer: &str, record: &[u8], answer: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        let name: Name = Sha256::digest(record).into();
        let mut kept = self.lock();
        loop {
            match kept.peer(peer).replies.get(&name) {
                Some(Some(reply)) => return reply.clone(),
                Some(None) => {
                    kept = self.done.wait(kept).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        kept.peer(peer).replies.insert(name, None);
        drop(kept);
        let unfinished = Unfinished {
            replies: self,
            peer,
            name,
        };
        let reply = answer();
        unfinished.finish(&reply);
        reply
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. If it panics, who waits for it does it.
struct Unfinished<'a> {
    replies: &'a Replies,
    peer: &'a str,
    name: Name,
}

impl Unfinished<'_> {
    fn finish(self, reply: &[u8]) {
        let mut kept = self.replies.lock();
        let kept = kept.peer(self.peer);
        kept.replies.insert(self.name, Some(reply.to_vec()));
        kept.order.push_back(self.name);
        if kept.order.len() > KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.replies.remove(&oldest);
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let mut kept = self.replies.lock();
        let kept = kept.peer(self.peer);
        if let Some(None) = kept.replies.get(&self.name) {
            kept.replies.remove(&self.name);
        }
        self.replies.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_call_is_answered_and_not_done() {
        let replies = Replies::default();
        assert_eq!(replies.once("a", b"call", || vec![1]), [1]);
        assert_eq!(replies.once("a", b"call", || vec![2]), [1]);
        assert_eq!(replies.once("b", b"call", || vec![3]), [3]);
        for number in 0..KEPT {
            replies.once("a", &number.to_be_bytes(), Vec::new);
        }
        assert!(replies.lock().peer("a").replies.len() <= KEPT + 1);
        assert_eq!(replies.once("a", b"call", || vec![4]), [4]);
        // Whatever one asks, another's are kept.
        assert_eq!(replies.once("b", b"call", || vec![5]), [3]);
        for number in 0..MOST_PEERS {
            replies.once(&number.to_string(), b"call", Vec::new);
        }
        assert!(replies.lock().peers.len() <= MOST_PEERS);
        assert_eq!(replies.once("b", b"call", || vec![6]), [6]);
    }

    #[test]
    fn who_asks_meanwhile_waits_for_the_answer() {
        let replies = Replies::default();
        std::thread::scope(|scope| {
            let (began, begin) = std::sync::mpsc::channel();
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let replies = &replies;
            scope.spawn(move || {
                replies.once("a", b"call", || {
                    began.send(()).unwrap();
                    wait.recv().unwrap();
                    vec![1]
                })
            });
            begin.recv().unwrap();
            let second = scope.spawn(|| replies.once("a", b"call", || vec![2]));
            go.send(()).unwrap();
            assert_eq!(second.join().unwrap(), [1]);
        });
    }
}

//! Calls of one connection that have no answer yet, in the order they came.

use std::collections::VecDeque;

/// A client has some tens; what is more waits in its stream.
pub const MOST: usize = 32;

#[derive(Debug, Default)]
pub struct Outstanding {
    calls: VecDeque<Vec<u8>>,
}

impl Outstanding {
    pub fn is_full(&self) -> bool {
        self.calls.len() >= MOST
    }

    /// A call to remember. One that is repeated while it has no answer is one call: whoever answers it remembers too.
    pub fn add(&mut self, call: &[u8]) {
        if !self.calls.iter().any(|known| known == call) {
            self.calls.push_back(call.to_vec());
        }
    }

    /// Whether this answers a call that waits; it waits no longer then. (Over a link that was made again, an answer may
    /// come twice; a client is told once.)
    pub fn answered(&mut self, reply: &[u8]) -> bool {
        let Some(number) = reply.first_chunk::<4>() else {
            return false;
        };
        let found = self.calls.iter().position(|call| call.starts_with(number));
        found.is_some_and(|at| self.calls.remove(at).is_some())
    }

    pub fn calls(&self) -> impl Iterator<Item = &[u8]> {
        self.calls.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_answered_once_and_the_rest_is_sent_again_in_order() {
        let mut outstanding = Outstanding::default();
        for call in [b"0001one", b"0002two", b"0003tri", b"0002two"] {
            outstanding.add(call);
        }
        assert!(outstanding.answered(b"0002answer"));
        assert!(!outstanding.answered(b"0002answer"));
        assert!(!outstanding.answered(b"000"));
        assert!(!outstanding.answered(b"0009"));
        let left: Vec<&[u8]> = outstanding.calls().collect();
        assert_eq!(left, [&b"0001one"[..], b"0003tri"]);
    }
}

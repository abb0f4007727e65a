//! Calls of one connection that have no answer yet, in the order they came.

use std::collections::VecDeque;

use estive_nfs::Room;

/// A client has some tens; what is more waits in its stream.
pub const MOST: usize = 32;

/// A call, or an answer.
#[derive(Debug)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// Of a call: for it and its answer, as long as it is here.
    pub _room: Option<Room>,
}

#[derive(Debug, Default)]
pub struct Outstanding {
    calls: VecDeque<Message>,
}

impl Outstanding {
    pub fn is_full(&self) -> bool {
        self.calls.len() >= MOST
    }

    /// A call to remember; gives it back to be sent. One that is repeated while it has no answer is one call: whoever
    /// answers it remembers too.
    pub fn add(&mut self, call: Message) -> &[u8] {
        let is_same = |known: &Message| known.bytes == call.bytes;
        let at = match self.calls.iter().position(is_same) {
            Some(at) => at,
            None => {
                self.calls.push_back(call);
                self.calls.len() - 1
            }
        };
        &self.calls[at].bytes
    }

    /// The call that this answers, if it waits; it waits no longer then. (Over a link that was made again, an answer may
    /// come twice; a client is told once.)
    pub fn answered(&mut self, reply: &[u8]) -> Option<Message> {
        let number = reply.first_chunk::<4>()?;
        let is_answered = |call: &Message| call.bytes.starts_with(number);
        let at = self.calls.iter().position(is_answered)?;
        self.calls.remove(at)
    }

    pub fn calls(&self) -> impl Iterator<Item = &[u8]> {
        self.calls.iter().map(|call| call.bytes.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_answered_once_and_the_rest_is_sent_again_in_order() {
        let mut outstanding = Outstanding::default();
        for call in [b"0001one", b"0002two", b"0003tri", b"0002two"] {
            let message = Message {
                bytes: call.to_vec(),
                _room: None,
            };
            assert_eq!(outstanding.add(message), call);
        }
        let mut answers = |reply: &[u8]| outstanding.answered(reply).is_some();
        assert!(answers(b"0002answer"));
        assert!(!answers(b"0002answer"));
        assert!(!answers(b"000"));
        assert!(!answers(b"0009"));
        let left: Vec<&[u8]> = outstanding.calls().collect();
        assert_eq!(left, [&b"0001one"[..], b"0003tri"]);
    }
}

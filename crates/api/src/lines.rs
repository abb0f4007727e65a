//! A long answer of one JSON value a line, read as it comes.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::client::{Client, Sender};
use crate::client_error::ClientError;

const LINE_BYTES: usize = 1 << 20;

/// The lines of a long answer, one value each. Dropping it ends the answer.
pub struct Lines<T> {
    client: Client,
    what: String,
    body: Option<Incoming>,
    sender: Option<Sender>,
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no end of line.
    searched: usize,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(client: Client, what: String, body: Incoming, sender: Sender) -> Self {
        Self {
            client,
            what,
            body: Some(body),
            sender: Some(sender),
            buffer: BytesMut::new(),
            searched: 0,
            value: PhantomData,
        }
    }

    /// The next value; `None` after the last. After an error there is nothing more. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        loop {
            if let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|&byte| byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Some(self.read_line(&line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_BYTES {
                return self.end(self.client.protocol(format!(
                    "{}: a line is longer than {LINE_BYTES} bytes",
                    self.what
                )));
            }
            let frame = self.body.as_mut()?.frame().await;
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return self.end(ClientError::Interrupted {
                        endpoint: self.client.endpoint().clone(),
                        what: self.what.clone(),
                        source: error.into(),
                    });
                }
                None => {
                    self.body = None;
                    if let Some(sender) = self.sender.take() {
                        self.client.keep(sender);
                    }
                    self.searched = 0;
                    let rest = self.buffer.split();
                    return if rest.is_empty() {
                        None
                    } else {
                        Some(self.read_line(&rest))
                    };
                }
            }
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(line).map_err(|error| {
            self.close();
            self.client.protocol(format!(
                "{}: a line is not what was expected: {error}",
                self.what
            ))
        })
    }

    fn end(&mut self, error: ClientError) -> Option<Result<T, ClientError>> {
        self.close();
        Some(Err(error))
    }

    /// Nothing more is read; the connection is in the middle of an answer and goes with it.
    fn close(&mut self) {
        self.body = None;
        self.sender = None;
        self.buffer.clear();
        self.searched = 0;
    }
}

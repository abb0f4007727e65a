//! A thin client of the QEMU Machine Protocol over a unix socket.
//!
//! Source: QEMU's `docs/interop/qmp-spec.rst`. One JSON value a line; a greeting, `qmp_capabilities`, then commands
//! with ids (many may be under way) and events at any time. Used for QEMU's monitor only; the guest agent speaks a
//! dialect without greeting and ids, see [`crate::guest_agent`].

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Longest line taken from the other side, in bytes.
const LINE_LIMIT_BYTES: usize = 4 << 20;
/// Commands waiting to be written, at most.
const QUEUE: usize = 64;
/// Events waiting to be read, at most; further ones are dropped (and said so).
const EVENT_QUEUE: usize = 1024;

/// Why a QMP command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU answered with an error.
    #[error("QMP {command} was refused: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class (`GenericError`, `CommandNotFound`, `DeviceNotFound`, ...).
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// No answer within the deadline; the command may still take effect.
    #[error("QMP {command} had no answer within {waited_ms} ms")]
    Silent {
        /// The command.
        command: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The connection ended (QEMU ended, or hung up).
    #[error("the QMP connection ended at {command}")]
    Closed {
        /// The command.
        command: String,
    },
    /// The socket cannot be reached.
    #[error("connecting to the QMP socket {path}")]
    Connect {
        /// The socket.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An event QEMU sent by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct QmpEvent {
    /// Its name: `STOP`, `RESUME`, `MIGRATION`, ...
    pub name: String,
    /// Its data, `null` when it has none.
    pub data: Value,
    /// QEMU's time stamp, microseconds since the epoch; 0 when it gave none.
    pub time_us: u64,
}

/// QEMU's version: major, minor, micro.
pub type QemuVersion = (u64, u64, u64);

struct Request {
    line: Vec<u8>,
    fd: Option<OwnedFd>,
}

type Answer = Result<Value, (String, String)>;

#[derive(Default)]
struct Pending {
    closed: bool,
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
}

fn held(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection to a QEMU monitor. Commands may be given concurrently. Dropping it hangs up; QEMU lives on.
pub struct Qmp {
    requests: mpsc::Sender<Request>,
    pending: Arc<Mutex<Pending>>,
    version: QemuVersion,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Qmp {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Qmp {
    /// Connects, reads the greeting and leaves negotiation mode, all within `deadline`.
    /// The second part gives the events from now on; it ends when the connection does.
    pub async fn connect(
        path: &Path,
        deadline: Duration,
    ) -> Result<(Self, mpsc::Receiver<QmpEvent>), QmpError> {
        match tokio::time::timeout(deadline, Self::greet(path)).await {
            Ok(result) => result,
            Err(_) => Err(silent("the greeting", deadline)),
        }
    }

    async fn greet(path: &Path) -> Result<(Self, mpsc::Receiver<QmpEvent>), QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| QmpError::Connect {
                path: path.display().to_string(),
                source,
            })?;
        let stream = Arc::new(stream);
        let mut lines = Lines::new(stream.clone());
        let version = loop {
            let Ok(Some(line)) = lines.next().await else {
                return Err(closed("the greeting"));
            };
            if let Some(greeting) = line.get("QMP") {
                let number = |part: &str| {
                    greeting["version"]["qemu"][part]
                        .as_u64()
                        .unwrap_or_default()
                };
                break (number("major"), number("minor"), number("micro"));
            }
        };
        let (requests, requested) = mpsc::channel(QUEUE);
        let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
        let pending = Arc::new(Mutex::new(Pending::default()));
        let tasks = [
            tokio::spawn(write_requests(stream, requested)),
            tokio::spawn(read_answers(lines, pending.clone(), event_sender)),
        ];
        let qmp = Self {
            requests,
            pending,
            version,
            tasks,
        };
        // The caller's deadline covers this too.
        qmp.execute("qmp_capabilities", Value::Null, Duration::MAX)
            .await?;
        Ok((qmp, events))
    }

    /// QEMU's version, from its greeting.
    pub fn version(&self) -> QemuVersion {
        self.version
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        held(&self.pending).closed
    }

    /// Gives a command (`arguments`: an object, or `null` for none) and waits for its answer, at most `deadline`.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, None, deadline).await
    }

    /// As [`Qmp::execute`], with an open file passed along (`getfd`, `add-fd`).
    pub async fn execute_with_fd(
        &self,
        command: &str,
        arguments: Value,
        fd: OwnedFd,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, Some(fd), deadline).await
    }

    async fn send(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<OwnedFd>,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut pending = held(&self.pending);
            if pending.closed {
                return Err(closed(command));
            }
            pending.next_id += 1;
            let id = pending.next_id;
            pending.waiting.insert(id, sender);
            id
        };
        // Also when this future is dropped: an answer nobody waits for must not stay in the table.
        let _forget = Forget {
            pending: &self.pending,
            id,
        };
        let mut message = Map::new();
        message.insert("execute".into(), command.into());
        if !arguments.is_null() {
            message.insert("arguments".into(), arguments);
        }
        message.insert("id".into(), json!(id));
        let mut line = Value::Object(message).to_string().into_bytes();
        line.push(b'\n');
        let exchange = async {
            if self.requests.send(Request { line, fd }).await.is_err() {
                return Err(closed(command));
            }
            match answer.await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err((class, description))) => Err(QmpError::Refused {
                    command: command.to_owned(),
                    class,
                    description,
                }),
                Err(_) => Err(closed(command)),
            }
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(silent(command, deadline)),
        }
    }
}

struct Forget<'a> {
    pending: &'a Mutex<Pending>,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        held(self.pending).waiting.remove(&self.id);
    }
}

fn closed(command: &str) -> QmpError {
    QmpError::Closed {
        command: command.to_owned(),
    }
}

fn silent(command: &str, deadline: Duration) -> QmpError {
    let waited_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    QmpError::Silent {
        command: command.to_owned(),
        waited_ms,
    }
}

async fn write_requests(stream: Arc<UnixStream>, mut requested: mpsc::Receiver<Request>) {
    while let Some(request) = requested.recv().await {
        let mut fd = request.fd;
        let mut left = &request.line[..];
        while !left.is_empty() {
            if stream.writable().await.is_err() {
                return;
            }
            let sent = stream.try_io(Interest::WRITABLE, || {
                send_bytes(&stream, left, fd.as_ref())
            });
            match sent {
                Ok(count) => {
                    // The descriptor travels with the first byte.
                    fd = None;
                    left = &left[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The reader sees the end too, and tells everyone who waits.
                Err(_) => return,
            }
        }
    }
}

fn send_bytes(stream: &UnixStream, bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}

async fn read_answers(
    mut lines: Lines,
    pending: Arc<Mutex<Pending>>,
    events: mpsc::Sender<QmpEvent>,
) {
    while let Ok(Some(line)) = lines.next().await {
        if let Some(name) = line["event"].as_str() {
            let stamp = |part: &str| line["timestamp"][part].as_u64().unwrap_or_default();
            let event = QmpEvent {
                name: name.to_owned(),
                data: line["data"].clone(),
                time_us: stamp("seconds").saturating_mul(1_000_000) + stamp("microseconds"),
            };
            if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
                tracing::warn!(
                    event = event.name,
                    "QMP event dropped: its reader is too slow"
                );
            }
            continue;
        }
        let waiting = line["id"]
            .as_u64()
            .and_then(|id| held(&pending).waiting.remove(&id));
        let Some(waiting) = waiting else { continue };
        let word = |part: &str| line["error"][part].as_str().unwrap_or_default().to_owned();
        let answer = match line.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err((word("class"), word("desc"))),
        };
        // Whoever waited may have given up meanwhile.
        let _ = waiting.send(answer);
    }
    let mut pending = held(&pending);
    pending.closed = true;
    pending.waiting.clear();
}

/// JSON values, one a line, from a stream. Lines that are no JSON are passed over.
struct Lines {
    stream: Arc<UnixStream>,
    buffer: VecDeque<u8>,
    searched: usize,
}

impl Lines {
    fn new(stream: Arc<UnixStream>) -> Self {
        Self {
            stream,
            buffer: VecDeque::new(),
            searched: 0,
        }
    }

    /// The next value; `None` at the end of the stream. May be dropped and called again.
    async fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            let end = self
                .buffer
                .iter()
                .skip(self.searched)
                .position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                if let Ok(value) = serde_json::from_slice(&line) {
                    return Ok(Some(value));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_LIMIT_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "QMP line too long",
                ));
            }
            self.stream.readable().await?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.buffer.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;

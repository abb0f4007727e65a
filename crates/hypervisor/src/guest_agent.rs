//! A minimal client of the QEMU guest agent.
//!
//! Source: QEMU's `docs/interop/qemu-ga-ref`. The channel has no end of its own: what an earlier client did not read,
//! or what the agent of a guest that restarted had begun, may still be in it. Every call therefore begins with
//! `guest-sync-delimited`, whose answer follows a byte 0xFF. One client at a time.

use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// Longest answer taken from a guest, in bytes, where nothing longer is asked for. Guests are hostile.
const ANSWER_LIMIT_BYTES: u64 = 64 << 10;
/// Most bytes of stale talk passed over before an answer.
const STALE_LIMIT_BYTES: u64 = 1 << 20;

/// Why a guest agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum GuestAgentError {
    /// No answer in time: the guest runs no agent, or not yet, or is halted.
    #[error(
        "the guest agent did not answer {command} within {waited_ms} ms: does the guest run one?"
    )]
    Silent {
        /// What was asked.
        command: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// It refused.
    #[error("the guest agent refused {command}: {detail}")]
    Refused {
        /// What was asked.
        command: String,
        /// Its words.
        detail: String,
    },
    /// Its channel cannot be used.
    #[error("speaking to the guest agent at {path}")]
    Channel {
        /// The socket.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Calls to the agent of one guest over the socket of its channel; one after the other.
#[derive(Debug)]
pub struct GuestAgent {
    socket: std::path::PathBuf,
    turn: Mutex<u64>,
}

impl GuestAgent {
    /// Connects to nothing yet. `socket`: [`crate::Channels::guest_agent`].
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
            turn: Mutex::new(0),
        }
    }

    /// Whether an agent answers.
    pub async fn ping(&self, deadline: Duration) -> Result<(), GuestAgentError> {
        self.call("guest-ping", Value::Null, deadline)
            .await
            .map(drop)
    }

    /// The guest's clock, nanoseconds since the epoch.
    pub async fn time_ns(&self, deadline: Duration) -> Result<i64, GuestAgentError> {
        let command = "guest-get-time";
        let time = self.call(command, Value::Null, deadline).await?;
        time.as_i64().ok_or_else(|| GuestAgentError::Refused {
            command: command.into(),
            detail: "it gave no number".into(),
        })
    }

    /// Any command, on a connection of its own, all within `deadline`.
    pub async fn call(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Value, GuestAgentError> {
        self.call_limited(command, arguments, deadline, ANSWER_LIMIT_BYTES)
            .await
    }

    /// The same for a command whose answer may be longer.
    pub(crate) async fn call_limited(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
        limit_bytes: u64,
    ) -> Result<Value, GuestAgentError> {
        let exchange = async {
            let mut turn = self.turn.lock().await;
            *turn += 1;
            self.exchange(*turn, command, arguments, limit_bytes).await
        };
        let answer = match tokio::time::timeout(deadline, exchange).await {
            Ok(answer) => answer.map_err(|source| GuestAgentError::Channel {
                path: self.socket.display().to_string(),
                source,
            })?,
            Err(_) => {
                return Err(GuestAgentError::Silent {
                    command: command.to_owned(),
                    waited_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
                });
            }
        };
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(GuestAgentError::Refused {
                command: command.to_owned(),
                detail: answer["error"]["desc"]
                    .as_str()
                    .unwrap_or("it gave no reason")
                    .to_owned(),
            }),
        }
    }

    async fn exchange(
        &self,
        turn: u64,
        command: &str,
        arguments: Value,
        limit_bytes: u64,
    ) -> io::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let id = u64::from(std::process::id()) << 20 | turn & 0xF_FFFF;
        let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
        // 0xFF makes the agent drop half a command that someone else may have left.
        stream
            .write_all(&[b"\xFF", sync.to_string().as_bytes(), b"\n"].concat())
            .await?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut stale = Vec::new();
            (&mut reader)
                .take(STALE_LIMIT_BYTES)
                .read_until(0xFF, &mut stale)
                .await?;
            if stale.last() != Some(&0xFF) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no answer to the sync",
                ));
            }
            let answer = line(&mut reader, ANSWER_LIMIT_BYTES).await?;
            if answer["return"] == json!(id) {
                break;
            }
        }
        let mut order = json!({"execute": command});
        if !arguments.is_null() {
            order["arguments"] = arguments;
        }
        reader
            .get_mut()
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        line(&mut reader, limit_bytes).await
    }
}

async fn line(reader: &mut BufReader<UnixStream>, limit_bytes: u64) -> io::Result<Value> {
    let mut line = Vec::new();
    reader
        .take(limit_bytes)
        .read_until(b'\n', &mut line)
        .await?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an answer was cut or too long",
        ));
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    const BOUND: Duration = Duration::from_secs(20);

    /// An agent whose channel still holds the answer to someone else.
    async fn agent(listener: UnixListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut reader = BufReader::new(stream);
            let mut text = Vec::new();
            reader
                .get_mut()
                .write_all(b"{\"return\": 1}\n\xFF{\"return\": 99}\n")
                .await
                .unwrap();
            while reader.read_until(b'\n', &mut text).await.unwrap_or(0) > 0 {
                let start = text
                    .iter()
                    .rposition(|byte| *byte == 0xFF)
                    .map_or(0, |at| at + 1);
                let order: Value = serde_json::from_slice(&text[start..]).unwrap();
                let answer = match order["execute"].as_str().unwrap() {
                    "guest-sync-delimited" => {
                        format!("\u{0}{}\n", json!({"return": order["arguments"]["id"]}))
                    }
                    "guest-get-time" => {
                        format!("{}\n", json!({"return": 1_700_000_000_000_000_000i64}))
                    }
                    "guest-ping" => "{\"return\": {}}\n".into(),
                    _ => "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"unknown\"}}\n"
                        .into(),
                };
                let bytes = answer
                    .bytes()
                    .map(|byte| if byte == 0 { 0xFF } else { byte });
                reader
                    .get_mut()
                    .write_all(&bytes.collect::<Vec<_>>())
                    .await
                    .unwrap();
                text.clear();
            }
        }
    }

    #[tokio::test]
    async fn stale_answers_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qga");
        tokio::spawn(agent(UnixListener::bind(&path).unwrap()));
        let guest = GuestAgent::new(&path);
        guest.ping(BOUND).await.unwrap();
        assert_eq!(
            guest.time_ns(BOUND).await.unwrap(),
            1_700_000_000_000_000_000
        );
        let refused = guest.call("guest-dance", Value::Null, BOUND).await;
        assert!(
            matches!(refused, Err(GuestAgentError::Refused { detail, .. }) if detail == "unknown")
        );
    }

    #[tokio::test]
    async fn a_guest_without_an_agent_is_silent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qga");
        // QEMU takes the connection and nobody reads it in the guest.
        let _listener = UnixListener::bind(&path).unwrap();
        let answer = GuestAgent::new(&path).ping(Duration::from_millis(20)).await;
        assert!(
            matches!(answer, Err(GuestAgentError::Silent { waited_ms: 20, .. })),
            "{answer:?}"
        );
    }
}

//! A guest agent without a guest: answers on a socket what QEMU's would, and runs a function for a program.

use crate::guest_exec::GuestExit;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A program as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedCall {
    /// Its path.
    pub path: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: Vec<u8>,
}

type Program = Arc<dyn Fn(SimulatedCall) -> GuestExit + Send + Sync>;

/// Answers until it is dropped. Its socket stays, as that of a guest whose agent has ended.
pub struct SimulatedGuestAgent(JoinHandle<()>);

impl SimulatedGuestAgent {
    /// Listens at `socket` ([`crate::Channels::guest_agent`]); every program asked for is `program`.
    pub fn listen(
        socket: &Path,
        program: impl Fn(SimulatedCall) -> GuestExit + Send + Sync + 'static,
    ) -> io::Result<Self> {
        if let Some(directory) = socket.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket)?;
        let program: Program = Arc::new(program);
        Ok(Self(tokio::spawn(async move {
            let mut exits = HashMap::new();
            // One client at a time, as a channel of QEMU.
            while let Ok((stream, _)) = listener.accept().await {
                let _ = serve(stream, &program, &mut exits).await;
            }
        })))
    }
}

impl Drop for SimulatedGuestAgent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(
    stream: UnixStream,
    program: &Program,
    exits: &mut HashMap<u64, GuestExit>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut text = Vec::new();
    while reader.read_until(b'\n', &mut text).await? > 0 {
        let start = text
            .iter()
            .rposition(|byte| *byte == 0xFF)
            .map_or(0, |at| at + 1);
        let order: Value = serde_json::from_slice(&text[start..])?;
        let command = order["execute"].as_str().unwrap_or_default();
        let mut answer = answer(command, &order["arguments"], program, exits)
            .to_string()
            .into_bytes();
        if command == "guest-sync-delimited" {
            answer.insert(0, 0xFF);
        }
        answer.push(b'\n');
        reader.get_mut().write_all(&answer).await?;
        text.clear();
    }
    Ok(())
}

fn answer(
    command: &str,
    arguments: &Value,
    program: &Program,
    exits: &mut HashMap<u64, GuestExit>,
) -> Value {
    match command {
        "guest-sync-delimited" => json!({"return": arguments["id"]}),
        "guest-ping" => json!({"return": {}}),
        "guest-exec" => {
            let words = arguments["arg"].as_array().cloned().unwrap_or_default();
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let exit = program(SimulatedCall {
                path: word(&arguments["path"]),
                arguments: words.iter().map(word).collect(),
                input: STANDARD
                    .decode(word(&arguments["input-data"]))
                    .unwrap_or_default(),
            });
            let pid = exits.len() as u64 + 100;
            exits.insert(pid, exit);
            json!({"return": {"pid": pid}})
        }
        "guest-exec-status" => match arguments["pid"].as_u64().and_then(|pid| exits.get(&pid)) {
            Some(exit) => json!({"return": {
                "exited": true,
                "exitcode": exit.code,
                "out-data": STANDARD.encode(&exit.output),
                "err-data": STANDARD.encode(&exit.error),
            }}),
            None => json!({"error": {"class": "GenericError", "desc": "no such process"}}),
        },
        other => json!({"error": {
            "class": "CommandNotFound",
            "desc": format!("The command {other} has not been found"),
        }}),
    }
}

//! One long download at a limited pace whose every byte is checked.
//!
//! The body is numbered lines from 1 (what `seq 1 N` prints), so that a byte that is lost, doubled or out of its place
//! is found. A body that ends whole is asked for again.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use estive_network::namespace::Namespace;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::Error;
use crate::gauge::{Gauge, asked_to_end, say, say_ready};
use crate::instant::{now_us, sleep_until_us};

/// Small, so that the stream is alive all the time and not in a buffer on our side.
const RECEIVE_BUFFER_BYTES: u32 = 64 << 10;
const STEP: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadConfig {
    /// The service.
    pub address: SocketAddr,
    /// The path of a body of numbered lines.
    pub path: String,
    /// The pace.
    pub rate_bytes_per_s: u64,
}

/// How far it is; one line about every second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadProgress {
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// Checked bytes so far.
    pub bytes: u64,
    /// Bodies that came whole so far.
    pub whole_bodies: u64,
    /// The longest wait for the next byte so far, in ms.
    pub longest_wait_ms: u64,
    /// Why it broke; nothing comes after that.
    pub broken: Option<String>,
}

/// A running download.
#[derive(Debug)]
pub struct Download(Gauge<DownloadProgress>);

impl Download {
    /// Starts it from `namespace`.
    pub async fn start(
        tool: &Path,
        namespace: &Namespace,
        config: &DownloadConfig,
    ) -> Result<Self, Error> {
        let arguments = [
            format!("--address={}", config.address),
            format!("--path={}", config.path),
            format!("--rate={}", config.rate_bytes_per_s),
        ];
        Gauge::start("download", tool, namespace, &arguments)
            .await
            .map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn progress(&self) -> DownloadProgress {
        self.0
            .look(|lines| lines.last().cloned().unwrap_or_default())
    }

    /// Ends it and says how far it came.
    pub async fn finish(self) -> Result<DownloadProgress, Error> {
        self.0
            .finish()
            .await
            .map(|mut lines| lines.pop().unwrap_or_default())
    }
}

/// In the measuring process.
pub async fn run(config: DownloadConfig) -> Result<(), Error> {
    if !(1..=1 << 30).contains(&config.rate_bytes_per_s) {
        let given = config.rate_bytes_per_s;
        return Err(Error::Limit {
            what: "bytes a second",
            given,
            least: 1,
            most: 1 << 30,
        });
    }
    let mut progress = DownloadProgress {
        at_us: now_us(),
        ..DownloadProgress::default()
    };
    say_ready()?;
    say(&progress)?;
    let end = asked_to_end();
    tokio::pin!(end);
    tokio::select! {
        ended = &mut end => ended?,
        problem = fetch(&config, &mut progress) => {
            progress.broken = Some(problem);
            progress.at_us = now_us();
            say(&progress)?;
            end.await?;
        }
    }
    progress.at_us = now_us();
    say(&progress)
}

/// Downloads until something is wrong, and says what.
async fn fetch(config: &DownloadConfig, progress: &mut DownloadProgress) -> String {
    loop {
        match one_body(config, progress).await {
            Ok(()) => progress.whole_bodies += 1,
            Err(problem) => return problem,
        }
    }
}

async fn one_body(config: &DownloadConfig, progress: &mut DownloadProgress) -> Result<(), String> {
    let said = |doing: &'static str| move |error: std::io::Error| format!("{doing}: {error}");
    let socket = TcpSocket::new_v4().map_err(said("making a socket"))?;
    socket
        .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
        .map_err(said("making a socket"))?;
    let mut stream = socket
        .connect(config.address)
        .await
        .map_err(said("connecting"))?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\n\r\n",
        config.path,
        config.address.ip()
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(said("asking"))?;
    let (length, first) = head(&mut stream).await?;
    let mut lines = NumberedLines::default();
    let mut received = 0_u64;
    let mut pending = first;
    let (began_us, began_bytes) = (now_us(), progress.bytes);
    let mut told_us = began_us;
    // At least one byte a step.
    let step_bytes =
        (config.rate_bytes_per_s * u64::try_from(STEP.as_millis()).unwrap_or(50) / 1000).max(1);
    let mut chunk = vec![0; usize::try_from(step_bytes.min(1 << 20)).unwrap_or(1 << 20)];
    loop {
        lines.check(&pending)?;
        received += pending.len() as u64;
        progress.bytes += pending.len() as u64;
        if length == Some(received) {
            return Ok(());
        }
        if now_us().saturating_sub(told_us) > 1_000_000 {
            told_us = now_us();
            progress.at_us = told_us;
            say(progress).map_err(|error| error.to_string())?;
        }
        let due_us =
            (progress.bytes - began_bytes).saturating_mul(1_000_000) / config.rate_bytes_per_s;
        sleep_until_us(began_us + due_us).await;
        let asked_us = now_us();
        let read = stream.read(&mut chunk).await.map_err(said("receiving"))?;
        progress.longest_wait_ms = progress
            .longest_wait_ms
            .max(now_us().saturating_sub(asked_us) / 1000);
        if read == 0 {
            return match length {
                Some(length) => Err(format!(
                    "the connection ended after {received} of {length} bytes"
                )),
                None => Err(format!("the connection ended after {received} bytes")),
            };
        }
        pending = chunk[..read].to_vec();
    }
}

/// Reads the head; gives the body's length, if it says one, and what of the body came along.
async fn head(stream: &mut tokio::net::TcpStream) -> Result<(Option<u64>, Vec<u8>), String> {
    let mut bytes = Vec::new();
    let mut byte = [0; 512];
    loop {
        let read = stream
            .read(&mut byte)
            .await
            .map_err(|error| format!("receiving the head: {error}"))?;
        bytes.extend_from_slice(&byte[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            if head.split(' ').nth(1) != Some("200") {
                return Err(format!(
                    "the answer is {:?}",
                    head.lines().next().unwrap_or_default()
                ));
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            return Ok((length, body));
        }
        if read == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Err("no head of an answer came".to_owned());
        }
    }
}

/// Checks that bytes are `1\n2\n3\n…`, in pieces of any size.
#[derive(Debug, Default)]
struct NumberedLines {
    number: u64,
    /// The line that is being read, with its end.
    line: Vec<u8>,
    at: usize,
    bytes: u64,
}

impl NumberedLines {
    fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            if self.at == self.line.len() {
                self.number += 1;
                self.line = format!("{}\n", self.number).into_bytes();
                self.at = 0;
            }
            if self.line[self.at] != *byte {
                return Err(format!(
                    "byte {} is {byte:#04x}, in line {} that it should be",
                    self.bytes, self.number
                ));
            }
            self.at += 1;
            self.bytes += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_lines_pass_in_any_pieces() {
        let text: String = (1..2000).map(|n| format!("{n}\n")).collect();
        for size in [1, 7, 4096] {
            let mut lines = NumberedLines::default();
            text.as_bytes()
                .chunks(size)
                .for_each(|piece| lines.check(piece).unwrap());
            assert_eq!(lines.bytes, text.len() as u64);
        }
    }

    #[test]
    fn a_lost_a_doubled_and_a_changed_byte_are_found() {
        let text: Vec<u8> = (1..2000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        let (mut lost, mut doubled, mut changed) = (text.clone(), text.clone(), text);
        lost.remove(500);
        doubled.insert(500, doubled[500]);
        changed[500] ^= 1;
        for wrong in [lost, doubled, changed] {
            assert!(NumberedLines::default().check(&wrong).is_err());
        }
    }
}

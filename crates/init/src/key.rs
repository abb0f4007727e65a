//! The key of an encrypted device: read from where the line says, held in memory that is cleared afterwards.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Duration;

use rustix::stdio::{stderr, stdin};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::console::{say, uptime_ms};
use crate::devices;
use crate::failure::{Result, While, fail};

const KEY_BYTES_MAX: usize = 64 << 10;
/// A read from a port ends at once while the host is not connected.
const POLL: Duration = Duration::from_millis(10);
/// Ports come one after another when their driver has found its device.
const PORT_PATIENCE_MS: u64 = 1000;

/// Bytes that are cleared when they are dropped. They are never shown.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// With all its room, so that growing leaves no copy behind.
    fn new() -> Secret {
        Secret(Zeroizing::new(Vec::with_capacity(KEY_BYTES_MAX)))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ends_in_newline(&self) -> bool {
        self.0.ends_with(b"\n")
    }

    /// Adds what one read gives; how many bytes that was, or `None` when there is no room.
    fn read_once(&mut self, from: &mut impl Read) -> std::io::Result<Option<usize>> {
        let mut chunk = Zeroizing::new([0; 4096]);
        let room = (KEY_BYTES_MAX - self.0.len()).min(chunk.len());
        if room == 0 {
            return Ok(None);
        }
        let count = from.read(&mut chunk[..room])?;
        self.0.extend_from_slice(&chunk[..count]);
        Ok(Some(count))
    }

    /// Whether a line has come to its end, which is then taken away with what follows.
    fn take_line(&mut self) -> bool {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        if let Some(end) = end {
            self.0.truncate(end);
        }
        end.is_some()
    }
}

fn path_of_fw_cfg(name: &str) -> String {
    format!("/sys/firmware/qemu_fw_cfg/by_name/{name}/raw")
}

pub fn has_fw_cfg(name: &str) -> bool {
    // Its length is not in its metadata.
    fs::metadata(path_of_fw_cfg(name)).is_ok()
}

/// Every byte of the file counts, as it does for cryptsetup itself.
pub fn of_fw_cfg(name: &str) -> Result<Secret> {
    let path = path_of_fw_cfg(name);
    let mut file = File::open(&path).doing(|| {
        format!(
            "the key from fw_cfg, {path} (is the machine started with -fw_cfg name={name},file=…?)"
        )
    })?;
    let mut secret = Secret::new();
    loop {
        match secret
            .read_once(&mut file)
            .doing(|| format!("reading {path}"))?
        {
            Some(0) if secret.is_empty() => {
                return fail(format!("the fw_cfg file {name} is empty"));
            }
            Some(0) => return Ok(secret),
            Some(_) => {}
            None => return too_long(&format!("the fw_cfg file {name}")),
        }
    }
}

/// Whether there is such a port, without a word when there is none.
pub fn has_port(name: &str) -> bool {
    let deadline_ms = uptime_ms() + PORT_PATIENCE_MS;
    devices::has_virtio_console()
        && loop {
            match (devices::present_port(name), uptime_ms() < deadline_ms) {
                (Some(_), _) => break true,
                (None, false) => break false,
                (None, true) => std::thread::sleep(POLL),
            }
        }
}

/// The next line of a virtio-serial port, waited for without end: the host may ask a person first.
pub fn of_port(name: &str) -> Result<Secret> {
    let path = devices::port(name)?;
    say(&format!("waiting for the key on the port {name}"));
    let mut port = File::open(&path).doing(|| format!("opening {}", path.display()))?;
    let mut secret = Secret::new();
    loop {
        let read = secret.read_once(&mut port);
        match read.doing(|| format!("reading the port {name}"))? {
            Some(0) => std::thread::sleep(POLL),
            Some(_) if secret.take_line() => return Ok(secret),
            Some(_) => {}
            None => return too_long(&format!("the port {name}")),
        }
    }
}

/// What is typed on the console, with the echo off.
pub fn ask(question: &str) -> Result<Secret> {
    let silent = Silent::begin()?;
    let mut shown = File::from(
        stderr()
            .try_clone_to_owned()
            .doing(|| "the console".into())?,
    );
    let mut console = File::from(
        stdin()
            .try_clone_to_owned()
            .doing(|| "the console".into())?,
    );
    let _ = write!(shown, "estive-init: {question}");
    let mut secret = Secret::new();
    let answer = loop {
        match secret
            .read_once(&mut console)
            .doing(|| "reading the console".into())?
        {
            Some(0) => {
                break fail(
                    "the console takes no input: give the key by key=serial: or key=fw_cfg:",
                );
            }
            Some(_) if secret.take_line() => break Ok(secret),
            Some(_) => {}
            None => break too_long("the console"),
        }
    };
    drop(silent);
    let _ = writeln!(shown);
    answer
}

fn too_long<T>(what: &str) -> Result<T> {
    fail(format!(
        "{what} gives a key of more than {KEY_BYTES_MAX} bytes"
    ))
}

/// The console with its echo off, until it is dropped.
struct Silent(Option<rustix::termios::Termios>);

impl Silent {
    fn begin() -> Result<Silent> {
        // Something that is no terminal echoes nothing.
        let Ok(before) = tcgetattr(stdin()) else {
            return Ok(Silent(None));
        };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ICANON);
        // What was typed before the question is no answer.
        tcsetattr(stdin(), OptionalActions::Flush, &silent)
            .doing(|| "turning the echo of the console off".into())?;
        Ok(Silent(Some(before)))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_whole_and_no_more_than_there_is_room_for() {
        let mut secret = Secret::new();
        for part in ["first ", "half\nsecond"] {
            secret.read_once(&mut part.as_bytes()).unwrap();
        }
        assert!(secret.take_line());
        assert_eq!(secret.bytes(), b"first half");
        let mut much = std::io::repeat(b'x');
        while secret.read_once(&mut much).unwrap().is_some() {}
        assert_eq!(secret.bytes().len(), KEY_BYTES_MAX);
        assert!(!secret.take_line());
    }
}

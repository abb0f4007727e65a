//! The terminal joined to a serial console.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Ctrl-]
const LEAVE: u8 = 0x1d;

/// Joins standard input and output to a console, the terminal in raw mode, until its other end closes or somebody
/// types Ctrl-].
pub async fn join(stream: impl AsyncRead + AsyncWrite) -> std::io::Result<()> {
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let _raw = Raw::begin();
    let output = async {
        let mut out = tokio::io::stdout();
        let mut buffer = [0u8; 4096];
        loop {
            let count = from_guest.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), std::io::Error>(());
            }
            out.write_all(&buffer[..count]).await?;
            out.flush().await?;
        }
    };
    let input = async {
        let mut keys = tokio::io::stdin();
        let mut buffer = [0u8; 1024];
        loop {
            let count = keys.read(&mut buffer).await?;
            let typed = &buffer[..count];
            if let Some(at) = typed.iter().position(|&key| key == LEAVE) {
                to_guest.write_all(&typed[..at]).await?;
                return Ok::<(), std::io::Error>(());
            }
            if count == 0 {
                // Nobody types; what the guest says is still shown until it ends.
                std::future::pending::<()>().await;
            }
            to_guest.write_all(typed).await?;
            to_guest.flush().await?;
        }
    };
    tokio::select! { ended = output => ended, ended = input => ended }
}

/// The terminal in raw mode, put back when dropped; nothing when standard input is no terminal.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

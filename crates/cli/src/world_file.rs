//! A world for a command: from a file, or as the manager sees it now.

use crate::connection::PATIENCE;
use crate::failure::{Failure, chain};
use estive_api::Client;
use estive_world::WorldError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file of a world may be so large.
const FILE_BYTES: u64 = 256 << 20;

/// The herd as the manager sees it, as text.
pub async fn live(manager: &Client) -> Result<String, Failure> {
    let limit = usize::try_from(FILE_BYTES).unwrap_or(usize::MAX);
    let bytes = manager.get_bytes("/world", limit, PATIENCE).await?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Failure::failed("the manager's world is no text"))
}

/// A file of text with a bound on its size.
pub fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |error: &dyn std::error::Error| {
        Failure::failed(format!("{}: {}", path.display(), chain(error)))
    };
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut bytes = Vec::new();
    (file.take(FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Failure::failed(format!(
            "{}: more than {} MiB",
            path.display(),
            FILE_BYTES >> 20
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::failed(format!("{}: it is no text (UTF-8)", path.display())))
}

/// A fault in a file, said where it is: `file:line:column: what`, and what to do.
pub fn unreadable(path: &Path, fault: &WorldError) -> Failure {
    match fault {
        WorldError::Text {
            line,
            column,
            what,
            advice,
        } => Failure::failed(format!("{}:{line}:{column}: {what}", path.display())).advice(advice),
        WorldError::Form { what, advice } => {
            Failure::failed(format!("{}: {what}", path.display())).advice(advice)
        }
    }
}

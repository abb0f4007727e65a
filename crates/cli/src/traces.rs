//! A directory of traces: a file a domain, a whole percentage on each line.

use crate::failure::{Failure, failed};
use crate::world_file::{read as read_file, unreadable};
use estive_world::traces::Trace;
use std::path::Path;

/// The most files of a directory.
const FILES: usize = 100_000;

/// Reads them all, in order of their names.
pub fn read(directory: &Path) -> Result<Trace, Failure> {
    let here = |error: std::io::Error| Failure::failed(format!("{}: {error}", directory.display()));
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(here)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().map_err(failed)?.is_file() {
            continue;
        }
        let name = entry.file_name().into_string().map_err(|name| {
            Failure::failed(format!(
                "{}: the name {name:?} is no text",
                directory.display()
            ))
        })?;
        if texts.len() == FILES {
            let what = format!("{}: more than {FILES} files", directory.display());
            return Err(Failure::failed(what));
        }
        texts.push((name, read_file(&entry.path())?));
    }
    if texts.is_empty() {
        return Err(
            Failure::failed(format!("{}: no file in it", directory.display()))
                .advice("name the directory of one day"),
        );
    }
    let files = texts.iter().map(|(name, text)| (&**name, &**text));
    Trace::planetlab(files).map_err(|fault| unreadable(directory, &fault))
}

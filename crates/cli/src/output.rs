//! Tables for people, JSON for programs.

use crate::failure::{Failure, failed};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// How a command shows its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// One JSON document.
    Json,
}

/// Prints text on standard output; a reader that went away is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(
            format!("could not write the answer: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes text to a file, whole or not at all; without one, prints it.
pub fn file_or_print(path: Option<&Path>, text: &str) -> Result<(), Failure> {
    let Some(path) = path else {
        return print(text);
    };
    let wrong = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut aside = tempfile::NamedTempFile::new_in(directory).map_err(wrong)?;
    aside.write_all(text.as_bytes()).map_err(wrong)?;
    // As any other file that a command writes: what the umask leaves, not the private mode of a temporary one.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    aside.as_file().set_permissions(mode).map_err(wrong)?;
    aside.persist(path).map_err(|error| wrong(error.error))?;
    Ok(())
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(failed)?;
    print(&format!("{text}\n"))
}

/// Lays rows out under headings, without lines around them, as wide as they are.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(
        headings
            .iter()
            .map(|heading| heading.to_uppercase())
            .collect::<Vec<_>>(),
    );
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
        text.push('\n');
    }
    text
}

/// On one line, without what a terminal would obey: cells hold what others wrote.
pub fn plain(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// `-` where there is nothing, seconds with two decimals otherwise.
pub fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(
        || "-".to_owned(),
        |ms| format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
    )
}

/// A size for people: MiB with one decimal.
pub fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// A size for people: KiB with one decimal.
pub fn kib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / 1024;
    format!("{}.{} KiB", tenths / 10, tenths % 10)
}

/// Whether progress may be drawn: standard error is a terminal.
pub fn draws() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_its_columns_and_no_more() {
        let rows = vec![
            vec!["clone01".to_owned(), "host1".to_owned()],
            vec!["c2".to_owned(), "host10".to_owned()],
        ];
        assert_eq!(
            table(&["clone", "host"], &rows),
            "CLONE    HOST\nclone01  host1\nc2       host10\n"
        );
        assert_eq!(plain("\x1b[2Jé\n"), "\\u{1b}[2Jé\\n");
    }

    #[test]
    fn times_and_sizes_are_rounded_down_in_plain_words() {
        assert_eq!(seconds(Some(7_259)), "7.25 s");
        assert_eq!(seconds(None), "-");
        assert_eq!(mib(1024 * 1024 * 3 / 2), "1.5 MiB");
    }
}

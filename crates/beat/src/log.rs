//! A file of numbered lines, each on disk before the next: what a stream of durable writes is to a move.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PATH: &str = "/tmp/log";
const INTERVAL: Duration = Duration::from_millis(20);
/// Some hours of lines; from there the file stays as it is.
const LINES_MAX: u64 = 2_000_000;

/// `log.to=` of the kernel command line, else a file in the clone's own memory or volume.
fn path() -> io::Result<String> {
    let words = std::fs::read_to_string("/proc/cmdline")?;
    let mut words = words.split_ascii_whitespace();
    let asked = words.find_map(|word| word.strip_prefix("log.to="));
    Ok(asked.unwrap_or(PATH).to_owned())
}

static SYNCED: AtomicU64 = AtomicU64::new(0);

/// The last line that the kernel has said is on disk, since this program runs.
pub fn synced() -> u64 {
    SYNCED.load(Ordering::Acquire)
}

/// Appends lines, going on from the last whole one.
pub fn append() -> io::Result<()> {
    let found = read()?;
    let mut file = File::options().create(true).append(true).open(path()?)?;
    let mut number = found.as_ref().map_or(0, |found| found.last);
    if let Some(found) = found.filter(|found| found.contiguous) {
        // Half a line: the disk was full, or the power went.
        file.set_len(found.whole_bytes)?;
        // What could not be synced is still in memory, and nobody will write it again.
        let on_disk = synced();
        if on_disk > 0 && on_disk < number {
            number = on_disk;
            file.set_len(
                (1..=number)
                    .map(|line| line.to_string().len() as u64 + 1)
                    .sum(),
            )?;
        }
    }
    while number < LINES_MAX {
        number += 1;
        file.write_all(format!("{number}\n").as_bytes())?;
        file.sync_all()?;
        SYNCED.store(number, Ordering::Release);
        std::thread::sleep(INTERVAL);
    }
    loop {
        std::thread::park();
    }
}

/// What the file holds.
pub struct Found {
    /// The last number.
    pub last: u64,
    /// Every line is one more than the line before it, from 1.
    pub contiguous: bool,
    /// Of whole lines, up to the first that is wrong.
    whole_bytes: u64,
}

/// Reads the whole file; `None`: there is none yet.
pub fn read() -> io::Result<Option<Found>> {
    match File::open(path()?) {
        Ok(file) => check(BufReader::new(file)).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn check(mut lines: impl BufRead) -> io::Result<Found> {
    let mut found = Found {
        last: 0,
        contiguous: true,
        whole_bytes: 0,
    };
    let mut line = String::new();
    loop {
        line.clear();
        // A line without its end is being written just now.
        if lines.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(found);
        }
        match line.trim_end().parse() {
            Ok(number) if number == found.last + 1 => {
                found.last = number;
                found.whole_bytes += line.len() as u64;
            }
            _ => {
                found.contiguous = false;
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_a_repetition_and_rubbish_are_found() {
        let check = |text: &str| {
            check(text.as_bytes())
                .map(|found| (found.last, found.contiguous))
                .unwrap()
        };
        assert_eq!(check(""), (0, true));
        assert_eq!(check("1\n2\n3\n"), (3, true));
        assert_eq!(check("1\n2\n3"), (2, true));
        let torn = super::check(&b"1\n2\n12"[..]).unwrap();
        assert_eq!((torn.last, torn.whole_bytes), (2, 4));
        for bad in ["1\n3\n", "1\n1\n", "1\nx\n", "2\n", "1\n\0\n"] {
            assert!(!check(bad).1, "{bad:?}");
        }
    }
}

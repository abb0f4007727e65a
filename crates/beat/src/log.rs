//! A file of numbered lines, each synced, and the judgement whether any is missing.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::thread;

const PATH: &str = "/tmp/log";
/// Rotated at this number of lines, so that a long test does not fill the guest's memory; numbers go on.
const MAX_LINES: u64 = 200_000;

/// Appends lines for ever.
pub fn write() {
    let mut number = 0u64;
    loop {
        let Ok(mut file) = File::create(PATH) else {
            thread::sleep(super::PERIOD);
            continue;
        };
        for _ in 0..MAX_LINES {
            if writeln!(file, "{number}")
                .and_then(|()| file.sync_all())
                .is_err()
            {
                eprintln!("estive-beat: could not write line {number} to {PATH}");
            }
            number += 1;
            thread::sleep(super::PERIOD);
        }
    }
}

/// `lines N first A last B gaps G`: how many lines stand in the file and how often one did not follow the one before.
pub fn judge() -> String {
    let Ok(file) = File::open(PATH) else {
        return "no log\n".to_owned();
    };
    let (mut lines, mut gaps, mut first, mut last) = (0u64, 0u64, None, None::<u64>);
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        // The last line may be half-written while it is read.
        let Ok(number) = line.parse::<u64>() else {
            continue;
        };
        if last.is_some_and(|last| last + 1 != number) {
            gaps += 1;
        }
        first.get_or_insert(number);
        last = Some(number);
        lines += 1;
    }
    format!(
        "lines {lines} first {} last {} gaps {gaps}\n",
        first.unwrap_or(0),
        last.unwrap_or(0)
    )
}

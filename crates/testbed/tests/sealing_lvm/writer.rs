//! Keeps two files in step until it is killed: the second never says more than the first, and at most one less.
//! Compiled by the test itself, statically.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

fn main() {
    let files: Vec<File> = std::env::args()
        .skip(1)
        .map(|path| File::create(path).expect("a file"))
        .collect();
    for step in 1_u64.. {
        for file in &files {
            // In place, always as long: each write is one.
            file.write_all_at(format!("{step:012}\n").as_bytes(), 0).expect("a write");
        }
        if step % 16 == 0 {
            for file in &files {
                file.sync_all().expect("the disk");
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! `estive-dirty`: a guest that writes its memory at a set pace, for the benchmark `pre-copy`.
//!
//! As PID 1 of an initramfs it fills `dirty_touched_mib` with what is no zero, then writes a word into each page of the
//! first `dirty_hot_kib` of it, one after another and round again, `dirty_kib_per_s` in all, and says once a second how far
//! it came. With `dirty_busy` it counts between two pages instead of sleeping, so that it needs all of its processor for
//! that pace and is slower on less of it. The kernel gives PID 1 the words of its command line that it does not know as environment.
#![allow(
    clippy::disallowed_methods,
    reason = "a guest program: it has no Clock seam"
)]

use std::time::{Duration, Instant};

const PAGE_BYTES: usize = 4096;
const WORDS_A_PAGE: usize = PAGE_BYTES / 8;
/// Pages are written in portions of so long.
const TICK: Duration = Duration::from_millis(5);

fn main() {
    let touched = asked("dirty_touched_mib") << 20;
    let hot_pages = (asked("dirty_hot_kib") << 10) / PAGE_BYTES;
    let pages_per_s = (asked("dirty_kib_per_s") << 10) / PAGE_BYTES;
    // No two pages alike, no page empty.
    let mut memory: Vec<u64> = (1..=(touched / 8) as u64)
        .map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .collect();
    let hot_pages = hot_pages.min(memory.len() / WORDS_A_PAGE);
    println!("estive-dirty: ready");
    if hot_pages == 0 || pages_per_s == 0 {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    if asked("dirty_busy") > 0 {
        busily(&mut memory, hot_pages, pages_per_s);
    }
    // Of the pace the guest's own clock counts, not ticks: one that was held up writes what it owes, a second's at most.
    let (mut from, mut written, mut page) = (Instant::now(), 0_usize, 0_usize);
    loop {
        std::thread::sleep(TICK);
        let elapsed = from.elapsed();
        let due = (elapsed.as_secs_f64() * pages_per_s as f64) as usize;
        for _ in written..due.min(written + pages_per_s) {
            let word = &mut memory[page * WORDS_A_PAGE];
            *word = word.wrapping_add(2) | 1;
            page = (page + 1) % hot_pages;
        }
        written = due;
        std::hint::black_box(&mut memory);
        if elapsed >= Duration::from_secs(1) {
            let kib = written * (PAGE_BYTES >> 10);
            println!("estive-dirty: {kib} KiB in {} ms", elapsed.as_millis());
            (from, written) = (Instant::now(), 0);
        }
    }
}

/// Writes at the pace that its processor allows.
fn busily(memory: &mut [u64], hot_pages: usize, pages_per_s: usize) -> ! {
    const TRIED: u64 = 20_000_000;
    let tried = Instant::now();
    count(TRIED);
    let counts_per_s = TRIED as f64 / tried.elapsed().as_secs_f64();
    // Writing itself takes its time: the pace is what it says it is, not what was asked.
    let between = (counts_per_s / pages_per_s as f64) as u64;
    let (mut from, mut written) = (Instant::now(), 0_usize);
    for page in (0..hot_pages).cycle() {
        let word = &mut memory[page * WORDS_A_PAGE];
        *word = word.wrapping_add(2) | 1;
        std::hint::black_box(&mut *memory);
        count(between);
        written += 1;
        if written % 256 == 0 && from.elapsed() >= Duration::from_secs(1) {
            let kib = written * (PAGE_BYTES >> 10);
            println!(
                "estive-dirty: {kib} KiB in {} ms",
                from.elapsed().as_millis()
            );
            (from, written) = (Instant::now(), 0);
        }
    }
    unreachable!("a cycle of pages does not end")
}

fn count(times: u64) {
    for number in 0..times {
        std::hint::black_box(number);
    }
}

/// A number of the environment; 0 where there is none.
fn asked(name: &str) -> usize {
    let word = std::env::var(name).unwrap_or_default();
    word.parse().unwrap_or(0)
}

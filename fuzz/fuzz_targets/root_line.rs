//! Any text as the word `root=`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| estive_boot::root_line::laws::hold(bytes));

//! Reading the kernel's command line, once.

use std::fs;

use estive_boot::CommandLine;

use crate::console::say;
use crate::failure::{Failure, Result, While};

/// From `/proc/cmdline`. What is wrong in a value is pointed at on the console.
pub fn read() -> Result<CommandLine> {
    let text = fs::read_to_string("/proc/cmdline").doing(|| "reading /proc/cmdline".into())?;
    CommandLine::parse(&text).map_err(|error| {
        if let Some((word, problem)) = error.pointed() {
            let pointed = problem.pointed();
            let mut lines = pointed.lines();
            let indent = " ".repeat(word.len() + 1);
            say(&format!("{word}={}", lines.next().unwrap_or_default()));
            say(&format!("{indent}{}", lines.next().unwrap_or_default()));
        }
        Failure(error.to_string())
    })
}

//! Reading the kernel's command line, once.

use std::fs;

use estive_boot::ip_line::IP_WORD;
use estive_boot::{CommandLine, CommandLineError, ROOT_WORD};

use crate::console::say;
use crate::failure::{Failure, Result, While};

/// From `/proc/cmdline`. What is wrong in `root=` or `ip=` is pointed at on the console.
pub fn read() -> Result<CommandLine> {
    let text = fs::read_to_string("/proc/cmdline").doing(|| "reading /proc/cmdline".into())?;
    CommandLine::parse(&text).map_err(|error| {
        let pointed = match &error {
            CommandLineError::Root(problem) => Some((ROOT_WORD, problem.pointed())),
            CommandLineError::Ip(problem) => Some((IP_WORD, problem.pointed())),
            CommandLineError::Word { .. } => None,
        };
        if let Some((word, pointed)) = pointed {
            let mut lines = pointed.lines();
            let indent = " ".repeat(word.len() + 1);
            say(&format!("{word}={}", lines.next().unwrap_or_default()));
            say(&format!("{indent}{}", lines.next().unwrap_or_default()));
        }
        Failure(error.to_string())
    })
}

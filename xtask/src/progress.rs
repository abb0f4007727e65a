//! One step at a time, seen: a spinner on a terminal, a plain line before and after anywhere else.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Failure, Result};

/// How many of a failed command's last lines are shown.
const TAIL_LINES: usize = 30;

/// How many characters of a command are shown when it fails.
const LONGEST_COMMAND: usize = 160;

/// Something under way that a person may be waiting for.
pub struct Step {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            // The template is constant: a fault in it would show at the first run.
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix}  {wide_msg:.dim} {elapsed:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            Some(bar)
        } else {
            eprintln!("  {name} ...");
            None
        };
        Self {
            name,
            bar,
            started: Instant::now(),
        }
    }

    /// What is happening just now; only shown where there is a terminal.
    pub fn note(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(
                line.chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect::<String>(),
            );
        }
    }

    /// Leaves the terminal to a command that shows its own progress.
    pub fn pause(&self) {
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
        if self.bar.is_some() {
            eprintln!("  {} ...", self.name);
        }
    }

    /// Ends the step with its outcome in a few words and the time it took.
    pub fn done(self, outcome: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let gap = if outcome.is_empty() { "" } else { ": " };
        eprintln!(
            "  {}{gap}{outcome} ({:.1} s)",
            self.name,
            self.started.elapsed().as_secs_f64()
        );
    }

    /// Runs a command to its end, its lines shown as notes; returns its standard output and error as one text.
    ///
    /// Only the last lines are kept: what a command says is for people.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        let spawn = |program: &Command, source| Failure::Spawn {
            doing: self.name.clone(),
            program: program.get_program().to_string_lossy().into_owned(),
            source,
        };
        let (reader, writer) = std::io::pipe().map_err(|e| spawn(command, e))?;
        let second = writer.try_clone().map_err(|e| spawn(command, e))?;
        let started = command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second)
            .spawn();
        // The command's own copies of the pipe's writing end would keep the reader waiting for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = started.map_err(|e| spawn(command, e))?;
        let mut tail = VecDeque::new();
        for line in BufReader::new(reader)
            .split(b'\n')
            .map_while(std::result::Result::ok)
        {
            let line = String::from_utf8_lossy(&line).trim_end().to_string();
            self.note(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait().map_err(|e| spawn(command, e))?;
        let tail = tail.into_iter().collect::<Vec<_>>().join("\n");
        if status.success() {
            return Ok(tail);
        }
        Err(Failure::Ended {
            doing: self.name.clone(),
            command: spelled(command),
            status,
            tail,
        })
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The standard output of a command that is quick and should succeed.
pub fn output(doing: &str, command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Failure::Spawn {
            doing: doing.into(),
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::Ended {
        doing: doing.into(),
        command: spelled(command),
        status: output.status,
        tail: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_string(),
    })
}

/// A command as one would type it, shortened: some arguments here are whole scripts.
fn spelled(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    for argument in command.get_args() {
        let word = argument.to_string_lossy();
        let first = word.lines().next().unwrap_or_default();
        words.push(if first.len() < word.len() {
            format!("'{first} ...'")
        } else {
            first.to_string()
        });
    }
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST_COMMAND) {
        Some((cut, _)) => format!("{} ...", &text[..cut]),
        None => text,
    }
}

//! The two places where the boot is reported: the console and the report port.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use estive_boot::Phase;
use estive_boot::report::{Line, STEP_CHARACTERS_MAX, Step, clean_words};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::devices;
use crate::failure::{Failure, Result, While};

/// How long a full report port is waited for. QEMU writes to a file: it is never full for long.
const PORT_PATIENCE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Gives standard input, output and error to the console, now that it is there.
pub fn reopen() -> Result<()> {
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
        .doing(|| "opening /dev/console (is console=ttyS0 on the command line?)".into())?;
    rustix::stdio::dup2_stdin(&console)
        .and_then(|()| rustix::stdio::dup2_stdout(&console))
        .and_then(|()| rustix::stdio::dup2_stderr(&console))
        .doing(|| "giving the console to the standard streams".into())
}

/// Reports phases as they end, and what stopped one. Lines from before the port is found wait.
pub struct Report {
    phase: Phase,
    port: Option<File>,
    waiting: Vec<u8>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            phase: Phase::Init,
            port: None,
            waiting: Vec::new(),
        }
    }

    /// From now on a failure is one of this phase.
    pub fn begin(&mut self, phase: Phase) {
        self.phase = phase;
    }

    pub fn done(&mut self, phase: Phase) {
        let uptime_ms = uptime_ms();
        say(&format!("phase {phase} {uptime_ms}"));
        self.write(&Line::Done { phase, uptime_ms });
    }

    /// Part of a phase, such as a stage of `root=`; times are [`uptime_ms`].
    pub fn step(&mut self, what: &str, began_ms: u64, ended_ms: u64) {
        let step = clean_words(what, STEP_CHARACTERS_MAX);
        say(&format!("step {began_ms} {ended_ms} {step}"));
        self.write(&Line::Step(Step {
            step,
            began_ms,
            ended_ms,
        }));
    }

    pub fn failed(&mut self, Failure(error): &Failure) {
        say(&format!("error: {error}"));
        if self.port.is_none() {
            self.open_port();
        }
        self.write(&Line::Failed {
            error: error.clone(),
            phase: self.phase,
        });
    }

    /// Finds the port, once its module is loaded. A machine without it is still booted: the
    /// console has the same report.
    pub fn open_port(&mut self) {
        // A boot that begins again has it.
        if self.port.is_some() {
            return;
        }
        let opened = devices::port(estive_boot::port::REPORT).and_then(|path| {
            OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NONBLOCK.bits() as i32)
                .open(&path)
                .doing(|| format!("opening {}", path.display()))
        });
        match opened {
            Ok(port) => self.port = Some(port),
            Err(Failure(error)) => say(&format!("no report to the host: {error}")),
        }
        self.flush();
    }

    fn write(&mut self, line: &Line) {
        self.waiting.extend(line.to_json().into_bytes());
        self.flush();
    }

    fn flush(&mut self) {
        let Some(port) = &mut self.port else { return };
        while !self.waiting.is_empty() {
            let mut events = [PollFd::new(port, PollFlags::OUT)];
            // One line too many in `waiting` is no reason to stop a boot.
            if !matches!(poll(&mut events, Some(&PORT_PATIENCE)), Ok(1..)) {
                return;
            }
            match port.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Milliseconds since the kernel started.
pub fn uptime_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// One line on the console. With no console there is nobody to tell.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "estive-init: {text}");
}

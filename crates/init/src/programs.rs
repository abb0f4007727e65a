//! Running a program of the reference: for a bounded time, with what it has to say kept for the error.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use estive_boot::programs::{DIRECTORY, LIBRARY_PATH, Program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::console::uptime_ms;
use crate::failure::{Result, While, fail};

/// What is kept of each of the two streams.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Of a program's complaint, in an error.
const SHOWN_BYTES_MAX: usize = 600;
const POLL: Duration = Duration::from_millis(2);
/// For a program that was ended to be gone.
const REAP_MS: u64 = 5000;

/// One run: the program, its words, and what it may take.
pub struct Run<'a> {
    pub program: Program,
    pub arguments: &'a [&'a OsStr],
    /// Given on its standard input, where no other program can see it.
    pub input: &'a [u8],
    pub bound_s: u64,
}

/// What came of it.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The output, or an error with what the program said.
    pub fn succeeded(self, doing: &str, program: Program) -> Result<Output> {
        match self.status.success() {
            true => Ok(self),
            false => fail(format!(
                "{doing}: {} failed ({}): {}",
                program.name,
                self.status,
                self.complaint()
            )),
        }
    }

    /// What it wrote to standard error, else to standard output, in one line.
    pub fn complaint(&self) -> String {
        let text = match self.stderr.trim().is_empty() {
            true => &self.stdout,
            false => &self.stderr,
        };
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let mut text: String = lines
            .join("; ")
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut end = text.len().min(SHOWN_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        match text.is_empty() {
            true => "it said nothing".to_owned(),
            false => text,
        }
    }
}

impl Run<'_> {
    /// Runs it to its end. It is an error when it is not there or takes too long, not when it fails.
    pub fn output(&self) -> Result<Output> {
        let name = self.program.name;
        let path = Path::new(DIRECTORY).join(name);
        if !path.exists() {
            return fail(format!(
                "the program {name} is not in the initramfs: build it with estive for this line, from a reference that has it (Debian's package {})",
                self.program.package
            ));
        }
        // Where they keep what they know of the running system; it goes with the initramfs.
        fs::create_dir_all("/run").doing(|| "making /run".into())?;
        let libraries = fs::read_to_string(LIBRARY_PATH).unwrap_or_default();
        let mut command = Command::new(&path);
        command
            .args(self.arguments)
            .env_clear()
            .env("PATH", DIRECTORY)
            .env("LD_LIBRARY_PATH", libraries.trim())
            .env("LC_ALL", "C")
            // There is no udev that makes nodes or would answer: libdevmapper and mdadm make them.
            .env("DM_DISABLE_UDEV", "1")
            .env("MDADM_NO_UDEV", "1")
            .env("MDADM_NO_SYSTEMCTL", "1")
            // lvm: its own defaults, whatever its configuration would be elsewhere.
            .env("LVM_SYSTEM_DIR", "")
            .env("LVM_SUPPRESS_FD_WARNINGS", "1");
        bounded(name, command, self.input, self.bound_s * 1000)
    }
}

/// Runs a command to its end, or ends it.
pub fn bounded(name: &str, mut command: Command, input: &[u8], bound_ms: u64) -> Result<Output> {
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().doing(|| format!("running {name}"))?;
    let ended = follow(name, &mut child, input, bound_ms);
    if ended.is_err() {
        let _ = child.kill();
        reap(&mut child);
    }
    ended
}

/// One that waits for a disk or a server that is gone does not end: it is left behind.
fn reap(child: &mut Child) {
    let deadline_ms = uptime_ms() + REAP_MS;
    while matches!(child.try_wait(), Ok(None)) && uptime_ms() < deadline_ms {
        std::thread::sleep(POLL);
    }
}

fn follow(name: &str, child: &mut Child, mut input: &[u8], bound_ms: u64) -> Result<Output> {
    let doing = || format!("running {name}");
    let deadline_ms = uptime_ms() + bound_ms;
    let mut stdin = child.stdin.take();
    let mut streams = [
        Stream::new(child.stdout.take().map(OwnedFd::from)),
        Stream::new(child.stderr.take().map(OwnedFd::from)),
    ];
    if let Some(stdin) = &stdin {
        let flags = fcntl_getfl(stdin).doing(doing)?;
        fcntl_setfl(stdin, flags | OFlags::NONBLOCK).doing(doing)?;
    }
    loop {
        if input.is_empty() {
            stdin = None;
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(input) {
                Ok(written) => input = &input[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It reads no more: its exit status says why.
                Err(_) => input = &[],
            }
        }
        if let Some(status) = child.try_wait().doing(doing)? {
            // What a child of its own still writes is not waited for.
            streams.iter_mut().for_each(Stream::drain);
            return Ok(output(status, &streams));
        }
        if uptime_ms() > deadline_ms {
            let said = output(ExitStatus::default(), &streams).complaint();
            return fail(format!(
                "{name} was not done after {} s and was ended: {said}",
                bound_ms / 1000
            ));
        }
        let took = streams.each_mut().map(|stream| stream.take(POLL));
        if took == [false; 2] {
            std::thread::sleep(POLL);
        }
    }
}

fn output(status: ExitStatus, streams: &[Stream; 2]) -> Output {
    let text = |stream: &Stream| String::from_utf8_lossy(&stream.bytes).into_owned();
    let [stdout, stderr] = streams;
    Output {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// One of the program's two streams; what is too much of it is read and forgotten.
struct Stream {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(pipe: Option<impl Into<OwnedFd>>) -> Stream {
        Stream {
            pipe: pipe.map(Into::into),
            bytes: Vec::new(),
        }
    }

    /// Takes what is there, all of it.
    fn drain(&mut self) {
        while self.take(Duration::ZERO) {}
    }

    /// Reads once if something is there within this time; says whether it was.
    fn take(&mut self, most: Duration) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        let timeout = Timespec {
            tv_sec: most.as_secs().cast_signed(),
            tv_nsec: most.subsec_nanos().into(),
        };
        let mut events = [PollFd::new(pipe, PollFlags::IN)];
        if !matches!(poll(&mut events, Some(&timeout)), Ok(1..)) {
            return false;
        }
        let mut chunk = [0; 4096];
        match rustix::io::read(pipe, &mut chunk) {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(count) => {
                let room = OUTPUT_BYTES_MAX - self.bytes.len();
                self.bytes.extend_from_slice(&chunk[..count.min(room)]);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::failure::Failure;

    #[test]
    fn a_program_has_its_time_and_no_more() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let input = vec![b'x'; 200_000];
        let done = bounded("sh", shell("wc -c; echo why >&2; exit 3"), &input, 60_000).unwrap();
        assert_eq!(
            (done.status.code(), done.stdout.trim(), done.stderr.trim()),
            (Some(3), "200000", "why")
        );
        let unread = bounded("sh", shell("exit 0"), &input, 60_000).unwrap();
        assert!(unread.status.success());
        let much = bounded("sh", shell("head -c 300000 /dev/zero"), b"", 60_000).unwrap();
        assert_eq!(much.stdout.len(), OUTPUT_BYTES_MAX);
        let Err(Failure(error)) = bounded("sh", shell("echo now; exec sleep 1000"), b"", 200)
        else {
            panic!("it ended")
        };
        assert!(error.contains("was ended: now"), "{error}");
        // A child that holds the streams open does not hold us.
        let left = bounded("sh", shell("sleep 2 & echo said"), b"", 60_000).unwrap();
        assert_eq!(left.stdout, "said\n");
    }

    #[test]
    fn a_complaint_is_one_line_of_what_was_said() {
        let output = |stdout: &str, stderr: &str| Output {
            status: ExitStatus::from_raw(256),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        assert_eq!(output("out", " a\n\n b\x1b[2J\n").complaint(), "a; b [2J");
        assert_eq!(output("out\n", "\n").complaint(), "out");
        assert_eq!(output("", "").complaint(), "it said nothing");
        assert!(output("", &"ü".repeat(9000)).complaint().len() <= SHOWN_BYTES_MAX);
        let program = estive_boot::programs::LVM;
        let error = output("", "why").succeeded("doing it", program);
        let Err(Failure(error)) = error else { panic!() };
        assert_eq!(error, "doing it: lvm failed (exit status: 1): why");
    }
}

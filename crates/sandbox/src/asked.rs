//! Our own program, executed anew to do one thing: its request in a file without a name as standard input, its answer
//! through a pipe, its last words in another such file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::fcntl_setpipe_size;

use crate::command::COMMAND;
use crate::messages;

/// How much of its last words goes into an error.
const LAST_WORDS_BYTES: u64 = 4096;
/// Large answers then take fewer turns.
const PIPE_BYTES: usize = 1 << 20;

/// A process that was asked.
pub(crate) struct Asked {
    child: Child,
    words: File,
}

/// What it gave.
pub(crate) struct Answered {
    pub bytes: Vec<u8>,
    pub status: ExitStatus,
    /// On one line.
    pub words: String,
}

/// What a watcher says, asked now and then.
pub(crate) enum Go {
    On,
    Kill,
}

impl Asked {
    /// Starts it; `request` is read from its beginning.
    pub fn start(
        program: &Path,
        what: &str,
        more: &[impl AsRef<OsStr>],
        request: File,
    ) -> io::Result<Self> {
        let words = memfd("words")?;
        let child = Command::new(program)
            .args([COMMAND, what, &std::process::id().to_string()])
            .args(more)
            .env_clear()
            .current_dir("/")
            .stdin(request)
            .stdout(Stdio::piped())
            .stderr(words.try_clone()?)
            .spawn()?;
        Ok(Self { child, words })
    }

    /// Its whole answer, of `limit_bytes` at most; `watch` is asked every `step_ms`.
    pub fn answer(
        mut self,
        limit_bytes: usize,
        step_ms: u32,
        mut watch: impl FnMut() -> Go,
    ) -> io::Result<Answered> {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            // Only for speed.
            let _ = fcntl_setpipe_size(&pipe, PIPE_BYTES);
            let step = Timespec {
                tv_sec: i64::from(step_ms / 1000),
                tv_nsec: i64::from(step_ms % 1000) * 1_000_000,
            };
            let mut buffer = vec![0; 256 << 10];
            loop {
                let mut ends = [PollFd::new(&pipe, PollFlags::IN)];
                match poll(&mut ends, Some(&step)) {
                    Ok(0) => {
                        if let Go::Kill = watch() {
                            self.child.kill()?;
                        }
                        continue;
                    }
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return self.give_up(error.into()),
                }
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return self.give_up(error),
                }
                if bytes.len() > limit_bytes {
                    let most = limit_bytes >> 20;
                    return self.give_up(io::Error::other(format!(
                        "its answer has more than {most} MiB"
                    )));
                }
            }
        }
        let status = self.child.wait()?;
        Ok(Answered {
            bytes,
            status,
            words: last_words(self.words),
        })
    }

    fn give_up<T>(mut self, error: io::Error) -> io::Result<T> {
        self.child.kill()?;
        self.child.wait()?;
        Err(error)
    }
}

/// A file without a name.
pub(crate) fn memfd(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// A request as the other process reads it, after `offset` bytes of nothing.
pub(crate) fn written(value: &impl serde::Serialize, offset: u64) -> io::Result<File> {
    let mut file = memfd("request")?;
    file.set_len(offset)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut writer = io::BufWriter::with_capacity(1 << 20, &mut file);
    rmp_serde::encode::write_named(&mut writer, value).map_err(io::Error::other)?;
    writer.flush()?;
    drop(writer);
    Ok(file)
}

fn last_words(mut file: File) -> String {
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(0) => "it said nothing".to_owned(),
        Ok(_) => messages::one_line(&bytes),
        Err(error) => format!("what it said could not be read: {error}"),
    }
}

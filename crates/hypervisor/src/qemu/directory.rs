//! The directory of one domain: everything its instance has on disk.

use crate::seam::{Channels, HypervisorError};
use estive_model::DomainName;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, in bytes, without its final NUL (`sun_path` of Linux).
const SOCKET_PATH_BYTES: usize = 107;
/// How much of QEMU's last words goes into an error, in bytes.
const LAST_WORDS_BYTES: u64 = 2048;

/// `<runtime_dir>/<domain>/`, mode 0700.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn of(runtime_dir: &Path, domain: &DomainName) -> Self {
        Self(runtime_dir.join(domain.as_str()))
    }

    /// The domains that have one, in order.
    pub(super) fn all(runtime_dir: &Path) -> io::Result<Vec<DomainName>> {
        let mut domains = Vec::new();
        for entry in fs::read_dir(runtime_dir)? {
            let entry = entry?;
            if let Some(domain) = entry
                .file_name()
                .to_str()
                .and_then(|name| DomainName::new(name).ok())
                .filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            {
                domains.push(domain);
            }
        }
        domains.sort();
        Ok(domains)
    }

    /// The domain whose pid file `path` is, if it is one under `runtime_dir`.
    pub(super) fn domain_of_pid_file(runtime_dir: &Path, path: &Path) -> Option<DomainName> {
        let domain = path.parent()?.strip_prefix(runtime_dir).ok()?.to_str()?;
        let domain = DomainName::new(domain).ok()?;
        (Self::of(runtime_dir, &domain).pid() == path).then_some(domain)
    }

    /// Written and locked by QEMU itself: a second instance cannot start beside a living one.
    pub(super) fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    pub(super) fn qmp(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }

    pub(super) fn console(&self) -> PathBuf {
        self.0.join("console.sock")
    }

    pub(super) fn console_log(&self) -> PathBuf {
        self.0.join("console.log")
    }

    pub(super) fn report(&self) -> PathBuf {
        self.0.join("report")
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.0.join("identity.sock")
    }

    pub(super) fn guest_agent(&self) -> PathBuf {
        self.0.join("qga.sock")
    }

    /// Read by QEMU when it starts, removed once it stands.
    pub(super) fn identity_file(&self) -> PathBuf {
        self.0.join("identity.json")
    }

    pub(super) fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// Stands while an incoming stream has not been taken: from before the instance is made until just before its
    /// processors are started. QEMU itself cannot tell a loaded instance from one that ran and was halted.
    pub(super) fn awaiting(&self) -> PathBuf {
        self.0.join("awaiting")
    }

    pub(super) fn channels(&self) -> Channels {
        Channels {
            console: self.console(),
            console_log: self.console_log(),
            report: self.report(),
            identity: self.identity(),
            guest_agent: self.guest_agent(),
        }
    }

    /// Makes the directory ready for a new instance. The console's log of the one before is kept as `console.log.1`.
    pub(super) fn prepare(
        &self,
        identity: Option<&str>,
        incoming: bool,
    ) -> Result<fs::File, HypervisorError> {
        // The longest of the socket names.
        let longest = self.identity().as_os_str().len();
        if longest > SOCKET_PATH_BYTES {
            return Err(failed(
                format!(
                    "the sockets in {} would have paths of {longest} bytes, more than the {SOCKET_PATH_BYTES} of a \
                     unix socket: use a shorter runtime directory",
                    self.0.display()
                ),
                io::ErrorKind::InvalidFilename.into(),
            ));
        }
        let doing = |source| failed(format!("preparing {}", self.0.display()), source);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(doing)?;
        self.clear();
        remove(&self.report());
        let log = self.console_log();
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            fs::rename(&log, log.with_extension("log.1")).map_err(doing)?;
        }
        if let Some(identity) = identity.filter(|identity| !identity.is_empty()) {
            let mut file = secret(&self.identity_file()).map_err(doing)?;
            file.write_all(identity.as_bytes()).map_err(doing)?;
        }
        if incoming {
            secret(&self.awaiting()).map_err(doing)?;
        }
        secret(&self.stderr()).map_err(doing)
    }

    /// Removes what means something only while an instance stands. Logs and the report stay.
    pub(super) fn clear(&self) {
        for file in [
            self.pid(),
            self.qmp(),
            self.console(),
            self.identity(),
            self.guest_agent(),
            self.identity_file(),
            self.awaiting(),
        ] {
            remove(&file);
        }
    }

    /// Removes what a start that failed has left, and the directory itself unless it holds logs of a run before.
    pub(super) fn discard(&self) {
        self.clear();
        for file in [self.console_log(), self.report(), self.stderr()] {
            remove(&file);
        }
        let _ = fs::remove_dir(&self.0);
    }

    /// Removes everything, also what runs before have left.
    pub(super) fn erase(&self) {
        remove(&self.console_log().with_extension("log.1"));
        self.discard();
    }

    /// The last lines QEMU printed, on one line.
    pub(super) fn last_words(&self) -> String {
        let mut words = Vec::new();
        if let Ok(mut file) = fs::File::open(self.stderr()) {
            let length = file.metadata().map(|file| file.len()).unwrap_or_default();
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)));
            let _ = file.take(LAST_WORDS_BYTES).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words);
        let lines: Vec<_> = words
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        if lines.is_empty() {
            "it printed nothing".to_owned()
        } else {
            lines.join("; ")
        }
    }
}

fn secret(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of an instance");
    }
}

pub(super) fn failed(doing: String, source: io::Error) -> HypervisorError {
    HypervisorError::Io { doing, source }
}

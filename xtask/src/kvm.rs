//! Whether KVM works here, proved by a guest that ran to its end.
//!
//! `/dev/kvm` that exists and opens proves nothing: on some nested machines QEMU then dies at a register it cannot
//! set, on others a stock kernel hangs for ever. So a kernel without a root is booted once: it ends in a panic of
//! which we know the words, and the reboot after that ends QEMU.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::failure::{Failure, Result, file};
use crate::progress::{Step, output};

const QEMU: &str = "qemu-system-x86_64";

/// Emulation needs four seconds for this guest on a slow machine; with KVM it is one.
const PROOF_BOUND: Duration = Duration::from_secs(10);

/// The last thing that a kernel without a root has to say.
const LAST_WORDS: &str = "Unable to mount root fs";

/// How guests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// The word QEMU, agents and tests use.
    pub fn as_str(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// A remembered proof. It holds until the machine, its kernel or QEMU is another.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    accel: Accel,
    reason: String,
    proved_for: String,
}

/// How guests run on this machine: as remembered, else proved now with the kernel given.
pub fn verdict(cache: &Cache, kernel: &Path) -> Result<Accel> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let place = cache.acceleration();
    let circumstances = circumstances()?;
    let remembered = fs::read(&place)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Verdict>(&bytes).ok());
    if let Some(verdict) = remembered.filter(|verdict| verdict.proved_for == circumstances) {
        return Ok(verdict.accel);
    }
    let step = Step::begin("proving that KVM works");
    let (accel, reason) = match prove(kernel)? {
        Ok(()) => (Accel::Kvm, "a guest ran to its end".to_string()),
        Err(why) => (Accel::Tcg, why),
    };
    step.done(&format!("{}, since {reason}", accel.as_str()));
    let verdict = Verdict {
        accel,
        reason,
        proved_for: circumstances,
    };
    let text = serde_json::to_vec_pretty(&verdict).map_err(|source| Failure::Json {
        what: "the verdict".into(),
        source,
    })?;
    fs::write(&place, text).map_err(file("writing", &place))?;
    Ok(accel)
}

fn circumstances() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).map_err(file("reading", Path::new(path)));
    let version = output("asking QEMU's version", Command::new(QEMU).arg("--version"))?;
    Ok(format!(
        "boot {}, kernel {}, {}",
        read("/proc/sys/kernel/random/boot_id")?.trim(),
        read("/proc/sys/kernel/osrelease")?.trim(),
        version.lines().next().unwrap_or_default()
    ))
}

/// Runs the small guest; the inner error says why KVM is not to be used.
fn prove(kernel: &Path) -> Result<std::result::Result<(), String>> {
    let temporary = Path::new("a temporary file");
    let mut said = tempfile::tempfile().map_err(file("making", temporary))?;
    let both = said.try_clone().map_err(file("opening", temporary))?;
    let errors = said.try_clone().map_err(file("opening", temporary))?;
    let mut guest = Command::new(QEMU)
        .args([
            "-machine",
            "pc-q35-7.2",
            "-accel",
            "kvm",
            "-cpu",
            "max",
            "-m",
            "256",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .args(["-append", "console=ttyS0 quiet panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(both)
        .stderr(errors)
        .spawn()
        .map_err(|source| Failure::Spawn {
            doing: "proving KVM".into(),
            program: QEMU.into(),
            source,
        })?;
    let end = Instant::now() + PROOF_BOUND;
    let status = loop {
        match guest
            .try_wait()
            .map_err(file("waiting for", Path::new(QEMU)))?
        {
            Some(status) => break Some(status),
            None if Instant::now() > end => break None,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let Some(status) = status else {
        // It is ours and not reaped yet: the number is still its own.
        let _ = guest.kill();
        let _ = guest.wait();
        return Ok(Err(format!(
            "a guest did not come to its end within {} s",
            PROOF_BOUND.as_secs()
        )));
    };
    let mut text = Vec::new();
    said.seek(SeekFrom::Start(0))
        .map_err(file("reading", temporary))?;
    said.read_to_end(&mut text)
        .map_err(file("reading", temporary))?;
    let text = String::from_utf8_lossy(&text);
    if status.success() && text.contains(LAST_WORDS) {
        return Ok(Ok(()));
    }
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("without a word")
        .trim();
    Ok(Err(format!("QEMU ended with {status}: {last}")))
}

//! Whether KVM works here, proved by a guest that ran to its end.
//!
//! `/dev/kvm` that exists and opens proves nothing: on some nested machines QEMU then dies at a register it cannot
//! set, on others a stock kernel hangs for ever. So a kernel without a root is booted once: it ends in a panic of
//! which we know the words, and the reboot after that ends QEMU.

use super::Accel;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Emulation needs four seconds for this guest on a slow machine; with KVM it is one.
const PROOF_BOUND_S: u32 = 10;
const LOOK: Duration = Duration::from_millis(50);
const LOOKS_PER_S: u32 = 20;

/// The last thing that a kernel without a root has to say.
const LAST_WORDS: &str = "Unable to mount root fs";

/// A proof. It holds until the machine, its kernel or QEMU is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmVerdict {
    /// What guests are to be executed by.
    pub accel: Accel,
    /// Why.
    pub reason: String,
    proved_for: String,
}

impl KvmVerdict {
    /// The verdict kept in `place`, if it is about this machine as it is now; a machine without `/dev/kvm` needs none.
    pub fn remembered(place: &Path, emulator: &Path) -> io::Result<Option<Self>> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Some(Self {
                accel: Accel::Tcg,
                reason: "there is no /dev/kvm".to_owned(),
                proved_for: String::new(),
            }));
        }
        let kept = fs::read(place)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let now = circumstances(emulator)?;
        Ok(kept.filter(|verdict| verdict.proved_for == now))
    }

    /// Boots `kernel` to its end, or for ten seconds, and keeps the verdict in `place`. Blocks.
    pub fn prove(place: &Path, emulator: &Path, kernel: &Path) -> io::Result<Self> {
        let proved_for = circumstances(emulator)?;
        let (accel, reason) = match try_guest(emulator, kernel)? {
            Ok(()) => (Accel::Kvm, "a guest ran to its end".to_owned()),
            Err(why) => (Accel::Tcg, why),
        };
        let verdict = Self {
            accel,
            reason,
            proved_for,
        };
        fs::write(place, serde_json::to_vec_pretty(&verdict)?)?;
        Ok(verdict)
    }
}

fn circumstances(emulator: &Path) -> io::Result<String> {
    let output = Command::new(emulator)
        .arg("--version")
        .stdin(Stdio::null())
        .output()?;
    let version = String::from_utf8_lossy(&output.stdout);
    Ok(format!(
        "boot {}, kernel {}, {}",
        fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim(),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        version.lines().next().unwrap_or_default()
    ))
}

/// Runs the small guest; the inner error says why KVM is not to be used.
fn try_guest(emulator: &Path, kernel: &Path) -> io::Result<Result<(), String>> {
    let mut said = File::from(memfd_create("said", MemfdFlags::CLOEXEC)?);
    let words = "-machine pc-q35-7.2 -accel kvm -cpu max -m 256 -nodefaults -no-user-config -display none -no-reboot \
                 -serial stdio";
    let mut guest = Command::new(emulator)
        .args(words.split(' '))
        .args(["-append", "console=ttyS0 quiet panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()?;
    let mut status = None;
    for _ in 0..PROOF_BOUND_S * LOOKS_PER_S {
        status = guest.try_wait()?;
        if status.is_some() {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let Some(status) = status else {
        // It is ours and not reaped yet: the number is still its own.
        let _ = guest.kill();
        let _ = guest.wait();
        return Ok(Err(format!(
            "a guest did not come to its end within {PROOF_BOUND_S} s"
        )));
    };
    let mut text = Vec::new();
    said.rewind()?;
    said.read_to_end(&mut text)?;
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

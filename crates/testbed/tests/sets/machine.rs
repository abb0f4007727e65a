//! A machine without manager and agent, which can be given what those do not give: another disk, no kernel.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A Debian guest takes ten seconds alone, and what it copies some more; ten times that.
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);

/// Where the guest's port 22 is found. The outer namespace is ours alone.
pub const SSH_PORT: u16 = 2222;

/// A QEMU of a test, killed when dropped. Its guest has the address 10.77.0.101.
pub struct Machine {
    child: Child,
    console: PathBuf,
}

impl Machine {
    /// Starts it, with files of this name in `directory`, and with `arguments` besides what every machine has.
    pub fn start(name: &str, directory: &Path, memory_mib: u64, arguments: &[String]) -> Self {
        let console = directory.join(format!("{name}.console"));
        let accel = std::env::var("ESTIVE_ACCEL").unwrap_or_else(|_| "tcg".to_owned());
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", &accel, "-m", &format!("{memory_mib}M"), "-serial"])
            .arg(format!("file:{}", console.display()))
            .args("-machine pc-q35-7.2 -cpu max -smp 2 -display none -nodefaults -no-user-config -no-reboot".split(' '))
            .arg("-netdev")
            .arg(format!("user,id=n0,net=10.77.0.0/24,host=10.77.0.1,hostfwd=tcp:127.0.0.1:{SSH_PORT}-10.77.0.101:22"))
            .args("-device virtio-net-pci,romfile=,netdev=n0 -device virtio-rng-pci -device virtio-serial-pci".split(' '))
            .args(arguments);
        let log = File::create(directory.join(format!("{name}.qemu"))).unwrap();
        let child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self {
            child: child.expect("qemu-system-x86_64 is needed"),
            console,
        }
    }

    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).replace('\r', "")
    }

    /// Waits until its console says `text`.
    pub fn says(&mut self, text: &str) {
        for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
            if self.console().contains(text) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "the machine ended ({status}) and has not said {text:?}:\n{}",
                    self.console()
                );
            }
            std::thread::sleep(POLL);
        }
        panic!(
            "{text:?} was not said within {PATIENCE:?}:\n{}",
            self.console()
        );
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

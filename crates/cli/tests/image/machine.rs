//! A machine that is given no kernel: it has firmware, network cards and disks, and starts from those.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use estive_rig::from_environment;

/// Firmware, boot loader and the generic kernel take 15 s alone under emulation; on a busy machine ten times that.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(100);

/// What it starts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

/// A disk of it.
pub enum Disk<'a> {
    Sata(&'a Path),
    Usb(&'a Path),
    /// Behind a controller that no list of ours names beside the table of drivers.
    Raid(&'a Path),
}

/// A machine that runs; killed when dropped.
pub struct Machine {
    child: Child,
    console: PathBuf,
    errors: PathBuf,
    _place: tempfile::TempDir,
}

impl Machine {
    /// With a card that the generic kernel has as a module; `tftp` is what the network offers to start from.
    pub fn start(firmware: Firmware, disks: &[Disk], tftp: Option<&Path>) -> Machine {
        let place = tempfile::tempdir().unwrap();
        let console = place.path().join("console");
        let errors = place.path().join("qemu");
        let accel = from_environment("ESTIVE_ACCEL");
        let cpu = if accel == Path::new("kvm") {
            "host"
        } else {
            "max"
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35", "-accel"])
            .arg(&accel)
            .args(["-cpu", cpu, "-m", "512", "-device", "qemu-xhci"])
            .args("-display none -nodefaults -no-user-config -no-reboot".split(' '))
            .args(["-serial", &format!("file:{}", console.display())]);
        if firmware == Firmware::Uefi {
            for (unit, file) in [(0, "OVMF_CODE_4M.fd"), (1, "OVMF_VARS_4M.fd")] {
                qemu.args([
                    "-drive",
                    &format!(
                        "if=pflash,format=raw,unit={unit},snapshot=on,file=/usr/share/OVMF/{file}"
                    ),
                ]);
            }
        }
        let mut net = "user,id=n0".to_owned();
        if let Some(directory) = tftp {
            net += &format!(",tftp={},bootfile=boot.ipxe", directory.display());
        }
        let order = if tftp.is_some() { ",bootindex=1" } else { "" };
        qemu.args([
            "-netdev",
            &net,
            "-device",
            &format!("e1000,netdev=n0{order}"),
        ]);
        for (number, disk) in disks.iter().enumerate() {
            let (driver, path) = match disk {
                Disk::Sata(path) => ("ide-hd", path),
                Disk::Usb(path) => ("usb-storage", path),
                Disk::Raid(path) => {
                    qemu.args(["-device", "megasas,id=raid"]);
                    ("scsi-hd,bus=raid.0", path)
                }
            };
            let path = path.display();
            qemu.args([
                "-drive",
                &format!("if=none,id=d{number},format=raw,snapshot=on,file={path}"),
                "-device",
                &format!("{driver},drive=d{number},bootindex={}", number + 2),
            ]);
        }
        let child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .expect("qemu-system-x86_64 is needed");
        Machine {
            child,
            console,
            errors,
            _place: place,
        }
    }

    /// Waits until it powers itself off; gives the facts that its init said.
    pub fn facts(mut self) -> BTreeMap<String, String> {
        for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
            if self.child.try_wait().unwrap().is_some() {
                let said = self.said();
                assert!(
                    said.contains("fact end"),
                    "it ended without its facts\n{said}"
                );
                return facts(&said);
            }
            // PID 1 stops when it cannot go on.
            assert!(
                !self.said().contains("estive-init: error:"),
                "{}",
                self.said()
            );
            std::thread::sleep(POLL);
        }
        panic!("it did not power off in {PATIENCE:?}\n{}", self.said());
    }

    fn said(&self) -> String {
        let text = |path: &Path| {
            String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "")
        };
        format!("{}{}", text(&self.console), text(&self.errors))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn facts(said: &str) -> BTreeMap<String, String> {
    said.lines()
        .filter_map(|line| line.split_once("fact ")?.1.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

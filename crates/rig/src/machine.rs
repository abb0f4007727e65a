//! A machine that boots one line of `root=`, with the static PID 1 and what the line needs: what a test gives it, and
//! what came of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use estive_boot::initramfs;
use estive_boot::programs::Programs;
use estive_boot::{BootReport, KernelTree, Root, command_line};

use crate::{from_environment, kernel};

/// A tiny guest takes two seconds alone; with others on a busy machine ten times that.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// A disk of the machine.
pub struct Disk {
    pub image: PathBuf,
    /// Arguments of its `-device` before `drive=`, such as `virtio-blk-pci,serial=one`.
    pub device: String,
    pub read_only: bool,
}

/// What one machine is made of.
pub struct Machine {
    pub directory: tempfile::TempDir,
    pub kernel: KernelTree,
    pub disks: Vec<Disk>,
    /// Words of its command line; `root=` decides its initramfs.
    pub words: Vec<String>,
    /// Files of fw_cfg: name and content.
    pub fw_cfg: Vec<(String, String)>,
    /// Arguments of QEMU besides.
    pub arguments: Vec<String>,
    /// Whether it has a network: QEMU's own, where the outside is 10.0.2.2.
    pub network: bool,
    pub memory_mib: u32,
    /// In the initramfs besides.
    pub programs: Programs,
    /// Whether its console can be typed to: see [`Guest::tell`].
    pub is_typed_to: bool,
}

impl Machine {
    /// With this line, and `init=/bin/probe`.
    pub fn new(root: &str) -> Machine {
        Machine {
            directory: tempfile::tempdir().unwrap(),
            kernel: kernel().clone(),
            disks: Vec::new(),
            words: vec![format!("root={root}"), "init=/bin/probe".into()],
            fw_cfg: Vec::new(),
            arguments: Vec::new(),
            network: false,
            memory_mib: 256,
            programs: Programs::default(),
            is_typed_to: false,
        }
    }

    pub fn word(mut self, word: &str) -> Machine {
        self.words.push(word.to_owned());
        self
    }

    /// A path for something that goes with the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A writable disk of this image.
    pub fn disk(mut self, image: &Path, device: &str) -> Machine {
        self.disks.push(Disk {
            image: image.to_owned(),
            device: device.to_owned(),
            read_only: false,
        });
        self
    }

    pub fn argument(mut self, argument: &str) -> Machine {
        self.arguments
            .extend(argument.split(' ').map(str::to_owned));
        self
    }

    pub fn boot(self) -> Guest {
        let line = command_line(None, self.words.iter().map(String::as_str)).unwrap();
        let root = estive_boot::word_of(&line, "root").map(Root::parse);
        let init = fs::read(from_environment("ESTIVE_INIT")).unwrap();
        let initramfs = match &root {
            Some(Ok(root)) => {
                let programs = self.programs.members();
                initramfs::build_for(&init, &self.kernel, &root.needs(), programs).unwrap()
            }
            // One that is wrong is for PID 1 to refuse.
            Some(Err(_)) | None => initramfs::build(&init, &self.kernel).unwrap(),
        };
        fs::write(self.path("initramfs"), initramfs).unwrap();

        let mut qemu = Command::new("qemu-system-x86_64");
        let memory = self.memory_mib;
        qemu.args("-machine pc-q35-7.2,memory-backend=ram -accel tcg -cpu max".split(' '))
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=ram,size={memory}M,share=on"
            ))
            .arg("-m")
            .arg(format!("{memory}M"))
            .args("-display none -nodefaults -no-user-config -no-reboot".split(' '))
            .arg("-kernel")
            .arg(&self.kernel.vmlinuz)
            .arg("-initrd")
            .arg(self.path("initramfs"))
            .args(["-append", &line]);
        for name in ["console", "report"] {
            let path = self.path(name);
            let path = path.display();
            qemu.arg("-chardev").arg(match name {
                "console" if self.is_typed_to => {
                    let socket = format!("path={path}.socket,server=on,wait=off");
                    format!("socket,id={name},{socket},logfile={path}")
                }
                _ => format!("file,id={name},path={path}"),
            });
        }
        qemu.args("-serial chardev:console -device virtio-rng-pci".split(' '))
            .args("-device virtio-serial-pci".split(' '))
            .args("-device virtserialport,chardev=report,name=org.estive.report".split(' '));
        if self.network {
            qemu.args("-netdev user,id=n0 -device virtio-net-pci,romfile=,netdev=n0".split(' '));
        }
        for (index, (name, content)) in self.fw_cfg.iter().enumerate() {
            let file = self.path(&format!("fw_cfg-{index}"));
            fs::write(&file, content).unwrap();
            qemu.arg("-fw_cfg")
                .arg(format!("name={name},file={}", file.display()));
        }
        qemu.args(&self.arguments);
        for (index, disk) in self.disks.iter().enumerate() {
            let Disk {
                image,
                device,
                read_only,
            } = disk;
            let read_only = if *read_only { "on" } else { "off" };
            qemu.arg("-blockdev").arg(format!(
                "driver=raw,node-name=d{index},read-only={read_only},file.driver=file,file.filename={}",
                image.display()
            ));
            qemu.arg("-device").arg(format!("{device},drive=d{index}"));
        }
        let log = File::create(self.path("qemu")).unwrap();
        let child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Guest {
            child: child.expect("qemu-system-x86_64 is needed"),
            directory: self.directory,
            heard: 0,
            typist: None,
        }
    }
}

/// A machine that runs; killed when dropped.
pub struct Guest {
    child: Child,
    directory: tempfile::TempDir,
    /// How much of the console was listened to.
    heard: usize,
    typist: Option<UnixStream>,
}

impl Guest {
    /// A file of its directory: `console`, `report`, `qemu`, or what a test put there.
    pub fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Writes to a socket of its directory, which QEMU listens on.
    pub fn write(&self, socket: &str, text: &str) {
        let mut socket = UnixStream::connect(self.directory.path().join(socket)).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        // The guest reads what it was sent even when the host has gone.
    }

    pub fn report(&self) -> BootReport {
        BootReport::parse(self.text("report").as_bytes())
    }

    /// What the probe found; waits for its last fact, and for the machine to be off.
    pub fn facts(mut self) -> Facts {
        self.wait_until("the facts", |guest| {
            guest.text("console").contains("fact end")
        });
        self.wait_for_end();
        let found = self
            .text("console")
            .lines()
            .filter_map(|line| line.strip_prefix("fact ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Facts {
            found,
            story: self.story(),
        }
    }

    /// Waits until its console says `text`, after what was heard before.
    pub fn hears(&mut self, text: &str) {
        let polls = PATIENCE.as_millis() / POLL.as_millis();
        let wanted = without_doubles(text);
        for _ in 0..polls {
            let console = without_doubles(&self.text("console"));
            let heard = console.get(self.heard..).and_then(|new| new.find(&wanted));
            if let Some(at) = heard {
                self.heard += at + wanted.len();
                return;
            }
            std::thread::sleep(POLL);
        }
        panic!("{text:?} was not said in {PATIENCE:?}\n{}", self.story());
    }

    /// Types a line on its console.
    pub fn tell(&mut self, line: &str) {
        let path = self.directory.path().join("console.socket");
        let typist = self.typist.get_or_insert_with(|| {
            let typist = UnixStream::connect(path).unwrap();
            // What is not read makes the machine wait; it is in the log all the same.
            let mut reader = typist.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            typist
        });
        typist.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What it said until it was off.
    pub fn ending(mut self) -> String {
        self.wait_for_end();
        self.story()
    }

    /// What PID 1 stopped at.
    pub fn failure(mut self) -> String {
        let polls = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..polls {
            if let Some(failure) = self.report().failure {
                return failure.error;
            }
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "the machine ended before a failure\n{}",
                self.story()
            );
            std::thread::sleep(POLL);
        }
        panic!("no failure in {PATIENCE:?}\n{}", self.story());
    }

    /// Waits until the console or the report says so; shows both when they do not.
    pub fn wait_until(&mut self, what: &str, done: impl Fn(&Guest) -> bool) {
        let polls = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..polls {
            if done(self) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(
                    done(self),
                    "the machine ended ({status}) before {what}\n{}",
                    self.story()
                );
                return;
            }
            if self.report().failure.is_some() {
                panic!("PID 1 stopped before {what}\n{}", self.story());
            }
            std::thread::sleep(POLL);
        }
        panic!("no {what} in {PATIENCE:?}\n{}", self.story());
    }

    fn wait_for_end(&mut self) {
        let polls = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..polls {
            if self.child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(POLL);
        }
        panic!(
            "the machine is not off after {PATIENCE:?}\n{}",
            self.story()
        );
    }

    pub fn story(&self) -> String {
        ["qemu", "console", "report"]
            .map(|name| format!("--- {name}\n{}", self.text(name)))
            .join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a probe found.
pub struct Facts {
    found: BTreeMap<String, String>,
    story: String,
}

impl Facts {
    /// That each of these is so; shows what the machine said when one is not.
    pub fn are(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            let found = self.found.get(*name).map(String::as_str);
            assert_eq!(found, Some(*value), "{name}\n{}", self.story);
        }
    }

    /// One of them; fails when it is not among them.
    pub fn of(&self, name: &str) -> &str {
        let found = self.found.get(name);
        found.unwrap_or_else(|| panic!("no fact {name}\n{}", self.story))
    }

    /// All that the machine said.
    pub fn story(&self) -> &str {
        &self.story
    }

    /// That the machine said so, too.
    pub fn said(&self, text: &str) {
        assert!(self.story.contains(text), "{text}\n{}", self.story);
    }

    /// The files `/etc/layer-*` that are seen, in order.
    pub fn layers(&self) -> Vec<&str> {
        let names = self.found.keys();
        names
            .filter_map(|name| name.strip_prefix("/etc/layer-"))
            .collect()
    }
}

/// The text with each run of one character once: on a starved machine the emulated serial line was seen to give a
/// character twice.
fn without_doubles(text: &str) -> String {
    let mut last = None;
    let single = |c: &char| last.replace(*c) != Some(*c);
    text.chars().filter(single).collect()
}

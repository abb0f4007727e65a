//! A machine without manager and agent, which can be given what those do not give: another disk, no kernel.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use estive_archive::LAYER_DISK_BYTES;
use estive_boot::command_line;
use estive_layers::{DeploymentSecret, OwnSets, Render, RenderHere, RenderRequest, herd};

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

    /// Waits until it is off; what it said.
    pub fn ends(mut self) -> String {
        for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
            if self.child.try_wait().unwrap().is_some() {
                return self.console();
            }
            std::thread::sleep(POLL);
        }
        panic!("it is not off after {PATIENCE:?}:\n{}", self.console());
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

/// The one clone of a herd, as an agent would start it, with one disk more.
pub struct Clone<'a> {
    pub name: &'a str,
    pub herd: &'a str,
    pub secret: &'a DeploymentSecret,
    pub image: &'a Path,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// On its command line.
    pub words: &'a [&'a str],
    /// Serial and image of a disk that it may write to.
    pub disk: (&'a str, &'a Path),
}

impl Clone<'_> {
    pub fn start(&self, directory: &Path) -> Machine {
        let name = self.name;
        let herd = herd::parse("herd.yaml", self.herd, "alone").unwrap();
        let layer = directory.join("layer");
        let mut file = File::create(&layer).unwrap();
        let request = RenderRequest::new(&herd, &OwnSets::new(), self.secret).unwrap();
        let rendered = RenderHere.render(&request).unwrap();
        file.write_all(&rendered.layer_of(name).unwrap().bytes)
            .unwrap();
        file.set_len(LAYER_DISK_BYTES).unwrap();
        let identity = directory.join("identity");
        let mac = &herd.clones[0].mac;
        let text = serde_json::json!({
            "version": 1, "name": name, "hostname": name, "mac": mac, "address": "10.77.0.101/24",
            "gateway": null, "seed": "5a".repeat(64),
        });
        fs::write(&identity, text.to_string()).unwrap();
        let report = directory.join("report");
        let mut arguments: Vec<String> = [
            "-chardev",
            &format!("file,id=report,path={}", report.display()),
            "-device",
            "virtserialport,chardev=report,name=org.estive.report",
            "-kernel",
            &self.kernel.display().to_string(),
            "-initrd",
            &self.initramfs.display().to_string(),
            "-append",
            &command_line(None, self.words.iter().copied()).unwrap(),
            "-fw_cfg",
            &format!("name=opt/org.estive/identity,file={}", identity.display()),
        ]
        .map(str::to_owned)
        .to_vec();
        let disks = [
            ("estive-layer", layer.as_path(), "on"),
            ("estive-root", self.image, "on"),
            (self.disk.0, self.disk.1, "off"),
        ];
        for (serial, path, read_only) in disks {
            let path = path.display();
            arguments.extend([
                "-blockdev".to_owned(),
                format!("driver=raw,node-name={serial},read-only={read_only},file.driver=file,file.filename={path}"),
                "-device".to_owned(),
                format!("virtio-blk-pci,drive={serial},serial={serial}"),
            ]);
        }
        Machine::start(name, directory, 512, &arguments)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

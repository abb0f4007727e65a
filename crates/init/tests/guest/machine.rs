//! A real machine for `estive-init`: what a test gives it, and what came of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use estive_archive::{LAYER_DISK_BYTES, LayerArchive};
use estive_boot::{BootReport, command_line, initramfs};

use estive_rig::{compiled, from_environment, kernel, run};

/// A tiny guest takes two seconds alone; with others on a busy machine ten times that.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

pub const IDENTITY: &str = r#"{"version":1,"name":"clone01","hostname":"clone01","mac":"52:54:00:00:00:02","address":"10.0.2.15/24","gateway":"10.0.2.2","seed":"SEED"}"#;

pub fn identity() -> String {
    IDENTITY.replace("SEED", &"5a".repeat(64))
}

/// The static program that is the init of a root made by hand.
pub fn witness() -> &'static Path {
    static WITNESS: OnceLock<PathBuf> = OnceLock::new();
    WITNESS.get_or_init(|| {
        let source = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/guest/witness.rs"
        ));
        compiled(source, Path::new(env!("CARGO_TARGET_TMPDIR")))
    })
}

/// What one machine is made of. Every part can be spoilt.
pub struct Machine {
    pub directory: tempfile::TempDir,
    pub layer: Vec<u8>,
    pub root: PathBuf,
    pub modules: PathBuf,
    pub fw_cfg: Option<String>,
    pub words: Vec<String>,
    pub init: Option<String>,
}

impl Machine {
    /// With this tree as the root, its modules disk, an empty layer and an identity.
    pub fn new(root: &Path) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let modules = path("modules-tree");
        fs::create_dir_all(modules.join(&kernel().release)).unwrap();
        fs::write(
            modules.join(&kernel().release).join("modules.dep"),
            "a.ko:\n",
        )
        .unwrap();
        for (image, tree) in [("root", root), ("modules", &modules)] {
            run(Command::new("mkfs.erofs")
                .arg("-T0")
                .arg(path(image))
                .arg(tree));
        }
        Machine {
            layer: LayerArchive::new().finish().unwrap(),
            root: path("root"),
            modules: path("modules"),
            fw_cfg: Some(identity()),
            words: Vec::new(),
            init: Some("/bin/first".into()),
            directory,
        }
    }

    pub fn boot(self) -> Guest {
        let path = |name: &str| self.directory.path().join(name);
        let init = fs::read(from_environment("ESTIVE_INIT")).unwrap();
        fs::write(
            path("initramfs"),
            initramfs::build(&init, kernel()).unwrap(),
        )
        .unwrap();
        let layer = File::create(path("layer")).unwrap();
        (&layer).write_all(&self.layer).unwrap();
        layer.set_len(LAYER_DISK_BYTES).unwrap();
        let words = self.words.iter().map(String::as_str);
        let line = command_line(self.init.as_deref(), words).unwrap();

        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args("-machine pc-q35-7.2,memory-backend=ram -accel tcg -cpu max".split(' '))
            .args("-object memory-backend-ram,id=ram,size=256M -m 256M".split(' '))
            .args("-display none -nodefaults -no-user-config -no-reboot".split(' '))
            .arg("-kernel")
            .arg(&kernel().vmlinuz)
            .arg("-initrd")
            .arg(path("initramfs"))
            .args(["-append", &line]);
        let mut chardev = |kind: &str, name: &str, options: &str| {
            let path = path(name);
            let path = path.display();
            qemu.args([
                "-chardev",
                &format!("{kind},id={name},path={path}{options}"),
            ]);
        };
        chardev("file", "console", "");
        chardev("file", "report", "");
        chardev("socket", "identity", ",server=on,wait=off");
        qemu.args("-serial chardev:console -netdev user,id=n0,restrict=on".split(' '))
            .args("-device virtio-net-pci,romfile=,netdev=n0,mac=52:54:00:00:00:01".split(' '))
            .args("-device virtio-rng-pci -device virtio-serial-pci".split(' '))
            .args("-device virtserialport,chardev=report,name=org.estive.report".split(' '))
            .args("-device virtserialport,chardev=identity,name=org.estive.identity".split(' '));
        if let Some(identity) = &self.fw_cfg {
            fs::write(path("fw_cfg"), identity).unwrap();
            let file = path("fw_cfg");
            let file = file.display();
            qemu.args([
                "-fw_cfg",
                &format!("name=opt/org.estive/identity,file={file}"),
            ]);
        }
        for (name, file) in [
            ("layer", &path("layer")),
            ("root", &self.root),
            ("modules", &self.modules),
        ] {
            let file = file.display();
            qemu.args([
                "-blockdev",
                &format!(
                    "driver=raw,node-name={name},read-only=on,file.driver=file,file.filename={file}"
                ),
            ]);
            qemu.args([
                "-device",
                &format!("virtio-blk-pci,drive={name},serial=estive-{name}"),
            ]);
        }
        let log = File::create(path("qemu")).unwrap();
        let child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Guest {
            child: child.expect("qemu-system-x86_64 is needed"),
            directory: self.directory,
        }
    }
}

/// A machine that runs; killed when dropped.
pub struct Guest {
    child: Child,
    directory: tempfile::TempDir,
}

impl Guest {
    pub fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    pub fn report(&self) -> BootReport {
        BootReport::parse(self.text("report").as_bytes())
    }

    /// Gives the identity on its port.
    pub fn tell(&self, line: &str) {
        let mut port = UnixStream::connect(self.directory.path().join("identity")).unwrap();
        port.write_all(line.as_bytes()).unwrap();
        port.write_all(b"\n").unwrap();
        // The guest reads what it was sent even when the host has gone.
    }

    /// Waits until the report or the console says so; shows both when they do not.
    pub fn wait_until(&mut self, what: &str, done: impl Fn(&Guest) -> bool) {
        let polls = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..polls {
            if done(self) {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            if let Some(status) = ended {
                if done(self) {
                    return;
                }
                panic!(
                    "the machine ended ({status}) before {what}\n{}",
                    self.story()
                );
            }
            if self.report().failure.is_some() {
                panic!("PID 1 stopped before {what}\n{}", self.story());
            }
            std::thread::sleep(POLL);
        }
        panic!("no {what} in {PATIENCE:?}\n{}", self.story());
    }

    fn story(&self) -> String {
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

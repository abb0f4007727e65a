//! Cache and origin as the processes they are: killed under a client that reads, and no read is lost.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ESTIVE: &str = env!("CARGO_BIN_EXE_estive");
const MIB: u64 = 1 << 20;
const ROOT_MIB: u64 = 48;
/// Ten times what a loaded machine needs, and more.
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    home: tempfile::TempDir,
    port: u16,
    root: String,
}

/// A daemon that ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// SIGKILL.
    fn kill(self) {
        drop(self);
    }
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let mut place = Self {
            home,
            port,
            root: String::new(),
        };
        for (role, name) in [("storage", "st"), ("agent", "h1")] {
            let words = ["authority", "issue", "--authority", "ca", "--role", role];
            place.estive(
                &[
                    &words[..],
                    &["--name", name, "--address", "127.0.0.1", "--out", name],
                ]
                .concat(),
            );
        }
        let tree = place.path("tree");
        fs::create_dir(&tree).unwrap();
        let file = File::create(tree.join("data")).unwrap();
        let mut block = vec![0; MIB as usize];
        for at in 0..ROOT_MIB {
            for (index, byte) in block.iter_mut().enumerate() {
                *byte = (index as u64 ^ (at * 0x9e37_79b9)).wrapping_mul(31) as u8;
            }
            file.write_all_at(&block, at * MIB).unwrap();
        }
        let sealed = place.estive(&[
            "--output",
            "json",
            "seal",
            "tree",
            "--out",
            "roots",
            "--authority",
            "ca",
        ]);
        let sealed: serde_json::Value = serde_json::from_str(&sealed).unwrap();
        place.root = sealed["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
        let note = serde_json::json!({"origins": [format!("https://127.0.0.1:{port}")]});
        fs::create_dir_all(place.path("cache/roots")).unwrap();
        let name = format!("cache/roots/{}.json", place.root);
        fs::write(place.path(&name), note.to_string()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(ESTIVE);
        command.current_dir(self.home.path()).env_remove("RUST_LOG");
        command
    }

    fn estive(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn daemon(&self, arguments: &[&str]) -> Daemon {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Daemon(command.spawn().unwrap())
    }

    fn origin(&self) -> Daemon {
        let listen = format!("127.0.0.1:{}", self.port);
        let daemon = self.daemon(&[
            "storage",
            "--directory",
            "roots",
            "--listen",
            &listen,
            "--credentials",
            "st",
        ]);
        wait("the origin", || {
            std::net::TcpStream::connect(&listen).is_ok()
        });
        daemon
    }

    fn cache(&self) -> Daemon {
        let words = [
            "cache",
            "--directory",
            "cache",
            "--credentials",
            "h1",
            "--memory",
            "0",
        ];
        let daemon = self.daemon(&words);
        let socket = self.path("cache/cache.sock");
        wait("the cache", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        daemon
    }

    fn image(&self) -> Vec<u8> {
        fs::read(self.path(&format!("roots/{}.erofs", self.root))).unwrap()
    }

    /// qemu-io as QEMU reads: it reconnects. It reads the root's first `mib` MiB, one by one, and says which it has.
    fn reader(&self, mib: u64) -> Reader {
        let image = self.image();
        let block = format!(
            "driver=nbd,server.type=unix,server.path={},export={},reconnect-delay=60",
            self.path("cache/cache.sock").display(),
            self.root
        );
        let mut command = Command::new("qemu-io");
        command.args(["-r", "--image-opts", &block]);
        for at in 0..mib {
            // Each with the pattern of one byte that is really there: qemu-io compares.
            let (offset, byte) = (at * MIB + 4096, image[(at * MIB + 4096) as usize]);
            command.args(["-c", &format!("read -P {byte} {offset} 1")]);
            command.args(["-c", "sleep 40"]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Reader { child }
    }
}

struct Reader {
    child: Child,
}

impl Reader {
    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many reads were good; none may have failed.
    fn end(mut self) -> u64 {
        let mut said = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(
            status.success() && !said.contains("failed"),
            "{status}: {said}"
        );
        said.matches("read 1/1 bytes").count() as u64
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let tries = PATIENCE.as_millis() / 10;
    assert!(
        (0..tries).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            holds()
        }),
        "{what} does not come about"
    );
}

fn chunks_kept(place: &Path) -> usize {
    let parts = fs::read_dir(place).into_iter().flatten().flatten();
    parts
        .flat_map(|part| fs::read_dir(part.path()).into_iter().flatten().flatten())
        .filter(|file| file.file_name().len() == 64)
        .count()
}

#[test]
fn no_read_is_lost_when_cache_and_origin_are_killed_and_started_again() {
    let place = Place::new();
    let mut origin = Some(place.origin());
    let mut cache = Some(place.cache());
    let mut reader = place.reader(ROOT_MIB);
    let kept = || chunks_kept(&place.path("cache/chunks"));
    for (kills, enough) in [4, 10, 16, 22, 28].into_iter().enumerate() {
        wait("reading", || kept() >= enough);
        assert!(reader.runs(), "it was over too soon");
        if kills % 2 == 0 {
            cache.take().unwrap().kill();
        }
        if kills != 2 {
            origin.take().unwrap().kill();
        }
        origin.get_or_insert_with(|| place.origin());
        cache.get_or_insert_with(|| place.cache());
    }
    assert_eq!(reader.end(), ROOT_MIB);
}

#[test]
fn a_second_process_reads_the_same_and_says_what_is_wrong_with_what_it_is_told() {
    let place = Place::new();
    let refused = |arguments: &[&str]| {
        let output = place.command().args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unsigned = place.estive(&["--output", "json", "seal", "tree", "--out", "unsigned"]);
    assert!(unsigned.contains(&place.root), "same tree, same name");
    let storage = ["storage", "--listen", "127.0.0.1:0"];
    let said = refused(
        &[
            &storage[..],
            &["--credentials", "st", "--directory", "unsigned"],
        ]
        .concat(),
    );
    assert!(
        said.contains("has not signed") && said.contains("estive authority sign"),
        "{said}"
    );
    let said = refused(&[&storage[..], &["--directory", "roots"]].concat());
    assert!(said.contains("--credentials"), "{said}");
    let said = refused(&[
        "cache",
        "--directory",
        "c",
        "--credentials",
        "h1",
        "--limit",
        "1M",
    ]);
    assert!(said.contains("at least"), "{said}");
    let said = refused(&[
        "authority",
        "sign",
        "--authority",
        "none",
        "unsigned/x.manifest",
    ]);
    assert!(said.contains("none"), "{said}");
    let manifest = format!("unsigned/{}.manifest", place.root);
    place.estive(&["authority", "sign", "--authority", "ca", &manifest]);
    let (ours, signed) = (place.path("roots"), place.path("unsigned"));
    for directory in [ours, signed] {
        let name = directory.join(format!("{}.manifest", place.root));
        // 18 bytes before the digests, 32 for each chunk, 2 for the length: a signature follows.
        let size = fs::metadata(name).unwrap().len();
        assert!(size > 20 + 32 * ROOT_MIB + 60, "{size}");
    }
}

/// The door that gives roots out is always open where they lie; it is nobody who needs one.
#[test]
fn a_root_is_removed_beside_the_origin_that_gives_it_out() {
    let place = Place::new();
    let _origin = place.origin();
    let cache = place.cache();
    assert_eq!(place.reader(1).end(), 1);
    drop(cache);
    let rm = |more: &[&str]| {
        let words = ["references", "rm", &place.root, "--dir", "roots"];
        let output = place.command().args([&words[..], more].concat()).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    // Only the manager is missing.
    let (code, said) = rm(&[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(!said.contains("process"), "{said}");
    let (code, said) = rm(&["--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("cannot be asked"), "{said}");
    assert_eq!(fs::read_dir(place.path("roots")).unwrap().count(), 0);
}

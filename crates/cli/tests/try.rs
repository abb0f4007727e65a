//! `estive try` on a real guest: it comes up on the console, answers through the forwarded port, and whichever way it
//! ends, nothing of it is left.
//!
//! `./x test` sets `ESTIVE_KERNEL_TREE`, `ESTIVE_INIT`, `ESTIVE_GUEST_PROGRAMS` and `ESTIVE_ACCEL`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use estive_rig::from_environment;
use rustix::process::{Pid, Signal, kill_process};

/// A tiny guest takes three seconds alone; with others on a busy machine ten times that, and some.
const LIMIT: Duration = Duration::from_secs(120);

/// A herd of one, a root that holds one program, and a place for whatever the command makes.
struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for directory in ["herd", "root/sbin", "state", "tmp", "nowhere"] {
            fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        let herd = "name: tried\nmemory_mib: 192\nhosts: {clone01: {gateway: 10.77.0.1}}\n";
        fs::write(home.path().join("herd/herd.yaml"), herd).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, clone: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estive"));
        command
            .args(["try", clone, "--herd"])
            .arg(self.path("herd"))
            .arg("--state")
            .arg(self.path("state"))
            .env("TMPDIR", self.path("tmp"))
            .env("ESTIVE_CACHE", self.path("nowhere"))
            .env_remove("ESTIVE_INIT");
        command
    }

    /// The command on a guest that is to boot.
    fn booting(&self) -> Command {
        let beat = from_environment("ESTIVE_GUEST_PROGRAMS").join("estive-beat");
        fs::copy(beat, self.path("root/sbin/init")).unwrap();
        let mut command = self.command("clone01");
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--kernel")
            .arg(from_environment("ESTIVE_KERNEL_TREE"))
            .arg("--init")
            .arg(from_environment("ESTIVE_INIT"))
            .arg("--accel")
            .arg(from_environment("ESTIVE_ACCEL"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }

    /// Holds when it is over: no file, and no process that was started for it.
    fn is_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let ours = self.path("tmp").display().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            assert!(!line.contains(&ours), "{line}");
        }
    }
}

/// A command that shows a console.
struct Shown {
    child: Child,
    parts: Receiver<Vec<u8>>,
    said: String,
}

impl Shown {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (sender, parts) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            parts,
            said: String::new(),
        }
    }

    fn until(&mut self, words: &str) {
        while !self.said.contains(words) {
            match self.parts.recv_timeout(LIMIT) {
                Ok(part) => self.said.push_str(&String::from_utf8_lossy(&part)),
                Err(RecvTimeoutError::Timeout) => panic!("no {words:?}; it said:\n{}", self.said),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without {words:?}; it said:\n{}", self.said)
                }
            }
        }
    }

    fn ends_well(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}; it said:\n{}", self.said);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // A test that failed half way: told to end, it removes all that it has.
        if let Ok(None) = self.child.try_wait() {
            let pid = Pid::from_child(&self.child);
            let _ = kill_process(pid, Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// What the guest's server says; QEMU takes the connection before the guest has one to give it to.
fn page(port: u16) -> String {
    let mut answer = String::new();
    for _ in 0..60 {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
            panic!("nothing listens on {port}");
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        answer.clear();
        if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("no answer")
}

#[test]
fn a_clone_comes_up_on_the_console_and_answers_and_goes_without_a_trace() {
    let bench = Bench::new();
    let port = free_port();
    let mut command = bench.booting();
    command.arg("--forward").arg(format!("{port}:80"));
    let mut shown = Shown::start(command);
    shown.until("estive-beat: clone01 is up");
    assert!(page(port).ends_with("hello from clone01\n"));
    // Ctrl-]
    let mut keys = shown.child.stdin.take().unwrap();
    keys.write_all(b"\x1d").unwrap();
    shown.ends_well();
    bench.is_clean();
    // The deployment's secret is kept, so that the next try is the same clone.
    assert!(bench.path("state/secrets").is_dir());
}

#[test]
fn a_clone_with_a_root_of_its_own_has_the_initramfs_for_it() {
    let bench = Bench::new();
    let herd = "name: tried\nmemory_mib: 192\nroot: erofs:serial=estive-root;estive;tmpfs:size=30%\nhosts: {clone01: {gateway: 10.77.0.1}}\n";
    fs::write(bench.path("herd/herd.yaml"), herd).unwrap();
    let mut shown = Shown::start(bench.booting());
    shown.until("tmpfs:size=30%");
    shown.until("estive-beat: clone01 is up");
    let mut keys = shown.child.stdin.take().unwrap();
    keys.write_all(b"\x1d").unwrap();
    shown.ends_well();
    bench.is_clean();
}

#[test]
fn a_signal_takes_everything_away() {
    let bench = Bench::new();
    let mut shown = Shown::start(bench.booting());
    shown.until("phase");
    kill_process(Pid::from_child(&shown.child), Signal::INT).unwrap();
    shown.ends_well();
    bench.is_clean();
}

#[test]
fn what_cannot_be_tried_says_why_and_leaves_nothing() {
    let bench = Bench::new();
    let fails = |mut command: Command, code: i32, words: &[&str]| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        bench.is_clean();
    };
    fails(
        bench.command("clone02"),
        2,
        &["no clone clone02", "clone01"],
    );
    fails(bench.command("clone01"), 1, &["--root", "./x setup"]);
    let mut command = bench.command("clone01");
    command.arg("--root").arg(bench.path("root"));
    command.arg("--init").arg(bench.path("herd/herd.yaml"));
    fails(command, 1, &["no kernel", "--kernel"]);
    let mut command = bench.command("clone01");
    command.arg("--forward").arg("80");
    fails(command, 2, &["8080:80"]);
    let herd = "hosts: {clone01: {root: /dev/vda;tmpsf}}\n";
    fs::write(bench.path("herd/herd.yaml"), herd).unwrap();
    let caret = "herd.yaml:1:25: root: no loader";
    let below = "\n  /dev/vda;tmpsf\n           ^";
    fails(bench.command("clone01"), 2, &[caret, below]);
    fs::remove_file(bench.path("herd/herd.yaml")).unwrap();
    fails(bench.command("clone01"), 2, &["herd.yaml", "--herd"]);
}

//! A clone as its tests have it: root, layer and memory, each on a file system of its own, joined
//! by overlayfs as PID 1 joins them; and the program that lays a new layer over it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use estive_boot::PushReport;
use estive_union::Rights;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

pub const UNIONS: &str = ".unions";
/// In the environment of every push: the service that it belongs to, named by its clone's directory.
const SERVICE: &str = "ESTIVE_TEST_SERVICE";

/// Runs `work` in a thread with mounts of its own, which its programs share.
pub fn in_own_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let flags = rustix::thread::UnshareFlags::NEWNS;
        // SAFETY: only this thread gets other mounts, and it ends with the test; no descriptor is
        // shared on the strength of them.
        unsafe { rustix::thread::unshare_unsafe(flags) }.expect("mounting needs root");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mount_at(target: &Path, kind: &str, options: &str) {
    fs::create_dir_all(target).unwrap();
    let options = CString::new(options).unwrap();
    mount(kind, target, kind, MountFlags::empty(), options.as_c_str())
        .unwrap_or_else(|errno| panic!("{kind} at {}: {errno}", target.display()));
}

/// How a push ended.
#[derive(Debug)]
pub enum End {
    Done(PushReport),
    Refused(String),
    Killed,
}

impl End {
    pub fn report(self) -> PushReport {
        match self {
            End::Done(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub fn error(self) -> String {
        match self {
            End::Refused(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

pub struct Clone {
    directory: tempfile::TempDir,
}

impl Clone {
    /// Starts with this layer over a root that `fill` makes. `None` for what PID 1 refuses: files in
    /// what is no directory in the root.
    pub fn start(fill: impl FnOnce(&Path), layer: &[u8]) -> Option<Clone> {
        let clone = Clone {
            directory: tempfile::tempdir().unwrap(),
        };
        for part in ["root", "layer", "memory"] {
            mount_at(&clone.part(part), "tmpfs", "mode=0755");
        }
        fill(&clone.root());
        let open = |part: &str| OwnedFd::from(File::open(clone.part(part)).unwrap());
        let (root, tree) = (open("root"), open("layer"));
        let unpacked = estive_union::unpack(layer, &tree, Rights::Root).unwrap();
        estive_union::settle(&unpacked, &tree, &root).ok()?;
        for part in ["memory/upper", "memory/work"] {
            fs::create_dir(clone.part(part)).unwrap();
        }
        let part = |part: &str| clone.part(part).display().to_string();
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            part("layer"),
            part("root"),
            part("memory/upper"),
            part("memory/work")
        );
        mount_at(&clone.part("merged"), "overlay", &options);
        fs::create_dir_all(clone.at(UNIONS)).unwrap();
        Some(clone)
    }

    fn part(&self, part: &str) -> PathBuf {
        self.directory.path().join(part)
    }

    pub fn root(&self) -> PathBuf {
        self.part("root")
    }

    /// Simulates systemd, for this test's mounts: to restart `qemu-guest-agent` ends all that belongs to the push's
    /// service, as systemd ends a cgroup; what `systemd-run` starts belongs to none. Gives the log of what it was told.
    pub fn simulate_systemd(&self) -> PathBuf {
        mount_at(Path::new("/run"), "tmpfs", "");
        mount_at(Path::new("/usr/local/sbin"), "tmpfs", "mode=0755");
        fs::create_dir_all("/run/systemd/system").unwrap();
        let log = self.part("told");
        let script = |name: &str, words: String| {
            let path = Path::new("/usr/local/sbin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{words}")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let mark = format!("^{SERVICE}={}$", self.directory.path().display());
        script(
            "systemctl",
            format!(
                "case \"$2\" in qemu-guest-agent*)\n\
                 for process in /proc/[0-9]*; do\n\
                 grep -qsz '{mark}' $process/environ && [ ${{process#/proc/}} != $$ ] && kill -9 ${{process#/proc/}}\n\
                 done\nesac\necho \"$@\" >> {}\n",
                log.display()
            ),
        );
        script(
            "systemd-run",
            format!("shift 2\nunset {SERVICE}\nsetsid \"$@\" > /dev/null 2>&1 &\n"),
        );
        log
    }

    /// A path as the clone sees it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.part("merged").join(path)
    }

    pub fn inode(&self, path: &str) -> u64 {
        self.at(path).symlink_metadata().unwrap().ino()
    }

    /// Mounts something empty over a directory.
    pub fn cover(&self, path: &str) {
        mount_at(&self.at(path), "tmpfs", "");
    }

    /// Mounts something over a file.
    pub fn cover_file(&self, path: &str) {
        let cover = self.part("cover");
        fs::write(&cover, "covered").unwrap();
        rustix::mount::mount_bind(cover, self.at(path)).unwrap();
    }

    /// Gives the clone's memory another size.
    pub fn limit_memory(&self, bytes: u64) {
        let options = CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount_remount(self.part("memory"), MountFlags::empty(), options).unwrap();
    }

    pub fn push(&self, layer: &[u8]) -> End {
        self.run(layer, &[], None)
    }

    pub fn dry_run(&self, layer: &[u8]) -> End {
        self.run(layer, &["--dry-run"], None)
    }

    /// A push that is killed before its step of this number, if it comes so far.
    pub fn push_until(&self, step: u64, layer: &[u8]) -> End {
        self.run(layer, &[], Some(step))
    }

    /// A push that is halted before its step of this number, if it comes so far, and goes on when `meanwhile` is done.
    pub fn push_halted_at(&self, step: u64, layer: &[u8], meanwhile: impl FnOnce()) -> End {
        let (child, feeding) = self.begin(layer, &[], Some(("stop", step)));
        let pid = Pid::from_child(&child);
        let halted = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(pid), halted).unwrap().unwrap();
        if status.stopped() {
            meanwhile();
            kill_process(pid, Signal::CONT).unwrap();
        }
        feeding.join().unwrap();
        end(child.wait_with_output().unwrap())
    }

    fn run(&self, layer: &[u8], words: &[&str], step: Option<u64>) -> End {
        let (child, feeding) = self.begin(layer, words, step.map(|step| ("before", step)));
        feeding.join().unwrap();
        end(child.wait_with_output().unwrap())
    }

    /// Starts a push, and feeds it.
    fn begin(
        &self,
        layer: &[u8],
        words: &[&str],
        fault: Option<(&str, u64)>,
    ) -> (Child, JoinHandle<()>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estive-init"));
        command.arg("apply").args(words);
        for tree in ["merged", "layer", "root"] {
            command.arg(format!("--{tree}")).arg(self.part(tree));
        }
        command.env(SERVICE, self.directory.path());
        match fault {
            Some((word, step)) => command.env("ESTIVE_FAULT", format!("push.step:{word}:{step}")),
            None => command.env_remove("ESTIVE_FAULT"),
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, layer) = (child.stdin.take().unwrap(), layer.to_vec());
        // One that refuses the layer need not read it to its end.
        let feeding = std::thread::spawn(move || drop(input.write_all(&layer)));
        (child, feeding)
    }

    /// Every path that the clone sees, but those of the layers themselves.
    pub fn dump(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        dump(&self.part("merged"), "", &mut found);
        found
    }
}

fn end(output: Output) -> End {
    let error = String::from_utf8(output.stderr).unwrap();
    if output.status.success() {
        assert_eq!(error, "");
        return End::Done(PushReport::parse(&output.stdout).unwrap());
    }
    match output.status.signal() {
        Some(9) => End::Killed,
        Some(signal) => panic!("signal {signal}: {error}"),
        None => {
            // One line for a person.
            assert!(
                error.trim().lines().count() == 1 && !error.contains("panicked"),
                "{error}"
            );
            End::Refused(error)
        }
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        for part in ["merged", "memory", "layer", "root"] {
            let _ = unmount(self.part(part), UnmountFlags::DETACH);
        }
    }
}

/// All that counts of each path, in a line.
fn dump(top: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(top.join(below)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = match below {
            "" => name,
            below => format!("{below}/{name}"),
        };
        let whole = top.join(&path);
        // A whiteout that hides nothing has a name in its directory, and is not there.
        let Ok(status) = whole.symlink_metadata() else {
            continue;
        };
        if path == UNIONS {
            continue;
        }
        let kind = status.file_type();
        let what = if kind.is_symlink() {
            format!("symlink {:?}", fs::read_link(&whole).unwrap())
        } else if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_file() {
            format!(
                "file {:?}",
                String::from_utf8(fs::read(&whole).unwrap()).unwrap()
            )
        } else {
            format!("{kind:?} {:x}", status.rdev())
        };
        let (mode, uid, gid) = (status.mode(), status.uid(), status.gid());
        found.insert(
            path.clone(),
            format!("{what} {mode:o} {uid}:{gid} {}", xattrs(&whole)),
        );
        if kind.is_dir() && status.dev() == top.metadata().unwrap().dev() {
            dump(top, &path, found);
        }
    }
}

fn xattrs(path: &Path) -> String {
    let mut list = [0u8; 4096];
    let length = llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut xattrs: Vec<String> = names
        .map(|name| {
            let mut value = [0u8; 4096];
            let length = lgetxattr(path, name, &mut value[..]).unwrap();
            format!("{}={:?}", String::from_utf8_lossy(name), &value[..length])
        })
        .collect();
    xattrs.sort();
    xattrs.join(" ")
}

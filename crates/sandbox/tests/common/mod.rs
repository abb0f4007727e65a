//! A small root made of this machine's own programs, and scripts run in it.
#![allow(dead_code, reason = "each file of tests uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use estive_sandbox::{
    InputNode, Limits, OutputNode, SandboxError, ScriptOutput, ScriptRequest, Worker,
};

/// Of Debian's essential packages, so that every machine of ours has them.
const PROGRAMS: &[&str] = &[
    "/bin/bash",
    "/bin/sh",
    "/bin/cat",
    "/bin/ls",
    "/bin/ln",
    "/bin/mkdir",
    "/bin/mknod",
    "/bin/chmod",
    "/bin/dd",
    "/bin/sleep",
    "/bin/touch",
    "/bin/rm",
    "/bin/readlink",
    "/bin/mount",
    "/usr/bin/id",
    "/usr/bin/mkfifo",
    "/usr/bin/head",
    "/usr/bin/yes",
    "/usr/bin/env",
    "/usr/bin/unshare",
    "/usr/bin/setsid",
    "/usr/bin/stat",
    "/usr/bin/perl",
    "/bin/hostname",
    "/usr/bin/truncate",
];

/// A reference's root, with a file in /etc that scripts may find, and the scripts run in it.
pub struct Bench {
    home: tempfile::TempDir,
    pub worker: Worker,
    pub limits: Limits,
    pub modes_given: BTreeSet<String>,
    /// Unique among all tests that run now: part of every process's command line.
    pub name: String,
}

impl Bench {
    pub fn new(test: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let bench = Self {
            worker: Worker::of(env!("CARGO_BIN_EXE_estive-sandbox")),
            limits: Limits::default(),
            modes_given: BTreeSet::new(),
            name: format!("{test}-{}", std::process::id()),
            home,
        };
        fs::set_permissions(bench.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = bench.root();
        for directory in [
            "etc",
            "proc",
            "dev",
            "tmp",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "usr/sbin",
            "home",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for (link, target) in [
            ("bin", "usr/bin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
            ("sbin", "usr/sbin"),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        for program in PROGRAMS {
            copy_with_libraries(Path::new(program), &root);
        }
        for directory in [
            "/usr/lib/x86_64-linux-gnu/perl-base",
            "/usr/lib/aarch64-linux-gnu/perl-base",
        ] {
            if Path::new(directory).is_dir() {
                let below = root.join(&directory[1..]);
                fs::create_dir_all(below.parent().unwrap()).unwrap();
                let done = Command::new("cp")
                    .arg("-a")
                    .arg(directory)
                    .arg(&below)
                    .status()
                    .unwrap();
                assert!(done.success());
            }
        }
        fs::write(root.join("etc/marker"), "of the reference\n").unwrap();
        bench
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    pub fn request(&self, text: &str) -> ScriptRequest {
        let program = format!(".scripts/{}", self.name);
        let file = |executable, text: &str| InputNode::File {
            executable,
            bytes: text.as_bytes().to_vec(),
        };
        let set = BTreeMap::from([
            (program.clone(), file(true, text)),
            (
                "etc/motd.j2".to_owned(),
                file(false, "hello {{ clone.name }}\n"),
            ),
            (
                "etc/link".to_owned(),
                InputNode::Symlink {
                    target: "motd.j2".to_owned(),
                },
            ),
        ]);
        ScriptRequest {
            script: format!("sets/test/{program} for clone01"),
            root: self.root(),
            program,
            set: Arc::new(set),
            variables: br#"{"clone":{"name":"clone01"}}"#.to_vec(),
            modes_given: Arc::new(self.modes_given.clone()),
            limits: self.limits.clone(),
        }
    }

    /// Runs a script, and holds what must be true after any: no process of it is left.
    pub fn run(&self, text: &str) -> Result<ScriptOutput, SandboxError> {
        let done = self.worker.run_script(&self.request(text));
        assert_eq!(
            processes_named(&self.name),
            Vec::<i32>::new(),
            "left by {text}"
        );
        done
    }

    /// The error of a script that must fail by its own fault.
    pub fn fails(&self, text: &str) -> String {
        match self.run(text) {
            Err(error @ SandboxError::Script { .. }) => {
                let error = error.to_string();
                assert!(error.contains("for clone01: "), "{error}");
                assert!(!error.contains('\n'), "{error}");
                error
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    /// What a script printed that only prints.
    pub fn prints(&self, text: &str) -> String {
        let output = self.run(&format!("{text}\n")).unwrap();
        match output.nodes.get("said") {
            Some(OutputNode::File { bytes, .. }) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{text}: {other:?}"),
        }
    }
}

/// Puts a program in its place, by another process: what has it open to write it here would go to whatever other tests
/// start meanwhile, and what is open to be written cannot be executed.
pub fn install(from: &Path, to: &Path) {
    let done = Command::new("install")
        .args(["-m", "755"])
        .args([from, to])
        .status()
        .unwrap();
    assert!(done.success());
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every process whose command line holds `name`, but for keepers, which never have it.
pub fn processes_named(name: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(name.len()).any(|part| part == name.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Copies a program and what its loader needs, each to the path it has here (without links on the way).
fn copy_with_libraries(program: &Path, root: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    for path in libraries.chain([program.to_owned()]) {
        let place = root.join(path.strip_prefix("/").unwrap());
        if place.exists() {
            continue;
        }
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&path, &place).unwrap();
    }
    assert!(program.as_os_str().as_bytes().starts_with(b"/"));
}

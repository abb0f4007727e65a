//! Beds of real guests for the end-to-end tests.
//!
//! Each test runs inside an outer namespace (see `inside`), where this same binary executes one ignored test. `./x test`
//! says by the environment what guests are made of: `ESTIVE_BIN`, `ESTIVE_KERNEL_TREE`, `ESTIVE_INIT`,
//! `ESTIVE_GUEST_PROGRAMS`, `ESTIVE_REFERENCE`, `ESTIVE_ACCEL`.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../inside/mod.rs"]
mod inside;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use estive_boot::{KernelTree, initramfs};
use estive_model::{Capacity, DomainName};
use estive_testbed::outer::{self, WORK_DIRECTORY};
use estive_testbed::{Bed, BedConfig, BedReference};
use serde_json::Value;

pub use inside::{TOOL, is_root};

/// For one event on a busy machine: ten times what the slowest of them took.
pub const BOUND: Duration = Duration::from_secs(120);

/// What `./x test` says under `name`.
pub fn told(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => value.into(),
        _ => panic!("{name} is not set: this test boots real guests; run it by ./x test"),
    }
}

/// Runs the ignored test `name` of this binary inside an outer namespace.
pub fn on_guests(name: &str) {
    if is_root() {
        // Missing parts are said before anything is made.
        told("ESTIVE_BIN");
        assert_eq!(inside::inside(name), 0, "{name} failed; see above");
    }
}

/// Where everything of a test lies: the private tmpfs of the outer namespace.
pub fn work() -> &'static Path {
    assert!(
        outer::is_inside(),
        "this test runs inside the outer namespace of another one, never alone"
    );
    Path::new(WORK_DIRECTORY)
}

/// A directory for the parts of one reference.
pub fn place(name: &str) -> PathBuf {
    let place = work().join("parts").join(name);
    fs::create_dir_all(&place).unwrap();
    place
}

pub fn boot_parts(tree: &KernelTree, place: &Path) -> PathBuf {
    let init = fs::read(told("ESTIVE_INIT")).unwrap();
    let path = place.join("initramfs");
    fs::write(&path, initramfs::build(&init, tree).unwrap()).unwrap();
    path
}

/// A root that is one static program (`estive-beat`: beats, page, echo), with `change` made to it before it is sealed.
pub fn tiny_reference(name: &str, change: impl FnOnce(&Path)) -> BedReference {
    let place = place(name);
    let root = place.join("tree");
    fs::create_dir_all(root.join("sbin")).unwrap();
    let program = told("ESTIVE_GUEST_PROGRAMS").join("estive-beat");
    fs::copy(program, root.join("sbin/init")).unwrap();
    change(&root);
    // The root's own kernel if it has one, as for any reference.
    let tree = KernelTree::find(&root)
        .or_else(|_| KernelTree::find(&told("ESTIVE_KERNEL_TREE")))
        .unwrap();
    // What the boot needs is in the initial file system; the program needs no more.
    let modules = estive_exports::modules::image(None, &place);
    BedReference {
        initramfs: boot_parts(&tree, &place),
        kernel: tree.vmlinuz.clone(),
        modules: modules.unwrap().path,
        image: estive_exports::seal(&root, &place).unwrap().path,
        sets: Vec::new(),
        early: None,
    }
}

/// The sealed Debian reference, with nginx and sshd.
pub fn debian_reference() -> BedReference {
    let place = place("debian");
    let tree = KernelTree::find(&told("ESTIVE_KERNEL_TREE")).unwrap();
    let modules = tree.modules.parent().unwrap();
    BedReference {
        initramfs: boot_parts(&tree, &place),
        kernel: tree.vmlinuz.clone(),
        modules: estive_exports::modules::image(Some(modules), &place)
            .unwrap()
            .path,
        image: told("ESTIVE_REFERENCE"),
        sets: vec!["base-debian".to_owned(), "web".to_owned()],
        early: None,
    }
}

/// `hosts` hosts of 1024 MiB each; more references can be added before it is started.
pub fn bed_config(hosts: u8, default: BedReference) -> BedConfig {
    let mut config = BedConfig::new(told("ESTIVE_BIN"), TOOL.into(), default);
    config.hosts = hosts;
    config.capacity = Capacity {
        cores: 2,
        memory_mib: 1024,
    };
    if let Ok(accel) = std::env::var("ESTIVE_ACCEL") {
        config.accel = accel;
    }
    config
}

/// A bed whose logs are shown when the test fails.
pub struct ShownBed(Option<Bed>);

impl ShownBed {
    pub async fn start(config: BedConfig) -> Self {
        match Bed::start(config).await {
            Ok(bed) => Self(Some(bed)),
            Err(error) => panic!("{}", estive_testbed::error_chain(&error)),
        }
    }

    pub async fn stop(mut self) {
        if let Some(bed) = self.0.take() {
            bed.stop().await;
        }
    }
}

impl Deref for ShownBed {
    type Target = Bed;
    fn deref(&self) -> &Bed {
        self.0.as_ref().expect("only stop takes it away")
    }
}

impl DerefMut for ShownBed {
    fn deref_mut(&mut self) -> &mut Bed {
        self.0.as_mut().expect("only stop takes it away")
    }
}

impl Drop for ShownBed {
    fn drop(&mut self) {
        if let Some(bed) = &self.0
            && std::thread::panicking()
        {
            eprintln!("{}", bed.logs());
        }
    }
}

/// A herd's folder `name` with this herd.yaml.
pub fn herd(name: &str, yaml: &str) -> String {
    let folder = work().join("herds").join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("herd.yaml"), yaml).unwrap();
    folder.display().to_string()
}

/// A herd.yaml of tiny clones: each `(name, host)`, pinned where a host is named.
pub fn tiny_herd(clones: &[(&str, Option<&str>)]) -> String {
    let mut yaml = String::from(
        "network: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 160\ncpus: 1\nsets: []\nup: [ping]\nhosts:\n",
    );
    for (name, host) in clones {
        match host {
            Some(host) => writeln!(yaml, "  {name}: {{host: {host}}}").unwrap(),
            None => writeln!(yaml, "  {name}:").unwrap(),
        }
    }
    yaml
}

pub fn name(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a command went well; gives what it printed.
pub async fn done(bed: &Bed, arguments: &[&str]) -> String {
    let output = bed.estive(arguments).await.unwrap();
    assert!(
        output.status.success(),
        "estive {} ended with {}: {}{}",
        arguments.join(" "),
        output.status,
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

/// Asserts that a command ends with `code` and says each of `words`; gives what it said on standard error.
pub async fn fails(bed: &Bed, code: i32, arguments: &[&str], words: &[&str]) -> String {
    let output = bed.estive(arguments).await.unwrap();
    said(
        &output,
        code,
        &format!("estive {}", arguments.join(" ")),
        words,
    )
}

pub fn said(output: &Output, code: i32, command: &str, words: &[&str]) -> String {
    let said = stderr(output);
    println!(
        "  {command}\n    ({}) {}",
        output.status,
        said.trim().replace('\n', "\n    ")
    );
    assert_eq!(output.status.code(), Some(code), "{command}: {said}");
    for word in words {
        assert!(
            said.contains(word),
            "{command} does not say {word:?}: {said}"
        );
    }
    assert!(
        !said.contains("panicked") && !said.is_empty(),
        "{command}: {said}"
    );
    said
}

/// What `estive show` says.
pub async fn shown(bed: &Bed, domain: &str) -> Value {
    bed.estive_json(&["show", domain]).await.unwrap()
}

/// Host and state of every domain that `estive ls` shows.
pub async fn listed(bed: &Bed) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let domains = bed.estive_json(&["ls"]).await.unwrap();
    let domains = domains.as_array().expect("estive ls prints a list");
    domains
        .iter()
        .map(|domain| {
            (
                text(domain, "name"),
                (text(domain, "host"), text(domain, "state")),
            )
        })
        .collect()
}

/// Waits until `fact` gives something, asking again and again within [`BOUND`].
pub async fn until<T>(what: &str, mut fact: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = fact().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(BOUND, asking).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {BOUND:?}"),
    }
}

/// Processes whose command line starts with a QEMU system emulator, and is of `domain` if one is given.
pub fn qemus(domain: Option<&str>) -> Vec<u32> {
    let is = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let emulator = words
            .next()
            .is_some_and(|word| String::from_utf8_lossy(word).contains("qemu-system"));
        emulator && domain.is_none_or(|domain| words.any(|word| word == domain.as_bytes()))
    };
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is).collect()
}

/// Whatever of any domain is on the hosts: QEMUs, taps, archives, runtime directories.
pub async fn leftovers(bed: &Bed) -> Vec<String> {
    let mut found: Vec<String> = qemus(None)
        .iter()
        .map(|pid| format!("QEMU {pid}"))
        .collect();
    for (index, host) in bed.topology().hosts.iter().enumerate() {
        let links = host.run_in(&["ip", "-o", "link", "show"]).await.unwrap();
        for line in stdout(&links).lines() {
            let link = line.split(':').nth(1).unwrap_or_default().trim();
            let link = link.split('@').next().unwrap_or_default();
            if !["lo", "br0", "upl", "estive-door", "estive-door-br"].contains(&link) {
                found.push(format!("link {link} on {}", host.name()));
            }
        }
        let directory = work().join(format!("host{}", index + 1));
        for place in ["state/domains", "state/tmp", "q"] {
            for entry in fs::read_dir(directory.join(place)).into_iter().flatten() {
                found.push(entry.unwrap().path().display().to_string());
            }
        }
    }
    found
}

/// Nothing of any domain is anywhere, and the manager knows of none.
pub async fn assert_nothing_stays(bed: &Bed) {
    assert_eq!(leftovers(bed).await, [""; 0]);
    assert_eq!(
        bed.estive_json(&["ls"]).await.unwrap(),
        serde_json::json!([])
    );
    assert_eq!(done(bed, &["ls"]).await.lines().count(), 1, "only headings");
}

/// A program of the machine, run where the test runs.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

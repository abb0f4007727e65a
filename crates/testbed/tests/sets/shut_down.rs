//! Clones with a state, under systemd and OpenRC: a disk that is written to until the end is left clean.
//!
//! `ESTIVE_SHUTDOWNS` says how often each; the suite needs only one.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use estive_boot::{Root, initramfs};
use estive_layers::DeploymentSecret;

use crate::common::{debian_reference, run, stdout, told, work};
use crate::machine::Clone;

const ROOT: &str = "erofs:serial=estive-root;estive;serial=state:rw";
const STATE_BYTES: u64 = 256 << 20;

/// Writes for as long as it may. systemd does not end it with the service: it writes until all is killed.
const WRITER: &str = "#!/bin/sh
trap '' HUP
while :; do
  head -c 300000 /dev/urandom >/var/busy.new
  mv /var/busy.new /var/busy
  : >>/var/lib/busy.$(( (n = n + 1) % 40 ))
  rm -f /var/lib/busy.$(( (n + 20) % 40 ))
done
";

const SYSTEMD: [(&str, &str); 2] = [
    (
        "etc/systemd/system/busy.service",
        "[Unit]\nDefaultDependencies=no\nAfter=sysinit.target\n[Service]\nExecStart=/usr/local/bin/busy\nKillMode=none\n",
    ),
    (
        "etc/systemd/system/off.service",
        "[Unit]\nAfter=busy.service ssh.service\n[Service]\nType=oneshot\n\
         ExecStart=/bin/sh -c 'until [ -s /var/busy ]; do sleep .1; done; systemctl --no-block poweroff'\n",
    ),
];

const OPENRC: [(&str, &str); 1] = [(
    "etc/init.d/busy",
    "#!/sbin/openrc-run
start() {
  setsid /usr/local/bin/busy </dev/null >/dev/null 2>&1 &
  setsid sh -c 'while [ ! -s /var/busy ] || [ -e /run/openrc/rc.starting ]; do sleep .1; done; poweroff' </dev/null &
}
",
)];

/// In place of the set's service: it does nothing.
const CARELESS: (&str, &str) = (
    "etc/init.d/estive-shutdown",
    "#!/sbin/openrc-run\ndepend() {\n\tafter *\n}\nstart() {\n\tebegin \"Leaving the disks as they are\"\n\teend 0\n}\n",
);

struct Case {
    name: &'static str,
    herd: &'static str,
    image: PathBuf,
    files: &'static [(&'static str, &'static str)],
    words: &'static [&'static str],
    /// What is said when the union was cared for.
    said: &'static str,
}

#[test]
#[ignore = "runs inside an outer namespace"]
fn inside_shut_down() {
    let cases = [
        Case {
            name: "systemd",
            herd: "network: 10.77.0.0/24\nsets: [base-debian]\nhosts: {systemd: {address: 10.77.0.101}}\n",
            image: told("ESTIVE_REFERENCE"),
            files: &SYSTEMD,
            words: &["systemd.wants=busy.service", "systemd.wants=off.service"],
            said: "shutdown: the root is taken apart",
        },
        Case {
            name: "openrc",
            herd: "network: 10.77.0.0/24\nsets: [base-openrc]\nhosts: {openrc: {address: 10.77.0.101}}\n",
            image: told("ESTIVE_OPENRC_REFERENCE"),
            files: &OPENRC,
            words: &[],
            said: "Leaving the disks below the root clean",
        },
    ];
    let wanted = std::env::var("ESTIVE_SHUTDOWNS").ok();
    let times = wanted.map_or(1, |times| times.parse::<u32>().unwrap());
    for case in &cases {
        let directory = work().join(case.name);
        fs::create_dir_all(&directory).unwrap();
        let state = state(&directory, case.files);
        for time in 0..times {
            let said = shut_down(case, &directory, &state);
            assert!(said.contains(case.said), "{} {time}:\n{said}", case.name);
            assert_clean(&state, &said);
        }
        println!("{}: clean {times} times", case.name);
    }
    without_care(&cases[1]);
}

/// The same machine without the set's service: else nothing is shown. systemd's is in the loader suite.
fn without_care(case: &Case) {
    let directory = work().join("careless");
    fs::create_dir_all(&directory).unwrap();
    let files = [case.files[0], CARELESS];
    let state = state(&directory, &files);
    let said = shut_down(case, &directory, &state);
    assert!(said.contains("Leaving the disks as they are"), "{said}");
    let (features, _) = told_by_superblock(&state);
    assert!(features.contains("needs_recovery"), "{features}\n{said}");
    println!("{} without care: to be recovered", case.name);
}

/// A disk with what makes a clone busy, and then ends it.
fn state(directory: &Path, files: &[(&str, &str)]) -> PathBuf {
    let tree = directory.join("tree");
    let programs = [("usr/local/bin/busy", WRITER)];
    for (path, text) in files.iter().copied().chain(programs) {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let is_unit = path.extension().is_some();
        let mode = if is_unit { 0o644 } else { 0o755 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let level = tree.join("etc/runlevels/default");
    if tree.join("etc/init.d/busy").exists() {
        fs::create_dir_all(&level).unwrap();
        symlink("/etc/init.d/busy", level.join("busy")).unwrap();
    }
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    let state = directory.join("state");
    File::create(&state).unwrap().set_len(STATE_BYTES).unwrap();
    let (from, to) = (tree.to_str().unwrap(), state.to_str().unwrap());
    let options = "root_owner=0:0,lazy_itable_init=1";
    let made = run("mkfs.ext4", &["-q", "-F", "-E", options, "-d", from, to]);
    assert!(made.status.success(), "{made:?}");
    state
}

fn shut_down(case: &Case, directory: &Path, state: &Path) -> String {
    let tree = estive_boot::KernelTree::find(&told("ESTIVE_KERNEL_TREE")).unwrap();
    let init = fs::read(told("ESTIVE_INIT")).unwrap();
    let needs = Root::parse(ROOT).unwrap().needs();
    let archive = directory.join("initramfs");
    fs::write(
        &archive,
        initramfs::build_for(&init, &tree, &needs, []).unwrap(),
    )
    .unwrap();
    let root = format!("root={ROOT}");
    let words: Vec<&str> = [root.as_str()]
        .into_iter()
        .chain(case.words.iter().copied())
        .collect();
    let machine = Clone {
        name: case.name,
        herd: case.herd,
        secret: &DeploymentSecret::new([7; 32]),
        image: &case.image,
        kernel: &debian_reference().kernel,
        initramfs: &archive,
        words: &words,
        disk: ("state", state),
    };
    machine.start(directory).ends()
}

fn assert_clean(state: &Path, said: &str) {
    let (features, left) = told_by_superblock(state);
    assert!(!features.contains("needs_recovery"), "{features}\n{said}");
    assert!(left.ends_with(" clean"), "{left}\n{said}");
    let checked = run("e2fsck", &["-f", "-n", state.to_str().unwrap()]);
    assert!(checked.status.success(), "{checked:?}\n{said}");
}

/// The file system's features, and how it was left.
fn told_by_superblock(state: &Path) -> (String, String) {
    let told = stdout(&run("dumpe2fs", &["-h", state.to_str().unwrap()]));
    let line = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default().to_owned()
    };
    (line("Filesystem features"), line("Filesystem state"))
}

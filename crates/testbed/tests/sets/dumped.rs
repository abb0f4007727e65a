//! The set `dump`: a clone copies itself to a raw disk, which then boots alone, with no kernel from outside.

use std::fs::{self, File};
use std::path::Path;

use estive_layers::DeploymentSecret;

use crate::cluster::sets_reference;
use crate::common::{run, stdout, told, work};
use crate::machine::{Clone, Machine, SSH_PORT};

const DISK_BYTES: u64 = 2 << 30;

/// What a dumped clone need not have here, so that less is copied. Its network is systemd's to set: it has no
/// `estive-init` any more.
const HERD: &str = "
network: 10.77.0.0/24
sets: [base-debian, dump]
services_on: [systemd-networkd]
dump_to: /dev/disk/by-id/virtio-dump
dump_at_boot: true
dump_exclude:
  - /usr/lib/postgresql
  - /usr/lib/x86_64-linux-gnu/libLLVM*
  - /usr/lib/x86_64-linux-gnu/libicudata*
  - /usr/lib/x86_64-linux-gnu/libz3*
  - /usr/share/dbench
  - /usr/share/locale
  - /usr/share/perl
hosts: {clone01: {address: 10.77.0.101}}
";

#[test]
#[ignore = "runs inside an outer namespace"]
fn inside_dumped() {
    let lo = run("ip", &["link", "set", "lo", "up"]);
    assert!(lo.status.success());
    let directory = work().join("dumped");
    fs::create_dir_all(&directory).unwrap();
    let disk = directory.join("disk");
    File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    let secret = DeploymentSecret::new([7; 32]);

    let mut clone = start_clone(&directory, &disk, &secret);
    clone.says("dump-clone: clone01 is copied to /dev/disk/by-id/virtio-dump");
    let console = clone.console();
    println!("{console}");
    assert!(!console.contains("no boot loader"), "{console}");
    drop(clone);

    let arguments = vec![
        "-drive".to_owned(),
        format!("file={},format=raw,if=virtio", disk.display()),
    ];
    let mut alone = Machine::start("alone", &directory, 384, &arguments);
    alone.says("clone01 login:");
    let console = alone.console();
    assert!(
        !console.contains("estive-init"),
        "it boots by itself: {console}"
    );
    // The key that the clone had, at the address that the clone had.
    let keys = [
        "-T",
        "60",
        "-t",
        "ed25519",
        "-p",
        &SSH_PORT.to_string(),
        "127.0.0.1",
    ];
    let scanned = stdout(&run("ssh-keyscan", &keys));
    let key = secret.of_clone("clone01").ssh_host_key_public;
    let key = key.split(' ').nth(1).unwrap();
    assert!(scanned.contains(key), "{scanned}\n{}", alone.console());
}

/// The clone as an agent would start it, with one disk more.
fn start_clone(directory: &Path, disk: &Path, secret: &DeploymentSecret) -> Machine {
    let reference = sets_reference();
    Clone {
        name: "clone01",
        herd: HERD,
        secret,
        image: &told("ESTIVE_SETS_REFERENCE"),
        kernel: &reference.kernel,
        initramfs: &reference.initramfs,
        words: &[],
        disk: ("dump", disk),
    }
    .start(directory)
}

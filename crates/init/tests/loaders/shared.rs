//! Directories of the physical machine, shared with its guest.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use estive_boot::KernelTree;

use crate::bed::{Machine, Tree, from_environment};

/// virtiofsd over a directory; ended when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(socket: &Path, shared: &Path) -> Daemon {
        let child = Command::new(from_environment("ESTIVE_VIRTIOFSD"))
            .arg("--socket-path")
            .arg(socket)
            .arg("--shared-dir")
            .arg(shared)
            .args(["--sandbox", "none", "--cache", "auto", "--xattr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ESTIVE_VIRTIOFSD is a program");
        // QEMU connects once.
        for _ in 0..200 {
            if socket.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Daemon(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn directories_shared_by_virtiofs_are_layers() {
    let machine = Machine::new("virtiofs:one:ro;virtiofs:two;tmpfs").word("probe.write=/new");
    let (one, two) = (Tree::with_probe("a"), Tree::new("b"));
    let mut machine = machine;
    let mut daemons = Vec::new();
    for (tag, tree) in [("one", &one), ("two", &two)] {
        let socket = machine.path(tag);
        daemons.push(Daemon::start(&socket, tree.path()));
        machine = machine
            .argument(&format!(
                "-chardev socket,id={tag},path={}",
                socket.display()
            ))
            .argument(&format!(
                "-device vhost-user-fs-pci,chardev={tag},tag={tag}"
            ));
    }
    let facts = machine.boot().facts();
    assert_eq!(facts.layers(), ["a", "b"]);
    facts.are(&[("write /new", "written"), ("root is", "overlay")]);
    assert!(!two.path().join("new").exists());
}

#[test]
fn a_directory_shared_by_9p_is_a_layer() {
    let mut machine = Machine::new("9p:shared:ro;tmpfs").word("probe.write=/new");
    // Kernels for clouds do not have it.
    machine.kernel = KernelTree::find(&from_environment("ESTIVE_GENERIC_KERNEL_TREE")).unwrap();
    let tree = Tree::with_probe("a");
    let shared = tree.path().display();
    let facts = machine
        .argument(&format!(
            "-fsdev local,id=fs,path={shared},security_model=none,readonly=on"
        ))
        .argument("-device virtio-9p-pci,fsdev=fs,mount_tag=shared")
        .boot()
        .facts();
    assert_eq!(facts.layers(), ["a"]);
    facts.are(&[("write /new", "written")]);
}

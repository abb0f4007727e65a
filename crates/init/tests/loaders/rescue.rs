//! `rescue`: a shell on the console where the boot would stop, and before the switch.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::bed::{Machine, Tree, compiled, run};

#[test]
fn a_shell_comes_where_the_boot_would_stop_and_before_the_switch() {
    let mut machine = Machine::new("/dev/vda;tmpfs")
        .word("rescue")
        .word("unpack=/archive")
        .word("probe.read=/etc/from-the-shell");
    machine.is_typed_to = true;
    let image = machine.path("image");
    let tree = Tree::with_probe("root").file("bin/sh", std::fs::read(compiled("shell")).unwrap());
    let at = |path: &str| tree.path().join(path);
    std::fs::set_permissions(at("bin/sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    run(Command::new("tar")
        .arg("-cf")
        .arg(at("misnamed"))
        .arg("-C")
        .arg(tree.path())
        .arg("etc"));
    tree.ext4(&image, 64, &[]);
    let mut guest = machine.disk(&image, "virtio-blk-pci").boot();

    guest.hears("error: unpack=/archive: there is no such file in the root");
    guest.hears("rescue: /bin/sh in /new; `exit` goes on with the boot");
    for line in [
        "writable /.unions/0",
        "rename /.unions/0/misnamed /.unions/0/archive",
    ] {
        guest.tell(line);
        guest.hears(&format!("done {line}: Ok"));
    }
    guest.tell("exit");

    // From its beginning, to the end of the early userspace.
    guest.hears("unpacked /archive: 2 files");
    guest.hears("rescue: /bin/sh in /new; `exit` goes on with the boot");
    guest.tell("write /etc/from-the-shell");
    guest.hears("done write /etc/from-the-shell: Ok");
    guest.tell("exit");
    guest.facts().are(&[
        ("/etc/from-the-shell", "written"),
        ("/.unions", "0,1,estive,under"),
    ]);
}

#[test]
fn without_a_shell_the_boot_stops_as_ever() {
    let machine = Machine::new("/dev/vda;tmpfs")
        .word("rescue")
        .word("unpack=/archive");
    let image = machine.path("image");
    Tree::with_probe("root").ext4(&image, 16, &[]);
    let mut guest = machine.disk(&image, "virtio-blk-pci").boot();
    guest.hears("rescue: no shell");
    assert!(guest.failure().contains("no such file"));
}

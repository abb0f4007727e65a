//! `rescue`: a shell on the console where the boot would stop, and before the switch.

use std::os::unix::fs::PermissionsExt;

use crate::bed::{Guest, Machine, Tree, compiled};
use crate::net::{alone, on_network, web_server};

/// Over the network, from memory, and to an image on a disk: each of them is taken once and not twice.
#[test]
fn a_shell_comes_where_the_boot_would_stop_and_the_boot_begins_again_over_nothing() {
    alone();
    let directory = tempfile::tempdir().unwrap();
    let image = |name: &str| directory.path().join(name);
    Tree::new("far").erofs(&image("far"), &[]);
    Tree::new("near").ext4(&image("near"), 16, &[]);
    let near = std::fs::read(image("near")).unwrap();
    Tree::new("disk")
        .file("near", near)
        .ext4(&image("disk"), 64, &[]);
    let tree = Tree::with_probe("root").file("bin/sh", std::fs::read(compiled("shell")).unwrap());
    let shell = tree.path().join("bin/sh");
    std::fs::set_permissions(shell, std::fs::Permissions::from_mode(0o755)).unwrap();
    tree.ext4(&image("root"), 64, &[]);

    let port = web_server(&image("far"));
    let line =
        format!("loop+url:http://10.0.2.2:{port}/live.iso;/dev/vda;loop+block:/near:/dev/vdb:rw");
    let mut machine = on_network(&line, "user,id=n0")
        .word("rescue")
        .word("probe.read=/etc/from-the-shell,/etc/resolv.conf,/run/estive/resolv.conf")
        .disk(&image("root"), "virtio-blk-pci")
        .disk(&image("disk"), "virtio-blk-pci");
    machine.words[1] = "init=/bin/late".into();
    machine.is_typed_to = true;
    let mut guest = machine.boot();
    let tell = |guest: &mut Guest, line: &str| {
        guest.tell(line);
        guest.hears(&format!("done {line}: Ok"));
    };
    let at_shell = "rescue: /bin/sh in /new; `exit` goes on with the boot";

    guest.hears(at_shell);
    tell(&mut guest, "write /etc/from-the-shell");
    guest.tell("exit");
    guest.hears("error: estive.init=/bin/late: there is no such program in the root");
    guest.hears(at_shell);
    tell(&mut guest, "rename /bin/probe /bin/late");
    // A disk that is only read can be mended by hand.
    for line in [
        "writable /.unions/1",
        "rename /.unions/1/etc/layer-root /.unions/1/etc/layer-mended",
    ] {
        tell(&mut guest, line);
    }
    // One that a shell leaves is ended; but who serves a root is not, and holds this one.
    tell(&mut guest, "hold left /etc/from-the-shell");
    tell(&mut guest, "hold @serves /etc/from-the-shell");
    guest.tell("exit");
    guest.hears("rescue: /new stays mounted");
    guest.hears("rescue: nothing is mounted again");
    guest.hears(at_shell);
    tell(&mut guest, "end @serves");
    guest.tell("exit");

    // From its beginning, to the end of the early userspace.
    guest.hears("has the address 10.0.2.15/24");
    guest.hears(at_shell);
    guest.tell("exit");
    let facts = guest.facts();
    assert_eq!(facts.layers(), ["far", "mended", "near"]);
    facts.are(&[("/etc/from-the-shell", "written")]);
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

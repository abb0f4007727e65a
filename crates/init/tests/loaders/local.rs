//! Disks, memory, and what lies on them.

use crate::bed::{Machine, Tree};

#[test]
fn two_disks_are_joined_and_memory_takes_what_is_written() {
    let machine = Machine::new("/dev/vda;serial=second:ro;tmpfs:size=25%")
        .word("probe.write=/etc/layer-a,/new")
        .word("probe.list=/.unions/2/upper");
    let (a, b) = (machine.path("a"), machine.path("b"));
    Tree::with_probe("a").ext4(&a, 16, &[]);
    Tree::new("b").erofs(&b, &[]);
    let facts = machine
        .disk(&a, "virtio-blk-pci,serial=first")
        .disk(&b, "virtio-blk-pci,serial=second")
        .boot()
        .facts();
    assert_eq!(facts.layers(), ["a", "b"]);
    facts.are(&[
        ("write /new", "written"),
        ("root is", "overlay"),
        ("/.unions", "0,1,2,estive,under"),
    ]);
}

#[test]
fn a_device_that_does_not_come_is_said_with_those_that_are_there() {
    let machine = Machine::new("LABEL=wanted;tmpfs").word("estive.wait=1");
    let image = machine.path("a");
    Tree::with_probe("a").ext4(&image, 16, &["-L", "other"]);
    let error = machine.disk(&image, "virtio-blk-pci").boot().failure();
    assert!(
        error.contains("no device LABEL=wanted within 1 s") && error.contains("vda ext4 UUID="),
        "{error}"
    );
    assert!(error.contains("LABEL=other"), "{error}");
}

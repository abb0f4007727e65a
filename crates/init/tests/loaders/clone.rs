//! A clone with a line of its own: its layer over several devices, and who it is.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use estive_archive::{LAYER_DISK_BYTES, LayerArchive};

use crate::bed::{Machine, Tree, kernel};

const IDENTITY: &str = r#"{"version":1,"name":"clone01","hostname":"clone01","mac":"52:54:00:00:00:02","address":"10.0.2.15/24","gateway":"10.0.2.2","seed":"SEED"}"#;

fn layer_disk(path: &Path) {
    let mut layer = LayerArchive::new();
    layer
        .file("etc/layer-clone", 0o644, 0, 0, "clone")
        .and_then(|layer| layer.file("etc/private/key", 0o600, 0, 0, "secret"))
        .and_then(|layer| layer.whiteout("etc/layer-hidden"))
        // It hides what neither device has.
        .and_then(|layer| layer.whiteout("etc/absent/hidden"))
        .map(drop)
        .unwrap();
    let disk = File::create(path).unwrap();
    (&disk).write_all(&layer.finish().unwrap()).unwrap();
    disk.set_len(LAYER_DISK_BYTES).unwrap();
}

#[test]
fn a_clones_layer_lies_over_everything_to_its_left() {
    let list = format!("{}/modules.dep", kernel().release);
    let seen_list = format!("/lib/modules/{list}");
    let mut machine = Machine::new("erofs;serial=software;estive;tmpfs:size=50%")
        .word("probe.mode=/etc/private")
        .word("probe.list=/etc/absent")
        .word(&format!(
            "probe.read=/proc/sys/kernel/hostname,/.unions/root/etc/layer-hidden,/.unions/layer/etc/layer-clone,/sys/class/net/eth0/address,{seen_list}"
        ));
    let path = |name: &str| machine.path(name);
    let (root, software, layer) = (path("root"), path("software"), path("layer"));
    let modules = path("modules");
    Tree::new("modules")
        .file(&list, "a.ko:")
        .erofs(&modules, &[]);
    Tree::with_probe("root")
        .file("etc/layer-hidden", "hidden")
        .erofs(&root, &[]);
    let tree = Tree::new("software").file("etc/private/other", "");
    let private = tree.path().join("etc/private");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o710)).unwrap();
    tree.ext4(&software, 16, &[]);
    layer_disk(&layer);
    machine.network = true;
    machine.fw_cfg = vec![(
        "opt/org.estive/identity".into(),
        IDENTITY.replace("SEED", &"5a".repeat(64)),
    )];
    let facts = machine
        .disk(&root, "virtio-blk-pci,serial=estive-root")
        .disk(&software, "virtio-blk-pci,serial=software")
        .disk(&layer, "virtio-blk-pci,serial=estive-layer")
        .disk(&modules, "virtio-blk-pci,serial=estive-modules")
        .boot()
        .facts();
    assert_eq!(facts.layers(), ["clone", "root", "software"]);
    facts.are(&[
        ("/proc/sys/kernel/hostname", "clone01"),
        ("/sys/class/net/eth0/address", "52:54:00:00:00:02"),
        // Of the software, not of the archive, which has no such directory.
        ("mode /etc/private", "710 0 0"),
        ("/etc/absent", ""),
        ("/.unions", "0,1,2,3,estive,layer,modules,root,under"),
        ("/.unions/root/etc/layer-hidden", "hidden"),
        ("/.unions/layer/etc/layer-clone", "clone"),
        // What a clone loads later, from the disk that all have, over whatever is joined.
        (&seen_list, "a.ko:"),
    ]);
}

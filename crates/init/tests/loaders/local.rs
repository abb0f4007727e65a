//! Disks, memory, and what lies on them.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::bed::{Machine, Tree, in_root_of_programs, run};

const SCSI: &str = "-device virtio-scsi-pci";

/// A disk of these images, each a partition, made by sfdisk with this head and these lines.
fn disk_of(disk: &Path, head: &str, partitions: &[(&Path, &str)]) {
    const MIB: u64 = 1 << 20;
    let mut script = format!("{head}\n");
    let mut at = MIB;
    for (image, line) in partitions {
        let bytes = fs::metadata(image).unwrap().len().next_multiple_of(MIB);
        script += &format!("start={}, size={}, {line}\n", at / 512, bytes / 512);
        let name = format!("of={}", disk.display());
        run(Command::new("dd")
            .args(["bs=1M", "conv=notrunc,sparse", "status=none", &name])
            .args([
                format!("if={}", image.display()),
                format!("seek={}", at / MIB),
            ]));
        at += bytes;
    }
    let file = fs::File::options().write(true).open(disk).unwrap();
    file.set_len(at + MIB).unwrap();
    let directory = disk.parent().unwrap();
    fs::write(directory.join("table"), script).unwrap();
    let name = disk.file_name().unwrap().to_str().unwrap();
    in_root_of_programs(
        directory,
        &format!("sfdisk -q --no-reread --no-tell-kernel /mnt/{name} < /mnt/table"),
    );
}

#[test]
fn the_first_example_of_the_paper_keeps_what_is_written_on_its_top_disk() {
    let images = tempfile::tempdir().unwrap();
    let path = |name: &str| images.path().join(name);
    let (first, second, disk) = (path("first"), path("second"), path("disk"));
    Tree::with_probe("a").ext4(&first, 16, &[]);
    Tree::new("b")
        .file("etc/layer-a", "b over a")
        .ext4(&second, 16, &[]);
    disk_of(
        &disk,
        "label: dos",
        &[(&first, "type=83"), (&second, "type=83")],
    );
    let machine = || {
        Machine::new("/dev/sda1;/dev/sda2")
            .argument(SCSI)
            .disk(&disk, "scsi-hd")
            .word("probe.read=/new,/.unions/1/.estive/upper/new,/.unions/1/new")
            .word("probe.list=/")
            .word("probe.mode=/.unions/1/.estive")
            .word("probe.write=/new,/etc/layer-b")
    };
    let facts = machine().boot().facts();
    assert_eq!(facts.layers(), ["a", "b"]);
    facts.are(&[
        ("/etc/layer-a", "b over a"),
        ("/etc/layer-b", "b"),
        ("/new", "NotFound"),
        ("write /new", "written"),
        ("root is", "overlay"),
        ("/.unions", "0,1,estive,under"),
        ("/", ".unions,bin,dev,etc,lost+found,proc,run,sys,tmp"),
    ]);
    machine().boot().facts().are(&[
        ("/etc/layer-a", "b over a"),
        ("/etc/layer-b", "written"),
        ("/new", "written"),
        ("/.unions/1/.estive/upper/new", "written"),
        // Its own tree is as it was.
        ("/.unions/1/new", "NotFound"),
        ("mode /.unions/1/.estive", "700 0 0"),
    ]);
    // Over another root it is no good, unless somebody says so.
    let other = path("other");
    Tree::with_probe("other").erofs(&other, &[]);
    let over_other = |word: &str| {
        Machine::new("/dev/vda;/dev/sda2")
            .argument(SCSI)
            .disk(&other, "virtio-blk-pci")
            .disk(&disk, "scsi-hd")
            .word("probe.read=/new")
            .word(word)
            .boot()
    };
    let error = over_other("quiet").failure();
    assert!(
        error.contains("layer 0 was ext4 UUID=") && error.contains(" and is erofs"),
        "{error}"
    );
    let facts = over_other("estive.over=any").facts();
    assert_eq!(facts.layers(), ["a", "b", "other"]);
    facts.are(&[("/new", "written")]);
}

#[test]
fn file_systems_are_recognised_and_found_by_every_name() {
    const UUID: &str = "0a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9";
    const PARTUUID: &str = "11111111-2222-4333-8444-555555555555";
    let machine = Machine::new(&format!(
        "UUID={UUID};LABEL=name;PARTLABEL=b%20t;PARTUUID={PARTUUID};serial=sealed;/dev/sr0;tmpfs:size=50%"
    ));
    let path = |name: &str| machine.path(name);
    Tree::with_probe("ext4").ext4(&path("ext4"), 16, &["-U", UUID]);
    Tree::new("erofs").erofs(&path("erofs"), &[]);
    Tree::new("squashfs").erofs(&path("sealed"), &[]);
    let tree = machine.path("tree");
    for name in ["xfs", "btrfs", "iso"] {
        fs::create_dir_all(tree.join(name).join("etc")).unwrap();
        fs::write(tree.join(name).join(format!("etc/layer-{name}")), name).unwrap();
    }
    fs::write(
        path("proto"),
        "/dev/null\n0 0\nd--755 0 0\netc d--755 0 0\nlayer-xfs ---644 0 0 /mnt/tree/xfs/etc/layer-xfs\n$\n$\n",
    )
    .unwrap();
    in_root_of_programs(
        machine.directory.path(),
        "truncate -s 320M /mnt/xfs; mkfs.xfs -q -L name -p /mnt/proto /mnt/xfs
         truncate -s 128M /mnt/btrfs; mkfs.btrfs -q --rootdir /mnt/tree/btrfs /mnt/btrfs
         xorriso -as mkisofs -quiet -R -o /mnt/iso /mnt/tree/iso 2>/dev/null",
    );
    let disk = path("disk");
    disk_of(
        &disk,
        "label: gpt",
        &[
            (&path("ext4"), "type=L"),
            (&path("xfs"), "type=L"),
            (&path("btrfs"), "type=L, name=\"b t\""),
            (&path("erofs"), &format!("type=L, uuid={PARTUUID}")),
        ],
    );
    let (sealed, iso) = (path("sealed"), path("iso"));
    let facts = machine
        .argument(SCSI)
        .disk(&disk, "scsi-hd")
        .disk(&sealed, "virtio-blk-pci,serial=sealed")
        .disk(&iso, "scsi-cd")
        .boot()
        .facts();
    assert_eq!(
        facts.layers(),
        ["btrfs", "erofs", "ext4", "iso", "squashfs", "xfs"]
    );
}

#[test]
fn images_in_files_are_layers() {
    let machine = Machine::new("loop+block:/boot/root.squashfs:LABEL=STICK;loop:/images;tmpfs")
        .word("probe.list=/.unions");
    let path = |name: &str| machine.path(name);
    let tree = Tree::with_probe("a");
    fs::create_dir(tree.path().join("images")).unwrap();
    Tree::new("b")
        .file("etc/layer-top", "b")
        .erofs(&tree.path().join("images/10"), &[]);
    Tree::new("c")
        .file("etc/layer-top", "c")
        .ext4(&tree.path().join("images/20"), 4, &[]);
    fs::rename(tree.path(), path("tree")).unwrap();
    in_root_of_programs(
        machine.directory.path(),
        "mksquashfs /mnt/tree /mnt/root.squashfs -quiet -no-progress
         mkfs.vfat -C -n STICK /mnt/stick 32768 > /dev/null",
    );
    run(Command::new("mmd")
        .arg("-i")
        .arg(path("stick"))
        .arg("::boot"));
    run(Command::new("mcopy")
        .arg("-i")
        .args([path("stick"), path("root.squashfs")])
        .arg("::boot"));
    fs::rename(path("tree"), tree.path()).unwrap();
    let stick = path("stick");
    let facts = machine.disk(&stick, "virtio-blk-pci").boot().facts();
    assert_eq!(facts.layers(), ["a", "b", "c", "top"]);
    facts.are(&[
        ("/etc/layer-top", "c"),
        ("/.unions", "0,1,2,3,estive,under"),
    ]);
}

#[test]
fn one_disk_is_the_root_itself() {
    let machine = Machine::new("/dev/vda").word("probe.write=/new");
    let image = machine.path("a");
    Tree::with_probe("a").ext4(&image, 16, &[]);
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("a");
    fs::rename(&image, &kept).unwrap();
    let facts = machine.disk(&kept, "virtio-blk-pci").boot().facts();
    facts.are(&[
        ("/etc/layer-a", "a"),
        ("root is", "ext4"),
        ("write /new", "written"),
        ("/.unions", "0,estive,under"),
    ]);
    // Its journal is not written back: it was switched off.
    let _ = Command::new("e2fsck").arg("-fp").arg(&kept).output();
    let written = run(Command::new("debugfs").args(["-R", "cat /new"]).arg(&kept));
    assert_eq!(written, "written");
}

#[test]
fn what_nothing_takes_is_refused_to_who_writes() {
    let machine = Machine::new("/dev/vda;/dev/vdb:ro")
        .word("probe.write=/new")
        .word("probe.list=/");
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (machine.path("a"), directory.path().join("b"));
    Tree::with_probe("a").erofs(&a, &[]);
    let tree = Tree::new("b").file(".estive/upper/secret", "of another line");
    tree.ext4(&b, 4, &[]);
    // As a machine that crashed leaves it, or one that runs has it.
    for change in ["set_inode_field / mode 040711", "feature needs_recovery"] {
        run(Command::new("debugfs").args(["-w", "-R", change]).arg(&b));
    }
    let before = fs::read(&b).unwrap();
    let facts = machine
        .disk(&a, "virtio-blk-pci")
        .disk(&b, "virtio-blk-pci")
        .boot()
        .facts();
    assert_eq!(facts.layers(), ["a", "b"]);
    facts.are(&[
        ("write /new", "ReadOnlyFilesystem"),
        ("root is", "overlay"),
        ("/.unions", "0,1,estive,under"),
        ("/", ".unions,bin,dev,etc,lost+found,proc,run,sys,tmp"),
        ("mode /", "711 0 0"),
    ]);
    facts.said("/dev/vdb was not left clean, and is only read");
    assert!(
        before == fs::read(&b).unwrap(),
        "a disk that is only read was written to"
    );
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

#[test]
fn a_device_that_comes_later_is_waited_for() {
    let machine = Machine::new("LABEL=late;tmpfs");
    let (image, socket) = (machine.path("a"), machine.path("qmp"));
    Tree::with_probe("a").ext4(&image, 16, &["-L", "late"]);
    let mut guest = machine
        .argument(SCSI)
        .argument(&format!(
            "-blockdev driver=raw,node-name=late,file.driver=file,file.filename={}",
            image.display()
        ))
        .argument(&format!(
            "-qmp unix:{},server=on,wait=off",
            socket.display()
        ))
        .boot();
    guest.wait_until("the wait", |guest| {
        guest.text("console").contains("waiting for LABEL=late")
    });
    let mut qmp = UnixStream::connect(&socket).unwrap();
    let plug = r#"{"execute":"qmp_capabilities"}{"execute":"device_add","arguments":{"driver":"scsi-hd","drive":"late","id":"late"}}"#;
    qmp.write_all(plug.as_bytes()).unwrap();
    assert_eq!(guest.facts().layers(), ["a"]);
}

#[test]
fn what_can_only_be_read_does_not_take_what_is_written() {
    let machine = Machine::new("/dev/vda:rw");
    let image = machine.path("a");
    Tree::with_probe("a").erofs(&image, &[]);
    let error = machine.disk(&image, "virtio-blk-pci").boot().failure();
    assert!(
        error.starts_with("/dev/vda:rw of root=: it cannot be written"),
        "{error}"
    );
}

#[test]
fn a_line_that_is_wrong_is_pointed_at() {
    let machine = Machine::new("/dev/vda;tmpsf");
    let mut guest = machine.boot();
    guest.wait_until("a caret", |guest| guest.text("console").contains("error: "));
    let console = guest.text("console");
    assert!(
        console.contains("init: root=/dev/vda;tmpsf\nestive-init:               ^\n"),
        "{console}"
    );
    let error = guest.failure();
    assert!(error.contains("no loader \"tmpsf\""), "{error}");
}

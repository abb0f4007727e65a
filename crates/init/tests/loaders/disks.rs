//! Encrypted disks, volumes and arrays. The disks are made by one guest, which runs first and once: this machine's
//! kernel may be without what they need.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use estive_boot::superblock::{self, Kind};
use estive_boot::{KernelModules, Root, md_end, programs};

use crate::bed::{Guest, Machine, Tree, from_environment, kernel, probe, run};

/// The disks that are made: serial, and size in MiB.
const DISKS: [(&str, u64); 15] = [
    ("luks1", 16),
    ("luks2", 32),
    ("lvm-a", 16),
    ("lvm-b", 16),
    ("vault", 40),
    ("mirror-a", 16),
    ("mirror-b", 16),
    ("late-a", 4),
    ("old-a", 4),
    ("stripe-a", 16),
    ("stripe-b", 16),
    ("paper-a", 16),
    ("paper-b", 16),
    ("paper-c", 16),
    ("paper-d", 16),
];
const STRIPE_UUID: &str = "01234567:89abcdef:01234567:89abcdef";
/// What opens the encrypted ones, as `maker.sh` has it.
const KEY: &str = "secret";

/// The directory with an image for each of [`DISKS`].
fn made() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("loader-disks");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        make(&directory);
        directory
    })
}

fn make(directory: &Path) {
    let line = "root=serial=maker:fs=erofs;serial=script;tmpfs";
    let mut machine = Machine::new("tmpfs");
    machine.words = vec![line.into(), "init=/maker".into()];
    machine.memory_mib = 512;
    let script = machine.path("script");
    maker_tree().ext4(&script, 32, &[]);
    machine = machine
        .disk(
            &from_environment("ESTIVE_LOADERS_REFERENCE"),
            "virtio-blk-pci,serial=maker",
        )
        .disk(&script, "virtio-blk-pci,serial=script");
    machine.disks[0].read_only = true;
    for (serial, size_mib) in DISKS {
        let image = directory.join(serial);
        File::create(&image)
            .unwrap()
            .set_len(size_mib << 20)
            .unwrap();
        machine = machine.disk(&image, &format!("virtio-blk-pci,serial={serial}"));
    }
    machine.boot().facts().are(&[("made", "0")]);
}

/// The script with the kernel modules that it loads, in their order.
fn maker_tree() -> Tree {
    let wanted = [
        "dm_crypt",
        "raid0",
        "raid1",
        "ecb",
        "xts",
        "aesni_intel",
        "algif_skcipher",
    ];
    // Not in /bin, which is a link in the root below.
    let mut tree = Tree::new("maker")
        .file("maker", include_str!("maker.sh"))
        .file("probe", fs::read(probe()).unwrap());
    let modules = kernel().modules_dep().unwrap();
    for (index, name) in modules.closure(&wanted, &[]).unwrap().iter().enumerate() {
        let module = kernel().module(modules.file(name).unwrap()).unwrap();
        tree = tree.file(&format!("modules/{index:02}-{name}.ko"), module);
    }
    use std::os::unix::fs::PermissionsExt;
    for program in ["maker", "probe"] {
        let path = tree.path().join(program);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    tree
}

/// A machine for this line with copies of these disks.
fn machine(line: &str, disks: &[&str]) -> Machine {
    let mut machine = Machine::new(line).word("probe.write=/new");
    let needs = Root::parse(line).unwrap().needs();
    machine.programs =
        programs::collect(&from_environment("ESTIVE_LOADERS_ROOT"), &needs.programs).unwrap();
    for serial in disks {
        let image = machine.path(serial);
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(made().join(serial))
            .arg(&image));
        machine = machine.disk(&image, &format!("virtio-blk-pci,serial={serial}"));
    }
    machine
}

/// That the only layer is this one, and takes what is written.
fn boots_as(guest: Guest, name: &str) {
    let facts = guest.facts();
    assert_eq!(facts.layers(), [name]);
    facts.are(&[
        (&format!("/etc/layer-{name}"), name),
        ("write /new", "written"),
    ]);
}

#[test]
fn the_papers_volume_on_two_arrays_boots_as_written() {
    let line = "lvm2+md:/dev/vg/volume:/dev/md0,/dev/md1";
    let disks = ["paper-d", "paper-b", "paper-a", "paper-c"];
    boots_as(machine(line, &disks).boot(), "paper");
}

#[test]
fn a_volume_is_started_where_its_disks_are() {
    boots_as(
        machine("lvm2:/dev/my-data/root", &["lvm-a", "lvm-b"]).boot(),
        "lvm",
    );
}

#[test]
fn a_volume_that_lacks_a_disk_or_is_not_there_is_said() {
    let lacks = machine("lvm2:/dev/my-data/root", &["lvm-a"]).word("estive.wait=0");
    let error = lacks.boot().failure();
    assert!(
        error.contains("my-data/root did not start: lvm said"),
        "{error}"
    );
    let other = machine("lvm2+block:/dev/my-data/nothing:/dev/vda", &["lvm-a"]);
    let error = other.boot().failure();
    assert!(
        error.contains("my-data/nothing on /dev/vda did not start"),
        "{error}"
    );
}

#[test]
fn a_mirror_is_put_together_by_its_name() {
    boots_as(
        machine("md:/dev/md/mirror", &["mirror-a", "mirror-b"]).boot(),
        "mirror",
    );
}

#[test]
fn stripes_are_put_together_by_their_uuid_and_only_read_where_the_line_says_so() {
    let line = format!("md:UUID=[{STRIPE_UUID}]:ro");
    let facts = machine(&line, &["stripe-b", "stripe-a"]).boot().facts();
    assert_eq!(facts.layers(), ["stripe"]);
    facts.are(&[("write /new", "ReadOnlyFilesystem")]);
}

#[test]
fn a_mirror_with_a_disk_missing_starts_when_the_line_says_so() {
    let line = "md:/dev/md/mirror";
    let machine_of = |line: &str| machine(line, &["mirror-b"]).word("estive.wait=1");
    let error = machine_of(line).boot().failure();
    assert!(
        error.contains("/dev/md/mirror did not start: mdadm said")
            && error.contains("1 of its 2 disks are there: write degraded"),
        "{error}"
    );
    let mut guest = machine_of(&format!("{line}:degraded")).boot();
    guest.wait_until("the word of the missing disk", |guest| {
        guest
            .text("console")
            .contains("/dev/md/mirror runs degraded: 1 of its 2 disks missing")
    });
    boots_as(guest, "mirror");
}

#[test]
fn half_of_a_mirror_looks_like_the_whole_and_says_at_its_end_that_it_is_not() {
    for (serial, is_certain) in [("late-a", true), ("old-a", false)] {
        let bytes = fs::read(made().join(serial)).unwrap();
        let tail = &bytes[bytes.len() - md_end::TAIL_BYTES as usize..];
        let head = superblock::recognise(&bytes).unwrap();
        assert_eq!(head.kind, Kind::Ext);
        assert_eq!(head.label.as_deref(), serial.strip_suffix("-a"));
        let member = md_end::member(tail, bytes.len() as u64).unwrap();
        assert_eq!(member.found.kind, Kind::RaidMember);
        assert_eq!(member.is_certain, is_certain);
    }
}

#[test]
fn an_array_that_no_disk_knows_is_said_with_those_that_there_are() {
    let error = machine("md:/dev/md0", &["mirror-a"])
        .word("estive.wait=0")
        .boot()
        .failure();
    assert!(
        error.contains("no disk says that it belongs to /dev/md0")
            && error.contains("arrays found: mirror (raid1, 1 of 2 disks"),
        "{error}"
    );
}

/// The machine shows its key nowhere.
fn opens_silently(guest: Guest, name: &str) {
    let facts = guest.facts();
    assert_eq!(facts.layers(), [name]);
    facts.are(&[("write /new", "written")]);
    assert!(!facts.story().contains(KEY), "{}", facts.story());
}

#[test]
fn an_encrypted_disk_is_opened_with_the_key_in_fw_cfg() {
    let mut machine = machine("luks+block:serial=luks1", &["luks1"]);
    machine
        .fw_cfg
        .push(("opt/org.estive/key".into(), KEY.into()));
    opens_silently(machine.boot(), "luks1");
}

#[test]
fn an_encrypted_disk_is_opened_with_the_key_from_a_port() {
    let mut machine = machine(
        "luks+block:/dev/vda:key=serial:org.example.vault",
        &["luks2"],
    );
    let socket = machine.path("key");
    machine.arguments.extend([
        "-chardev".into(),
        format!("socket,id=key,path={},server=on,wait=off", socket.display()),
        "-device".into(),
        "virtserialport,chardev=key,name=org.example.vault".into(),
    ]);
    let mut guest = machine.boot();
    guest.wait_until("the wait for the key", |guest| {
        guest
            .text("console")
            .contains("waiting for the key on the port org.example.vault")
    });
    guest.write("key", &format!("{KEY}\n"));
    opens_silently(guest, "luks2");
}

#[test]
fn a_key_is_asked_for_on_the_console_until_it_is_right() {
    let mut machine = machine("luks+block:/dev/vda", &["luks2"]);
    machine.is_typed_to = true;
    let mut guest = machine.boot();
    for (question, answer) in [("(try 1 of 3)", "wrong"), ("(try 2 of 3)", KEY)] {
        guest.wait_until(question, |guest| guest.text("console").contains(question));
        guest.tell(answer);
    }
    opens_silently(guest, "luks2");
}

#[test]
fn a_wrong_key_is_said() {
    let mut machine = machine("luks+block:/dev/vda:key=fw_cfg:opt/k", &["luks1"]);
    machine.fw_cfg.push(("opt/k".into(), format!("{KEY}\n")));
    let error = machine.boot().failure();
    assert!(
        error.contains("the key from the fw_cfg file opt/k does not open /dev/vda (LUKS, ")
            && error.contains("it ends in a new line"),
        "{error}"
    );
}

#[test]
fn an_encrypted_volume_is_a_chain_like_any_other() {
    let mut machine = machine("luks+lvm2:/dev/vault/crypt:key=fw_cfg:opt/k", &["vault"]);
    machine.fw_cfg.push(("opt/k".into(), KEY.into()));
    opens_silently(machine.boot(), "vault");
}

//! `estive-init` as PID 1 of real machines, with a real kernel and a root made by hand.
//!
//! `./x test` sets `ESTIVE_KERNEL_TREE` (a directory with `boot` and `lib/modules`) and
//! `ESTIVE_INIT` (the static program).

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use estive_archive::LayerArchive;
use estive_boot::{Phase, PushReport};
use machine::{Guest, Machine, identity, witness};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A root with one static program and a few files that layers can hide.
fn tiny_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for directory in ["bin", "usr/lib", "etc/opaque", "etc/merged", "etc/private"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    symlink("/usr/lib", at("lib")).unwrap();
    fs::copy(witness(), at("bin/first")).unwrap();
    for file in ["kept", "hidden", "replaced", "opaque/below", "merged/below"] {
        fs::write(at("etc").join(file), "root").unwrap();
    }
    mode(&at("etc/private"), 0o710);
    // Another owner than ours, where we may give one.
    let _ = chown(at("etc/private"), Some(7), Some(8));
    mode(root.path(), 0o755);
    root
}

fn layer() -> LayerArchive {
    let mut layer = LayerArchive::new();
    let filled = layer
        .file("etc/hostname", 0o644, 0, 0, "clone01\n")
        .and_then(|layer| layer.file("etc/replaced", 0o644, 0, 0, "layer"))
        .and_then(|layer| layer.file("etc/private/key", 0o640, 3, 4, "secret"))
        .and_then(|layer| layer.dir("etc/plain", 0o2750, 5, 6))
        .and_then(|layer| layer.file("etc/one", 0o644, 0, 0, "linked"))
        .and_then(|layer| layer.hardlink("etc/two", "etc/one"))
        .and_then(|layer| layer.device("etc/null", 0o666, 0, 0, true, (1, 3)))
        .and_then(|layer| layer.whiteout("etc/hidden"))
        .and_then(|layer| layer.opaque("etc/opaque"))
        .and_then(|layer| layer.file("etc/opaque/above", 0o644, 0, 0, ""))
        .and_then(|layer| layer.file("etc/merged/above", 0o644, 0, 0, ""))
        // More than the first read of the layer disk.
        .and_then(|layer| layer.file("etc/merged/large", 0o644, 0, 0, vec![7; 3 << 20]))
        .map(drop);
    filled.unwrap();
    layer
}

fn facts(guest: &Guest) -> BTreeMap<String, String> {
    guest
        .text("console")
        .lines()
        .filter_map(|line| line.strip_prefix("fact ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn wait_for_facts(guest: &mut Guest) -> BTreeMap<String, String> {
    guest.wait_until("the facts", |guest| {
        guest.text("console").contains("fact end")
    });
    facts(guest)
}

#[test]
fn root_layer_and_memory_are_one_tree() {
    let root = tiny_root();
    let owner = fs::metadata(root.path().join("etc/private")).unwrap();
    let mut machine = Machine::new(root.path());
    machine.layer = layer().finish().unwrap();
    machine.words = vec!["single".into()];
    let mut guest = machine.boot();
    let facts = wait_for_facts(&mut guest);
    let private = {
        use std::os::unix::fs::MetadataExt;
        format!("710 {} {}", owner.uid(), owner.gid())
    };
    for (name, value) in [
        ("pid", "1"),
        ("arguments", "single"),
        ("umask", "022"),
        ("hostname", "clone01"),
        ("mac", "52:54:00:00:00:02"),
        ("up", "0x1003"),
        ("address", "true"),
        ("loopback", "true"),
        ("gateway", "true"),
        ("/etc/hostname", "clone01"),
        ("/etc/kept", "root"),
        ("/etc/hidden", "NotFound"),
        ("/etc/replaced", "layer"),
        ("/.unions/root/etc/hidden", "root"),
        ("/.unions/root/etc/replaced", "root"),
        ("/written", "NotFound"),
        ("memory", "here"),
        ("/etc/opaque", "above"),
        ("/etc/merged", "above,below,large"),
        ("/.unions", "estive,layer,memory,modules,root"),
        ("/", ".unions,bin,dev,etc,lib,proc,run,sys,tmp,usr"),
        ("mode /", "755 0 0"),
        ("mode /etc/private", &private),
        ("mode /etc/private/key", "640 3 4"),
        ("mode /etc/plain", "2750 5 6"),
        ("mode /tmp", "1777 0 0"),
        ("mode /.unions", "700 0 0"),
        ("linked", "true"),
        ("device", "true"),
        ("modules", "true"),
        ("lib", "true"),
        ("initramfs", "false"),
    ] {
        assert_eq!(facts.get(name).map(String::as_str), Some(value), "{name}");
    }
    let report = guest.report();
    let phases: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, Phase::ALL);
    assert!(report.phases.is_sorted_by_key(|(_, uptime_ms)| *uptime_ms));
    assert_eq!((report.failure, report.garbage_lines), (None, 0));
}

/// The layer that the machine of [`a_layer_is_pushed_to_a_running_machine`] lays over itself.
fn pushed_layer() -> Vec<u8> {
    let mut layer = LayerArchive::new();
    layer
        .file("etc/hostname", 0o644, 0, 0, "clone01\n")
        .and_then(|layer| layer.file("etc/kept", 0o644, 0, 0, "pushed"))
        .and_then(|layer| layer.file("etc/own", 0o644, 0, 0, "pushed"))
        .and_then(|layer| layer.file("etc/private/key", 0o600, 3, 4, "new secret"))
        .and_then(|layer| layer.file("etc/one", 0o644, 0, 0, "linked anew"))
        .and_then(|layer| layer.hardlink("etc/three", "etc/one"))
        .and_then(|layer| layer.opaque("etc/merged"))
        .and_then(|layer| layer.file("etc/merged/above", 0o644, 0, 0, ""))
        .map(drop)
        .unwrap();
    layer.finish().unwrap()
}

#[test]
fn a_layer_is_pushed_to_a_running_machine() {
    let root = tiny_root();
    let mut machine = Machine::new(root.path());
    let mut first = layer();
    first.file("push", 0o600, 0, 0, pushed_layer()).unwrap();
    machine.layer = first.finish().unwrap();
    let mut guest = machine.boot();
    wait_for_facts(&mut guest);
    // The root is an EROFS here, and the kernel the one that clones have.
    let facts: Vec<(String, String)> = guest
        .text("console")
        .lines()
        .filter_map(|line| line.strip_prefix("fact ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let of = |name: &str| -> Vec<&str> {
        let of = facts.iter().filter(|(fact, _)| fact == name);
        of.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(of("push error"), [""; 2]);
    for (name, value) in [
        ("pushed /etc/kept", "pushed"),
        ("pushed /etc/hidden", "root"),
        ("pushed /etc/replaced", "root"),
        ("pushed /etc/private/key", "new secret"),
        ("pushed /etc/own", "the clone's"),
        ("pushed /etc/opaque", "below"),
        ("pushed /etc/merged", "above"),
        ("pushed linked", "true"),
    ] {
        assert_eq!(of(name), [value; 2], "{name}");
    }
    let reports: Vec<PushReport> = of("pushed")
        .iter()
        .map(|report| PushReport::parse(report.as_bytes()).unwrap())
        .collect();
    let left = |report: &PushReport| -> Vec<String> {
        report.left.iter().map(|left| left.path.clone()).collect()
    };
    assert!(!reports[0].did_nothing(), "{:?}", reports[0]);
    assert_eq!(left(&reports[0]), ["etc/own"]);
    assert!(reports[0].removed.contains(&"push".to_owned()));
    assert!(reports[1].did_nothing(), "{:?}", reports[1]);
    assert_eq!(left(&reports[1]), ["etc/own"]);
}

#[test]
fn the_identity_may_come_late_by_its_port() {
    let mut machine = Machine::new(tiny_root().path());
    machine.layer = layer().finish().unwrap();
    machine.fw_cfg = None;
    let mut guest = machine.boot();
    guest.wait_until("the wait for an identity", |guest| {
        guest.text("console").contains("waiting for the identity")
    });
    assert_eq!(guest.report().uptime_ms(Phase::Identity), None);
    guest.tell(&identity());
    assert_eq!(wait_for_facts(&mut guest)["hostname"], "clone01");
}

#[test]
fn a_modules_disk_for_another_kernel_is_left_out() {
    let root = tiny_root();
    let mut machine = Machine::new(root.path());
    machine.layer = layer().finish().unwrap();
    // The image of the root has no directory named after this kernel.
    machine.modules = machine.root.clone();
    let mut guest = machine.boot();
    let facts = wait_for_facts(&mut guest);
    assert_eq!(
        (facts["modules"].as_str(), facts["/.unions"].as_str()),
        ("false", "estive,layer,memory,root")
    );
}

/// Boots a machine that cannot come up, and says what it stopped at.
fn stops(spoil: impl FnOnce(&mut Machine)) -> (Phase, String) {
    let root = tiny_root();
    let mut machine = Machine::new(root.path());
    spoil(&mut machine);
    let mut guest = machine.boot();
    guest.wait_until("a failure", |guest| guest.report().failure.is_some());
    let failure = guest.report().failure.unwrap();
    let console = guest.text("console");
    assert!(
        console.contains(&format!("estive-init: error: {}", failure.error)),
        "{console}"
    );
    (failure.phase, failure.error)
}

#[test]
fn an_identity_that_is_wrong_is_said() {
    let (phase, error) = stops(|machine| machine.fw_cfg = Some(identity().replace("/24", "/99")));
    assert_eq!(phase, Phase::Identity);
    assert!(
        error.contains("from fw_cfg") && error.contains("10.0.2.15/99"),
        "{error}"
    );
}

#[test]
fn a_layer_disk_with_no_layer_is_said() {
    let (phase, error) = stops(|machine| machine.layer.clear());
    assert_eq!(phase, Phase::Layer);
    assert!(error.contains("holds no layer"), "{error}");
}

#[test]
fn a_layer_that_is_cut_short_is_said() {
    let (phase, error) = stops(|machine| {
        machine.layer = layer().finish().unwrap();
        let half = machine.layer.len() / 2;
        machine.layer.truncate(half);
    });
    assert_eq!(phase, Phase::Layer);
    assert!(error.contains("the layer disk: no newc header"), "{error}");
}

#[test]
fn a_root_that_is_not_sealed_is_said() {
    let (phase, error) = stops(|machine| fs::write(&machine.root, vec![0; 1 << 20]).unwrap());
    assert_eq!(phase, Phase::Root);
    assert!(error.contains("must be an EROFS image"), "{error}");
}

#[test]
fn a_root_without_an_init_is_said() {
    let (phase, error) = stops(|machine| machine.init = None);
    assert_eq!(phase, Phase::Switch);
    assert!(
        error.contains("/sbin/init") && error.contains("estive.init="),
        "{error}"
    );
}

#[test]
fn an_init_that_cannot_run_is_said() {
    let (phase, error) = stops(|machine| {
        let mut layer = LayerArchive::new();
        layer
            .file("etc/bad", 0o755, 0, 0, "#!/no/interpreter\n")
            .unwrap();
        machine.layer = layer.finish().unwrap();
        machine.init = Some("/etc/bad".into());
    });
    assert_eq!(phase, Phase::Switch);
    assert!(error.contains("running /etc/bad"), "{error}");
}

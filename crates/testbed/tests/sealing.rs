//! Sealing `/` of a system in which packages are installed, upgraded, removed and purged all the while: each image boots
//! to its services, every file of it is whole, and dpkg's data base is what a loss of power could have left, which dpkg
//! itself mends.
//!
//! The system is a copy of the reference's root, on the disk that the build is on. The packages are made here, with
//! scripts, a trigger, a user of their own and a few hundred files. `ESTIVE_SEALS=N` seals and boots N times.
#![allow(clippy::disallowed_methods)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::{boot_parts, on_guests, place, run, stderr, stdout, told};
use estive_boot::KernelTree;
use serde_json::Value;

/// What everybody's suite has time for.
const SEALS: usize = 5;
const PACKAGES: [(&str, &str); 3] = [("a", "1"), ("a", "2"), ("b", "1")];
const FILES: usize = 120;
const LINES: usize = 300;
/// In the system: the packages that are installed and removed.
const DEBS: &str = "usr/lib/estive-load";
/// In the system: the number of the step that the load is at.
const STEP: &str = "etc/estive-load-step";
/// A boot takes ten seconds alone; with what it checks, on a busy machine, ten times that, and some.
const BOOT_BOUND_S: &str = "240";

#[test]
fn what_is_sealed_while_packages_are_installed_boots() {
    if !common::is_root() {
        return on_guests("inside_sealing");
    }
    // Here, where nothing of it is mounted; one that was killed has left its own.
    remove_home();
    on_guests("inside_sealing");
    remove_home();
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealing")
}

fn remove_home() {
    does("rm", &["-rf", "--one-file-system", &shown(&home())]);
}

#[test]
#[ignore = "runs inside an outer namespace"]
fn inside_sealing() {
    let seals = std::env::var("ESTIVE_SEALS").map_or(SEALS, |count| count.parse().unwrap());
    let system = System::copy();
    let packages = system.packages();
    assert!(packages > 50, "{packages} packages");
    let mut load = system.start_load();
    let images: Vec<PathBuf> = (1..=seals)
        .map(|number| {
            system.wait_for_another_step(&mut load);
            let before = system.dpkg_has_done();
            let sealed = system.seal();
            assert!(
                load.0.try_wait().unwrap().is_none() && system.dpkg_has_done() > before,
                "nothing was installed meanwhile: {}",
                system.load_log()
            );
            let how = &sealed["consistency"];
            println!(
                "seal {number}: at one instant: {}, {} walks, torn: {}, still changing: {}",
                how["one_instant"], how["rounds"], how["torn"], how["changing_count"]
            );
            // dpkg puts each file aside and renames it: nothing that it keeps is ever half there.
            for torn in how["torn"].as_array().unwrap() {
                let torn = torn.as_str().unwrap();
                assert!(
                    !torn.starts_with("/etc/") && !torn.starts_with("/var/lib/dpkg/"),
                    "{torn} is torn"
                );
            }
            let path = Path::new(sealed["path"].as_str().unwrap());
            system.images.join(path.file_name().unwrap())
        })
        .collect();
    system.end_load(&mut load);
    let shown: BTreeSet<&PathBuf> = images.iter().collect();
    assert_eq!(shown.len(), seals, "each showed another moment: {images:?}");
    let guest = Guest::prepare();
    for (number, image) in images.iter().enumerate() {
        guest.boots(number + 1, image, packages);
    }
}

/// A root in which programs run, on the disk of the build: what is written there behaves as on any machine.
struct System {
    home: PathBuf,
    root: PathBuf,
    /// Seen in it as `/mnt`, with the program that seals.
    images: PathBuf,
}

impl System {
    fn copy() -> Self {
        let home = home();
        let (root, images) = (home.join("root"), home.join("images"));
        fs::create_dir_all(&images).unwrap();
        let reference = told("ESTIVE_REFERENCE_ROOT");
        does("cp", &["-a", &shown(&reference), &shown(&root)]);
        fs::copy(told("ESTIVE_BIN"), images.join("estive")).unwrap();
        // They go with this mount namespace, whoever kills it. Nothing of the machine's own is below the root.
        let below = |name: &str| shown(&root.join(name));
        does("mount", &["--bind", &shown(&images), &below("mnt")]);
        does("mount", &["-t", "proc", "proc", &below("proc")]);
        does("mount", &["-t", "tmpfs", "dev", &below("dev")]);
        for (node, minor) in [
            ("null", "3"),
            ("zero", "5"),
            ("random", "8"),
            ("urandom", "9"),
        ] {
            let node = below(&format!("dev/{node}"));
            does("mknod", &["-m", "666", &node, "c", "1", minor]);
        }
        let system = Self { home, root, images };
        system.make_packages();
        system
    }

    /// A program of the system, in it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command
            .arg(&self.root)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    fn make_packages(&self) {
        fs::create_dir_all(self.root.join(DEBS)).unwrap();
        for (name, version) in PACKAGES {
            let tree = self.home.join("package");
            let _ = fs::remove_dir_all(&tree);
            let (control, data) = (
                tree.join("DEBIAN"),
                tree.join(format!("usr/share/estive-load-{name}")),
            );
            for directory in [&control, &data] {
                fs::create_dir_all(directory).unwrap();
            }
            let text = format!(
                "Package: estive-load-{name}\nVersion: {version}\nArchitecture: all\nMaintainer: Estive <estive@example.org>\n\
                 Description: files that come and go\n"
            );
            fs::write(control.join("control"), text).unwrap();
            fs::write(control.join("triggers"), "activate-noawait ldconfig\n").unwrap();
            let scripts = [
                (
                    "postinst",
                    "id estive-load >/dev/null 2>&1 || useradd --system --no-create-home estive-load",
                ),
                (
                    "postrm",
                    "test \"$1\" != purge || userdel estive-load >/dev/null 2>&1 || true",
                ),
            ];
            for (script, does) in scripts {
                let path = control.join(script);
                fs::write(&path, format!("#!/bin/sh\nset -e\n{does}\n")).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let line = format!("{name} {version} {}\n", "x".repeat(60));
            for number in 0..FILES {
                fs::write(data.join(format!("{number:03}")), line.repeat(LINES)).unwrap();
            }
            let deb = self.root.join(DEBS).join(format!("{name}_{version}.deb"));
            let (tree, deb) = (shown(&tree), shown(&deb));
            does(
                "dpkg-deb",
                &["--root-owner-group", "-Znone", "--build", &tree, &deb],
            );
        }
    }

    /// Those that are no part of the load.
    fn packages(&self) -> usize {
        let listed = self.command(&["dpkg-query", "-W"]).output().unwrap();
        let listed = succeeded("dpkg-query", &listed);
        listed.lines().count()
    }

    fn start_load(&self) -> Load {
        let log = fs::File::create(self.images.join("load.log")).unwrap();
        let script = format!(
            "set -e; cd /{DEBS}; n=0; step() {{ n=$((n + 1)); echo $n >/{STEP}.new; mv /{STEP}.new /{STEP}; dpkg \"$@\"; }}; \
             while test ! -e /run/end-load; do step -i a_1.deb b_1.deb; step -i a_2.deb; \
             step -r estive-load-b; step -P estive-load-a; step -P estive-load-b; done"
        );
        let child = self
            .command(&["sh", "-c", &script])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Load(child.unwrap())
    }

    fn end_load(&self, load: &mut Load) {
        fs::write(self.root.join("run/end-load"), "").unwrap();
        let ended = load.0.wait().unwrap();
        assert!(ended.success(), "{}", self.load_log());
    }

    fn load_log(&self) -> String {
        fs::read_to_string(self.images.join("load.log")).unwrap_or_default()
    }

    /// A seal keeps no times, so two of the same step of the load may well be the same bytes; two of different steps
    /// never are, unless one holds what was read for the other.
    fn wait_for_another_step(&self, load: &mut Load) {
        let now = || fs::read_to_string(self.root.join(STEP)).unwrap_or_default();
        let before = now();
        while now() == before {
            let ended = load.0.try_wait().unwrap();
            assert!(ended.is_none(), "the load ended: {}", self.load_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What dpkg has noted down so far.
    fn dpkg_has_done(&self) -> u64 {
        fs::metadata(self.root.join("var/log/dpkg.log")).map_or(0, |log| log.len())
    }

    fn seal(&self) -> Value {
        let arguments = "/mnt/estive --output json seal / --out /mnt --no-scan";
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let sealed = self.command(&arguments).output().unwrap();
        serde_json::from_str(&succeeded("estive seal", &sealed)).unwrap()
    }
}

/// Ended with the test, however that ends.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What looks at each image from inside, once its services run. What was cut off in the middle of an unpacking is not
/// configured before it is installed again (dpkg's `reinstreq`).
const CHECK: &str = r#"#!/bin/sh
say() { echo "checked: $*" >/dev/console; }
say "ssh $(systemctl is-active ssh)"
dpkg -l >/run/listed 2>/run/said; say "listed $?"
say "packages $(dpkg-query -W -f '${Package}\n' | grep -vc '^estive-load-')"
dpkg-query -W -f '${Package} ${Status}\n' | grep -v ' install ok installed$' | while read -r line; do say "unfit $line"; done
dpkg --audit >>/run/said 2>&1
while read -r line; do say "dpkg says: $line"; done </run/said
say "torn $(find /usr/share/estive-load-* -type f ! -name '*.dpkg-*' -exec awk '
  FNR == 1 { if (file && count != LINES) print file; file = FILENAME; first = $0 } { count = FNR }
  $0 != first { print FILENAME } END { if (file && count != LINES) print file }' {} + 2>/dev/null | sort -u | tr '\n' ' ')"
say "accounts $(awk -F: 'NF != 7' /etc/passwd | wc -l) $(id -u root)"
ldconfig -p >/dev/null; say "libraries $?"
{ dpkg --configure -a; dpkg -i /DEBS/a_2.deb /DEBS/b_1.deb && dpkg --configure -a; } >/run/said 2>&1; say "mended $? $(tail -1 /run/said)"
say "left $(dpkg --audit | wc -l)"
systemctl poweroff -f
"#;

const UNIT: &str =
    "[Unit]\nAfter=ssh.service\n[Service]\nType=oneshot\nExecStart=/usr/lib/estive-check\n";

/// How an image is booted.
struct Guest {
    parts: PathBuf,
    initramfs: PathBuf,
    modules: PathBuf,
}

impl Guest {
    fn prepare() -> Self {
        does("ip", &["link", "set", "lo", "up"]);
        let parts = place("sealing");
        let tree = KernelTree::find(&told("ESTIVE_KERNEL_TREE")).unwrap();
        let modules = tree.modules.parent().unwrap();
        let modules = estive_exports::modules::image(Some(modules), &parts).unwrap();
        let set = parts.join("herd/sets/checked");
        let units = set.join("etc/systemd/system");
        fs::create_dir_all(units.join("multi-user.target.wants")).unwrap();
        fs::create_dir_all(set.join("usr/lib")).unwrap();
        let check = set.join("usr/lib/estive-check");
        let text = CHECK.replace("/DEBS", &format!("/{DEBS}"));
        fs::write(&check, text.replace("LINES", &LINES.to_string())).unwrap();
        fs::set_permissions(check, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(units.join("estive-check.service"), UNIT).unwrap();
        let wanted = units.join("multi-user.target.wants/estive-check.service");
        symlink("../estive-check.service", wanted).unwrap();
        let herd = "name: sealed\nmemory_mib: 512\nsets: [base-debian, checked]\nhosts: {clone01: {gateway: 10.77.0.1}}\n";
        fs::write(parts.join("herd/herd.yaml"), herd).unwrap();
        Self {
            initramfs: boot_parts(&tree, &parts),
            modules: modules.path,
            parts,
        }
    }

    /// It comes up, and what it finds in itself is sound.
    fn boots(&self, number: usize, image: &Path, packages: usize) {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "10", BOOT_BOUND_S])
            .arg(told("ESTIVE_BIN"))
            .args(["try", "clone01", "--herd"])
            .arg(self.parts.join("herd"))
            .arg("--state")
            .arg(self.parts.join("state"))
            .arg("--root")
            .arg(image)
            .arg("--kernel")
            .arg(told("ESTIVE_KERNEL_TREE"))
            .arg("--initramfs")
            .arg(&self.initramfs)
            .arg("--modules")
            .arg(&self.modules)
            .arg("--accel")
            .arg(told("ESTIVE_ACCEL"))
            .stdin(Stdio::null());
        let ended = command.output().unwrap();
        let console = stdout(&ended);
        let checked: Vec<&str> = console
            .lines()
            .filter_map(|line| line.split_once("checked: "))
            .map(|(_, said)| said.trim())
            .collect();
        println!("image {number}:\n  {}", checked.join("\n  "));
        let all = || format!("{console}\n{}", stderr(&ended));
        assert!(ended.status.success(), "{}", all());
        let packages = format!("packages {packages}");
        for fact in [
            "ssh active",
            "listed 0",
            &packages,
            "torn",
            "accounts 0 0",
            "libraries 0",
            "left 0",
        ] {
            assert!(checked.contains(&fact), "not {fact:?}: {}", all());
        }
        let mended = |said: &&str| said.starts_with("mended 0");
        assert!(checked.iter().any(mended), "{}", all());
        // Only what was being installed, and what waits for its triggers or was at them, is half done.
        for unfit in checked
            .iter()
            .filter_map(|said| said.strip_prefix("unfit "))
        {
            assert!(
                unfit.starts_with("estive-load-")
                    || unfit.contains(" triggers-")
                    || unfit == "libc-bin install ok half-configured",
                "{unfit}: {}",
                all()
            );
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn does(program: &str, arguments: &[&str]) {
    succeeded(program, &run(program, arguments));
}

fn succeeded(program: &str, output: &Output) -> String {
    assert!(
        output.status.success(),
        "{program} ended with {}: {}",
        output.status,
        stderr(output)
    );
    stdout(output)
}

//! What a script sees and what becomes of what it leaves, in a root made of this machine's programs.

mod common;

use std::fs;
use std::process::Command;

use common::{Bench, install, is_root};
use estive_sandbox::{OutputNode, SandboxError, Worker};

fn file(mode: u32, text: &str) -> OutputNode {
    OutputNode::File {
        mode,
        bytes: text.as_bytes().to_vec(),
    }
}

#[test]
fn it_sees_its_variables_the_set_and_the_reference() {
    let bench = Bench::new("sees");
    let said = bench.prints(
        "#!/bin/sh
{ cat; echo; cat /etc/marker /estive/set/etc/link; pwd; id -u; hostname; ls /; ls /dev; } > said",
    );
    assert_eq!(
        said,
        "{\"clone\":{\"name\":\"clone01\"}}\nof the reference\nhello {{ clone.name }}\n/estive/out\n0\nsandbox\n\
         bin\ndev\nestive\netc\nhome\nlib\nlib64\nproc\nsbin\ntmp\nusr\n\
         full\nnull\nrandom\nurandom\nzero\n"
    );
    let said = bench
        .prints("#!/usr/bin/perl\nopen F, '>said'; print F \"$_=$ENV{$_}\\n\" for sort keys %ENV;");
    assert_eq!(
        said,
        "HOME=/tmp\nLANG=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    );
}

#[test]
fn what_it_leaves_is_kept_as_files_directories_and_links() {
    let bench = Bench::new("leaves");
    let script = "#!/bin/sh
set -e
mkdir -p etc/conf.d var/empty
echo one > etc/conf.d/a
chmod 600 etc/conf.d/a
ln etc/conf.d/a etc/conf.d/b
ln -s /usr/bin/sh etc/shell
ln -s ../etc/shell var/up
: > etc/.wh.motd
chmod 1777 var/empty
echo only for me > /tmp/scratch
";
    let output = bench.run(script).unwrap();
    let link = |target: &str| OutputNode::Symlink {
        target: target.to_owned(),
    };
    let directory = |mode| OutputNode::Directory { mode };
    let expected = [
        ("etc", directory(0o755)),
        ("etc/.wh.motd", file(0o644, "")),
        ("etc/conf.d", directory(0o755)),
        ("etc/conf.d/a", file(0o600, "one\n")),
        (
            "etc/conf.d/b",
            OutputNode::HardLink {
                target: "etc/conf.d/a".to_owned(),
            },
        ),
        ("etc/shell", link("/usr/bin/sh")),
        ("var", directory(0o755)),
        ("var/empty", directory(0o1777)),
        ("var/up", link("../etc/shell")),
    ];
    let left: Vec<_> = output
        .nodes
        .iter()
        .map(|(path, node)| (path.as_str(), node.clone()))
        .collect();
    assert_eq!(left, expected);
    assert_eq!(bench.run(script).unwrap(), output, "the same twice");
}

#[test]
fn a_script_that_fails_is_named_with_its_words() {
    let bench = Bench::new("fails");
    let error =
        bench.fails("#!/bin/sh\necho looked for the logger\necho no logger here >&2\nexit 3\n");
    assert!(
        error.ends_with(": ended with the exit code 3: looked for the logger; no logger here"),
        "{error}"
    );
    let error = bench.fails("#!/usr/bin/python9\n");
    assert!(error.contains("no such interpreter"), "{error}");
    let error = bench.fails("#!/bin/sh\nkill -SEGV $$\n");
    assert!(error.contains("ended by the signal 11"), "{error}");
}

#[test]
fn a_root_that_is_none_is_named() {
    let bench = Bench::new("root");
    for (root, words) in [
        (bench.home().join("nowhere"), "No such file"),
        ("/dev/null".into(), "neither a directory nor a sealed image"),
        (
            bench.root().join("etc/marker"),
            if is_root() {
                "mounting the sealed image"
            } else {
                "only root"
            },
        ),
    ] {
        let mut request = bench.request("#!/bin/sh\n");
        request.root = root.clone();
        match bench.worker.run_script(&request) {
            Err(SandboxError::Unmade { what, .. }) => {
                assert!(
                    what.contains(words) && what.contains(root.to_str().unwrap()),
                    "{what}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sealed_image_is_a_root_as_well() {
    let bench = Bench::new("image");
    let sealed = estive_exports::seal(&bench.root(), bench.home()).unwrap();
    let mut request = bench.request("#!/bin/sh\ncat /etc/marker > said; ls / > top\n");
    let of_directory = bench.worker.run_script(&request).unwrap();
    request.root = sealed.path.clone();
    let done = bench.worker.run_script(&request);
    if !is_root() {
        assert!(matches!(done, Err(SandboxError::Unmade { .. })));
        return;
    }
    assert_eq!(done.unwrap(), of_directory);
    // The loop device went with the last mount.
    for device in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        assert!(!file.contains(sealed.path.to_str().unwrap()), "{device:?}");
    }
}

#[test]
fn an_ordinary_user_may_run_scripts_too() {
    if !is_root() {
        return; // Every other test shows it.
    }
    let mut bench = Bench::new("user");
    // Where the program was built others may not look; and neither may they into our home for other files.
    let program = bench.home().join("program");
    install(&bench.worker.program, &program);
    let user = bench.home().join("as-user");
    let text = format!(
        "#!/bin/sh\nexec setpriv --reuid 54321 --regid 54321 --clear-groups {} \"$@\"\n",
        program.display()
    );
    let written = bench.home().join("text");
    fs::write(&written, text).unwrap();
    install(&written, &user);
    bench.worker = Worker::of(user);
    let said = bench.prints(
        "#!/bin/sh\n{ id -u; cat /etc/marker; touch /etc/x && echo written; ls /dev; } > said 2>&1",
    );
    assert!(said.starts_with("0\nof the reference\ntouch: "), "{said}");
    assert!(
        said.ends_with("zero\n") && !said.contains("written"),
        "{said}"
    );
}

#[test]
fn whoever_asks_and_dies_takes_everything_along() {
    let bench = Bench::new("dies");
    let asked = rmp_serde::to_vec_named(&bench.request("#!/bin/sh\nsleep 1000 & wait\n")).unwrap();
    let file = bench.home().join("request");
    fs::write(&file, asked).unwrap();
    let mut keeper = Command::new(&bench.worker.program)
        .args(["sandbox", "script", &std::process::id().to_string()])
        .stdin(fs::File::open(&file).unwrap())
        .spawn()
        .unwrap();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..3000 {
            if holds() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{what}");
    };
    let names = || common::processes_named(&bench.name);
    until("the script runs", &|| !names().is_empty());
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    until("the script ends", &|| names().is_empty());
}

//! `estive-init apply` on the kernel's own overlayfs: what becomes of a clone that a layer is pushed
//! to. Each test has a mount namespace of its own, which takes root.

mod bed;
mod random;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use bed::{Clone, End, in_own_namespace};
use estive_archive::{LayerArchive, MANIFEST_PATH, Member, Service, Writer};
use estive_boot::push::WhyLeft;
use rustix::fs::{FlockOperation, flock};

fn layer(fill: impl FnOnce(&mut LayerArchive)) -> Vec<u8> {
    let mut layer = LayerArchive::new();
    fill(&mut layer);
    layer.finish().unwrap()
}

fn file(layer: &mut LayerArchive, path: &str, content: &str) {
    layer.file(path, 0o644, 0, 0, content).unwrap();
}

/// Of a name that no machine has: it is told for real.
fn service() -> Service {
    Service {
        files: vec!["etc/nginx/**".into(), "var/www/**".into()],
        restart: vec!["estive-none".into()],
        reload: vec![],
    }
}

/// A root with something at every place that the layers below change.
fn root(at: &std::path::Path) {
    for directory in [
        "etc/nginx",
        "etc/opaque/deep",
        "etc/hidden/deep",
        "etc/swap",
        "var/www",
        "usr/lib",
    ] {
        fs::create_dir_all(at.join(directory)).unwrap();
    }
    for file in [
        "etc/hosts",
        "etc/nginx/nginx.conf",
        "etc/opaque/a",
        "etc/opaque/deep/b",
        "etc/hidden/a",
        "etc/hidden/deep/b",
        "etc/swap/a",
        "etc/plain",
        "var/www/index.html",
        "usr/lib/x",
    ] {
        fs::write(at.join(file), format!("root's {file}")).unwrap();
    }
    symlink("usr/lib", at.join("lib")).unwrap();
}

/// The layer that the clone starts with.
fn first() -> Vec<u8> {
    layer(|layer| {
        file(layer, "etc/hostname", "clone01\n");
        file(layer, "etc/hosts", "first hosts");
        file(layer, "etc/nginx/nginx.conf", "first conf");
        file(layer, "var/www/index.html", "first page");
        file(layer, "var/www/gone.html", "only in the first");
        layer.file("etc/one", 0o644, 0, 0, "linked").unwrap();
        layer.hardlink("etc/two", "etc/one").unwrap();
        layer.symlink("etc/link", "hosts").unwrap();
        layer.whiteout("etc/hidden").unwrap();
        layer.dir("etc/own", 0o750, 1, 2).unwrap();
        file(layer, "etc/swap/a", "was a file");
        file(layer, "etc/turn", "a file that becomes a directory");
        layer.service(service()).unwrap();
    })
}

/// The layer that is pushed: every kind of change.
fn second() -> Vec<u8> {
    layer(|layer| {
        file(layer, "etc/hostname", "clone01\n");
        layer
            .file("etc/hosts", 0o600, 5, 6, "second hosts")
            .unwrap();
        file(layer, "etc/nginx/nginx.conf", "second conf");
        file(layer, "etc/nginx/new.conf", "new");
        file(layer, "var/www/index.html", "second page");
        layer.file("etc/one", 0o644, 0, 0, "linked anew").unwrap();
        layer.hardlink("etc/three", "etc/one").unwrap();
        layer.symlink("etc/link", "hostname").unwrap();
        layer.whiteout("etc/plain").unwrap();
        layer.opaque("etc/opaque").unwrap();
        file(layer, "etc/opaque/new", "the only one");
        layer.dir("etc/own", 0o2700, 3, 4).unwrap();
        layer.xattr("etc/own", "trusted.t", "value").unwrap();
        layer.symlink("etc/swap", "own").unwrap();
        file(layer, "etc/turn/inside", "a directory now");
        layer.device("etc/null", 0o666, 0, 0, true, (1, 3)).unwrap();
        layer.service(service()).unwrap();
    })
}

#[test]
fn a_push_makes_the_clone_what_a_start_would() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        let started = Clone::start(root, &second()).unwrap();
        let report = clone.push(&second()).report();
        assert_eq!(report.left, []);
        assert_eq!(clone.dump(), started.dump());
        let told: Vec<(&str, &str)> = report
            .services
            .iter()
            .map(|told| (told.name.as_str(), told.act.as_str()))
            .collect();
        assert_eq!(told, [("estive-none", "restart")]);
        // There is none of that name, and nothing else fails for it.
        assert!(report.services[0].failure.is_some());
        assert_eq!(clone.inode("etc/one"), clone.inode("etc/three"));
        // Un-hidden again, with the root's own time.
        let times = |path: &std::path::Path| path.metadata().unwrap().mtime();
        assert_eq!(
            times(&clone.at("etc/hidden/deep/b")),
            times(&clone.root().join("etc/hidden/deep/b"))
        );

        let again = clone.push(&second()).report();
        assert!(again.did_nothing() && again.left.is_empty(), "{again:?}");
        // And back, to the very files of the root and of the first layer.
        let back = clone.push(&first()).report();
        assert_eq!(back.left, []);
        assert_eq!(clone.dump(), Clone::start(root, &first()).unwrap().dump());
    });
}

#[test]
fn what_the_clone_changed_is_left_and_said() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        fs::write(clone.at("var/www/index.html"), "my page").unwrap();
        fs::remove_file(clone.at("etc/hosts")).unwrap();
        fs::write(clone.at("etc/nginx/new.conf"), "my own").unwrap();
        fs::write(clone.at("etc/swap/mine"), "in the way").unwrap();
        fs::write(clone.at("etc/opaque/mine"), "not in the way").unwrap();
        let report = clone.push(&second()).report();
        let left = |path: &str| {
            let left = report.left.iter().find(|left| left.path == path);
            let left = left.unwrap_or_else(|| panic!("{path}: {report:?}"));
            assert_eq!(left.why, WhyLeft::Own);
            left.reason.clone()
        };
        assert_eq!(left("var/www/index.html"), "changed in the clone");
        assert_eq!(left("etc/hosts"), "removed in the clone");
        assert_eq!(left("etc/nginx/new.conf"), "made in the clone");
        assert_eq!(left("etc/swap/mine"), "made in the clone");
        assert_eq!(left("etc/swap"), "it holds what is the clone's own");
        assert_eq!(report.left.len(), 5, "{report:?}");
        let text = |path: &str| fs::read_to_string(clone.at(path)).unwrap();
        assert_eq!(text("var/www/index.html"), "my page");
        assert_eq!(text("etc/nginx/new.conf"), "my own");
        assert_eq!(text("etc/swap/mine"), "in the way");
        assert_eq!(text("etc/opaque/mine"), "not in the way");
        assert_eq!(text("etc/nginx/nginx.conf"), "second conf");
        assert!(!clone.at("etc/hosts").exists() && !clone.at("etc/opaque/a").exists());

        let again = clone.push(&second()).report();
        assert!(again.did_nothing(), "{again:?}");
        assert_eq!(again.left.len(), 5);
        // Given back by the clone, it is ours again.
        fs::write(clone.at("var/www/index.html"), "first page").unwrap();
        let given = clone.push(&second()).report();
        assert_eq!(given.written, ["var/www/index.html"]);
    });
}

#[test]
fn a_push_that_is_killed_at_any_step_is_made_good() {
    in_own_namespace(|| {
        let (before, after) = (
            Clone::start(root, &first()).unwrap().dump(),
            Clone::start(root, &second()).unwrap().dump(),
        );
        let mut step = 0;
        loop {
            step += 1;
            let clone = Clone::start(root, &first()).unwrap();
            let end = clone.push_until(step, &second());
            for (path, print) in clone.dump() {
                // A file is the one or the other, never a part; only a directory changes by steps.
                let known = [before.get(&path), after.get(&path)].contains(&Some(&print));
                assert!(
                    known || print.starts_with("directory "),
                    "step {step}: {path} is {print:?}"
                );
            }
            if !matches!(end, End::Killed) {
                assert_eq!(end.report().left, []);
                break;
            }
            let record = fs::read_to_string(clone.at(".unions/pushed")).unwrap_or_default();
            let is_over = !record.is_empty() && !record.contains("\"due\"");
            // The same again, or meanwhile another one.
            let next = if step % 2 == 0 { second() } else { first() };
            let report = clone.push(&next).report();
            assert_eq!(report.left, [], "step {step}");
            let expected = if step % 2 == 0 { &after } else { &before };
            assert_eq!(&clone.dump(), expected, "step {step}");
            let aside = fs::read_dir(clone.at(".unions/aside"));
            assert!(aside.is_err() || aside.unwrap().count() == 0, "step {step}");
            if step % 2 == 0 {
                assert_eq!(report.services.is_empty(), is_over, "step {step}");
            }
            assert!(clone.push(&next).report().did_nothing());
        }
        assert!(step > 60, "only {step} step");
    });
}

#[test]
fn pushes_that_are_killed_one_after_the_other_are_made_good() {
    in_own_namespace(|| {
        let hosts = |text: &str| layer(|layer| file(layer, "etc/hosts", text));
        let mut tried = 0;
        for one in 1.. {
            let mut is_over = false;
            for two in 1.. {
                let clone = Clone::start(|_| (), &hosts("first")).unwrap();
                let text = || fs::read_to_string(clone.at("etc/hosts")).unwrap();
                is_over |= !matches!(clone.push_until(one, &hosts("second")), End::Killed);
                let second = clone.push_until(two, &hosts("third"));
                let is_third = text() == "third";
                // Neither is the clone's own, whichever of them put it there.
                let report = clone.push(&hosts("fourth")).report();
                assert_eq!(report.left, [], "killed at {one} and {two}");
                assert_eq!(text(), "fourth", "killed at {one} and {two}");
                tried += 1;
                // From there on it is as after one.
                if is_third || !matches!(second, End::Killed) {
                    break;
                }
            }
            if is_over {
                break;
            }
        }
        assert!(tried > 60, "{tried}");
    });
}

#[test]
fn what_the_clone_writes_while_it_is_pushed_to_is_its_own() {
    in_own_namespace(|| {
        let (mut step, mut written) = (0, 0);
        loop {
            step += 1;
            let clone = Clone::start(root, &first()).unwrap();
            let page = clone.at("var/www/index.html");
            let gone = clone.at("var/www/gone.html");
            let is = |path: &std::path::Path, text: &str| {
                fs::read_to_string(path).is_ok_and(|found| found == text)
            };
            let (mut is_halted, mut own) = (false, Vec::new());
            let end = clone.push_halted_at(step, &second(), || {
                is_halted = true;
                for (path, text) in [(&page, "first page"), (&gone, "only in the first")] {
                    if is(path, text) {
                        fs::write(path, "of the clone").unwrap();
                        own.push(path.clone());
                    }
                }
            });
            let report = end.report();
            for path in &own {
                assert!(is(path, "of the clone"), "step {step}: {report:?}");
                written += 1;
            }
            assert_eq!(report.left.len(), own.len(), "step {step}: {report:?}");
            if !is_halted {
                break;
            }
        }
        assert!(written > 60, "written {written} times in {step} steps");
    });
}

#[test]
fn nothing_is_written_outside() {
    in_own_namespace(|| {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("hosts"), "untouched").unwrap();
        let clone = Clone::start(root, &first()).unwrap();
        // The clone's own links lead out.
        fs::rename(clone.at("var"), clone.at("old")).unwrap_err();
        fs::remove_dir_all(clone.at("etc/nginx")).unwrap();
        symlink(outside.path(), clone.at("etc/nginx")).unwrap();
        fs::remove_file(clone.at("etc/hosts")).unwrap();
        symlink(outside.path().join("hosts"), clone.at("etc/hosts")).unwrap();
        let report = clone.push(&second()).report();
        let own: Vec<&str> = report.left.iter().map(|left| left.path.as_str()).collect();
        assert_eq!(own, ["etc/hosts", "etc/nginx"]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);

        // So do those of an archive that no builder would make.
        let target = outside.path().to_str().unwrap();
        let plain = r#"{"version":1}"#;
        let through = r#"{"version":1,"xattrs":{"d/hosts":{"user.x":"eQ=="}}}"#;
        let implied = r#"{"version":1,"implied":["d"]}"#;
        let cases = [
            (
                plain,
                vec![
                    Member::symlink("d", target),
                    Member::file("d/new", 0o644, b"x"),
                ],
            ),
            (
                plain,
                vec![
                    Member::symlink("d", ".."),
                    Member::directory("d/new", 0o755),
                ],
            ),
            (plain, vec![Member::file("no/parent", 0o644, b"x")]),
            (
                plain,
                vec![
                    Member::file("a", 0o644, b"x"),
                    Member::file("a", 0o644, b"y"),
                ],
            ),
            (through, vec![Member::symlink("d", target)]),
            (implied, vec![Member::symlink("d", target)]),
        ];
        let before = clone.dump();
        for (text, members) in cases {
            let mut writer = Writer::new(Vec::new());
            writer
                .add(&Member::file(MANIFEST_PATH, 0o600, text.as_bytes()))
                .unwrap();
            for member in &members {
                writer.add(member).unwrap();
            }
            let archive = writer.finish().unwrap();
            let end = clone.push(&archive);
            assert!(matches!(end, End::Refused(_)), "{members:?}: {end:?}");
        }
        let whole = second();
        clone.push(&whole[..whole.len() / 2]).error();
        clone.push(b"not a layer").error();
        assert_eq!(clone.dump(), before);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(
            fs::read(outside.path().join("hosts")).unwrap(),
            b"untouched"
        );
    });
}

#[test]
fn a_tree_as_deep_as_a_path_can_be_is_walked() {
    in_own_namespace(|| {
        let path = format!("{}leaf", "d/".repeat(2045));
        let deep = layer(|layer| file(layer, &path, "content"));
        let clone = Clone::start(root, &first()).unwrap();
        let report = clone.push(&deep).report();
        assert_eq!(report.left, []);
        assert!(report.written.len() + report.unnamed.written as usize > 2045);
    });
}

#[test]
fn what_stops_a_start_is_refused_whole() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        let through = layer(|layer| {
            file(layer, "etc/hosts", "second hosts");
            file(layer, "lib/x", "through a link of the root");
        });
        let before = clone.dump();
        let error = clone.push(&through).error();
        assert!(
            error.contains("lib, which is a symbolic link in the root"),
            "{}",
            error
        );
        assert_eq!(clone.dump(), before);
    });
}

#[test]
fn what_only_a_start_can_change_waits_for_it() {
    in_own_namespace(|| {
        let identity = |id: &str, page: &str| {
            layer(|layer| {
                file(layer, "etc/machine-id", id);
                file(layer, "tmp/page", page);
                file(layer, "tmp/same", "same");
                file(layer, "etc/bound", page);
                layer.opaque("var").unwrap();
                if page == "second" {
                    file(layer, ".unions/pushed", page);
                }
            })
        };
        let clone = Clone::start(root, &identity("one", "first")).unwrap();
        clone.cover("tmp");
        clone.cover_file("etc/bound");
        let report = clone.push(&identity("two", "second")).report();
        let left: Vec<(&str, WhyLeft)> = report
            .left
            .iter()
            .map(|left| (left.path.as_str(), left.why))
            .collect();
        let expected = [
            ".unions",
            ".unions/pushed",
            "etc/bound",
            "etc/machine-id",
            "tmp/page",
        ];
        assert_eq!(left, expected.map(|path| (path, WhyLeft::NextStart)));
        assert!(report.did_nothing());
        assert_eq!(fs::read_dir(clone.at("tmp")).unwrap().count(), 0);
        assert_eq!(
            fs::read_to_string(clone.at("etc/bound")).unwrap(),
            "covered"
        );
    });
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        fs::write(clone.at("var/www/index.html"), "my page").unwrap();
        let before = clone.dump();
        let foretold = clone.dry_run(&second()).report();
        assert_eq!(clone.dump(), before);
        assert!(!clone.at(".unions/pushed").exists());
        let done = clone.push(&second()).report();
        assert_eq!(
            (&foretold.written, &foretold.removed, &foretold.left),
            (&done.written, &done.removed, &done.left)
        );
        assert_eq!(foretold.services.len(), 1);
        assert_eq!(foretold.services[0].name, "estive-none");
    });
}

#[test]
fn one_push_at_a_time() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        let lock = fs::File::open(clone.at(".unions")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let error = clone.push(&second()).error();
        assert!(error.contains("under way"), "{}", error);
        drop(lock);
        assert_eq!(clone.push(&second()).report().left, []);
    });
}

#[test]
fn a_damaged_record_stops_the_push() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        fs::write(clone.at(".unions/pushed"), "{\"version\":1").unwrap();
        let before = clone.dump();
        let error = clone.push(&second()).error();
        assert!(error.contains("is damaged"), "{}", error);
        assert_eq!(clone.dump(), before);
    });
}

#[test]
fn a_file_that_does_not_fit_is_said_and_the_others_go_on() {
    in_own_namespace(|| {
        let clone = Clone::start(root, &first()).unwrap();
        clone.limit_memory(512 << 10);
        let large = layer(|layer| {
            file(layer, "etc/hostname", "renamed\n");
            layer
                .file("etc/large", 0o644, 0, 0, vec![7; 4 << 20])
                .unwrap();
            file(layer, "var/www/index.html", "second page");
        });
        let report = clone.push(&large).report();
        let failed: Vec<&str> = report.left.iter().map(|left| left.path.as_str()).collect();
        assert_eq!(failed, ["etc/large"], "{report:?}");
        assert_eq!(report.left[0].why, WhyLeft::Failed);
        assert!(!clone.at("etc/large").exists());
        assert_eq!(
            fs::read_to_string(clone.at("var/www/index.html")).unwrap(),
            "second page"
        );
        clone.limit_memory(64 << 20);
        assert_eq!(clone.push(&large).report().written, ["etc/large"]);
    });
}

#[test]
fn a_push_that_restarts_the_guest_agent_ends_well() {
    in_own_namespace(|| {
        let agents = |content: &str| {
            layer(|layer| {
                file(layer, "etc/agent.conf", content);
                let services = ["qemu-guest-agent", "zz-other"].map(str::to_owned);
                layer
                    .service(Service {
                        files: vec!["etc/agent.conf".into()],
                        restart: services.into(),
                        reload: vec![],
                    })
                    .unwrap();
            })
        };
        let clone = Clone::start(root, &agents("first")).unwrap();
        let log = clone.simulate_systemd();
        let report = clone.push(&agents("second")).report();
        assert_eq!(report.written, ["etc/agent.conf"]);
        // What ends whoever would be told comes last.
        let told: Vec<_> = report
            .services
            .iter()
            .map(|told| told.name.as_str())
            .collect();
        assert_eq!(told, ["zz-other", "qemu-guest-agent"]);
        assert!(report.services.iter().all(|told| told.failure.is_none()));
        // Not before the report was read; and the same again does nothing.
        assert_eq!(fs::read_to_string(&log).unwrap(), "try-restart zz-other\n");
        assert!(clone.push(&agents("second")).report().did_nothing());
        let told = "try-restart zz-other\ntry-restart qemu-guest-agent\n";
        // Bounded: some minutes, of which it takes seconds.
        let is_told = (0..2400).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            fs::read_to_string(&log).unwrap() == told
        });
        assert!(is_told, "it is never restarted");
        // Who restarts it lets no other push begin, and is gone a moment later.
        let again = || match clone.push(&agents("second")) {
            End::Refused(error) if error.contains("under way") => None,
            end => Some(end.report()),
        };
        let report = (0..2400).find_map(|_| again());
        assert!(report.is_some_and(|report| report.did_nothing()));
    });
}

//! Rendering in another process: the same layers as here, and templates that take too much named and ended.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use estive_layers::{
    DeploymentSecret, LayerError, OwnSets, Render, RenderHere, RenderRequest, SetKind, SetNode,
    SetTree, herd,
};
use estive_sandbox::{Limits, ScriptRequest, Worker};

/// Tests look at the children of this process: one after another.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn worker() -> Worker {
    Worker::of(env!("CARGO_BIN_EXE_estive-sandbox"))
}

/// A herd of `count` clones with these sets.
fn request(count: usize, sets: &str, own: &OwnSets) -> RenderRequest {
    let text = format!(
        "{{name: d, network: 10.77.0.0/16, sets: [{sets}], hosts: {{\"clone[00001-{count:05}]\": }}}}"
    );
    let herd = herd::parse("herd.yaml", &text, "d").unwrap();
    RenderRequest::new(&herd, own, &DeploymentSecret::new([7; 32])).unwrap()
}

/// One set of one template.
fn own(template: &str) -> OwnSets {
    let file = SetNode::new(0o644, SetKind::File(template.as_bytes().to_vec().into()));
    let tree = SetTree::from_nodes("x", [("etc/x.j2".to_owned(), file)]).unwrap();
    OwnSets::from([("x".to_owned(), tree)])
}

fn fails(worker: &Worker, template: &str) -> String {
    let error = worker.render(&request(3, "x", &own(template))).unwrap_err();
    assert!(matches!(error, LayerError::Elsewhere { .. }), "{error:?}");
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    assert_eq!(children(), Vec::<i32>::new());
    error
}

/// Our own that live.
fn children() -> Vec<i32> {
    let own = std::process::id().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            (parent.trim() == own).then_some(pid)
        })
        .collect()
}

#[test]
fn the_layers_are_the_same_as_here() {
    let _turn = turn();
    let none = OwnSets::new();
    for (count, sets) in [(1, "base-debian, web"), (3, ""), (700, "base-debian")] {
        let request = request(count, sets, &none);
        let here = RenderHere.render(&request).unwrap();
        let there = worker().render(&request).unwrap();
        assert_eq!(there.layers.len(), count);
        assert!(there == here, "{count} clones of {sets} differ");
    }
    let mut request = request(700, "base-debian", &none);
    request.wanted = vec![];
    assert!(worker().render(&request).unwrap().layers.is_empty());
}

#[test]
fn what_fails_here_fails_there_with_the_same_words() {
    let _turn = turn();
    for template in [
        "{{ nothing }}",
        "{% for i in range(10000000) %}{{ clone.name }}{% endfor %}",
    ] {
        let sets = own(template);
        let request = request(3, "x", &sets);
        let here = RenderHere.render(&request).unwrap_err().to_string();
        assert!(here.contains("sets/x/etc/x.j2:1 for clone00001"), "{here}");
        assert_eq!(fails(&worker(), template), here);
    }
}

#[test]
fn memory_is_limited_and_the_template_named() {
    let _turn = turn();
    let doubling = |start: &str| {
        format!(
            "{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}"
        )
    };
    assert_eq!(
        fails(&worker(), &doubling("clone.name")),
        "rendering sets/x/etc/x.j2 for clone00001 passed its memory limit of 512 MiB"
    );
    assert_eq!(
        fails(&worker(), &doubling("'always the same'")),
        "rendering sets/x/etc/x.j2 for any clone passed its memory limit of 512 MiB"
    );
}

/// A step that is long, and counts as one.
fn slow(rounds: usize) -> String {
    format!(
        "{{{{ clone.name }}}}{{% set s = 'x' * 1000000 %}}{{% for i in range({rounds}) %}}\
         {{% set y = s|replace('x', 'y') %}}{{% endfor %}}"
    )
}

#[test]
fn time_is_limited_and_the_template_named() {
    let _turn = turn();
    let mut worker = worker();
    worker.render_limits.template_ms = 1000;
    assert_eq!(
        fails(&worker, &slow(100_000)),
        "rendering sets/x/etc/x.j2 for clone00001 did not end within 1000 ms"
    );
    worker.render_limits.template_ms = 600_000;
    worker.render_limits.cpu_s = 1;
    assert_eq!(
        fails(&worker, &slow(100_000)),
        "rendering sets/x/etc/x.j2 for clone00001 used more than 1 s of processor time"
    );
}

/// As an ordinary user of a machine that gives such no namespaces.
fn worker_without_namespaces(home: &Path) -> Worker {
    let program = home.join("without-namespaces");
    let text = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user sh -c '\
         echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set -all --inh-caps -all {} \"$@\"' sh \"$@\"\n",
        env!("CARGO_BIN_EXE_estive-sandbox")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Worker::of(program)
}

#[test]
fn without_namespaces_it_renders_behind_the_filter_and_runs_no_script() {
    let _turn = turn();
    let home = tempfile::tempdir().unwrap();
    let mut worker = worker_without_namespaces(home.path());
    let request = request(3, "base-debian", &OwnSets::new());
    assert_eq!(
        worker.render(&request).unwrap(),
        RenderHere.render(&request).unwrap()
    );
    worker.render_limits.template_ms = 1000;
    assert!(fails(&worker, &slow(100_000)).contains("did not end within 1000 ms"));
    let script = ScriptRequest {
        script: "sets/x/.scripts/y for a".to_owned(),
        root: home.path().to_owned(),
        program: ".scripts/y".to_owned(),
        set: Arc::default(),
        variables: Vec::new(),
        modes_given: Arc::default(),
        limits: Limits::default(),
    };
    let error = worker.run_script(&script).unwrap_err().to_string();
    assert!(
        error.contains("gives an ordinary user no namespaces"),
        "{error}"
    );
}

#[test]
fn who_renders_has_nothing() {
    let _turn = turn();
    let mut worker = worker();
    worker.render_limits.template_ms = 600_000;
    worker.render_limits.cpu_s = 20;
    let rendering =
        std::thread::spawn(move || worker.render(&request(1, "x", &own(&slow(100_000)))));
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
            .unwrap_or_default()
    };
    let confined = (0..6000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        children().into_iter().find_map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            (field(&status, "Seccomp:") == "2" && field(&status, "Name:").starts_with("estive"))
                .then_some((pid, status))
        })
    });
    let (pid, status) = confined.expect("a process that renders");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    assert_eq!(field(&status, "CapEff:"), "0000000000000000");
    if rustix::process::geteuid().is_root() {
        assert_eq!(field(&status, "CapBnd:"), "0000000000000000");
        let user: u32 = field(&status, "Uid:")
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(user >= 0x7000_0000, "{user}");
        let root = Path::new("/proc").join(pid.to_string()).join("root");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        for kind in ["net", "mnt", "ipc", "uts"] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
        }
    }
    // Once it has worked for half a second it is at the template of the clone: all before is short.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // utime of proc(5), the twelfth field after the name.
        let after_name = stat.rsplit(')').next().unwrap();
        let utime = after_name.split_whitespace().nth(11).unwrap();
        utime.parse::<u64>().unwrap()
    };
    while ticks() < 50 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let error = rendering.join().unwrap().unwrap_err().to_string();
    assert!(
        error.contains(
            "the sandbox of rendering sets/x/etc/x.j2 for clone00001 ended without an answer"
        ),
        "{error}"
    );
}

//! Scripts of a herd's sets: run for each clone, laid between the set's files and the next set, remembered, and refused
//! without a root.

mod common;

use std::fs;

use common::Bench;
use estive_layers::{
    DeploymentSecret, FileSource, LayerError, NodeKind, OwnSets, Render, RenderRequest, Renderer,
    SetKind, SetNode, SetTree, Whence, herd,
};
use estive_sandbox::{ScriptCache, ScriptRoot, Worker};

/// A set of files by path; those of `.scripts` may be executed.
fn set(name: &str, files: &[(&str, &str)]) -> (String, SetTree) {
    let nodes = files.iter().map(|(path, text)| {
        let mode = if path.starts_with(".scripts/") {
            0o755
        } else {
            0o644
        };
        let file = SetNode::new(mode, SetKind::File(text.as_bytes().to_vec().into()));
        ((*path).to_owned(), file)
    });
    (name.to_owned(), SetTree::from_nodes(name, nodes).unwrap())
}

const LOGGER: &str = "#!/bin/sh
set -e
mkdir -p etc/conf.d
if [ -e /usr/sbin/rsyslogd ]; then logger=rsyslog; else logger=none; fi
name=$(perl -0777 -ne 'print $1 if /\"clone\":\\{\"name\":\"([^\"]*)\"/')
echo \"$name logs by $logger\" > etc/conf.d/logger
echo from the script > etc/both
: > etc/.wh.hidden
ln -s conf.d/logger etc/link
ln etc/both etc/a-both
";

fn sets() -> OwnSets {
    OwnSets::from([
        set(
            "lower",
            &[
                ("etc/both", "from the files"),
                ("etc/kept", "kept"),
                (".scripts/10-logger", LOGGER),
                (
                    ".scripts/20-last",
                    "#!/bin/sh\nmkdir etc; echo last > etc/last\n",
                ),
                ("set.yaml", "files: {etc/last: {mode: \"0600\", uid: 7}}"),
            ],
        ),
        set("upper", &[("etc/a-both", "from the next set")]),
    ])
}

fn request(sets: &OwnSets) -> RenderRequest {
    let text = "{name: d, sets: [lower, upper], hosts: {one: , two: }}";
    let herd = herd::parse("herd.yaml", text, "d").unwrap();
    RenderRequest::new(&herd, sets, &DeploymentSecret::new([7; 32])).unwrap()
}

fn with_outputs(bench: &Bench, cache: Option<&ScriptCache>) -> RenderRequest {
    let root = ScriptRoot::new(bench.root());
    let mut request = request(&sets());
    bench
        .worker
        .run_scripts(&mut request, |_| Ok(&root), cache)
        .unwrap();
    request
}

fn text(request: &RenderRequest, clone: &str, path: &str) -> String {
    let tree = Renderer::new(request).unwrap().tree(clone).unwrap();
    match tree.get(path).map(|node| &node.kind) {
        Some(NodeKind::File { bytes, .. }) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn what_a_script_makes_lies_between_its_set_and_the_next() {
    let bench = Bench::new("between");
    let request = with_outputs(&bench, None);
    assert_eq!(
        text(&request, "one", "etc/conf.d/logger"),
        "one logs by none\n"
    );
    assert_eq!(
        text(&request, "two", "etc/conf.d/logger"),
        "two logs by none\n"
    );
    assert_eq!(text(&request, "one", "etc/both"), "from the script\n");
    assert_eq!(text(&request, "one", "etc/a-both"), "from the next set");
    assert_eq!(text(&request, "one", "etc/kept"), "kept");
    let tree = Renderer::new(&request).unwrap().tree("one").unwrap();
    assert!(matches!(
        tree.get("etc/hidden").unwrap().kind,
        NodeKind::Whiteout
    ));
    let last = tree.get("etc/last").unwrap();
    assert_eq!((last.owner.mode, last.owner.uid), (0o600, 7));
    // The worker that renders says the same, and whose each file is.
    let rendered = bench.worker.render(&request).unwrap();
    assert_eq!(
        rendered,
        estive_layers::RenderHere.render(&request).unwrap()
    );
    let head = &rendered.heads[rendered.layers[0].head];
    let Whence::Layer(file) = head.origins.whence("etc/both") else {
        panic!("{:?}", head.origins.whence("etc/both"));
    };
    assert_eq!(
        file.source,
        FileSource::Script {
            set: "lower".into(),
            script: "10-logger".into(),
            path: "etc/both".into()
        }
    );
}

#[test]
fn what_was_made_is_remembered_until_something_changes() {
    let mut bench = Bench::new("remembered");
    let cache = ScriptCache::open(bench.home().join("cache")).unwrap();
    let kept = || fs::read_dir(bench.home().join("cache")).unwrap().count();
    let first = with_outputs(&bench, Some(&cache));
    // Two scripts for two clones.
    assert_eq!(kept(), 4);
    let works = std::mem::replace(&mut bench.worker, Worker::of("/bin/false"));
    assert_eq!(with_outputs(&bench, Some(&cache)), first);
    bench.worker = works;
    fs::write(bench.root().join("usr/sbin/rsyslogd"), "").unwrap();
    let second = with_outputs(&bench, Some(&cache));
    assert_eq!(
        text(&second, "one", "etc/conf.d/logger"),
        "one logs by rsyslog\n"
    );
    assert_eq!(fs::read_dir(bench.home().join("cache")).unwrap().count(), 8);
}

#[test]
fn what_goes_wrong_is_named() {
    let bench = Bench::new("wrong");
    let root = ScriptRoot::new(bench.root());
    let fails = |files: &[(&str, &str)], root: Result<&ScriptRoot, String>| {
        let sets = OwnSets::from([set("lower", files), set("upper", &[])]);
        let mut request = request(&sets);
        let error = bench
            .worker
            .run_scripts(&mut request, |_| root.clone(), None)
            .unwrap_err();
        assert!(request.outputs.is_empty());
        assert!(
            matches!(error, LayerError::Elsewhere { .. } | LayerError::Set { .. }),
            "{error:?}"
        );
        error.to_string()
    };
    let script = |text: &'static str| [(".scripts/10-x", text)];
    assert_eq!(
        fails(&script("#!/bin/sh\n"), Err("write tree: for it".to_owned())),
        "the template set lower of one has scripts, which run in the root of its reference: write tree: for it"
    );
    let error = fails(&script("#!/bin/sh\necho no; exit 4\n"), Ok(&root));
    assert_eq!(
        error,
        "the script sets/lower/.scripts/10-x for one: ended with the exit code 4: no"
    );
    let error = fails(&script("#!/bin/sh\ntouch su; chmod 4755 su\n"), Ok(&root));
    assert!(error.contains("/su with the mode 4755"), "{error}");
}

//! Built layers: only what an input changed is made anew, what is kept is what would be made, and
//! what nobody needs goes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use estive_files::{BuildOptions, BuiltLayer, LayerStore};
use estive_layers::{
    DeploymentSecret, HerdFolder, Layer, LayerError, OwnSets, Render, RenderHere, RenderRequest,
    RenderedHerd, herd,
};
use proptest::prelude::*;

/// Renders here, and remembers whom.
#[derive(Default)]
struct Watched(RefCell<Vec<String>>);

impl Render for Watched {
    fn render(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        let names = request.wanted.iter();
        let names = names.map(|number| request.clones[*number].name.to_string());
        self.0.borrow_mut().extend(names);
        RenderHere.render(request)
    }
}

struct Refuses;

impl Render for Refuses {
    fn render(&self, _: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        Err(LayerError::Elsewhere {
            what: "not today".to_owned(),
        })
    }
}

fn request(text: &str, sets: &OwnSets) -> RenderRequest {
    let plan = herd::parse("herd.yaml", text, "demo").unwrap_or_else(|error| panic!("{error}"));
    RenderRequest::new(&plan, sets, &DeploymentSecret::new([7; 32])).unwrap()
}

fn options(render: &dyn Render) -> BuildOptions<'_> {
    BuildOptions {
        render,
        root_of: &|_| None,
        all: false,
    }
}

fn build(store: &LayerStore, request: &RenderRequest) -> (Vec<BuiltLayer>, Vec<String>) {
    let render = Watched::default();
    let built = store.build(request, &options(&render)).unwrap();
    (built, render.0.into_inner())
}

/// What is kept is what would be made anew.
fn assert_kept(store: &LayerStore, request: &RenderRequest) {
    let fresh = RenderHere.render(request).unwrap();
    let kept = store.layers(&request.deployment).unwrap().unwrap();
    let names: Vec<&str> = request
        .clones
        .iter()
        .map(|clone| clone.name.as_str())
        .collect();
    assert_eq!(kept.clones().collect::<Vec<_>>(), names);
    for layer in &fresh.layers {
        let name = layer.clone.as_str();
        let whole: Layer = fresh.layer(layer).unwrap();
        assert_eq!(kept.layer(name).unwrap(), Some(whole));
        let (digest, origins) = kept.origins(name).unwrap();
        assert_eq!(
            (digest, origins),
            (&layer.digest, &fresh.heads[layer.head].origins)
        );
    }
    assert_eq!(kept.layer("nobody").unwrap(), None);
    let clones = request.clones.iter().map(|clone| &clone.name);
    let rendered = kept.rendered(clones).unwrap();
    for (rendered_layer, fresh_layer) in rendered.layers.iter().zip(&fresh.layers) {
        assert_eq!(rendered.layer(rendered_layer), fresh.layer(fresh_layer));
    }
}

fn objects(state: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(state.join("layers/objects")).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{entry:?}");
            (entry.file_name().into_string().unwrap(), meta.len())
        })
        .collect()
}

const HERD: &str = "sets: [base-debian]\nhosts:\n  a:\n  b: {sets+: [web], greeting: hi}\n  c: {sets+: [web], greeting: hi}\n";

#[test]
fn only_what_changed_is_made_anew_and_it_is_said_why() {
    let state = tempfile::tempdir().unwrap();
    let store = LayerStore::open(state.path()).unwrap();
    let none = OwnSets::new();
    let first = request(HERD, &none);
    let (built, rendered) = build(&store, &first);
    assert_eq!(rendered, ["a", "b", "c"]);
    assert!(
        built
            .iter()
            .all(|layer| layer.built && layer.why == ["it has none yet"])
    );
    assert_kept(&store, &first);
    let held = objects(state.path());

    let (again, rendered) = build(&store, &first);
    assert_eq!(rendered, Vec::<String>::new());
    assert!(
        again
            .iter()
            .all(|layer| !layer.built && layer.why.is_empty())
    );
    let digests = |built: &[BuiltLayer]| -> Vec<String> {
        built.iter().map(|layer| layer.layer.to_string()).collect()
    };
    assert_eq!(digests(&again), digests(&built));
    assert_eq!(objects(state.path()), held);
    assert!(built.iter().all(|layer| layer.size_bytes > 1000));

    let said = HERD.replace(
        "c: {sets+: [web], greeting: hi}",
        "c: {sets+: [web], greeting: ho}",
    );
    let second = request(&said, &none);
    let (built, rendered) = build(&store, &second);
    assert_eq!(rendered, ["c"]);
    assert_eq!(built[2].why, ["variable greeting"]);
    assert_kept(&store, &second);

    // A set of its own takes the place of the one that ships.
    let own = tempfile::tempdir().unwrap();
    fs::create_dir_all(own.path().join("web/var/www/html")).unwrap();
    fs::write(own.path().join("web/var/www/html/index.html"), "mine").unwrap();
    let sets = HerdFolder::read_sets(own.path()).unwrap();
    let third = request(&said, &sets);
    let (built, rendered) = build(&store, &third);
    assert_eq!(rendered, ["b", "c"]);
    let expected = [
        "set web: etc",
        "set web: etc/nginx",
        "set web: etc/nginx/sites-enabled",
    ];
    assert_eq!(built[1].why[..3], expected, "{:?}", built[1].why);
    assert_kept(&store, &third);

    // A clone that is gone takes its place in all others' hosts file with it.
    let fourth = request(&said.replace("  a:\n", ""), &sets);
    let (built, _) = build(&store, &fourth);
    assert_eq!(built[0].why, ["the list of clones"]);
    assert_kept(&store, &fourth);
}

#[test]
fn what_is_gone_or_damaged_is_seen() {
    let state = tempfile::tempdir().unwrap();
    let store = LayerStore::open(state.path()).unwrap();
    let request = request(HERD, &OwnSets::new());
    build(&store, &request);
    let path = |name: &str| state.path().join("layers/objects").join(name);
    let whole = objects(state.path());
    for name in whole.keys() {
        if fs::remove_file(path(name)).is_err() {
            // A pack that was written anew meanwhile.
            continue;
        }
        let (built, rendered) = build(&store, &request);
        assert!(!rendered.is_empty());
        let built: Vec<_> = built.iter().filter(|layer| layer.built).collect();
        assert!(
            built
                .iter()
                .all(|layer| layer.why == ["its archive was gone"])
        );
        assert_kept(&store, &request);
        assert!(objects(state.path()).len() <= whole.len() + 1);
    }
    let all = BuildOptions {
        all: true,
        ..options(&RenderHere)
    };
    store.build(&request, &all).unwrap();
    for (name, size) in objects(state.path()) {
        let mut spoilt = fs::read(path(&name)).unwrap();
        spoilt[usize::try_from(size).unwrap() / 2] ^= 1;
        fs::write(path(&name), &spoilt).unwrap();
        let read = store.layers(&request.deployment).and_then(|layers| {
            let layers = layers.unwrap();
            ["a", "b", "c"]
                .iter()
                .try_for_each(|name| layers.layer(name).map(drop))
        });
        let error = read.unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        assert!(error.contains("build all layers anew"), "{error}");
        // Made anew, it has the same name and is whole.
        store.build(&request, &all).unwrap();
        assert_kept(&store, &request);
    }
    // An index that is none: everything is made anew.
    fs::write(state.path().join("layers/index/demo.json"), "{}").unwrap();
    assert!(store.layers(&request.deployment).unwrap().is_none());
    let (_, rendered) = build(&store, &request);
    assert_eq!(rendered.len(), 3);
    assert_kept(&store, &request);
    let built = store.build(&request, &all).unwrap();
    assert!(built.iter().all(|layer| layer.why == ["asked for"]));
}

#[test]
fn a_build_that_fails_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let store = LayerStore::open(state.path()).unwrap();
    let none = OwnSets::new();
    let first = request(HERD, &none);
    build(&store, &first);
    let held = objects(state.path());
    let second = request(&HERD.replace("  a:\n", ""), &none);
    let error = store.build(&second, &options(&Refuses)).unwrap_err();
    assert_eq!(error.to_string(), "not today");
    assert_eq!(objects(state.path()), held);
    assert_kept(&store, &first);
}

#[test]
fn deployments_share_and_go_alone() {
    let state = tempfile::tempdir().unwrap();
    let store = LayerStore::open(state.path()).unwrap();
    let none = OwnSets::new();
    let (one, two) = (
        request(HERD, &none),
        request(&format!("name: two\n{HERD}"), &none),
    );
    build(&store, &one);
    build(&store, &two);
    let left_aside: PathBuf = state.path().join("layers/objects/.new-killed");
    fs::write(&left_aside, "").unwrap();
    store.remove(&one.deployment).unwrap();
    assert!(!left_aside.exists());
    assert!(store.layers(&one.deployment).unwrap().is_none());
    assert_kept(&store, &two);
    store.remove(&two.deployment).unwrap();
    assert_eq!(objects(state.path()).len(), 0);
    store.remove(&two.deployment).unwrap();
}

fn herd_text(values: &BTreeMap<u8, u8>) -> String {
    let mut text = "sets: [web]\nhosts:\n".to_owned();
    for (clone, value) in values {
        // Addresses of their own, so that one clone is nothing to the others.
        text += &format!(
            "  c{clone}: {{address: 10.77.0.{}, greeting: g{value}}}\n",
            clone + 10
        );
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_changes_the_store_holds_what_would_be_made(
        changes in prop::collection::vec(prop::collection::btree_map(0u8..6, 0u8..3, 1..6), 1..16)
    ) {
        let state = tempfile::tempdir().unwrap();
        let store = LayerStore::open(state.path()).unwrap();
        for values in &changes {
            let request = request(&herd_text(values), &OwnSets::new());
            build(&store, &request);
            assert_kept(&store, &request);
            // Heads with their origins, and at most so many packs.
            prop_assert!(objects(state.path()).len() <= 2 + 9);
        }
    }
}

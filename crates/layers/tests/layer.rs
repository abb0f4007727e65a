//! Layers: what the shipped sets make of a clone, and what is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use estive_layers::{
    DeploymentSecret, HerdFolder, HerdPlan, Layer, LayerError, NodeKind, OwnSets, Render,
    RenderHere, RenderRequest, Renderer, SetTree, TemplateSet, Tree, TreeNode, herd,
};

const EXAMPLE: &str = include_str!("../../../examples/first-herd/herd.yaml");

fn secret() -> DeploymentSecret {
    DeploymentSecret::new([7; 32])
}

fn plan(text: &str) -> HerdPlan {
    herd::parse("herd.yaml", text, "demo").unwrap_or_else(|error| panic!("{error}"))
}

/// The herd with these sets for all its clones.
fn request(text: &str, sets: &[&str], own: &OwnSets) -> Result<RenderRequest, LayerError> {
    let mut plan = plan(text);
    for clone in &mut plan.clones {
        clone.sets = sets.iter().map(|name| (*name).to_owned()).collect();
    }
    RenderRequest::new(&plan, own, &secret())
}

/// What the sets make of the first clone.
fn tree_of(text: &str, sets: &[&str], own: &OwnSets) -> Tree {
    let request = request(text, sets, own).unwrap();
    let renderer = Renderer::new(&request).unwrap();
    renderer.tree(request.clones[0].name.as_str()).unwrap()
}

fn tree(text: &str, sets: &[&str]) -> Tree {
    tree_of(text, sets, &OwnSets::new())
}

fn layers(request: &RenderRequest) -> Vec<Layer> {
    let rendered = RenderHere.render(request).unwrap();
    let layers = rendered.layers.iter();
    layers.map(|layer| rendered.layer(layer).unwrap()).collect()
}

fn text<'a>(tree: &'a Tree, path: &str) -> (u32, &'a str) {
    match tree.get(path) {
        Some(TreeNode {
            kind: NodeKind::File { bytes, .. },
            owner,
            ..
        }) => (owner.mode, std::str::from_utf8(bytes).unwrap()),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn the_shipped_sets_make_the_example_word_for_word() {
    let tree = tree(EXAMPLE, &["base-debian", "web"]);
    let paths: Vec<&str> = tree
        .paths()
        .filter(|path| !path.contains("systemd/system/"))
        .collect();
    assert_eq!(
        paths,
        [
            "etc/.updated",
            "etc/NetworkManager/conf.d/10-estive.conf",
            "etc/cloud/cloud-init.disabled",
            "etc/crypttab",
            "etc/fstab",
            "etc/hostname",
            "etc/hosts",
            "etc/machine-id",
            "etc/network/interfaces",
            "etc/nginx/sites-enabled/default",
            "etc/ssh/ssh_host_ecdsa_key",
            "etc/ssh/ssh_host_ecdsa_key.pub",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_rsa_key.pub",
            "etc/systemd/network/00-estive.network",
            "etc/systemd/system-generators/estive-services",
            "etc/udev/rules.d/70-persistent-net.rules",
            "tmp",
            "var/.updated",
            "var/lib/dbus/machine-id",
            "var/lib/systemd/random-seed",
            "var/tmp",
            "var/www/html/index.html",
        ]
    );
    assert_eq!(text(&tree, "etc/hostname"), (0o644, "clone01\n"));
    assert_eq!(
        text(&tree, "etc/hosts").1,
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.77.0.148\tclone01\n10.77.0.151\tclone02\n10.77.0.117\tclone03\n10.77.0.116\tclone04\n"
    );
    assert_eq!(
        text(&tree, "etc/systemd/network/00-estive.network").1,
        "# The interface is set before systemd starts, and its traffic may already flow: take it as it is.\n\
         # The first file that matches counts: this one, whatever the reference has.\n\
         [Match]\nName=eth0\n\n[Network]\nAddress=10.77.0.148/24\nKeepConfiguration=yes\nDHCP=no\n\
         IPv6AcceptRA=no\nLinkLocalAddressing=no\n"
    );
    let (mode, page) = text(&tree, "var/www/html/index.html");
    assert_eq!(mode, 0o644);
    assert!(page.contains("<title>clone01</title>"), "{page}");
    assert!(page.contains("<p>clone01 of first-herd answers at 10.77.0.148.</p>\n<p>One root, many systems.</p>\n</body>"), "{page}");
    let (mode, key) = text(&tree, "etc/ssh/ssh_host_ed25519_key");
    assert_eq!(mode, 0o600);
    assert!(
        key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        "{key}"
    );
    assert!(
        key.ends_with("-----END OPENSSH PRIVATE KEY-----\n"),
        "{key}"
    );
    let kind = |path: &str| tree.get(path).map(|node| &node.kind);
    assert_eq!(
        kind("etc/systemd/system/apt-daily.timer"),
        Some(&NodeKind::Symlink("/dev/null".to_owned()))
    );
    assert_eq!(kind("etc/crypttab"), Some(&NodeKind::Whiteout));
}

#[test]
fn what_is_given_is_in_the_layer() {
    let text_of_herd = "
gateway: 10.77.0.1
nameservers: [10.77.0.1, 10.77.0.3]
ssh_authorized_keys: ssh-ed25519 AAAA me
greeting: <b>&
hosts: {a: }
";
    let tree = tree(text_of_herd, &["base-debian", "web"]);
    assert_eq!(
        text(&tree, "etc/resolv.conf").1,
        "nameserver 10.77.0.1\nnameserver 10.77.0.3\n"
    );
    assert_eq!(
        text(&tree, "root/.ssh/authorized_keys"),
        (0o600, "ssh-ed25519 AAAA me\n")
    );
    let directory = tree.get("root/.ssh").unwrap();
    assert_eq!(directory.kind, NodeKind::Directory { joined: false });
    assert_eq!(directory.owner.mode, 0o700);
    assert!(
        text(&tree, "etc/systemd/network/00-estive.network")
            .1
            .contains("\nGateway=10.77.0.1\n")
    );
    assert!(
        text(&tree, "var/www/html/index.html")
            .1
            .contains("<p>&lt;b&gt;&amp;</p>")
    );
}

#[test]
fn without_sets_the_layer_is_minimal() {
    let tree = tree("hosts: {a: }", &[]);
    assert_eq!(
        tree.paths().collect::<Vec<_>>(),
        ["etc/hostname", "etc/hosts", "etc/machine-id"]
    );
}

#[test]
fn the_same_inputs_give_the_same_bytes_in_any_order() {
    let sets = ["base-debian", "web"];
    let own = OwnSets::new();
    let one = request("a: {x: 1, y: 2}\nb: 3\nhosts: {a: , b: }", &sets, &own).unwrap();
    let two = request("b: 3\nhosts: {b: , a: }\na: {y: 2, x: 1}\n", &sets, &own).unwrap();
    let (first, second) = (layers(&one), layers(&two));
    assert_eq!(first, second);
    assert_ne!(first[0].digest, first[1].digest);
    let members = archive_paths(&first[0].bytes);
    assert_eq!(members[0].0, ".estive/manifest.json");
    let seed = members
        .iter()
        .find(|(path, _)| path == "var/lib/systemd/random-seed")
        .unwrap();
    assert_eq!(seed.1, "CharacterDevice { major: 0, minor: 0 }");
    // By another process, from the request as it travels.
    let travelled = serde_json::to_vec(&one).unwrap();
    let arrived: RenderRequest = serde_json::from_slice(&travelled).unwrap();
    assert_eq!(arrived, one);
    assert_eq!(layers(&arrived), first);
}

#[test]
fn a_layer_is_the_same_alone_and_among_many() {
    let mut request = request(
        "network: 10.77.0.0/16\ngroups: {x: {ssh_authorized_keys: ssh-ed25519 AAAA me, hosts: {\"b[1-150]\": }}}\nhosts: {\"a[1-150]\": }",
        &["base-debian"],
        &OwnSets::new(),
    )
    .unwrap();
    let all = layers(&request);
    let renderer = Renderer::new(&request).unwrap();
    for number in [0, 149, 150, 299] {
        let layer = renderer.layer(all[number].clone.as_str()).unwrap();
        assert_eq!(layer, all[number]);
        let tree = renderer.tree(all[number].clone.as_str()).unwrap();
        assert_eq!(tree.to_archive().unwrap(), layer.bytes);
        let digest = sha256(&layer.bytes);
        assert_eq!(layer.digest.as_str(), format!("sha256:{digest}"));
    }
    let heads = RenderHere.render(&request).unwrap().heads;
    assert_eq!(heads.len(), 2, "one with authorized_keys and one without");
    request.wanted = vec![149, 0];
    assert_eq!(layers(&request), [all[149].clone(), all[0].clone()]);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_clone_of_a_herd_has_the_layer_of_its_own_sets() {
    let herd = plan("sets: [web]\nhosts:\n  b:\n  a: {sets: []}\n  c: {sets: [base-debian]}\n");
    let own = OwnSets::new();
    let request = RenderRequest::new(&herd, &own, &secret()).unwrap();
    let mut paths = layers(&request).into_iter().map(|layer| {
        let paths = archive_paths(&layer.bytes);
        let has = |path: &str| paths.iter().any(|(found, _)| found == path);
        (has("etc/fstab"), has("var/www/html/index.html"))
    });
    assert_eq!(paths.next(), Some((false, false)));
    assert_eq!(paths.next(), Some((false, true)));
    assert_eq!(paths.next(), Some((true, false)));
    let error = Renderer::new(&request).unwrap().layer("d").unwrap_err();
    assert_eq!(error.to_string(), "there is no clone \"d\" in the herd");
}

fn archive_paths(bytes: &[u8]) -> Vec<(String, String)> {
    estive_archive::Reader::new(bytes, estive_archive::Limits::default())
        .map(|member| {
            let member = member.unwrap();
            (member.path.to_owned(), format!("{:?}", member.kind))
        })
        .collect()
}

#[test]
fn every_shipped_set_says_what_it_is_for() {
    for name in TemplateSet::shipped() {
        assert!(
            !TemplateSet::embedded(name).unwrap().help().is_empty(),
            "{name}"
        );
    }
}

#[test]
fn the_sets_inside_are_those_of_the_checkout() {
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sets");
    for name in TemplateSet::shipped() {
        let herd = "greeting: hi\nhosts: {a: }";
        let own = TemplateSet::load_tree(name, &sets.join(name)).unwrap();
        let own = [(name.to_owned(), own)].into();
        assert_eq!(tree_of(herd, &[name], &own), tree(herd, &[name]), "{name}");
    }
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn the_upper_set_wins_by_file_and_own_sets_come_before_shipped_ones() {
    let dir = tempfile::tempdir().unwrap();
    let web = dir.path().join("web");
    write(&web, "var/www/html/index.html", "mine");
    write(&web, "etc/ssh/.wh.__dir_opaque", "");
    write(&web, "etc/ssh/sshd_config", "mine");
    write(
        &web,
        "usr/local/bin/tool.j2",
        "#!/bin/sh\necho {{ clones | length }}\n",
    );
    fs::set_permissions(
        web.join("usr/local/bin/tool.j2"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    symlink("/etc/shadow", web.join("outside")).unwrap();
    let own = HerdFolder::read_sets(dir.path()).unwrap();
    let tree = tree_of("hosts: {\"a[1-3]\": }", &["base-debian", "web"], &own);
    assert_eq!(text(&tree, "var/www/html/index.html").1, "mine");
    assert_eq!(
        text(&tree, "usr/local/bin/tool"),
        (0o755, "#!/bin/sh\necho 3\n")
    );
    let ssh: Vec<&str> = tree
        .paths()
        .filter(|path| path.starts_with("etc/ssh/"))
        .collect();
    assert_eq!(ssh, ["etc/ssh/sshd_config"]);
    // A link is carried as a link; it is never followed here.
    let link = NodeKind::Symlink("/etc/shadow".to_owned());
    assert_eq!(tree.get("outside").unwrap().kind, link);
}

fn load(dir: &Path) -> Result<SetTree, LayerError> {
    TemplateSet::load_tree("own", dir)
}

fn complaint(files: &[(&str, &str)], herd: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    let run = || -> Result<(), LayerError> {
        let own = [("own".to_owned(), load(dir.path())?)].into();
        let request = request(herd, &["own"], &own)?;
        RenderHere.render(&request).map(|_| ())
    };
    run().expect_err("a complaint").to_string()
}

#[test]
fn complaints_word_for_word() {
    let herd = "hosts: {clone01: }";
    for (files, expected) in [
        (
            vec![("etc/x.j2", "a\n\n{{ colour }}\n")],
            "rendering sets/own/etc/x.j2:3 for clone01: undefined value: `colour` is undefined",
        ),
        (
            vec![("etc/x.j2", "{% if %}")],
            "rendering sets/own/etc/x.j2:1 for any clone: syntax error",
        ),
        (
            vec![(
                "etc/x.j2",
                "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}",
            )],
            "rendering sets/own/etc/x.j2:1 for clone01: engine ran out of fuel",
        ),
        (
            vec![("a", ""), ("a.j2", "")],
            "the template set own: a.j2: two files of the set make a",
        ),
        (
            vec![(".wh.__dir_opaque", "")],
            "the template set own: .wh.__dir_opaque: would hide the whole root",
        ),
        (
            vec![("etc/.wh...", "")],
            "the template set own: etc/.wh...: ",
        ),
        (
            vec![("set.yaml", "help: x\nfils: {}\n")],
            "the template set own: set.yaml:2:1: unknown key \"fils\"; did you mean files?",
        ),
        (
            vec![("set.yaml", "files: {a: {mode: 644}}\n")],
            "the template set own: set.yaml:1:19: a mode is written in quotes, as \"0644\"",
        ),
    ] {
        let complaint = complaint(&files, herd);
        assert!(complaint.starts_with(expected), "{complaint}\n{expected}");
    }
    let error = TemplateSet::find_all(&["base-debain".to_owned()], &OwnSets::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no template set \"base-debain\" (did you mean base-debian?); the sets that ship are base-debian, base-openrc, dummy, dump, mpi, postgresql, register, web"
    );
    let error = herd::parse("f", "clone: 1\nhosts: {a: }", "d").unwrap_err();
    assert_eq!(
        error.to_string(),
        "f:1:1: clone means something else in templates; choose another name"
    );
}

#[test]
fn large_and_strange_files_are_refused_before_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("sparse"))
        .unwrap()
        .set_len(10 << 30)
        .unwrap();
    let error = load(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the template set own: sparse: has 10737418240 bytes; a file of a set has at most 15728640"
    );
    fs::remove_file(dir.path().join("sparse")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the template set own: socket: is no file, directory, link or device"
    );
}

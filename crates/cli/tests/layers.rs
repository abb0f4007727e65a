//! Layers from the command line: built, held against a root, exported, asked where files come from.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(
            "herd/herd.yaml",
            "name: demo\nsets: [base-debian]\nhosts:\n  a:\n  b: {sets+: [own], note: one}\n",
        );
        place.write(
            "herd/sets/own/set.yaml",
            "variables: {note: {type: text}}\n",
        );
        place.write(
            "herd/sets/own/etc/list.j2",
            "# {{ note }}\n{% for one in clones %}\n{{ one.name }}\n{% endfor %}\n",
        );
        place.write("herd/sets/own/etc/fstab", "mine\n");
        place.write("root/etc/hosts", "127.0.0.1 localhost\n");
        place.write("root/etc/fstab", "mine\n");
        place.write("root/var/log/journal/x", "");
        place.write("root/tmp/left", "");
        place
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_estive"))
            .args(arguments)
            .args(["--output", "json"])
            .env("ESTIVE_HERD", self.path("herd"))
            .env("ESTIVE_STATE", self.path("state"))
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn complaint(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {words}");
        words
    }
}

fn whys(built: &Value) -> Vec<Vec<&str>> {
    let layers = built.as_array().unwrap().iter();
    layers
        .map(|layer| {
            let why = layer["why"].as_array().unwrap();
            assert_eq!(layer["built"], json!(!why.is_empty()));
            why.iter().map(|why| why.as_str().unwrap()).collect()
        })
        .collect()
}

#[test]
fn a_build_says_what_it_did_and_why() {
    let place = Place::new();
    let built = place.json(&["layers", "build"]);
    assert_eq!(whys(&built), [["it has none yet"], ["it has none yet"]]);
    let none: [Vec<&str>; 2] = [vec![], vec![]];
    assert_eq!(whys(&place.json(&["layers", "build"])), none);
    let herd = fs::read_to_string(place.path("herd/herd.yaml")).unwrap();
    place.write("herd/herd.yaml", &herd.replace("one", "two"));
    let built = place.json(&["layers", "build"]);
    assert_eq!(whys(&built), [vec![], vec!["variable note"]]);
    place.write("herd/sets/own/etc/more", "");
    let folder = place.path("herd").display().to_string();
    let built = place.json(&["layers", "build", &folder]);
    assert_eq!(whys(&built), [vec![], vec!["set own: etc/more"]]);
    assert_eq!(
        whys(&place.json(&["layers", "build", "--all"])),
        [["asked for"], ["asked for"]]
    );

    place.write(
        "herd/sets/own/etc/list.j2",
        "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}",
    );
    let words = place.complaint(&["layers", "build"], 2);
    assert!(words.contains("sets/own/etc/list.j2:1"), "{words}");
    place.write("herd/herd.yaml", "hosts: [");
    let words = place.complaint(&["layers", "build"], 2);
    assert!(words.contains("herd.yaml:1:"), "{words}");
    fs::remove_file(place.path("herd/herd.yaml")).unwrap();
    let words = place.complaint(&["layers", "build"], 2);
    assert!(words.contains("there is no herd.yaml"), "{words}");
}

#[test]
fn a_layer_is_held_against_a_root_that_is_a_directory_or_an_image() {
    let place = Place::new();
    let image = place.path("root.erofs");
    let made = Command::new("mkfs.erofs")
        .args([image.as_path(), &place.path("root")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for root in [place.path("root"), image] {
        let root = root.display().to_string();
        let found = place.json(&["layers", "diff", "b", "--root", &root, "--all"]);
        let verdict = |path: &str| {
            let mut rows = found.as_array().unwrap().iter();
            let row = rows.find(|row| row["path"] == path);
            row.map(|row| row["verdict"].as_str().unwrap().to_owned())
        };
        for (path, expected) in [
            ("etc/hosts", Some("changed")),
            ("etc/fstab", Some("same")),
            ("etc/list", Some("added")),
            ("tmp/left", Some("hidden")),
            ("var/log/journal", Some("hidden")),
            ("var/log", None),
        ] {
            assert_eq!(verdict(path).as_deref(), expected, "{path} of {root}");
        }
    }
    let words = place.complaint(&["layers", "diff", "b", "--root", "/no/such"], 2);
    assert!(words.contains("no root at /no/such"), "{words}");
    let herd = place.path("herd/herd.yaml").display().to_string();
    let words = place.complaint(&["layers", "diff", "b", "--root", &herd], 2);
    assert!(
        words.contains("neither a directory nor a sealed image"),
        "{words}"
    );
    let root = place.path("root").display().to_string();
    let words = place.complaint(&["layers", "diff", "c", "--root", &root], 2);
    assert!(words.contains("no clone c"), "{words}");
    fs::remove_file(place.path("root/etc/hosts")).unwrap();
    fs::rename(place.path("root/var"), place.path("root/elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", place.path("root/var")).unwrap();
    let words = place.complaint(&["layers", "diff", "b", "--root", &root], 2);
    assert!(
        words.contains("has files in var, which is link to elsewhere there"),
        "{words}"
    );
}

#[test]
fn trees_are_as_overlayfs_reads_them() {
    let place = Place::new();
    let out = place.path("out").display().to_string();
    let done = place.json(&["layers", "export", &out]);
    assert_eq!(done[0]["written"], true);
    let at = |path: &str| Path::new(&out).join(path);
    assert_eq!(
        fs::read_to_string(at("b/etc/list")).unwrap(),
        "# one\na\nb\n"
    );
    let whiteout = at("a/etc/crypttab").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(at("a/tmp"), "trusted.overlay.opaque", &mut value[..]);
    assert_eq!((length, value[0]), (Ok(1), b'y'));
    // Two at once would each forget what the other has written.
    let other = fs::File::open(&out).unwrap();
    other.lock().unwrap();
    let words = place.complaint(&["layers", "export", &out], 2);
    assert!(words.contains("another export to"), "{words}");
    drop(other);
    let done = place.json(&["layers", "export", &out, "--clone", "b"]);
    assert_eq!(done.as_array().unwrap().len(), 1);
    assert_eq!(done[0]["written"], false);
}

#[test]
fn a_file_says_where_it_comes_from() {
    let place = Place::new();
    let ask = |path: &str| place.json(&["which", "b", path]);
    let layer = place.json(&["layers", "build"])[1]["layer"].clone();
    let list = ask("/etc/list:3");
    assert_eq!(list["layer"], layer);
    assert_eq!(
        list["source"],
        json!({"from": "template", "set": "own", "path": "etc/list.j2"})
    );
    assert_eq!(
        (&list["line"], &list["template_line"]),
        (&json!(3), &json!(3))
    );
    let file = place
        .path("herd/sets/own/etc/list.j2")
        .display()
        .to_string();
    assert_eq!(list["place"], file);
    let fstab = ask("etc/fstab");
    let covered = json!([{"from": "template", "set": "base-debian", "path": "etc/fstab.j2"}]);
    assert_eq!(fstab["covers"], covered);
    assert_eq!(ask("/etc/hosts")["source"], json!({"from": "common"}));
    assert_eq!(ask("/etc/shadow")["seen"], "root");
    assert_eq!(ask("/etc")["seen"], "joined");
    let hidden = ask("/etc/crypttab/x");
    assert_eq!(hidden["hidden_by"], "/etc/crypttab");
    assert_eq!(hidden["source"]["path"], "etc/.wh.crypttab");
    assert_eq!(hidden["ships"], true);
    for (path, expected) in [
        ("/etc/list:4", "has 3 lines, and no line 4"),
        ("/etc/../x", "has a '.' or '..' component"),
        ("/", "is empty"),
    ] {
        let words = place.complaint(&["which", "b", path], 2);
        assert!(words.contains(expected), "{words}");
    }
}

//! The commands that show what a herd file and its sets say: word for word, on the program itself.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HERD: &str = "\
name: demo
network: 10.9.0.0/24
title: all
groups:
  blue sheep:
    sets: [own]
    title: blue
    hosts:
      b1: {title: mine, address: 10.9.0.11, cpus: 2}
      b2: {address: 10.9.0.12}
hosts:
  c: {address: 10.9.0.13, titel: slip}
";

struct Place {
    home: tempfile::TempDir,
}

impl Place {
    /// A herd with one set of its own.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let set = home.path().join("herd/sets/own/etc");
        fs::create_dir_all(&set).unwrap();
        fs::write(home.path().join("herd/herd.yaml"), HERD).unwrap();
        fs::write(set.join("motd.j2"), "{{ title }} {{ port }}\n").unwrap();
        let settings = "help: says hello.\nvariables:\n  title: {type: text}\n  port: {type: integer, default: 80, help: where}\n";
        fs::write(home.path().join("herd/sets/own/set.yaml"), settings).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// In the herd's folder; no manager is there.
    fn run(&self, arguments: &[&str]) -> Output {
        let manager = format!("unix:{}", self.path("manager.sock").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_estive"));
        command
            .current_dir(self.path("herd"))
            .env_remove("ESTIVE_HERD")
            .env("ESTIVE_STATE", self.path("state"))
            .env("ESTIVE_MANAGER", manager)
            .args(arguments);
        command.output().unwrap()
    }

    fn said(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn failed(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn vars_says_who_wrote_each_value() {
    let place = Place::new();
    let output = place.run(&["vars", "b1"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "\
VARIABLE    VALUE        LEVEL             PLACE                   OVERRODE
address     10.9.0.11    host b1           herd.yaml:9:34
cpus        2            host b1           herd.yaml:9:51
memory_mib  384          built in          -
name        demo         globals           herd.yaml:1:7
network     10.9.0.0/24  globals           herd.yaml:2:10
port        80           set own default   sets/own/set.yaml:4:34
reference   default      built in          -
sets        [\"own\"]      group blue sheep  herd.yaml:6:11
title       mine         host b1           herd.yaml:9:19          blue (group blue sheep, herd.yaml:7:12); all (globals, herd.yaml:3:8)
"
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "estive: warning: herd.yaml:12:27: no chosen set reads the variable \"titel\"\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&place.said(&["vars", "b1", "--output", "json"])).unwrap();
    assert_eq!(json[8]["name"], "title");
    assert_eq!(json[8]["earlier"][1]["level"], "globals");
    let output = place.run(&["vars", "c"]);
    assert!(
        String::from_utf8(output.stderr).unwrap().starts_with(
            "estive: note: the herd file chooses no sets for c; with estive up it has those of its reference, default\n"
        )
    );
    let no = place.failed(&["vars", "b9"], 2);
    assert_eq!(
        no,
        "estive: there is no clone b9 in the herd\n  try: the 3 there are begin with b1, b2, c\n"
    );
}

#[test]
fn values_are_shown_also_when_one_is_missing() {
    let place = Place::new();
    let herd = "sets: [own]\nhosts: {a: {port: x}}\n";
    fs::write(place.path("herd/herd.yaml"), herd).unwrap();
    let output = place.run(&["vars", "a"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("\nport ")
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "estive: herd.yaml:2:9: a needs the variable title, a text, which the set own reads\n\
         herd.yaml:2:19: port: the set own reads a whole number; this is a text (where)\n"
    );
}

#[test]
fn sets_are_listed_and_shown_with_where_they_are_from() {
    let place = Place::new();
    let list = place.said(&["sets"]);
    assert!(list.starts_with("SET "), "{list}");
    let of = |name: &str| {
        let line = list.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(' ').unwrap().1.trim().to_owned()
    };
    assert!(of("base-debian").ends_with("ships with estive"));
    let own = of("own");
    assert!(
        own.starts_with("says hello.") && own.ends_with(" sets/own"),
        "{own}"
    );
    assert_eq!(
        place.said(&["sets", "show", "own"]),
        "\
own: says hello.
(sets/own)

VARIABLE  TYPE     DEFAULT     HELP
port      integer  80          where
title     text     (required)

FILE       IS
/etc/motd  rendered
"
    );
    let no = place.failed(&["sets", "show", "owm"], 2);
    assert!(no.contains("there is no template set \"owm\""), "{no}");
}

#[test]
fn a_list_has_the_form_that_was_asked_for() {
    let place = Place::new();
    for (format, expected) in [
        ("plain", "b1\nb2\nc\n"),
        ("hosts", "10.9.0.11\tb1\n10.9.0.12\tb2\n10.9.0.13\tc\n"),
        ("mpi-hostfile", "b1 slots=2\nb2 slots=1\nc slots=1\n"),
    ] {
        assert_eq!(place.said(&["list", "--format", format]), expected);
    }
    assert_eq!(place.said(&["list"]), "b1\nb2\nc\n");
    assert_eq!(place.said(&["list", "--name", "other"]), "");
    let keys = place.said(&["list", "--herd", ".", "--format", "known-hosts"]);
    assert!(
        keys.starts_with("b1,10.9.0.11,estive-b1 ssh-ed25519 AAAA") && keys.lines().count() == 3,
        "{keys}"
    );
    // The deployment's secret was made once and kept.
    assert_eq!(
        place.said(&["list", "--herd", ".", "--format", "known-hosts"]),
        keys
    );
    let json: serde_json::Value =
        serde_json::from_str(&place.said(&["list", "--format", "json"])).unwrap();
    assert_eq!(json[1]["groups"], serde_json::json!(["blue sheep"]));
    let nowhere = place.failed(&["list", "--herd", "nowhere"], 2);
    assert!(
        nowhere.contains("there is no herd.yaml in nowhere"),
        "{nowhere}"
    );
    fs::remove_file(place.path("herd/herd.yaml")).unwrap();
    let silent = place.failed(&["list"], 4);
    assert!(
        silent.ends_with("try: name a herd's folder with --herd DIR\n"),
        "{silent}"
    );
}

#[test]
fn update_hosts_changes_its_own_block_and_nothing_else() {
    let place = Place::new();
    let file = place.path("hosts");
    fs::write(&file, "127.0.0.1 localhost\n\n# last line").unwrap();
    let update = |more: &[&str]| {
        let mut arguments = vec!["update-hosts", "--file", file.to_str().unwrap()];
        arguments.extend(more);
        place.said(&arguments)
    };
    let shown = fs::canonicalize(&file).unwrap().display().to_string();
    assert_eq!(update(&[]), format!("{shown} names 3 clones of demo\n"));
    let ours =
        "# estive begin demo\n10.9.0.11\tb1\n10.9.0.12\tb2\n10.9.0.13\tc\n# estive end demo\n";
    let whole = format!("127.0.0.1 localhost\n\n# last line\n{ours}");
    assert_eq!(fs::read_to_string(&file).unwrap(), whole);
    assert_eq!(update(&[]), format!("{shown} is as wanted\n"));
    let json: serde_json::Value =
        serde_json::from_str(&update(&["--remove", "--output", "json"])).unwrap();
    assert_eq!(json["written"], true);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "127.0.0.1 localhost\n\n# last line\n"
    );
    // One that is not there may be a slip: what is in the file of it is not said to be as wanted.
    let none = place.failed(
        &[
            "update-hosts",
            "--file",
            file.to_str().unwrap(),
            "--name",
            "dmeo",
        ],
        2,
    );
    assert!(none.contains("there are no clones of dmeo"), "{none}");
    // A deployment that is gone from everywhere else.
    fs::write(&file, whole.replace("demo", "old")).unwrap();
    assert_eq!(
        update(&["--remove", "--name", "old"]),
        format!("{shown} no longer names the clones of old\n")
    );
    fs::write(&file, "# estive begin demo\n").unwrap();
    let broken = place.failed(
        &[
            "update-hosts",
            "--herd",
            ".",
            "--file",
            file.to_str().unwrap(),
        ],
        2,
    );
    assert_eq!(
        broken,
        format!(
            "estive: {}: line 1: the block of demo begins and never ends; nothing was changed\n  try: mend the lines that begin with '# estive', or take them away\n",
            file.display()
        )
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "# estive begin demo\n");
}

#[test]
fn known_hosts_are_ssh_s_own() {
    let place = Place::new();
    let file = place.path("known");
    let update = ["update-known-hosts", "--file", file.to_str().unwrap()];
    // The keys of a manager's clones are not those that its folder would give: nothing is written for them.
    fs::write(&file, "of the manager").unwrap();
    let silent = place.failed(&update, 4);
    assert!(silent.contains("--herd DIR"), "{silent}");
    place.failed(&["list", "--format", "known-hosts"], 4);
    assert_eq!(fs::read_to_string(&file).unwrap(), "of the manager");
    fs::remove_file(&file).unwrap();
    place.said(&[&update[..], &["--herd", "."]].concat());
    let text = fs::read_to_string(&file).unwrap();
    let keys = place.said(&["list", "--herd", ".", "--format", "known-hosts"]);
    assert_eq!(
        text,
        format!("# estive begin demo\n{keys}# estive end demo\n")
    );
}

/// A manager that knows two clones of two deployments, for as many questions as are asked.
fn manager(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let domain = |name: &str, deployment: &str, last: u8| {
        format!(
            r#"{{"name":"{name}","deployment":"{deployment}","host":"h","generation":1,"state":"running","wanted":"running","address":"10.9.1.{last}","memory_mib":128,"cpus":3,"groups":["g"]}}"#
        )
    };
    let domains = format!("[{},{}]", domain("x", "one", 1), domain("y", "two", 2));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            let Some(Ok(first)) = lines.next() else {
                continue;
            };
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let body = match first.split(' ').nth(1).unwrap() {
                "/domains" => domains.clone(),
                path => format!(
                    r#"{{"public_key":"ssh-ed25519 AAAA{}"}}"#,
                    path.replace('/', ".")
                ),
            };
            let _ = write!(
                connection,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
}

#[test]
fn without_a_herd_the_manager_is_asked() {
    let place = Place::new();
    manager(&place.path("manager.sock"));
    assert_eq!(
        place.said(&["list", "--format", "mpi-hostfile"]),
        "x slots=3\ny slots=3\n"
    );
    assert_eq!(
        place.said(&["list", "--format", "known-hosts", "--name", "two"]),
        "y,10.9.1.2,estive-y ssh-ed25519 AAAA.domain.y.host-key\n"
    );
    let file = place.path("hosts");
    place.said(&["update-hosts", "--file", file.to_str().unwrap()]);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "# estive begin one\n10.9.1.1\tx\n# estive end one\n# estive begin two\n10.9.1.2\ty\n# estive end two\n"
    );
    assert_eq!(place.said(&["list", "--herd", "."]), "b1\nb2\nc\n");
}

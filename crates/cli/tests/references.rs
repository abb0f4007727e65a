//! `estive seal`, `reseal`, `diff` and `references`, on the program itself: what they say, and their exit codes.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("root/etc/hostname", "one\n"),
            ("root/opt/app/.env", "DB_PASSWORD=Tr0ub4dor&3x\n"),
            ("root/root/.bash_history", "ls\n"),
        ] {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_estive"))
            .current_dir(self.home.path())
            .env("ESTIVE_REFERENCES", self.path("images"))
            .env(
                "ESTIVE_MANAGER",
                format!("unix:{}", self.path("nobody.sock").display()),
            )
            .args(words)
            .output()
            .unwrap()
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        let words = [words, &["--output", "json"]].concat();
        serde_json::from_str(&self.said(&words)).unwrap()
    }

    fn refused(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn a_reference_is_made_made_anew_compared_and_removed() {
    let place = Place::new();
    let first = place.json(&["seal", "root", "--name", "web"]);
    assert_eq!(first["consistency"]["one_instant"], true);
    assert_eq!(first["left_out"][0]["pattern"], "~/.bash_history");
    let finding = &first["secrets"]["findings"][0];
    assert_eq!(finding["path"], "/opt/app/.env");
    assert!(!first.to_string().contains("Tr0ub4dor"));

    fs::write(place.path("root/etc/hostname"), "two\n").unwrap();
    fs::write(place.path("root/etc/new"), "").unwrap();
    let second = place.json(&["reseal", "web"]);
    assert_eq!(second["before"], first["digest"]);
    let changes = second["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0]["what"][0], "content");
    let again = place.json(&["reseal", "web"]);
    assert_eq!(again["digest"], second["digest"]);
    assert_eq!(again["changes"].as_array().unwrap().len(), 0);

    let old = first["digest"].as_str().unwrap();
    assert_eq!(
        place.said(&["diff", old, "web"]),
        "~ /etc/hostname  content\n+ /etc/new\n"
    );
    assert_eq!(place.said(&["diff", "web", "root"]), "");
    assert_eq!(
        place
            .run(&["diff", old, "web", "--exit-code"])
            .status
            .code(),
        Some(1)
    );

    let listed = place.json(&["references", "ls"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    // A process that has it open uses it, whoever that is.
    let open = File::open(place.path("images/web.erofs")).unwrap();
    let mut user = Command::new("sleep")
        .arg("100")
        .stdin(Stdio::from(open))
        .spawn()
        .unwrap();
    let said = place.refused(&["references", "rm", "web"], 2);
    user.kill().unwrap();
    user.wait().unwrap();
    assert!(said.contains("sleep"), "{said}");
    // Which clones of other hosts need it, only the manager knows; without it, a person must.
    let said = place.refused(&["references", "rm", "web"], 3);
    assert!(said.contains("cannot be asked"), "{said}");
    let manager = Manager::start(&place, old);
    let rm = |root: &str| ["references", "rm", root, "--manager", &manager.url].map(str::to_owned);
    let words = rm(old);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = place.refused(&words, 2);
    assert!(said.contains("the manager's reference default"), "{said}");
    let forced = [&words[..], &["--force"]].concat();
    let said = place.refused(&forced, 2);
    assert!(said.contains("the manager's reference default"), "{said}");
    let words = rm("web");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    place.said(&words);
    drop(manager);
    place.said(&["references", "rm", old, "--force"]);
    assert_eq!(fs::read_dir(place.path("images")).unwrap().count(), 0);
}

/// A manager with one reference.
struct Manager {
    child: Child,
    url: String,
}

impl Manager {
    fn start(place: &Place, root: &str) -> Self {
        for file in ["kernel", "initramfs", "modules"] {
            fs::write(place.path(file), file).unwrap();
        }
        let config = format!(
            "socket: manager.sock\nstate: manager\nhosts: {{host1: 'unix:{}'}}\nreferences: {{default: {{kernel: kernel, \
             initramfs: initramfs, modules: modules, root: {{name: '{root}', origins: ['https://127.0.0.1:7610']}}}}}}\n",
            place.path("nobody.sock").display()
        );
        fs::write(place.path("manager.yaml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_estive"))
            .args(["manager", "--config"])
            .arg(place.path("manager.yaml"))
            .spawn()
            .unwrap();
        let socket = place.path("manager.sock");
        for _ in 0..6000 {
            if UnixStream::connect(&socket).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Self {
            child,
            url: format!("unix:{}", socket.display()),
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_cannot_be_is_said_with_code_2() {
    let place = Place::new();
    for words in [
        ["seal", "nowhere", "--name", "web"],
        ["seal", "root", "--leave-out", "etc"],
        ["seal", "root", "--name", "a/b"],
        ["references", "rm", "nothing", "--force"],
    ] {
        place.refused(&words, 2);
    }
    place.refused(&["reseal", "web"], 2);
}

#[test]
fn the_rules_are_printed_with_what_they_mean_here() {
    let place = Place::new();
    let rules = place.json(&["seal", "root", "--show-left-out", "--keep", "~/.netrc"]);
    let rules = rules.as_array().unwrap();
    assert!(rules.len() > 100);
    let history = rules
        .iter()
        .find(|rule| rule["pattern"] == "~/.bash_history")
        .unwrap();
    assert_eq!(history["paths"][0], "/root/.bash_history");
    assert!(!place.path("images").exists());
}

/// On btrfs a root that is written to without a pause shows one instant, and no snapshot stays.
#[test]
fn a_snapshot_is_read_where_there_is_one() {
    let place = Place::new();
    let script = r#"
        set -e
        truncate -s 300M disk && mkfs.btrfs -q disk >&2 && mkdir mnt && mount -o loop disk mnt
        mkdir mnt/root && btrfs -q subvolume create mnt/root/inner
        echo x > mnt/root/inner/file
        (while echo x > mnt/root/new && mv mnt/root/new mnt/root/name; do :; done) &
        writer=$!
        "$1" seal mnt/root --out images --output json
        kill $writer
        btrfs subvolume list mnt | grep -c . >&2
    "#;
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_estive"))
        .current_dir(place.home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let sealed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sealed["consistency"]["read_from"], "btrfs snapshot");
    assert_eq!(sealed["consistency"]["one_instant"], true);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.trim().ends_with('1'), "{said}");
    let image = sealed["path"].as_str().unwrap();
    fs::create_dir_all(place.path("before/inner")).unwrap();
    fs::write(place.path("before/inner/file"), "x\n").unwrap();
    let changes = place.said(&["diff", "before", image]);
    assert!(
        changes
            .lines()
            .all(|line| line.ends_with("/name") || line.ends_with("/new")),
        "{changes}"
    );
    assert!(Path::new(image).exists());
}

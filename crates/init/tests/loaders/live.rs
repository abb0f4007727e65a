//! A live root, served by our own server: what a guest's kernel makes of it, and how soon it sees what changes there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use estive_nfs::{Access, ExportConfig, Hidden, Key, Limits, Quota, Service};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tokio::runtime::Runtime;

use crate::bed::{Guest, Machine, Tree, compiled, run};

fn lister() -> &'static Path {
    static LISTER: OnceLock<PathBuf> = OnceLock::new();
    LISTER.get_or_init(|| compiled("lister"))
}

/// Our server, on loopback.
struct Server {
    runtime: Runtime,
    port: u16,
}

impl Server {
    /// On this port, 0 for any.
    fn start(directory: &Path, key: &Key, port: u16) -> Server {
        Server::start_with(directory, None, key, port)
    }

    /// With a directory that is shared as `/home`, 1 MiB at the most.
    fn start_with(directory: &Path, shared: Option<&Path>, key: &Key, port: u16) -> Server {
        let export = ExportConfig {
            name: "/".into(),
            directory: directory.into(),
            access: Access::ReadOnly,
            squash_root: false,
            hidden: Hidden::default(),
        };
        let shared = shared.map(|directory| ExportConfig {
            name: "/home".into(),
            directory: directory.into(),
            access: Access::ReadWrite(Quota {
                bytes: Some(1 << 20),
                files: Some(100),
            }),
            ..export.clone()
        });
        let exports = std::iter::once(export).chain(shared).collect();
        let service = Arc::new(Service::open(exports, key).unwrap());
        let runtime = Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(("127.0.0.1", port)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(estive_nfs::listen(service, listener, Limits::default()));
        Server { runtime, port }
    }

    /// Cuts its clients, and goes.
    fn stop(self) -> u16 {
        self.runtime.shutdown_background();
        self.port
    }
}

/// A root with one of each kind, and the program that is told what to do.
fn root() -> Tree {
    let tree = Tree::new("live").file("usr/lib/big", vec![7; 3_000_000]);
    let at = |name: &str| tree.path().join(name);
    fs::create_dir(at("bin")).unwrap();
    fs::copy(lister(), at("bin/lister")).unwrap();
    fs::create_dir_all(at("var/log/deep")).unwrap();
    fs::create_dir(at("tmp")).unwrap();
    fs::set_permissions(at("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::write(at("var/log/error.log"), "a line\n").unwrap();
    fs::set_permissions(at("var/log/error.log"), PermissionsExt::from_mode(0o640)).unwrap();
    chown(at("var/log/error.log"), Some(33), Some(4)).unwrap();
    fs::write(at("bin/su"), vec![1; 5000]).unwrap();
    fs::set_permissions(at("bin/su"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::hard_link(at("bin/su"), at("bin/also")).unwrap();
    symlink("../bin/su", at("var/link")).unwrap();
    let nod = |name: &str, kind, device| {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o620), device).unwrap();
    };
    nod("null", FileType::CharacterDevice, makedev(1, 3));
    nod("disk", FileType::BlockDevice, makedev(259, 70_000));
    nod("fifo", FileType::Fifo, 0);
    nod("socket", FileType::Socket, 0);
    for name in ["in-place", "renamed", "deleted", "held"] {
        fs::write(at(&format!("etc/{name}")), "before").unwrap();
    }
    fs::create_dir(at("etc/many")).unwrap();
    for number in 0..300 {
        fs::write(at(&format!("etc/many/{number}")), number.to_string()).unwrap();
    }
    tree
}

fn boot(port: u16) -> Guest {
    let line =
        format!("nfs:10.0.2.2:/:ro:vers=3:port={port}:mountport={port}:actimeo=1:follow;tmpfs");
    let mut machine = Machine::new(&line);
    machine.words[1] = "init=/bin/lister".into();
    machine.words.push("ip=dhcp".into());
    machine.network = true;
    machine.is_typed_to = true;
    let mut guest = machine.boot();
    guest.hears("lister ready");
    guest
}

/// Tells the guest, and what it said of it.
fn ask(guest: &mut Guest, line: &str) -> String {
    let before = guest.text("console").len();
    guest.tell(line);
    guest.hears(&format!("done {line}"));
    guest.text("console")[before..].to_owned()
}

/// That the bottom layer is what stands here: first by a digest of all lines, since a console may lose a letter.
fn same(guest: &mut Guest, here: &Path) {
    let list = |command: &str| run(Command::new(lister()).arg(command).arg(here));
    let sum = list("sum");
    let found = ask(guest, "sum /.unions/0");
    if !found.contains(sum.trim()) {
        let there = ask(guest, "tree /.unions/0");
        let entries = |text: &str| -> Vec<String> {
            let entries = text.lines().filter(|line| line.starts_with("entry "));
            entries.map(str::to_owned).collect()
        };
        let (here, there) = (entries(&list("tree")), entries(&there));
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter()
                .filter(|line| !other.contains(line))
                .cloned()
                .collect()
        };
        panic!(
            "here: {:#?}\nthere: {:#?}",
            only(&here, &there),
            only(&there, &here)
        );
    }
    assert!(sum.starts_with("sum 3"), "{sum}");
}

#[test]
fn a_live_root_is_what_it_is_there_also_after_a_restart_of_its_server() {
    let tree = root();
    let key = Key::fresh();
    let server = Server::start(tree.path(), &key, 0);
    let mut guest = boot(server.port);
    same(&mut guest, tree.path());

    // A file that is not root's is copied up: its lists of rights are asked for.
    let appended = ask(&mut guest, "append /var/log/error.log");
    assert!(appended.contains("error.log done"), "{appended}");
    let found = ask(&mut guest, "stat /var/log/error.log");
    assert!(found.contains("f 640 33:4 16 "), "{found}");
    let kept = fs::metadata(tree.path().join("var/log/error.log")).unwrap();
    assert_eq!(kept.size(), 7);

    // With a file open the server goes, and comes again.
    ask(&mut guest, "open /.unions/0/usr/lib/big");
    let port = server.stop();
    let _server = Server::start(tree.path(), &key, port);
    let rest = ask(&mut guest, "rest");
    let whole = vec![7_u8; 3_000_000 - 4];
    let digest = whole.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    assert!(rest.contains(&format!("rest {digest:016x}")), "{rest}");
    same(&mut guest, tree.path());
    guest.tell("off");
    guest.ending();
}

#[test]
fn changes_of_a_live_root_are_seen_through_the_union() {
    let tree = root();
    let server = Server::start(tree.path(), &Key::fresh(), 0);
    let mut guest = boot(server.port);
    let at = |name: &str| tree.path().join("etc").join(name);
    // Each is known before it changes.
    for name in ["in-place", "renamed", "deleted", "new"] {
        ask(&mut guest, &format!("cat /etc/{name}"));
    }
    ask(&mut guest, "open /etc/held");
    fs::write(at("beside"), "after").unwrap();
    fs::rename(at("beside"), at("held")).unwrap();
    fs::write(at("in-place"), "after").unwrap();
    fs::write(at("aside"), "after").unwrap();
    fs::rename(at("aside"), at("renamed")).unwrap();
    fs::remove_file(at("deleted")).unwrap();
    fs::write(at("new"), "after").unwrap();
    // A file that the clone has open, too.
    let mut unseen = Vec::new();
    for (name, wanted) in [
        ("in-place", "after"),
        ("renamed", "after"),
        ("deleted", "(2)"),
        ("new", "after"),
    ] {
        let said = ask(&mut guest, &format!("until /etc/{name} {wanted}"));
        println!("{said}");
        if !said.contains("seen ") {
            unseen.push(said);
        }
    }
    assert!(unseen.is_empty(), "{unseen:?}");
    // What overlayfs does not do: a name whose file is replaced there while it is open here is stale until it is closed.
    let held = ask(&mut guest, "cat /etc/held");
    assert!(held.contains("cat /etc/held (116)"), "{held}");
    ask(&mut guest, "close");
    let held = ask(&mut guest, "until /etc/held after");
    assert!(held.contains("seen /etc/held"), "{held}");
    guest.tell("off");
    guest.ending();
}

#[test]
fn a_shared_directory_is_written_to_by_the_kernels_own_client() {
    let (tree, home) = (root(), tempfile::tempdir().unwrap());
    let key = Key::fresh();
    let server = Server::start_with(tree.path(), Some(home.path()), &key, 0);
    let port = server.port;
    let mut guest = boot(port);
    let options = format!(
        "addr=10.0.2.2,vers=3,proto=tcp,mountproto=tcp,nolock,port={port},mountport={port}"
    );
    let mounted = ask(&mut guest, &format!("mount 10.0.2.2:/home /home {options}"));
    assert!(mounted.contains("mounted Ok"), "{mounted}");
    let worked = ask(&mut guest, "work /home");
    assert!(worked.contains("worked Ok"), "{worked}\n{}", guest.story());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    // The server goes, and comes again.
    ask(&mut guest, "write /home/kept before");
    let port = server.stop();
    let _server = Server::start_with(tree.path(), Some(home.path()), &key, port);
    ask(&mut guest, "append /home/kept");
    let kept = fs::read_to_string(home.path().join("kept")).unwrap();
    assert_eq!(kept, "beforeappended\n");
    let worked = ask(&mut guest, "work /home/directory");
    assert!(worked.contains("NotFound"), "{worked}");
    guest.tell("off");
    guest.ending();
}

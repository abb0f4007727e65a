//! Clones of a live reference, as a herd file names it: they boot from a root that their own hosts pass on to them, one
//! moves, and sees what changes on the reference, before and after; two share a directory; a third, of another
//! deployment, gets nothing.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use estive_testbed::topology::DOOR_ADDRESS;

use common::{
    ShownBed, bed_config, done, herd, name, on_guests, place, stdout, tiny_reference, told, until,
    work,
};
use estive_boot::KernelTree;

const WRITER: &str = "clone01";
const READER: &str = "clone02";
const STRANGER: &str = "clone03";

#[test]
fn a_clone_of_a_live_reference_sees_what_changes() {
    on_guests("inside_live");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_live() {
    let root = live_root();
    let mut reference = tiny_reference("tiny", |_| {});
    // What mounts the root is in the disk of modules: as for any reference, nothing more is said.
    let tree = KernelTree::find(&told("ESTIVE_KERNEL_TREE")).unwrap();
    let modules = estive_exports::modules::image(tree.modules.parent(), &place("modules"));
    reference.modules = modules.unwrap().path;
    let mut config = bed_config(2, reference.clone());
    config.references.insert("as-it-is".to_owned(), reference);
    config.live.insert("as-it-is".to_owned(), root.clone());
    let home = work().join("home");
    fs::create_dir(&home).unwrap();
    // A clone's root is nobody there.
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    config.shares = vec![format!("as-it-is:/home={},bytes=64M", home.display())];
    let bed = ShownBed::start(config).await;
    let top = "network: 10.77.0.0/24\nmemory_mib: 192\ncpus: 1\nsets: []\nup: [ping]\n";
    let yaml = format!(
        "{top}reference: as-it-is\nshared: {{/home: {{}}}}\nhosts:\n  \
         {WRITER}: {{host: host1, address: {}, words: log.to=/home/log}}\n  \
         {READER}: {{host: host2, address: {}}}\n",
        address(WRITER),
        address(READER),
    );
    done(&bed, &["up", &herd("live", &yaml)]).await;
    assert_eq!(let_in(&bed, WRITER), [true, false]);
    assert_eq!(let_in(&bed, READER), [false, true]);
    each_change_is_seen(&bed, WRITER, &root, "first").await;
    one_reads_what_the_other_writes(&bed, &home).await;
    a_clone_of_another_deployment_gets_nothing(&bed, top).await;
    assert!(may_ask(&bed, 1, WRITER).await && may_ask(&bed, 2, READER).await);
    assert!(!may_ask(&bed, 2, WRITER).await && !may_ask(&bed, 1, READER).await);
    done(&bed, &["migrate", WRITER, "--to", "host2"]).await;
    // Its first host has nothing more to do with it.
    until("one host alone lets it in", async || {
        (let_in(&bed, WRITER) == [false, true]).then_some(())
    })
    .await;
    until("the reference lets its first host in no more", async || {
        (!may_ask(&bed, 1, WRITER).await).then_some(())
    })
    .await;
    assert!(may_ask(&bed, 2, WRITER).await);
    each_change_is_seen(&bed, WRITER, &root, "moved").await;
    one_reads_what_the_other_writes(&bed, &home).await;
    done(&bed, &["down", "live"]).await;
    for clone in [WRITER, READER] {
        assert_eq!(let_in(&bed, clone), [false, false]);
        until("no host may ask for it", async || {
            (!may_ask(&bed, 2, clone).await).then_some(())
        })
        .await;
    }
    // Each line once, in order, over the move.
    let lines = fs::read_to_string(home.join("log")).unwrap();
    let numbers = lines.lines().map(|line| line.parse::<usize>().unwrap());
    assert!(numbers.eq(1..=lines.lines().count()));
    bed.stop().await;
}

/// What the writer appends to a file of the shared directory, the reader reads there.
async fn one_reads_what_the_other_writes(bed: &ShownBed, home: &Path) {
    let written = || {
        let lines = fs::read_to_string(home.join("log")).unwrap_or_default();
        lines.lines().last().map(str::to_owned)
    };
    let first = until("lines are written", async || written()).await;
    until("more lines are written", async || {
        written().filter(|last| *last != first)
    })
    .await;
    let wanted = format!("\n{}\n", written().unwrap());
    until("the other clone reads them", async || {
        let read = asked(bed, READER, "/file/home/log").await?;
        read.contains(&wanted).then_some(())
    })
    .await;
}

/// On the same host, in the same network; its own deployment reads nothing live.
async fn a_clone_of_another_deployment_gets_nothing(bed: &ShownBed, top: &str) {
    let yaml = format!(
        "{top}hosts:\n  {STRANGER}: {{host: host1, address: {}}}\n",
        address(STRANGER)
    );
    done(bed, &["up", &herd("other", &yaml)]).await;
    let call = format!("/nfs/{DOOR_ADDRESS}:2049");
    for (clone, wanted) in [(WRITER, "answered"), (STRANGER, "turned away")] {
        until("the door says who may come in", async || {
            let said = asked(bed, clone, &call).await?;
            assert_eq!(said, wanted, "{clone}");
            Some(())
        })
        .await;
    }
    assert_eq!(let_in(bed, STRANGER), [false, false]);
    done(bed, &["down", "other"]).await;
}

fn address(clone: &str) -> String {
    format!("10.77.0.1{}", clone.trim_start_matches("clone"))
}

/// Whether each host lets the clone in.
fn let_in(bed: &ShownBed, clone: &str) -> [bool; 2] {
    [1, 2].map(|host| {
        let note = bed.cache_directory(host).live_note(&name(clone));
        note.exists()
    })
}

/// Whether the reference would let this host in for that clone, by the host's own certificate.
async fn may_ask(bed: &ShownBed, host: u8, clone: &str) -> bool {
    let credentials = work().join(format!("credentials/host{host}"));
    let file = |name: &str| credentials.join(name).display().to_string();
    let storage = estive_testbed::topology::STORAGE_ADDRESS;
    let url = format!(
        "https://{storage}:7610/v1/live/as-it-is?clone={}",
        address(clone)
    );
    let [cert, key, ca] = ["client-cert.pem", "client-key.pem", "ca-cert.pem"].map(file);
    let mut asked = vec!["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    asked.extend(["--cert", &cert, "--key", &key, "--cacert", &ca, &url]);
    let said = bed.topology().hosts[usize::from(host - 1)]
        .run_in(&asked)
        .await;
    // It asks for no upgrade, which is said to those who may.
    match stdout(&said.unwrap()).as_str() {
        "403" => false,
        "400" | "426" => true,
        other => panic!("{url}: {other}"),
    }
}

/// On a file system with handles: the private tmpfs is one.
fn live_root() -> PathBuf {
    let root = work().join("live-root");
    fs::create_dir_all(root.join("sbin")).unwrap();
    for directory in ["etc", "home"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let program = told("ESTIVE_GUEST_PROGRAMS").join("estive-beat");
    fs::copy(program, root.join("sbin/init")).unwrap();
    for name in ["in-place", "renamed", "deleted"] {
        for time in ["first", "moved"] {
            fs::write(root.join(format!("etc/{time}-{name}")), "before").unwrap();
        }
    }
    root
}

/// What a clone's program answers.
async fn asked(bed: &ShownBed, clone: &str, path: &str) -> Option<String> {
    let url = format!("http://{}{path}", address(clone));
    let asked = ["curl", "-sS", "-m", "10", &url];
    let said = bed.topology().client.run_in(&asked).await.ok()?;
    said.status.success().then(|| stdout(&said))
}

/// In place, renamed over, deleted, new: each is known in the clone before it changes on the reference.
async fn each_change_is_seen(bed: &ShownBed, clone: &str, root: &Path, time: &str) {
    let path = |name: &str| format!("/etc/{time}-{name}");
    let file = |name: &str| format!("/file{}", path(name));
    let here = |name: &str| root.join(path(name).trim_start_matches('/'));
    let kinds = [
        ("in-place", "before", "after"),
        ("renamed", "before", "after"),
        ("deleted", "before", "errno 2"),
        ("new", "errno 2", "after"),
    ];
    for (name, before, _) in kinds {
        until("the clone reads what was", async || {
            (asked(bed, clone, &file(name)).await? == before).then_some(())
        })
        .await;
    }
    let began = std::time::Instant::now();
    fs::write(here("in-place"), "after").unwrap();
    fs::write(here("aside"), "after").unwrap();
    fs::rename(here("aside"), here("renamed")).unwrap();
    fs::remove_file(here("deleted")).unwrap();
    fs::write(here("new"), "after").unwrap();
    for (name, _, after) in kinds {
        until("the clone reads what is", async || {
            (asked(bed, clone, &file(name)).await? == after).then_some(())
        })
        .await;
        println!(
            "{time} {name}: seen {} ms after it changed",
            began.elapsed().as_millis()
        );
    }
}

//! A clone of a live reference: it boots from a root that its own host passes on to it, moves, and sees what changes on
//! the reference, before and after.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{
    ShownBed, bed_config, done, herd, name, on_guests, place, stdout, tiny_reference, told, until,
    work,
};
use estive_boot::KernelTree;

const CLONE: &str = "clone01";
const ADDRESS: &str = "10.77.0.101";

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
    let bed = ShownBed::start(config).await;
    let yaml = format!(
        "network: 10.77.0.0/24\naddresses: {ADDRESS}-{ADDRESS}\nmemory_mib: 192\ncpus: 1\nsets: []\nup: [ping]\n\
         reference: as-it-is\nhosts:\n  {CLONE}:\n    host: host1\n"
    );
    done(&bed, &["up", &herd("live", &yaml)]).await;
    assert_eq!(let_in(&bed), [true, false]);
    each_change_is_seen(&bed, &root, "first").await;
    done(&bed, &["migrate", CLONE, "--to", "host2"]).await;
    // Its first host has nothing more to do with it.
    until("one host alone lets it in", async || {
        (let_in(&bed) == [false, true]).then_some(())
    })
    .await;
    each_change_is_seen(&bed, &root, "moved").await;
    done(&bed, &["down", "live"]).await;
    assert_eq!(let_in(&bed), [false, false]);
    bed.stop().await;
}

/// Whether each host lets the clone in.
fn let_in(bed: &ShownBed) -> [bool; 2] {
    [1, 2].map(|host| bed.cache_directory(host).live_note(&name(CLONE)).exists())
}

/// On a file system with handles: the private tmpfs is one.
fn live_root() -> PathBuf {
    let root = work().join("live-root");
    fs::create_dir_all(root.join("sbin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    let program = told("ESTIVE_GUEST_PROGRAMS").join("estive-beat");
    fs::copy(program, root.join("sbin/init")).unwrap();
    for name in ["in-place", "renamed", "deleted"] {
        for time in ["first", "moved"] {
            fs::write(root.join(format!("etc/{time}-{name}")), "before").unwrap();
        }
    }
    root
}

async fn file(bed: &ShownBed, path: &str) -> Option<String> {
    let url = format!("http://{ADDRESS}/file{path}");
    let asked = ["curl", "-sS", "-m", "10", &url];
    let said = bed.topology().client.run_in(&asked).await.ok()?;
    said.status.success().then(|| stdout(&said))
}

/// In place, renamed over, deleted, new: each is known in the clone before it changes on the reference.
async fn each_change_is_seen(bed: &ShownBed, root: &Path, time: &str) {
    let path = |name: &str| format!("/etc/{time}-{name}");
    let here = |name: &str| root.join(path(name).trim_start_matches('/'));
    let kinds = [
        ("in-place", "before", "after"),
        ("renamed", "before", "after"),
        ("deleted", "before", "errno 2"),
        ("new", "errno 2", "after"),
    ];
    for (name, before, _) in kinds {
        until("the clone reads what was", async || {
            (file(bed, &path(name)).await? == before).then_some(())
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
            (file(bed, &path(name)).await? == after).then_some(())
        })
        .await;
        println!(
            "{time} {name}: seen {} ms after it changed",
            began.elapsed().as_millis()
        );
    }
}

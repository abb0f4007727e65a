//! A clone of a live reference: it boots from a root that its own host passes on to it, moves, and sees what changes on
//! the reference, before and after.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{
    ShownBed, bed_config, done, herd, on_guests, stdout, tiny_reference, told, until, work,
};
use estive_network::namespace::Namespace;
use serde_json::json;
use tokio::process::{Child, Command};

const CLONE: &str = "clone01";
const ADDRESS: &str = "10.77.0.101";
/// Of every host, for its clones.
const DOOR: &str = "10.77.0.9";
const LIVE_PORT: u16 = 7900;

#[test]
fn a_clone_of_a_live_reference_sees_what_changes() {
    on_guests("inside_live");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_live() {
    let root = live_root();
    let mut reference = tiny_reference("tiny", |_| {});
    reference.early = Some((told("ESTIVE_INIT"), told("ESTIVE_KERNEL_TREE")));
    let bed = ShownBed::start(bed_config(2, reference)).await;
    let live = Live::start(&bed, &root).await;
    let yaml = format!(
        "network: 10.77.0.0/24\naddresses: {ADDRESS}-{ADDRESS}\nmemory_mib: 192\ncpus: 1\nsets: []\nup: [ping]\n\
         hosts:\n  {CLONE}:\n    host: host1\n    \
         root: 'nfs:{DOOR}:/:ro:vers=3:port=2049:mountport=2049:actimeo=1:follow;estive;tmpfs:size=30%'\n"
    );
    done(&bed, &["up", &herd("live", &yaml)]).await;
    each_change_is_seen(&bed, &root, "first").await;
    done(&bed, &["migrate", CLONE, "--to", "host2"]).await;
    // Its first host has nothing more to do with it.
    live.forget(1);
    each_change_is_seen(&bed, &root, "moved").await;
    done(&bed, &["down", "live"]).await;
    drop(live);
    bed.stop().await;
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

/// What runs beside the bed; ended when dropped.
struct Live {
    _parts: Vec<Child>,
}

impl Live {
    async fn start(bed: &ShownBed, root: &Path) -> Live {
        let topology = bed.topology();
        let credentials = |name: &str| work().join("credentials").join(name);
        let start = |namespace: &Namespace, log: &str, arguments: &[String]| {
            let [program, words @ ..] = namespace.prefix();
            let log = fs::File::create(work().join("log").join(log)).unwrap();
            Command::new(program)
                .args(words)
                .arg(told("ESTIVE_BIN"))
                .args(arguments)
                .stderr(log.try_clone().unwrap())
                .stdout(log)
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        };
        let state = work().join("live-state");
        fs::create_dir_all(&state).unwrap();
        let mut parts = vec![start(
            &topology.storage,
            "live.log",
            &[
                "storage".to_owned(),
                format!(
                    "--listen={}:{LIVE_PORT}",
                    estive_testbed::topology::STORAGE_ADDRESS
                ),
                format!("--credentials={}", credentials("storage").display()),
                format!("--state={}", state.display()),
                format!("--live=tiny={}", root.display()),
            ],
        )];
        for (index, host) in topology.hosts.iter().enumerate() {
            let number = index + 1;
            let directory = work().join(format!("live{number}"));
            fs::create_dir_all(directory.join("live")).unwrap();
            fs::write(directory.join("live/tiny.json"), note().to_string()).unwrap();
            parts.push(start(
                host,
                &format!("cache{number}.log"),
                &[
                    "cache".to_owned(),
                    format!("--door={DOOR}"),
                    format!("--bridge={}", estive_testbed::topology::HOST_BRIDGE),
                    format!("--directory={}", directory.display()),
                    format!(
                        "--credentials={}",
                        credentials(&format!("host{number}")).display()
                    ),
                ],
            ));
            until("the host listens for its clones", async || {
                let listening = host.run_in(&["ss", "-ltnH"]).await.ok()?;
                stdout(&listening)
                    .contains(&format!("{DOOR}:2049"))
                    .then_some(())
            })
            .await;
        }
        Live { _parts: parts }
    }

    /// A host lets no clone in any more.
    fn forget(&self, host: u8) {
        fs::remove_file(work().join(format!("live{host}/live/tiny.json"))).unwrap();
    }
}

fn note() -> serde_json::Value {
    let origin = estive_testbed::topology::STORAGE_ADDRESS;
    json!({
        "listen": format!("{DOOR}:2049"),
        "origins": [format!("https://{origin}:{LIVE_PORT}")],
        "clones": [ADDRESS],
    })
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

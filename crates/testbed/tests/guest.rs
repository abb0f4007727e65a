//! The guest program as the whole user space of a real guest: it is heard, answers, and keeps its numbers.
//!
//! `./x test` sets `ESTIVE_KERNEL_TREE`, `ESTIVE_INIT`, `ESTIVE_GUEST_PROGRAMS` and `ESTIVE_ACCEL`.
#![allow(clippy::disallowed_methods)]

mod inside;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use estive_archive::{LAYER_DISK_BYTES, LayerArchive};
use estive_boot::{KernelTree, command_line, initramfs};
use estive_rig::from_environment;
use estive_testbed::outer::WORK_DIRECTORY;
use estive_testbed::topology::HOST_BRIDGE;
use estive_testbed::{
    Download, DownloadConfig, Load, LoadConfig, Ping, Topology, Witness, clock_offset, load,
};
use inside::{TOOL, inside, is_root};
use tokio::process::Child;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
/// A tiny guest takes three seconds alone; with others on a busy machine ten times that, and some.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_guest_is_heard_and_answers() {
    if is_root() {
        assert_eq!(inside("inside_guest"), 0);
    }
}

/// What one guest boots from, in `directory`.
fn make_parts(directory: &Path) {
    let kernel = KernelTree::find(&from_environment("ESTIVE_KERNEL_TREE")).unwrap();
    fs::copy(&kernel.vmlinuz, directory.join("kernel")).unwrap();
    let init = fs::read(from_environment("ESTIVE_INIT")).unwrap();
    fs::write(
        directory.join("initramfs"),
        initramfs::build(&init, &kernel).unwrap(),
    )
    .unwrap();
    fs::write(
        directory.join("layer"),
        LayerArchive::new().finish().unwrap(),
    )
    .unwrap();
    File::options()
        .write(true)
        .open(directory.join("layer"))
        .unwrap()
        .set_len(LAYER_DISK_BYTES)
        .unwrap();

    let root = directory.join("tree");
    fs::create_dir_all(root.join("sbin")).unwrap();
    fs::copy(
        from_environment("ESTIVE_GUEST_PROGRAMS").join("estive-beat"),
        root.join("sbin/init"),
    )
    .unwrap();
    let sealed = estive_exports::seal(&root, directory).unwrap();
    fs::rename(sealed.path, directory.join("root")).unwrap();
    let modules = estive_exports::modules::image(None, directory).unwrap();
    fs::rename(modules.path, directory.join("modules")).unwrap();

    let identity = format!(
        r#"{{"version":1,"name":"clone01","hostname":"clone01","mac":"52:54:00:00:00:65","address":"{GUEST}/24","gateway":null,"seed":"{}"}}"#,
        "5a".repeat(64)
    );
    fs::write(directory.join("identity"), identity).unwrap();
}

async fn start(topology: &Topology, directory: &Path) -> Child {
    let host = &topology.hosts[0];
    host.tap("t0", HOST_BRIDGE).await.unwrap();
    let accel = std::env::var("ESTIVE_ACCEL").unwrap_or_else(|_| "tcg".to_owned());
    let line = command_line(None, []).unwrap();
    let mut qemu = host.command("qemu-system-x86_64");
    qemu.current_dir(directory)
        .args(["-accel", &accel, "-append", &line])
        .args(
            "-machine pc-q35-7.2 -cpu max -m 192M -display none -nodefaults -no-user-config"
                .split(' '),
        )
        .args("-kernel kernel -initrd initramfs -serial file:console".split(' '))
        .args("-fw_cfg name=opt/org.estive/identity,file=identity".split(' '))
        .args("-netdev tap,id=n0,ifname=t0,script=no,downscript=no".split(' '))
        .args("-device virtio-net-pci,romfile=,netdev=n0,mac=52:54:00:00:00:01".split(' '))
        .args(
            "-device virtio-rng-pci -device virtio-serial-pci -chardev file,id=report,path=report"
                .split(' '),
        )
        .args("-device virtserialport,chardev=report,name=org.estive.report".split(' '));
    for disk in ["layer", "root", "modules"] {
        let node = format!(
            "driver=raw,node-name={disk},read-only=on,file.driver=file,file.filename={disk}"
        );
        qemu.args([
            "-blockdev",
            &node,
            "-device",
            &format!("virtio-blk-pci,drive={disk},serial=estive-{disk}"),
        ]);
    }
    qemu.stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("qemu-system-x86_64 is needed")
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_guest() {
    let directory = Path::new(WORK_DIRECTORY);
    let (tool, topology) = (Path::new(TOOL), Topology::make(1).await.unwrap());
    make_parts(directory);
    let witness = Witness::start(tool, &topology).await.unwrap();
    let mut guest = start(&topology, directory).await;
    let wait_until = async |what: &str, holds: &dyn Fn() -> bool| {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(LIMIT, wait).await.is_err() {
            let text = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
            panic!(
                "{what}: not within {LIMIT:?}\n{}\n{}",
                text("console"),
                text("report")
            );
        }
    };
    wait_until("the guest is heard", &|| {
        witness.last_heard("clone01").is_some()
    })
    .await;

    let address = SocketAddr::from((GUEST, 80));
    let config = LoadConfig {
        address,
        path: "/".into(),
        expect: "hello from clone01\n".into(),
        rate_per_s: 50,
    };
    let requests = Load::start(tool, &topology.client, &config).await.unwrap();
    let pings = Ping::start(tool, &topology.client, GUEST).await.unwrap();
    let config = DownloadConfig {
        address,
        path: "/big".into(),
        rate_bytes_per_s: 100_000,
    };
    let download = Download::start(tool, &topology.client, &config)
        .await
        .unwrap();
    wait_until("requests are answered", &|| {
        load::summary(&requests.requests()).requests >= 150
    })
    .await;
    wait_until("bytes come", &|| download.progress().bytes >= 200_000).await;
    let offset = clock_offset(tool, &topology.client, address).await.unwrap();
    assert!(
        offset.offset_ms.abs() < 60_000,
        "the guest's clock is of another day: {offset:?}"
    );

    let requests = load::summary(&requests.finish().await.unwrap());
    assert_eq!(requests.lost, 0, "{requests:?}");
    assert_eq!(download.finish().await.unwrap().broken, None);
    assert!(!pings.finish().await.unwrap().is_empty());
    let config = LoadConfig {
        address,
        path: "/log".into(),
        expect: "\"contiguous\":true".into(),
        rate_per_s: 1,
    };
    // It starts only once the answer holds what is expected.
    drop(Load::start(tool, &topology.client, &config).await.unwrap());
    guest.kill().await.unwrap();
    let judgement = witness.judgement();
    assert!(judgement.is_clean(), "{:?}", judgement.twice);
    let boots = &judgement.guests["clone01"];
    assert_eq!(boots.len(), 1);
    assert_eq!(boots[0].ports, ["p-h1"]);
}

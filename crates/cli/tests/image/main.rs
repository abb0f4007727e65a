//! `estive image`: what it writes starts machines that are given no kernel, under BIOS, UEFI and from the network, and
//! their drivers are found by their devices.
//!
//! `./x test` sets `ESTIVE_GENERIC_KERNEL_TREE`, `ESTIVE_INIT` and `ESTIVE_ACCEL`.

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use estive_rig::{compiled, from_environment, run};
use machine::{Disk, Firmware, Machine};

/// What the probe is told: it is the init of the suite of loaders.
const PROBE: &str = "console=ttyS0 estive.init=/bin/probe probe.read=/proc/modules,/proc/cmdline probe.list=/sys/class/net,/sys/firmware probe.write=/etc/written";

/// A place with a root that holds one program, and the image of it.
struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let home = tempfile::tempdir().unwrap();
        for directory in ["root/bin", "root/etc"] {
            fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        fs::write(home.path().join("root/etc/layer-root"), "the root's\n").unwrap();
        Bench { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `estive image` with the generic kernel.
    fn image(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_estive"))
            .arg("image")
            .args(arguments)
            .arg("--kernel-tree")
            .arg(from_environment("ESTIVE_GENERIC_KERNEL_TREE"))
            .current_dir(self.home.path())
            .output()
            .unwrap()
    }

    fn made(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let output = self.image(&all);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The root with its program, as an ext4 image called `machine`.
    fn root_image(&self) -> PathBuf {
        let source = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../init/tests/loaders/probe.rs"
        ));
        compiled(source, &self.path("root/bin"));
        let image = self.path("root.ext4");
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-L", "machine", "-d"])
            .args([&self.path("root"), &image])
            .arg("32M"));
        image
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What every machine here says of itself: it was joined, is written to, and has the drivers of its devices and no
/// others.
fn is_driven(facts: &BTreeMap<String, String>, drivers: &[&str]) {
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    assert_eq!(fact("/etc/layer-root"), "the root's");
    assert_eq!(fact("write /etc/written"), "written");
    assert_eq!(fact("/sys/class/net"), "eth0,lo");
    let loaded: Vec<&str> = fact("/proc/modules")
        .split('|')
        .filter_map(|line| line.split(' ').next())
        .collect();
    for module in drivers {
        assert!(loaded.contains(module), "{module} {loaded:?}");
    }
    for module in [
        "vmxnet3",
        "virtio_net",
        "nvme",
        "mlx5_core",
        "usb_storage",
        "megaraid_sas",
    ] {
        assert!(
            drivers.contains(&module) || !loaded.contains(&module),
            "{module} {loaded:?}"
        );
    }
}

#[test]
fn one_disk_starts_under_bios_and_uefi() {
    let bench = Bench::new();
    let root = bench.root_image();
    let line = [
        "--disk",
        "stick",
        "--root",
        "LABEL=machine;tmpfs",
        "--words",
        PROBE,
    ];
    // Firmware of one driver, which the reference has.
    let firmware = bench.path("root/lib/firmware/tigon");
    fs::create_dir_all(&firmware).unwrap();
    fs::write(firmware.join("tg3.bin"), "firmware").unwrap();
    let made = bench.made(&[&line[..], &["--reference", "root"]].concat());
    let firmware = &made["contents"]["firmware"];
    assert_eq!(
        firmware.to_string(),
        r#"[{"name":"tigon/tg3.bin","size_bytes":8}]"#
    );
    let absent = made["contents"]["firmware_absent"].to_string();
    assert!(
        absent.contains("tigon/tg3_tso.bin") && !absent.contains("tg3.bin"),
        "{absent}"
    );
    assert!(made["files"].as_array().unwrap().is_empty(), "{made:#}");
    let stick = bench.path("stick");

    let disks = [Disk::Sata(&stick), Disk::Raid(&root)];
    let facts = Machine::start(Firmware::Bios, &disks, None).facts();
    is_driven(&facts, &["ahci", "sd_mod", "megaraid_sas", "e1000", "ext4"]);
    assert!(
        facts["/proc/cmdline"].contains(" root=LABEL=machine;tmpfs "),
        "{facts:#?}"
    );

    let disks = [Disk::Usb(&stick), Disk::Sata(&root)];
    let facts = Machine::start(Firmware::Uefi, &disks, None).facts();
    is_driven(
        &facts,
        &["ahci", "sd_mod", "xhci_pci", "usb_storage", "e1000"],
    );
    assert!(
        facts["/sys/firmware"].split(',').any(|name| name == "efi"),
        "{facts:#?}"
    );
}

/// Nothing but the network: the card's own program gets a script, a kernel and an initramfs, and these get the root.
#[test]
fn a_machine_without_disks_starts_from_the_network() {
    let bench = Bench::new();
    let root = bench.root_image();
    let port = serve(fs::read(root).unwrap());
    let line = format!("loop+url:http://10.0.2.2:{port}/root.ext4;tmpfs");
    let words = format!("{PROBE} ip=dhcp");
    bench.made(&[
        "out",
        "--root",
        &line,
        "--words",
        &words,
        "--hardware",
        "virtual",
    ]);
    let empty = bench.path("empty");
    fs::File::create(&empty).unwrap().set_len(16 << 20).unwrap();
    let facts = Machine::start(
        Firmware::Bios,
        &[Disk::Sata(&empty)],
        Some(&bench.path("out")),
    )
    .facts();
    is_driven(&facts, &["ahci", "e1000", "ext4", "loop"]);
}

/// Serves this file to whoever asks, as long as the test runs; gives the port.
fn serve(file: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // One who goes away is no failure of the test's.
            let _ = stream.and_then(|stream| answer(stream, &file));
        }
    });
    port
}

fn answer(stream: TcpStream, file: &[u8]) -> std::io::Result<()> {
    let mut request = BufReader::new(stream);
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut stream = request.into_inner();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        file.len()
    )?;
    if first.starts_with("GET ") {
        stream.write_all(file)?;
    }
    stream.flush()
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_written() {
    let bench = Bench::new();
    let refused = |arguments: &[&str], words: &str, code: i32| {
        let output = bench.image(arguments);
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        let left: Vec<_> = fs::read_dir(bench.home.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    };
    refused(
        &["out", "--root", "tmpfs;nsf:10.0.0.1:/"],
        "tmpfs;nsf:10.0.0.1:/\n      ^\n",
        2,
    );
    refused(&["--root", "tmpfs"], "<OUT|--disk <FILE>>", 2);
    refused(&["root", "--root", "tmpfs"], "holds something else", 2);
    refused(
        &["out", "--root", "/dev/vda", "--words", "a'b"],
        "GRUB changes quotes",
        1,
    );
    refused(
        &["out", "--root", "/dev/vda", "--words", "root=/dev/vdb"],
        "written as --root",
        1,
    );
    refused(
        &["out", "--root", "/dev/vda", "--words", "ip=dhp"],
        "ip= on the command line: it must be an address",
        1,
    );
    refused(&["out", "--root", "/dev/vda", "--init", "gone"], "gone", 1);
    refused(
        &["out", "--root", "luks+block:/dev/vda"],
        "needs cryptsetup of the reference: name its root as a directory",
        2,
    );
}

#[test]
fn an_image_says_what_is_in_it() {
    let bench = Bench::new();
    let made = bench.made(&["out", "--root", "/dev/sda:fs=ext4", "--hardware", "virtual"]);
    let names = |list: &str| -> Vec<String> {
        let list = made["contents"][list].as_array().unwrap().iter();
        list.map(|named| named["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let modules = names("modules");
    for module in ["ext4", "overlay", "ahci", "e1000", "virtio_net"] {
        assert!(
            modules.iter().any(|name| name == module),
            "{module} {modules:?}"
        );
    }
    for module in ["mlx5_core", "nfs", "loop", "snd"] {
        assert!(!modules.iter().any(|name| name == module), "{module}");
    }
    assert!(names("programs").is_empty());
    run(Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(bench.path("out")));
    let line = fs::read_to_string(bench.path("out/cmdline")).unwrap();
    assert_eq!(
        line,
        "console=ttyS0 quiet cryptomgr.notests root=/dev/sda:fs=ext4\n"
    );
    // Packed otherwise, it is the same; and what was there is replaced.
    let again = bench.made(&[
        "out",
        "--root",
        "/dev/sda:fs=ext4",
        "--hardware",
        "virtual",
        "--compress",
        "none",
    ]);
    assert_eq!(again["contents"], made["contents"]);
    let plain = fs::read(bench.path("out/initramfs")).unwrap();
    assert!(plain.starts_with(b"070701"));
}

//! Roots that are no Debian, a root with its own kernel, and one agent driven alone.
//!
//! `./x test` says by the environment what the guests are made of, see `common`.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use common::{
    ShownBed, TOOL, assert_nothing_stays, bed_config, done, fails, herd, leftovers, name,
    on_guests, run, shown, stdout, tiny_herd, tiny_reference, told, until, work,
};
use estive_api::domain_xml::{
    Accelerator, CONFIG_FILE, DiskSource, DomainXml, IDENTITY_FILE, LAYER_FILE, RootSource,
};
use estive_archive::LayerArchive;
use estive_boot::KernelTree;
use estive_model::Digest;
use estive_testbed::{BedReference, Load, LoadConfig, Witness, load};

#[test]
fn any_root_comes_up_and_moves() {
    on_guests("inside_any_root");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_any_root() {
    let plain = tiny_reference("plain", |root| {
        // Made by hand: one directory with one program, nothing else.
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
        assert!(KernelTree::find(root).is_err());
    });
    let own = with_own_kernel();
    let mut config = bed_config(2, plain.clone());
    config.references.insert("own".to_owned(), own);
    let mut bed = ShownBed::start(config).await;
    let witness = Witness::start(Path::new(TOOL), bed.topology())
        .await
        .unwrap();
    let yaml = tiny_herd(&[("plain", None), ("own", None)])
        .replace("  own:", "  own: {reference: own}")
        .replace("  plain:", "  plain: {root: 'erofs;estive;tmpfs:size=30%'}");
    let rows = bed
        .estive_json(&["up", &herd("roots", &yaml)])
        .await
        .unwrap();
    println!("{rows:#}");
    for row in rows.as_array().unwrap() {
        assert_eq!(row["answered_by"], "ping");
        assert!(
            row["to_switched_ms"].as_u64() <= row["to_answering_ms"].as_u64(),
            "{row}"
        );
    }
    // A root line of the herd file's is what the clone's init followed.
    let boots = [("plain", true), ("own", false)];
    for (clone, has_line) in boots {
        let boot = done(&bed, &["boot", clone, "--output", "json"]).await;
        assert_eq!(boot.contains("tmpfs:size=30%"), has_line, "{boot}");
    }
    move_there_and_back(&bed, &witness, "plain").await;
    move_there_and_back(&bed, &witness, "own").await;
    // Wherever they were they read through that host's own cache.
    for host in [1, 2] {
        let about = bed.cache_about(host).await.unwrap();
        assert!(about.clients > 0 || about.read_bytes > 0, "{about:?}");
        assert_eq!(about.refused_reads, 0, "{about:?}");
    }
    let judgement = witness.judgement();
    assert!(judgement.is_clean(), "{:?}", judgement.twice);
    for guest in ["plain", "own"] {
        assert_eq!(judgement.guests[guest].len(), 1, "one boot of {guest}");
        assert_eq!(
            judgement.guests[guest][0].ports.len(),
            3,
            "{:?}",
            judgement.guests[guest]
        );
    }
    done(&bed, &["down", "roots"]).await;
    assert_nothing_stays(&bed).await;
    an_agent_alone(&mut bed, &plain).await;
    bed.stop().await;
}

/// A reference that brings its kernel and modules: they are found in it, and Estive's are not used.
fn with_own_kernel() -> BedReference {
    let given = KernelTree::find(&told("ESTIVE_KERNEL_TREE")).unwrap();
    let mut place = PathBuf::new();
    let reference = tiny_reference("own", |root| {
        let modules = root.join("lib/modules");
        for directory in [&root.join("boot"), &modules] {
            fs::create_dir_all(directory).unwrap();
        }
        let release = &given.release;
        fs::copy(&given.vmlinuz, root.join(format!("boot/vmlinuz-{release}"))).unwrap();
        let copied = run(
            "cp",
            &[
                "-a",
                &given.modules.display().to_string(),
                &modules.display().to_string(),
            ],
        );
        assert!(copied.status.success());
        place = root.to_owned();
    });
    assert!(
        reference.kernel.starts_with(place.canonicalize().unwrap()),
        "{:?}",
        reference.kernel
    );
    // The program is all it needs of a system, but its modules are there.
    assert!(
        place
            .join("lib/modules")
            .join(&given.release)
            .join("modules.dep")
            .is_file()
    );
    reference
}

async fn move_there_and_back(bed: &ShownBed, witness: &Witness, guest: &str) {
    let domain = shown(bed, guest).await;
    let address: Ipv4Addr = domain["address"].as_str().unwrap().parse().unwrap();
    let home = domain["host"].as_str().unwrap().to_owned();
    let config = LoadConfig {
        address: SocketAddr::from((address, 80)),
        path: "/".to_owned(),
        expect: format!("hello from {guest}\n"),
        rate_per_s: 25,
    };
    let requests = Load::start(Path::new(TOOL), &bed.topology().client, &config)
        .await
        .unwrap();
    let away = if home == "host1" { "host2" } else { "host1" };
    for to in [away, home.as_str()] {
        let moved = bed
            .estive_json(&["migrate", guest, "--to", to])
            .await
            .unwrap();
        println!("{moved}");
        assert_eq!(shown(bed, guest).await["host"], to);
        let port = format!("p-h{}", to.trim_start_matches("host"));
        until("it is heard at its new port", async || {
            witness
                .last_heard(guest)
                .filter(|(_, heard)| *heard == port)
        })
        .await;
    }
    let figures = load::summary(&requests.finish().await.unwrap());
    assert_eq!(figures.lost, 0, "{figures:?}");
    assert!(figures.requests > 0);
}

fn digest_of(path: &Path) -> Digest {
    let said = run("sha256sum", &[&path.display().to_string()]);
    let text = stdout(&said);
    let hex = text.split(' ').next().unwrap().trim_start_matches('\\');
    Digest::new(format!("sha256:{hex}")).unwrap()
}

/// A sealed image lies under its root's name.
fn root_name(image: &Path) -> Digest {
    let hex = image.file_stem().unwrap().to_str().unwrap();
    Digest::new(format!("sha256:{hex}")).unwrap()
}

/// A domain archive made by hand: its identity comes by the virtio-serial port, its modules, kernel and initial file
/// system travel in it.
fn make_archive(parts: &BedReference, guest: &str, by_fw_cfg: bool) -> String {
    let place = work().join("alone").join(guest);
    fs::create_dir_all(place.join("files")).unwrap();
    let [kernel, initramfs, modules] =
        [&parts.kernel, &parts.initramfs, &parts.modules].map(|path| {
            let digest = digest_of(path);
            fs::copy(path, place.join("files").join(digest.hex())).unwrap();
            digest
        });
    let mac = "52:54:00:00:00:07".to_owned();
    let description = DomainXml {
        accelerator: Accelerator::Emulation,
        name: name(guest),
        uuid: "0d2b1f9c-6a5e-4b47-9a61-5a2f3f7d9c11".to_owned(),
        memory_mib: 160,
        cpus: 1,
        kernel,
        initramfs,
        command_line: estive_boot::command_line(None, []).unwrap(),
        identity_by_fw_cfg: by_fw_cfg,
        root: DiskSource::Root(RootSource {
            name: root_name(&parts.image),
            origins: vec!["https://10.77.0.5:7610".parse().unwrap()],
        }),
        modules: DiskSource::File(modules),
        volume: None,
        live: None,
        mac: Some(mac.clone()),
    };
    let identity = serde_json::json!({
        "version": 1, "name": guest, "hostname": guest, "mac": mac, "address": "10.77.0.177/24", "gateway": null,
    });
    fs::write(place.join(CONFIG_FILE), description.to_xml()).unwrap();
    fs::write(place.join(IDENTITY_FILE), identity.to_string()).unwrap();
    fs::write(
        place.join(LAYER_FILE),
        LayerArchive::new().finish().unwrap(),
    )
    .unwrap();
    let archive = work().join("alone").join(format!("{guest}.tar.gz"));
    let (place, archive) = (place.display().to_string(), archive.display().to_string());
    let members = [CONFIG_FILE, IDENTITY_FILE, LAYER_FILE, "files"];
    let packed = run(
        "tar",
        &[&["-C", &place, "-czf", &archive][..], &members].concat(),
    );
    assert!(packed.status.success(), "{packed:?}");
    archive
}

/// No manager is there: one agent is given a domain by hand, and does all that is asked.
async fn an_agent_alone(bed: &mut ShownBed, parts: &BedReference) {
    bed.kill_manager().await;
    let url = format!("unix:{}", bed.agent_socket(1).display());
    let archive = make_archive(parts, "alone", false);
    let agent = |words: &[&str]| -> Vec<String> {
        ["--agent", &url]
            .iter()
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let say = async |words: &[&str]| {
        let words = agent(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        done(bed, &words).await
    };
    let state = async || {
        let words = agent(&["show", "alone"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bed.estive_json(&words).await.unwrap()
    };
    assert!(
        say(&["define", "alone", &archive])
            .await
            .contains("alone is stopped")
    );
    assert_eq!(state().await["state"], "stopped");
    say(&["start", "alone"]).await;
    let heard = until(
        "it answers by the name that came through the port",
        async || {
            let curl = ["curl", "-sS", "-f", "-m", "5", "http://10.77.0.177/"];
            bed.topology().client.run_in(&curl).await.ok()
        },
    )
    .await;
    assert_eq!(stdout(&heard), "hello from alone\n");
    let running = state().await;
    assert_eq!(running["state"], "running");
    let phases = running["boot"]["phases_ms"].as_object().unwrap();
    for phase in [
        "init", "identity", "layer", "root", "union", "network", "switch",
    ] {
        assert!(phases.contains_key(phase), "{running}");
    }
    let pid = running["pid"].as_u64().expect("its QEMU");
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(
        !String::from_utf8_lossy(&line).contains("fw_cfg"),
        "no other way was open"
    );
    assert!(say(&["ls"]).await.contains("alone"));
    assert!(
        say(&["logs", "alone"])
            .await
            .contains("estive-init: phase switch")
    );
    assert!(say(&["events"]).await.contains("alone"));
    // Only a stopped domain is deleted; and what needs a manager says so.
    fails(
        bed,
        2,
        &["--agent", &url, "delete", "alone"],
        &["alone", "stop"],
    )
    .await;
    fails(
        bed,
        2,
        &["--agent", &url, "migrate", "alone", "--to", "host2"],
        &["manager"],
    )
    .await;
    say(&["pause", "alone"]).await;
    assert_eq!(state().await["state"], "paused");
    say(&["resume", "alone"]).await;
    assert_eq!(state().await["state"], "running");
    say(&["stop", "alone"]).await;
    assert_eq!(state().await["state"], "stopped");
    // Another start reads from the host's own disk: nothing crosses the network.
    let before = bed.cache_about(1).await.unwrap();
    say(&["start", "alone"]).await;
    until("it answers again", async || {
        let curl = ["curl", "-sS", "-f", "-m", "5", "http://10.77.0.177/"];
        bed.topology().client.run_in(&curl).await.ok()
    })
    .await;
    let after = bed.cache_about(1).await.unwrap();
    assert!(after.read_bytes > before.read_bytes, "{after:?}");
    assert_eq!(after.fetched_bytes, before.fetched_bytes);
    assert_eq!(after.refused_reads, 0, "{after:?}");
    say(&["stop", "alone"]).await;
    say(&["delete", "alone"]).await;
    assert_eq!(leftovers(bed).await, [""; 0]);
    assert_eq!(say(&["ls"]).await.lines().count(), 1, "only headings");
    // An archive with what is not understood is refused by name and place, and nothing of it stays.
    let place = work().join("alone/alone");
    let xml = fs::read_to_string(place.join(CONFIG_FILE)).unwrap();
    fs::write(
        place.join(CONFIG_FILE),
        xml.replace(
            "<rng model='virtio'",
            "<sound model='ich9'/><rng model='virtio'",
        ),
    )
    .unwrap();
    let broken = work().join("alone/broken.tar").display().to_string();
    let place = place.display().to_string();
    let packed = run(
        "tar",
        &[
            "-C",
            &place,
            "-cf",
            &broken,
            CONFIG_FILE,
            IDENTITY_FILE,
            LAYER_FILE,
        ],
    );
    assert!(packed.status.success());
    let words = ["config.xml, line", "column", "sound"];
    fails(
        bed,
        1,
        &["--agent", &url, "define", "alone", &broken],
        &words,
    )
    .await;
    assert_eq!(leftovers(bed).await, [""; 0]);
}

//! A reference that is sealed anew while clones run on it, with no word to the manager: they go on with the old root, also
//! where they move; a start takes the new one; a stateful clone is not started over it unless somebody says so.
#![allow(clippy::disallowed_methods)]

mod common;

use common::{ShownBed, bed_config, done, fails, herd, on_guests, run, stdout, told, until, work};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const CLONES: [(&str, &str); 3] = [
    ("moves", "10.77.0.101"),
    ("stops", "10.77.0.102"),
    ("keeps", "10.77.0.103"),
];

#[test]
fn a_reference_is_sealed_anew_under_its_clones() {
    on_guests("inside_reseal");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_reseal() {
    let mut reference = common::tiny_reference("tiny", |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/version"), "first").unwrap();
    });
    reference.early = Some((told("ESTIVE_INIT"), told("ESTIVE_KERNEL_TREE")));
    let place = reference.image.parent().unwrap().to_owned();
    let old = digest(&reference.image);
    sealed(
        &place,
        &["seal", &shown(&place.join("tree")), "--name", "web"],
    );
    let mut config = bed_config(2, reference);
    config.volumes = Some(work().join("volumes"));
    config.root_names = BTreeMap::from([("default".to_owned(), "web".to_owned())]);
    let bed = ShownBed::start(config).await;
    let folder = herd("reseal", &yaml(""));
    done(&bed, &["up", &folder]).await;
    for (clone, _) in CLONES {
        reads(&bed, clone, "first").await;
    }

    fs::write(place.join("tree/etc/version"), "second").unwrap();
    let authority = shown(&work().join("authority"));
    let resealed = sealed(&place, &["reseal", "web", "--authority", &authority]);
    assert_eq!(resealed["before"], old.as_str());
    until("the manager has seen it", async || {
        let all = older(&bed).await;
        all.values()
            .all(|older| *older == json!(["root"]))
            .then_some(())
    })
    .await;
    for (clone, _) in CLONES {
        reads(&bed, clone, "first").await;
    }
    done(&bed, &["migrate", "moves", "--to", "host2"]).await;
    reads(&bed, "moves", "first").await;
    for clone in ["stops", "keeps"] {
        done(&bed, &["stop", clone, "--grace", "0"]).await;
    }
    done(&bed, &["start", "stops"]).await;
    reads(&bed, "stops", "second").await;

    // What a stateful one has written lies over the old root: before anything is started it is said, not on its console.
    let words = ["keeps", "estive.over=any"];
    fails(&bed, 3, &["up", &folder], &words).await;
    done(&bed, &["start", "keeps"]).await;
    reads(&bed, "keeps", "first").await;
    let expected = [
        ("moves", json!(["root"])),
        ("stops", json!([])),
        ("keeps", json!(["root"])),
    ];
    let expected = expected.map(|(clone, older)| (clone.to_owned(), older));
    assert_eq!(older(&bed).await, BTreeMap::from(expected));
    let rm = ["references", "rm", &old, "--out", &shown(&place)];
    fails(&bed, 2, &rm, &["moves on host2", "keeps on host2"]).await;

    done(&bed, &["down", "reseal"]).await;
    fails(&bed, 3, &["up", &folder], &words).await;
    assert_eq!(bed.estive_json(&["ls"]).await.unwrap(), json!([]));
    let folder = herd("reseal", &yaml(", words: estive.over=any"));
    done(&bed, &["up", &folder]).await;
    for (clone, _) in CLONES {
        reads(&bed, clone, "second").await;
    }
    done(&bed, &["down", "reseal"]).await;
    bed.stop().await;
}

fn yaml(words: &str) -> String {
    let [moves, stops, keeps] = CLONES.map(|(_, address)| address);
    format!(
        "network: 10.77.0.0/24\nmemory_mib: 160\ncpus: 1\nsets: []\nup: [ping]\nhosts:\n\
         \x20 moves: {{host: host1, address: {moves}}}\n  stops: {{host: host1, address: {stops}}}\n\
         \x20 keeps: {{host: host2, address: {keeps}, mode: stateful, volume: {{size: 64M}}{words}}}\n"
    )
}

/// What `estive` says of a sealed root in a directory of images.
fn sealed(place: &Path, words: &[&str]) -> Value {
    let place = shown(place);
    let common = ["--output", "json", "--no-scan", "--out", &place];
    let words: Vec<&str> = words.iter().copied().chain(common).collect();
    let said = run(&shown(&told("ESTIVE_BIN")), &words);
    assert!(said.status.success(), "{words:?}: {said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

fn digest(image: &Path) -> String {
    format!("sha256:{}", image.file_stem().unwrap().to_str().unwrap())
}

/// Parts of the reference that each clone has an older one of.
async fn older(bed: &ShownBed) -> BTreeMap<String, Value> {
    let domains = bed.estive_json(&["ls"]).await.unwrap();
    let domains = domains.as_array().unwrap().iter();
    domains
        .map(|domain| {
            let name = domain["name"].as_str().unwrap();
            // Left out where there is none.
            let older = domain.get("older").cloned();
            (name.to_owned(), older.unwrap_or_else(|| json!([])))
        })
        .collect()
}

/// Waits until the clone answers; its root has this version.
async fn reads(bed: &ShownBed, clone: &str, version: &str) {
    let (_, address) = CLONES.into_iter().find(|(name, _)| *name == clone).unwrap();
    let url = format!("http://{address}/file/etc/version");
    let said = until("the clone answers", async || {
        let asked = ["curl", "-sS", "-f", "-m", "10", &url];
        bed.topology().client.run_in(&asked).await.ok()
    })
    .await;
    assert_eq!(stdout(&said), version, "{clone}");
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

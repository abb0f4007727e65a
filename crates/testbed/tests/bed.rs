//! The bed itself on a real guest: parts die and come back, the guest moves once, and nobody who asks it notices.

mod common;

use std::net::SocketAddr;
use std::path::Path;

use common::{TOOL, bed_config, done, herd, name, on_guests, tiny_herd, tiny_reference, until};
use estive_testbed::{Load, LoadConfig, Witness, load, now_us};

#[test]
fn a_guest_outlives_every_part_but_its_own() {
    on_guests("inside_parts_die");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_parts_die() {
    let config = bed_config(2, tiny_reference("default", |_| ()));
    let mut bed = common::ShownBed::start(config).await;
    let tool = Path::new(TOOL);
    let witness = Witness::start(tool, bed.topology()).await.unwrap();
    let folder = herd("one", &tiny_herd(&[("clone01", Some("host1"))]));
    done(&bed, &["up", &folder]).await;
    let clone = name("clone01");
    let pid = bed.qemu_pid(&clone, 1).expect("its QEMU runs on host1");
    assert_eq!(bed.qemu_pid(&clone, 2), None);

    let shown = bed.estive_json(&["show", "clone01"]).await.unwrap();
    let address = shown["address"]
        .as_str()
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let address = SocketAddr::new(address.parse().unwrap(), 80);
    let config = LoadConfig {
        address,
        path: "/".into(),
        expect: "hello from clone01".into(),
        rate_per_s: 50,
    };
    let requests = Load::start(tool, &bed.topology().client, &config)
        .await
        .unwrap();

    bed.kill_agent(1).await.unwrap();
    assert!(!bed.agent_is_running(1));
    bed.kill_manager().await;
    bed.kill_storage().await;
    let from_us = now_us();
    until("a beat with all of them away", async || {
        witness
            .last_heard("clone01")
            .filter(|(at_us, _)| *at_us > from_us)
    })
    .await;
    bed.start_storage().await.unwrap();
    bed.start_agent(1).await.unwrap();
    bed.start_manager().await.unwrap();
    assert_eq!(
        bed.qemu_pid(&clone, 1),
        Some(pid),
        "the guest was disturbed"
    );

    done(&bed, &["migrate", "clone01", "--to", "host2"]).await;
    until("a beat from host2", async || {
        witness
            .last_heard("clone01")
            .filter(|(_, port)| port == "p-h2")
    })
    .await;
    assert_eq!(bed.qemu_pid(&clone, 1), None);
    assert!(bed.qemu_pid(&clone, 2).is_some());

    let figures = load::summary(&requests.finish().await.unwrap());
    assert!(figures.requests > 0 && figures.lost == 0, "{figures:?}");
    bed.kill_host(2).await.unwrap();
    assert_eq!(bed.qemu_pid(&clone, 2), None);
    let judgement = witness.judgement();
    assert!(judgement.is_clean(), "{:?}", judgement.twice);
    assert_eq!(judgement.guests["clone01"][0].ports, ["p-h1", "p-h2"]);
    bed.stop().await;
    assert!(common::qemus(None).is_empty());
}

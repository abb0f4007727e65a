//! Silence is unknown: agents, cables, power and the manager go, and nothing is started by itself.

use std::path::Path;

use estive_testbed::Witness;

use crate::common::{
    ShownBed, TOOL, assert_nothing_stays, bed_config, done, fails, herd, listed, name, on_guests,
    qemus, shown, tiny_herd, tiny_reference, until,
};
use crate::{IMPOSSIBLE, UNREACHABLE};

#[test]
fn silence_is_unknown_and_nothing_starts_elsewhere() {
    on_guests("silence::inside_silence");
}

async fn wait_for_state(bed: &ShownBed, domain: &str, state: &str) {
    until(&format!("{domain} is {state}"), async || {
        (shown(bed, domain).await["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_silence() {
    let mut bed = ShownBed::start(bed_config(2, tiny_reference("tiny", |_| {}))).await;
    let witness = Witness::start(Path::new(TOOL), bed.topology())
        .await
        .unwrap();
    let folder = herd(
        "pair",
        &tiny_herd(&[("one", Some("host1")), ("two", Some("host2"))]),
    );
    done(&bed, &["up", &folder]).await;
    let two = name("two");
    let pid = bed.qemu_pid(&two, 2).expect("it runs on host2");

    an_agent_is_down(&mut bed).await;
    assert_eq!(bed.qemu_pid(&two, 2), Some(pid));
    all_agents_are_down(&mut bed).await;
    assert_eq!(bed.qemu_pid(&two, 2), Some(pid), "nobody touched it");
    a_cable_is_cut(&bed).await;
    assert_eq!(
        bed.qemu_pid(&two, 2),
        Some(pid),
        "it was there all the time"
    );
    let judgement = witness.judgement();
    assert_eq!(judgement.guests["two"].len(), 1, "one boot");
    assert_eq!(judgement.guests["two"][0].ports, ["p-h2"]);

    // A QEMU that dies is shown, and started only when somebody asks.
    assert!(bed.kill_qemu(&two, 2));
    wait_for_state(&bed, "two", "crashed").await;
    fails(
        &bed,
        IMPOSSIBLE,
        &["migrate", "two", "--to", "host1"],
        &["two", "crashed", "try:"],
    )
    .await;
    done(&bed, &["start", "two"]).await;
    boots_are_heard(&witness, 2).await;
    wait_for_state(&bed, "two", "running").await;

    the_power_goes(&mut bed).await;
    boots_are_heard(&witness, 3).await;

    bed.kill_manager().await;
    for command in [
        &["ls"][..],
        &["hosts"],
        &["show", "one"],
        &["up", &folder],
        &["down", "pair"],
    ] {
        fails(&bed, UNREACHABLE, command, &["/run/estive/manager.sock"]).await;
    }
    bed.start_manager().await.unwrap();
    assert_eq!(listed(&bed).await.len(), 2);
    let judgement = witness.judgement();
    assert!(judgement.is_clean(), "{:?}", judgement.twice);
    for boot in &judgement.guests["two"] {
        assert_eq!(boot.ports, ["p-h2"], "never elsewhere");
    }
    done(&bed, &["down", "pair"]).await;
    assert_nothing_stays(&bed).await;
    bed.stop().await;
}

async fn boots_are_heard(witness: &Witness, count: usize) {
    until(&format!("boot {count} of two is heard"), async || {
        (witness.judgement().guests["two"].len() == count).then_some(())
    })
    .await;
}

async fn an_agent_is_down(bed: &mut ShownBed) {
    bed.kill_agent(2).await.unwrap();
    wait_for_state(bed, "two", "unknown").await;
    let show = shown(bed, "two").await;
    let note = show["note"].as_str().unwrap();
    assert!(
        note.contains("host2") && note.contains("may well run on"),
        "{note}"
    );
    assert_eq!(show["host"], "host2");
    let hosts = bed.estive_json(&["hosts"]).await.unwrap();
    let health: Vec<_> = hosts
        .as_array()
        .unwrap()
        .iter()
        .map(|host| &host["health"])
        .collect();
    assert_eq!(health, ["up", "unknown"]);
    fails(
        bed,
        UNREACHABLE,
        &["migrate", "one", "--to", "host2"],
        &["host2", "try:"],
    )
    .await;
    fails(
        bed,
        UNREACHABLE,
        &["migrate", "two", "--to", "host1"],
        &["host2", "try:"],
    )
    .await;
    for command in ["start", "stop", "pause"] {
        fails(bed, UNREACHABLE, &[command, "two"], &["host2"]).await;
    }
    let pinned = herd("pinned", &tiny_herd(&[("three", Some("host2"))]));
    fails(
        bed,
        UNREACHABLE,
        &["up", &pinned],
        &["three", "host2", "try:"],
    )
    .await;
    let listed = listed(bed).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed["one"], ("host1".to_owned(), "running".to_owned()));
    assert_eq!(listed["two"], ("host2".to_owned(), "unknown".to_owned()));
}

async fn all_agents_are_down(bed: &mut ShownBed) {
    bed.kill_agent(1).await.unwrap();
    wait_for_state(bed, "one", "unknown").await;
    let third = herd("third", &tiny_herd(&[("three", None)]));
    fails(
        bed,
        UNREACHABLE,
        &["up", &third],
        &["no host answers", "try:"],
    )
    .await;
    fails(
        bed,
        UNREACHABLE,
        &["down", "pair"],
        &["one", "two", "stay on record", "try:"],
    )
    .await;
    assert_eq!(qemus(Some("one")).len(), 1);
    assert_eq!(qemus(Some("two")).len(), 1);
    for host in [1, 2] {
        bed.start_agent(host).await.unwrap();
    }
    for domain in ["one", "two"] {
        wait_for_state(bed, domain, "running").await;
    }
    assert_eq!(listed(bed).await.len(), 2);
}

async fn a_cable_is_cut(bed: &ShownBed) {
    bed.topology().set_cable(2, false).await.unwrap();
    wait_for_state(bed, "two", "unknown").await;
    fails(
        bed,
        UNREACHABLE,
        &["migrate", "two", "--to", "host1"],
        &["host2"],
    )
    .await;
    assert_eq!(qemus(Some("two")).len(), 1);
    bed.topology().set_cable(2, true).await.unwrap();
    wait_for_state(bed, "two", "running").await;
    until("two answers again", async || {
        let ping = ["ping", "-c", "1", "-W", "1", &address(bed, "two").await];
        bed.topology().client.run_in(&ping).await.ok()
    })
    .await;
}

async fn address(bed: &ShownBed, domain: &str) -> String {
    shown(bed, domain).await["address"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn the_power_goes(bed: &mut ShownBed) {
    bed.kill_host(2).await.unwrap();
    wait_for_state(bed, "two", "unknown").await;
    assert!(qemus(Some("two")).is_empty(), "it is started nowhere");
    bed.start_agent(2).await.unwrap();
    // Its host says now that it is gone; still nobody was asked to start it.
    wait_for_state(bed, "two", "crashed").await;
    assert!(qemus(Some("two")).is_empty());
    let note = shown(bed, "two").await["note"].as_str().unwrap().to_owned();
    assert!(note.contains("estive start two"), "{note}");
    done(bed, &["start", "two"]).await;
    wait_for_state(bed, "two", "running").await;
}

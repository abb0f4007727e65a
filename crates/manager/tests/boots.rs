//! What is known of a clone's boot: kept for each, told from request to answer, and found wherever the clone is.

mod common;

use common::*;
use estive_api::wire::*;
use estive_boot::record::{BOOTS_MAX, HostWork};
use estive_boot::timeline::{Bar, Kind, Timeline};
use estive_hypervisor::guest_exec::GuestExit;
use estive_hypervisor::simulated::SimulatedGuestAgent;
use estive_model::DomainState;

const TWO: &str = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {\"clone[01-02]\": }}";

/// A systemd whose one unit has a name that would like to be more.
const MANAGER: &str =
    "Version=252.36-1~deb12u1\nUserspaceTimestampMonotonic=6000\nFinishTimestampMonotonic=90000\n";
const UNITS: &str = "Id=a\u{1b}[2J<b>.service\nActiveState=active\nInactiveExitTimestampMonotonic=7000\nActiveEnterTimestampMonotonic=80000\n";

fn systemd(world: &World, clone: &str, on: u8) -> SimulatedGuestAgent {
    let socket = world.guest_agent(&host(on), &name(clone));
    SimulatedGuestAgent::listen(&socket, |call| {
        let said = match call.arguments.iter().any(|word| word.contains("Version")) {
            true => MANAGER,
            false => UNITS,
        };
        GuestExit {
            code: Some(0),
            output: said.as_bytes().to_vec(),
            error: Vec::new(),
        }
    })
    .unwrap()
}

async fn boots(world: &World, clone: &str) -> Boots {
    let path = format!("/domain/{clone}/boots");
    world.client().get_json(&path, BOUND).await.unwrap()
}

fn names(bars: &[Bar]) -> Vec<&str> {
    bars.iter().map(|bar| bar.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_is_known_from_the_request_to_the_answer_and_goes_along() {
    let mut world = World::new(2).await;
    let _agent = systemd(&world, "clone01", 1);
    let (done, _) = world.up("d", TWO).await;
    let UpLine::Done { clones } = done else {
        panic!("{done:?}")
    };
    until("the clone's own init has told how it came up", async || {
        boots(&world, "clone01").await.0[0].system.is_some()
    })
    .await;
    let kept = boots(&world, "clone01").await;
    let [boot] = &kept.0[..] else {
        panic!("{kept:?}")
    };
    assert_eq!((boot.number, boot.host.as_str()), (1, "host1"));
    let works: Vec<HostWork> = boot.host_spans.iter().map(|span| span.what).collect();
    use HostWork::*;
    assert_eq!(works, [Archive, Interface, Emulator, Processors]);
    let answered = boot.answered.as_ref().unwrap();
    assert_eq!(answered.by, "ping");
    assert_eq!(Some(answered.answered_ms), clones[0].to_answering_ms);
    let timeline = Timeline::of(boot);
    assert_eq!(
        names(&timeline.bars),
        [
            "archive",
            "request",
            "agent",
            "QEMU",
            "firmware",
            "kernel",
            "estive-init",
            "systemd 252",
            "answers (ping)"
        ]
    );
    assert!(
        timeline.bars.iter().all(|bar| bar.took_ms().is_some()),
        "{timeline:#?}"
    );
    assert!(!timeline.bar(Kind::Kernel).unwrap().about, "{timeline:#?}");
    let early = timeline.bar(Kind::EarlyUserspace).unwrap();
    let phases = [
        "modules", "identity", "layer", "root", "union", "network", "switch",
    ];
    assert_eq!(names(&early.parts), phases);
    assert_eq!(
        names(&timeline.bar(Kind::System).unwrap().parts),
        ["a [2J<b>.service"]
    );

    // Where it goes, its boots are found; and what is shown of the last one too.
    let before = world.show("clone01").await.boot;
    let (moved, _) = world.migrate("clone01", Some(2)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    assert_eq!(boots(&world, "clone01").await, kept);
    let after = world.show("clone01").await.boot;
    assert_eq!(
        (after.asked_ms, after.phases_ms),
        (before.asked_ms, before.phases_ms)
    );
    assert!(after.asked_ms.is_some());
    // Daemons that come back know them.
    world.stop_agent(2).await;
    world.stop_manager().await;
    world.start_agent(2).await;
    world.start_manager().await;
    assert_eq!(boots(&world, "clone01").await, kept);

    // The next start is another boot, on the host where it is now, and is followed though nobody waits for it.
    for wanted in [DomainState::Stopped, DomainState::Running] {
        world.order("clone01", wanted).await.unwrap();
    }
    until("it is seen to answer", async || {
        let boots = boots(&world, "clone01").await;
        boots
            .last()
            .is_some_and(|boot| boot.answered.is_some() && boot.number == 2)
    })
    .await;
    let two = boots(&world, "clone01").await;
    assert_eq!(two.0[0], kept.0[0]);
    let works: Vec<HostWork> = two.0[1].host_spans.iter().map(|span| span.what).collect();
    assert_eq!(
        (works, two.0[1].host.as_str()),
        (vec![Interface, Emulator, Processors], "host2")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_boots_are_kept_and_none_of_a_clone_that_is_gone() {
    let world = World::new(1).await;
    let (done, _) = world.up("d", "{memory_mib: 128, hosts: {a: }}").await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    for _ in 0..BOOTS_MAX + 1 {
        for wanted in [DomainState::Stopped, DomainState::Running] {
            world.order("a", wanted).await.unwrap();
        }
    }
    let kept = boots(&world, "a").await;
    let numbers: Vec<u64> = kept.0.iter().map(|boot| boot.number).collect();
    let last = BOOTS_MAX as u64 + 2;
    assert_eq!(numbers, (3..=last).collect::<Vec<_>>());
    // An answer to another start than the last is not its.
    let order = AnsweredOrder {
        asked_ms: 1,
        answered: Answered {
            ordered_ms: 0,
            answered_ms: 1,
            by: "nobody".to_owned(),
        },
    };
    let path = "/domain/a/boots/answered";
    let taken: bool = world.agent(1).put_json(path, &order, BOUND).await.unwrap();
    assert!(!taken);
    // Nor are boots from elsewhere, once it has its own.
    let path = "/domain/a/boots";
    let taken: bool = world
        .agent(1)
        .put_json(path, &Boots::default(), BOUND)
        .await
        .unwrap();
    assert!(!taken);
    world.down("d").await;
    let gone = world.client().get_json::<Boots>(path, BOUND).await;
    assert!(gone.unwrap_err().is_not_found());
    let (done, _) = world.up("d", "{memory_mib: 128, hosts: {a: }}").await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(boots(&world, "a").await.0[0].number, 1);
    world.stop().await;
}

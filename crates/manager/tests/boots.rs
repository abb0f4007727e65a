//! What is known of a clone's boot: kept for each, told from request to answer, and found wherever the clone is.

mod common;

use common::*;
use estive_api::wire::*;
use estive_boot::boots::BOOTS_MAX;
use estive_boot::record::HostWork;
use estive_boot::report::Line;
use estive_boot::timeline::{Bar, Kind, Timeline};
use estive_hypervisor::guest_exec::GuestExit;
use estive_hypervisor::simulated::{Fault, SimulatedGuestAgent, Step};
use estive_model::DomainState;
use std::io::Write as _;

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
async fn what_is_learned_while_it_is_sent_goes_along_too() {
    let mut world = World::new(2).await;
    let (done, _) = world.up("d", "{memory_mib: 128, hosts: {a: }}").await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let source = address(1);
    world
        .fabric
        .inject(source, &name("a"), Step::Copying, Fault::Hold);
    let (moved, ()) = tokio::join!(world.migrate("a", Some(2)), async {
        until("what is known goes along first", async || {
            let at: Result<Boots, _> = world.agent(2).get_json("/domain/a/boots", BOUND).await;
            at.is_ok_and(|boots| !boots.0.is_empty())
        })
        .await;
        let report = world.home.path().join("host1/channels/a.report");
        let mut said = std::fs::File::options().append(true).open(report).unwrap();
        said.write_all(b"{\"step\":\"late\",\"began_ms\":1,\"ended_ms\":2}\n")
            .unwrap();
        world.fabric.heal(source, &name("a"));
    });
    let (moved, _) = moved.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    until("it is known where it is now", async || {
        let kept = boots(&world, "a").await;
        kept.0.len() == 1
            && kept.0[0].lines.iter().any(|arrived| match &arrived.line {
                Line::Step(step) => step.step == "late",
                _ => false,
            })
    })
    .await;
    // Kept, not only known.
    let known = boots(&world, "a").await;
    world.stop_agent(2).await;
    world.start_agent(2).await;
    assert_eq!(boots(&world, "a").await, known);
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
    // The last is seen to answer after its order was done.
    until("the last is seen to answer", async || {
        let last = boots(&world, "a").await;
        last.last().is_some_and(|boot| boot.answered.is_some())
    })
    .await;
    let kept = boots(&world, "a").await;
    // Which of those before the last is a matter of who answered in time.
    assert_eq!(kept.0.len(), BOOTS_MAX);
    assert_eq!(kept.last().unwrap().number, BOOTS_MAX as u64 + 2);
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
    // Boots from elsewhere take nothing from what is known here.
    let path = "/domain/a/boots";
    let none = Boots::default();
    let put: Result<(), _> = world.agent(1).put_json(path, &none, BOUND).await;
    put.unwrap();
    assert_eq!(boots(&world, "a").await, kept);
    world.down("d").await;
    let gone = world.client().get_json::<Boots>(path, BOUND).await;
    assert!(gone.unwrap_err().is_not_found());
    let (done, _) = world.up("d", "{memory_mib: 128, hosts: {a: }}").await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(boots(&world, "a").await.0[0].number, 1);
    world.stop().await;
}

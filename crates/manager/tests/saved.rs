//! Domains of a herd are saved and go on, through the manager: real manager and agents over a simulated hypervisor.

mod common;

use common::*;
use estive_api::ProblemKind;
use estive_api::wire::*;
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::DomainState;

const TWO: &str = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {\"clone[01-02]\": }}";

impl World {
    async fn save(&self, domain: &str) -> Result<HerdDomain, estive_api::ClientError> {
        let path = format!("/domain/{domain}/saved");
        let order = SaveOrder::default();
        self.client().put_json(&path, &order, BOUND).await
    }

    async fn restore(&self, domain: &str) -> Result<HerdDomain, estive_api::ClientError> {
        let path = format!("/domain/{domain}/restore");
        let order = SaveOrder::default();
        self.client().post_json(&path, &order, BOUND).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_saved_and_goes_on_and_nothing_else_starts_it() {
    let world = World::new(2).await;
    let (done, _) = world.up("first", TWO).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let saved = world.save("clone01").await.unwrap();
    assert_eq!(
        (saved.state, saved.wanted, saved.note),
        (DomainState::Saved, DomainState::Saved, None)
    );
    world.save("clone01").await.unwrap();
    let stopped = world.order("clone01", DomainState::Stopped).await;
    let stopped = stopped.unwrap();
    assert_eq!(
        (stopped.state, stopped.wanted),
        (DomainState::Saved, DomainState::Saved)
    );
    for refused in [
        world.order("clone01", DomainState::Running).await.map(drop),
        world.migrate("clone01", Some(2)).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        let problem = error.problem().unwrap();
        assert_eq!(problem.kind, ProblemKind::Impossible);
        assert!(problem.error.contains("is saved"), "{problem}");
    }
    assert_eq!(world.show("clone01").await.generation, saved.generation);
    let restored = world.restore("clone01").await.unwrap();
    assert_eq!(restored.state, DomainState::Running);
    assert!(restored.generation > saved.generation);
    let twice = world.restore("clone01").await.unwrap_err();
    assert!(twice.problem().unwrap().error.contains("nothing is saved"));
    // An up has it go on.
    world.save("clone01").await.unwrap();
    let (done, steps) = world.up("first", TWO).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let restored = |line: &UpLine| matches!(line, UpLine::Step { step, domain, .. } if step == "restored" && domain.as_str() == "clone01");
    assert!(steps.iter().any(restored), "{steps:?}");
    // Dropped, it boots; and a down takes what is saved with it.
    world.save("clone01").await.unwrap();
    let path = "/domain/clone01/saved";
    let dropped: HerdDomain = world.client().delete_json(path, BOUND).await.unwrap();
    assert_eq!(
        (dropped.state, dropped.wanted),
        (DomainState::Stopped, DomainState::Stopped)
    );
    world.order("clone01", DomainState::Running).await.unwrap();
    world.save("clone02").await.unwrap();
    world.down("first").await;
    assert!(world.held().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_and_leaves_it_as_it_was() {
    let world = World::new(1).await;
    world.up("first", TWO).await;
    let domain = "clone01".parse().unwrap();
    let fails = |step| {
        let fault = Fault::Refuse("no space left on device".into());
        world.fabric.inject(address(1), &domain, step, fault);
    };
    fails(Step::Save);
    let failed = world.save("clone01").await.unwrap_err();
    assert!(failed.problem().unwrap().error.contains("no space"));
    let shown = world.show("clone01").await;
    assert_eq!(
        (shown.state, shown.wanted),
        (DomainState::Running, DomainState::Running)
    );
    world.save("clone01").await.unwrap();
    fails(Step::Restore);
    world.restore("clone01").await.unwrap_err();
    let shown = world.show("clone01").await;
    assert_eq!(
        (shown.state, shown.wanted),
        (DomainState::Saved, DomainState::Saved)
    );
    assert!(shown.note.unwrap().contains("no space"));
    // Its host was driven alone: a stop says that nobody wants it to run.
    let alone = SaveOrder::default();
    let (memory, status) = ("/domain/clone01/saved", "/domain/clone01/status");
    world.restore("clone01").await.unwrap();
    let saved = world.agent(1);
    let saved = saved.put_json(memory, &alone, BOUND);
    let _: DomainReport = saved.await.unwrap();
    assert_eq!(world.show("clone01").await.wanted, DomainState::Running);
    let stopped = world.order("clone01", DomainState::Stopped).await.unwrap();
    assert_eq!(
        (stopped.state, stopped.wanted),
        (DomainState::Saved, DomainState::Saved)
    );
    // A drop of what is only stopped changes nothing of what is wanted.
    world.restore("clone01").await.unwrap();
    let order = StatusOrder {
        state: DomainState::Stopped,
        generation: None,
        grace_ms: 0,
    };
    let agent = world.agent(1);
    let stopped = agent.put_json(status, &order, BOUND);
    let _: DomainReport = stopped.await.unwrap();
    let dropped: HerdDomain = world.client().delete_json(memory, BOUND).await.unwrap();
    assert_eq!(
        (dropped.state, dropped.wanted),
        (DomainState::Stopped, DomainState::Running)
    );
    world.order("clone01", DomainState::Running).await.unwrap();
    assert_eq!(world.show("clone01").await.state, DomainState::Running);
}

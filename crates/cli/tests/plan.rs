//! `estive snapshot`, `plan` and `apply` on the program itself, over a manager and agents with simulated hypervisors.

#[path = "../../manager/tests/common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use common::{BOUND, World, address, name};
use estive_api::wire::{HerdDomain, UpLine};
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{Event, EventKind};
use estive_world::{
    Act, DomainIx, Figures, HostIx, Indexed, Plan, PlanFile, Reason, Report, StepIx,
    World as Snapshot,
};

/// Four clones of 128 MiB, on hosts of 512 MiB.
const FOUR: &str = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {\"clone[01-04]\": }}";

/// A herd that is up, and a directory for files.
struct Place {
    world: World,
    home: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let world = World::new(3).await;
        let (done, _) = world.up("first", FOUR).await;
        assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
        let home = tempfile::tempdir().unwrap();
        Self { world, home }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }

    /// The program, with its manager.
    async fn estive(&self, words: &[&str]) -> Output {
        let manager = format!(
            "unix:{}",
            self.world.home.path().join("manager.sock").display()
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_estive"));
        command
            .current_dir(self.home.path())
            .env("ESTIVE_MANAGER", manager)
            .args(words);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn says(&self, words: &[&str]) -> String {
        let output = self.estive(words).await;
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.estive(words).await;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Host of each clone, by their numbers.
    async fn at(&self) -> Vec<String> {
        let mut all: Vec<HerdDomain> = self.world.ls().await;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.iter().map(|domain| domain.host.to_string()).collect()
    }

    async fn snapshot(&self) -> Snapshot {
        Snapshot::from_text(&self.says(&["snapshot"]).await).unwrap()
    }

    /// A plan of moves, each after those before it, written to `plan.json`.
    async fn plan(&self, moves: &[(u32, u32)]) {
        let world = self.snapshot().await;
        let steps = (moves.iter().enumerate())
            .map(|(number, (domain, to))| estive_world::Step {
                act: Act::Move {
                    domain: DomainIx(*domain),
                    from: world.domains[DomainIx(*domain)].host.unwrap(),
                    to: HostIx(*to),
                    pivot: false,
                },
                after: (0..number).map(StepIx::of).collect(),
                reason: Reason::Asked {
                    what: "a test asked".to_owned(),
                },
                figures: Figures::default(),
            })
            .collect();
        let plan = Plan {
            world: world.digest(),
            objective: "balance".to_owned(),
            seed: 1,
            work: 0,
            steps,
            report: Report::default(),
        };
        let file = PlanFile::new(&world, plan);
        let text = serde_json::to_string(&file).unwrap();
        std::fs::write(self.path("plan.json"), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_herd_and_is_read_back() {
    let place = Place::new().await;
    let text = place.says(&["snapshot"]).await;
    for line in [
        "host host1 cpus=2c memory=512M disk=0M",
        "deployment first",
        "domain clone04 on=host1 memory=128M deployment=first",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}: {text}");
    }
    assert_eq!(place.says(&["snapshot", "--out", "now.world"]).await, "");
    let checked = place
        .says(&["world", "check", "now.world", "--output", "json"])
        .await;
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["domains"], 4);
    assert_eq!(checked["canonical"], true);
    let json = place.says(&["snapshot", "--output", "json"]).await;
    let world: Snapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(checked["placement"], world.placement_digest());
    place.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_carried_out_once_and_refused_when_the_world_has_moved_on() {
    let place = Place::new().await;
    assert_eq!(place.at().await, ["host1", "host2", "host3", "host1"]);
    place.plan(&[(0, 1), (1, 2)]).await;
    let told = place
        .says(&["apply", "plan.json", "--output", "json"])
        .await;
    let rows: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(rows[0]["what"], "move clone01 from host1 to host2");
    assert_eq!(
        (&rows[0]["outcome"], &rows[1]["outcome"]),
        (&"done".into(), &"done".into())
    );
    assert_eq!(place.at().await, ["host2", "host3", "host3", "host1"]);
    let events: Vec<Event> = place
        .world
        .client()
        .get_json("/events?domain=clone01", BOUND)
        .await
        .unwrap();
    let is_told = |event: &Event| {
        event.kind == EventKind::MoveOrdered
            && event.reason.contains("a plan for balance: a test asked")
    };
    assert!(events.iter().any(is_told), "{events:?}");

    // The same once more: nothing is where it was.
    let said = place.fails(&["apply", "plan.json"], 3).await;
    assert!(said.contains("the world has moved on"), "{said}");
    assert!(
        said.contains("clone01 is on host2 and was on host1"),
        "{said}"
    );
    assert_eq!(place.at().await, ["host2", "host3", "host3", "host1"]);

    // A move that somebody makes meanwhile is enough.
    place.plan(&[(3, 1)]).await;
    place.world.migrate("clone02", Some(2)).await.unwrap();
    let said = place.fails(&["apply", "plan.json"], 3).await;
    assert!(
        said.contains("clone02 is on host2 and was on host3"),
        "{said}"
    );
    assert_eq!(place.at().await, ["host2", "host2", "host3", "host1"]);
    place.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_out_of_balance_is_planned_for_and_moved_once() {
    let place = Place::new().await;
    for clone in ["clone02", "clone03"] {
        place.world.migrate(clone, Some(1)).await.unwrap();
    }
    assert_eq!(place.at().await, ["host1"; 4]);
    let told = place
        .says(&["plan", "--objective", "balance", "--out", "plan.json"])
        .await;
    assert!(
        told.contains("from host1 to host2") && told.contains("from host1 to host3"),
        "{told}"
    );
    assert_eq!(place.at().await, ["host1"; 4], "a plan does nothing");
    let again = place.says(&["plan", "--objective", "balance"]).await;
    assert_eq!(again, told, "the same world, the same plan");

    place.says(&["apply", "plan.json"]).await;
    let mut at = place.at().await;
    at.sort();
    at.dedup();
    assert_eq!(at, ["host1", "host2", "host3"]);
    let said = place.fails(&["apply", "plan.json"], 3).await;
    assert!(said.contains("the world has moved on"), "{said}");
    let told = place.says(&["plan"]).await;
    assert!(told.contains("nothing to do"), "{told}");

    let told = place.says(&["why-not", "clone01", "host1"]).await;
    assert!(told.contains("clone01") && told.contains("host1"), "{told}");
    let all = place.says(&["why", "clone01", "--output", "json"]).await;
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 3);
    let said = place.fails(&["why-not", "clone01", "host9"], 2).await;
    assert!(said.contains("no host host9"), "{said}");
    let said = place.fails(&["plan", "--objective", "speed"], 2).await;
    assert!(
        said.contains("character 1: no term is called `speed`"),
        "{said}"
    );
    place.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_step_that_fails_nothing_begins_and_what_stood_is_said() {
    let place = Place::new().await;
    place.plan(&[(0, 1), (1, 2), (3, 2)]).await;
    let cut = Fault::Refuse("cable cut".into());
    place
        .world
        .fabric
        .inject(address(2), &name("clone02"), Step::Migrate, cut);
    let output = place.estive(&["apply", "plan.json"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("(1 of 3 steps done, 1 not begun)"), "{said}");
    let table = String::from_utf8(output.stdout).unwrap();
    let outcome = |number: usize, word: &str| table.lines().nth(number).unwrap().contains(word);
    assert!(
        outcome(1, "done") && outcome(2, "failed") && outcome(3, "not begun"),
        "{table}"
    );
    assert_eq!(place.at().await, ["host2", "host2", "host3", "host1"]);
    place.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plan_or_cannot_be_done_changes_nothing() {
    let place = Place::new().await;
    std::fs::write(place.path("none.json"), "{}").unwrap();
    let said = place.fails(&["apply", "none.json"], 1).await;
    assert!(said.contains("none.json: this is no plan"), "{said}");
    place.plan(&[(0, 1)]).await;
    let text = std::fs::read_to_string(place.path("plan.json")).unwrap();
    let mut file: PlanFile = serde_json::from_str(&text).unwrap();
    file.plan.steps[0].act = Act::SwitchOff { host: HostIx(2) };
    std::fs::write(
        place.path("off.json"),
        serde_json::to_string(&file).unwrap(),
    )
    .unwrap();
    let said = place.fails(&["apply", "off.json"], 2).await;
    assert!(
        said.contains("the manager cannot switch host3 off"),
        "{said}"
    );
    let told = place.says(&["apply", "off.json", "--moves-only"]).await;
    assert!(told.contains("left out"), "{told}");

    // More than a host has room for, at once: 384 of 512 MiB are taken there, and two of 128 come.
    for clone in ["clone02", "clone03"] {
        place.world.migrate(clone, Some(1)).await.unwrap();
    }
    place.world.migrate("clone04", Some(2)).await.unwrap();
    place
        .world
        .up(
            "second",
            "{memory_mib: 256, network: 10.78.0.0/24, hosts: {big: {host: host2}}}",
        )
        .await;
    place.plan(&[(1, 1), (2, 1)]).await;
    let said = place.fails(&["apply", "plan.json"], 2).await;
    assert!(
        said.contains("the plan is not safe") && said.contains("host2"),
        "{said}"
    );
    assert_eq!(
        place.at().await[1..],
        ["host1", "host1", "host1", "host2"].map(str::to_owned)
    );

    let told = place
        .says(&["capacity", "--memory", "64M", "--output", "json"])
        .await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["more"], &told["exact"]),
        (&(2 + 2 + 8).into(), &true.into())
    );
    assert_eq!(told["hosts"][2]["more"], 8);
    let output = place.estive(&["capacity", "--memory", "1G"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    place.world.stop().await;
}

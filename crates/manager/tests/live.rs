//! Clones of a live reference, from a herd file to what each host lets in: placed, stopped, moved, taken down.

mod common;

use common::*;
use estive_api::domain_xml::{DiskSource, DomainXml};
use estive_api::wire::*;
use estive_model::DomainState;

const HERD: &str = "
memory_mib: 128
hosts:
  sealed:
  live: {reference: live, address: 10.77.0.101}
  own: {reference: live, root: \"nfs:10.77.0.9:/:ro:vers=3:follow;estive;tmpfs:size=9m\"}
";

async fn world() -> World {
    let mut world = World::new(2).await;
    world.stop_manager().await;
    world.live = true;
    world.start_manager().await;
    world
}

async fn description(world: &World, domain: &str) -> DomainXml {
    let held = world.show(domain).await.host;
    let number = if held == host(1) { 1 } else { 2 };
    let path = format!("/domain/{domain}/config.xml");
    let xml = world.agent(number).get_bytes(&path, 1 << 20, BOUND).await;
    DomainXml::parse(std::str::from_utf8(&xml.unwrap()).unwrap()).unwrap()
}

/// The domains that each host lets in.
fn let_in(world: &World) -> [Vec<String>; 2] {
    [1, 2].map(|number| {
        let directory = format!("host{number}/state/cache/live");
        let entries = std::fs::read_dir(world.home.path().join(directory));
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.into_iter().flatten().flatten().map(name).collect();
        names.sort();
        names
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_file_names_a_live_reference_and_no_line() {
    let world = world().await;
    let (done, _) = world.up("d", HERD).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let live = description(&world, "live").await;
    let line =
        " root=nfs:10.77.0.9:/:vers=3:port=2049:mountport=2049:actimeo=1:ro:follow;estive;tmpfs";
    assert!(live.command_line.ends_with(line), "{}", live.command_line);
    let route = live.live.unwrap();
    assert_eq!(route.reference, "live");
    assert_eq!(route.door, "10.77.0.9:2049".parse().unwrap());
    assert_eq!(route.origins.len(), 1);
    assert_eq!(live.root, live.modules);
    let own = description(&world, "own").await;
    assert!(own.live.is_some() && own.command_line.ends_with("tmpfs:size=9m"));
    let sealed = description(&world, "sealed").await;
    assert!(sealed.live.is_none() && matches!(sealed.root, DiskSource::Root(_)));

    let notes = let_in(&world);
    let mut both = notes.concat();
    both.sort();
    assert_eq!(both, ["live.json", "own.json"]);
    // It moves: what the one host lets in, the other does no more.
    let here = usize::from(world.show("live").await.host == host(2));
    assert!(notes[here].contains(&"live.json".to_owned()), "{notes:?}");
    let to = if here == 0 { 2 } else { 1 };
    let (moved, _) = world.migrate("live", Some(to)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    until("one host alone lets it in", async || {
        let notes = let_in(&world);
        let has = |number: usize| notes[number].contains(&"live.json".to_owned());
        has(1 - here) && !has(here)
    })
    .await;
    let same = description(&world, "live").await.live.unwrap();
    assert_eq!(same, route);
    // Again, nothing is done; stopped, it is let in no more.
    let (done, lines) = world.up("d", HERD).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let warns = |line: &&UpLine| matches!(line, UpLine::Warning { .. });
    assert_eq!(lines.iter().filter(warns).count(), 0, "{lines:?}");
    world.order("live", DomainState::Stopped).await.unwrap();
    assert_eq!(let_in(&world).concat(), ["own.json"]);
    world.order("live", DomainState::Running).await.unwrap();
    assert_eq!(let_in(&world).concat().len(), 2);
    let (down, _) = world.down("d").await;
    assert!(matches!(down, DownLine::Done), "{down:?}");
    assert_eq!(let_in(&world).concat(), [""; 0]);
    world.stop().await;
}

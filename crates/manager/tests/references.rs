//! A reference that has another kernel, or root, than the clones that are up: they go on, are told apart, and take what
//! is new once they are stopped. Files that nothing needs any more go.

mod common;

use common::*;
use estive_api::wire::*;
use estive_model::DomainState;
use std::path::PathBuf;

const TWO: &str = "{memory_mib: 128, hosts: {\"clone[01-02]\": }}";

async fn is_up(world: &World, herd: &str) -> Vec<String> {
    let (done, lines) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let warning = |line| match line {
        UpLine::Warning { text } => Some(text),
        _ => None,
    };
    lines.into_iter().filter_map(warning).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_that_run_go_on_and_take_what_is_new_once_they_are_stopped() {
    let mut world = World::new(3).await;
    assert_eq!(is_up(&world, TWO).await, [""; 0]);
    let before = world.ls().await;
    assert!(
        before
            .iter()
            .all(|clone| clone.older.is_empty() && clone.reference == "default")
    );
    assert_eq!(is_up(&world, TWO).await, [""; 0]);

    world.stop_manager().await;
    std::fs::write(world.home.path().join("kernel"), "another").unwrap();
    world.start_manager().await;
    let older = |clones: &[HerdDomain]| -> Vec<Vec<String>> {
        clones.iter().map(|clone| clone.older.clone()).collect()
    };
    let kernel = || vec!["kernel".to_owned()];
    assert_eq!(older(&world.ls().await), [kernel(), kernel()]);
    let warnings = is_up(&world, TWO).await;
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    let words = "clone01, clone02: on an older kernel of the reference default";
    assert!(warning.starts_with(words), "{warning}");
    let generations = |clones: &[HerdDomain]| -> Vec<u64> {
        clones.iter().map(|clone| clone.generation.0).collect()
    };
    assert_eq!(generations(&world.ls().await), generations(&before));

    // It moves to a host that has never seen the kernel that it runs with.
    let source = world.show("clone01").await.host;
    assert_ne!(source, host(3));
    let (moved, _) = world.migrate("clone01", Some(3)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    assert_eq!(older(&world.ls().await), [kernel(), kernel()]);

    // A start alone is of what its host holds; an up is of what its reference has.
    for wanted in [
        DomainState::Stopped,
        DomainState::Running,
        DomainState::Stopped,
    ] {
        world.order("clone02", wanted).await.unwrap();
    }
    assert_eq!(world.show("clone02").await.older, kernel());
    let warnings = is_up(&world, TWO).await;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("clone01: "),
        "{warnings:?}"
    );
    assert_eq!(older(&world.ls().await), [kernel(), vec![]]);
    let path = "/domain/clone02/boots";
    let boots: Boots = world.client().get_json(path, BOUND).await.unwrap();
    assert_eq!(boots.last().unwrap().number, 3, "its boots are kept");
    // It starts with what is new: its host was sent that.
    let holder = world.show("clone02").await.host;
    let number = if holder == host(1) { 1 } else { 2 };
    let xml = world
        .agent(number)
        .get_bytes("/domain/clone02/config.xml", 1 << 20, BOUND)
        .await
        .unwrap();
    let xml = estive_api::domain_xml::DomainXml::parse(std::str::from_utf8(&xml).unwrap());
    let sha256 = "sha256:ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5";
    assert_eq!(xml.unwrap().kernel.to_string(), sha256);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_ram_file_systems_that_nothing_needs_go_and_not_while_a_herd_comes_up() {
    let mut world = World::new(1).await;
    world.stop_manager().await;
    let directory = world.home.path().join("manager/initramfs");
    std::fs::create_dir_all(&directory).unwrap();
    let left = |name: &str| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, "left").unwrap();
        path
    };
    let paths = [left("ab12"), left(".tmpKilled")];
    world.start_manager().await;
    assert!(paths.iter().all(|path| !path.exists()));

    let other = "{memory_mib: 64, network: 10.78.0.0/24, hosts: {b: }}";
    let (done, _) = world.up("other", other).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    world.deaf.lock().unwrap().insert("a".to_owned());
    let herd = "{memory_mib: 64, hosts: {a: }}";
    let under_way = async {
        until("it is awaited", async || world.asked("a") > 0).await;
        let path = left("ab12");
        let (down, _) = world.down("other").await;
        assert!(matches!(down, DownLine::Done), "{down:?}");
        assert!(path.exists());
        world.deaf.lock().unwrap().clear();
        path
    };
    let (_, path) = tokio::join!(is_up(&world, herd), under_way);
    assert!(!path.exists());
    let path = left("ab12");
    world.down("d").await;
    assert!(!path.exists());
    world.stop().await;
}

//! One agent driven alone, over its unix socket.

mod common;

use common::*;
use estive_api::wire::*;
use estive_api::{Client, Credentials, Endpoint, ProblemKind, Role};
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DomainState, Event, EventKind, Generation};
use std::io::Write as _;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_defined_started_paused_stopped_and_removed() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    let report = host.define("clone01").await;
    assert_eq!(report.state, DomainState::Stopped);
    assert_eq!((report.memory_mib, report.cpus), (128, 1));
    // Twice is once.
    host.define("clone01").await;

    let report = host.ask("clone01", DomainState::Running).await.unwrap();
    assert_eq!(report.state, DomainState::Running);
    assert_eq!(world.fabric.runs_at(&name("clone01")), [host.address]);
    let again = host.ask("clone01", DomainState::Running).await.unwrap();
    assert_eq!(again.journal, report.journal);
    let paused = host.ask("clone01", DomainState::Paused).await.unwrap();
    assert_eq!(paused.state, DomainState::Paused);
    let resumed = host.ask("clone01", DomainState::Running).await.unwrap();
    assert_eq!(resumed.state, DomainState::Running);

    let client = host.client();
    let refused = client.delete_json::<()>("/domain/clone01", BOUND).await;
    assert_eq!(
        refused.unwrap_err().problem().unwrap().kind,
        ProblemKind::Impossible
    );
    let stopped = host.ask("clone01", DomainState::Stopped).await.unwrap();
    assert_eq!(stopped.state, DomainState::Stopped);
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    client
        .delete_json::<()>("/domain/clone01", BOUND)
        .await
        .unwrap();
    assert_eq!(
        client
            .get_json::<Vec<DomainReport>>("/domains", BOUND)
            .await
            .unwrap(),
        []
    );
    assert_eq!(count_files(&host.config.state.join("domains")), 0);
    assert_eq!(count_files(&host.config.state.join("tmp")), 0);
    // What was decided is not forgotten: an old generation stays refused.
    let order = StatusOrder {
        state: DomainState::Running,
        generation: Some(Generation(1)),
        grace_ms: 0,
    };
    host.define("clone01").await;
    let late = client
        .put_json::<DomainReport>("/domain/clone01/status", &order, BOUND)
        .await;
    assert!(late.unwrap_err().to_string().contains("not newer"));

    let events: Vec<Event> = client.get_json("/events?after=1", BOUND).await.unwrap();
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Started,
            EventKind::Stopped,
            EventKind::Deleted,
            EventKind::Defined
        ]
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_whole() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    let members = |name: &str| {
        vec![
            (
                "config.xml".to_owned(),
                description(name, 128).to_xml().into_bytes(),
            ),
            ("layer".to_owned(), vec![7; 1000]),
            ("identity.json".to_owned(), identity(name).into_bytes()),
        ]
    };
    // Files named by digest that are not here are named in the answer.
    let error = host
        .try_define("a", tar_of(&members("a")))
        .await
        .unwrap_err();
    assert_eq!(missing(&error), 4, "{error}");

    let with = |index: usize, content: &str| {
        let mut members = members("a");
        members[index].1 = content.as_bytes().to_vec();
        tar_of(&members)
    };
    let xml = description("a", 128).to_xml();
    let extra = |path: &str| {
        let mut members = members("a");
        members.push((path.to_owned(), b"x".to_vec()));
        tar_of(&members)
    };
    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "layer", "/etc/shadow")
        .unwrap();
    for (archive, words) in [
        (with(0, &xml.replace("<acpi/>", "<apic/>")), "<apic>"),
        (with(0, &xml.replace("<name>a", "<name>b")), "describes b"),
        (with(2, "{}"), "identity"),
        (with(2, &identity("b")), "names \"b\""),
        (with(1, &"x".repeat(17 << 20)), "layer"),
        (extra("passwd"), "passwd"),
        (extra("files/zz"), "files/zz"),
        (
            extra(&format!("files/{}", "0".repeat(64))),
            "not sha256:0000",
        ),
        (extra("layer"), "twice"),
        (link.into_inner().unwrap(), "plain file"),
        (b"no archive at all".to_vec(), "cannot be taken"),
        (Vec::new(), "lacks"),
    ] {
        let error = host.try_define("a", archive).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    // Larger than what is declared: nothing is kept either.
    let error = host.try_define("a", archive("a", 1024)).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("512 MiB left"), "{error}");
    assert_eq!(count_files(&host.config.state.join("domains")), 0);
    assert_eq!(count_files(&host.config.state.join("tmp")), 0);

    // The same domain, compressed in either way.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive("b", 64)).unwrap();
    host.try_define("b", gzip.finish().unwrap()).await.unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&archive("c", 64)).unwrap();
    host.try_define("c", bzip2.finish().unwrap()).await.unwrap();
    let about: AgentAbout = host.client().get_json("/about", BOUND).await.unwrap();
    assert_eq!((about.domains, about.used_memory_mib), (2, 128));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_views_are_read_back() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    host.define("clone01").await;
    let client = host.client();
    let get = async |path: &str| client.get_bytes(path, 64 << 20, BOUND).await.unwrap();
    assert_eq!(
        get("/domain/clone01/config.xml").await,
        description("clone01", 128).to_xml().as_bytes()
    );
    assert_eq!(get("/domain/clone01/layer").await, vec![7; 1000]);
    let layer = std::fs::metadata(host.config.state.join("domains/clone01/layer")).unwrap();
    assert_eq!(layer.len(), estive_model::LAYER_DISK_BYTES);
    let kernel = format!("/domain/clone01/{}", digest(b"kernel"));
    assert_eq!(get(&kernel).await, &b"kernel"[..]);
    let other = client.get_bytes("/domain/clone01/passwd", 100, BOUND).await;
    assert!(other.unwrap_err().is_not_found());
    let list = get("/domains.xml").await;
    assert!(String::from_utf8_lossy(&list).contains("href='/domain/clone01'"));
    let status = get("/domain/clone01/status.xml").await;
    assert!(String::from_utf8_lossy(&status).contains("<state>stopped</state>"));
    let capabilities = get("/capabilities.xml").await;
    assert!(String::from_utf8_lossy(&capabilities).contains("<domain type='qemu'/>"));
    let running = b"<status><state>running</state></status>".to_vec();
    // The answer is XML, which this client does not read; the state tells.
    let _ = client
        .put_bytes::<()>(
            "/domain/clone01/status.xml",
            "application/xml",
            running,
            BOUND,
        )
        .await;
    assert_eq!(host.report("clone01").await.state, DomainState::Running);

    let file = format!("/file/{}", digest(b"new"));
    let wrong = client
        .put_bytes::<()>(&file, "application/octet-stream", &b"old"[..], BOUND)
        .await;
    assert_eq!(
        wrong.unwrap_err().problem().unwrap().kind,
        ProblemKind::Invalid
    );
    client
        .put_bytes::<()>(&file, "application/octet-stream", &b"new"[..], BOUND)
        .await
        .unwrap();
    assert_eq!(get(&file).await, &b"new"[..]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_ends_by_itself_is_shown_and_nothing_restarts_it() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    host.define("clone01").await;
    let domain = name("clone01");
    world
        .fabric
        .inject(host.address, &domain, Step::Create, Fault::Die);
    let failed = host.ask("clone01", DomainState::Running).await.unwrap_err();
    assert!(failed.to_string().contains("ended at start"), "{failed}");
    assert_eq!(host.report("clone01").await.state, DomainState::Stopped);

    host.ask("clone01", DomainState::Running).await.unwrap();
    assert!(world.fabric.crash(host.address, &domain));
    until("the crash is shown", async || {
        let report = host.report("clone01").await;
        report.state == DomainState::Crashed && report.note.is_some()
    })
    .await;
    host.restart().await;
    assert_eq!(host.report("clone01").await.state, DomainState::Crashed);
    assert!(world.fabric.runs_at(&domain).is_empty());
    let events: Vec<Event> = host.client().get_json("/events", BOUND).await.unwrap();
    let crashes = events
        .iter()
        .filter(|event| event.kind == EventKind::Crashed);
    assert_eq!(crashes.count(), 1);
    // Asked for, it runs again.
    let report = host.ask("clone01", DomainState::Running).await.unwrap();
    assert_eq!((report.state, report.note), (DomainState::Running, None));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_takes_over_what_runs_and_ends_what_must_not() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    for domain in ["a", "b"] {
        host.define(domain).await;
        host.ask(domain, DomainState::Running).await.unwrap();
    }
    let counted = world.fabric.count(host.address, &name("a"));
    host.stop().await;
    // Its word was to stop "b"; then it died.
    let path = host.config.state.join("journal/b.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("\"holding\":\"running\"", "\"holding\":\"stopped\""),
    )
    .unwrap();
    host.start().await;
    until("b is ended", async || {
        world.fabric.runs_at(&name("b")).is_empty()
    })
    .await;
    assert_eq!(host.report("a").await.state, DomainState::Running);
    assert_eq!(world.fabric.runs_at(&name("a")), [host.address]);
    assert!(world.fabric.count(host.address, &name("a")) >= counted);

    // A damaged record: nothing is done with that domain, and it is said so.
    host.stop().await;
    std::fs::write(&path, "{").unwrap();
    host.start().await;
    let report = host.report("b").await;
    assert_eq!(report.state, DomainState::Unknown);
    assert!(report.note.unwrap().contains("damaged"));
    let refused = host.ask("b", DomainState::Running).await.unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    assert!(world.fabric.runs_at(&name("b")).is_empty());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_follow_the_certificate() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    host.define("clone01").await;
    let client = |role: Role| {
        let directory = world.home.path().join(role.as_str());
        let day = Duration::from_secs(86_400);
        world
            .authority
            .issue(role, "x", &[], day)
            .unwrap()
            .write_to(&directory)
            .unwrap();
        let endpoint = Endpoint::parse(&host.url()).unwrap();
        Client::new(endpoint, Some(&Credentials::load(&directory).unwrap())).unwrap()
    };
    let grant = GrantOrder {
        generation: Generation(9),
    };
    let stop = StatusOrder {
        state: DomainState::Stopped,
        generation: None,
        grace_ms: 0,
    };
    for (role, may_order, may_commit) in [
        (Role::Manager, true, false),
        (Role::User, true, false),
        (Role::Agent, false, true),
        (Role::Storage, false, false),
    ] {
        let client = client(role);
        assert!(
            client
                .get_json::<Vec<DomainReport>>("/domains", BOUND)
                .await
                .is_ok()
        );
        let ordered = client
            .put_json::<DomainReport>("/domain/clone01/status", &stop, BOUND)
            .await;
        assert_eq!(ordered.is_ok(), may_order, "{role}: {ordered:?}");
        for verb in ["ready", "commit"] {
            let path = format!("/domain/clone01/{verb}");
            let committed = client.post_json::<GrantAnswer>(&path, &grant, BOUND).await;
            assert_eq!(committed.is_ok(), may_commit, "{role}: {committed:?}");
            if let Err(error) = committed {
                assert_eq!(error.exit_code(), 3);
            }
        }
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_state_is_told_so() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    let mut config = host.config.clone();
    config.listen = None;
    config.socket = world.home.path().join("other.sock");
    let parts = estive_agent::Parts {
        hypervisor: std::sync::Arc::new(world.fabric.hypervisor(host.address)),
        clock: std::sync::Arc::new(estive_api::clock::SystemClock),
        taps: std::sync::Arc::new(estive_agent::NoTaps),
        credentials: None,
    };
    let second = estive_agent::run_with(config, parts, Default::default()).await;
    assert!(
        second
            .unwrap_err()
            .to_string()
            .contains("held by another agent")
    );
    host.stop().await;
}

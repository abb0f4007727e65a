//! An agent whose journal is gone while what it held is still here: nothing of that is touched.

mod common;

use common::*;
use estive_api::wire::*;
use estive_api::{Client, ClientError};
use estive_model::{DomainState, Event, EventKind};
use std::path::PathBuf;

fn journal(host: &Host) -> PathBuf {
    host.config.state.join("journal")
}

async fn forget(client: &Client, name: &str, query: &str) -> Result<(), ClientError> {
    let path = format!("/domain/{name}{query}");
    client.delete_json::<()>(&path, BOUND).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_with_what_the_journal_does_not_know_until_a_person_says_so() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    for name in ["runs", "stopped", "other"] {
        host.define(name).await;
    }
    host.ask("runs", DomainState::Running).await.unwrap();
    host.ask("other", DomainState::Running).await.unwrap();
    let entry = host.entry("runs").await;
    host.stop().await;

    let domains = host.config.state.join("domains");
    let files = count_files(&domains);
    let aside = host.config.state.join("aside");
    std::fs::rename(journal(&host), &aside).unwrap();
    host.start().await;
    let client = host.client();
    assert_eq!(world.fabric.runs_at(&name("runs")), [host.address]);
    assert_eq!(count_files(&domains), files);
    let about: AgentAbout = client.get_json("/about", BOUND).await.unwrap();
    assert!(about.note.unwrap().contains("other, runs, stopped"));
    assert_eq!(about.used_memory_mib, 3 * 128);
    let events: Vec<Event> = client.get_json("/events", BOUND).await.unwrap();
    let said = events.last().unwrap();
    assert_eq!(said.kind, EventKind::NotInJournal);
    assert!(said.reason.starts_with("found 3 domains"), "{said:?}");
    for name in ["runs", "stopped"] {
        let report = host.report(name).await;
        assert_eq!(report.state, DomainState::Unknown);
        let doubt = report.journal.doubt.unwrap();
        assert!(doubt.contains(&format!("delete {name} --forget")));
        let defined = host.try_define(name, archive(name, 128)).await;
        let refused = [
            host.ask(name, DomainState::Running).await.unwrap_err(),
            host.ask(name, DomainState::Stopped).await.unwrap_err(),
            forget(&client, name, "").await.unwrap_err(),
            defined.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains("--forget"), "{error}");
        }
    }
    assert_eq!(count_files(&journal(&host)), 0);

    // A copy of the journal is put back: everything is as it was.
    host.stop().await;
    std::fs::remove_dir(journal(&host)).unwrap();
    std::fs::rename(&aside, journal(&host)).unwrap();
    host.start().await;
    assert_eq!(host.entry("runs").await, entry);
    assert_eq!(host.report("runs").await.state, DomainState::Running);
    assert_eq!(host.report("stopped").await.state, DomainState::Stopped);

    // One record is lost, and a person has that domain forgotten; nobody else is touched.
    host.stop().await;
    std::fs::remove_file(journal(&host).join("runs.json")).unwrap();
    host.start().await;
    let client = host.client();
    let error = forget(&client, "other", "?forget=true").await.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert_eq!(world.fabric.runs_at(&name("runs")), [host.address]);
    forget(&client, "runs", "?forget=true&floor=7")
        .await
        .unwrap();
    assert!(world.fabric.runs_at(&name("runs")).is_empty());
    assert!(!domains.join("runs").exists());
    assert_eq!(world.fabric.runs_at(&name("other")), [host.address]);
    // What may have been granted is decided.
    let path = "/domain/runs?generation=7";
    let late = client
        .put_bytes::<DomainReport>(path, "application/x-tar", archive("runs", 128), BOUND)
        .await;
    assert!(late.unwrap_err().to_string().contains("not newer"));
    host.define("runs").await;
    let report = host.ask("runs", DomainState::Running).await.unwrap();
    assert_eq!(report.state, DomainState::Running);
    assert!(world.fabric.ran_twice().is_empty());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_came_before_their_record_are_never_in_force() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    host.define("a").await;
    host.stop().await;
    // As if the agent had ended between the files of a first definition and its record.
    let record = journal(&host).join("a.json");
    let first = r#"{"version":1,"name":"a","entry":{"holding":"absent","generation":0,"floor":0}}"#;
    assert!(
        std::fs::read_to_string(&record)
            .unwrap()
            .contains("holding")
    );
    std::fs::write(&record, first).unwrap();
    host.start().await;
    let place = host.config.state.join("domains/a");
    until("what was left is gone", async || !place.exists()).await;
    let about: AgentAbout = host.client().get_json("/about", BOUND).await.unwrap();
    assert_eq!((about.note, about.domains), (None, 0));
    host.stop().await;
}

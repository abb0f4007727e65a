//! What every store must do, as one suite: `conformance::suite(|| async { MyStore::new() }).await`.
//! It panics at the first thing that is not so.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};
use crate::typed::Typed;

/// Runs everything; `make_store` gives a fresh, empty store each time.
pub async fn suite<S, F>(mut make_store: impl FnMut() -> F)
where
    S: Store + 'static,
    F: Future<Output = S>,
{
    writes_happen_only_as_expected(&make_store().await).await;
    versions_only_rise(&make_store().await).await;
    lists_are_ordered_and_bounded_by_the_prefix(&make_store().await).await;
    watchers_see_each_change_in_order(&make_store().await).await;
    bad_keys_and_large_values_are_refused(&make_store().await).await;
    typed_values_are_read_back(&make_store().await).await;
    of_many_writers_one_wins_each_time(Arc::new(make_store().await)).await;
}

fn conflict(result: Result<u64, StoreError>) -> (Option<u64>, Option<u64>) {
    match result {
        Err(StoreError::Conflict {
            expected, actual, ..
        }) => (expected, actual),
        other => panic!("a conflict was due: {other:?}"),
    }
}

async fn put(store: &dyn Store, key: &str, expected: Option<u64>, value: &str) -> u64 {
    let value = Some(value.as_bytes().to_vec());
    let outcome = store.compare_and_swap(key, expected, value).await;
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

async fn held(store: &dyn Store, key: &str) -> Option<(String, u64)> {
    let found = store
        .get(key)
        .await
        .unwrap_or_else(|error| panic!("{error}"))?;
    Some((
        String::from_utf8_lossy(&found.value).into_owned(),
        found.version,
    ))
}

async fn writes_happen_only_as_expected(store: &dyn Store) {
    assert_eq!(held(store, "a").await, None);
    let first = put(store, "a", None, "one").await;
    let again = store
        .compare_and_swap("a", None, Some(b"two".to_vec()))
        .await;
    assert_eq!(conflict(again), (None, Some(first)));
    let second = put(store, "a", Some(first), "two").await;
    let stale = store.compare_and_swap("a", Some(first), None).await;
    assert_eq!(conflict(stale), (Some(first), Some(second)));
    assert_eq!(held(store, "a").await, Some(("two".to_owned(), second)));
    let deleted = store.compare_and_swap("a", Some(second), None).await;
    assert!(deleted.is_ok(), "{deleted:?}");
    assert_eq!(held(store, "a").await, None);
    let gone = store
        .compare_and_swap("a", Some(second), Some(Vec::new()))
        .await;
    assert_eq!(conflict(gone), (Some(second), None));
    let nothing = store.compare_and_swap("a", None, None).await;
    assert_eq!(conflict(nothing), (None, None));
    put(store, "empty", None, "").await;
    assert_eq!(
        held(store, "empty").await.map(|(value, _)| value),
        Some(String::new())
    );
}

async fn versions_only_rise(store: &dyn Store) {
    let mut last = put(store, "a", None, "1").await;
    for _ in 0..3 {
        let deleted = store.compare_and_swap("a", Some(last), None).await;
        let deleted = deleted.unwrap_or_else(|error| panic!("{error}"));
        let other = put(store, &format!("b{last}"), None, "x").await;
        let made = put(store, "a", None, "1").await;
        assert!(last < deleted && deleted < other && other < made);
        last = made;
    }
}

async fn lists_are_ordered_and_bounded_by_the_prefix(store: &dyn Store) {
    for key in ["d/b", "d/a", "d", "d-x", "d0", "c/z", "d/ü"] {
        put(store, key, None, key).await;
    }
    for (prefix, expected) in [
        ("d/", vec!["d/a", "d/b", "d/ü"]),
        ("d/a", vec!["d/a"]),
        ("e", vec![]),
        ("", vec!["c/z", "d", "d-x", "d/a", "d/b", "d/ü", "d0"]),
    ] {
        let found = store
            .list(prefix)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, expected, "{prefix:?}");
        assert!(found.iter().all(|(key, held)| key.as_bytes() == held.value));
    }
}

async fn watchers_see_each_change_in_order(store: &dyn Store) {
    put(store, "d/before", None, "x").await;
    let mut watch = store.watch("d/");
    let mut dropped = store.watch("");
    let first = put(store, "d/a", None, "1").await;
    put(store, "e/a", None, "elsewhere").await;
    let refused = store.compare_and_swap("d/a", None, Some(Vec::new())).await;
    conflict(refused);
    let second = put(store, "d/a", Some(first), "2").await;
    let third = store.compare_and_swap("d/a", Some(second), None).await;
    let third = third.unwrap_or_else(|error| panic!("{error}"));
    assert!(dropped.next().await.is_some());
    drop(dropped);
    let fourth = put(store, "d/b", None, "4").await;
    for (version, key, value) in [
        (first, "d/a", Some("1")),
        (second, "d/a", Some("2")),
        (third, "d/a", None),
        (fourth, "d/b", Some("4")),
    ] {
        let Some(change) = watch.next().await else {
            panic!("the watch ended before version {version}");
        };
        assert_eq!((change.version, change.key.as_str()), (version, key));
        assert_eq!(change.value.as_deref(), value.map(str::as_bytes));
    }
}

async fn bad_keys_and_large_values_are_refused(store: &dyn Store) {
    for key in ["", "a\nb", "\0", &"k".repeat(513)] {
        let put = store.compare_and_swap(key, None, Some(Vec::new())).await;
        assert!(matches!(put, Err(StoreError::BadKey { .. })), "{put:?}");
        let get = store.get(key).await;
        assert!(matches!(get, Err(StoreError::BadKey { .. })), "{get:?}");
    }
    let put = store
        .compare_and_swap("a", None, Some(vec![0; (1 << 20) + 1]))
        .await;
    assert!(matches!(put, Err(StoreError::TooLarge { .. })), "{put:?}");
    let put = store
        .compare_and_swap(&"k".repeat(512), None, Some(vec![0; 1 << 20]))
        .await;
    assert!(put.is_ok(), "{put:?}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    host: String,
    generation: u64,
}

async fn typed_values_are_read_back(store: &dyn Store) {
    let owners = Typed::<Owner>::new(store, "domains/");
    let host = "host1".to_owned();
    let owner = Owner {
        host,
        generation: 1,
    };
    let outcome = owners.compare_and_swap("clone01", None, Some(&owner)).await;
    let version = outcome.unwrap_or_else(|error| panic!("{error}"));
    let found = owners
        .get("clone01")
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        found.map(|found| (found.value, found.version)),
        Some((owner, version))
    );
    let raised = owners.update("clone01", |owner| {
        owner.map(|owner| Owner {
            generation: owner.generation + 1,
            ..owner
        })
    });
    let raised = raised.await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(raised.map(|raised| raised.value.generation), Some(2));
    let listed = owners
        .list()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].0, "clone01");
    let gone = owners.update("clone01", |_| None).await;
    assert!(matches!(gone, Ok(None)), "{gone:?}");
    assert_eq!(held(store, "domains/clone01").await, None);
    put(store, "domains/bad", None, "{").await;
    let bad = owners.get("bad").await;
    assert!(matches!(bad, Err(StoreError::BadValue { .. })), "{bad:?}");
}

async fn of_many_writers_one_wins_each_time<S: Store + 'static>(store: Arc<S>) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 10;
    let mut watch = store.watch("counter");
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let counter = Typed::<u64>::new(&*store, "counter");
                let mut versions = Vec::new();
                for _ in 0..EACH {
                    let raised = counter
                        .update("", |count| Some(count.unwrap_or(0) + 1))
                        .await;
                    let raised = raised.unwrap_or_else(|error| panic!("{error}"));
                    versions.extend(raised.map(|raised| raised.version));
                }
                versions
            })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for task in tasks {
        versions.extend(task.await.unwrap_or_else(|error| panic!("{error}")));
    }
    assert_eq!(versions.len() as u64, WRITERS * EACH);
    let counted = held(&*store, "counter").await.map(|(count, _)| count);
    assert_eq!(counted, Some((WRITERS * EACH).to_string()));
    let mut seen = Vec::new();
    for _ in 0..WRITERS * EACH {
        seen.extend(watch.next().await.map(|change| change.version));
    }
    assert_eq!(seen, versions.into_iter().collect::<Vec<_>>());
}

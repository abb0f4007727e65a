//! The embedded store over restarts, kills and rivals.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use estive_store::{EmbeddedStore, Store, StoreError};

const CHILD_STORE: &str = "ESTIVE_TEST_CHILD_STORE";

/// Not a test of its own: the process that is killed. It writes one key after another, and says
/// each number once the store has acknowledged it.
#[tokio::test]
async fn child_that_writes() {
    let Some(path) = std::env::var_os(CHILD_STORE) else {
        return;
    };
    let store = EmbeddedStore::open(Path::new(&path)).unwrap();
    for number in 0_u64.. {
        let value = Some(vec![7; 3000]);
        let version = store
            .compare_and_swap(&format!("n/{number:06}"), None, value)
            .await
            .unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {number} {version}").unwrap();
        out.flush().unwrap();
    }
}

struct Writer(Child);

impl Writer {
    fn start(path: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes", "--nocapture"])
            .env(CHILD_STORE, path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = dir.path().join(format!("{round}.redb"));
        let mut writer = Writer::start(&path);
        let lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        for line in lines {
            let line = line.unwrap();
            // The harness of the child may print before the child's first line.
            let Some((_, said)) = line.split_once("acknowledged ") else {
                continue;
            };
            let (number, version) = said.split_once(' ').unwrap();
            acknowledged.push((
                number.parse::<u64>().unwrap(),
                version.parse::<u64>().unwrap(),
            ));
            if acknowledged.len() == 20 + round * 7 {
                writer.0.kill().unwrap();
            }
        }
        drop(writer);
        let store = EmbeddedStore::open(&path).unwrap();
        for (number, version) in &acknowledged {
            let found = store.get(&format!("n/{number:06}")).await.unwrap().unwrap();
            assert_eq!((found.version, found.value.len()), (*version, 3000));
        }
        // One more write may have reached the disk unsaid; versions go on above all of them.
        let held = store.list("n/").await.unwrap().len();
        assert!(
            (acknowledged.len()..=acknowledged.len() + 1).contains(&held),
            "{held}"
        );
        let next = store
            .compare_and_swap("next", None, Some(Vec::new()))
            .await
            .unwrap();
        assert_eq!(next, held as u64 + 1);
    }
}

#[tokio::test]
async fn a_second_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    drop(store);
    drop(EmbeddedStore::open(&path).unwrap());

    // The same from another process.
    let mut writer = Writer::start(&path);
    let mut lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("acknowledged") {}
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the store {} is in use by another manager; stop that one first, or give this one its own --state directory",
            path.display()
        )
    );
}

#[tokio::test]
async fn the_file_is_private_and_nothing_else_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/store.redb");
    drop(EmbeddedStore::open(&path).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    fs::write(&path, "my diary").unwrap();
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("opening the store {}", path.display())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "my diary");
}

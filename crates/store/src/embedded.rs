//! The store of one manager: one redb file. A write returns once it is on disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::store::{Store, StoreError, Versioned, check_key, check_write};
use crate::watch::{Change, Watch, Watchers};

/// Key to the version of its last write and its value.
const VALUES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("values");
/// `version` to the last version given.
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const VERSION: &str = "version";

#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Database,
    watchers: Watchers,
    /// Held over a write and its publication, so that watchers see writes in their order.
    writing: Mutex<()>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store, making it (mode 0600) and its directory (0700) when missing. Blocks for
    /// milliseconds; a store whose manager was killed is repaired here, which may take longer.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |doing| failed(path, doing);
        if !path.exists() {
            make(path).map_err(failed("making"))?;
        }
        let database = Database::open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
                path: path.to_path_buf(),
            },
            error => failed("opening")(error.into()),
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_path_buf(),
                database,
                watchers: Watchers::default(),
                writing: Mutex::new(()),
            }),
        })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|error| Err(failed(&self.inner.path, doing)(error.into())))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        let read = move |inner: &Inner| inner.get(&key).map_err(failed(&inner.path, "reading"));
        self.blocking("reading", read).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Option<Vec<u8>>,
    ) -> Result<u64, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        let write = move |inner: &Inner| inner.write(key, expected, value);
        self.blocking("writing to", write).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let prefix = prefix.to_owned();
        let read = move |inner: &Inner| inner.list(&prefix).map_err(failed(&inner.path, "reading"));
        self.blocking("reading", read).await
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.inner.watchers.watch(prefix)
    }
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

impl Inner {
    fn get(&self, key: &str) -> Result<Option<Versioned>, Boxed> {
        let table = self.database.begin_read()?.open_table(VALUES)?;
        let found = table.get(key)?;
        Ok(found.map(|entry| versioned(entry.value())))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, Boxed> {
        let table = self.database.begin_read()?.open_table(VALUES)?;
        let mut found = Vec::new();
        for entry in table.range(prefix..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_owned(), versioned(value.value())));
        }
        Ok(found)
    }

    fn write(
        &self,
        key: String,
        expected: Option<u64>,
        value: Option<Vec<u8>>,
    ) -> Result<u64, StoreError> {
        // What it guards is nothing: a panic elsewhere leaves it as good as it was.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.write_durably(&key, expected, value.as_ref());
        let version = outcome.map_err(failed(&self.path, "writing to"))??;
        self.watchers.publish(&Change {
            key,
            version,
            value,
        });
        Ok(version)
    }

    /// The inner error is a refusal, the outer one the disk's. Dropped uncommitted, a transaction
    /// changes nothing.
    fn write_durably(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Option<&Vec<u8>>,
    ) -> Result<Result<u64, StoreError>, Boxed> {
        let mut transaction = self.database.begin_write()?;
        // fsync before commit returns: what is acknowledged is on disk.
        transaction.set_durability(Durability::Immediate)?;
        let version = {
            let mut values = transaction.open_table(VALUES)?;
            let actual = values.get(key)?.map(|entry| entry.value().0);
            if let Err(refused) = check_write(key, expected, actual, value) {
                return Ok(Err(refused));
            }
            let mut counters = transaction.open_table(COUNTERS)?;
            let last = counters.get(VERSION)?.map_or(0, |entry| entry.value());
            let version = last + 1;
            counters.insert(VERSION, version)?;
            match value {
                Some(value) => values.insert(key, (version, value.as_slice()))?,
                None => values.remove(key)?,
            };
            version
        };
        transaction.commit()?;
        Ok(Ok(version))
    }
}

fn versioned((version, value): (u64, &[u8])) -> Versioned {
    Versioned {
        value: value.to_vec(),
        version,
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(Boxed) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Failed {
        doing,
        path,
        source,
    }
}

/// Makes an empty store beside the place and links it there whole: a store whose maker was killed
/// half-way would be no store and not be opened again.
fn make(path: &Path) -> Result<(), Boxed> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let mut name = path.file_name().ok_or("the path names no file")?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = dir.join(name);
    let made = fill(&new).and_then(|()| match fs::hard_link(&new, path) {
        // Another manager was faster; which of us may go on, the lock says.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => Ok(linked?),
    });
    let removed = fs::remove_file(&new);
    made?;
    removed?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn fill(new: &Path) -> Result<(), Boxed> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)?;
    let database = Database::builder().create_file(file)?;
    let transaction = database.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(COUNTERS)?;
    transaction.commit()?;
    Ok(())
}

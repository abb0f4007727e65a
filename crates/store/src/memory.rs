//! The store of simulations: nothing outlives it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::store::{Store, StoreError, Versioned, check_key, check_write};
use crate::watch::{Change, Watch, Watchers};

#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
    watchers: Watchers,
}

#[derive(Debug, Default)]
struct Contents {
    values: BTreeMap<String, Versioned>,
    version: u64,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Every change below is whole before anything can panic.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        check_key(key)?;
        Ok(self.contents().values.get(key).cloned())
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Option<Vec<u8>>,
    ) -> Result<u64, StoreError> {
        check_key(key)?;
        let mut contents = self.contents();
        let actual = contents.values.get(key).map(|versioned| versioned.version);
        check_write(key, expected, actual, value.as_ref())?;
        contents.version += 1;
        let version = contents.version;
        match value.clone() {
            Some(value) => {
                let versioned = Versioned { value, version };
                contents.values.insert(key.to_owned(), versioned);
            }
            None => {
                contents.values.remove(key);
            }
        }
        let key = key.to_owned();
        self.watchers.publish(&Change {
            key,
            version,
            value,
        });
        Ok(version)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let contents = self.contents();
        let below = contents.values.range(prefix.to_owned()..);
        Ok(below
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, versioned)| (key.clone(), versioned.clone()))
            .collect())
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.watchers.watch(prefix)
    }
}

//! Values as JSON of one type.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Store, StoreError, Versioned};

/// Keys below one prefix that all hold a `T`: `Typed::<DomainRecord>::new(&*store, "domains/")`.
pub struct Typed<'a, T> {
    store: &'a dyn Store,
    prefix: String,
    of: PhantomData<fn() -> T>,
}

/// A value read back, and the version to expect when it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedValue<T> {
    pub value: T,
    pub version: u64,
}

impl<'a, T: Serialize + DeserializeOwned> Typed<'a, T> {
    pub fn new(store: &'a dyn Store, prefix: impl Into<String>) -> Self {
        Self {
            store,
            prefix: prefix.into(),
            of: PhantomData,
        }
    }

    pub async fn get(&self, name: &str) -> Result<Option<TypedValue<T>>, StoreError> {
        let key = self.key(name);
        let found = self.store.get(&key).await?;
        found.map(|versioned| read(&key, versioned)).transpose()
    }

    /// See [`Store::compare_and_swap`].
    pub async fn compare_and_swap(
        &self,
        name: &str,
        expected: Option<u64>,
        value: Option<&T>,
    ) -> Result<u64, StoreError> {
        let key = self.key(name);
        let bytes = match value {
            Some(value) => Some(serde_json::to_vec(value).map_err(|source| {
                let key = key.clone();
                StoreError::BadValue { key, source }
            })?),
            None => None,
        };
        self.store.compare_and_swap(&key, expected, bytes).await
    }

    /// Reads, lets `change` decide, writes; again when someone else wrote between. `change` is
    /// given `None` where nothing is, and returns `None` to delete (or leave) it. The result is
    /// what was written and its version.
    pub async fn update(
        &self,
        name: &str,
        mut change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> Result<Option<TypedValue<T>>, StoreError>
    where
        T: Send + Sync,
    {
        loop {
            let found = self.get(name).await?;
            let expected = found.as_ref().map(|found| found.version);
            let Some(value) = change(found.map(|found| found.value)) else {
                let Some(version) = expected else {
                    return Ok(None);
                };
                match self.compare_and_swap(name, Some(version), None).await {
                    Err(StoreError::Conflict { .. }) => continue,
                    deleted => return deleted.map(|_| None),
                }
            };
            match self.compare_and_swap(name, expected, Some(&value)).await {
                Err(StoreError::Conflict { .. }) => {}
                written => return written.map(|version| Some(TypedValue { value, version })),
            }
        }
    }

    /// All of them, by name (the key without the prefix), in order.
    pub async fn list(&self) -> Result<Vec<(String, TypedValue<T>)>, StoreError> {
        let found = self.store.list(&self.prefix).await?;
        found
            .into_iter()
            .map(|(key, versioned)| {
                let value = read(&key, versioned)?;
                Ok((key[self.prefix.len()..].to_owned(), value))
            })
            .collect()
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn read<T: DeserializeOwned>(key: &str, versioned: Versioned) -> Result<TypedValue<T>, StoreError> {
    let value =
        serde_json::from_slice(&versioned.value).map_err(|source| StoreError::BadValue {
            key: key.to_owned(),
            source,
        })?;
    Ok(TypedValue {
        value,
        version: versioned.version,
    })
}

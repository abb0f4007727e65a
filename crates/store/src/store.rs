//! The seam.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::watch::Watch;

pub(crate) const MAX_KEY_BYTES: usize = 512;
pub(crate) const MAX_VALUE_BYTES: usize = 1 << 20;

/// Keys and values with versions. Versions come from one counter of the whole store that only
/// rises: a key that was deleted and made again never has an old version again.
///
/// Keys are paths as `domains/clone01`, 1 to 512 bytes without control characters; values have
/// up to 1 MiB.
#[async_trait]
pub trait Store: Send + Sync {
    /// What the key holds now.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// Writes if the key still is as expected, and returns the write's version once it is durable.
    ///
    /// `expected`: the version last seen, or `None` when the key must not exist. `value`: what to
    /// put, or `None` to delete what exists. Otherwise nothing is changed: [`StoreError::Conflict`].
    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Option<Vec<u8>>,
    ) -> Result<u64, StoreError>;

    /// All keys that begin with `prefix`, in their order, as of one moment. An empty prefix: all.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError>;

    /// Every change below `prefix` from now on, in the order of versions. To miss nothing: watch
    /// first, then list, and leave out changes whose version the list has already.
    fn watch(&self, prefix: &str) -> Watch;
}

/// A value and the version of the write that put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    pub value: Vec<u8>,
    pub version: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else wrote first: read again, decide again.
    #[error("writing {key}: {}, {}; someone else wrote first", expectation(*expected), finding(*actual))]
    Conflict {
        key: String,
        expected: Option<u64>,
        /// `None`: the key does not exist.
        actual: Option<u64>,
    },

    #[error("the key {key:?} {problem}")]
    BadKey { key: String, problem: &'static str },

    #[error("writing {key}: {bytes} bytes, the limit is {MAX_VALUE_BYTES}")]
    TooLarge { key: String, bytes: usize },

    #[error(
        "the value of {key} is not what it should be: it was written by another version, or by hand"
    )]
    BadValue {
        key: String,
        #[source]
        source: serde_json::Error,
    },

    #[error(
        "the store {path} is in use by another manager; stop that one first, or give this one its own --state directory"
    )]
    InUse { path: PathBuf },

    #[error("{doing} the store {path}")]
    Failed {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn expectation(expected: Option<u64>) -> String {
    match expected {
        Some(version) => format!("expected at version {version}"),
        None => "expected not to exist".to_owned(),
    }
}

fn finding(actual: Option<u64>) -> String {
    match actual {
        Some(version) => format!("it is at {version}"),
        None => "it does not exist".to_owned(),
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    let problem = if key.is_empty() || key.len() > MAX_KEY_BYTES {
        "is not of 1 to 512 bytes"
    } else if key.chars().any(char::is_control) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(StoreError::BadKey {
        key: key.chars().take(80).collect(),
        problem,
    })
}

/// What both stores check before they write.
pub(crate) fn check_write(
    key: &str,
    expected: Option<u64>,
    actual: Option<u64>,
    value: Option<&Vec<u8>>,
) -> Result<(), StoreError> {
    if let Some(value) = value.filter(|value| value.len() > MAX_VALUE_BYTES) {
        return Err(StoreError::TooLarge {
            key: key.to_owned(),
            bytes: value.len(),
        });
    }
    // Nothing to delete where nothing is expected: that is a mistake of the caller.
    if expected != actual || (expected.is_none() && value.is_none()) {
        return Err(StoreError::Conflict {
            key: key.to_owned(),
            expected,
            actual,
        });
    }
    Ok(())
}

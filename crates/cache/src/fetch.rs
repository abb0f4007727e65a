//! Asking origins, one after the other, until one gives what can be proved to be right.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use estive_api::client::ClientError;
use estive_api::{Client, Credentials, Endpoint};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Requests under way at once, to all origins.
const AT_ONCE: usize = 8;
/// For one request, the connection included.
const WITHIN: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Fetcher {
    credentials: Credentials,
    clients: Mutex<HashMap<Endpoint, Client>>,
    slots: Semaphore,
    fetched_bytes: AtomicU64,
}

/// What is asked for.
pub(crate) struct Asked<'a> {
    pub path: &'a str,
    pub most_bytes: usize,
    /// How long origins that do not answer are asked again.
    pub patience: Duration,
}

/// What one origin did.
pub(crate) enum Fault {
    /// It gave something wrong, or refused: worth an event. Asking again is of no use.
    Wrong(String),
    /// It does not have it.
    Lacks(String),
    /// It does not answer; it may yet. `true`: what came over the link was not what was sent.
    Away(String, bool),
}

impl Fetcher {
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            clients: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            fetched_bytes: AtomicU64::new(0),
        }
    }

    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// Asks until one origin gives what `check` takes. `origins` is called before every round: an agent may have
    /// written others. `tell` hears of each wrong answer. The error says what each origin did at last.
    pub async fn fetch<T, O, C>(
        &self,
        asked: Asked<'_>,
        mut origins: impl FnMut() -> O,
        check: impl Fn(Bytes) -> C,
        tell: impl Fn(String),
    ) -> Result<T, String>
    where
        O: Future<Output = Vec<Endpoint>>,
        C: Future<Output = Result<T, String>>,
    {
        let deadline = Instant::now() + asked.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut faults = Vec::new();
            let mut some_away = false;
            for origin in origins().await {
                let fault = match self.ask(&origin, &asked).await {
                    Ok(bytes) => match check(bytes).await {
                        Ok(given) => return Ok(given),
                        Err(reason) => Fault::Wrong(reason),
                    },
                    Err(fault) => fault,
                };
                let (reason, told) = match fault {
                    Fault::Wrong(reason) => (reason, true),
                    Fault::Lacks(reason) => (reason, false),
                    Fault::Away(reason, spoilt) => {
                        some_away = true;
                        (reason, spoilt)
                    }
                };
                if told {
                    tell(format!("{} of {origin} was refused: {reason}", asked.path));
                }
                faults.push(format!("{origin}: {reason}"));
            }
            if !some_away || Instant::now() + pause > deadline {
                return Err(match faults.is_empty() {
                    true => "no origin is named for it".to_owned(),
                    false => faults.join("; "),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn ask(&self, origin: &Endpoint, asked: &Asked<'_>) -> Result<Bytes, Fault> {
        // Never closed.
        let _slot = self.slots.acquire().await;
        let client = self.client(origin)?;
        let got = client.get_bytes(asked.path, asked.most_bytes, WITHIN).await;
        let bytes = got.map_err(|error| fault_of(&error))?;
        self.fetched_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn client(&self, origin: &Endpoint) -> Result<Client, Fault> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(origin) {
            return Ok(client.clone());
        }
        let client = Client::new(origin.clone(), Some(&self.credentials))
            .map_err(|error| Fault::Wrong(error.to_string()))?;
        clients.insert(origin.clone(), client.clone());
        Ok(client)
    }
}

fn fault_of(error: &ClientError) -> Fault {
    let said = chain(error);
    match error {
        ClientError::Failed { status, .. } if status.as_u16() == 404 => Fault::Lacks(said),
        ClientError::Unreachable { .. } | ClientError::Interrupted { .. } => {
            Fault::Away(said, is_of_tls(error))
        }
        ClientError::Failed { .. } => Fault::Away(said, false),
        _ => Fault::Wrong(said),
    }
}

/// Whether a record could not be decrypted: somebody or something changed it on its way.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let tls = error.downcast_ref::<rustls::Error>().or_else(|| {
            let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
            inner.downcast_ref::<rustls::Error>()
        });
        if let Some(tls) = tls {
            return matches!(
                tls,
                rustls::Error::DecryptError
                    | rustls::Error::InvalidMessage(_)
                    | rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)
            );
        }
        next = error.source();
    }
    false
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        next = error.source();
    }
    text
}

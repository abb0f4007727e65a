//! Asking origins, one after the other, until one gives what can be proved to be right.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use estive_api::client::ClientError;
use estive_api::{Client, Credentials, Endpoint};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Requests under way at once, to one origin: one that does not answer takes nothing from the others.
const AT_ONCE: usize = 8;
/// How long one that did not answer is asked after all others.
const AWAY: Duration = Duration::from_secs(15);
/// Origins that are remembered; they come from files of the agent.
const MAX_REMEMBERED: usize = 256;
/// For one request, the connection included.
const WITHIN: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Fetcher {
    credentials: Credentials,
    origins: Mutex<HashMap<Endpoint, Arc<Origin>>>,
    within: Duration,
    fetched_bytes: AtomicU64,
}

struct Origin {
    client: Client,
    slots: Semaphore,
    away_until: Mutex<Option<Instant>>,
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
            origins: Mutex::default(),
            within: WITHIN,
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
            let mut named = origins().await;
            let now = Instant::now();
            // In their order, but one that keeps everybody waiting for its whole time must not do so with each chunk.
            named.sort_by_key(|origin| self.is_away(origin, now));
            for origin in named {
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

    async fn ask(&self, endpoint: &Endpoint, asked: &Asked<'_>) -> Result<Bytes, Fault> {
        let origin = self.origin(endpoint)?;
        // Never closed.
        let _slot = origin.slots.acquire().await;
        let asking = origin
            .client
            .get_bytes(asked.path, asked.most_bytes, self.within);
        let got = asking.await.map_err(|error| fault_of(&error));
        let away = matches!(got, Err(Fault::Away(..)));
        *lock(&origin.away_until) = away.then(|| Instant::now() + AWAY);
        let bytes = got?;
        self.fetched_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn is_away(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let origins = lock(&self.origins);
        let until = origins.get(endpoint).and_then(|it| *lock(&it.away_until));
        until.is_some_and(|until| now < until)
    }

    fn origin(&self, endpoint: &Endpoint) -> Result<Arc<Origin>, Fault> {
        let mut origins = lock(&self.origins);
        if let Some(origin) = origins.get(endpoint) {
            return Ok(origin.clone());
        }
        let client = Client::new(endpoint.clone(), Some(&self.credentials))
            .map_err(|error| Fault::Wrong(error.to_string()))?;
        if origins.len() >= MAX_REMEMBERED {
            origins.clear();
        }
        let origin = Arc::new(Origin {
            client,
            slots: Semaphore::new(AT_ONCE),
            away_until: Mutex::default(),
        });
        origins.insert(endpoint.clone(), origin.clone());
        Ok(origin)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use estive_api::Role;
    use estive_api::authority::Authority;
    use estive_api::server::{Listen, serve};
    use std::sync::atomic::AtomicUsize;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn one_that_keeps_us_waiting_is_asked_last_and_holds_up_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
        let here = ["127.0.0.1".parse().unwrap()];
        let day = Duration::from_secs(86_400);
        let issued = authority.issue(Role::Agent, "h1", &here, day).unwrap();
        issued.write_to(home.path().join("h1")).unwrap();
        let credentials = Credentials::load(home.path().join("h1")).unwrap();

        let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hung_at: Endpoint = format!("https://{}", hung.local_addr().unwrap())
            .parse()
            .unwrap();
        let met = Arc::new(AtomicUsize::new(0));
        let counted = met.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok(accepted) = hung.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                kept.push(accepted);
            }
        });
        let socket = home.path().join("good");
        let good: Endpoint = format!("unix:{}", socket.display()).parse().unwrap();
        let router = Router::new().fallback(|| async { "a chunk" });
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(Listen::Unix(socket), router, shutdown.clone()));

        let fetcher = Fetcher {
            within: Duration::from_millis(300),
            ..Fetcher::new(credentials)
        };
        let asked = || Asked {
            path: "/v1/chunks/x",
            most_bytes: 100,
            patience: day,
        };
        // More than there are slots: they are the hung one's own.
        let both = vec![hung_at, good.clone()];
        let fetch = |origins: Vec<Endpoint>| {
            let fetcher = &fetcher;
            async move {
                let check = |bytes| async move { Ok::<Bytes, String>(bytes) };
                let origins = || std::future::ready(origins.clone());
                fetcher.fetch(asked(), origins, check, |_| ()).await
            }
        };
        let first = futures_util::future::join_all((0..AT_ONCE).map(|_| fetch(both.clone())));
        let other = async {
            while met.load(Ordering::Relaxed) < AT_ONCE {
                tokio::task::yield_now().await;
            }
            let given = fetch(vec![good.clone()]).await;
            assert_eq!(met.load(Ordering::Relaxed), AT_ONCE);
            given
        };
        let (all, alone) = tokio::join!(first, other);
        assert!(all.iter().chain([&alone]).all(Result::is_ok));
        for _ in 0..3 {
            fetch(both.clone()).await.unwrap();
        }
        assert_eq!(
            met.load(Ordering::Relaxed),
            AT_ONCE,
            "it was asked first again"
        );
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}

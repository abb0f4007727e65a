//! The client of one endpoint: pooled HTTP/1.1 connections over mutual TLS or a unix socket.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::debug;

pub use crate::client_error::ClientError;
use crate::client_error::refusal;
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{Problem, ProblemKind};
pub use crate::lines::Lines;
use crate::upgrade::{UpgradedStream, asks_for_upgrade, upgrade_headers};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the server's 60 s, so that a request is not sent into a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(45);
const IDLE_CONNECTIONS: usize = 8;
/// The largest JSON answer.
const JSON_BYTES: usize = 16 << 20;
const PROBLEM_BYTES: usize = 256 << 10;

/// A client of one endpoint. Cheap to clone; clones share connections. Connections are opened as needed, kept for
/// the next request, and replaced when the other side has closed them. Dropping a call gives up its connection.
///
/// Every `within` bounds the whole call, connecting (itself at most 5 s) and reading the answer included.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    way: Way,
    host: HeaderValue,
    idle: Mutex<Vec<IdleConnection>>,
    opened: AtomicU64,
}

enum Way {
    Tls {
        host: String,
        port: u16,
        name: ServerName<'static>,
        connector: TlsConnector,
    },
    Unix(std::path::PathBuf),
}

struct IdleConnection {
    sender: Sender,
    since: Instant,
}

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// A request that can be built again for a second try; its body is shared.
struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    /// Never sent twice, whatever its method.
    once: bool,
}

impl Call {
    fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            once: false,
        }
    }

    fn body(mut self, content_type: HeaderValue, body: Bytes) -> Self {
        self.headers.insert(header::CONTENT_TYPE, content_type);
        self.body = body;
        self
    }

    /// Doing it twice is the same as doing it once (RFC 9110 section 9.2.2), unless it says otherwise.
    fn is_idempotent(&self) -> bool {
        self.method != Method::POST && !self.once
    }

    fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl Client {
    /// A client that has not connected yet. An `https` endpoint needs credentials.
    pub fn new(endpoint: Endpoint, credentials: Option<&Credentials>) -> Result<Self, ClientError> {
        let way = match (&endpoint, credentials) {
            (Endpoint::Unix(path), _) => Way::Unix(path.clone()),
            (Endpoint::Tls { host, port }, Some(credentials)) => Way::Tls {
                host: host.clone(),
                port: *port,
                name: ServerName::try_from(host.clone()).map_err(|error| {
                    ClientError::Protocol {
                        endpoint: endpoint.clone(),
                        reason: format!(
                            "its host cannot be checked against a certificate: {error}"
                        ),
                    }
                })?,
                connector: TlsConnector::from(credentials.client_config()),
            },
            (Endpoint::Tls { .. }, None) => {
                return Err(ClientError::Refused {
                    endpoint,
                    problem: Problem::refused("it asks for a certificate and none was given")
                        .advice("give the directory of your credentials"),
                });
            }
        };
        let host = HeaderValue::from_str(&endpoint.authority()).map_err(|error| {
            ClientError::Protocol {
                endpoint: endpoint.clone(),
                reason: format!("its host cannot be sent: {error}"),
            }
        })?;
        let idle = Mutex::new(Vec::new());
        Ok(Self {
            inner: Arc::new(Inner {
                endpoint,
                way,
                host,
                idle,
                opened: AtomicU64::new(0),
            }),
        })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// How many connections were opened so far.
    pub fn connections_opened(&self) -> u64 {
        self.inner.opened.load(Ordering::Relaxed)
    }

    /// Makes sure that a connection stands ready, proven by one round trip; it stays so for 45 s. For before a
    /// moment in which the next request must not wait for a handshake.
    pub async fn warm(&self, within: Duration) -> Result<(), ClientError> {
        let call = Call::new(Method::HEAD, "/");
        self.bounded(&call, within, async {
            let (response, sender) = self.exchange(&call).await?;
            let status = response.status();
            self.drain(&call, response, sender).await?;
            // Whatever the path is there for: only who we are matters.
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(self.unsuccessful(status, &[]))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<T, ClientError> {
        self.call_json(Call::new(Method::GET, path), within).await
    }

    pub async fn put_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, ClientError> {
        self.call_json(self.with_json(Method::PUT, path, body)?, within)
            .await
    }

    /// The same for a request that finds something else when it was done before: never sent twice.
    pub async fn put_json_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, ClientError> {
        let call = Call {
            once: true,
            ..self.with_json(Method::PUT, path, body)?
        };
        self.call_json(call, within).await
    }

    /// Never sent twice: after [`ClientError::Interrupted`] ask what became of it.
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, ClientError> {
        self.call_json(self.with_json(Method::POST, path, body)?, within)
            .await
    }

    pub async fn delete_json<T: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<T, ClientError> {
        self.call_json(Call::new(Method::DELETE, path), within)
            .await
    }

    /// Puts bytes of another type, such as a domain's archive; the answer is JSON.
    pub async fn put_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &'static str,
        body: impl Into<Bytes>,
        within: Duration,
    ) -> Result<T, ClientError> {
        let call =
            Call::new(Method::PUT, path).body(HeaderValue::from_static(content_type), body.into());
        self.call_json(call, within).await
    }

    /// Gets a body as it is, of at most `limit` bytes.
    pub async fn get_bytes(
        &self,
        path: &str,
        limit: usize,
        within: Duration,
    ) -> Result<Bytes, ClientError> {
        let call = Call::new(Method::GET, path);
        self.bounded(&call, within, self.call(&call, limit)).await
    }

    /// Gets an answer of one JSON value a line that may go on for long. `within` bounds the time until the answer
    /// begins; after that a dead other side is noticed by TCP keep-alive.
    pub async fn stream_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<Lines<T>, ClientError> {
        self.lines(Call::new(Method::GET, path), within).await
    }

    /// Like [`Client::stream_lines`], for an order: `method` is PUT, POST or DELETE, `body` may be empty.
    pub async fn stream_lines_of<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: impl Into<Bytes>,
        within: Duration,
    ) -> Result<Lines<T>, ClientError> {
        let call =
            Call::new(method, path).body(HeaderValue::from_static(content_type), body.into());
        self.lines(call, within).await
    }

    async fn lines<T: DeserializeOwned>(
        &self,
        call: Call,
        within: Duration,
    ) -> Result<Lines<T>, ClientError> {
        self.bounded(&call, within, async {
            let (response, sender) = self.exchange(&call).await?;
            let response = self.successful(&call, response).await?;
            Ok(Lines::new(
                self.clone(),
                call.what(),
                response.into_body(),
                sender,
            ))
        })
        .await
    }

    /// Turns a connection into a stream of bytes both ways; see [`accept_upgrade`](crate::upgrade::accept_upgrade).
    pub async fn upgrade(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<UpgradedStream, ClientError> {
        let mut call = Call::new(Method::GET, path);
        call.headers.extend(upgrade_headers());
        self.bounded(&call, within, async {
            let (response, _sender) = self.exchange(&call).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let response = self.successful(&call, response).await?;
                return Err(self.protocol(format!(
                    "{} was answered with {}",
                    call.what(),
                    response.status()
                )));
            }
            if !asks_for_upgrade(response.headers()) {
                return Err(
                    self.protocol(format!("{} was upgraded to something else", call.what()))
                );
            }
            let upgraded = hyper::upgrade::on(response)
                .await
                .map_err(|error| self.broken(&call, error, true))?;
            Ok(TokioIo::new(upgraded))
        })
        .await
    }

    fn with_json(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Call, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| {
            self.protocol(format!("the request cannot be written as JSON: {error}"))
        })?;
        Ok(Call::new(method, path).body(HeaderValue::from_static("application/json"), body.into()))
    }

    async fn call_json<T: DeserializeOwned>(
        &self,
        call: Call,
        within: Duration,
    ) -> Result<T, ClientError> {
        let bytes = self
            .bounded(&call, within, self.call(&call, JSON_BYTES))
            .await?;
        // An empty answer reads as null, so that `()` can be asked for.
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| {
            self.protocol(format!(
                "the answer to {} is not what was expected: {error}",
                call.what()
            ))
        })
    }

    async fn bounded<T>(
        &self,
        call: &Call,
        within: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(within, work).await.unwrap_or_else(|_| {
            Err(ClientError::Interrupted {
                endpoint: self.inner.endpoint.clone(),
                what: call.what(),
                source: format!("no answer within {within:?}").into(),
            })
        })
    }

    /// A whole exchange: the body of a successful answer, at most `limit` bytes.
    async fn call(&self, call: &Call, limit: usize) -> Result<Bytes, ClientError> {
        let (response, sender) = self.exchange(call).await?;
        let response = self.successful(call, response).await?;
        let bytes = self.collect(call, response, limit).await?;
        self.keep(sender);
        Ok(bytes)
    }

    async fn drain(
        &self,
        call: &Call,
        response: Response<Incoming>,
        sender: Sender,
    ) -> Result<(), ClientError> {
        self.collect(call, response, PROBLEM_BYTES).await?;
        self.keep(sender);
        Ok(())
    }

    async fn collect(
        &self,
        call: &Call,
        response: Response<Incoming>,
        limit: usize,
    ) -> Result<Bytes, ClientError> {
        match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(self.broken(call, *error, true)),
                Err(_) => Err(self.protocol(format!(
                    "the answer to {} is longer than {limit} bytes",
                    call.what()
                ))),
            },
        }
    }

    /// Turns an unsuccessful answer into its error.
    async fn successful(
        &self,
        call: &Call,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.collect(call, response, PROBLEM_BYTES).await?;
        Err(self.unsuccessful(status, &body))
    }

    fn unsuccessful(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let endpoint = self.inner.endpoint.clone();
        let problem = serde_json::from_slice(body).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(body)
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect();
            let text = if text.is_empty() {
                "no reason given".to_owned()
            } else {
                text
            };
            Problem::new(
                ProblemKind::from_status(status),
                format!("{endpoint} answered {status}: {text}"),
            )
        });
        match status.as_u16() {
            401 | 403 => ClientError::Refused { endpoint, problem },
            409 | 422 => ClientError::Impossible { endpoint, problem },
            _ => ClientError::Failed {
                endpoint,
                status,
                problem,
            },
        }
    }

    /// Sends a request and waits for the head of its answer. A kept connection may turn out to be closed: then a
    /// request of which nothing was sent, or one that may be done twice, is tried once more on a new connection.
    async fn exchange(&self, call: &Call) -> Result<(Response<Incoming>, Sender), ClientError> {
        let mut may_retry = true;
        loop {
            let kept = if may_retry {
                self.take_kept().await
            } else {
                None
            };
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let mut request = Request::builder()
                .method(&call.method)
                .uri(&call.path)
                .header(header::HOST, &self.inner.host);
            if let Some(headers) = request.headers_mut() {
                headers.extend(call.headers.clone());
            }
            let request = request
                .body(Full::new(call.body.clone()))
                .map_err(|error| {
                    self.protocol(format!("{} cannot be asked for: {error}", call.what()))
                })?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => {
                    let sent = error.take_message().is_none();
                    let error = error.into_error();
                    if was_kept && (!sent || call.is_idempotent()) {
                        debug!(endpoint = %self.inner.endpoint, %error, "a kept connection was closed; trying a new one");
                        may_retry = false;
                        continue;
                    }
                    return Err(self.broken(call, error, sent));
                }
            }
        }
    }

    /// A kept connection that is still good, if there is one.
    async fn take_kept(&self) -> Option<Sender> {
        // After a whole answer the connection is ready at once; one that is not is of no use.
        const BECOMES_READY: Duration = Duration::from_millis(100);
        loop {
            let kept = self.idle().pop()?;
            let mut sender = kept.sender;
            if kept.since.elapsed() < IDLE
                && matches!(timeout(BECOMES_READY, sender.ready()).await, Ok(Ok(())))
            {
                return Some(sender);
            }
        }
    }

    pub(crate) fn keep(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle();
        if idle.len() >= IDLE_CONNECTIONS {
            idle.remove(0);
        }
        idle.push(IdleConnection {
            sender,
            since: Instant::now(),
        });
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<IdleConnection>> {
        // The list is whole between any two of its operations, also after a panic.
        self.inner
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        match timeout(CONNECT_TIMEOUT, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Unreachable {
                endpoint: self.inner.endpoint.clone(),
                source: format!("no connection within {CONNECT_TIMEOUT:?}").into(),
            }),
        }
    }

    async fn dial(&self) -> Result<Sender, ClientError> {
        let stream: Box<dyn Stream> = match &self.inner.way {
            Way::Unix(path) => Box::new(
                UnixStream::connect(path)
                    .await
                    .map_err(|error| self.not_connected(error))?,
            ),
            Way::Tls {
                host,
                port,
                name,
                connector,
            } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| self.not_connected(error))?;
                crate::server::tune(&stream);
                Box::new(
                    connector
                        .connect(name.clone(), stream)
                        .await
                        .map_err(|error| self.not_connected(error))?,
                )
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.not_connected(error))?;
        self.inner.opened.fetch_add(1, Ordering::Relaxed);
        // Ends by itself when the sender is dropped or the other side closes.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "a connection ended early");
            }
        });
        Ok(sender)
    }

    fn not_connected(&self, error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
        match refusal(&error) {
            Some(problem) => ClientError::Refused {
                endpoint: self.inner.endpoint.clone(),
                problem,
            },
            None => ClientError::Unreachable {
                endpoint: self.inner.endpoint.clone(),
                source: error.into(),
            },
        }
    }

    /// The error of a connection that was lost in the middle of a call.
    fn broken(&self, call: &Call, error: hyper::Error, sent: bool) -> ClientError {
        if !sent || refusal(&error).is_some() {
            return self.not_connected(error);
        }
        if error.is_parse() {
            return self.protocol(format!(
                "the answer to {} is not HTTP: {error}",
                call.what()
            ));
        }
        ClientError::Interrupted {
            endpoint: self.inner.endpoint.clone(),
            what: call.what(),
            source: error.into(),
        }
    }

    pub(crate) fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol {
            endpoint: self.inner.endpoint.clone(),
            reason,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

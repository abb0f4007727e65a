//! Serving an axum router over mutual TLS or a unix socket.
//!
//! HTTP/1.1 with upgrades. Every request carries the extension [`Peer`]. One connection's trouble never ends the
//! accept loop.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::credentials::{Credentials, certified_peer};
use crate::endpoint::Endpoint;
use crate::error::{Error, Problem, chain};
use crate::identity::Peer;
use crate::revocation::{Revocation, Standing};

/// Where to listen.
#[derive(Debug, Clone)]
pub enum Listen {
    /// Mutual TLS; port 0 takes a free one.
    Tls {
        address: SocketAddr,
        credentials: Credentials,
    },
    /// A unix socket, 0600. One left behind by a dead process is replaced, a live one is not.
    Unix(PathBuf),
}

/// What a listener puts up with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For all headers of a request, counted from when the connection became idle: it is also how long an idle
    /// connection is kept. Our own client gives up idle connections earlier.
    pub header_timeout: Duration,
    pub header_bytes: usize,
    pub headers: usize,
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
    /// How long running requests may go on after the shutdown began.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            header_bytes: 32 * 1024,
            headers: 64,
            connections: 512,
            grace: Duration::from_secs(5),
        }
    }
}

/// A bound socket, not yet served.
pub struct Listener {
    socket: Socket,
    limits: Limits,
}

enum Socket {
    Tls {
        listener: TcpListener,
        address: SocketAddr,
        acceptor: TlsAcceptor,
        revocation: Arc<Revocation>,
    },
    Unix {
        listener: UnixListener,
        file: SocketFile,
    },
}

/// Binds and serves until `shutdown` is cancelled: [`Listener::bind`], then [`Listener::serve`].
pub async fn serve(
    listen: Listen,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Listener::bind(listen).await?.serve(router, shutdown).await;
    Ok(())
}

impl Listener {
    /// Takes the place. Errors: [`Error::InUse`] when somebody listens there, [`Error::Listen`] otherwise.
    pub async fn bind(listen: Listen) -> Result<Self, Error> {
        let socket = match listen {
            Listen::Tls {
                address,
                credentials,
            } => {
                let place = || format!("https://{address}");
                let listener =
                    TcpListener::bind(address)
                        .await
                        .map_err(|source| match source.kind() {
                            io::ErrorKind::AddrInUse => Error::InUse {
                                place: place(),
                                kind: "port",
                            },
                            _ => Error::Listen {
                                place: place(),
                                source,
                            },
                        })?;
                let address = listener.local_addr().map_err(|source| Error::Listen {
                    place: place(),
                    source,
                })?;
                Socket::Tls {
                    listener,
                    address,
                    acceptor: TlsAcceptor::from(credentials.server_config()),
                    revocation: credentials.revocation().clone(),
                }
            }
            Listen::Unix(path) => {
                let (listener, file) = bind_unix(&path).await?;
                Socket::Unix { listener, file }
            }
        };
        Ok(Self {
            socket,
            limits: Limits::default(),
        })
    }

    /// The same listener with other limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where it listens, with the real port.
    pub fn endpoint(&self) -> Endpoint {
        match &self.socket {
            Socket::Tls { address, .. } => Endpoint::Tls {
                host: address.ip().to_string(),
                port: address.port(),
            },
            Socket::Unix { file, .. } => Endpoint::Unix(file.path.clone()),
        }
    }

    /// Serves until `shutdown` is cancelled; then lets running requests end within the grace and cuts the rest.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let Self { socket, limits } = self;
        let permits = Arc::new(Semaphore::new(limits.connections));
        let limits = Arc::new(limits);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        warn!(%error, "a request's handler panicked; its connection is closed");
                    }
                    continue;
                }
                accepted = accept(&socket, &permits) => accepted,
            };
            let (accepted, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Either that one connection died early, or descriptors ran out: then others must close first.
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
            connections.spawn(async move {
                accepted.handle(router, &limits, shutdown).await;
                drop(permit);
            });
        }
        // Nobody new: the place is free from here on.
        drop(socket);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(limits.grace, all_ended).await.is_err() {
            connections.shutdown().await;
        }
    }
}

enum Accepted {
    Tls(TcpStream, SocketAddr, TlsAcceptor, Arc<Revocation>),
    Unix(UnixStream, u32),
}

async fn accept(
    socket: &Socket,
    permits: &Arc<Semaphore>,
) -> io::Result<(Accepted, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let accepted = match socket {
        Socket::Tls {
            listener,
            acceptor,
            revocation,
            ..
        } => {
            let (stream, remote) = listener.accept().await?;
            Accepted::Tls(stream, remote, acceptor.clone(), revocation.clone())
        }
        Socket::Unix { listener, file } => {
            Accepted::Unix(listener.accept().await?.0, file.owner_uid)
        }
    };
    Ok((accepted, permit))
}

impl Accepted {
    async fn handle(self, router: Router, limits: &Limits, shutdown: CancellationToken) {
        match self {
            Self::Tls(stream, remote, acceptor, revocation) => {
                tune(&stream);
                let handshake = timeout(
                    limits.handshake_timeout,
                    acceptor.accept(stream).into_fallible(),
                );
                let stream = match handshake.await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err((error, stream))) => {
                        warn!(%remote, error = %chain(&error), "refused a TLS connection");
                        return let_the_alert_arrive(stream).await;
                    }
                    Err(_) => {
                        return debug!(%remote, "dropped a TLS connection whose handshake did not end");
                    }
                };
                match certified_peer(stream.get_ref().1) {
                    Ok((peer, certificate)) => {
                        let standing = Standing::of(revocation, certificate);
                        converse(stream, (peer, standing), router, limits, shutdown).await;
                    }
                    Err(reason) => {
                        warn!(%remote, %reason, "refused a certificate without identity")
                    }
                }
            }
            Self::Unix(stream, own_uid) => match stream.peer_cred() {
                Ok(credentials) if credentials.uid() == 0 || credentials.uid() == own_uid => {
                    let peer = Peer::Local {
                        uid: credentials.uid(),
                    };
                    let who = (peer, Standing::local());
                    converse(stream, who, router, limits, shutdown).await;
                }
                Ok(credentials) => warn!(uid = credentials.uid(), "refused a local user"),
                Err(error) => warn!(%error, "could not see who came through the unix socket"),
            },
        }
    }
}

/// One connection's requests, one after the other.
async fn converse<S>(
    stream: S,
    (peer, standing): (Peer, Standing),
    router: Router,
    limits: &Limits,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shown = peer.to_string();
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(standing.clone());
        let (router, refused) = (router.clone(), refused(&peer, &standing));
        async move {
            if let Some(refused) = refused {
                return Ok(refused);
            }
            Ok::<_, Infallible>(
                router
                    .oneshot(request.map(Body::new))
                    .await
                    .unwrap_or_else(|never| match never {}),
            )
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes)
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(peer = shown, error = %chain(&error), "a connection ended early");
    }
}

/// To somebody whose certificate was revoked since it was shown; the connection ends with it.
fn refused(peer: &Peer, standing: &Standing) -> Option<Response> {
    standing.is_revoked().then(|| {
        warn!(%peer, "refused: its certificate is revoked");
        let mut response =
            Problem::refused(format!("the certificate of {peer} is revoked")).into_response();
        let close = http::HeaderValue::from_static("close");
        response
            .headers_mut()
            .insert(http::header::CONNECTION, close);
        response
    })
}

/// A refused client has often sent its first request already. Closing with that unread makes the kernel send a
/// reset, which overtakes the TLS alert that says why: so read on for a moment.
async fn let_the_alert_arrive(mut stream: TcpStream) {
    const PATIENCE: Duration = Duration::from_secs(2);
    const BYTES: u64 = 1 << 20;
    let drain = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(PATIENCE, drain).await;
}

/// Small messages go at once, and a peer that vanished without a word is noticed within some 30 s.
pub(crate) fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = || -> rustix::io::Result<()> {
        sockopt::set_tcp_nodelay(stream, true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(15))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
        sockopt::set_tcp_keepcnt(stream, 3)
    };
    if let Err(error) = set() {
        debug!(%error, "could not tune a TCP connection");
    }
}

/// The name of a bound unix socket; removes it in the end, if it is still ours.
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
    owner_uid: u32,
}

impl SocketFile {
    /// Whether a peer is root or the user that this process runs as.
    pub fn lets_in(&self, stream: &UnixStream) -> bool {
        stream
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == self.owner_uid)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(metadata) = fs::symlink_metadata(&self.path)
            && (metadata.dev(), metadata.ino()) == self.device_and_inode
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a unix socket, 0600, for a protocol of one's own. One left behind by a dead process is replaced, a live one is
/// not ([`Error::InUse`]). The second part removes the name when it is dropped.
pub async fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), Error> {
    let place = || format!("unix:{}", path.display());
    let failed = |source| Error::Listen {
        place: place(),
        source,
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Two that start at once must not both find the stale socket and replace each other's.
    let directory = fs::File::open(parent).map_err(Error::file("open the directory", parent))?;
    directory
        .lock()
        .map_err(Error::file("lock the directory", parent))?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file in its place that is no socket; remove it or choose another path",
            )));
        }
        Ok(_) => match timeout(Duration::from_secs(2), UnixStream::connect(path)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(Error::file("remove the stale socket", path))?;
            }
            // It answers, or it is too busy to: either way somebody is there.
            Ok(Ok(_)) | Err(_) => {
                return Err(Error::InUse {
                    place: place(),
                    kind: "path",
                });
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::InUse {
                    place: place(),
                    kind: "path",
                });
            }
            Ok(Err(error)) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(Error::file("protect", path))?;
    let metadata = fs::symlink_metadata(path).map_err(Error::file("look at", path))?;
    let file = SocketFile {
        path: path.to_owned(),
        device_and_inode: (metadata.dev(), metadata.ino()),
        owner_uid: metadata.uid(),
    };
    Ok((listener, file))
}

/// Limits the bodies of a router's routes (without it: 2 MiB). Give each group of routes its own.
pub fn with_body_limit(router: Router, bytes: usize) -> Router {
    router.layer(DefaultBodyLimit::max(bytes))
}

/// A request's JSON body; what does not parse or is too big is answered with a [`Problem`].
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Ok(Self(axum::Json::<T>::from_request(request, state).await?.0))
    }
}

/// A request's whole body; one over the limit is answered with a [`Problem`].
pub struct BytesBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for BytesBody {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Ok(Self(Bytes::from_request(request, state).await?))
    }
}

/// An answer of one JSON value a line, each sent as soon as it is there; see
/// [`Client::stream_lines`](crate::client::Client::stream_lines).
pub fn json_lines<T: Serialize>(values: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = values.map(|value| {
        serde_json::to_vec(&value).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        })
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

//! Client and server against each other, over real sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures_util::StreamExt;
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::authority::Authority;
use crate::client::{Client, ClientError};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{Error, Problem, ProblemKind};
use crate::identity::{Peer, Role};
use crate::server::{BytesBody, JsonBody, Limits, Listen, Listener, json_lines, with_body_limit};
use crate::upgrade::{accept_upgrade, splice};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DAY: Duration = Duration::from_secs(86_400);
/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// An authority in a temporary directory.
struct Town {
    home: tempfile::TempDir,
    authority: Authority,
}

impl Town {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("authority")).unwrap();
        Self { home, authority }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn credentials(&self, role: Role, name: &str) -> Credentials {
        self.credentials_at(role, name, &[LOOPBACK], OffsetDateTime::now_utc())
    }

    fn credentials_at(
        &self,
        role: Role,
        name: &str,
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Credentials {
        let directory = self.path(&format!("{role}-{name}"));
        self.authority
            .issue_at(role, name, addresses, DAY, now)
            .unwrap()
            .write_to(&directory)
            .unwrap();
        Credentials::load(&directory).unwrap()
    }

    async fn serve_tls(&self, credentials: Credentials) -> Served {
        Served::start(
            Listen::Tls {
                address: SocketAddr::new(LOOPBACK, 0),
                credentials,
            },
            Limits::default(),
        )
        .await
    }

    async fn serve_unix(&self) -> (Served, Client) {
        let served = Served::start(Listen::Unix(self.path("socket")), Limits::default()).await;
        let client = Client::new(served.endpoint.clone(), None).unwrap();
        (served, client)
    }
}

/// A running server; cancelled when dropped.
struct Served {
    endpoint: Endpoint,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Served {
    async fn start(listen: Listen, limits: Limits) -> Self {
        Self::start_with(listen, limits, router()).await
    }

    async fn start_with(listen: Listen, limits: Limits, router: Router) -> Self {
        let listener = Listener::bind(listen).await.unwrap().with_limits(limits);
        let stop = CancellationToken::new();
        let endpoint = listener.endpoint();
        let task = tokio::spawn(listener.serve(router, stop.clone()));
        Self {
            endpoint,
            task,
            stop: stop.drop_guard(),
        }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }

    fn port(&self) -> u16 {
        let Endpoint::Tls { port, .. } = self.endpoint else {
            panic!("not TCP")
        };
        port
    }
}

fn router() -> Router {
    let large = Router::new().route(
        "/bytes",
        put(|BytesBody(body): BytesBody| async move { Json(body.len()) }),
    );
    Router::new()
        .route(
            "/peer",
            get(|Extension(peer): Extension<Peer>| async move { Json(peer.to_string()) }),
        )
        .route(
            "/managers-only",
            get(|Extension(peer): Extension<Peer>| async move {
                peer.require(&[Role::Manager]).map(Json)
            }),
        )
        .route(
            "/double",
            post(|JsonBody(number): JsonBody<u64>| async move { Json(number * 2) }),
        )
        .route(
            "/impossible",
            get(|| async { Problem::impossible("no host has room").details(serde_json::json!(3)) }),
        )
        .route(
            "/far",
            get(|| async { Problem::unreachable("h2 does not answer") }),
        )
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("planted")
                }
            }),
        )
        .route(
            "/plain",
            get(|| async { (http::StatusCode::IM_A_TEAPOT, "short and stout") }),
        )
        .route("/slow", get(std::future::pending::<()>))
        .route(
            "/echo",
            get(|request: Request| async {
                accept_upgrade(request, |stream| async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                })
            }),
        )
        .merge(with_body_limit(large, 32 << 20))
}

fn refused(error: ClientError) -> Problem {
    assert_eq!(error.exit_code(), 3, "{error}");
    match error {
        ClientError::Refused { problem, .. } => problem,
        other => panic!("not refused, but {other}"),
    }
}

async fn ask_peer(served: &Served, credentials: &Credentials) -> Result<String, ClientError> {
    Client::new(served.endpoint.clone(), Some(credentials))
        .unwrap()
        .get_json("/peer", LONG)
        .await
}

#[tokio::test]
async fn role_and_name_are_read_from_the_certificate() {
    let town = Town::new();
    let served = town.serve_tls(town.credentials(Role::Agent, "h1")).await;
    assert_eq!(
        ask_peer(&served, &town.credentials(Role::Manager, "m1"))
            .await
            .unwrap(),
        "manager:m1"
    );
    assert_eq!(
        ask_peer(&served, &town.credentials(Role::User, "ann.b"))
            .await
            .unwrap(),
        "user:ann.b"
    );
    let client = Client::new(
        served.endpoint.clone(),
        Some(&town.credentials(Role::User, "ann.b")),
    )
    .unwrap();
    let problem = refused(
        client
            .get_json::<()>("/managers-only", LONG)
            .await
            .unwrap_err(),
    );
    assert!(problem.error.contains("user:ann.b"), "{problem}");
}

#[tokio::test]
async fn nobody_enters_without_a_certificate() {
    let town = Town::new();
    let credentials = town.credentials(Role::Agent, "h1");
    let served = town.serve_tls(credentials.clone()).await;
    let mut roots = rustls::RootCertStore::empty();
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(town.authority.certificate_pem().as_bytes()).unwrap();
    roots.add(pem.contents.into()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", served.port()))
        .await
        .unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    stream
        .write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let error = stream
        .read_to_end(&mut Vec::new())
        .await
        .expect_err("it was served");
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(
        tls,
        Some(&rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
        )),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_sides() {
    let (town, other) = (Town::new(), Town::new());
    let served = town.serve_tls(town.credentials(Role::Agent, "h1")).await;
    let stranger = other.credentials(Role::Manager, "m1");
    // The stranger does not accept our server ...
    refused(ask_peer(&served, &stranger).await.unwrap_err());
    // ... and one that pretends to is not accepted by it.
    std::fs::copy(
        town.path("authority/ca-cert.pem"),
        stranger.directory().join("ca-cert.pem"),
    )
    .unwrap();
    let pretender = Credentials::load(stranger.directory()).unwrap();
    let problem = refused(ask_peer(&served, &pretender).await.unwrap_err());
    assert!(
        problem.error.contains("does not accept our certificate"),
        "{problem}"
    );
    // The accept loop has survived all that.
    ask_peer(&served, &town.credentials(Role::Manager, "m1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let town = Town::new();
    let served = town.serve_tls(town.credentials(Role::Agent, "h1")).await;
    let past = OffsetDateTime::now_utc() - time::Duration::days(2);
    let expired = town.credentials_at(Role::Manager, "old", &[LOOPBACK], past);
    let problem = refused(ask_peer(&served, &expired).await.unwrap_err());
    assert!(problem.error.contains("CertificateExpired"), "{problem}");
}

#[tokio::test]
async fn a_server_is_held_to_its_address_and_role() {
    let town = Town::new();
    let user = town.credentials(Role::User, "ann");
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 12));
    let displaced = town.credentials_at(Role::Agent, "h2", &[elsewhere], OffsetDateTime::now_utc());
    let served = town.serve_tls(displaced).await;
    refused(ask_peer(&served, &user).await.unwrap_err());
    let served = town.serve_tls(town.credentials(Role::User, "bob")).await;
    refused(ask_peer(&served, &user).await.unwrap_err());
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let town = Town::new();
    let credentials = town.credentials(Role::Agent, "h1");
    let served = town.serve_tls(credentials.clone()).await;
    let address = SocketAddr::new(LOOPBACK, served.port());
    let error = Listener::bind(Listen::Tls {
        address,
        credentials,
    })
    .await
    .err()
    .unwrap();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_silent_tcp_client_does_not_stay() {
    let town = Town::new();
    let listen = Listen::Tls {
        address: SocketAddr::new(LOOPBACK, 0),
        credentials: town.credentials(Role::Agent, "h1"),
    };
    let limits = Limits {
        handshake_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let served = Served::start(listen, limits).await;
    let mut silent = TcpStream::connect(("127.0.0.1", served.port()))
        .await
        .unwrap();
    let end = tokio::time::timeout(LONG, silent.read(&mut [0; 1]))
        .await
        .expect("it was kept");
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_unix_socket_is_private_and_knows_its_peer() {
    let town = Town::new();
    let (served, client) = town.serve_unix().await;
    let mode = std::fs::metadata(town.path("socket"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(
        client.get_json::<String>("/peer", LONG).await.unwrap(),
        format!("local:{uid}")
    );
    served.stop().await;
    assert!(!town.path("socket").exists(), "the socket is left behind");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let town = Town::new();
    let path = town.path("socket");
    // What a killed process leaves: the file without a listener.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (_served, client) = town.serve_unix().await;
    let error = Listener::bind(Listen::Unix(path.clone()))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    client.get_json::<String>("/peer", LONG).await.unwrap();

    let file = town.path("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Listener::bind(Listen::Unix(file.clone())).await.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let town = Town::new();
    let client = Client::new(Endpoint::Unix(town.path("nobody")), None).unwrap();
    let error = client.get_json::<()>("/peer", LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(error.exit_code(), 4);
}

#[tokio::test]
async fn problems_come_back_as_what_they_are() {
    let town = Town::new();
    let (_served, client) = town.serve_unix().await;
    let impossible = client
        .get_json::<()>("/impossible", LONG)
        .await
        .unwrap_err();
    assert!(
        matches!(impossible, ClientError::Impossible { .. }),
        "{impossible}"
    );
    assert_eq!(
        (
            impossible.exit_code(),
            &*impossible.problem().unwrap().details
        ),
        (2, &serde_json::json!(3))
    );
    assert_eq!(
        client
            .get_json::<()>("/far", LONG)
            .await
            .unwrap_err()
            .exit_code(),
        4
    );
    assert!(
        client
            .get_json::<()>("/nowhere", LONG)
            .await
            .unwrap_err()
            .is_not_found()
    );
    let plain = client.get_json::<()>("/plain", LONG).await.unwrap_err();
    assert!(
        plain.problem().unwrap().error.contains("short and stout"),
        "{plain}"
    );
    let invalid = client
        .post_json::<u64>("/double", &"two", LONG)
        .await
        .unwrap_err();
    assert_eq!(
        invalid.problem().unwrap().kind,
        ProblemKind::Invalid,
        "{invalid}"
    );
    let other_type = client.get_json::<u64>("/peer", LONG).await.unwrap_err();
    assert!(
        matches!(other_type, ClientError::Protocol { .. }),
        "{other_type}"
    );
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let town = Town::new();
    let served = town.serve_tls(town.credentials(Role::Agent, "h1")).await;
    let client = Client::new(
        served.endpoint.clone(),
        Some(&town.credentials(Role::Manager, "m1")),
    )
    .unwrap();
    client.warm(LONG).await.unwrap();
    assert_eq!(client.connections_opened(), 1);
    for number in 0..20 {
        assert_eq!(
            client
                .post_json::<u64>("/double", &number, LONG)
                .await
                .unwrap(),
            number * 2
        );
    }
    client
        .get_json::<()>("/impossible", LONG)
        .await
        .unwrap_err();
    client.warm(LONG).await.unwrap();
    assert!(
        client.connections_opened() <= 2,
        "{} connections",
        client.connections_opened()
    );
}

#[tokio::test]
async fn a_hanging_request_holds_up_no_other_and_ends_at_its_bound() {
    let town = Town::new();
    let (_served, client) = town.serve_unix().await;
    let hanging = client.get_json::<()>("/slow", Duration::from_millis(300));
    let (hanging, others) = tokio::join!(
        hanging,
        futures_util::future::join_all((0..10u64).map(|number| {
            let client = client.clone();
            async move { client.post_json::<u64>("/double", &number, LONG).await }
        }))
    );
    assert!(
        matches!(hanging, Err(ClientError::Interrupted { .. })),
        "{hanging:?}"
    );
    assert!(
        others
            .into_iter()
            .enumerate()
            .all(|(number, answer)| answer.unwrap() == 2 * number as u64)
    );
}

#[tokio::test]
async fn after_a_restart_the_kept_connection_is_replaced() {
    let town = Town::new();
    let (served, client) = town.serve_unix().await;
    client.warm(LONG).await.unwrap();
    served.stop().await;
    let error = client.get_json::<String>("/peer", LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let (_served, _) = town.serve_unix().await;
    client.get_json::<String>("/peer", LONG).await.unwrap();
    assert_eq!(client.connections_opened(), 2);
}

/// A server that answers the first request of each connection and drops the connection on the second, unanswered.
async fn serve_once_each(path: &Path) -> (JoinHandle<()>, mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let (seen, requests) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            for number in 0..2 {
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.unwrap();
                if count == 0 {
                    break;
                }
                seen.send(
                    String::from_utf8_lossy(&request[..count])
                        .lines()
                        .next()
                        .unwrap()
                        .to_owned(),
                )
                .unwrap();
                if number == 0 {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1")
                        .await
                        .unwrap();
                }
            }
        }
    });
    (task, requests)
}

#[tokio::test]
async fn only_what_may_be_done_twice_is_sent_twice() {
    let town = Town::new();
    let path = town.path("socket");
    let (task, mut requests) = serve_once_each(&path).await;
    let client = Client::new(Endpoint::Unix(path), None).unwrap();
    client.get_json::<u8>("/first", LONG).await.unwrap();
    client.get_json::<u8>("/again", LONG).await.unwrap();
    let error = client.post_json::<u8>("/once", &1, LONG).await.unwrap_err();
    assert!(matches!(error, ClientError::Interrupted { .. }), "{error}");
    client.get_json::<u8>("/first", LONG).await.unwrap();
    let put = client.put_json_once::<u8>("/fence", &1, LONG).await;
    assert!(matches!(put, Err(ClientError::Interrupted { .. })));
    task.abort();
    let mut seen = Vec::new();
    while let Some(request) = requests.recv().await {
        seen.push(request);
    }
    assert_eq!(
        seen,
        [
            "GET /first",
            "GET /again",
            "GET /again",
            "POST /once",
            "GET /first",
            "PUT /fence"
        ]
        .map(|line| format!("{line} HTTP/1.1"))
    );
}

#[tokio::test]
async fn a_big_body_passes_and_one_over_the_limit_is_told() {
    let town = Town::new();
    let served = town.serve_tls(town.credentials(Role::Agent, "h1")).await;
    let client = Client::new(
        served.endpoint.clone(),
        Some(&town.credentials(Role::Manager, "m1")),
    )
    .unwrap();
    let big = Bytes::from(vec![7; 24 << 20]);
    assert_eq!(
        client
            .put_bytes::<usize>("/bytes", "application/x-tar", big, LONG)
            .await
            .unwrap(),
        24 << 20
    );
    let error = client
        .post_json::<u64>("/double", &vec![0; 2 << 20], LONG)
        .await
        .unwrap_err();
    assert_eq!(
        error.problem().map(|problem| problem.kind),
        Some(ProblemKind::Invalid),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read() {
    let town = Town::new();
    let (_served, client) = town.serve_unix().await;
    assert!(client.get_bytes("/peer", 1000, LONG).await.unwrap().len() > 2);
    assert!(matches!(
        client.get_bytes("/peer", 2, LONG).await,
        Err(ClientError::Protocol { .. })
    ));
}

#[tokio::test]
async fn a_slow_writer_of_headers_is_dropped() {
    let town = Town::new();
    let path = town.path("socket");
    let limits = Limits {
        header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let _served = Served::start(Listen::Unix(path.clone()), limits).await;
    let mut slow = UnixStream::connect(&path).await.unwrap();
    slow.write_all(b"GET /peer HTTP/1.1\r\nhost:")
        .await
        .unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, slow.read_to_end(&mut answer))
        .await
        .expect("it was kept")
        .unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn headers_have_limits() {
    let town = Town::new();
    let (_served, client) = town.serve_unix().await;
    let Endpoint::Unix(path) = client.endpoint() else {
        unreachable!()
    };
    for headers in [
        format!("a: {}\r\n", "x".repeat(64 << 10)),
        "a: b\r\n".repeat(100),
    ] {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // It may close before it has read everything.
        let _ = stream
            .write_all(format!("GET /peer HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes())
            .await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer))
            .await
            .expect("it was kept");
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let town = Town::new();
    let path = town.path("socket");
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let _served = Served::start(Listen::Unix(path.clone()), limits).await;
    let first = Client::new(Endpoint::Unix(path.clone()), None).unwrap();
    let second = Client::new(Endpoint::Unix(path), None).unwrap();
    first.warm(LONG).await.unwrap();
    let early = second
        .get_json::<String>("/peer", Duration::from_millis(300))
        .await;
    assert!(
        matches!(early, Err(ClientError::Interrupted { .. })),
        "{early:?}"
    );
    drop(first);
    second.get_json::<String>("/peer", LONG).await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_only_its_connection() {
    let town = Town::new();
    let (_served, client) = town.serve_unix().await;
    assert!(client.get_json::<()>("/panic", LONG).await.is_err());
    client.get_json::<String>("/peer", LONG).await.unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let town = Town::new();
    let served = town.serve_tls(town.credentials(Role::Agent, "h1")).await;
    let client = Client::new(
        served.endpoint.clone(),
        Some(&town.credentials(Role::User, "ann")),
    )
    .unwrap();
    let stream = client.upgrade("/echo", LONG).await.unwrap();
    let (mut near, far) = tokio::io::duplex(1000);
    let spliced = tokio::spawn(splice(far, stream));
    let said: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    let mut heard = vec![0; said.len()];
    let (mut reader, mut writer) = tokio::io::split(&mut near);
    let (written, read) = tokio::join!(writer.write_all(&said), reader.read_exact(&mut heard));
    written.unwrap();
    read.unwrap();
    assert!(said == heard);
    near.shutdown().await.unwrap();
    assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(spliced.await.unwrap().unwrap(), (200_000, 200_000));

    assert!(
        client
            .upgrade("/nowhere", LONG)
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(matches!(
        client.upgrade("/peer", LONG).await,
        Err(ClientError::Protocol { .. })
    ));
    let asked_plainly = client.get_json::<()>("/echo", LONG).await.unwrap_err();
    assert_eq!(asked_plainly.problem().unwrap().kind, ProblemKind::Invalid);
}

#[tokio::test]
async fn lines_arrive_one_by_one_while_the_answer_goes_on() {
    let town = Town::new();
    let next = Arc::new(Notify::new());
    let gate = next.clone();
    let lines = get(move || {
        let gate = gate.clone();
        async move {
            json_lines(futures_util::stream::iter(1..=3u64).then(move |number| {
                let gate = gate.clone();
                async move {
                    gate.notified().await;
                    number
                }
            }))
        }
    });
    let router = Router::new().route("/lines", lines);
    let served =
        Served::start_with(Listen::Unix(town.path("socket")), Limits::default(), router).await;
    let client = Client::new(served.endpoint.clone(), None).unwrap();
    let mut lines = client.stream_lines::<u64>("/lines", LONG).await.unwrap();
    for expected in 1..=3 {
        // Only now may the server say the next one: it must not wait for more to send.
        next.notify_one();
        assert_eq!(lines.next().await.unwrap().unwrap(), expected);
    }
    assert!(lines.next().await.is_none());
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn shutdown_waits_for_the_running_and_cuts_the_endless() {
    let town = Town::new();
    let limits = Limits {
        grace: Duration::from_millis(200),
        ..Limits::default()
    };
    let served = Served::start(Listen::Unix(town.path("socket")), limits).await;
    let client = Client::new(served.endpoint.clone(), None).unwrap();
    client.warm(LONG).await.unwrap();
    let endless = tokio::spawn(async move { client.get_json::<()>("/slow", LONG).await });
    tokio::time::timeout(LONG, served.stop())
        .await
        .expect("it does not end");
    let error = endless.await.unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
}

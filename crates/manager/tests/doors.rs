//! Every door of Estive: who is revoked is let in nowhere any more, also by a connection that is open, as soon as the list
//! is beside the credentials of whoever has the door; and nobody else feels it.

mod common;

use common::*;
use estive_agent::{AccelConfig, AgentConfig, CapacityConfig, MigrationConfig, NoTaps};
use estive_api::authority::Authority;
use estive_api::clock::SystemClock;
use estive_api::server::{Listen, Listener};
use estive_api::{Client, Credentials, Endpoint, Role};
use estive_cache::{CacheConfig, OriginConfig, serve_cache, serve_origin};
use estive_hypervisor::SimulatedFabric;
use estive_model::HostName;
use estive_volumes::SimulatedVolumes;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The names in their certificates.
const DOORS: [&str; 5] = ["manager", "agent", "roots", "volumes", "cache"];

struct Doors {
    home: tempfile::TempDir,
    authority: Authority,
    ending: CancellationToken,
    addresses: Vec<SocketAddr>,
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Doors {
    fn credentials(&self, role: Role, name: &str) -> PathBuf {
        let place = self.home.path().join("credentials").join(name);
        if !place.exists() {
            let day = Duration::from_secs(86_400);
            let here = ["127.0.0.1".parse().unwrap()];
            let issued = self.authority.issue(role, name, &here, day).unwrap();
            issued.write_to(&place).unwrap();
        }
        place
    }

    /// All of them, as their programs open them.
    async fn open(world: &World) -> Doors {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
        let doors = Doors {
            home,
            authority,
            ending: CancellationToken::new(),
            addresses: DOORS.map(|_| free()).into(),
        };
        let roles = [
            Role::Manager,
            Role::Agent,
            Role::Storage,
            Role::Storage,
            Role::Agent,
        ];
        let credentials: Vec<PathBuf> = DOORS
            .iter()
            .zip(roles)
            .map(|(name, role)| doors.credentials(role, name))
            .collect();
        let place = |name: &str| doors.home.path().join(name);
        let ending = || doors.ending.clone();

        let mut config = world.manager_config();
        config.listen = Some(doors.addresses[0]);
        config.socket = place("manager.sock");
        config.state = place("manager");
        config.credentials = Some(credentials[0].clone());
        let (parts, end) = (world.manager_parts(), ending());
        tokio::spawn(async move { estive_manager::run_with(config, parts, end).await.unwrap() });

        let config = AgentConfig {
            name: HostName::new("agent").unwrap(),
            listen: Some(doors.addresses[1]),
            socket: place("agent.sock"),
            state: place("agent"),
            runtime: place("run"),
            credentials: Some(credentials[1].clone()),
            cache: None,
            plain_disks: false,
            images: Vec::new(),
            bridge: "br0".into(),
            door: None,
            capacity: CapacityConfig {
                cores: 1,
                memory_mib: 512,
            },
            accel: AccelConfig::Tcg,
            migration: MigrationConfig {
                address: address(1),
                first_port: 49152,
                last_port: 49160,
                tls: false,
            },
            cgroup: None,
            emulator: None,
        };
        let parts = estive_agent::Parts {
            hypervisor: Arc::new(SimulatedFabric::new().hypervisor(address(1))),
            clock: Arc::new(SystemClock),
            taps: Arc::new(NoTaps),
            credentials: Some(Credentials::load(&credentials[1]).unwrap()),
        };
        let end = ending();
        tokio::spawn(async move { estive_agent::run_with(config, parts, end).await.unwrap() });

        let config = OriginConfig {
            directories: Vec::new(),
            listen: doors.addresses[2],
            credentials: credentials[2].clone(),
            besides: Some(axum::Router::new()),
        };
        let end = ending();
        tokio::spawn(async move { serve_origin(config, |_, _| (), end).await.unwrap() });

        let listener = Listener::bind(Listen::Tls {
            address: doors.addresses[3],
            credentials: Credentials::load(&credentials[3]).unwrap(),
        });
        let volumes = estive_volumes::router(Arc::new(SimulatedVolumes::default()));
        tokio::spawn(listener.await.unwrap().serve(volumes, ending()));

        let config = CacheConfig {
            listen: Some(doors.addresses[4]),
            ..CacheConfig::new(place("cache"), credentials[4].clone())
        };
        let end = ending();
        tokio::spawn(async move { serve_cache(config, |_| (), end).await.unwrap() });
        doors
    }

    fn clients(&self, credentials: &Credentials) -> Vec<Client> {
        let client = |address: &SocketAddr| {
            let endpoint = Endpoint::parse(&format!("https://{address}")).unwrap();
            Client::new(endpoint, Some(credentials)).unwrap()
        };
        self.addresses.iter().map(client).collect()
    }
}

/// Whatever is answered: it is answered, and not that it is revoked.
async fn is_let_in(client: &Client) -> bool {
    let asked: Result<Value, _> = client.get_json("/about", BOUND).await;
    match asked {
        Ok(_) => true,
        Err(error) if error.is_not_found() => true,
        Err(error) => error
            .problem()
            .is_some_and(|problem| !problem.error.to_lowercase().contains("revoked")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_let_in_at_no_door() {
    let world = World::new(1).await;
    let doors = Doors::open(&world).await;
    let of = |role, name| Credentials::load(doors.credentials(role, name)).unwrap();
    let (stolen, other) = (of(Role::Agent, "stolen"), of(Role::Agent, "other"));
    // Each keeps its connection.
    let (of_stolen, of_other) = (doors.clients(&stolen), doors.clients(&other));
    for (name, client) in DOORS.iter().zip(&of_stolen) {
        until(name, async || is_let_in(client).await).await;
    }
    for client in &of_other {
        assert!(is_let_in(client).await);
    }
    let revoke = |name: &str| doors.authority.revoke(&[name.to_owned()]).unwrap();
    assert_eq!(revoke("agent:stolen").len(), 1);
    // Where there is no list, it is as before.
    assert!(is_let_in(&of_stolen[0]).await);
    let put = |door: &str| {
        let place = doors.home.path().join("credentials").join(door);
        doors.authority.put_list(&place).unwrap();
    };
    for door in DOORS {
        put(door);
    }
    let anew = doors.clients(&stolen);
    for (at, name) in DOORS.iter().enumerate() {
        assert!(
            !is_let_in(&of_stolen[at]).await,
            "{name}, by an open connection"
        );
        assert!(!is_let_in(&anew[at]).await, "{name}");
        assert!(is_let_in(&of_other[at]).await, "{name}, another");
    }
    // A certificate of the same name is another.
    let place = doors.home.path().join("again");
    let here = ["127.0.0.1".parse().unwrap()];
    let day = Duration::from_secs(86_400);
    let issued = doors.authority.issue(Role::Agent, "stolen", &here, day);
    issued.unwrap().write_to(&place).unwrap();
    for client in doors.clients(&Credentials::load(&place).unwrap()) {
        assert!(is_let_in(&client).await);
    }
    // What is damaged, older, or gone takes nothing back.
    let list = |door: &str| {
        doors
            .home
            .path()
            .join("credentials")
            .join(door)
            .join("ca-crl.pem")
    };
    let first = std::fs::read(list("manager")).unwrap();
    assert_eq!(revoke("agent:other").len(), 1);
    put("manager");
    assert!(!is_let_in(&of_other[0]).await);
    assert!(is_let_in(&of_other[1]).await, "who has no newer list");
    for content in [&b"-----BEGIN X509 CRL-----"[..], &first] {
        std::fs::write(list("manager"), content).unwrap();
        assert!(!is_let_in(&of_other[0]).await && !is_let_in(&anew[0]).await);
    }
    std::fs::remove_file(list("manager")).unwrap();
    assert!(!is_let_in(&of_other[0]).await && !is_let_in(&anew[0]).await);
    // To a server that is revoked nobody speaks.
    assert_eq!(revoke("manager:manager").len(), 1);
    let user = doors.credentials(Role::User, "anna");
    let ours = Credentials::load(&user).unwrap();
    assert!(!is_let_in(&doors.clients(&ours)[0]).await);
    assert!(is_let_in(&doors.clients(&ours)[1]).await);
    // A damaged list is found out when a program starts.
    std::fs::write(user.join("ca-crl.pem"), "x").unwrap();
    assert!(Credentials::load(&user).is_err());
    doors.ending.cancel();
    world.stop().await;
}

//! From a clone's side of a host to a reference, by the real server over real TLS: through cuts, restarts, and past
//! whoever may not.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use estive_api::authority::Authority;
use estive_api::server::{Listen, Listener};
use estive_api::wire::{
    CacheDirectory, DoorAbout, LiveNote, LiveReader, LiveReaders, live_readers_path, write_note,
};
use estive_api::{Client, ClientError, Credentials, Endpoint, Role};
use estive_live::{Memory, Offer, Reserved, forward, router};
use estive_model::HostName;
use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Bed {
    home: tempfile::TempDir,
    authority: Authority,
}

impl Bed {
    fn new() -> Bed {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
        fs::create_dir_all(home.path().join("root/etc")).unwrap();
        fs::create_dir_all(home.path().join("shared")).unwrap();
        fs::create_dir_all(home.path().join("state")).unwrap();
        fs::write(home.path().join("root/etc/file"), "of the reference").unwrap();
        Bed { home, authority }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn credentials(&self, role: Role, name: &str) -> Credentials {
        let place = self.path(&format!("credentials-{name}"));
        if !place.exists() {
            let day = Duration::from_secs(86_400);
            let here = ["127.0.0.1".parse().unwrap()];
            let issued = self.authority.issue(role, name, &here, day).unwrap();
            issued.write_to(&place).unwrap();
        }
        Credentials::load(place).unwrap()
    }

    /// The reference's side, on this port or any.
    async fn reference(&self, port: u16) -> (u16, CancellationToken) {
        self.reference_for(port, &[]).await
    }

    /// The same, for some hosts alone.
    async fn reference_for(&self, port: u16, reserved: &[&str]) -> (u16, CancellationToken) {
        let reserved = Reserved::read(reserved.iter().copied()).unwrap();
        let offers = vec![
            Offer::live(&format!("demo={}", self.path("root").display())).unwrap(),
            Offer::shared(&format!(
                "demo:/home={},root=kept",
                self.path("shared").display()
            ))
            .unwrap(),
        ];
        let routes = router(offers, reserved, Memory::of(0), &self.path("state")).unwrap();
        let listen = Listen::Tls {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            credentials: self.credentials(Role::Storage, "st"),
        };
        let listener = Listener::bind(listen).await.unwrap();
        let Endpoint::Tls { port, .. } = listener.endpoint() else {
            unreachable!()
        };
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(routes, stop.clone()));
        // The clones of all tests here.
        let readers = ["h1", "h2"].map(|host| self.reader(host));
        self.say(
            port,
            LiveReaders {
                readers: readers.into(),
                gone: BTreeSet::new(),
            },
        )
        .await;
        (port, stop)
    }

    fn reader(&self, host: &str) -> LiveReader {
        LiveReader {
            clone: HERE,
            host: HostName::new(host).unwrap(),
        }
    }

    /// As a manager does it.
    async fn say(&self, port: u16, said: LiveReaders) {
        let told = self.try_say(port, Role::Manager, "mg", said).await;
        told.unwrap();
    }

    async fn try_say(
        &self,
        port: u16,
        role: Role,
        name: &str,
        said: LiveReaders,
    ) -> Result<(), ClientError> {
        let endpoint = Endpoint::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        let client = Client::new(endpoint, Some(&self.credentials(role, name))).unwrap();
        let path = live_readers_path("demo");
        client.put_json(&path, &said, PATIENCE).await
    }

    /// The host's side; where clones come to.
    async fn host(&self, origin: u16, clones: Vec<IpAddr>) -> SocketAddr {
        let directory = CacheDirectory(self.path("cache"));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = free.local_addr().unwrap();
        drop(free);
        self.note(listen, origin, clones);
        let credentials = self.credentials(Role::Agent, "h1");
        let (doors, _) = watch::channel(Vec::new());
        tokio::spawn(async move {
            forward(
                &directory,
                credentials,
                doors,
                Memory::of(0),
                CancellationToken::new(),
            )
            .await
            .unwrap();
        });
        listen
    }

    fn note(&self, listen: SocketAddr, origin: u16, clones: Vec<IpAddr>) {
        let directory = CacheDirectory(self.path("cache")).live();
        fs::create_dir_all(&directory).unwrap();
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stays = |clone: &IpAddr| path.ends_with(format!("{clone}.json"));
            if !clones.iter().any(stays) {
                fs::remove_file(path).unwrap();
            }
        }
        for clone in clones {
            self.note_as(&clone.to_string(), "demo", listen, origin, clone);
        }
    }

    fn note_as(&self, name: &str, reference: &str, listen: SocketAddr, origin: u16, clone: IpAddr) {
        let origin = Endpoint::parse(&format!("https://127.0.0.1:{origin}")).unwrap();
        let note = LiveNote {
            reference: reference.to_owned(),
            listen,
            origins: vec![origin],
            clone,
        };
        let directory = CacheDirectory(self.path("cache")).live();
        write_note(&directory.join(format!("{name}.json")), &note).unwrap();
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..500 {
        if let Ok(stream) = TcpStream::connect(address).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody listens on {address}");
}

fn root() -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix::default())
}

async fn mounted(address: SocketAddr, export: &str) -> (Nfs3Client<TokioIo<TcpStream>>, nfs_fh3) {
    let stream = TokioIo::new(connect(address).await);
    let mut mount = MountClient::new_with_auth(stream, root(), opaque_auth::default());
    let path = dirpath(Opaque::owned(export.as_bytes().to_vec()));
    let data = mount.mnt(path).await.unwrap().fhandle.0;
    let stream = TokioIo::new(connect(address).await);
    let nfs = Nfs3Client::new_with_auth(stream, root(), opaque_auth::default());
    (nfs, nfs_fh3 { data })
}

fn place<'a>(dir: &nfs_fh3, name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 {
        dir: dir.clone(),
        name: name.into(),
    }
}

async fn find(nfs: &mut Nfs3Client<TokioIo<TcpStream>>, root: &nfs_fh3, path: &str) -> nfs_fh3 {
    let mut handle = root.clone();
    for name in path.split('/') {
        let what = place(&handle, name.as_bytes());
        handle = nfs
            .lookup(&LOOKUP3args { what })
            .await
            .unwrap()
            .unwrap()
            .object;
    }
    handle
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clones_connection_outlives_its_links_and_the_server() {
    let bed = Bed::new();
    let (origin, stop) = bed.reference(0).await;
    // A link that can be cut.
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire_port = wire.local_addr().unwrap().port();
    let cut = Arc::new(tokio::sync::Notify::new());
    let is_mute = Arc::new(AtomicBool::new(false));
    let (cutting, mute) = (Arc::clone(&cut), Arc::clone(&is_mute));
    tokio::spawn(async move {
        loop {
            let (mut near, _) = wire.accept().await.unwrap();
            if mute.load(Ordering::SeqCst) {
                continue;
            }
            let cut = Arc::clone(&cutting);
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", origin)).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    let address = bed.host(wire_port, vec![HERE]).await;
    let (mut nfs, handle) = mounted(address, "/").await;
    let file = find(&mut nfs, &handle, "etc/file").await;
    let read = READ3args {
        file,
        offset: 0,
        count: 100,
    };
    for _ in 0..20 {
        let (result, ()) = tokio::join!(nfs.read(&read), async { cut.notify_waiters() });
        assert_eq!(result.unwrap().unwrap().data.as_ref(), b"of the reference");
    }
    // No link at all for a while, and another server at its end.
    is_mute.store(true, Ordering::SeqCst);
    cut.notify_waiters();
    stop.cancel();
    let again = async {
        let mut bound = None;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if TcpListener::bind(("127.0.0.1", origin)).await.is_ok() {
                bound = Some(bed.reference(origin).await);
                break;
            }
        }
        is_mute.store(false, Ordering::SeqCst);
        bound.expect("the first server has gone")
    };
    let (result, _second) = tokio::join!(tokio::time::timeout(PATIENCE, nfs.read(&read)), again);
    assert_eq!(
        result.unwrap().unwrap().unwrap().data.as_ref(),
        b"of the reference"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clone_writes_over_links_that_are_cut_is_written_once() {
    let bed = Bed::new();
    let (origin, _stop) = bed.reference(0).await;
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire_port = wire.local_addr().unwrap().port();
    // Each link is cut as soon as the server has said something on it after a while: answers are lost.
    tokio::spawn(async move {
        let mut number = 0_u64;
        loop {
            let (mut near, _) = wire.accept().await.unwrap();
            number += 1;
            let most = 3000 + (number * 977) % 4000;
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", origin)).await.unwrap();
                let (mut from_far, mut to_far) = far.split();
                let (mut from_near, mut to_near) = near.split();
                let mut limited = (&mut from_far).take(most);
                tokio::select! {
                    _ = tokio::io::copy(&mut limited, &mut to_near) => {}
                    _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
                }
            });
        }
    });
    let address = bed.host(wire_port, vec![HERE]).await;
    let (mut nfs, home) = mounted(address, "/home").await;
    for number in 0..60 {
        let name = format!("file-{number}");
        let directory = MKDIR3args {
            where_: place(&home, name.as_bytes()),
            attributes: sattr3::default(),
        };
        let made = tokio::time::timeout(PATIENCE, nfs.mkdir(&directory));
        let made = made.await.unwrap().unwrap();
        // Done twice, it would be told that the name exists.
        made.unwrap();
    }
    assert_eq!(fs::read_dir(bed.path("shared")).unwrap().count(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_clones_of_the_note_and_only_hosts_are_let_in() {
    let bed = Bed::new();
    let (origin, _stop) = bed.reference(0).await;
    let other: IpAddr = "127.0.0.7".parse().unwrap();
    let address = bed.host(origin, vec![other]).await;
    let closed = |address| async move {
        let mut stream = connect(address).await;
        let mut byte = [0];
        let read = stream.read(&mut byte);
        matches!(
            tokio::time::timeout(PATIENCE, read).await,
            Ok(Ok(0) | Err(_))
        )
    };
    assert!(closed(address).await);
    // Named, it is let in at once; no longer named, it is cut.
    bed.note(address, origin, vec![other, HERE]);
    let (mut nfs, handle) = mounted(address, "/").await;
    find(&mut nfs, &handle, "etc/file").await;
    let mut open = connect(address).await;
    // Answered, so it was let in.
    let null = [0x8000_0028_u32, 1, 0, 2, 100_003, 3, 0, 0, 0, 0, 0].map(u32::to_be_bytes);
    open.write_all(&null.concat()).await.unwrap();
    open.read_exact(&mut [0; 28]).await.unwrap();
    bed.note(address, origin, vec![other]);
    let read = tokio::time::timeout(PATIENCE, open.read(&mut [0])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");

    // Of two that claim one address for two references neither is let in.
    bed.note(address, origin, vec![other, HERE]);
    bed.note_as("another", "private", address, origin, HERE);
    assert!(closed(address).await);

    // A person, a manager, and somebody of another authority are no hosts.
    let ask_at = |port: u16, credentials: Credentials| {
        let endpoint = Endpoint::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        let client = Client::new(endpoint, Some(&credentials)).unwrap();
        async move {
            let path = "/v1/live/demo?clone=127.0.0.1";
            client.upgrade(path, Duration::from_secs(10)).await.is_ok()
        }
    };
    let ask = |credentials| ask_at(origin, credentials);
    assert!(ask(bed.credentials(Role::Agent, "h2")).await);
    // A host that no manager has named for that clone.
    assert!(!ask(bed.credentials(Role::Agent, "h4")).await);
    assert!(!ask(bed.credentials(Role::User, "anna")).await);
    assert!(!ask(bed.credentials(Role::Manager, "mg")).await);
    let stranger = Bed::new();
    assert!(!ask(stranger.credentials(Role::Agent, "h1")).await);
    assert!(Path::new(&bed.path("state/handles.key")).exists());

    // What is for some hosts alone is given to no other.
    let (narrow, _stop) = bed.reference_for(0, &["demo=h1,h3"]).await;
    assert!(ask_at(narrow, bed.credentials(Role::Agent, "h1")).await);
    assert!(!ask_at(narrow, bed.credentials(Role::Agent, "h2")).await);
    for wrong in ["demo", "demo=", "=h1", "demo=h1,", "demo=../h", "a/b=h1"] {
        assert!(Reserved::read([wrong].into_iter()).is_err(), "{wrong}");
    }
    assert!(Reserved::read(["demo=h1", "demo=h2"].into_iter()).is_err());
    // A name that is written wrong would leave what is meant open to all.
    let offers = vec![Offer::live(&format!("demo={}", bed.path("root").display())).unwrap()];
    let other = Reserved::read(["dmeo=h1"].into_iter()).unwrap();
    assert!(router(offers, other, Memory::of(0), &bed.path("state")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_is_the_managers_word_and_kept() {
    let bed = Bed::new();
    let (origin, stop) = bed.reference(0).await;
    let gone = |host: &str| LiveReaders {
        readers: BTreeSet::new(),
        gone: [bed.reader(host)].into(),
    };
    // No host gives itself, or another, the right; nor does a person.
    for (role, name) in [(Role::Agent, "h4"), (Role::User, "anna")] {
        let readers = LiveReaders {
            readers: [bed.reader("h4")].into(),
            gone: BTreeSet::new(),
        };
        assert!(bed.try_say(origin, role, name, readers).await.is_err());
        assert!(bed.try_say(origin, role, name, gone("h1")).await.is_err());
    }
    let address = bed.host(origin, vec![HERE]).await;
    let (mut nfs, handle) = mounted(address, "/").await;
    find(&mut nfs, &handle, "etc/file").await;
    // Taken away, what is open is cut, and nothing is read by another connection either.
    bed.say(origin, gone("h1")).await;
    let what = place(&handle, b"etc");
    let etc = LOOKUP3args { what };
    let read = nfs.lookup(&etc);
    let read = tokio::time::timeout(Duration::from_secs(3), read).await;
    assert!(read.is_err(), "{read:?}");
    let again = LiveReaders {
        readers: [bed.reader("h1")].into(),
        gone: BTreeSet::new(),
    };
    bed.say(origin, again).await;
    let (mut nfs, handle) = mounted(address, "/").await;
    find(&mut nfs, &handle, "etc/file").await;
    // Over a restart of the server, without a manager.
    stop.cancel();
    let offers = vec![Offer::live(&format!("demo={}", bed.path("root").display())).unwrap()];
    let memory = Memory::of(0);
    let routes = router(offers, Reserved::default(), memory, &bed.path("state")).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let credentials = bed.credentials(Role::Storage, "st");
    let listener = Listener::bind(Listen::Tls {
        address,
        credentials,
    });
    let listener = listener.await.unwrap();
    let endpoint = listener.endpoint();
    tokio::spawn(listener.serve(routes, CancellationToken::new()));
    for (host, may) in [("h1", true), ("h2", true), ("h4", false)] {
        let client = Client::new(endpoint.clone(), Some(&bed.credentials(Role::Agent, host)));
        let path = "/v1/live/demo?clone=127.0.0.1";
        let asked = client.unwrap().upgrade(path, PATIENCE).await;
        assert_eq!(asked.is_ok(), may, "{host}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_listened_on_when_it_is_free() {
    let bed = Bed::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    bed.note(listen, 9, vec![HERE]);
    let (doors, mut told) = watch::channel(Vec::new());
    let directory = CacheDirectory(bed.path("cache"));
    let credentials = bed.credentials(Role::Agent, "h1");
    let stop = CancellationToken::new();
    let ending = stop.clone();
    let forwarding = tokio::spawn(async move {
        forward(&directory, credentials, doors, Memory::of(0), ending).await
    });
    let wrong = |doors: &Vec<DoorAbout>| doors.iter().any(|door| door.wrong.is_some());
    let waiting = tokio::time::timeout(PATIENCE, told.wait_for(wrong));
    assert_eq!(waiting.await.unwrap().unwrap()[0].listen, listen);
    drop(taken);
    let open = |doors: &Vec<DoorAbout>| doors.iter().any(|door| door.wrong.is_none());
    let waiting = tokio::time::timeout(PATIENCE, told.wait_for(open));
    drop(waiting.await.unwrap().unwrap());
    connect(listen).await;
    stop.cancel();
    forwarding.await.unwrap().unwrap();
}

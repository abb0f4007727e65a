//! A reference that has another kernel, or root, than the clones that are up: they go on, are told apart, and take what
//! is new once they are stopped. Files that nothing needs any more go.

mod common;

use common::*;
use estive_api::authority::Authority;
use estive_api::domain_xml::{DiskSource, DomainXml};
use estive_api::server::{Listen, Listener};
use estive_api::wire::*;
use estive_api::{Credentials, Endpoint, ProblemKind, Role};
use estive_cache::{OriginConfig, serve_origin};
use estive_chunks::{Manifest, SignedManifest};
use estive_manager::VolumesConfig;
use estive_model::DomainState;
use estive_volumes::SimulatedVolumes;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const TWO: &str = "{memory_mib: 128, hosts: {\"clone[01-02]\": }}";

async fn is_up(world: &World, herd: &str) -> Vec<String> {
    let (done, lines) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let warning = |line| match line {
        UpLine::Warning { text } => Some(text),
        _ => None,
    };
    lines.into_iter().filter_map(warning).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_that_run_go_on_and_take_what_is_new_once_they_are_stopped() {
    let mut world = World::new(3).await;
    assert_eq!(is_up(&world, TWO).await, [""; 0]);
    let before = world.ls().await;
    assert!(
        before
            .iter()
            .all(|clone| clone.older.is_empty() && clone.reference == "default")
    );
    assert_eq!(is_up(&world, TWO).await, [""; 0]);

    world.stop_manager().await;
    std::fs::write(world.home.path().join("kernel"), "another").unwrap();
    world.start_manager().await;
    let older = |clones: &[HerdDomain]| -> Vec<Vec<String>> {
        clones.iter().map(|clone| clone.older.clone()).collect()
    };
    let kernel = || vec!["kernel".to_owned()];
    assert_eq!(older(&world.ls().await), [kernel(), kernel()]);
    let warnings = is_up(&world, TWO).await;
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    let words = "clone01, clone02: on an older kernel of the reference default";
    assert!(warning.starts_with(words), "{warning}");
    let generations = |clones: &[HerdDomain]| -> Vec<u64> {
        clones.iter().map(|clone| clone.generation.0).collect()
    };
    assert_eq!(generations(&world.ls().await), generations(&before));

    // It moves to a host that has never seen the kernel that it runs with.
    let source = world.show("clone01").await.host;
    assert_ne!(source, host(3));
    let (moved, _) = world.migrate("clone01", Some(3)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    assert_eq!(older(&world.ls().await), [kernel(), kernel()]);

    // A start is of what its reference has by now.
    for wanted in [
        DomainState::Stopped,
        DomainState::Running,
        DomainState::Stopped,
    ] {
        world.order("clone02", wanted).await.unwrap();
    }
    assert_eq!(world.show("clone02").await.older, [""; 0]);
    let warnings = is_up(&world, TWO).await;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("clone01: "),
        "{warnings:?}"
    );
    assert_eq!(older(&world.ls().await), [kernel(), vec![]]);
    let path = "/domain/clone02/boots";
    let boots: Boots = world.client().get_json(path, BOUND).await.unwrap();
    assert_eq!(boots.last().unwrap().number, 3, "its boots are kept");
    // It starts with what is new: its host was sent that.
    let holder = world.show("clone02").await.host;
    let number = if holder == host(1) { 1 } else { 2 };
    let xml = world
        .agent(number)
        .get_bytes("/domain/clone02/config.xml", 1 << 20, BOUND)
        .await
        .unwrap();
    let xml = estive_api::domain_xml::DomainXml::parse(std::str::from_utf8(&xml).unwrap());
    let sha256 = "sha256:ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5";
    assert_eq!(xml.unwrap().kernel.to_string(), sha256);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_ram_file_systems_that_nothing_needs_go_and_not_while_a_herd_comes_up() {
    let mut world = World::new(1).await;
    world.stop_manager().await;
    let directory = world.home.path().join("manager/initramfs");
    std::fs::create_dir_all(&directory).unwrap();
    let left = |name: &str| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, "left").unwrap();
        path
    };
    let paths = [left("ab12"), left(".tmpKilled")];
    world.start_manager().await;
    assert!(paths.iter().all(|path| !path.exists()));

    let other = "{memory_mib: 64, network: 10.78.0.0/24, hosts: {b: }}";
    let (done, _) = world.up("other", other).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    world.deaf.lock().unwrap().insert("a".to_owned());
    let herd = "{memory_mib: 64, hosts: {a: }}";
    let under_way = async {
        until("it is awaited", async || world.asked("a") > 0).await;
        let path = left("ab12");
        let (down, _) = world.down("other").await;
        assert!(matches!(down, DownLine::Done), "{down:?}");
        assert!(path.exists());
        world.deaf.lock().unwrap().clear();
        path
    };
    let (_, path) = tokio::join!(is_up(&world, herd), under_way);
    assert!(!path.exists());
    let path = left("ab12");
    world.down("d").await;
    assert!(!path.exists());
    world.stop().await;
}

/// Sealed images of an authority, and who serves them, as `estive storage` does.
struct Shop {
    home: tempfile::TempDir,
    authority: Authority,
    serving: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Shop {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
        std::fs::create_dir(home.path().join("images")).unwrap();
        Self {
            home,
            authority,
            serving: None,
        }
    }

    fn credentials(&self, role: Role, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        let addresses = ["127.0.0.1".parse().unwrap()];
        if !path.exists() {
            let lifetime = std::time::Duration::from_secs(86_400);
            let issued = self.authority.issue(role, name, &addresses, lifetime);
            issued.unwrap().write_to(&path).unwrap();
        }
        path
    }

    fn image(&self, name: &str) -> PathBuf {
        self.home.path().join("images").join(name)
    }

    /// As `estive reseal` does it: image and manifest, then the name.
    fn seal(&self, content: &str, signed: bool) -> String {
        let manifest = Manifest::read(&mut content.as_bytes()).unwrap();
        let hex = manifest.name().hex().to_owned();
        let manifest = match signed {
            true => self.authority.sign_root(manifest).unwrap(),
            false => SignedManifest::unsigned(manifest),
        };
        std::fs::write(self.image(&format!("{hex}.erofs")), content).unwrap();
        self.put(&format!("{hex}.manifest"), &manifest.encode().unwrap());
        let aside = self.image(".new");
        symlink(format!("{hex}.manifest"), &aside).unwrap();
        std::fs::rename(aside, self.image("web.manifest")).unwrap();
        format!("sha256:{hex}")
    }

    fn put(&self, name: &str, content: &[u8]) {
        let aside = self.image(".new");
        std::fs::write(&aside, content).unwrap();
        std::fs::rename(aside, self.image(name)).unwrap();
    }

    async fn serve(&mut self, listen: &str) -> Endpoint {
        let config = OriginConfig {
            directories: vec![self.home.path().join("images")],
            listen: listen.parse().unwrap(),
            credentials: self.credentials(Role::Storage, "storage"),
            besides: None,
        };
        let (told, ready) = tokio::sync::oneshot::channel();
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        let task = tokio::spawn(async move {
            let ready = |endpoint, _| told.send(endpoint).unwrap();
            serve_origin(config, ready, ending).await.unwrap();
        });
        self.serving = Some((shutdown, task));
        ready.await.unwrap().parse().unwrap()
    }

    async fn end(&mut self) {
        let (shutdown, task) = self.serving.take().unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }
}

/// The root that a clone's host was told of.
async fn root_of(world: &World, clone: &str) -> String {
    let holder = world.show(clone).await.host;
    let number = (1..=3).find(|number| host(*number) == holder).unwrap();
    let path = format!("/domain/{clone}/config.xml");
    let xml = world.agent(number).get_bytes(&path, 1 << 20, BOUND).await;
    let xml = DomainXml::parse(std::str::from_utf8(&xml.unwrap()).unwrap()).unwrap();
    match xml.root {
        DiskSource::Root(root) => root.name.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_sealed_anew_is_taken_at_the_next_start_without_a_word_to_the_manager() {
    let mut shop = Shop::new();
    let first = shop.seal("the first", true);
    let mut world = World::new(3).await;
    world.stop_manager().await;
    world.origin = shop.serve("127.0.0.1:0").await;
    world.root = "web".to_owned();
    world.credentials = Some(shop.credentials(Role::Manager, "manager"));
    world.start_manager().await;
    assert_eq!(is_up(&world, TWO).await, [""; 0]);
    assert_eq!(root_of(&world, "clone01").await, first);

    // What nobody has signed, and what is half there, changes nothing, and is said.
    let second = shop.seal("the second", false);
    let stays = async |words: &str| {
        let warnings = is_up(&world, TWO).await;
        assert!(
            warnings.len() == 1 && warnings[0].contains(words) && warnings[0].contains("stays"),
            "{warnings:?}"
        );
        world.order("clone02", DomainState::Stopped).await.unwrap();
        world.order("clone02", DomainState::Running).await.unwrap();
        assert_eq!(root_of(&world, "clone02").await, first);
        assert_eq!(world.show("clone02").await.older, [""; 0]);
    };
    stays("has not signed").await;
    shop.put("web.manifest", b"ESTIVE-M");
    stays("web.manifest").await;
    shop.put("web.manifest", b"");
    std::fs::remove_file(shop.image("web.manifest")).unwrap();
    stays("none of its origins").await;

    // Running clones are left, and are seen to be older, by a manager that nobody has told anything.
    assert_eq!(shop.seal("the second", true), second);
    let root = || vec!["root".to_owned()];
    until("the manager sees the new root", async || {
        world.show("clone01").await.older == root()
    })
    .await;
    let warnings = is_up(&world, TWO).await;
    let words = "clone01, clone02: on an older root of the reference default";
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(words),
        "{warnings:?}"
    );
    assert_eq!(root_of(&world, "clone01").await, first);
    let (moved, _) = world.migrate("clone01", Some(3)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    assert_eq!(root_of(&world, "clone01").await, first);
    assert_eq!(world.show("clone01").await.older, root());
    for wanted in [DomainState::Stopped, DomainState::Running] {
        world.order("clone02", wanted).await.unwrap();
    }
    assert_eq!(root_of(&world, "clone02").await, second);
    assert_eq!(world.show("clone02").await.older, [""; 0]);

    // Whoever is asked which roots are in use names both, the old one by the clone that runs on it.
    let used: RootsInUse = world.client().get_json("/roots", BOUND).await.unwrap();
    let users = |root: &str| {
        let mut roots = used.roots.iter();
        let used = roots.find(|used| used.root == root).expect("it is used");
        used.users.clone()
    };
    assert_eq!(users(&first), ["clone01 on host3"]);
    assert!(users(&second).contains(&"the manager's reference default".to_owned()));

    // Nobody can be asked: what is known stays; a manager that knows nothing yet makes nothing.
    let listened = world.origin.to_string();
    shop.end().await;
    let warnings = is_up(&world, TWO).await;
    assert!(
        warnings.iter().any(|said| said.contains("asking")),
        "{warnings:?}"
    );
    world.stop_manager().await;
    world.start_manager().await;
    let (failed, _) = world.up("d", TWO).await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(problem.kind, ProblemKind::Unreachable, "{problem:?}");
    assert_eq!(world.ls().await.len(), 2);
    shop.serve(listened.trim_start_matches("https://")).await;
    is_up(&world, TWO).await;
    world.stop().await;
    shop.end().await;
}

/// Stands before an agent: once it was sent a clone anew, who asked hears nothing more of that.
async fn swallow_what_is_defined(socket: PathBuf) -> tokio::task::JoinHandle<()> {
    let behind = socket.with_extension("behind");
    std::fs::rename(&socket, &behind).unwrap();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let behind = behind.clone();
            tokio::spawn(async move {
                let far = tokio::net::UnixStream::connect(&behind).await.unwrap();
                let (mut from_near, mut to_near) = near.into_split();
                let (mut from_far, mut to_far) = far.into_split();
                let (told, mut defined) = tokio::sync::watch::channel(false);
                let asking = async {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = from_near.read(&mut bytes).await {
                        if bytes.starts_with(b"PUT /domain/clone01?generation") {
                            told.send(true).unwrap();
                        }
                        to_far.write_all(&bytes[..read]).await.unwrap();
                    }
                };
                let answering = async {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = from_far.read(&mut bytes).await {
                        // What is answered was done.
                        if *defined.borrow_and_update() {
                            return;
                        }
                        if to_near.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = asking => {}
                    () = answering => {}
                }
            });
        }
    })
}

/// Nobody has heard that a clone's host has another root by now: that root is needed all the same, also for a manager that
/// was started since, until the clone was made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_a_host_was_sent_is_in_use_whoever_died_before_it_was_recorded() {
    let root = |byte: &str| format!("sha256:{}", byte.repeat(32));
    let mut world = World::new(1).await;
    is_up(&world, "{memory_mib: 128, hosts: {clone01: }}").await;
    world.order("clone01", DomainState::Stopped).await.unwrap();
    let sealed_anew = async |world: &mut World, root: &str| {
        world.stop_manager().await;
        world.root = root.to_owned();
        world.start_manager().await;
    };
    let users = async |world: &World, root: &str| -> Vec<String> {
        let used: RootsInUse = world.client().get_json("/roots", BOUND).await.unwrap();
        let used = used.roots.into_iter().find(|used| used.root == root);
        used.map_or(Vec::new(), |used| used.users)
    };
    world.stop_manager().await;
    let socket = world.home.path().join("host1.sock");
    let between = swallow_what_is_defined(socket.clone()).await;
    world.root = root("1e");
    world.start_manager().await;
    let silent = world.order("clone01", DomainState::Running).await;
    assert!(silent.is_err(), "{silent:?}");
    between.abort();
    std::fs::rename(socket.with_extension("behind"), &socket).unwrap();
    assert_eq!(root_of(&world, "clone01").await, root("1e"), "it was done");
    sealed_anew(&mut world, &root("2d")).await;
    for used in [root("0f"), root("1e")] {
        let users = users(&world, &used).await;
        assert!(users[0].starts_with("clone01 "), "{used}: {users:?}");
    }
    // Whatever it has: it is made of what its reference has now, and the others are nobody's.
    world.order("clone01", DomainState::Running).await.unwrap();
    assert_eq!(root_of(&world, "clone01").await, root("2d"));
    for free in [root("0f"), root("1e")] {
        assert_eq!(users(&world, &free).await, [""; 0]);
    }
    // Back to what is recorded, while its host has another.
    world.order("clone01", DomainState::Stopped).await.unwrap();
    world.stop_manager().await;
    let between = swallow_what_is_defined(socket.clone()).await;
    world.root = root("1e");
    world.start_manager().await;
    let silent = world.order("clone01", DomainState::Running).await;
    assert!(silent.is_err(), "{silent:?}");
    between.abort();
    std::fs::rename(socket.with_extension("behind"), &socket).unwrap();
    sealed_anew(&mut world, &root("2d")).await;
    world.order("clone01", DomainState::Running).await.unwrap();
    assert_eq!(root_of(&world, "clone01").await, root("2d"));
    assert_eq!(users(&world, &root("1e")).await, [""; 0]);
    world.stop().await;
}

/// What a stateful clone has written lies over the root of before, and its guest would refuse another: that is said
/// before anything is started, whether the clone is stopped or was taken down.
#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_clone_is_not_started_over_another_root_unless_somebody_says_so() {
    let shop = Shop::new();
    let credentials = Credentials::load(shop.credentials(Role::Storage, "storage")).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(Listen::Tls {
        address,
        credentials,
    });
    let listener = listener.await.unwrap();
    let storage = listener.endpoint().to_string();
    let (host, port) = storage["https://".len()..].split_once(':').unwrap();
    let serving = CancellationToken::new();
    let volumes = estive_volumes::router(Arc::new(SimulatedVolumes::default()));
    tokio::spawn(listener.serve(volumes, serving.clone()));

    let mut world = World::new(1).await;
    world.stop_manager().await;
    world.stop_agent(1).await;
    world.agent_credentials = Some(shop.credentials(Role::Agent, "host1"));
    world.credentials = Some(shop.credentials(Role::Manager, "manager"));
    world.volumes = Some(VolumesConfig {
        host: host.to_owned(),
        port: port.parse().unwrap(),
    });
    // Its reference can make initial RAM file systems then.
    world.live = true;
    world.start_agent(1).await;
    world.start_manager().await;
    let herd = "{memory_mib: 128, hosts: {keeps: {mode: stateful, volume: {size: 64M}}, other: }}";
    is_up(&world, herd).await;
    let old = root_of(&world, "keeps").await;
    let sealed_anew = async |world: &mut World, root: &str| {
        world.stop_manager().await;
        world.root = root.to_owned();
        world.start_manager().await;
    };
    let new = format!("sha256:{}", "1e".repeat(32));
    sealed_anew(&mut world, &new).await;

    // Those that run are left.
    let warnings = is_up(&world, herd).await;
    assert!(
        warnings[0].starts_with("keeps, other: on an older root"),
        "{warnings:?}"
    );
    let refused = async |world: &World| {
        let (failed, _) = world.up("d", herd).await;
        let UpLine::Failed { problem } = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(problem.kind, ProblemKind::Refused, "{problem:?}");
        assert!(
            problem.error.contains("what keeps keeps") && problem.error.contains(&old),
            "{problem:?}"
        );
        assert!(problem.advice.unwrap().contains("words: estive.over=any"));
    };
    for clone in ["keeps", "other"] {
        world.order(clone, DomainState::Stopped).await.unwrap();
    }
    refused(&world).await;
    assert_eq!(world.show("other").await.state, DomainState::Stopped);
    // A start alone goes on with what it has; one that keeps nothing takes the new.
    for clone in ["keeps", "other"] {
        world.order(clone, DomainState::Running).await.unwrap();
    }
    assert_eq!(root_of(&world, "keeps").await, old);
    assert_eq!(world.show("keeps").await.older, ["root"]);
    assert_eq!(root_of(&world, "other").await, new);
    assert_eq!(world.show("other").await.older, [""; 0]);

    // Its volume stays when it is taken down, and the root with it.
    world.down("d").await;
    refused(&world).await;
    assert_eq!(world.ls().await.len(), 0);
    let used: RootsInUse = world.client().get_json("/roots", BOUND).await.unwrap();
    let of_volume = used.roots.iter().find(|used| used.root == old).unwrap();
    assert_eq!(of_volume.users, ["the volume of keeps"]);
    let kept = world.root.clone();
    sealed_anew(&mut world, &old).await;
    is_up(&world, herd).await;
    assert_eq!(root_of(&world, "keeps").await, old);
    world.down("d").await;
    sealed_anew(&mut world, &kept).await;
    let said = herd.replace("mode: stateful", "mode: stateful, words: estive.over=any");
    is_up(&world, &said).await;
    assert_eq!(root_of(&world, "keeps").await, new);
    world.down("d").await;
    is_up(&world, herd).await;
    world.stop().await;
    serving.cancel();
}

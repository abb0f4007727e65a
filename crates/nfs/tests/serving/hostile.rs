//! Bytes that no client of good will sends: each is answered or refused, and the next client is served.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Client, service, writable};
use estive_nfs::{Key, Limits, Memory, Quota, Service};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Pack;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn call(program: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
    call_of(&auth_unix::default(), program, procedure, arguments)
}

fn call_of(caller: &auth_unix, program: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    for word in [1u32, 0, 2, program, 3, procedure] {
        word.pack(&mut record).unwrap();
    }
    let auth = opaque_auth::auth_unix(caller);
    auth.pack(&mut record).unwrap();
    opaque_auth::default().pack(&mut record).unwrap();
    record.extend(arguments);
    record
}

fn served() -> (tempfile::TempDir, Arc<Service>) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "kept").unwrap();
    let quota = Quota {
        bytes: Some(1 << 20),
        files: Some(100),
    };
    let export = writable("/", directory.path(), quota);
    let service = service(vec![export], &Key::fresh());
    (directory, service)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_arguments_of_any_procedure_are_answered(
        program in prop::sample::select(vec![100_003u32, 100_005, 100_227, 7]),
        procedure in 0..24u32,
        with_handle in any::<bool>(),
        which in any::<bool>(),
        arguments in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..120),
    ) {
        thread_local!(static SERVED: (tempfile::TempDir, Arc<Service>, [Vec<u8>; 2]) = {
            let (directory, service) = served();
            let mut client = Client::root_of(&service, "/");
            let handles = [client.root.clone(), client.find("file").unwrap()].map(|handle| {
                let mut bytes = Vec::new();
                handle.pack(&mut bytes).unwrap();
                bytes
            });
            (directory, service, handles)
        });
        SERVED.with(|(directory, service, handles)| {
            let mut bytes = match with_handle {
                true => handles[usize::from(which)].clone(),
                false => Vec::new(),
            };
            bytes.extend(&arguments);
            let reply = service.answer("fuzz", &call(program, procedure, &bytes)).unwrap();
            prop_assert!(reply.len().is_multiple_of(4) && reply.len() < 2 << 20);
            prop_assert!(directory.path().exists());
            Ok(())
        })?;
    }
}

/// What a thread is to the kernel.
fn identity() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let kept = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:", "Umask:"];
    let lines = status.lines();
    lines
        .filter(|line| kept.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect()
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1000),
        Just(65534),
        Just(u32::MAX),
        any::<u32>()
    ]
}

proptest! {
    #[test]
    fn whoever_asked_the_thread_is_itself_again(
        program in prop::sample::select(vec![100_003u32, 100_227]),
        procedure in 1..22u32,
        uid in id(),
        gid in id(),
        gids in prop::collection::vec(id(), 0..18),
        rest in prop::collection::vec(prop_oneof![Just(0u8), Just(1)], 40..80),
    ) {
        let (_directory, service) = served();
        let root = Client::root_of(&service, "/").root;
        let mut arguments = Vec::new();
        crate::client::place(&root, b"name").pack(&mut arguments).unwrap();
        arguments.extend(rest);
        let caller = auth_unix { uid, gid, gids, ..auth_unix::default() };
        let before = identity();
        service.answer("fuzz", &call_of(&caller, program, procedure, &arguments));
        prop_assert_eq!(identity(), before);
    }
}

#[test]
fn lengths_of_the_largest_numbers_cost_nothing() {
    let (_directory, service) = served();
    let mut client = Client::root_of(&service, "/");
    let file = client.find("file").unwrap();
    let root = client.root.clone();
    let most = READ3args {
        file: file.clone(),
        offset: u64::MAX,
        count: u32::MAX,
    };
    assert_eq!(ask!(client, read, most).unwrap().count, 0);
    let list = READDIRPLUS3args {
        dir: root,
        cookie: u64::MAX,
        cookieverf: cookieverf3::default(),
        dircount: u32::MAX,
        maxcount: u32::MAX,
    };
    let listed = ask!(client, readdirplus, list).map(drop);
    assert_eq!(listed, Err(nfsstat3::NFS3ERR_BAD_COOKIE));
    let over = client.write(&file, u64::MAX - 1, b"data", stable_how::UNSTABLE);
    assert_eq!(over.map(drop), Err(nfsstat3::NFS3ERR_FBIG));
    let sparse = client.set(&file, crate::client::size(u64::MAX));
    assert_eq!(sparse, Err(nfsstat3::NFS3ERR_FBIG));
}

/// What a stream of these bytes is answered until it is closed.
async fn answer(service: &Arc<Service>, bytes: &[u8]) -> Vec<u8> {
    let limits = Limits {
        patience: Duration::from_millis(50),
        ..Limits::default()
    };
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(estive_nfs::serve(
        Arc::clone(service),
        Memory::of(0).share("hostile"),
        theirs,
        limits,
    ));
    let (mut reading, mut writing) = tokio::io::split(ours);
    let write = async {
        // It may have been refused before its end.
        let _ = writing.write_all(bytes).await;
    };
    let mut answered = Vec::new();
    let read = reading.read_to_end(&mut answered);
    let (_, read) = tokio::join!(write, read);
    read.unwrap();
    let _ = serving.await.unwrap();
    answered
}

#[test]
fn streams_without_measure_are_closed_and_others_served() {
    let (_directory, service) = served();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let null = call(100_003, 0, &[]);
        let mut good = (null.len() as u32 | 1 << 31).to_be_bytes().to_vec();
        good.extend(&null);
        let torn = &good[..good.len() - 1];
        for bytes in [&[0xff; 64][..], &[0; 8192], b"GET / HTTP/1.1\r\n\r\n", torn] {
            assert_eq!(answer(&service, bytes).await, b"");
        }
        // A good call, then one that never ends: the first is answered.
        let answered = answer(&service, &[&good[..], torn].concat()).await;
        assert_eq!(answered.len(), 28);
        // Denied by its version of RPC, and by an identity that is none.
        let mut other = null.clone();
        other[11] = 3;
        let denied = service.answer("x", &other).unwrap();
        assert_eq!(denied[8..16], [0, 0, 0, 1, 0, 0, 0, 0]);
        let mut auth = null.clone();
        auth[27] = 6;
        let denied = service.answer("x", &auth).unwrap();
        assert_eq!(denied[8..16], [0, 0, 0, 1, 0, 0, 0, 1]);
        // A reply is no call.
        let mut reply = null;
        reply[7] = 1;
        assert_eq!(service.answer("x", &reply), None);
    });
    let mut client = Client::root_of(&service, "/");
    let file = client.find("file").unwrap();
    assert_eq!(client.read(&file).unwrap(), b"kept");
}

#[test]
fn what_waits_when_its_client_is_gone_is_not_done_later() {
    let (directory, service) = served();
    let client = Client::root_of(&service, "/");
    let mut arguments = Vec::new();
    MKDIR3args {
        where_: crate::client::place(&client.root, b"late"),
        attributes: crate::client::mode(0o755),
    }
    .pack(&mut arguments)
    .unwrap();
    let record = call(100_003, 9, &arguments);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv().unwrap());
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        let limits = Limits::default();
        let share = Memory::of(0).share("gone");
        let serving = estive_nfs::serve(Arc::clone(&service), share, theirs, limits);
        let head = (record.len() as u32 | 1 << 31).to_be_bytes();
        ours.write_all(&head).await.unwrap();
        ours.write_all(&record).await.unwrap();
        drop(ours);
        serving.await.unwrap();
        // It asks again elsewhere, and goes on; what it asked here must not come behind that.
        go.send(()).unwrap();
        busy.await.unwrap();
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    assert!(!directory.path().join("late").exists());
}

//! Who may do what to a directory that is written to: as the kernel has it for the caller, whoever was served before.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::client::{Client, mode, place, service, size, writable};
use crate::writing::{FREE, guarded, home, open};
use estive_nfs::Key;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Pack;

#[test]
fn callers_are_who_they_are() {
    let home = home();
    for (name, uid) in [("ada", 1000), ("bob", 1001)] {
        let path = home.path().join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let (service, mut root) = open(home.path(), FREE);
    let mut ada = Client::user(&service, "/home", 1000, &[1000]);
    let mut bob = Client::user(&service, "/home", 1001, &[1001]);
    let place = ada.find("ada").unwrap();
    let file = ada.create(&place, b"file", guarded(0o444)).unwrap();
    let meta = home.path().join("ada/file").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
    // The owner has it open to write, whatever its mode is.
    ada.write(&file, 0, b"mine", stable_how::FILE_SYNC).unwrap();
    let acces = Err(nfsstat3::NFS3ERR_ACCES);
    assert_eq!(bob.find("ada/file").map(drop), acces);
    assert_eq!(bob.create(&place, b"his", guarded(0o644)).map(drop), acces);
    // Whoever learnt the handle has the file's own rights, no more.
    assert_eq!(bob.read(&file).unwrap(), b"mine");
    assert_eq!(
        bob.write(&file, 0, b"x", stable_how::UNSTABLE).map(drop),
        acces
    );
    let perm = Err(nfsstat3::NFS3ERR_PERM);
    assert_eq!(bob.set(&file, mode(0o777)), perm);
    let give = sattr3 {
        uid: Nfs3Option::Some(1001),
        ..sattr3::default()
    };
    assert_eq!(ada.set(&file, give.clone()), perm);
    root.set(&file, give).unwrap();
    assert_eq!(home.path().join("ada/file").metadata().unwrap().uid(), 1001);
}

#[test]
fn whoever_may_write_a_file_may_open_it_to_write_it_anew() {
    let home = home();
    let path = home.path().join("shared");
    fs::write(&path, "what was there").unwrap();
    chown(&path, Some(1000), Some(100)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
    let (service, _) = open(home.path(), FREE);
    let mut bob = Client::user(&service, "/home", 1001, &[1001, 100]);
    let file = bob.find("shared").unwrap();
    // As Linux sends O_TRUNC.
    let anew = |mtime| sattr3 { mtime, ..size(0) };
    bob.set(&file, anew(set_mtime::SET_TO_SERVER_TIME)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    let told = set_mtime::SET_TO_CLIENT_TIME(nfstime3 {
        seconds: 1,
        nseconds: 0,
    });
    let perm = Err(nfsstat3::NFS3ERR_PERM);
    assert_eq!(bob.set(&file, anew(told)), perm);
    let mut carol = Client::user(&service, "/home", 1002, &[1002]);
    let acces = Err(nfsstat3::NFS3ERR_ACCES);
    let now = set_mtime::SET_TO_SERVER_TIME;
    assert_eq!(carol.set(&file, anew(now)), acces);
}

#[test]
fn what_others_change_loses_the_rights_of_its_owner() {
    let home = home();
    fs::set_permissions(home.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let at = |name: &str| home.path().join(name);
    for name in ["written", "cut", "given"] {
        fs::write(at(name), "#!/bin/sh").unwrap();
        chown(at(name), Some(1000), Some(1000)).unwrap();
        fs::set_permissions(at(name), PermissionsExt::from_mode(0o6777)).unwrap();
    }
    let (service, mut root) = open(home.path(), FREE);
    let mut bob = Client::user(&service, "/home", 1001, &[1001]);
    let bits = |name: &str| at(name).metadata().unwrap().mode() & 0o7777;
    let file = bob.find("written").unwrap();
    bob.write(&file, 0, b"x", stable_how::UNSTABLE).unwrap();
    assert_eq!(bits("written"), 0o777);
    let file = bob.find("cut").unwrap();
    bob.set(&file, size(1)).unwrap();
    assert_eq!(bits("cut"), 0o777);
    let file = root.find("given").unwrap();
    let give = sattr3 {
        uid: Nfs3Option::Some(0),
        ..sattr3::default()
    };
    root.set(&file, give).unwrap();
    assert_eq!(bits("given"), 0o777);
    // A sticky directory: what is another's stays.
    let directory = bob.root.clone();
    let perm = Err(nfsstat3::NFS3ERR_PERM);
    assert_eq!(bob.remove(&directory, b"written"), perm);
    let rename = RENAME3args {
        from: place(&directory, b"written"),
        to: place(&directory, b"taken"),
    };
    assert_eq!(ask!(bob, rename, rename).map(drop), perm);
    // Neither group nor owner of one's own choice.
    let file = bob.create(&directory, b"own", guarded(0o2755)).unwrap();
    let give = sattr3 {
        gid: Nfs3Option::Some(1000),
        ..sattr3::default()
    };
    assert_eq!(bob.set(&file, give), perm);
}

#[test]
fn a_thread_that_answers_has_its_own_umask_afterwards() {
    let home = home();
    let (service, mut client) = open(home.path(), FREE);
    let root = client.root.clone();
    let umask = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("Umask:"));
        line.unwrap().to_owned()
    };
    let mut record = Vec::new();
    for word in [1u32, 0, 2, PROGRAM, VERSION, 9] {
        word.pack(&mut record).unwrap();
    }
    let auth = opaque_auth::auth_unix(&auth_unix::default());
    auth.pack(&mut record).unwrap();
    opaque_auth::default().pack(&mut record).unwrap();
    let where_ = place(&root, b"open");
    let attributes = mode(0o777);
    MKDIR3args { where_, attributes }.pack(&mut record).unwrap();
    let answers = || {
        // SAFETY: this thread gets an umask of its own; no memory is concerned.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
        service.answer("test", &record).unwrap();
        assert!(umask().ends_with("0027"), "{}", umask());
    };
    std::thread::scope(|scope| scope.spawn(answers).join().unwrap());
    let made = home.path().join("open").metadata().unwrap();
    assert_eq!(made.mode() & 0o777, 0o777);
    client.find("open").unwrap();
}

#[test]
fn root_of_a_client_is_nobody_where_it_is_squashed() {
    let home = home();
    fs::set_permissions(home.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let mut export = writable("/home", home.path(), FREE);
    export.squash_root = true;
    let service = service(vec![export], &Key::fresh());
    let mut client = Client::root_of(&service, "/home");
    let root = client.root.clone();
    client.create(&root, b"file", guarded(0o600)).unwrap();
    let meta = home.path().join("file").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (65534, 65534));
    fs::write(home.path().join("closed"), "x").unwrap();
    fs::set_permissions(home.path().join("closed"), PermissionsExt::from_mode(0o600)).unwrap();
    let closed = client.find("closed").unwrap();
    assert_eq!(client.read(&closed), Err(nfsstat3::NFS3ERR_ACCES));
    let device = MKNOD3args {
        where_: place(&root, b"disk"),
        what: mknoddata3::NF3BLK(devicedata3 {
            dev_attributes: mode(0o666),
            spec: specdata3 {
                specdata1: 8,
                specdata2: 0,
            },
        }),
    };
    let made = ask!(client, mknod, device);
    assert_eq!(made.map(drop), Err(nfsstat3::NFS3ERR_PERM));
}

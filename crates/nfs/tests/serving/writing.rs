//! A directory that is written to: by other users, within a quota, over a restart of the server.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::client::{Client, mode, place, service, size, writable};
use estive_nfs::{Key, Quota};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::{Opaque, Pack};

pub const FREE: Quota = Quota {
    bytes: None,
    files: None,
};

pub fn home() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

pub fn open(directory: &Path, quota: Quota) -> (std::sync::Arc<estive_nfs::Service>, Client) {
    let service = service(vec![writable("/home", directory, quota)], &Key::fresh());
    let client = Client::root_of(&service, "/home");
    (service, client)
}

pub fn guarded(bits: u32) -> createhow3 {
    createhow3::GUARDED(mode(bits))
}

#[test]
fn everything_is_made_changed_and_taken_away() {
    let home = home();
    let (_service, mut client) = open(home.path(), FREE);
    let at = |name: &str| home.path().join(name);
    let root = client.root.clone();

    let file = client.create(&root, b"file", guarded(0o4751)).unwrap();
    assert_eq!(at("file").metadata().unwrap().mode() & 0o7777, 0o4751);
    client
        .write(&file, 5, b"data", stable_how::UNSTABLE)
        .unwrap();
    assert_eq!(fs::read(at("file")).unwrap(), b"\0\0\0\0\0data");
    client.set(&file, size(7)).unwrap();
    assert_eq!(fs::read(at("file")).unwrap(), b"\0\0\0\0\0da");
    let times = sattr3 {
        mode: Nfs3Option::Some(0o1640),
        uid: Nfs3Option::Some(33),
        gid: Nfs3Option::Some(34),
        mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 {
            seconds: 3_000_000_000,
            nseconds: 5,
        }),
        atime: set_atime::SET_TO_SERVER_TIME,
        ..sattr3::default()
    };
    client.set(&file, times).unwrap();
    let meta = at("file").metadata().unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777),
        (33, 34, 0o1640)
    );
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (3_000_000_000, 5));

    let where_ = place(&root, b"directory");
    let attributes = mode(0o2750);
    let directory = ask!(client, mkdir, MKDIR3args { where_, attributes }).unwrap();
    let directory = directory.obj.unwrap();
    assert_eq!(at("directory").metadata().unwrap().mode() & 0o7777, 0o2750);
    let symlink = SYMLINK3args {
        where_: place(&directory, b"link"),
        symlink: symlinkdata3 {
            symlink_attributes: sattr3::default(),
            symlink_data: nfspath3(Opaque::borrowed(b"../file")),
        },
    };
    ask!(client, symlink, symlink).unwrap();
    let target = fs::read_link(at("directory/link")).unwrap();
    assert_eq!(target.to_str(), Some("../file"));
    let mknod = |what, name| MKNOD3args {
        where_: place(&directory, name),
        what,
    };
    let spec = specdata3 {
        specdata1: 1,
        specdata2: 3,
    };
    let dev_attributes = mode(0o620);
    let device = mknoddata3::NF3CHR(devicedata3 {
        dev_attributes,
        spec,
    });
    ask!(client, mknod, mknod(device, b"null")).unwrap();
    ask!(
        client,
        mknod,
        mknod(mknoddata3::NF3FIFO(mode(0o622)), b"fifo")
    )
    .unwrap();
    ask!(
        client,
        mknod,
        mknod(mknoddata3::NF3SOCK(mode(0o600)), b"socket")
    )
    .unwrap();
    let meta = fs::metadata(at("directory/null")).unwrap();
    assert_eq!((meta.rdev(), meta.mode()), (0x103, 0o20620));
    assert_eq!(fs::metadata(at("directory/fifo")).unwrap().mode(), 0o10622);

    let link = LINK3args {
        file: file.clone(),
        link: place(&directory, b"again"),
    };
    let linked = ask!(client, link, link).unwrap();
    assert_eq!(linked.file_attributes.unwrap().nlink, 2);
    let rename = RENAME3args {
        from: place(&root, b"file"),
        to: place(&directory, b"renamed"),
    };
    ask!(client, rename, rename).unwrap();
    assert_eq!(client.read(&file).unwrap(), b"\0\0\0\0\0da");
    let away = |object| REMOVE3args { object };
    let is_directory = ask!(client, remove, away(place(&root, b"directory")));
    assert_eq!(is_directory.map(drop), Err(nfsstat3::NFS3ERR_ISDIR));
    let object = place(&root, b"directory");
    let full = ask!(client, rmdir, RMDIR3args { object });
    assert_eq!(full.map(drop), Err(nfsstat3::NFS3ERR_NOTEMPTY));
    for entry in client.list(&directory, 4000).unwrap() {
        if !entry.name.starts_with(b".") {
            client.remove(&directory, &entry.name).unwrap();
        }
    }
    let object = place(&root, b"directory");
    ask!(client, rmdir, RMDIR3args { object }).unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    assert_eq!(client.read(&file), Err(nfsstat3::NFS3ERR_STALE));
}

#[test]
fn directories_deeper_than_a_path_is_long_are_made_and_taken_away() {
    let home = home();
    let quota = Quota {
        bytes: None,
        files: Some(100),
    };
    let (service, mut client) = open(home.path(), quota);
    let name = [b'd'; 255];
    let mut above = vec![client.root.clone()];
    for _ in 0..20 {
        let where_ = place(above.last().unwrap(), &name);
        let attributes = mode(0o755);
        let made = ask!(client, mkdir, MKDIR3args { where_, attributes }).unwrap();
        above.push(made.obj.unwrap());
    }
    let deepest = above.pop().unwrap();
    let file = client.create(&deepest, b"file", guarded(0o600)).unwrap();
    assert_eq!(client.lookup(&deepest, b"file"), Ok(file));
    assert_eq!(client.lookup(&deepest, b".."), Ok(above[19].clone()));
    client.remove(&deepest, b"file").unwrap();
    for directory in above.iter().rev() {
        let object = place(directory, &name);
        ask!(client, rmdir, RMDIR3args { object }).unwrap();
    }
    assert_eq!(service.held("/home").unwrap().files, 0);
}

#[test]
fn devices_whose_numbers_are_too_large_are_not_made_smaller() {
    let home = home();
    let (_service, mut client) = open(home.path(), FREE);
    let root = client.root.clone();
    let mknod = |specdata1, specdata2| MKNOD3args {
        where_: place(&root, b"device"),
        what: mknoddata3::NF3CHR(devicedata3 {
            dev_attributes: mode(0o600),
            spec: specdata3 {
                specdata1,
                specdata2,
            },
        }),
    };
    let inval = Err(nfsstat3::NFS3ERR_INVAL);
    let made = ask!(client, mknod, mknod(4097, 3));
    assert_eq!(made.map(drop), inval);
    let made = ask!(client, mknod, mknod(1, 1 << 20));
    assert_eq!(made.map(drop), inval);
    ask!(client, mknod, mknod(4095, (1 << 20) - 1)).unwrap();
    let meta = home.path().join("device").metadata().unwrap();
    let device = meta.rdev();
    assert_eq!(rustix::fs::major(device), 4095);
    assert_eq!(rustix::fs::minor(device), (1 << 20) - 1);
}

#[test]
fn an_exclusive_create_is_remembered_over_a_restart() {
    let home = home();
    let key = Key::fresh();
    let start = || service(vec![writable("/home", home.path(), FREE)], &key);
    let how = |number| createhow3::EXCLUSIVE(createverf3([number; 8]));
    let mut client = Client::root_of(&start(), "/home");
    let root = client.root.clone();
    let file = client.create(&root, b"lock", how(200)).unwrap();
    let mut client = Client::root_of(&start(), "/home");
    assert_eq!(client.create(&root, b"lock", how(200)), Ok(file.clone()));
    let exists = Err(nfsstat3::NFS3ERR_EXIST);
    assert_eq!(client.create(&root, b"lock", how(201)), exists);
    assert_eq!(client.create(&root, b"lock", guarded(0o600)), exists);
    let unchecked = createhow3::UNCHECKED(mode(0o600));
    assert_eq!(client.create(&root, b"lock", unchecked), Ok(file));
}

#[test]
fn a_restart_shows_in_what_is_not_committed() {
    let home = home();
    let key = Key::fresh();
    let start = || service(vec![writable("/home", home.path(), FREE)], &key);
    let first = start();
    let mut client = Client::root_of(&first, "/home");
    let root = client.root.clone();
    let file = client.create(&root, b"file", guarded(0o600)).unwrap();
    let verifiers = |client: &mut Client| {
        let written = client.write(&file, 0, b"x", stable_how::UNSTABLE).unwrap();
        let commit = COMMIT3args {
            file: file.clone(),
            offset: 0,
            count: 0,
        };
        let committed = ask!(client, commit, commit).unwrap();
        assert_eq!(written.verf, committed.verf);
        committed.verf
    };
    let before = verifiers(&mut client);
    assert_eq!(verifiers(&mut client), before);
    assert_ne!(verifiers(&mut Client::root_of(&start(), "/home")), before);
}

#[test]
fn a_quota_holds_and_is_given_back() {
    let home = home();
    fs::write(home.path().join("there"), vec![1; 40 << 10]).unwrap();
    let quota = Quota {
        bytes: Some(128 << 10),
        files: Some(4),
    };
    let (service, mut client) = open(home.path(), quota);
    let root = client.root.clone();
    let over = Err(nfsstat3::NFS3ERR_DQUOT);
    let file = client.create(&root, b"file", guarded(0o600)).unwrap();
    let data = vec![2; 60 << 10];
    client
        .write(&file, 0, &data, stable_how::FILE_SYNC)
        .unwrap();
    let more = client.write(&file, 60 << 10, &data, stable_how::UNSTABLE);
    assert_eq!(more.map(drop), over);
    // What is there may be written again, also where all is used.
    client.write(&file, 0, &data, stable_how::UNSTABLE).unwrap();
    let stat = FSSTAT3args {
        fsroot: root.clone(),
    };
    let stat = ask!(client, fsstat, stat).unwrap();
    assert_eq!((stat.tbytes, stat.tfiles), (128 << 10, 4));
    assert!(stat.abytes <= 28 << 10, "{stat:?}");
    assert_eq!(stat.afiles, 2);

    client.create(&root, b"third", guarded(0o600)).unwrap();
    client.create(&root, b"fourth", guarded(0o600)).unwrap();
    assert_eq!(
        client.create(&root, b"fifth", guarded(0o600)).map(drop),
        over
    );
    let where_ = place(&root, b"directory");
    let attributes = mode(0o700);
    let made = ask!(client, mkdir, MKDIR3args { where_, attributes });
    assert_eq!(made.map(drop), over);
    // Another name is no other file; the last one that goes gives its room back.
    let link = LINK3args {
        file: file.clone(),
        link: place(&root, b"again"),
    };
    ask!(client, link, link).unwrap();
    client.remove(&root, b"file").unwrap();
    let held = service.held("/home").unwrap();
    assert_eq!(held.files, 4);
    let rename = RENAME3args {
        from: place(&root, b"third"),
        to: place(&root, b"again"),
    };
    ask!(client, rename, rename).unwrap();
    let held = service.held("/home").unwrap();
    assert_eq!(held.files, 3);
    assert!(held.bytes < 60 << 10, "{held:?}");
    let file = client.find("fourth").unwrap();
    client.write(&file, 0, &data, stable_how::UNSTABLE).unwrap();
    client.set(&file, size(0)).unwrap();
    client.write(&file, 0, &data, stable_how::UNSTABLE).unwrap();
}

#[test]
fn what_was_done_is_not_done_again_when_it_is_asked_again() {
    let home = home();
    let (service, mut client) = open(home.path(), FREE);
    let root = client.root.clone();
    client.create(&root, b"file", guarded(0o600)).unwrap();
    let mut record = Vec::new();
    let auth = opaque_auth::auth_unix(&auth_unix::default());
    for word in [77u32, 0, 2, PROGRAM, VERSION, 12] {
        word.pack(&mut record).unwrap();
    }
    auth.pack(&mut record).unwrap();
    opaque_auth::default().pack(&mut record).unwrap();
    let object = place(&root, b"file");
    REMOVE3args { object }.pack(&mut record).unwrap();
    let first = service.answer("clone01", &record).unwrap();
    assert_eq!(first[24..28], [0; 4], "done");
    assert!(!home.path().join("file").exists());
    client.create(&root, b"file", guarded(0o600)).unwrap();
    assert_eq!(service.answer("clone01", &record).unwrap(), first);
    assert!(home.path().join("file").exists());
    // The same number of another client is another call.
    service.answer("clone02", &record).unwrap();
    assert!(!home.path().join("file").exists());
}

#[test]
fn exports_beside_each_other_are_apart() {
    let (one, two) = (home(), home());
    let exports = vec![
        writable("/home", one.path(), FREE),
        writable("/srv/data", two.path(), FREE),
    ];
    let service = service(exports, &Key::fresh());
    let mut client = Client::root_of(&service, "/home");
    let (home, data) = (
        client.root.clone(),
        Client::root_of(&service, "/srv/data").root,
    );
    let file = client.create(&home, b"file", guarded(0o600)).unwrap();
    let rename = RENAME3args {
        from: place(&home, b"file"),
        to: place(&data, b"file"),
    };
    let apart = Err(nfsstat3::NFS3ERR_XDEV);
    assert_eq!(ask!(client, rename, rename).map(drop), apart);
    let link = LINK3args {
        file,
        link: place(&data, b"file"),
    };
    assert_eq!(ask!(client, link, link).map(drop), apart);
    // As `mount server:/srv/data/ …` asks.
    assert_eq!(Client::root_of(&service, "/srv/data//").root, data);
    let fsid = |client: &mut Client, handle: &nfs_fh3| client.attributes(handle).unwrap().fsid;
    assert_ne!(fsid(&mut client, &home), fsid(&mut client, &data));
}

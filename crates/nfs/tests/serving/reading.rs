//! A tree that is only read: every entry is what it is here, through another hand's client.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::client::{Client, place, read_only, service};
use estive_nfs::{Hidden, Key};
use nfs3_types::nfs3::*;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};

/// One of each kind, with what servers lose.
fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(at("etc/ssh")).unwrap();
    fs::create_dir_all(at("var/log")).unwrap();
    fs::create_dir(at("tmp")).unwrap();
    fs::set_permissions(at("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::write(at("etc/passwd"), "root:x:0:0\n").unwrap();
    fs::write(at("etc/shadow"), "root:*\n").unwrap();
    fs::set_permissions(at("etc/shadow"), PermissionsExt::from_mode(0o640)).unwrap();
    chown(at("etc/shadow"), Some(0), Some(42)).unwrap();
    fs::write(at("etc/ssh/ssh_host_rsa_key"), "secret").unwrap();
    fs::write(at("su"), vec![7; 100_000]).unwrap();
    fs::set_permissions(at("su"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::write(at("write"), "").unwrap();
    fs::set_permissions(at("write"), PermissionsExt::from_mode(0o2711)).unwrap();
    fs::write(at("var/log/error.log"), "a line\n").unwrap();
    chown(at("var/log/error.log"), Some(33), Some(4)).unwrap();
    fs::hard_link(at("su"), at("var/su-again")).unwrap();
    symlink("../etc/passwd", at("var/link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    let nod = |name: &str, kind, device| {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o600), device).unwrap();
    };
    nod("null", FileType::CharacterDevice, makedev(1, 3));
    nod("disk", FileType::BlockDevice, makedev(259, 70_000));
    nod("fifo", FileType::Fifo, 0);
    nod("socket", FileType::Socket, 0);
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 1_000_000_000,
            tv_nsec: 1,
        },
        last_modification: Timespec {
            tv_sec: 3_000_000_000,
            tv_nsec: 123_456_789,
        },
    };
    utimensat(CWD, at("etc/passwd"), &times, rustix::fs::AtFlags::empty()).unwrap();
    fs::create_dir(at("many")).unwrap();
    for number in 0..500 {
        fs::write(at(&format!("many/a-file-with-a-long-name-{number}")), [1]).unwrap();
    }
    let odd = std::ffi::OsString::from_vec(b"odd \xff\n name".to_vec());
    fs::write(directory.path().join(odd), "odd").unwrap();
    directory
}

use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Compares everything below with what stands here; the handles by path.
fn compare(client: &mut Client, here: &Path) -> BTreeMap<Vec<u8>, nfs_fh3> {
    let mut handles = BTreeMap::new();
    let root = client.root.clone();
    let mut directories = vec![(here.to_path_buf(), root)];
    while let Some((here, handle)) = directories.pop() {
        let entries = client.list(&handle, 2000).unwrap();
        let mut names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
        names.sort();
        let mut expected: Vec<_> = fs::read_dir(&here)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_vec())
            .chain([b".".to_vec(), b"..".to_vec()])
            .collect();
        expected.sort();
        assert_eq!(names, expected, "{}", here.display());
        for entry in entries {
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            let path = here.join(std::ffi::OsStr::from_bytes(&entry.name));
            let found = client.lookup(&handle, &entry.name).unwrap();
            assert_eq!(Some(&found), entry.handle.as_ref(), "{}", path.display());
            let attributes = client.attributes(&found).unwrap();
            assert_eq!(entry.number, attributes.fileid);
            assert_eq!(entry.attributes.unwrap().mode, attributes.mode);
            same(&path, &attributes);
            match attributes.type_ {
                ftype3::NF3DIR => directories.push((path.clone(), found.clone())),
                ftype3::NF3REG => assert_eq!(client.read(&found), Ok(fs::read(&path).unwrap())),
                ftype3::NF3LNK => {
                    let target = fs::read_link(&path).unwrap().into_os_string().into_vec();
                    assert_eq!(client.target(&found), Ok(target));
                }
                _ => {
                    let read = client.read(&found);
                    assert_eq!(read, Err(nfsstat3::NFS3ERR_INVAL), "{}", path.display());
                }
            }
            handles.insert(path.into_os_string().into_vec(), found);
        }
    }
    handles
}

fn same(path: &Path, attributes: &fattr3) {
    let here = fs::symlink_metadata(path).unwrap();
    let kind = match here.mode() >> 12 {
        0o4 => ftype3::NF3DIR,
        0o6 => ftype3::NF3BLK,
        0o2 => ftype3::NF3CHR,
        0o12 => ftype3::NF3LNK,
        0o14 => ftype3::NF3SOCK,
        0o1 => ftype3::NF3FIFO,
        _ => ftype3::NF3REG,
    };
    let time = |seconds: i64, nseconds: i64| nfstime3 {
        seconds: seconds as u32,
        nseconds: nseconds as u32,
    };
    let device = specdata3 {
        specdata1: rustix::fs::major(here.rdev()),
        specdata2: rustix::fs::minor(here.rdev()),
    };
    let path = path.display();
    assert_eq!(attributes.type_, kind, "{path}");
    assert_eq!(attributes.mode, here.mode() & 0o7777, "{path}");
    assert_eq!((attributes.uid, attributes.gid), (here.uid(), here.gid()));
    assert_eq!(attributes.size, here.size(), "{path}");
    assert_eq!(u64::from(attributes.nlink), here.nlink(), "{path}");
    assert_eq!(attributes.rdev, device, "{path}");
    assert_eq!(attributes.mtime, time(here.mtime(), here.mtime_nsec()));
    assert_eq!(attributes.ctime, time(here.ctime(), here.ctime_nsec()));
    assert_eq!(attributes.fileid, here.ino());
}

#[test]
fn every_entry_is_what_it_is_here_and_its_handle_outlives_the_server() {
    let tree = tree();
    let state = tempfile::tempdir().unwrap();
    let key = || Key::kept(&state.path().join("key")).unwrap();
    let first = service(vec![read_only(tree.path())], &key());
    let handles = compare(&mut Client::root_of(&first, "/"), tree.path());
    assert!(handles.len() > 500);
    drop(first);

    let second = service(vec![read_only(tree.path())], &key());
    let mut client = Client::root_of(&second, "/");
    for (path, handle) in &handles {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        same(path, &client.attributes(handle).unwrap());
    }
    assert_eq!(compare(&mut client, tree.path()), handles);

    // Of a server with another key.
    let other = service(vec![read_only(tree.path())], &Key::fresh());
    let mut stranger = Client::root_of(&other, "/");
    for handle in handles.values().take(3) {
        let stale = stranger.attributes(handle).map(drop);
        assert_eq!(stale, Err(nfsstat3::NFS3ERR_STALE));
    }
}

#[test]
fn handles_of_one_directory_open_nothing_for_clients_of_another() {
    let (one, two) = (tree(), tree());
    let key = Key::fresh();
    // Two references of one server, each with its `/`; or one that is given another directory.
    let first = service(vec![read_only(one.path())], &key);
    let second = service(vec![read_only(two.path())], &key);
    let mut client = Client::root_of(&first, "/");
    let mut stranger = Client::root_of(&second, "/");
    for path in ["su", "etc", "var/link"] {
        let handle = client.find(path).unwrap();
        let stale = stranger.attributes(&handle).map(drop);
        assert_eq!(stale, Err(nfsstat3::NFS3ERR_STALE), "{path}");
    }
    let handle = client.find("etc/shadow").unwrap();
    assert_eq!(stranger.read(&handle), Err(nfsstat3::NFS3ERR_STALE));
}

#[test]
fn changes_here_are_seen_at_once() {
    let tree = tree();
    let service = service(vec![read_only(tree.path())], &Key::fresh());
    let mut client = Client::root_of(&service, "/");
    let path = tree.path().join("etc/passwd");
    let old = client.find("etc/passwd").unwrap();
    let etc = client.find("etc").unwrap();
    let before = client.attributes(&old).unwrap();

    fs::write(&path, "written in place\n").unwrap();
    assert_eq!(client.read(&old).unwrap(), b"written in place\n");
    let after = client.attributes(&old).unwrap();
    assert_ne!((before.mtime, before.ctime), (after.mtime, after.ctime));

    let directory = client.attributes(&etc).unwrap();
    fs::write(tree.path().join("etc/aside"), "renamed over\n").unwrap();
    fs::rename(tree.path().join("etc/aside"), &path).unwrap();
    let new = client.find("etc/passwd").unwrap();
    assert_ne!(new, old);
    assert_eq!(client.read(&new).unwrap(), b"renamed over\n");
    assert_eq!(
        client.attributes(&old).map(drop),
        Err(nfsstat3::NFS3ERR_STALE)
    );
    assert_ne!(client.attributes(&etc).unwrap().mtime, directory.mtime);

    assert_eq!(client.find("etc/new"), Err(nfsstat3::NFS3ERR_NOENT));
    fs::write(tree.path().join("etc/new"), "new\n").unwrap();
    let file = client.find("etc/new").unwrap();
    assert_eq!(client.read(&file).unwrap(), b"new\n");
    fs::remove_file(tree.path().join("etc/new")).unwrap();
    assert_eq!(client.find("etc/new"), Err(nfsstat3::NFS3ERR_NOENT));
    assert_eq!(client.read(&file), Err(nfsstat3::NFS3ERR_STALE));
}

#[test]
fn names_that_come_and_go_while_a_directory_is_listed_shift_no_others() {
    let tree = tree();
    let service = service(vec![read_only(tree.path())], &Key::fresh());
    let mut client = Client::root_of(&service, "/");
    let many = client.find("many").unwrap();
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        let ok = ask!(
            client,
            readdir,
            READDIR3args {
                dir: many.clone(),
                cookie,
                cookieverf: cookieverf3::default(),
                count: 1500,
            }
        )
        .unwrap();
        for entry in ok.reply.entries.0 {
            cookie = entry.cookie;
            let name = String::from_utf8(entry.name.0.to_vec()).unwrap();
            // What was listed goes, the rest must still come, each once.
            let _ = fs::remove_file(tree.path().join("many").join(&name));
            names.push(name);
        }
        if ok.reply.eof {
            break;
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 502);
    let small = ask!(
        client,
        readdir,
        READDIR3args {
            dir: many,
            cookie: 0,
            cookieverf: cookieverf3::default(),
            count: 8,
        }
    );
    assert_eq!(small.map(drop), Err(nfsstat3::NFS3ERR_TOOSMALL));
}

#[test]
fn no_way_leads_out_of_the_root() {
    let tree = tree();
    let inside = tree.path().join("var");
    let service = service(vec![read_only(&inside)], &Key::fresh());
    let mut client = Client::root_of(&service, "/");
    let root = client.root.clone();
    assert_eq!(client.lookup(&root, b".."), Ok(root.clone()));
    let log = client.find("log").unwrap();
    assert_eq!(client.lookup(&log, b".."), Ok(root.clone()));
    for name in [&b"../etc"[..], b"log/error.log", b"/etc", b"", b"a\0b"] {
        assert_eq!(client.lookup(&root, name), Err(nfsstat3::NFS3ERR_INVAL));
    }
    let long = [b'a'; 300];
    assert_eq!(
        client.lookup(&root, &long),
        Err(nfsstat3::NFS3ERR_NAMETOOLONG)
    );
    // A link is a text.
    let link = client.find("link").unwrap();
    assert_eq!(client.lookup(&link, b"x"), Err(nfsstat3::NFS3ERR_NOTDIR));
    let above = client.list(&root, 9000).unwrap();
    let number = |name: &[u8]| {
        above
            .iter()
            .find(|entry| entry.name == name)
            .unwrap()
            .number
    };
    assert_eq!(number(b".."), number(b"."));

    // A directory that is moved out takes nobody along.
    fs::create_dir(inside.join("log/deep")).unwrap();
    let deep = client.find("log/deep").unwrap();
    fs::rename(inside.join("log/deep"), tree.path().join("etc/deep")).unwrap();
    for name in [&b".."[..], b"x"] {
        assert_eq!(client.lookup(&deep, name), Err(nfsstat3::NFS3ERR_STALE));
    }
    assert_eq!(
        client.list(&deep, 9000).map(drop),
        Err(nfsstat3::NFS3ERR_STALE)
    );
}

#[test]
fn what_is_mounted_below_is_not_there() {
    let tree = tree();
    let covered = tree.path().join("many");
    let mounted = tempfile::tempdir().unwrap();
    fs::write(mounted.path().join("secret"), "of another file system").unwrap();
    rustix::mount::mount_bind(mounted.path(), &covered).unwrap();
    let service = service(vec![read_only(tree.path())], &Key::fresh());
    let mut client = Client::root_of(&service, "/");
    let listed = client
        .find("many")
        .and_then(|many| client.list(&many, 9000));
    let missing = client.find("many/secret");
    rustix::mount::unmount(&covered, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(listed.unwrap().len(), 502);
    assert_eq!(missing, Err(nfsstat3::NFS3ERR_NOENT));
}

#[test]
fn what_is_mounted_below_later_is_not_there_either() {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
    let tree = tree();
    // As systemd makes `/`.
    mount_bind(tree.path(), tree.path()).unwrap();
    mount_change(tree.path(), MountPropagationFlags::SHARED).unwrap();
    let service = service(vec![read_only(tree.path())], &Key::fresh());
    let covered = tree.path().join("many");
    mount_bind(tree.path().join("etc"), &covered).unwrap();
    let mut client = Client::root_of(&service, "/");
    let listed = client
        .find("many")
        .and_then(|many| client.list(&many, 9000));
    unmount(&covered, UnmountFlags::DETACH).unwrap();
    unmount(tree.path(), UnmountFlags::DETACH).unwrap();
    assert_eq!(listed.map(|names| names.len()), Ok(502));
}

#[test]
fn the_callers_rights_are_asked_for() {
    let tree = tree();
    let service = service(vec![read_only(tree.path())], &Key::fresh());
    let access = |client: &mut Client, path: &str| {
        let object = client.find(path).unwrap();
        ask!(client, access, ACCESS3args { object, access: 63 })
            .unwrap()
            .access
    };
    let mut root = Client::root_of(&service, "/");
    let mut user = Client::user(&service, "/", 1000, &[1000]);
    let mut member = Client::user(&service, "/", 1000, &[1000, 42]);
    let run = ACCESS3_READ | ACCESS3_EXECUTE;
    assert_eq!(access(&mut root, "su"), run);
    assert_eq!(access(&mut user, "su"), run);
    assert_eq!(access(&mut root, "etc/shadow"), ACCESS3_READ);
    assert_eq!(access(&mut user, "etc/shadow"), 0);
    assert_eq!(access(&mut member, "etc/shadow"), ACCESS3_READ);
    assert_eq!(access(&mut user, "tmp"), ACCESS3_READ | ACCESS3_LOOKUP);
    let shadow = user.find("etc/shadow").unwrap();
    assert_eq!(user.read(&shadow), Err(nfsstat3::NFS3ERR_ACCES));
    assert_eq!(member.read(&shadow).unwrap(), b"root:*\n");
    // May be run, so it may be read to be run.
    let write = user.find("write").unwrap();
    assert_eq!(user.read(&write).unwrap(), b"");
}

#[test]
fn nothing_is_changed_here() {
    let tree = tree();
    let service = service(vec![read_only(tree.path())], &Key::fresh());
    let mut client = Client::root_of(&service, "/");
    let root = client.root.clone();
    let su = client.find("su").unwrap();
    let rofs = nfsstat3::NFS3ERR_ROFS;
    let sync = stable_how::FILE_SYNC;
    assert_eq!(client.write(&su, 0, b"x", sync).map(drop), Err(rofs));
    assert_eq!(client.set(&su, crate::client::mode(0o777)), Err(rofs));
    assert_eq!(client.remove(&root, b"su"), Err(rofs));
    let how = createhow3::UNCHECKED(crate::client::mode(0o644));
    assert_eq!(client.create(&root, b"new", how), Err(rofs));
    let rename = RENAME3args {
        from: place(&root, b"su"),
        to: place(&root, b"us"),
    };
    assert_eq!(ask!(client, rename, rename).map(drop), Err(rofs));
    compare(&mut client, tree.path());
}

#[test]
fn hidden_names_are_not_there() {
    let tree = tree();
    let mut export = read_only(tree.path());
    export.hidden = Hidden::new(["etc/ssh/ssh_host_*_key", "many/*"]);
    let service = service(vec![export], &Key::fresh());
    let mut client = Client::root_of(&service, "/");
    let missing = Err(nfsstat3::NFS3ERR_NOENT);
    assert_eq!(client.find("etc/ssh/ssh_host_rsa_key"), missing);
    assert_eq!(client.find("many/a-file-with-a-long-name-7"), missing);
    for path in ["etc/ssh", "many"] {
        let directory = client.find(path).unwrap();
        assert_eq!(client.list(&directory, 9000).unwrap().len(), 2);
    }
}

//! Another hand's client, on a stream to a service of these tests.

use std::path::Path;
use std::sync::Arc;

use estive_nfs::{Access, ExportConfig, Hidden, Key, Limits, Memory, Quota, Service};
use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;

pub fn read_only(directory: &Path) -> ExportConfig {
    ExportConfig {
        name: "/".into(),
        directory: directory.into(),
        access: Access::ReadOnly,
        squash_root: false,
        hidden: Hidden::default(),
    }
}

pub fn writable(name: &str, directory: &Path, quota: Quota) -> ExportConfig {
    ExportConfig {
        name: name.into(),
        access: Access::ReadWrite(quota),
        ..read_only(directory)
    }
}

pub fn service(exports: Vec<ExportConfig>, key: &Key) -> Arc<Service> {
    Arc::new(Service::open(exports, key).unwrap())
}

/// A user of a client.
pub struct Client {
    runtime: Runtime,
    pub nfs: Nfs3Client<TokioIo<DuplexStream>>,
    pub root: nfs_fh3,
}

/// What a procedure said.
pub type Said<T> = Result<T, nfsstat3>;

pub fn said<T, E>(result: Nfs3Result<T, E>) -> Said<T> {
    match result {
        Nfs3Result::Ok(value) => Ok(value),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

/// Calls a procedure of the client.
macro_rules! ask {
    ($client:expr, $procedure:ident, $arguments:expr) => {{
        let arguments = $arguments;
        let (runtime, nfs) = $client.parts();
        $crate::client::said(runtime.block_on(nfs.$procedure(&arguments)).unwrap())
    }};
}

impl Client {
    pub fn root_of(service: &Arc<Service>, export: &str) -> Client {
        Client::user(service, export, 0, &[0])
    }

    pub fn user(service: &Arc<Service>, export: &str, uid: u32, groups: &[u32]) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let auth = auth_unix {
            stamp: 0,
            machinename: Opaque::borrowed(b"test"),
            uid,
            gid: groups[0],
            gids: groups[1..].to_vec(),
        };
        let stream = || {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let serving = estive_nfs::serve(
                Arc::clone(service),
                Memory::of(0).share("test"),
                theirs,
                Limits::default(),
            );
            runtime.spawn(serving);
            TokioIo::new(ours)
        };
        let auth = || opaque_auth::auth_unix(&auth);
        let mut mount = MountClient::new_with_auth(stream(), auth(), opaque_auth::default());
        let path = dirpath(Opaque::owned(export.as_bytes().to_vec()));
        let root = runtime.block_on(mount.mnt(path)).unwrap().fhandle.0;
        Client {
            nfs: Nfs3Client::new_with_auth(stream(), auth(), opaque_auth::default()),
            root: nfs_fh3 { data: root },
            runtime,
        }
    }

    pub fn parts(&mut self) -> (&Runtime, &mut Nfs3Client<TokioIo<DuplexStream>>) {
        (&self.runtime, &mut self.nfs)
    }

    pub fn attributes(&mut self, object: &nfs_fh3) -> Said<fattr3> {
        let object = object.clone();
        ask!(self, getattr, GETATTR3args { object }).map(|ok| ok.obj_attributes)
    }

    pub fn lookup(&mut self, directory: &nfs_fh3, name: &[u8]) -> Said<nfs_fh3> {
        let what = place(directory, name);
        ask!(self, lookup, LOOKUP3args { what }).map(|ok| ok.object)
    }

    /// From the root of the export.
    pub fn find(&mut self, path: &str) -> Said<nfs_fh3> {
        let mut handle = self.root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            handle = self.lookup(&handle, name.as_bytes())?;
        }
        Ok(handle)
    }

    pub fn read(&mut self, file: &nfs_fh3) -> Said<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let ok = ask!(
                self,
                read,
                READ3args {
                    file: file.clone(),
                    offset: all.len() as u64,
                    count: 10_000,
                }
            )?;
            all.extend(ok.data.as_ref());
            if ok.eof {
                return Ok(all);
            }
        }
    }

    pub fn target(&mut self, link: &nfs_fh3) -> Said<Vec<u8>> {
        let symlink = link.clone();
        ask!(self, readlink, READLINK3args { symlink }).map(|ok| ok.data.0.to_vec())
    }

    /// Names, numbers and handles, in pieces of this size.
    pub fn list(&mut self, directory: &nfs_fh3, piece: u32) -> Said<Vec<Entry>> {
        let mut all = Vec::new();
        let mut cookie = 0;
        loop {
            let ok = ask!(
                self,
                readdirplus,
                READDIRPLUS3args {
                    dir: directory.clone(),
                    cookie,
                    cookieverf: cookieverf3::default(),
                    dircount: piece,
                    maxcount: piece,
                }
            )?;
            for entry in ok.reply.entries.0 {
                cookie = entry.cookie;
                all.push(Entry {
                    name: entry.name.0.to_vec(),
                    number: entry.fileid,
                    attributes: match entry.name_attributes {
                        Nfs3Option::Some(attributes) => Some(attributes),
                        Nfs3Option::None => None,
                    },
                    handle: match entry.name_handle {
                        Nfs3Option::Some(handle) => Some(handle),
                        Nfs3Option::None => None,
                    },
                });
            }
            if ok.reply.eof {
                return Ok(all);
            }
        }
    }

    pub fn create(&mut self, directory: &nfs_fh3, name: &[u8], how: createhow3) -> Said<nfs_fh3> {
        let where_ = place(directory, name);
        ask!(self, create, CREATE3args { where_, how }).map(|ok| ok.obj.unwrap())
    }

    pub fn write(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        data: &[u8],
        stable: stable_how,
    ) -> Said<WRITE3resok> {
        ask!(
            self,
            write,
            WRITE3args {
                file: file.clone(),
                offset,
                count: data.len() as u32,
                stable,
                data: Opaque::borrowed(data),
            }
        )
    }

    pub fn remove(&mut self, directory: &nfs_fh3, name: &[u8]) -> Said<()> {
        let object = place(directory, name);
        ask!(self, remove, REMOVE3args { object }).map(drop)
    }

    pub fn set(&mut self, object: &nfs_fh3, new_attributes: sattr3) -> Said<()> {
        ask!(
            self,
            setattr,
            SETATTR3args {
                object: object.clone(),
                new_attributes,
                guard: Nfs3Option::None,
            }
        )
        .map(drop)
    }
}

#[derive(Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    pub number: u64,
    pub attributes: Option<fattr3>,
    pub handle: Option<nfs_fh3>,
}

pub fn place<'a>(directory: &nfs_fh3, name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 {
        dir: directory.clone(),
        name: name.into(),
    }
}

pub fn mode(mode: u32) -> sattr3 {
    sattr3 {
        mode: Nfs3Option::Some(mode),
        ..sattr3::default()
    }
}

pub fn size(size: u64) -> sattr3 {
    sattr3 {
        size: Nfs3Option::Some(size),
        ..sattr3::default()
    }
}

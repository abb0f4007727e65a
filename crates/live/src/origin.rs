//! The reference's side: what it offers, and the route by which hosts come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Path as Named, Query, Request, State};
use axum::response::Response;
use axum::routing::{get, put};
use axum::{Extension, Json, Router};
use estive_api::server::{JsonBody, with_body_limit};
use estive_api::upgrade::accept_upgrade;
use estive_api::wire::{LiveClone, LiveReaders, is_live_name};
use estive_api::{Peer, Problem, Role};
use estive_model::HostName;
use estive_nfs::{Access, ExportConfig, Hidden, Key, Limits, Memory, Quota, Service};

use crate::LiveError;
use crate::readers::Readers;

/// Hosts pass calls of clones on; nobody else.
const READERS: &[Role] = &[Role::Agent];
/// Who says which.
const KEEPERS: &[Role] = &[Role::Manager];

/// Of a live root no clone sees these: what identifies the reference, what runs on it, and Estive's own state.
const HIDDEN: [&str; 9] = [
    "etc/ssh/ssh_host_*_key",
    "var/lib/estive/*",
    "proc/*",
    "sys/*",
    "dev/*",
    "run/*",
    "tmp/*",
    "var/tmp/*",
    "root/.ssh/*",
];

/// References that are for some hosts alone, with those; others are for every host of the authority.
#[derive(Debug, Clone, Default)]
pub struct Reserved(BTreeMap<String, BTreeSet<HostName>>);

impl Reserved {
    /// Of `NAME=HOST[,HOST]…`.
    pub fn read<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, LiveError> {
        let mut reserved = BTreeMap::new();
        for text in texts {
            let wrong = || LiveError::Reserved(text.to_owned());
            let (name, hosts) = text.split_once('=').ok_or_else(wrong)?;
            let hosts = hosts.split(',').map(HostName::new);
            let hosts: BTreeSet<HostName> = hosts.collect::<Result<_, _>>().map_err(|_| wrong())?;
            if !is_live_name(name) || reserved.insert(name.to_owned(), hosts).is_some() {
                return Err(wrong());
            }
        }
        Ok(Self(reserved))
    }

    fn refuse(&self, reference: &str, peer: &Peer) -> Result<(), Problem> {
        let (Some(hosts), Peer::Certified { name, .. }) = (self.0.get(reference), peer) else {
            return Ok(());
        };
        match hosts.iter().any(|host| host.as_str() == name) {
            true => Ok(()),
            false => Err(Problem::refused(format!(
                "{peer} may not read the live reference {reference}, which is for some hosts alone"
            ))),
        }
    }
}

/// A directory that is offered to the clones of a reference.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The reference's name.
    pub reference: String,
    pub export: ExportConfig,
}

impl Offer {
    /// `NAME=DIRECTORY`: a live root.
    pub fn live(text: &str) -> Result<Offer, LiveError> {
        let wrong = || LiveError::Name(text.to_owned());
        let (name, directory) = text.split_once('=').ok_or_else(wrong)?;
        if !is_live_name(name) || directory.is_empty() {
            return Err(wrong());
        }
        Ok(Offer {
            reference: name.to_owned(),
            export: ExportConfig {
                name: "/".into(),
                directory: directory.into(),
                access: Access::ReadOnly,
                squash_root: false,
                hidden: Hidden::new(HIDDEN),
            },
        })
    }

    /// `NAME:/MOUNTED/AT=DIRECTORY[,bytes=10G][,files=100000][,root=kept]`: a directory to share, to be written to.
    pub fn shared(text: &str) -> Result<Offer, LiveError> {
        let wrong = |why| LiveError::Share {
            text: text.to_owned(),
            why,
        };
        let (name, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("its reference is missing"))?;
        let (export, rest) = rest
            .split_once('=')
            .ok_or_else(|| wrong("its directory is missing"))?;
        if !is_live_name(name) {
            return Err(wrong("its reference has no such name"));
        }
        let mut words = rest.split(',');
        let directory = words.next().unwrap_or_default();
        if directory.is_empty() {
            return Err(wrong("its directory is missing"));
        }
        let mut quota = Quota::default();
        let mut squash_root = true;
        for word in words {
            match word.split_once('=') {
                Some(("bytes", size)) => {
                    let size = size_bytes(size).ok_or_else(|| wrong("bytes= is no size"))?;
                    quota.bytes = Some(size);
                }
                Some(("files", count)) => {
                    let count = count.parse().map_err(|_| wrong("files= is no number"))?;
                    quota.files = Some(count);
                }
                Some(("root", "kept")) => squash_root = false,
                _ => return Err(wrong("there are bytes=, files= and root=kept")),
            }
        }
        Ok(Offer {
            reference: name.to_owned(),
            export: ExportConfig {
                name: export.to_owned(),
                directory: directory.into(),
                access: Access::ReadWrite(quota),
                squash_root,
                hidden: Hidden::default(),
            },
        })
    }
}

/// `10G`, `512M`, `64K` or bytes.
fn size_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `GET /v1/live/REFERENCE?clone=ADDRESS`, an upgrade: then NFS, for clones that `PUT /v1/live/REFERENCE/readers` has named.
/// The key of the handles is kept in `state`, and so is who may read. Blocks while shared directories are counted. Calls
/// under way take `memory`.
pub fn router(
    offers: Vec<Offer>,
    reserved: Reserved,
    memory: Arc<Memory>,
    state: &Path,
) -> Result<Router, LiveError> {
    let key_path: PathBuf = state.join("handles.key");
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| LiveError::Export { name, source }
    };
    let is_offered = |name: &&String| offers.iter().any(|offer| offer.reference == **name);
    if let Some(name) = reserved.0.keys().find(|name| !is_offered(name)) {
        return Err(LiveError::Reserved(name.clone()));
    }
    let key = Key::kept(&key_path).map_err(failed("all"))?;
    let mut exports: BTreeMap<String, Vec<ExportConfig>> = BTreeMap::new();
    for offer in offers {
        exports
            .entry(offer.reference)
            .or_default()
            .push(offer.export);
    }
    let mut services = BTreeMap::new();
    for (name, exports) in exports {
        let service = Service::open(exports, &key).map_err(failed(&name))?;
        services.insert(name, Arc::new(service));
    }
    let offered = Offered {
        services,
        reserved,
        memory,
        readers: Readers::open(state)?,
    };
    let routes = Router::new()
        .route("/v1/live/{reference}", get(serve))
        .route("/v1/live/{reference}/readers", put(say_readers))
        .with_state(Arc::new(offered));
    Ok(with_body_limit(routes, MAX_READERS_BYTES))
}

/// A long list of a manager with many clones.
const MAX_READERS_BYTES: usize = 16 << 20;

struct Offered {
    services: BTreeMap<String, Arc<Service>>,
    reserved: Reserved,
    memory: Arc<Memory>,
    readers: Readers,
}

impl Offered {
    fn service(&self, reference: &str) -> Result<Arc<Service>, Problem> {
        self.services.get(reference).cloned().ok_or_else(|| {
            Problem::not_found(format!("there is no live reference {reference} here"))
        })
    }
}

async fn say_readers(
    State(offered): State<Arc<Offered>>,
    Extension(peer): Extension<Peer>,
    Named(reference): Named<String>,
    JsonBody(said): JsonBody<LiveReaders>,
) -> Result<Json<()>, Problem> {
    peer.require(KEEPERS)?;
    offered.service(&reference)?;
    let manager = match &peer {
        Peer::Certified { name, .. } => name.as_str(),
        Peer::Local { .. } => "local",
    };
    offered.readers.say(&reference, manager, said).await?;
    Ok(Json(()))
}

async fn serve(
    State(offered): State<Arc<Offered>>,
    Extension(peer): Extension<Peer>,
    Named(reference): Named<String>,
    Query(LiveClone { clone }): Query<LiveClone>,
    request: Request,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    offered.reserved.refuse(&reference, &peer)?;
    let service = offered.service(&reference)?;
    let clone: IpAddr = clone;
    let host = match &peer {
        Peer::Certified { name, .. } => Some(name.clone()),
        Peer::Local { .. } => None,
    };
    if let Some(host) = &host
        && !offered.readers.may(&reference, host, clone)
    {
        return Err(Problem::refused(format!(
            "{peer} may not read the live reference {reference} for {clone}: no manager has said that this clone is there"
        ))
        .advice("clones of live references are started by their manager, which says so here"));
    }
    let share = offered.memory.share(&clone.to_string());
    Ok(accept_upgrade(request, move |stream| async move {
        tracing::info!(%peer, %clone, %reference, "a clone reads the live reference");
        // Calls repeated over another link are known by their clone, whichever host it is on.
        let gone = async {
            match &host {
                Some(host) => offered.readers.until_gone(&reference, host, clone).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = estive_nfs::serve(service, share, stream, Limits::default()) => {
                if let Err(error) = served {
                    tracing::debug!(%clone, %error, "a clone's stream broke");
                }
            }
            () = gone => tracing::info!(%peer, %clone, %reference, "cut: the clone is there no more"),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_and_what_is_none_is_refused() {
        let offer = Offer::live("demo=/").unwrap();
        assert_eq!(
            (offer.reference.as_str(), offer.export.name.as_str()),
            ("demo", "/")
        );
        assert_eq!(offer.export.access, Access::ReadOnly);
        let offer = Offer::shared("demo:/home=/srv/home,bytes=10G,files=9,root=kept").unwrap();
        assert_eq!(offer.export.name, "/home");
        assert!(!offer.export.squash_root);
        let quota = Quota {
            bytes: Some(10 << 30),
            files: Some(9),
        };
        assert_eq!(offer.export.access, Access::ReadWrite(quota));
        assert!(
            Offer::shared("demo:/home=/srv/home")
                .unwrap()
                .export
                .squash_root
        );
        for wrong in ["", "demo", "=/", "a/b=/", "demo="] {
            assert!(Offer::live(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "demo=/x",
            "demo:/home",
            "demo:/home=",
            "demo:/home=/x,bytes=a",
            "demo:/h=/x,y",
        ] {
            assert!(Offer::shared(wrong).is_err(), "{wrong}");
        }
    }
}

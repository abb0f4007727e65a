//! What travels between command line, manager and agents, and on which routes.
//!
//! All bodies are JSON unless said otherwise; times are milliseconds, sizes bytes unless the name says another unit.
//! Errors are [`crate::Problem`] bodies. Streams are JSON lines (`application/x-ndjson`), one value a line.
//!
//! | agent's route | method | body → answer |
//! |---|---|---|
//! | `/about` | GET | → [`AgentAbout`] |
//! | `/capabilities.xml` | GET | → libvirt capabilities |
//! | `/domains`, `/domains.xml` | GET | → [`DomainReport`]s, or a list with hyperlinks |
//! | `/domain/NAME` | PUT `?generation=N` | archive (tar, plain, gzip or bzip2) → [`DomainReport`]; 409 with `details.missing` = digests to send along |
//! | `/domain/NAME` | GET | → the archive (tar; files named by digest are left out unless `?whole=true`) |
//! | `/domain/NAME` | DELETE | → nothing; the domain must be stopped |
//! | `/domain/NAME?forget=true` | DELETE, [`ForgetQuery`] in the query | → nothing; only of a domain that the journal does not know: what runs of it is ended |
//! | `/domain/NAME/config.xml`, `/domain/NAME/FILE` | GET | → a file that config.xml names |
//! | `/domain/NAME/layer` | PUT, [`LayerQuery`] in the query | a layer archive (newc) → stream of [`LayerLine`]; laid over the running guest, and kept for its next start |
//! | `/domain/NAME/status`, `…/status.xml` | GET, PUT | [`StatusOrder`] → [`DomainReport`] (`<status><state>…</state></status>`) |
//! | `/domain/NAME/saved` | PUT, DELETE | [`SaveOrder`] → [`DomainReport`]; its memory goes to the host's disk and it ends; DELETE drops that |
//! | `/domain/NAME/restore` | POST | [`SaveOrder`] → [`DomainReport`]; it goes on from there |
//! | `/domain/NAME/incoming` | PUT | archive, [`PrepareQuery`] in the query → [`Prepared`] |
//! | `/domain/NAME/images` | PUT | archive, as its source gives it → nothing; 409 where the images here are not the very same files |
//! | `/domain/NAME/move` | POST | [`MoveOrder`] → [`OperationReport`] |
//! | `/domain/NAME/abort`, `…/discard` | POST | [`GrantOrder`] → [`GrantAnswer`] |
//! | `/domain/NAME/ready`, `…/commit` | POST | [`GrantOrder`] → [`GrantAnswer`] (agents only) |
//! | `/operation/ID` | GET | → [`OperationReport`] |
//! | `/domain/NAME/boot` | GET | → boot report lines as init wrote them, with the agent's time of arrival |
//! | `/domain/NAME/boots` | GET | → [`Boots`]: what is known of each boot that is kept, the oldest first |
//! | `/domain/NAME/boots` | PUT | [`Boots`] → nothing: those of a domain that moves here, from where it is or was; joined with what is known here |
//! | `/domain/NAME/boots/answered` | PUT | [`AnsweredOrder`] → whether that is its last boot |
//! | `/domain/NAME/console.log` | GET | → text |
//! | `/domain/NAME/console`, `/domain/NAME/tcp/PORT` | GET + Upgrade `estive-stream` | a byte stream |
//! | `/file/DIGEST` | HEAD, PUT | → whether it is here; the bytes |
//! | `/events?after=N` | GET | → [`estive_model::Event`]s after that sequence number |
//!
//! | manager's route | method | body → answer |
//! |---|---|---|
//! | `/about` | GET | → [`ManagerAbout`] |
//! | `/hosts` | GET | → [`HostReport`]s |
//! | `/domains`, `/domain/NAME` | GET | → [`HerdDomain`]s, one |
//! | `/domain/NAME` | PUT, [`DefineQuery`] in the query | the XML of a domain with image files → [`HerdDomain`] |
//! | `/domain/NAME` | DELETE | → nothing; of one that was defined so, and is stopped |
//! | `/deployment/NAME` | PUT | the herd's folder as tar → stream of [`UpLine`] |
//! | `/deployment/NAME` | DELETE | → stream of [`DownLine`] |
//! | `/deployment/NAME/layers` | PUT, [`PushQuery`] in the query | the herd's folder as tar → stream of [`PushLine`]; its clones take their layers, running or not |
//! | `/deployments` | GET | → [`DeploymentReport`]s |
//! | `/roots` | GET | → [`RootsInUse`] |
//! | `/world` | GET | → the herd as a planner sees it, in the form of `docs/world.md` |
//! | `/domain/NAME/migrate` | POST | [`MigrateOrder`] → stream of [`MigrateLine`] |
//! | `/domain/NAME/migrate` | DELETE | → [`HerdDomain`]; gives an open move up, if its source still can |
//! | `/domain/NAME/status` | PUT | [`StatusOrder`] → [`HerdDomain`] |
//! | `/domain/NAME/saved`, `…/restore` | PUT, DELETE; POST | [`SaveOrder`] without generation → [`HerdDomain`] |
//! | `/domain/NAME/host-key` | GET | → [`HostKey`] |
//! | `/domain/NAME/boots` | GET | → [`Boots`], from the owner's agent |
//! | `/domain/NAME/console.log`, `…/boot`, `…/console`, `…/tcp/PORT` | GET | passed on to the owner's agent |
//! | `/volumes`, `/volume/NAME` | GET | → [`VolumeReport`]s, one |
//! | `/volume/NAME` | DELETE | → nothing; its domain must be gone |
//! | `/volume/NAME/size` | PUT | [`ResizeOrder`] → [`VolumeReport`]; its domain must be stopped |
//! | `/volume/NAME/restore` | POST | [`RestoreOrder`] → [`VolumeReport`]; its domain must be stopped |
//! | `/volume/NAME/snapshots/SNAPSHOT` | PUT, DELETE | → [`VolumeReport`] |
//! | `/events?after=N&domain=NAME` | GET | → [`estive_model::Event`]s |
//!
//! | storage host's route | method | body → answer |
//! |---|---|---|
//! | `/v1/volumes`, `/v1/volumes/NAME` | GET | → [`VolumeReport`]s, one |
//! | `/v1/volumes/NAME` | PUT | [`VolumeWish`] → [`VolumeReport`]; made with an empty file system, or found again |
//! | `/v1/volumes/NAME` | DELETE | → nothing; no export may be left |
//! | `/v1/volumes/NAME/grants/GENERATION` | PUT | [`VolumeGrant`] → [`VolumeReport`] (manager only) |
//! | `/v1/volumes/NAME/exports/GENERATION` | PUT | → [`ExportPlace`] (agents only, what they were granted) |
//! | `/v1/volumes/NAME/exports/GENERATION` | DELETE | → nothing; its clients are cut (an agent: what it was granted) |
//! | `/v1/volumes/NAME/fence` | PUT | [`FenceOrder`] → [`VolumeReport`]; answered when every older export is gone (an agent: to what it was granted) |
//! | `/v1/volumes/NAME/size` | PUT | [`ResizeOrder`] → [`VolumeReport`]; no export may be open |
//! | `/v1/volumes/NAME/snapshots/SNAPSHOT` | PUT, DELETE | → [`VolumeReport`] |
//! | `/v1/volumes/NAME/restore` | POST | [`RestoreOrder`] → [`VolumeReport`]; no export may be left |
//!
//! | route of an origin: `estive storage`, `estive cache` | method | body → answer |
//! |---|---|---|
//! | `/v1/manifests/HEX` | GET (agents, storage, managers) | → the root's [`SignedManifest`](estive_chunks::SignedManifest) |
//! | `/v1/chunks/DIGEST` | GET (agents, storage, managers) | → the chunk's bytes; 404: it is not here |

mod agent;
mod cache;
mod live;
mod manager;
mod volumes;

pub use agent::*;
pub use cache::*;
pub use live::*;
pub use manager::*;
pub use volumes::*;

//! The storage host's routes for volumes; the table is in [`estive_api::wire`]. Who may do what stands here.

use crate::error::VolumeError;
use crate::seam::{By, Volumes};
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use estive_api::server::{JsonBody, with_body_limit};
use estive_api::wire::{
    ExportPlace, FenceOrder, MAX_DOCUMENT_BYTES, ResizeOrder, RestoreOrder, SnapshotName,
    VolumeGrant, VolumeReport, VolumeWish,
};
use estive_api::{Peer, Problem, Role};
use estive_model::{DomainName, Generation, NameError};
use std::sync::Arc;

/// Who decides what there is.
const KEEPERS: &[Role] = &[Role::Manager];
/// Who opens and closes doors for a domain.
const RUNNERS: &[Role] = &[Role::Manager, Role::Agent];
/// Who may let itself in.
const AGENTS: &[Role] = &[Role::Agent];

type Keeper = State<Arc<dyn Volumes>>;
type Who = Extension<Peer>;
type Answer<T> = Result<Json<T>, Problem>;

/// All routes for volumes.
pub fn router(volumes: Arc<dyn Volumes>) -> Router {
    let routes = Router::new()
        .route("/v1/volumes", get(list))
        .route("/v1/volumes/{name}", get(show).put(create).delete(remove))
        .route("/v1/volumes/{name}/grants/{generation}", put(grant))
        .route(
            "/v1/volumes/{name}/exports/{generation}",
            put(export).delete(withdraw),
        )
        .route("/v1/volumes/{name}/fence", put(fence))
        .route("/v1/volumes/{name}/size", put(resize))
        .route(
            "/v1/volumes/{name}/snapshots/{snapshot}",
            put(snapshot).delete(drop_snapshot),
        )
        .route("/v1/volumes/{name}/restore", post(restore))
        .fallback(|| async { Problem::not_found("there is no such resource on a storage host") })
        .with_state(volumes);
    with_body_limit(routes, MAX_DOCUMENT_BYTES)
}

fn named(name: &str) -> Result<DomainName, Problem> {
    DomainName::new(name).map_err(|error: NameError| Problem::invalid(error.to_string()))
}

fn numbered(generation: &str) -> Result<Generation, Problem> {
    let plain = generation.bytes().all(|byte| byte.is_ascii_digit());
    match generation.parse() {
        Ok(number) if plain => Ok(Generation(number)),
        _ => Err(Problem::invalid("a generation is a whole number")),
    }
}

fn snapshot_named(name: &str) -> Result<SnapshotName, Problem> {
    SnapshotName::new(name).map_err(|error| Problem::invalid(error.to_string()))
}

fn answered<T>(outcome: Result<T, VolumeError>) -> Answer<T> {
    outcome.map(Json).map_err(Problem::from)
}

async fn list(State(volumes): Keeper, Extension(peer): Who) -> Answer<Vec<VolumeReport>> {
    peer.require(KEEPERS)?;
    answered(volumes.list().await)
}

async fn show(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path(name): Path<String>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    answered(volumes.show(&named(&name)?).await)
}

async fn create(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path(name): Path<String>,
    JsonBody(wish): JsonBody<VolumeWish>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    answered(volumes.create(&named(&name)?, &wish).await)
}

async fn remove(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path(name): Path<String>,
) -> Answer<()> {
    peer.require(KEEPERS)?;
    answered(volumes.remove(&named(&name)?).await)
}

/// Of an agent counts only what its host was granted.
fn by(peer: &Peer) -> By<'_> {
    match peer {
        Peer::Certified {
            role: Role::Agent,
            name,
        } => By::Host(name),
        Peer::Certified { .. } | Peer::Local { .. } => By::Keeper,
    }
}

async fn grant(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path((name, generation)): Path<(String, String)>,
    JsonBody(grant): JsonBody<VolumeGrant>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    let (name, generation) = (named(&name)?, numbered(&generation)?);
    let granted = volumes
        .grant(&name, generation, grant.client.as_str())
        .await;
    if granted.is_ok() {
        tracing::info!(volume = %name, %generation, client = %grant.client, by = %peer, "granted");
    }
    answered(granted)
}

async fn export(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path((name, generation)): Path<(String, String)>,
) -> Answer<ExportPlace> {
    peer.require(AGENTS)?;
    // The certificate says which host is let in; nobody opens a door for another.
    let client = match &peer {
        Peer::Certified { name, .. } => name.clone(),
        Peer::Local { .. } => "local".to_owned(),
    };
    let (name, generation) = (named(&name)?, numbered(&generation)?);
    let place = volumes.export(&name, generation, &client).await;
    if place.is_ok() {
        tracing::info!(volume = %name, %generation, %client, "a generation is let in");
    }
    answered(place)
}

async fn withdraw(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path((name, generation)): Path<(String, String)>,
) -> Answer<()> {
    peer.require(RUNNERS)?;
    let (name, generation) = (named(&name)?, numbered(&generation)?);
    tracing::info!(volume = %name, %generation, by = %peer, "a generation is cut off");
    answered(volumes.withdraw(&name, generation, by(&peer)).await)
}

async fn fence(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<FenceOrder>,
) -> Answer<VolumeReport> {
    peer.require(RUNNERS)?;
    let name = named(&name)?;
    let fenced = match &order.only_at {
        None => volumes.fence(&name, order.generation, by(&peer)).await,
        Some(only_at) => {
            let fenced = volumes.fence_from(&name, only_at, order.generation, by(&peer));
            fenced.await
        }
    };
    if fenced.is_ok() {
        tracing::info!(volume = %name, below = %order.generation, by = %peer, "fenced");
    }
    answered(fenced)
}

async fn resize(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<ResizeOrder>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    answered(volumes.resize(&named(&name)?, order.size_bytes).await)
}

async fn snapshot(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path((name, snapshot)): Path<(String, String)>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    let (name, snapshot) = (named(&name)?, snapshot_named(&snapshot)?);
    answered(volumes.snapshot(&name, &snapshot).await)
}

async fn drop_snapshot(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path((name, snapshot)): Path<(String, String)>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    let (name, snapshot) = (named(&name)?, snapshot_named(&snapshot)?);
    answered(volumes.drop_snapshot(&name, &snapshot).await)
}

async fn restore(
    State(volumes): Keeper,
    Extension(peer): Who,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<RestoreOrder>,
) -> Answer<VolumeReport> {
    peer.require(KEEPERS)?;
    answered(volumes.restore(&named(&name)?, &order.snapshot).await)
}

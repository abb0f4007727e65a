//! Volumes on the manager's routes. They hold what clones have written, so only those who may order may look.

use super::{App, domain_name, may_order};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use estive_api::server::JsonBody;
use estive_api::wire::{ResizeOrder, RestoreOrder, SnapshotName, VolumeReport};
use estive_api::{Peer, Problem};

type Who = Extension<Peer>;
type Answer<T> = Result<Json<T>, Problem>;

fn snapshot_name(text: &str) -> Result<SnapshotName, Problem> {
    SnapshotName::new(text).map_err(|error| Problem::impossible(error.to_string()))
}

pub(super) async fn list(State(manager): App, Extension(peer): Who) -> Answer<Vec<VolumeReport>> {
    may_order(&peer)?;
    manager.volume_list().await.map(Json)
}

pub(super) async fn show(
    State(manager): App,
    Extension(peer): Who,
    Path(name): Path<String>,
) -> Answer<VolumeReport> {
    may_order(&peer)?;
    manager.volume(&domain_name(&name)?).await.map(Json)
}

pub(super) async fn remove(
    State(manager): App,
    Extension(peer): Who,
    Path(name): Path<String>,
) -> Answer<()> {
    may_order(&peer)?;
    manager.remove_volume(&domain_name(&name)?).await.map(Json)
}

pub(super) async fn resize(
    State(manager): App,
    Extension(peer): Who,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<ResizeOrder>,
) -> Answer<VolumeReport> {
    may_order(&peer)?;
    let name = domain_name(&name)?;
    manager.resize_volume(&name, order).await.map(Json)
}

pub(super) async fn restore(
    State(manager): App,
    Extension(peer): Who,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<RestoreOrder>,
) -> Answer<VolumeReport> {
    may_order(&peer)?;
    let name = domain_name(&name)?;
    manager.restore_volume(&name, &order).await.map(Json)
}

pub(super) async fn snapshot(
    State(manager): App,
    Extension(peer): Who,
    Path((name, snapshot)): Path<(String, String)>,
) -> Answer<VolumeReport> {
    may_order(&peer)?;
    let (name, snapshot) = (domain_name(&name)?, snapshot_name(&snapshot)?);
    manager.snapshot_volume(&name, &snapshot).await.map(Json)
}

pub(super) async fn drop_snapshot(
    State(manager): App,
    Extension(peer): Who,
    Path((name, snapshot)): Path<(String, String)>,
) -> Answer<VolumeReport> {
    may_order(&peer)?;
    let (name, snapshot) = (domain_name(&name)?, snapshot_name(&snapshot)?);
    manager
        .drop_volume_snapshot(&name, &snapshot)
        .await
        .map(Json)
}

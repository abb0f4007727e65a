//! The routes of a domain's boots: told to whoever asks, brought along when it moves, and when it answered.

use super::{MANAGERS, MOVERS, Shared, held, trusted};
use crate::agent::Agent;
use crate::boot_log::BootLog;
use crate::domain::Handle;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use estive_api::server::JsonBody;
use estive_api::wire::{AnsweredOrder, ArrivedLine, Boots};
use estive_api::{Peer, Problem};
use std::sync::{MutexGuard, PoisonError};

fn log(handle: &Handle) -> MutexGuard<'_, BootLog> {
    handle.boot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(agent: &Agent, handle: &Handle, log: &BootLog) {
    log.keep(&agent.place(&handle.shown.borrow().record.name));
}

/// Its archive has just been put in its place, which took what was kept there.
pub(super) fn archive_taken(agent: &Agent, handle: &Handle, began_ms: u64) {
    let mut log = log(handle);
    log.take_archive(began_ms, agent.clock.now_ms());
    keep(agent, handle, &log);
}

/// What init reported of the last boot.
pub(super) async fn lines(
    State(agent): Shared,
    Path(name): Path<String>,
) -> Result<Json<Vec<ArrivedLine>>, Problem> {
    let handle = held(&agent, &name)?;
    let last = log(&handle).boots.last().map(|boot| boot.lines.clone());
    Ok(Json(last.unwrap_or_default()))
}

pub(super) async fn kept(
    State(agent): Shared,
    Path(name): Path<String>,
) -> Result<Json<Boots>, Problem> {
    let handle = held(&agent, &name)?;
    let boots = log(&handle).boots.clone();
    Ok(Json(boots))
}

pub(super) async fn bring_along(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(boots): JsonBody<Boots>,
) -> Result<Json<()>, Problem> {
    peer.require(MOVERS)?;
    let handle = trusted(&agent, &name)?;
    let mut log = log(&handle);
    log.came_along(boots);
    keep(&agent, &handle, &log);
    Ok(Json(()))
}

pub(super) async fn answered(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<AnsweredOrder>,
) -> Result<Json<bool>, Problem> {
    peer.require(MANAGERS)?;
    let handle = trusted(&agent, &name)?;
    let mut log = log(&handle);
    let is_taken = log.answered(order.asked_ms, order.answered);
    keep(&agent, &handle, &log);
    Ok(Json(is_taken))
}

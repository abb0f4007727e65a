//! The manager's routes, as the table in `estive_api::wire` lists them. Reading is for every role of the authority,
//! orders are for users and managers, and for root on this machine.

mod volumes;

use crate::agents;
use crate::herd_folder;
use crate::manager::Manager;
use crate::move_loop::Outcome;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use estive_api::server::{BytesBody, JsonBody, json_lines, with_body_limit};
use estive_api::upgrade::{accept_upgrade, splice};
use estive_api::wire::{
    Boots, DefineQuery, DeploymentReport, HerdDomain, HostKey, HostReport, MAX_DOCUMENT_BYTES,
    ManagerAbout, MigrateLine, MigrateOrder, PushQuery, RootsInUse, SaveOrder, StatusOrder,
};
use estive_api::{Peer, Problem, Role};
use estive_model::{DeploymentName, DomainName, Event};
use futures_util::stream;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type App = State<Arc<Manager>>;

/// Lines that may wait for a slow reader before the work waits for it.
const LINES: usize = 1024;
/// For a console log or a boot report on its way through.
const PASSED_ON: Duration = Duration::from_secs(30);
const PASSED_ON_BYTES: usize = 64 << 20;

/// All routes.
pub(crate) fn router(manager: Arc<Manager>) -> Router {
    let herd = with_body_limit(
        Router::new()
            .route("/deployment/{name}", put(up).delete(down))
            .route("/deployment/{name}/layers", put(push_layers))
            .with_state(manager.clone()),
        herd_folder::MAX_BYTES,
    );
    let documents = with_body_limit(
        Router::new()
            .route("/about", get(about))
            .route("/hosts", get(hosts))
            .route("/domains", get(domains))
            .route("/domain/{name}", get(domain).put(define).delete(delete))
            .route("/domain/{name}/status", get(domain).put(status))
            .route("/domain/{name}/migrate", post(migrate).delete(give_up))
            .route("/domain/{name}/saved", put(save).delete(drop_saved))
            .route("/domain/{name}/restore", post(restore))
            .route("/domain/{name}/host-key", get(host_key))
            .route("/domain/{name}/console.log", get(pass_on_text))
            .route("/domain/{name}/boot", get(pass_on_text))
            .route("/domain/{name}/boots", get(boots))
            .route("/domain/{name}/console", get(pass_on_stream))
            .route("/domain/{name}/tcp/{port}", get(pass_on_stream))
            .route("/volumes", get(volumes::list))
            .route("/volume/{name}", get(volumes::show).delete(volumes::remove))
            .route("/volume/{name}/size", put(volumes::resize))
            .route("/volume/{name}/restore", post(volumes::restore))
            .route(
                "/volume/{name}/snapshots/{snapshot}",
                put(volumes::snapshot).delete(volumes::drop_snapshot),
            )
            .route("/deployments", get(deployments))
            .route("/roots", get(roots))
            .route("/world", get(world))
            .route("/events", get(events))
            .with_state(manager),
        MAX_DOCUMENT_BYTES,
    );
    herd.merge(documents).fallback(nowhere)
}

async fn nowhere(request: Request) -> Problem {
    Problem::not_found(format!(
        "the manager has nothing at {} {}",
        request.method(),
        request.uri().path()
    ))
    .advice("are command line and manager of the same version?")
}

fn may_order(peer: &Peer) -> Result<(), Problem> {
    peer.require(&[Role::User, Role::Manager])
}

fn domain_name(text: &str) -> Result<DomainName, Problem> {
    DomainName::new(text).map_err(|error| Problem::impossible(error.to_string()))
}

fn deployment_name(text: &str) -> Result<DeploymentName, Problem> {
    DeploymentName::new(text).map_err(|error| Problem::impossible(error.to_string()))
}

async fn about(State(manager): App) -> Result<Json<ManagerAbout>, Problem> {
    manager.about().await.map(Json)
}

async fn hosts(State(manager): App) -> Result<Json<Vec<HostReport>>, Problem> {
    manager.host_reports().await.map(Json)
}

async fn domains(State(manager): App) -> Result<Json<Vec<HerdDomain>>, Problem> {
    manager.herd().await.map(Json)
}

async fn domain(
    State(manager): App,
    Path(name): Path<String>,
) -> Result<Json<HerdDomain>, Problem> {
    manager
        .herd_domain_now(&domain_name(&name)?)
        .await
        .map(Json)
}

async fn define(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<DefineQuery>, axum::extract::rejection::QueryRejection>,
    BytesBody(description): BytesBody,
) -> Result<Json<HerdDomain>, Problem> {
    may_order(&peer)?;
    let Query(query) = query?;
    let (name, doing) = (domain_name(&name)?, manager.clone());
    let defined = async move { doing.define_images(&name, query.host, description).await };
    manager.finish(defined).await.map(Json)
}

async fn delete(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<()>, Problem> {
    may_order(&peer)?;
    let (name, doing) = (domain_name(&name)?, manager.clone());
    let deleted = manager.finish(async move { doing.delete(&name).await });
    deleted.await.map(Json)
}

async fn host_key(State(manager): App, Path(name): Path<String>) -> Result<Json<HostKey>, Problem> {
    let name = domain_name(&name)?;
    let record = manager.records.domain(&name).await?;
    let deployment = record.deployment.ok_or_else(|| {
        Problem::impossible(format!(
            "{name} has disks of its own: its host key is what lies there, and not known here"
        ))
    })?;
    let secret = manager.secret(&deployment).await?;
    let public_key = secret.of_clone(name.as_str()).ssh_host_key_public;
    Ok(Json(HostKey { public_key }))
}

async fn deployments(State(manager): App) -> Result<Json<Vec<DeploymentReport>>, Problem> {
    let mut named: BTreeMap<DeploymentName, Vec<DomainName>> = BTreeMap::new();
    for record in manager.records.domains().await? {
        if let Some(deployment) = record.deployment {
            named.entry(deployment).or_default().push(record.name);
        }
    }
    Ok(Json(
        named
            .into_iter()
            .map(|(name, domains)| DeploymentReport { name, domains })
            .collect(),
    ))
}

/// The world as text: what a planner is given.
async fn world(State(manager): App) -> Result<Response, Problem> {
    let text = manager.snapshot().await?.to_text();
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn roots(State(manager): App) -> Result<Json<RootsInUse>, Problem> {
    manager.roots_in_use().await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    domain: Option<DomainName>,
}

async fn events(
    State(manager): App,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<Event>>, Problem> {
    let Query(query) = query?;
    manager.gather_all_events().await;
    Ok(Json(
        manager.events.after(query.after, query.domain.as_ref()),
    ))
}

async fn up(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    BytesBody(folder): BytesBody,
) -> Result<Response, Problem> {
    may_order(&peer)?;
    let name = deployment_name(&name)?;
    let (lines, told) = mpsc::channel(LINES);
    // Not the request's own task: a command that goes away leaves nothing half-made.
    manager.spawn(manager.clone().up(name, folder, lines));
    Ok(json_lines(ReceiverStream::new(told)))
}

async fn push_layers(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<PushQuery>, axum::extract::rejection::QueryRejection>,
    BytesBody(folder): BytesBody,
) -> Result<Response, Problem> {
    may_order(&peer)?;
    let name = deployment_name(&name)?;
    let Query(query) = query?;
    let (lines, told) = mpsc::channel(LINES);
    manager.spawn(manager.clone().push_layers(name, query, folder, lines));
    Ok(json_lines(ReceiverStream::new(told)))
}

async fn down(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    may_order(&peer)?;
    let name = deployment_name(&name)?;
    let (lines, told) = mpsc::channel(LINES);
    manager.spawn(manager.clone().down(name, lines));
    Ok(json_lines(ReceiverStream::new(told)))
}

async fn status(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<StatusOrder>,
) -> Result<Json<HerdDomain>, Problem> {
    may_order(&peer)?;
    let name = domain_name(&name)?;
    // In a task of its own: half an order would be left when the command goes away.
    let doing = manager.clone();
    manager
        .finish(async move { doing.order_status(&name, order).await })
        .await
        .map(Json)
}

/// In tasks of their own, as a change of status.
async fn save(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<SaveOrder>,
) -> Result<Json<HerdDomain>, Problem> {
    may_order(&peer)?;
    refuse_generation(&order)?;
    let (name, doing) = (domain_name(&name)?, manager.clone());
    let saved = manager.finish(async move { doing.order_save(&name).await });
    saved.await.map(Json)
}

async fn restore(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<SaveOrder>,
) -> Result<Json<HerdDomain>, Problem> {
    may_order(&peer)?;
    refuse_generation(&order)?;
    let (name, doing) = (domain_name(&name)?, manager.clone());
    let restored = manager.finish(async move { doing.order_restore(&name).await });
    restored.await.map(Json)
}

async fn drop_saved(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<HerdDomain>, Problem> {
    may_order(&peer)?;
    let (name, doing) = (domain_name(&name)?, manager.clone());
    let dropped = manager.finish(async move { doing.drop_saved(&name).await });
    dropped.await.map(Json)
}

fn refuse_generation(order: &SaveOrder) -> Result<(), Problem> {
    match order.generation {
        Some(_) => Err(Problem::invalid(
            "generations are granted by the manager; leave generation away",
        )),
        None => Ok(()),
    }
}

async fn migrate(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<MigrateOrder>,
) -> Result<Response, Problem> {
    may_order(&peer)?;
    let name = domain_name(&name)?;
    let doing = manager.clone();
    let ordered = manager
        .finish(async move { doing.order_move(&name, order).await })
        .await?;
    let first = stream::once(async { ordered.line });
    let rest = stream::unfold(Some((ordered.stage, None)), |state| async {
        let (mut seen, mut told) = state?;
        loop {
            let stage = seen.borrow_and_update().clone();
            if let Some(outcome) = stage.outcome {
                let line = match outcome {
                    Outcome::Moved { report, whole_ms } => MigrateLine::Done { report, whole_ms },
                    Outcome::Failed(problem) => MigrateLine::Failed { problem },
                };
                return Some((line, None));
            }
            if let Some(problem) = stage.stalled {
                return Some((MigrateLine::Failed { problem }, None));
            }
            if let Some(report) = stage.report
                && told.as_ref() != Some(&report)
            {
                told = Some(report.clone());
                return Some((MigrateLine::Progress { report }, Some((seen, told))));
            }
            if seen.changed().await.is_err() {
                let problem =
                    Problem::failed("the manager is ending; the move goes on when it runs again");
                return Some((MigrateLine::Failed { problem }, None));
            }
        }
    });
    Ok(json_lines(futures_util::StreamExt::chain(first, rest)))
}

async fn give_up(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<HerdDomain>, Problem> {
    may_order(&peer)?;
    let name = domain_name(&name)?;
    manager
        .give_up_move(
            &name,
            Problem::failed(format!("moving {name}: given up by {peer}")),
        )
        .await?;
    manager.herd_domain_now(&name).await.map(Json)
}

/// The agent of the domain in a path.
async fn owner(manager: &Manager, path: &str) -> Result<agents::Agent, Problem> {
    let name = path.split('/').nth(2).unwrap_or_default();
    let record = manager.records.domain(&domain_name(name)?).await?;
    Ok(manager.host(&record.ownership.host)?.agent.clone())
}

async fn boots(State(manager): App, Path(name): Path<String>) -> Result<Json<Boots>, Problem> {
    let name = domain_name(&name)?;
    let record = manager.records.domain(&name).await?;
    let agent = &manager.host(&record.ownership.host)?.agent;
    let boots = agent.boots(&name).await;
    boots
        .map(Json)
        .map_err(|error| agents::problem(&agent.name, format!("the boots of {name}"), &error))
}

async fn pass_on_text(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Problem> {
    may_order(&peer)?;
    let path = request.uri().path().to_owned();
    let agent = owner(&manager, &path).await?;
    let bytes = agent
        .client()
        .get_bytes(&path, PASSED_ON_BYTES, PASSED_ON)
        .await
        .map_err(|error| agents::problem(&agent.name, "asking for it", &error))?;
    Ok((
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from(bytes),
    )
        .into_response())
}

async fn pass_on_stream(
    State(manager): App,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Problem> {
    may_order(&peer)?;
    let path = request.uri().path().to_owned();
    let agent = owner(&manager, &path).await?;
    let there = agent
        .client()
        .upgrade(&path, PASSED_ON)
        .await
        .map_err(|error| agents::problem(&agent.name, "connecting to it", &error))?;
    let shutdown = manager.shutdown.clone();
    Ok(accept_upgrade(request, move |here| async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            moved = splice(here, there) => {
                if let Err(error) = moved {
                    tracing::debug!(%error, "a stream that was passed on ended early");
                }
            }
        }
    }))
}

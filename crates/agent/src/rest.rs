//! The agent's routes; the table is in [`estive_api::wire`]. Who may do what stands here, with each group of routes.

mod bodies;
mod boots;
mod streams;

use crate::agent::Agent;
use crate::config::AccelConfig;
use crate::definition;
use crate::domain::{Handle, Order, refusal_problem};
use crate::images::blocking;
use crate::journal::Moving;
use crate::layer;
use crate::push;
use crate::strangers;
use crate::views;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use bodies::{keep_file, send_file, unpack};
use estive_api::domain_xml::{self, Accelerator, CONFIG_FILE, Description, IDENTITY_FILE};
use estive_api::server::{BytesBody, JsonBody, json_lines, with_body_limit};
use estive_api::wire::{
    AgentAbout, DomainReport, ForgetQuery, GrantAnswer, GrantOrder, LayerQuery, MAX_DOCUMENT_BYTES,
    MoveOrder, OperationReport, PrepareQuery, Prepared, SaveOrder, StatusOrder,
};
use estive_api::{Peer, Problem, Role};
use estive_model::{Digest, DomainName, DomainState, Event, Generation, OperationId};
use estive_moves::{Answer, Holding};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Who may order: an agent can be driven alone.
const ORDERERS: &[Role] = &[Role::Manager, Role::User];
/// Who may say what only a manager sees.
const MANAGERS: &[Role] = &[Role::Manager, Role::User];
/// Who may say that a move goes on: the other side of it.
const AGENTS: &[Role] = &[Role::Agent];
/// Who may read what a domain is made of: its layer has its host keys.
const READERS: &[Role] = &[Role::Manager, Role::User];
/// Who may bring along what belongs to a domain that moves: who drives the move, and the other side of it.
const MOVERS: &[Role] = &[Role::Manager, Role::User, Role::Agent];
/// Lines that may wait for a slow reader.
const LINES: usize = 16;
const LONGEST_GRACE_MS: u64 = 600_000;

type Shared = State<Arc<Agent>>;

#[derive(Clone)]
struct Ending(CancellationToken);

/// All routes of an agent. Streams end when `shutdown` is cancelled.
pub fn router(agent: Arc<Agent>, shutdown: CancellationToken) -> Router {
    let routes = Router::new()
        .route("/about", get(about))
        .route("/capabilities.xml", get(capabilities))
        .route("/domains", get(domains))
        .route("/domains.xml", get(domains_xml))
        .route("/domain/{name}", get(archive).put(define).delete(forget))
        .route("/domain/{name}/status", get(status).put(set_status))
        .route(
            "/domain/{name}/status.xml",
            get(status_xml).put(set_status_xml),
        )
        .route("/domain/{name}/incoming", put(prepare))
        .route("/domain/{name}/images", put(images))
        .route("/domain/{name}/saved", put(save).delete(drop_saved))
        .route("/domain/{name}/restore", post(restore))
        .route("/domain/{name}/move", post(send_away))
        .route("/domain/{name}/abort", post(abort))
        .route("/domain/{name}/discard", post(discard))
        .route("/domain/{name}/ready", post(ready))
        .route("/domain/{name}/commit", post(commit))
        .route("/domain/{name}/boot", get(boots::lines))
        .route(
            "/domain/{name}/boots",
            get(boots::kept).put(boots::bring_along),
        )
        .route("/domain/{name}/boots/answered", put(boots::answered))
        .route("/domain/{name}/console.log", get(console_log))
        .route("/domain/{name}/console", get(streams::console))
        .route("/domain/{name}/tcp/{port}", get(streams::tcp))
        .route("/domain/{name}/layer", get(layer).put(push_layer))
        .route("/domain/{name}/{file}", get(file))
        .route("/operation/{id}", get(operation))
        .route("/file/{digest}", get(shared_file).put(put_file))
        .route("/events", get(events))
        .fallback(|| async { Problem::not_found("there is no such resource on an agent") })
        .with_state(agent)
        .layer(Extension(Ending(shutdown)));
    with_body_limit(routes, MAX_DOCUMENT_BYTES)
}

fn named(name: &str) -> Result<DomainName, Problem> {
    DomainName::new(name).map_err(|error| Problem::invalid(error.to_string()))
}

/// The domain, known to the journal.
fn known(agent: &Agent, name: &str) -> Result<Handle, Problem> {
    let name = named(name)?;
    agent.domain(&name).ok_or_else(|| {
        Problem::not_found(format!("{} has never heard of {name}", agent.config.name))
    })
}

/// The domain, held here now.
fn held(agent: &Agent, name: &str) -> Result<Handle, Problem> {
    let handle = known(agent, name)?;
    let listed = handle.shown.borrow().is_listed();
    match listed {
        true => Ok(handle),
        false => Err(Problem::not_found(format!(
            "{name} is not on {}",
            agent.config.name
        ))),
    }
}

/// The same, of which the journal can be believed.
fn trusted(agent: &Agent, name: &str) -> Result<Handle, Problem> {
    let handle = held(agent, name)?;
    strangers::refuse_distrusted(&handle)?;
    Ok(handle)
}

/// Orders; a refusal becomes a problem.
async fn done(handle: &Handle, order: Order) -> Result<(), Problem> {
    match handle.order(order).await? {
        Answer::Refused(refusal) => {
            let record = handle.shown.borrow().record.clone();
            Err(refusal_problem(&record, refusal))
        }
        _ => Ok(()),
    }
}

fn xml(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/xml")], text).into_response()
}

async fn about(State(agent): Shared) -> Json<AgentAbout> {
    Json(agent.about())
}

async fn capabilities(State(agent): Shared) -> Response {
    let kind = match agent.config.accel {
        AccelConfig::Tcg => Accelerator::Emulation,
        AccelConfig::Kvm => Accelerator::Kvm,
    };
    xml(views::capabilities(&agent.about(), kind.word()))
}

async fn reports(agent: &Agent) -> Vec<DomainReport> {
    let handles = agent.handles();
    let listed = handles
        .iter()
        .filter(|handle| handle.shown.borrow().is_listed());
    futures_util::future::join_all(listed.map(|handle| agent.report(handle))).await
}

async fn domains(State(agent): Shared) -> Json<Vec<DomainReport>> {
    Json(reports(&agent).await)
}

async fn domains_xml(State(agent): Shared) -> Response {
    xml(views::domains(&reports(&agent).await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefineQuery {
    generation: Option<Generation>,
}

async fn define(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<DefineQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Json<DomainReport>, Problem> {
    peer.require(ORDERERS)?;
    let name = named(&name)?;
    let Query(query) = query?;
    let began_ms = agent.clock.now_ms();
    let staged = unpack(&agent, &name, request.into_body()).await?;
    let handle = agent.domain_or_new(&name);
    done(&handle, Order::Define(staged, query.generation)).await?;
    boots::archive_taken(&agent, &handle, began_ms);
    Ok(Json(agent.report(&handle).await))
}

async fn forget(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<ForgetQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<()>, Problem> {
    peer.require(ORDERERS)?;
    let handle = known(&agent, &name)?;
    let Query(query) = query?;
    let order = match query.forget {
        true => Order::Disown(query.floor),
        false => Order::Forget,
    };
    done(&handle, order).await?;
    Ok(Json(()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveQuery {
    #[serde(default)]
    whole: bool,
}

async fn archive(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<ArchiveQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    let handle = trusted(&agent, &name)?;
    let Query(query) = query?;
    bodies::packed(&agent, &handle, query.whole).await
}

async fn status(
    State(agent): Shared,
    Path(name): Path<String>,
) -> Result<Json<DomainReport>, Problem> {
    // Also of a domain that is gone: its entry says what was decided here.
    let handle = known(&agent, &name)?;
    Ok(Json(agent.report(&handle).await))
}

async fn status_xml(State(agent): Shared, Path(name): Path<String>) -> Result<Response, Problem> {
    let handle = held(&agent, &name)?;
    Ok(xml(views::status(&agent.report(&handle).await)))
}

async fn set_status(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<StatusOrder>,
) -> Result<Json<DomainReport>, Problem> {
    peer.require(ORDERERS)?;
    Ok(Json(change_status(&agent, &name, order).await?))
}

async fn set_status_xml(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    BytesBody(body): BytesBody,
) -> Result<Response, Problem> {
    peer.require(ORDERERS)?;
    let text =
        std::str::from_utf8(&body).map_err(|_| Problem::invalid("the status is not UTF-8 text"))?;
    let state =
        domain_xml::parse_status(text).map_err(|error| Problem::invalid(error.to_string()))?;
    let order = StatusOrder {
        state,
        generation: None,
        grace_ms: 0,
    };
    let report = change_status(&agent, &name, order).await?;
    Ok(xml(views::status(&report)))
}

async fn change_status(
    agent: &Agent,
    name: &str,
    order: StatusOrder,
) -> Result<DomainReport, Problem> {
    let handle = held(agent, name)?;
    match order.state {
        DomainState::Running => done(&handle, Order::Start(order.generation)).await?,
        DomainState::Paused => done(&handle, Order::Pause).await?,
        DomainState::Stopped => {
            if order.grace_ms > 0 {
                done(&handle, Order::PowerButton).await?;
                let grace = Duration::from_millis(order.grace_ms.min(LONGEST_GRACE_MS));
                let mut shown = handle.shown.subscribe();
                let stopped =
                    shown.wait_for(|shown| shown.record.entry.holding != Holding::Running);
                let _ = tokio::time::timeout(grace, stopped).await;
            }
            done(&handle, Order::Stop).await?;
        }
        other => {
            return Err(Problem::invalid(format!(
                "a domain cannot be asked to be {other}; ask for running, paused or stopped"
            )));
        }
    }
    Ok(agent.report(&handle).await)
}

async fn save(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<SaveOrder>,
) -> Result<Json<DomainReport>, Problem> {
    peer.require(ORDERERS)?;
    let handle = held(&agent, &name)?;
    done(&handle, Order::Save(order.generation)).await?;
    Ok(Json(agent.report(&handle).await))
}

async fn restore(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<SaveOrder>,
) -> Result<Json<DomainReport>, Problem> {
    peer.require(ORDERERS)?;
    let handle = held(&agent, &name)?;
    done(&handle, Order::Restore(order.generation)).await?;
    Ok(Json(agent.report(&handle).await))
}

async fn drop_saved(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<DomainReport>, Problem> {
    peer.require(ORDERERS)?;
    let handle = held(&agent, &name)?;
    done(&handle, Order::DropSaved).await?;
    Ok(Json(agent.report(&handle).await))
}

async fn prepare(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<PrepareQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Json<Prepared>, Problem> {
    peer.require(ORDERERS)?;
    let name = named(&name)?;
    let Query(query) = query?;
    let staged = unpack(&agent, &name, request.into_body()).await?;
    let handle = agent.domain_or_new(&name);
    done(&handle, Order::Prepare(staged, query)).await?;
    let record = handle.shown.borrow().record.clone();
    match record.moving {
        Some(Moving::Destination { stream, .. }) => Ok(Json(stream)),
        _ => Err(Problem::failed(format!(
            "{name} was prepared, and dropped again before that could be answered"
        ))),
    }
}

/// Whether it could be taken in with its images, asked before anything begins.
async fn images(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<()>, Problem> {
    peer.require(ORDERERS)?;
    let staged = unpack(&agent, &named(&name)?, request.into_body()).await?;
    let Description::Images(xml) = staged.xml.clone() else {
        return Ok(Json(()));
    };
    blocking(move || agent.prove_images(&xml, &staged.proofs)).await?;
    Ok(Json(()))
}

async fn send_away(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(order): JsonBody<MoveOrder>,
) -> Result<Json<OperationReport>, Problem> {
    peer.require(ORDERERS)?;
    let handle = held(&agent, &name)?;
    let operation = order.operation.clone();
    done(&handle, Order::Move(order)).await?;
    find_operation(&agent, &operation)
}

async fn grant(
    agent: &Arc<Agent>,
    name: &str,
    order: impl FnOnce(Generation) -> Order,
    body: GrantOrder,
) -> Result<Json<GrantAnswer>, Problem> {
    // Also for a domain never heard of: a late order of that grant must then be refused.
    let handle = agent.domain_or_new(&named(name)?);
    let answer = handle.order(order(body.generation)).await?;
    Ok(Json(GrantAnswer {
        answer: serde_json::to_value(answer)
            .map_err(|error| Problem::failed(format!("the answer cannot be written: {error}")))?,
    }))
}

async fn abort(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<GrantOrder>,
) -> Result<Json<GrantAnswer>, Problem> {
    peer.require(ORDERERS)?;
    grant(&agent, &name, Order::Abort, body).await
}

async fn discard(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<GrantOrder>,
) -> Result<Json<GrantAnswer>, Problem> {
    peer.require(ORDERERS)?;
    grant(&agent, &name, Order::Discard, body).await
}

async fn ready(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<GrantOrder>,
) -> Result<Json<GrantAnswer>, Problem> {
    peer.require(AGENTS)?;
    let order = |generation| Order::AskReady(generation, peer);
    grant(&agent, &name, order, body).await
}

async fn commit(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<GrantOrder>,
) -> Result<Json<GrantAnswer>, Problem> {
    peer.require(AGENTS)?;
    let order = |generation| Order::Commit(generation, peer);
    grant(&agent, &name, order, body).await
}

async fn console_log(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    held(&agent, &name)?;
    let path = agent.hypervisor.channels(&named(&name)?).console_log;
    send_file(&path, "text/plain; charset=utf-8", None).await
}

async fn layer(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    let handle = trusted(&agent, &name)?;
    let record = handle.shown.borrow().record.clone();
    let path = layer::path(&agent.place(&record.name), &record);
    send_file(&path, "application/octet-stream", Some(record.layer_bytes)).await
}

async fn push_layer(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    query: Result<Query<LayerQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    peer.require(ORDERERS)?;
    let handle = trusted(&agent, &name)?;
    let Query(query) = query?;
    let layer = bodies::layer(request.into_body()).await?;
    let (lines, told) = mpsc::channel(LINES);
    // Not the request's own task: who asked may go away, what was begun is brought to its end.
    agent.spawn(push::push(agent.clone(), handle, layer, query, lines));
    Ok(json_lines(ReceiverStream::new(told)))
}

async fn file(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    held(&agent, &name)?;
    let place = agent.place(&named(&name)?);
    match file.as_str() {
        CONFIG_FILE => send_file(&place.join(CONFIG_FILE), "application/xml", None).await,
        IDENTITY_FILE => send_file(&place.join(IDENTITY_FILE), "application/json", None).await,
        other => {
            let digest = Digest::new(other).ok();
            let description = definition::read_xml(&place)?;
            match digest.filter(|digest| description.digests().contains(&digest)) {
                Some(digest) => {
                    send_file(&agent.files.path(&digest), "application/octet-stream", None).await
                }
                None => Err(Problem::not_found(format!(
                    "config.xml of {name} names no file {:?}",
                    other.chars().take(80).collect::<String>()
                ))),
            }
        }
    }
}

fn find_operation(agent: &Agent, id: &OperationId) -> Result<Json<OperationReport>, Problem> {
    agent.operations.get(id).map(Json).ok_or_else(|| {
        Problem::not_found(format!(
            "no operation {id} is known on {}",
            agent.config.name
        ))
        .advice("ask the host that sends the domain")
    })
}

async fn operation(
    State(agent): Shared,
    Path(id): Path<String>,
) -> Result<Json<OperationReport>, Problem> {
    let id = OperationId::new(&id).map_err(|error| Problem::invalid(error.to_string()))?;
    find_operation(&agent, &id)
}

fn digest(text: &str) -> Result<Digest, Problem> {
    Digest::new(text).map_err(|error| Problem::invalid(error.to_string()))
}

/// HEAD, which says whether it is here. (GET is the same with the bytes.)
async fn shared_file(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    peer.require(&[Role::Manager, Role::User, Role::Agent])?;
    let digest = digest(&name)?;
    if !agent.files.has(&digest) {
        return Err(Problem::not_found(format!("{digest} is not here")));
    }
    send_file(&agent.files.path(&digest), "application/octet-stream", None).await
}

async fn put_file(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    peer.require(ORDERERS)?;
    let digest = digest(&name)?;
    keep_file(&agent, &digest, request.into_body()).await?;
    Ok((StatusCode::OK, Json(())).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
}

async fn events(
    State(agent): Shared,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<Event>>, Problem> {
    let Query(query) = query?;
    Ok(Json(agent.events.after(query.after)))
}

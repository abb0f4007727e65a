//! The routes of an origin: manifests by the root's name or by what people call it, chunks by their digest.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use estive_api::{Peer, Problem, Role};
use estive_chunks::ChunkDigest;
use estive_model::{Digest, ReferenceName};

/// Hosts read roots; a person with a user's certificate does not: a root may hold what a clone's owner must not see.
const READERS: &[Role] = &[Role::Agent, Role::Storage, Role::Manager];

/// Who has chunks and manifests to give.
#[async_trait]
pub trait Chunks: Send + Sync + 'static {
    /// The signed manifest of a root, encoded; `None` when it is not here.
    async fn manifest(&self, root: &Digest) -> Result<Option<Bytes>, Problem>;
    /// The signed manifest of the root that a name stands for now; `None` where no such name is known. Only who seals
    /// knows names.
    async fn named(&self, _name: &ReferenceName) -> Result<Option<Bytes>, Problem> {
        Ok(None)
    }
    /// The bytes of a chunk; `None` when it is not here.
    async fn chunk(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, Problem>;
}

/// `GET /v1/manifests/HEX`, `GET /v1/references/NAME` and `GET /v1/chunks/DIGEST`.
pub fn router(chunks: impl Chunks) -> Router {
    let chunks: Arc<dyn Chunks> = Arc::new(chunks);
    Router::new()
        .route("/v1/manifests/{hex}", get(manifest))
        .route("/v1/references/{name}", get(named))
        .route("/v1/chunks/{digest}", get(chunk))
        .fallback(|| async {
            Problem::not_found("there is no such resource on an origin of roots")
        })
        .with_state(chunks)
}

type Shared = State<Arc<dyn Chunks>>;

async fn manifest(
    State(chunks): Shared,
    Extension(peer): Extension<Peer>,
    Path(hex): Path<String>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    let name = Digest::new(format!("sha256:{hex}"))
        .map_err(|_| Problem::invalid("a root is named by 64 lower-case hex digits"))?;
    answer(chunks.manifest(&name).await?, "root")
}

async fn named(
    State(chunks): Shared,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    let name = ReferenceName::new(name).map_err(|error| Problem::invalid(error.to_string()))?;
    answer(chunks.named(&name).await?, "reference")
}

async fn chunk(
    State(chunks): Shared,
    Extension(peer): Extension<Peer>,
    Path(digest): Path<String>,
) -> Result<Response, Problem> {
    peer.require(READERS)?;
    let digest: ChunkDigest = digest
        .parse()
        .map_err(|error| Problem::invalid(format!("{error}")))?;
    answer(chunks.chunk(&digest).await?, "chunk")
}

fn answer(found: Option<Bytes>, what: &str) -> Result<Response, Problem> {
    found
        .map(|bytes| {
            let kind = [(axum::http::header::CONTENT_TYPE, "application/octet-stream")];
            (kind, bytes).into_response()
        })
        .ok_or_else(|| Problem::not_found(format!("there is no such {what} here")))
}

//! Large bodies: archives and files, always by way of the disk and never whole in memory.

use crate::agent::Agent;
use crate::archive::{Staged, pack, pack_images};
use crate::definition;
use crate::domain::Handle;
use crate::images::blocking;
use crate::layer::{self, PushedLayer};
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use estive_api::Problem;
use estive_api::domain_xml::Description;
use estive_api::wire::MAX_ARCHIVE_BYTES;
use estive_hypervisor::Grip;
use estive_model::{Digest, DomainName, LAYER_DISK_BYTES};
use futures_util::StreamExt as _;
use std::io::{Seek as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

/// A sender that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

async fn receive(body: Body, limit_bytes: u64, to: &mut impl Write) -> Result<(), Problem> {
    let mut parts = body.into_data_stream();
    let mut received = 0_u64;
    loop {
        let part = match tokio::time::timeout(SILENCE, parts.next()).await {
            Ok(Some(Ok(part))) => part,
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => {
                return Err(Problem::invalid(format!(
                    "the request's body did not arrive whole: {error}"
                )));
            }
            Err(_) => {
                return Err(Problem::invalid(
                    "the request's body did not go on for 60 s",
                ));
            }
        };
        received += part.len() as u64;
        if received > limit_bytes {
            return Err(Problem::invalid(format!(
                "the request's body is larger than {limit_bytes} bytes"
            )));
        }
        // Small parts into the page cache: no longer than a system call.
        to.write_all(&part).map_err(|error| {
            Problem::failed(format!("could not store the request's body: {error}"))
        })?;
    }
}

fn io_problem(doing: &'static str) -> impl Fn(std::io::Error) -> Problem {
    move |error| Problem::failed(format!("could not {doing}: {error}"))
}

/// Takes a domain's archive from a request's body apart.
pub(super) async fn unpack(
    agent: &Arc<Agent>,
    name: &DomainName,
    body: Body,
) -> Result<Staged, Problem> {
    let storing = io_problem("store the domain's archive");
    let mut file = tempfile::tempfile_in(agent.temporary()).map_err(&storing)?;
    receive(body, MAX_ARCHIVE_BYTES, &mut file).await?;
    file.rewind().map_err(&storing)?;
    let (agent, name) = (agent.clone(), name.clone());
    blocking(move || {
        let staged = Staged::unpack(file, &name, &agent.temporary(), &agent.files)?;
        if let Description::Images(xml) = &staged.xml {
            agent.check_images(xml)?;
        }
        Ok(staged)
    })
    .await
}

/// Takes a layer from a request's body; small enough for memory.
pub(super) async fn layer(body: Body) -> Result<PushedLayer, Problem> {
    let mut bytes = Vec::new();
    receive(body, LAYER_DISK_BYTES, &mut bytes).await?;
    blocking(move || PushedLayer::check(bytes.into())).await
}

/// A domain's archive as a response.
pub(super) async fn packed(
    agent: &Arc<Agent>,
    handle: &Handle,
    whole: bool,
) -> Result<Response, Problem> {
    let record = handle.shown.borrow().record.clone();
    let place = agent.place(&record.name);
    let xml = {
        let place = place.clone();
        blocking(move || definition::read_xml(&place)).await?
    };
    let proofs = match &xml {
        Description::Images(xml) => agent.show_images(xml, Grip::Locked).await?,
        Description::Clone(_) => Vec::new(),
    };
    let agent = agent.clone();
    let file = blocking(move || {
        let packing = io_problem("pack the domain's archive");
        let mut file = tempfile::tempfile_in(agent.temporary()).map_err(&packing)?;
        if let Description::Images(_) = &xml {
            pack_images(&mut file, &place, &proofs).map_err(&packing)?;
        } else {
            let files = whole.then_some((&agent.files, &xml));
            let layer = layer::path(&place, &record);
            pack(&mut file, &place, (&layer, record.layer_bytes), files).map_err(&packing)?;
        }
        file.rewind().map_err(&packing)?;
        Ok(file)
    })
    .await?;
    respond(tokio::fs::File::from_std(file), "application/x-tar", None).await
}

/// A file, or its first bytes, as a response.
pub(super) async fn send_file(
    path: &Path,
    content_type: &'static str,
    size: Option<u64>,
) -> Result<Response, Problem> {
    let file = tokio::fs::File::open(path).await.map_err(|error| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        match error.kind() {
            std::io::ErrorKind::NotFound => Problem::not_found(format!("there is no {file} yet")),
            _ => Problem::failed(format!("could not read {file}: {error}")),
        }
    })?;
    respond(file, content_type, size).await
}

async fn respond(
    file: tokio::fs::File,
    content_type: &'static str,
    size: Option<u64>,
) -> Result<Response, Problem> {
    let length = file
        .metadata()
        .await
        .map_err(io_problem("look at a file"))?
        .len();
    let size = size.unwrap_or(length).min(length);
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, size)
        .body(Body::from_stream(ReaderStream::with_capacity(
            file.take(size),
            64 * 1024,
        )))
        .map_err(|error| Problem::failed(format!("could not build an answer: {error}")))
}

/// Keeps a shared file from a request's body, if it is what its name says.
pub(super) async fn keep_file(
    agent: &Arc<Agent>,
    digest: &Digest,
    body: Body,
) -> Result<(), Problem> {
    if agent.files.has(digest) {
        return receive(body, MAX_ARCHIVE_BYTES, &mut std::io::sink()).await;
    }
    let mut incoming = agent
        .files
        .begin(MAX_ARCHIVE_BYTES)
        .map_err(io_problem("store the file"))?;
    receive(body, MAX_ARCHIVE_BYTES, &mut incoming).await?;
    let (path, digest) = (agent.files.path(digest), digest.clone());
    blocking(move || {
        incoming
            .finish(&path, &digest)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::InvalidData => Problem::invalid(error.to_string()),
                _ => Problem::failed(format!("could not store {digest}: {error}")),
            })
    })
    .await
}

//! Byte streams to a domain: its console, and TCP to its own address.

use super::{Ending, Shared, held, named};
use crate::definition;
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use estive_api::upgrade::{UpgradedStream, accept_upgrade, splice};
use estive_api::{Peer, Problem, Role};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CONNECT: Duration = Duration::from_secs(5);
/// Who may reach into a domain.
const VISITORS: &[Role] = &[Role::Manager, Role::User];

async fn join<S>(ours: UpgradedStream, theirs: S, ending: CancellationToken)
where
    S: AsyncRead + AsyncWrite,
{
    tokio::select! {
        _ = splice(ours, theirs) => {}
        () = ending.cancelled() => {}
    }
}

pub(super) async fn console(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Extension(Ending(ending)): Extension<Ending>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    peer.require(VISITORS)?;
    held(&agent, &name)?;
    let path = agent.hypervisor.channels(&named(&name)?).console;
    let console = timeout(CONNECT, UnixStream::connect(&path)).await;
    let console = console
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| {
            Problem::impossible(format!("the console of {name} cannot be reached: {error}"))
                .advice("start the domain; only one can use its console at a time")
        })?;
    Ok(accept_upgrade(request, move |ours| {
        join(ours, console, ending)
    }))
}

pub(super) async fn tcp(
    State(agent): Shared,
    Extension(peer): Extension<Peer>,
    Extension(Ending(ending)): Extension<Ending>,
    Path((name, port)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    peer.require(VISITORS)?;
    held(&agent, &name)?;
    let port = port
        .parse()
        .ok()
        .filter(|port: &u16| *port != 0)
        .ok_or_else(|| Problem::invalid(format!("{port:.10} is not a TCP port")))?;
    let place = agent.place(&named(&name)?);
    // The domain's own address and no other.
    let Some(xml) = definition::read_clone(&place)? else {
        return Err(Problem::impossible(format!(
            "{name} is no clone: which address it has is not known here"
        ))
        .advice("reach it by the network it is in, or by its console"));
    };
    let identity = definition::read_identity(&place, &xml)?;
    let address = (identity.address.address, port);
    let stream = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = stream
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| {
            Problem::unreachable(format!(
                "{name} at {}:{port} cannot be reached from its host: {error}",
                address.0
            ))
        })?;
    let _ = stream.set_nodelay(true);
    Ok(accept_upgrade(request, move |ours| {
        join(ours, stream, ending)
    }))
}

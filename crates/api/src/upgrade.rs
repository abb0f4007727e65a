//! A connection that stops being HTTP: both ends agree by `Upgrade: estive-stream` (RFC 9110 section 7.8), then
//! bytes flow both ways. Consoles and tunnels go through it.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::{Problem, chain};
use crate::revocation::Standing;

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "estive-stream";

/// A connection after its upgrade: `AsyncRead + AsyncWrite`.
pub type UpgradedStream = TokioIo<Upgraded>;

/// Answers a request for an upgrade with 101 and gives the stream to `handler`, in a task of its own that outlives
/// the request (also a shutdown of the listener: give the handler a token when it must end then). A request that
/// asks for no upgrade, or for another, gets a [`Problem`].
pub fn accept_upgrade<F, T>(mut request: Request, handler: F) -> Response
where
    F: FnOnce(UpgradedStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    if !asks_for_upgrade(request.headers()) {
        return Problem::invalid(format!(
            "{} speaks only through an upgrade to {PROTOCOL}",
            request.uri().path()
        ))
        .into_response();
    }
    let pending = hyper::upgrade::on(&mut request);
    let standing = request.extensions().get::<Standing>().cloned();
    let standing = standing.unwrap_or_else(Standing::local);
    tokio::spawn(async move {
        match pending.await {
            Ok(upgraded) => tokio::select! {
                () = handler(TokioIo::new(upgraded)) => {}
                () = standing.until_revoked() => warn!("a stream was cut: its certificate is revoked"),
            },
            Err(error) => debug!(error = %chain(&error), "an upgrade was agreed but did not come"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(upgrade_headers());
    response
}

/// The two headers either side sends.
pub(crate) fn upgrade_headers() -> [(header::HeaderName, HeaderValue); 2] {
    [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(PROTOCOL)),
    ]
}

/// Whether headers ask for, or agree to, our upgrade.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

/// Copies both ways until one side closes, or fails. What the other side still says is passed on as long as it
/// does not pause for more than two seconds; then both are closed. Returns the bytes moved (a to b, b to a).
pub async fn splice<A, B>(a: A, b: B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_reader, a_writer) = tokio::io::split(a);
    let (b_reader, b_writer) = tokio::io::split(b);
    let closing = CancellationToken::new();
    tokio::try_join!(
        copy(a_reader, b_writer, &closing),
        copy(b_reader, a_writer, &closing)
    )
}

/// How long the second direction may be silent once the first has ended.
const LINGER: Duration = Duration::from_secs(2);

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    closing: &CancellationToken,
) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut moved = 0;
    loop {
        let count = {
            // Dropped only together with the connection, so that a half-read byte cannot be lost.
            let read = from.read(&mut buffer);
            tokio::pin!(read);
            tokio::select! {
                biased;
                count = &mut read => count?,
                () = closing.cancelled() => match timeout(LINGER, &mut read).await {
                    Ok(count) => count?,
                    Err(_) => 0,
                },
            }
        };
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved += count as u64;
    }
    closing.cancel();
    // The other side may be gone already; then there is nobody left to tell.
    let _ = to.shutdown().await;
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_before_closing_arrives_on_the_other_side() {
        let (mut left, a) = tokio::io::duplex(16);
        let (b, mut right) = tokio::io::duplex(16);
        let spliced = tokio::spawn(splice(a, b));
        let talk = async {
            left.write_all(&[7; 1000]).await.unwrap();
            left.shutdown().await.unwrap();
            let mut answer = Vec::new();
            left.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, [8; 100]);
        };
        let listen = async {
            let mut heard = Vec::new();
            right.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard.len(), 1000);
            right.write_all(&[8; 100]).await.unwrap();
            drop(right);
        };
        tokio::join!(talk, listen);
        assert_eq!(spliced.await.unwrap().unwrap(), (1000, 100));
    }

    #[tokio::test]
    async fn a_silent_other_side_does_not_hold_it_open() {
        let (left, a) = tokio::io::duplex(16);
        let (b, _right_stays_open) = tokio::io::duplex(16);
        drop(left);
        timeout(Duration::from_secs(60), splice(a, b))
            .await
            .expect("it hangs")
            .unwrap();
    }
}

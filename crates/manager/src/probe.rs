//! Whether a clone answers: a page with its name over HTTP, an SSH server's greeting, a ping.

use async_trait::async_trait;
use estive_api::Client;
use estive_layers::UpCheck;
use estive_model::DomainName;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For one try of one check.
const TRY: Duration = Duration::from_secs(5);
/// For a connection without the agent's help; on one network it takes a millisecond.
const CONNECT: Duration = Duration::from_millis(700);
const PAGE_BYTES: u64 = 256 << 10;
const GREETING_BYTES: u64 = 256;

/// Asks clones whether they answer. A seam, so that a simulated herd can be brought up.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Tries one check once, within seconds. `agent` is the domain's host, through which it may be reached.
    async fn answers(
        &self,
        check: UpCheck,
        domain: &DomainName,
        address: Ipv4Addr,
        agent: &Client,
    ) -> bool;
}

/// Asks over the network.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkProber;

#[async_trait]
impl Prober for NetworkProber {
    async fn answers(
        &self,
        check: UpCheck,
        domain: &DomainName,
        address: Ipv4Addr,
        agent: &Client,
    ) -> bool {
        answers(check, domain, address, agent).await
    }
}

async fn answers(check: UpCheck, domain: &DomainName, address: Ipv4Addr, agent: &Client) -> bool {
    let tried = async {
        match check {
            UpCheck::Ping => ping(address).await,
            UpCheck::Http => match direct(address, 80).await {
                Direct::Connected(stream) => page(stream, domain).await,
                Direct::Refused => false,
                Direct::NoWay => match through(agent, domain, 80).await {
                    Some(stream) => page(stream, domain).await,
                    None => false,
                },
            },
            UpCheck::Ssh => match direct(address, 22).await {
                Direct::Connected(stream) => greeting(stream).await,
                Direct::Refused => false,
                Direct::NoWay => match through(agent, domain, 22).await {
                    Some(stream) => greeting(stream).await,
                    None => false,
                },
            },
        }
    };
    timeout(TRY, tried).await.unwrap_or(false)
}

enum Direct {
    Connected(TcpStream),
    /// Somebody is there and does not listen yet.
    Refused,
    /// This machine may not be in the clones' network: the agent is.
    NoWay,
}

async fn direct(address: Ipv4Addr, port: u16) -> Direct {
    match timeout(CONNECT, TcpStream::connect((address, port))).await {
        Ok(Ok(stream)) => Direct::Connected(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Direct::Refused,
        _ => Direct::NoWay,
    }
}

async fn through(
    agent: &Client,
    domain: &DomainName,
    port: u16,
) -> Option<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    agent
        .upgrade(&format!("/domain/{domain}/tcp/{port}"), TRY)
        .await
        .ok()
}

async fn page(mut stream: impl AsyncRead + AsyncWrite + Unpin, domain: &DomainName) -> bool {
    let request = format!("GET / HTTP/1.0\r\nHost: {domain}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        (&mut stream)
            .take(PAGE_BYTES)
            .read_to_end(&mut answer)
            .await
    };
    talk.await.is_ok() && shows(&answer, domain)
}

/// A successful answer whose body has the clone's name in it.
fn shows(answer: &[u8], domain: &DomainName) -> bool {
    let text = String::from_utf8_lossy(answer);
    let successful = text.starts_with("HTTP/1.") && text.split(' ').nth(1) == Some("200");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    successful && body.contains(domain.as_str())
}

async fn greeting(stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let mut answer = Vec::new();
    let mut stream = stream.take(GREETING_BYTES);
    loop {
        match stream.read_buf(&mut answer).await {
            // RFC 4253, section 4.2.
            Ok(count) if count > 0 && !answer.contains(&b'\n') => {}
            _ => return answer.starts_with(b"SSH-2.0-"),
        }
    }
}

async fn ping(address: Ipv4Addr) -> bool {
    let mut ping = tokio::process::Command::new("ping");
    ping.args(["-n", "-c", "1", "-W", "1"])
        .arg(address.to_string());
    ping.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match ping.status().await {
        Ok(status) => status.success(),
        Err(error) => {
            tracing::warn!(%error, "could not run ping; install iputils-ping");
            false
        }
    }
}

/// Words for a table.
pub(crate) fn words(checks: &[UpCheck]) -> String {
    let word = |check: &UpCheck| match check {
        UpCheck::Http => "http",
        UpCheck::Ssh => "ssh",
        UpCheck::Ping => "ping",
    };
    checks.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_with_the_name_counts() {
        let domain = DomainName::new("clone01").unwrap();
        assert!(shows(
            b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n<h1>clone01</h1>",
            &domain
        ));
        assert!(!shows(
            b"HTTP/1.1 200 OK\r\nHost: clone01\r\n\r\nWelcome to nginx",
            &domain
        ));
        assert!(!shows(b"HTTP/1.1 404 Not Found\r\n\r\nclone01", &domain));
        assert!(!shows(b"", &domain));
    }

    #[tokio::test]
    async fn a_greeting_may_come_in_pieces() {
        let (here, mut there) = tokio::io::duplex(64);
        let said = async {
            for piece in ["SSH-", "2.0-x", "\r\n"] {
                there.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (answered, ()) = tokio::join!(greeting(here), said);
        assert!(answered);
        let (here, mut there) = tokio::io::duplex(64);
        there.write_all(b"220 ftp\r\n").await.unwrap();
        drop(there);
        assert!(!greeting(here).await);
    }
}

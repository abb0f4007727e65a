//! An ICMP echo request every 10 ms, and the longest time without an answer.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use estive_network::namespace::Namespace;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::gauge::{Gauge, asked_to_end, say, say_ready};
use crate::instant::{now_us, sleep_until_us};

/// Between two requests.
pub const INTERVAL: Duration = Duration::from_millis(10);

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// One answered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number, from 0.
    pub number: u64,
    /// When the request was sent, in microseconds since the epoch.
    pub sent_us: u64,
    /// When the answer came.
    pub received_us: u64,
}

/// A running ping.
#[derive(Debug)]
pub struct Ping(Gauge<Reply>);

impl Ping {
    /// Pings `address` from `namespace`.
    pub async fn start(
        tool: &Path,
        namespace: &Namespace,
        address: Ipv4Addr,
    ) -> Result<Self, Error> {
        Gauge::start("ping", tool, namespace, &[format!("--address={address}")])
            .await
            .map(Self)
    }

    /// All answers so far, in the order they came.
    #[must_use]
    pub fn replies(&self) -> Vec<Reply> {
        self.0.look(<[Reply]>::to_vec)
    }

    /// See [`longest_gap_us`].
    #[must_use]
    pub fn longest_gap_us(&self, from_us: u64, to_us: u64) -> u64 {
        self.0
            .look(|replies| longest_gap_us(replies, from_us, to_us))
    }

    /// Ends it and gives all answers.
    pub async fn finish(self) -> Result<Vec<Reply>, Error> {
        self.0.finish().await
    }
}

/// The longest time between two answers, of those pauses that touch `from_us..=to_us`; a pause that has not ended counts
/// up to `to_us`. At an interval of 10 ms an undisturbed ping has 10 ms.
#[must_use]
pub fn longest_gap_us(replies: &[Reply], from_us: u64, to_us: u64) -> u64 {
    let mut came: Vec<u64> = replies.iter().map(|reply| reply.received_us).collect();
    came.sort_unstable();
    let before = came.partition_point(|at| *at <= from_us);
    let after = came.partition_point(|at| *at <= to_us);
    let mut edges = vec![if before > 0 {
        came[before - 1]
    } else {
        from_us
    }];
    edges.extend(&came[before..after]);
    edges.push(came.get(after).copied().unwrap_or(to_us));
    edges
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .max()
        .unwrap_or(0)
}

/// In the measuring process.
pub async fn run(address: Ipv4Addr) -> Result<(), Error> {
    let failed = || {
        |errno: rustix::io::Errno| Error::System {
            doing: format!("pinging {address}"),
            source: errno.into(),
        }
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        flags,
        Some(ipproto::ICMP),
    )
    .map_err(failed())?;
    connect(&socket, &SocketAddrV4::new(address, 0)).map_err(failed())?;
    // SAFETY: the AsyncFd owns the descriptor, which nothing closes or replaces before it goes.
    let socket = unsafe { AsyncFd::register(socket) }
        .map_err(std::io::Error::from)
        .map_err(Error::system(format!("pinging {address}")))?;
    let own = std::process::id().to_be_bytes();
    let identifier = [own[2], own[3]];
    say_ready()?;
    let end = asked_to_end();
    tokio::pin!(end);
    let began_us = now_us();
    let step_us = u64::try_from(INTERVAL.as_micros()).unwrap_or(10_000);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            ended = &mut end => return ended,
            ready = socket.readable() => {
                let mut ready = ready.map_err(Error::system("waiting for answers"))?;
                let mut packet = [MaybeUninit::uninit(); 256];
                match recv(socket.get_ref(), &mut packet, RecvFlags::DONTWAIT) {
                    Ok(((packet, _), _)) => {
                        if let Some((number, sent_us)) = reply(packet, identifier) {
                            say(&Reply { number, sent_us, received_us: now_us() })?;
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                    // An ICMP error about an earlier packet (host unreachable) is as good as no answer.
                    Err(_) => {}
                }
            }
            () = sleep_until_us(began_us + number * step_us) => {
                // A full queue or an unreachable host: this one is not answered, the next may be.
                let _ = send(socket.get_ref(), &request(identifier, number, now_us()), SendFlags::DONTWAIT);
                number += 1;
            }
        }
    }
}

/// RFC 792: type, code, checksum, identifier, sequence number; then our number and time.
fn request(identifier: [u8; 2], number: u64, sent_us: u64) -> [u8; 24] {
    let mut packet = [0; 24];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&identifier);
    packet[6..8].copy_from_slice(&number.to_be_bytes()[6..]);
    packet[8..16].copy_from_slice(&number.to_be_bytes());
    packet[16..24].copy_from_slice(&sent_us.to_be_bytes());
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// Number and sending time from an answer of ours, given with its IP header.
fn reply(packet: &[u8], identifier: [u8; 2]) -> Option<(u64, u64)> {
    let header_bytes = usize::from(packet.first()? & 0xf) * 4;
    let icmp = packet.get(header_bytes..)?;
    if icmp.len() < 24 || icmp[0] != ECHO_REPLY || icmp[4..6] != identifier || checksum(icmp) != 0 {
        return None;
    }
    let word = |at: usize| {
        icmp.get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_be_bytes)
    };
    Some((word(8)?, word(16)?))
}

/// RFC 1071. Over a packet that holds its checksum: 0.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(came: &[u64]) -> Vec<Reply> {
        came.iter()
            .map(|at| Reply {
                number: 0,
                sent_us: 0,
                received_us: *at,
            })
            .collect()
    }

    #[test]
    fn the_longest_pause_is_found_within_the_window_only() {
        let came = replies(&[10, 20, 90, 100, 110, 400]);
        assert_eq!(longest_gap_us(&came, 85, 115), 290);
        assert_eq!(longest_gap_us(&came, 95, 105), 10);
        assert_eq!(longest_gap_us(&came, 15, 95), 70);
        assert_eq!(longest_gap_us(&came, 400, 1000), 600);
        assert_eq!(longest_gap_us(&[], 400, 1000), 600);
        assert_eq!(longest_gap_us(&came, 0, 5), 10);
    }

    #[test]
    fn an_answer_is_known_by_its_identifier_and_checksum() {
        let mut packet = request([1, 2], 70_000, 42);
        packet[0] = ECHO_REPLY;
        packet[2..4].fill(0);
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
        let mut whole = vec![0x45; 20];
        whole.extend(packet);
        assert_eq!(reply(&whole, [1, 2]), Some((70_000, 42)));
        assert_eq!(reply(&whole, [1, 3]), None);
        whole[30] ^= 1;
        assert_eq!(reply(&whole, [1, 2]), None);
        assert_eq!(reply(&[], [1, 2]), None);
        assert_eq!(reply(&whole[..30], [1, 2]), None);
    }
}

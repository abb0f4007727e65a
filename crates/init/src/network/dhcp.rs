//! Asking for a lease (RFC 2131, 4.4): one offer is taken, and asked for until it is granted, refused or the time is up.
//!
//! An ordinary UDP socket does: answers are asked for by broadcast, which the kernel delivers to an interface without an
//! address. Renewing is the booted system's matter; it finds the lease in `/run/estive/net`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use estive_boot::ip_line::{DHCP_TIMEOUT_S, Dhcp};

use super::interface::Interface;
use super::message::{Answer, Granted, MESSAGE_BYTES_MAX, Say, Speaker};
use super::{Lease, Network};
use crate::console::uptime_ms;
use crate::failure::{Result, While, fail};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// The first wait for an answer; each is twice the one before, up to the last.
const FIRST_WAIT_MS: u64 = 1000;
const LAST_WAIT_MS: u64 = 16_000;
/// A request is repeated so often; then the offer is dropped and another one asked for.
const REQUESTS_MAX: u32 = 3;
/// Who answers more often than this to one question only wants to keep us busy.
const ANSWERS_MAX: u32 = 200;

/// Where messages go and come from, and the time.
trait Wire {
    fn send(&mut self, message: &[u8]) -> Result<()>;
    /// The next message before the deadline.
    fn receive(&mut self, deadline_ms: u64) -> Result<Option<Vec<u8>>>;
    fn now_ms(&self) -> u64;
}

/// A lease for this interface, which is up.
pub fn ask(interface: &Interface, options: &Dhcp) -> Result<Granted> {
    let Some(mac) = interface.mac() else {
        return fail(format!(
            "{} has no MAC address: give the address with ip=, without DHCP",
            interface.name()
        ));
    };
    let speaker = Speaker {
        mac,
        transaction: random()?,
        client_id: options.client_id.as_ref(),
        hostname: options.common.hostname.as_deref(),
        vendor_class: options.vendor_class.as_deref(),
    };
    let timeout_s = options.timeout_s.unwrap_or(DHCP_TIMEOUT_S);
    let mut wire = Broadcast::open(interface)?;
    let spread_ms = u64::from(random()? % 256);
    let granted = converse(&speaker, &mut wire, timeout_s, spread_ms)?;
    granted.map_or_else(
        |refusal| {
            fail(format!(
                "no DHCP server gave {} an address in {timeout_s} s{refusal}: is one on this network? (give the address with ip=, or another interface with ip=dhcp:device=)",
                interface.name()
            ))
        },
        Ok,
    )
}

/// The whole exchange; without a lease in the end, what was heard instead.
fn converse(
    speaker: &Speaker,
    wire: &mut impl Wire,
    timeout_s: u32,
    spread_ms: u64,
) -> Result<std::result::Result<Granted, String>> {
    let began_ms = wire.now_ms();
    let deadline_ms = began_ms + u64::from(timeout_s) * 1000;
    let mut wait_ms = FIRST_WAIT_MS;
    let mut heard = String::new();
    while wire.now_ms() < deadline_ms {
        let seconds = |now_ms: u64| u16::try_from((now_ms - began_ms) / 1000).unwrap_or(u16::MAX);
        wire.send(&speaker.write(Say::Discover, seconds(wire.now_ms())))?;
        // Machines that start together must not ask together for ever.
        let until_ms = (wire.now_ms() + wait_ms + spread_ms).min(deadline_ms);
        wait_ms = (wait_ms * 2).min(LAST_WAIT_MS);
        let offer = wait_for(speaker, wire, until_ms, |answer| match answer {
            Answer::Offer(granted, server) => Some((granted.address, server)),
            _ => None,
        })?;
        let Some((address, server)) = offer else {
            continue;
        };
        let mut request_ms = FIRST_WAIT_MS;
        for _ in 0..REQUESTS_MAX {
            let say = Say::Request { address, server };
            wire.send(&speaker.write(say, seconds(wire.now_ms())))?;
            let until_ms = (wire.now_ms() + request_ms + spread_ms).min(deadline_ms);
            request_ms *= 2;
            let answer = wait_for(speaker, wire, until_ms, |answer| match answer {
                // Another server's, or another address than was offered, is not what was asked for.
                Answer::Granted(granted)
                    if granted.server.is_some_and(|other| other != server)
                        || granted.address != address =>
                {
                    None
                }
                Answer::Offer(..) => None,
                answer => Some(answer),
            })?;
            match answer {
                Some(Answer::Granted(mut granted)) => {
                    granted.server = Some(server);
                    return Ok(Ok(*granted));
                }
                Some(Answer::Refused(words)) => {
                    heard = format!(" ({server} offered {address}, then refused it");
                    heard += &match words.is_empty() {
                        true => ")".to_owned(),
                        false => format!(": {words:?})"),
                    };
                    // It may refuse at once each time: the next question waits its turn.
                    while wire.receive(until_ms)?.is_some() {}
                    break;
                }
                _ if wire.now_ms() >= deadline_ms => break,
                _ => heard = format!(" ({server} offered {address}, then fell silent)"),
            }
        }
    }
    Ok(Err(heard))
}

/// The first answer that `take` takes, before the deadline.
fn wait_for<T>(
    speaker: &Speaker,
    wire: &mut impl Wire,
    deadline_ms: u64,
    mut take: impl FnMut(Answer) -> Option<T>,
) -> Result<Option<T>> {
    for _ in 0..ANSWERS_MAX {
        let Some(message) = wire.receive(deadline_ms)? else {
            return Ok(None);
        };
        if let Some(taken) = speaker.read(&message).and_then(&mut take) {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}

/// The socket, bound to one interface.
struct Broadcast(UdpSocket);

impl Broadcast {
    fn open(interface: &Interface) -> Result<Broadcast> {
        let doing = || format!("opening the DHCP port on {}", interface.name());
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).doing(doing)?;
        socket.set_broadcast(true).doing(doing)?;
        let name = interface.name().as_bytes();
        // SAFETY: SO_BINDTODEVICE (socket(7)) reads so many bytes from the pointer, which live longer than the call.
        let bound = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        };
        match bound {
            0 => Ok(Broadcast(socket)),
            _ => Err(io::Error::last_os_error()).doing(doing),
        }
    }
}

impl Wire for Broadcast {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        let everybody = SocketAddr::from((Ipv4Addr::BROADCAST, SERVER_PORT));
        match self.0.send_to(message, everybody) {
            Ok(_) => Ok(()),
            // A cable that goes and comes again: the next try may be heard.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NetworkDown | io::ErrorKind::NetworkUnreachable
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error).doing(|| "asking for an address by DHCP".into()),
        }
    }

    fn receive(&mut self, deadline_ms: u64) -> Result<Option<Vec<u8>>> {
        let doing = || "waiting for an answer by DHCP".to_owned();
        loop {
            let left_ms = deadline_ms.saturating_sub(uptime_ms());
            if left_ms == 0 {
                return Ok(None);
            }
            self.0
                .set_read_timeout(Some(Duration::from_millis(left_ms)))
                .doing(doing)?;
            let mut message = vec![0; MESSAGE_BYTES_MAX];
            match self.0.recv_from(&mut message) {
                Ok((size_bytes, from)) if from.port() == SERVER_PORT => {
                    message.truncate(size_bytes);
                    return Ok(Some(message));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::NetworkDown
                    ) => {}
                Err(error) => return Err(error).doing(doing),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        uptime_ms()
    }
}

impl Granted {
    /// As the network that it makes, before `ip=` has its say.
    pub fn network(&self, device: &str) -> Network {
        Network {
            device: device.to_owned(),
            address: self.address.into(),
            prefix: self.prefix,
            gateway: self.router.map(IpAddr::V4),
            dns: self.dns.iter().copied().map(IpAddr::V4).collect(),
            domains: self.domains.clone(),
            hostname: self.hostname.clone(),
            server: self.next_server.map(IpAddr::V4),
            mtu_bytes: self.mtu_bytes,
            lease: Some(Lease {
                server: self.server,
                lease_s: self.lease_s,
                root_path: self.root_path.clone(),
                boot_file: self.boot_file.clone(),
            }),
        }
    }
}

/// From the kernel's generator.
pub fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    let read = |bytes: &mut [u8]| {
        use std::io::Read;
        std::fs::File::open("/dev/urandom")?.read_exact(bytes)
    };
    read(&mut bytes).doing(|| "reading /dev/urandom".into())?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use estive_boot::identity::MacAddress;

    /// A server that answers as it was told; when it has nothing to say, the time passes.
    struct Script {
        now_ms: u64,
        sent: Vec<Vec<u8>>,
        answers: VecDeque<Option<Vec<u8>>>,
    }

    impl Wire for Script {
        fn send(&mut self, message: &[u8]) -> Result<()> {
            self.sent.push(message.to_vec());
            Ok(())
        }

        fn receive(&mut self, deadline_ms: u64) -> Result<Option<Vec<u8>>> {
            let answer = self.answers.pop_front().flatten();
            self.now_ms = match answer {
                Some(_) => self.now_ms + 1,
                None => deadline_ms,
            };
            Ok(answer)
        }

        fn now_ms(&self) -> u64 {
            self.now_ms
        }
    }

    fn speaker() -> Speaker<'static> {
        Speaker {
            mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
            transaction: 0x0102_0304,
            client_id: None,
            hostname: None,
            vendor_class: None,
        }
    }

    fn answer(kind: u8, address: [u8; 4], server: u8) -> Option<Vec<u8>> {
        let mut message = speaker().write(Say::Discover, 0);
        message.truncate(240);
        message[0] = 2;
        message[16..20].copy_from_slice(&address);
        message.extend([
            53, 1, kind, 1, 4, 255, 255, 255, 0, 54, 4, 10, 0, 2, server, 255,
        ]);
        Some(message)
    }

    fn run(
        answers: impl IntoIterator<Item = Option<Vec<u8>>>,
    ) -> (std::result::Result<Granted, String>, Script) {
        let mut script = Script {
            now_ms: 0,
            sent: Vec::new(),
            answers: answers.into_iter().collect(),
        };
        let granted = converse(&speaker(), &mut script, 60, 0).unwrap();
        (granted, script)
    }

    fn kinds(script: &Script) -> Vec<u8> {
        script.sent.iter().map(|message| message[242]).collect()
    }

    const OURS: [u8; 4] = [10, 0, 2, 15];

    #[test]
    fn an_offer_is_asked_for_and_granted() {
        let (granted, script) = run([answer(2, OURS, 2), answer(5, OURS, 2)]);
        let granted = granted.unwrap();
        assert_eq!((granted.address, granted.prefix), (OURS.into(), 24));
        assert_eq!(kinds(&script), [1, 3]);
    }

    #[test]
    fn what_is_lost_is_said_again() {
        let (granted, script) = run([None, None, answer(2, OURS, 2), None, answer(5, OURS, 2)]);
        assert!(granted.is_ok());
        assert_eq!(kinds(&script), [1, 1, 1, 3, 3]);
    }

    #[test]
    fn silence_has_an_end_and_grows_quieter() {
        let (granted, script) = run([]);
        assert_eq!(granted.unwrap_err(), "");
        assert_eq!(script.now_ms, 60_000);
        // After 1, 3, 7, 15, 31 and 47 seconds.
        assert_eq!(kinds(&script), [1; 7]);
    }

    #[test]
    fn a_refusal_begins_again_and_is_told() {
        let (granted, script) = run([answer(2, OURS, 2), answer(6, OURS, 2)]);
        assert!(granted.unwrap_err().contains("then refused it"));
        assert_eq!(kinds(&script)[..3], [1, 3, 1]);
    }

    #[test]
    fn another_address_or_server_than_was_asked_for_is_not_taken() {
        let (granted, _) = run([
            answer(2, OURS, 2),
            answer(5, OURS, 3),
            answer(5, [10, 0, 2, 16], 2),
        ]);
        assert!(granted.unwrap_err().contains("fell silent"));
    }

    #[test]
    fn a_flood_of_nonsense_ends() {
        let noise = std::iter::repeat_n(Some(vec![2; 300]), 5000);
        let (granted, script) = run(noise);
        assert!(granted.is_err());
        assert!(script.now_ms <= 60_000);
    }
}

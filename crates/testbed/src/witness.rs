//! Hears every guest's beat at the ports of the switch.
//!
//! One packet socket on all ports keeps the order in which the switch saw the beats. It hears what comes in, never what
//! the switch sends out, so that a broadcast is seen once, at the port it came from. A filter in the kernel lets beats
//! alone pass: the ports also carry migrations.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use estive_network::namespace::Namespace;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::gauge::{Gauge, asked_to_end, say, say_ready};
use crate::instant::now_us;
use crate::judge::{Judgement, Sighting, judge};
use crate::topology::Topology;

/// UDP port of the beats.
pub const BEAT_PORT: u16 = 7007;

/// First word of a beat: `ESTIVE-BEAT <name> <boot id> <number> <uptime_ms>`.
pub const BEAT_WORD: &str = "ESTIVE-BEAT";

const FRAME_BYTES_MAX: usize = 512;
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;

/// A running witness.
#[derive(Debug)]
pub struct Witness(Gauge<Sighting>);

impl Witness {
    /// Listens at every port behind which a host is.
    pub async fn start(tool: &Path, topology: &Topology) -> Result<Self, Error> {
        Self::start_in(tool, &topology.switch, &topology.host_ports()).await
    }

    /// Listens at `ports` of `namespace`.
    pub async fn start_in(
        tool: &Path,
        namespace: &Namespace,
        ports: &[String],
    ) -> Result<Self, Error> {
        let arguments: Vec<String> = ports.iter().map(|port| format!("--port={port}")).collect();
        Gauge::start("witness", tool, namespace, &arguments)
            .await
            .map(Self)
    }

    /// Everything seen so far.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        self.0.look(<[Sighting]>::to_vec)
    }

    /// When the last beat of guest `name` was heard, in microseconds since the epoch, and at which port.
    #[must_use]
    pub fn last_heard(&self, name: &str) -> Option<(u64, String)> {
        self.0.look(|all| {
            let last = all.iter().rev().find(|seen| seen.name == name)?;
            Some((last.at_us, last.port.clone()))
        })
    }

    /// Judges what was seen so far.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        self.0.look(judge)
    }

    /// Ends it and gives everything seen.
    pub async fn finish(self) -> Result<Vec<Sighting>, Error> {
        self.0.finish().await
    }
}

/// In the measuring process.
pub async fn run(ports: Vec<String>) -> Result<(), Error> {
    let doing = || Error::system("listening at the switch's ports");
    let mut names = HashMap::new();
    for port in ports {
        let index =
            interface_index(&port).map_err(Error::system(format!("finding the port {port}")))?;
        names.insert(index, port);
    }
    let socket = listen().map_err(doing())?;
    // SAFETY: the AsyncFd owns the descriptor, which nothing closes or replaces before it goes.
    let socket = unsafe { AsyncFd::register(socket) }
        .map_err(io::Error::from)
        .map_err(doing())?;
    say_ready()?;
    let end = asked_to_end();
    tokio::pin!(end);
    loop {
        tokio::select! {
            ended = &mut end => return ended,
            ready = socket.readable() => {
                let mut ready = ready.map_err(doing())?;
                let mut frame = [0; FRAME_BYTES_MAX];
                match receive(socket.get_ref(), &mut frame) {
                    Ok((bytes, interface)) => {
                        let beat = frame.get(..bytes).and_then(payload).and_then(read_beat);
                        if let (Some(beat), Some(port)) = (beat, names.get(&interface)) {
                            let (name, boot, number, uptime_ms) = beat;
                            say(&Sighting { at_us: now_us(), port: port.clone(), name, boot, number, uptime_ms })?;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    // A cable that was cut (the port down) is told once; the others go on.
                    Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                    Err(source) => return Err(doing()(source)),
                }
            }
        }
    }
}

fn interface_index(name: &str) -> io::Result<i32> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let index = rustix::net::netdevice::name_to_index(&socket, name)?;
    i32::try_from(index).map_err(io::Error::other)
}

/// Lets pass, in classic BPF (linux/filter.h): frames that come in, of IPv4, UDP, not a later fragment, to [`BEAT_PORT`].
fn filter() -> [libc::sock_filter; 13] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_INDEXED: u16 = 0x48;
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_BITS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    // SKF_AD_OFF + SKF_AD_PKTTYPE, and PACKET_OUTGOING.
    const PACKET_TYPE: u32 = 0xffff_f004;
    const OUTGOING: u32 = 4;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 0, 0, PACKET_TYPE),
        step(JUMP_EQUAL, 9, 0, OUTGOING),
        step(LOAD_HALF, 0, 0, 12),
        step(JUMP_EQUAL, 0, 7, 0x0800),
        step(LOAD_BYTE, 0, 0, 23),
        step(JUMP_EQUAL, 0, 5, 17),
        step(LOAD_HALF, 0, 0, 20),
        step(JUMP_BITS, 3, 0, 0x1fff),
        step(LOAD_HEADER_LENGTH, 0, 0, 14),
        step(LOAD_HALF_INDEXED, 0, 0, 16),
        step(JUMP_EQUAL, 1, 0, u32::from(BEAT_PORT)),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, 512),
    ]
}

fn listen() -> io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0: nothing is received before the filter stands.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let mut program = filter();
    let attached = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    set_option(&socket, libc::SO_ATTACH_FILTER, &attached)?;
    set_option(&socket, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER_BYTES)?;
    // SAFETY: sockaddr_ll is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
        .map_err(io::Error::other)?
        .to_be();
    let length = length_of::<libc::sockaddr_ll>()?;
    // SAFETY: the address is readable for its length, and the socket is open.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn length_of<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}

fn set_option<T>(socket: &impl AsRawFd, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = length_of::<T>()?;
    // SAFETY: the value is readable for its length; the kernel copies it (and a filter's steps) within the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const *value).cast(),
            length,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One frame, and the interface it came in at.
fn receive(socket: &impl AsRawFd, frame: &mut [u8]) -> io::Result<(usize, i32)> {
    // SAFETY: sockaddr_ll is plain integers, for which zero is a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = length_of::<libc::sockaddr_ll>()?;
    // SAFETY: frame and address are writable for the lengths given.
    let bytes = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            frame.as_mut_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    match usize::try_from(bytes) {
        Ok(bytes) => Ok((bytes, from.sll_ifindex)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The UDP payload of an Ethernet frame with IPv4.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let header_bytes = usize::from(packet.first()? & 0xf) * 4;
    let datagram = packet.get(header_bytes..)?;
    let length = usize::from(u16::from_be_bytes(datagram.get(4..6)?.try_into().ok()?));
    datagram.get(8..length.min(datagram.len()))
}

/// Name, boot, number, uptime. Guests are not trusted: words are short and plain.
fn read_beat(payload: &[u8]) -> Option<(String, String, u64, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut words = text.trim_end().split(' ');
    let plain = |word: &&str| {
        (1..=63).contains(&word.len())
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (words.next()? == BEAT_WORD).then_some(())?;
    let (name, boot) = (words.next().filter(plain)?, words.next().filter(plain)?);
    let (number, uptime_ms) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words
        .next()
        .is_none()
        .then(|| (name.to_owned(), boot.to_owned(), number, uptime_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_read_and_anything_else_is_not() {
        assert_eq!(
            read_beat(b"ESTIVE-BEAT clone01 a-1 7 140\n"),
            Some(("clone01".into(), "a-1".into(), 7, 140))
        );
        for bad in [
            "",
            "ESTIVE-BEAT",
            "ESTIVE-BEAT a b 1",
            "ESTIVE-BEAT a b x 1",
            "ESTIVE-BEAT a b 1 2 3",
            "BEAT a b 1 2",
        ] {
            assert_eq!(read_beat(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(
            read_beat(format!("ESTIVE-BEAT {} b 1 2", "x".repeat(64)).as_bytes()),
            None
        );
    }

    #[test]
    fn a_short_frame_has_no_payload() {
        let mut frame = vec![0; 14];
        frame.push(0x45);
        frame.extend([0; 19]);
        frame.extend([0, 1, 0, 2, 0, 11, 0, 0]);
        frame.extend(b"abc and padding");
        assert_eq!(payload(&frame), Some(&b"abc"[..]));
        for cut in 0..42 {
            assert!(
                payload(&frame[..cut]).is_none_or(<[u8]>::is_empty),
                "cut at {cut}"
            );
        }
    }
}

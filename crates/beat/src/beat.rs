//! The numbered beat.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 7007;
const INTERVAL: Duration = Duration::from_millis(20);

/// Sends beats until something fails; `number` is the last one that was used.
pub fn send(name: &str, number: &mut u64) -> io::Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot = boot.trim();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    socket.connect(destination()?)?;
    let mut due = Instant::now();
    loop {
        *number += 1;
        let beat = format!("ESTIVE-BEAT {name} {boot} {number} {}", uptime_ms()?);
        match socket.send(beat.as_bytes()) {
            // Nobody listens there, or the queue is full: a beat may be lost, but never sent twice.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
                ) => {}
            other => drop(other?),
        }
        due += INTERVAL;
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(left) => std::thread::sleep(left),
            // Late, as after a move: no burst to catch up.
            None => due = now,
        }
    }
}

fn uptime_ms() -> io::Result<u64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Ok(u64::try_from(now.tv_sec).map_err(io::Error::other)? * 1000
        + u64::try_from(now.tv_nsec / 1_000_000).map_err(io::Error::other)?)
}

/// `beat.to=ADDRESS` of the kernel command line, else the broadcast address of eth0's network.
fn destination() -> io::Result<SocketAddr> {
    let words = fs::read_to_string("/proc/cmdline")?;
    let asked = words
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("beat.to=")?.parse().ok());
    let routes = fs::read_to_string("/proc/net/route")?;
    let address: Ipv4Addr = asked
        .or_else(|| broadcast(&routes, "eth0"))
        .ok_or_else(|| io::Error::other("eth0 has no network yet"))?;
    Ok(SocketAddr::V4(SocketAddrV4::new(address, PORT)))
}

/// From `/proc/net/route`: the interface's own network (no gateway), as little-endian hex words.
fn broadcast(routes: &str, interface: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let word = |at: usize| {
            u32::from_str_radix(fields.get(at)?, 16)
                .ok()
                .map(u32::swap_bytes)
        };
        let (network, gateway, mask) = (word(1)?, word(2)?, word(7)?);
        (fields[0] == interface && gateway == 0 && mask != 0)
            .then(|| Ipv4Addr::from(network | !mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broadcast_address_is_that_of_the_interfaces_own_network() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(
            broadcast(routes, "eth0"),
            Some(Ipv4Addr::new(10, 77, 0, 255))
        );
        assert_eq!(broadcast(routes, "eth2"), None);
        assert_eq!(broadcast("", "eth0"), None);
    }
}

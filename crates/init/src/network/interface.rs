//! One network interface, set by the classic calls (netdevice(7), `struct in6_ifreq` of ipv6(7)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use estive_boot::identity::MacAddress;
use rustix::io::Errno;
use rustix::ioctl;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::failure::{Result, While, fail};

const SIOCADDRT: ioctl::Opcode = 0x890b;
const SIOCGIFFLAGS: ioctl::Opcode = 0x8913;
const SIOCSIFFLAGS: ioctl::Opcode = 0x8914;
const SIOCSIFADDR: ioctl::Opcode = 0x8916;
const SIOCSIFBRDADDR: ioctl::Opcode = 0x891a;
const SIOCSIFNETMASK: ioctl::Opcode = 0x891c;
const SIOCSIFMTU: ioctl::Opcode = 0x8922;
const SIOCSIFHWADDR: ioctl::Opcode = 0x8924;
const SIOCGIFINDEX: ioctl::Opcode = 0x8933;

const AF_INET: u16 = 2;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u16 = 1;
const RTF_UP: u16 = 1;
const RTF_GATEWAY: u16 = 2;
/// What `ip route` takes for IPv6.
const METRIC_V6: u32 = 1024;

/// `struct sockaddr`, which for `AF_INET` is a `struct sockaddr_in`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SocketAddress {
    family: u16,
    data: [u8; 14],
}

/// `struct ifreq` with the member of its union that is asked for.
#[repr(C)]
#[derive(Clone, Copy)]
struct InterfaceRequest<T> {
    name: [u8; 16],
    value: T,
}

/// The union's widest member has 24 bytes.
type AddressRequest = InterfaceRequest<(SocketAddress, [u8; 8])>;
type FlagsRequest = InterfaceRequest<(u16, [u8; 22])>;
type NumberRequest = InterfaceRequest<(i32, [u8; 20])>;

/// `struct in6_ifreq`.
#[repr(C)]
#[derive(Clone, Copy)]
struct AddressRequest6 {
    address: [u8; 16],
    prefix: u32,
    index: i32,
}

/// `struct rtentry` of 64-bit Linux.
#[repr(C)]
#[derive(Clone, Copy)]
struct RouteEntry {
    pad1: u64,
    destination: SocketAddress,
    gateway: SocketAddress,
    mask: SocketAddress,
    flags: u16,
    pad2: i16,
    pad3: u64,
    pad4: u64,
    metric: i16,
    /// The name of the interface, ended by a NUL, or null.
    device: *const u8,
    mtu: u64,
    window: u64,
    round_trip: u16,
}

/// `struct in6_rtmsg`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RouteEntry6 {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: u64,
    flags: u32,
    index: i32,
}

const _: () = assert!(size_of::<AddressRequest>() == 40);
const _: () = assert!(size_of::<FlagsRequest>() == 40);
const _: () = assert!(size_of::<NumberRequest>() == 40);
const _: () = assert!(size_of::<AddressRequest6>() == 24);
const _: () = assert!(size_of::<RouteEntry>() == 120);
const _: () = assert!(size_of::<RouteEntry6>() == 80);

/// One interface of this machine.
pub struct Interface {
    socket: OwnedFd,
    name: String,
}

impl Interface {
    /// A name longer than the kernel's 15 bytes cannot come from the kernel, and is refused.
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > 15 {
            return fail(format!("{name:?} is no name of an interface"));
        }
        Ok(Interface {
            socket: socket(AddressFamily::INET)?,
            name: name.to_owned(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn mac(&self) -> Option<MacAddress> {
        present_mac(&self.name)
    }

    /// Whether a cable, or a bridge, is at its other end. False while it is down.
    pub fn has_carrier(&self) -> bool {
        let path = format!("/sys/class/net/{}/carrier", self.name);
        fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
    }

    pub fn set_mac(&self, mac: MacAddress) -> Result<()> {
        let mut data = [0; 14];
        data[..6].copy_from_slice(&mac.0);
        let family = ARPHRD_ETHER;
        self.set::<SIOCSIFHWADDR>(SocketAddress { family, data }, "MAC address")
    }

    pub fn set_mtu(&self, mtu_bytes: u16) -> Result<()> {
        let request: NumberRequest = self.request((i32::from(mtu_bytes), [0; 20]));
        // SAFETY: SIOCSIFMTU reads an ifreq with an int in its union; the size is asserted above.
        let call = unsafe { ioctl::Setter::<SIOCSIFMTU, NumberRequest>::new(request) };
        // SAFETY: as above; nothing is written back.
        unsafe { ioctl::ioctl(&self.socket, call) }
            .doing(|| format!("setting the MTU of {} to {mtu_bytes}", self.name))
    }

    pub fn up(&self) -> Result<()> {
        let doing = || format!("bringing {} up", self.name);
        let mut request: FlagsRequest = self.request((0, [0; 22]));
        // SAFETY: SIOCGIFFLAGS reads the name of an ifreq and writes a short in its union.
        let get = unsafe { ioctl::Updater::<SIOCGIFFLAGS, FlagsRequest>::new(&mut request) };
        // SAFETY: as above.
        unsafe { ioctl::ioctl(&self.socket, get) }.doing(doing)?;
        request.value.0 |= IFF_UP;
        // SAFETY: SIOCSIFFLAGS reads the same.
        let set = unsafe { ioctl::Setter::<SIOCSIFFLAGS, FlagsRequest>::new(request) };
        // SAFETY: as above; nothing is written back.
        unsafe { ioctl::ioctl(&self.socket, set) }.doing(doing)
    }

    /// Gives it an address and the length of its network's prefix. An IPv6 address needs the interface up.
    pub fn set_address(&self, address: IpAddr, prefix: u8) -> Result<()> {
        match address {
            IpAddr::V4(address) => self.set_address_v4(address, prefix),
            IpAddr::V6(address) => self.set_address_v6(address, prefix),
        }
    }

    fn set_address_v4(&self, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let mask = netmask(prefix);
        self.set::<SIOCSIFADDR>(internet(address), "address")?;
        self.set::<SIOCSIFNETMASK>(internet(mask), "netmask")?;
        if prefix < 31 {
            self.set::<SIOCSIFBRDADDR>(internet(address | !mask), "broadcast address")?;
        }
        Ok(())
    }

    fn set_address_v6(&self, address: Ipv6Addr, prefix: u8) -> Result<()> {
        let doing = || format!("setting the address {address} of {}", self.name);
        // An address on trial for a second cannot be used to ask for a root; who gave it says it is ours.
        let trial = format!("/proc/sys/net/ipv6/conf/{}/accept_dad", self.name);
        fs::write(&trial, "0").doing(|| {
            format!("writing {trial} (does the kernel have IPv6? ipv6.disable=1 turns it off)")
        })?;
        let request = AddressRequest6 {
            address: address.octets(),
            prefix: u32::from(prefix),
            index: self.index()?,
        };
        let socket = socket(AddressFamily::INET6)?;
        // SAFETY: on an IPv6 socket SIOCSIFADDR reads an in6_ifreq; the size is asserted above.
        let call = unsafe { ioctl::Setter::<SIOCSIFADDR, AddressRequest6>::new(request) };
        // SAFETY: as above; nothing is written back.
        if_new(unsafe { ioctl::ioctl(&socket, call) }).doing(doing)?;
        fs::write(&trial, "1").doing(|| format!("writing {trial}"))
    }

    /// A route to `destination` with this prefix length: through `gateway`, or straight out of the interface.
    pub fn add_route(
        &self,
        destination: IpAddr,
        prefix: u8,
        gateway: Option<IpAddr>,
    ) -> Result<()> {
        let doing = || match gateway {
            Some(gateway) => {
                format!("setting the route to {destination}/{prefix} through {gateway}")
            }
            None => format!(
                "setting the route to {destination}/{prefix} on {}",
                self.name
            ),
        };
        match (destination, gateway) {
            (IpAddr::V4(destination), None) => {
                if_new(self.add_route_v4(destination, prefix, None)).doing(doing)
            }
            (IpAddr::V4(destination), Some(IpAddr::V4(gateway))) => {
                if_new(self.add_route_v4(destination, prefix, Some(gateway))).doing(doing)
            }
            (IpAddr::V6(destination), None) => {
                let index = self.index()?;
                if_new(add_route_v6(destination, prefix, None, index)).doing(doing)
            }
            (IpAddr::V6(destination), Some(IpAddr::V6(gateway))) => {
                let index = self.index()?;
                if_new(add_route_v6(destination, prefix, Some(gateway), index)).doing(doing)
            }
            _ => fail(format!("{}: two families of addresses", doing())),
        }
    }

    fn add_route_v4(
        &self,
        destination: Ipv4Addr,
        prefix: u8,
        gateway: Option<Ipv4Addr>,
    ) -> rustix::io::Result<()> {
        let name = self.request(()).name;
        let route = RouteEntry {
            pad1: 0,
            destination: internet(destination),
            gateway: gateway.map(internet).unwrap_or_default(),
            mask: internet(netmask(prefix)),
            flags: RTF_UP | if gateway.is_some() { RTF_GATEWAY } else { 0 },
            pad2: 0,
            pad3: 0,
            pad4: 0,
            metric: 0,
            device: name.as_ptr(),
            mtu: 0,
            window: 0,
            round_trip: 0,
        };
        // SAFETY: SIOCADDRT reads an rtentry, whose size is asserted above; its device points to a
        // name of 16 bytes with a NUL, which outlives the call.
        let call = unsafe { ioctl::Setter::<SIOCADDRT, RouteEntry>::new(route) };
        // SAFETY: as above; nothing is written back.
        unsafe { ioctl::ioctl(&self.socket, call) }
    }

    fn index(&self) -> Result<i32> {
        let doing = || format!("looking for {}", self.name);
        let mut request: NumberRequest = self.request((0, [0; 20]));
        // SAFETY: SIOCGIFINDEX reads the name of an ifreq and writes an int in its union.
        let get = unsafe { ioctl::Updater::<SIOCGIFINDEX, NumberRequest>::new(&mut request) };
        // SAFETY: as above.
        unsafe { ioctl::ioctl(&self.socket, get) }.doing(doing)?;
        Ok(request.value.0)
    }

    fn set<const CALL: ioctl::Opcode>(&self, value: SocketAddress, what: &str) -> Result<()> {
        let request: AddressRequest = self.request((value, [0; 8]));
        // SAFETY: each CALL used here reads an ifreq with a sockaddr in its union; the layout and
        // size are asserted above.
        let call = unsafe { ioctl::Setter::<CALL, AddressRequest>::new(request) };
        // SAFETY: as above; these calls write nothing back.
        unsafe { ioctl::ioctl(&self.socket, call) }
            .doing(|| format!("setting the {what} of {}", self.name))
    }

    /// The name has at most 15 bytes, so that a NUL ends it.
    fn request<T>(&self, value: T) -> InterfaceRequest<T> {
        let mut name = [0; 16];
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        InterfaceRequest { name, value }
    }
}

/// What is there already, from a boot that failed or from a person's hand in its rescue, is as it should be.
fn if_new(added: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match added {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn add_route_v6(
    destination: Ipv6Addr,
    prefix: u8,
    gateway: Option<Ipv6Addr>,
    index: i32,
) -> rustix::io::Result<()> {
    let route = RouteEntry6 {
        destination: destination.octets(),
        gateway: gateway.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
        destination_length: u16::from(prefix),
        metric: METRIC_V6,
        flags: u32::from(RTF_UP | if gateway.is_some() { RTF_GATEWAY } else { 0 }),
        index,
        ..RouteEntry6::default()
    };
    let (family, kind) = (AddressFamily::INET6, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // SAFETY: on an IPv6 socket SIOCADDRT reads an in6_rtmsg, whose size is asserted above.
    let call = unsafe { ioctl::Setter::<SIOCADDRT, RouteEntry6>::new(route) };
    // SAFETY: as above; nothing is written back.
    unsafe { ioctl::ioctl(&socket, call) }
}

fn socket(family: AddressFamily) -> Result<OwnedFd> {
    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .doing(|| "opening a socket".into())
}

fn internet(address: Ipv4Addr) -> SocketAddress {
    let mut data = [0; 14];
    data[2..6].copy_from_slice(&address.octets());
    SocketAddress {
        family: AF_INET,
        data,
    }
}

pub fn netmask(prefix: u8) -> Ipv4Addr {
    let host_bits = 32 - u32::from(prefix.min(32));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

pub fn present_mac(name: &str) -> Option<MacAddress> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?;
    text.trim().parse().ok()
}

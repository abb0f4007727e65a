//! The clone's name and address, set by the classic interface calls (netdevice(7)).
//!
//! The interface stays down until here: a template is frozen without an address of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use estive_boot::identity::MacAddress;
use estive_boot::{CommandLine, Identity};
use rustix::ioctl;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::system::sethostname;

use crate::devices;
use crate::failure::{Failure, Result, While, fail};

const SIOCADDRT: ioctl::Opcode = 0x890b;
const SIOCGIFFLAGS: ioctl::Opcode = 0x8913;
const SIOCSIFFLAGS: ioctl::Opcode = 0x8914;
const SIOCSIFADDR: ioctl::Opcode = 0x8916;
const SIOCSIFBRDADDR: ioctl::Opcode = 0x891a;
const SIOCSIFNETMASK: ioctl::Opcode = 0x891c;
const SIOCSIFHWADDR: ioctl::Opcode = 0x8924;

const AF_INET: u16 = 2;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u16 = 1;
const RTF_UP: u16 = 1;
const RTF_GATEWAY: u16 = 2;

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

/// `struct rtentry` of 64-bit Linux.
#[repr(C)]
#[derive(Clone, Copy, Default)]
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
    device: u64,
    mtu: u64,
    window: u64,
    round_trip: u16,
}

const _: () = assert!(size_of::<AddressRequest>() == 40);
const _: () = assert!(size_of::<FlagsRequest>() == 40);
const _: () = assert!(size_of::<RouteEntry>() == 120);

/// Names the machine, brings up `lo`, and gives the clone's interface its MAC and address.
pub fn configure(identity: &Identity) -> Result<()> {
    sethostname(identity.hostname.as_bytes()).doing(|| "setting the host name".into())?;
    let name = devices::interface().ok_or_else(|| {
        Failure("no network interface: add -device virtio-net-pci to the machine".into())
    })?;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .doing(|| "opening a socket".into())?;
    Interface::new(&socket, "lo").up()?;

    let interface = Interface::new(&socket, &name);
    let address = identity.address;
    if present_mac(&name) != Some(identity.mac) {
        let mut data = [0; 14];
        data[..6].copy_from_slice(&identity.mac.0);
        let family = ARPHRD_ETHER;
        interface.set::<SIOCSIFHWADDR>(SocketAddress { family, data }, "MAC address")?;
    }
    interface.set::<SIOCSIFADDR>(internet(address.address), "address")?;
    interface.set::<SIOCSIFNETMASK>(internet(address.netmask()), "netmask")?;
    if address.prefix < 31 {
        let broadcast = address.address | !address.netmask();
        interface.set::<SIOCSIFBRDADDR>(internet(broadcast), "broadcast address")?;
    }
    interface.up()?;
    identity
        .gateway
        .map_or(Ok(()), |gateway| add_default_route(&socket, gateway))
}

/// Brings the network up for devices that are reached over it.
pub fn before_root(_: &CommandLine, identity: Option<&Identity>) -> Result<()> {
    match identity {
        Some(identity) => configure(identity),
        None => fail("ip= is not built into this estive-init"),
    }
}

struct Interface<'a> {
    socket: &'a OwnedFd,
    name: &'a str,
}

impl<'a> Interface<'a> {
    fn new(socket: &'a OwnedFd, name: &'a str) -> Self {
        Interface { socket, name }
    }

    fn set<const CALL: ioctl::Opcode>(&self, value: SocketAddress, what: &str) -> Result<()> {
        let request: AddressRequest = self.request((value, [0; 8]));
        // SAFETY: each CALL used here reads an ifreq with a sockaddr in its union; the layout and
        // size are asserted above.
        let call = unsafe { ioctl::Setter::<CALL, AddressRequest>::new(request) };
        // SAFETY: as above; these calls write nothing back.
        unsafe { ioctl::ioctl(self.socket, call) }
            .doing(|| format!("setting the {what} of {}", self.name))
    }

    fn up(&self) -> Result<()> {
        let doing = || format!("bringing {} up", self.name);
        let mut request: FlagsRequest = self.request((0, [0; 22]));
        // SAFETY: SIOCGIFFLAGS reads the name of an ifreq and writes a short in its union.
        let get = unsafe { ioctl::Updater::<SIOCGIFFLAGS, FlagsRequest>::new(&mut request) };
        // SAFETY: as above.
        unsafe { ioctl::ioctl(self.socket, get) }.doing(doing)?;
        request.value.0 |= IFF_UP;
        // SAFETY: SIOCSIFFLAGS reads the same.
        let set = unsafe { ioctl::Setter::<SIOCSIFFLAGS, FlagsRequest>::new(request) };
        // SAFETY: as above; nothing is written back.
        unsafe { ioctl::ioctl(self.socket, set) }.doing(doing)
    }

    /// A name longer than the kernel's 15 bytes cannot come from the kernel.
    fn request<T>(&self, value: T) -> InterfaceRequest<T> {
        let mut name = [0; 16];
        let length = self.name.len().min(15);
        name[..length].copy_from_slice(&self.name.as_bytes()[..length]);
        InterfaceRequest { name, value }
    }
}

fn add_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> Result<()> {
    let route = RouteEntry {
        destination: internet(Ipv4Addr::UNSPECIFIED),
        gateway: internet(gateway),
        mask: internet(Ipv4Addr::UNSPECIFIED),
        flags: RTF_UP | RTF_GATEWAY,
        ..RouteEntry::default()
    };
    // SAFETY: SIOCADDRT reads an rtentry, whose size is asserted above; its device pointer is null.
    let call = unsafe { ioctl::Setter::<SIOCADDRT, RouteEntry>::new(route) };
    // SAFETY: as above; nothing is written back.
    unsafe { ioctl::ioctl(socket, call) }
        .doing(|| format!("setting the default route through {gateway}"))
}

fn internet(address: Ipv4Addr) -> SocketAddress {
    let mut data = [0; 14];
    data[2..6].copy_from_slice(&address.octets());
    SocketAddress {
        family: AF_INET,
        data,
    }
}

fn present_mac(name: &str) -> Option<MacAddress> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?;
    text.trim().parse().ok()
}

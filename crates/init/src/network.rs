//! The machine's name and addresses: those of a clone's identity, or those that `ip=` asks for.
//!
//! The interface of a clone stays down until its identity is known: a template is frozen without an address of its own.

mod dhcp;
mod interface;
mod kept;
mod message;
mod resolve;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use estive_boot::ip_line::{Common, Device, IpLine, MTU_BYTES_MIN};
use estive_boot::{CommandLine, Identity};
use rustix::system::sethostname;

use crate::coldplug;
use crate::console::{say, uptime_ms};
use crate::devices;
use crate::failure::{Failure, Result, While, fail};
use interface::{Interface, present_mac};

const POLL: Duration = Duration::from_millis(20);
/// A name server of ours beyond the fourth is never asked.
const DNS_MAX: usize = 4;

/// How this machine is on the network, once it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub device: String,
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub dns: Vec<IpAddr>,
    /// Where names without a dot are looked for.
    pub domains: Vec<String>,
    pub hostname: Option<String>,
    /// The server that `ip=` names, or that the lease says to go on with.
    pub server: Option<IpAddr>,
    pub mtu_bytes: Option<u16>,
    /// Of an address that is only lent.
    pub lease: Option<Lease>,
}

/// What else a lease says; who renews it needs that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    pub server: Option<Ipv4Addr>,
    /// None: for ever.
    pub lease_s: Option<u32>,
    pub root_path: Option<String>,
    pub boot_file: Option<String>,
}

/// Names the machine, brings up `lo`, and gives the clone's interface its MAC and address.
pub fn configure(identity: &Identity) -> Result<Network> {
    sethostname(identity.hostname.as_bytes()).doing(|| "setting the host name".into())?;
    let name = devices::interface().ok_or_else(|| {
        Failure("no network interface: add -device virtio-net-pci to the machine".into())
    })?;
    Interface::new("lo")?.up()?;
    let interface = Interface::new(&name)?;
    let address = identity.address;
    if present_mac(&name) != Some(identity.mac) {
        interface.set_mac(identity.mac)?;
    }
    interface.set_address(address.address.into(), address.prefix)?;
    interface.up()?;
    let gateway = identity.gateway.map(IpAddr::V4);
    if let Some(gateway) = gateway {
        interface.add_route(Ipv4Addr::UNSPECIFIED.into(), 0, Some(gateway))?;
    }
    Ok(Network::of(identity, name))
}

/// Brings the network up for devices that are reached over it: as `ip=` says, else as the identity does, else by DHCP.
pub fn before_root(line: &CommandLine, identity: Option<&Identity>) -> Result<Network> {
    let patience_ms = u64::from(line.wait_s) * 1000;
    let network = match (&line.ip, identity) {
        (Some(ip), _) => bring_up(ip, patience_ms)?,
        (None, Some(identity)) => Some(configure(identity)?),
        (None, None) => bring_up(&IpLine::default(), patience_ms)?,
    };
    network.map_or_else(
        || fail("ip=off, and a device of root= is on the network: say ip=dhcp, or ip= with an address"),
        Ok,
    )
}

/// Does what `ip=` says. `None` when it says that the network stays off.
///
/// `patience_ms`: how long the interface and its carrier are waited for.
pub fn bring_up(line: &IpLine, patience_ms: u64) -> Result<Option<Network>> {
    let Some(common) = line.common() else {
        return Ok(None);
    };
    Interface::new("lo")?.up()?;
    let interface = with_carrier(common.device.as_ref(), patience_ms)?;
    if let Some(mtu_bytes) = common.mtu_bytes {
        interface.set_mtu(mtu_bytes)?;
    }
    let network = match line {
        IpLine::Off => return Ok(None),
        IpLine::Static(fixed) => {
            interface.set_address(fixed.address, fixed.prefix)?;
            let network = Network {
                device: interface.name().to_owned(),
                address: fixed.address,
                prefix: fixed.prefix,
                gateway: fixed.gateway,
                dns: Vec::new(),
                domains: Vec::new(),
                hostname: None,
                server: None,
                mtu_bytes: None,
                lease: None,
            };
            network.add_default_route(&interface)?;
            network.with(common)
        }
        IpLine::Dhcp(options) => {
            say(&format!("asking for an address on {}", interface.name()));
            let granted = dhcp::ask(&interface, options)?;
            if let (None, Some(mtu_bytes)) = (common.mtu_bytes, granted.mtu_bytes) {
                passed_over("MTU", interface.set_mtu(mtu_bytes));
            }
            if let Some(mtu_bytes) = granted.mtu_left_out {
                say(&format!(
                    "the lease's MTU of {mtu_bytes} is left out: every machine takes {MTU_BYTES_MIN} bytes (say mtu= of ip= otherwise)"
                ));
            }
            interface.set_address(granted.address.into(), granted.prefix)?;
            let network = granted.network(interface.name());
            network.add_default_route(&interface)?;
            for route in &granted.routes {
                let gateway = (!route.gateway.is_unspecified()).then(|| route.gateway.into());
                let added = interface.add_route(route.destination.into(), route.prefix, gateway);
                passed_over("route", added);
            }
            network.with(common)
        }
    };
    if let Some(hostname) = &network.hostname {
        sethostname(hostname.as_bytes()).doing(|| "setting the host name".into())?;
    }
    say(&format!(
        "{} has the address {}/{}",
        network.device, network.address, network.prefix
    ));
    Ok(Some(network))
}

/// What a lease offers beside its address stops no boot.
fn passed_over(what: &str, done: Result<()>) {
    if let Err(failure) = done {
        say(&format!("the lease's {what} is left out: {}", failure.0));
    }
}

impl Network {
    /// Of a clone whose identity was configured.
    fn of(identity: &Identity, device: String) -> Network {
        Network {
            device,
            address: identity.address.address.into(),
            prefix: identity.address.prefix,
            gateway: identity.gateway.map(IpAddr::V4),
            dns: Vec::new(),
            domains: Vec::new(),
            hostname: Some(identity.hostname.clone()),
            server: None,
            mtu_bytes: None,
            lease: None,
        }
    }

    /// What tells this machine from others, the same at each boot: the address of its card.
    pub fn machine_name(&self) -> Option<String> {
        present_mac(&self.device).map(|mac| mac.to_string())
    }

    /// The machine for people: its name may be lent, and another one next time.
    pub fn owner(&self) -> String {
        let mac = self.machine_name().unwrap_or_default();
        match &self.hostname {
            Some(hostname) => format!("{hostname} ({mac})"),
            None => format!("the machine with {mac}"),
        }
    }

    /// What `ip=` says counts more.
    fn with(mut self, common: &Common) -> Network {
        let mut dns = common.dns.clone();
        dns.append(&mut self.dns);
        dns.truncate(DNS_MAX);
        self.dns = dns;
        if !common.domains.is_empty() {
            self.domains = common.domains.clone();
        }
        self.hostname = common.hostname.clone().or(self.hostname);
        self.server = common.server.or(self.server);
        self.mtu_bytes = common.mtu_bytes.or(self.mtu_bytes);
        self
    }

    fn add_default_route(&self, interface: &Interface) -> Result<()> {
        let Some(gateway) = self.gateway else {
            return Ok(());
        };
        let (anywhere, bits): (IpAddr, u8) = match gateway {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 32),
            IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED.into(), 128),
        };
        if !self.is_near(gateway) {
            // Some networks give single addresses: the gateway is on the cable all the same.
            interface.add_route(gateway, bits, None)?;
        }
        interface.add_route(anywhere, 0, Some(gateway))
    }

    fn is_near(&self, other: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, bits: u32| {
            let host_bits = bits - u32::from(self.prefix).min(bits);
            ours.checked_shr(host_bits) == theirs.checked_shr(host_bits)
        };
        match (self.address, other) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same(ours.to_bits().into(), theirs.to_bits().into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                theirs.is_unicast_link_local() || same(ours.to_bits(), theirs.to_bits(), 128)
            }
            _ => false,
        }
    }
}

/// The interface that was named, or the first one with a carrier, brought up. The carrier of a named one is waited for
/// as well: a switch takes its time.
fn with_carrier(wanted: Option<&Device>, patience_ms: u64) -> Result<Interface> {
    let deadline_ms = uptime_ms() + patience_ms;
    let mut up: Vec<Interface> = Vec::new();
    loop {
        for name in devices::interfaces() {
            let is_wanted = match wanted {
                Some(Device::Name(wanted)) => *wanted == name,
                Some(Device::Mac(mac)) => present_mac(&name) == Some(*mac),
                None => true,
            };
            if is_wanted && !up.iter().any(|interface| interface.name() == name) {
                let interface = Interface::new(&name)?;
                interface.up()?;
                up.push(interface);
            }
        }
        // By name, so that the choice does not hang on which driver was quicker.
        up.sort_by(|one, other| one.name().cmp(other.name()));
        if let Some(found) = up.iter().position(Interface::has_carrier) {
            return Ok(up.swap_remove(found));
        }
        if uptime_ms() > deadline_ms {
            break;
        }
        coldplug::go_on();
        std::thread::sleep(POLL);
    }
    let found = devices::interfaces().join(", ");
    match (up.first(), wanted) {
        (Some(_), _) => {
            let names: Vec<&str> = up.iter().map(Interface::name).collect();
            fail(format!(
                "no carrier on {}: is the cable in, and the switch on? (name another interface with ip=…:device=)",
                names.join(", ")
            ))
        }
        (None, Some(device)) => fail(format!(
            "no network interface {device} (found: {}): correct device= of ip=, or add its driver to the initramfs",
            if found.is_empty() { "none" } else { &found }
        )),
        (None, None) => fail(
            "no network interface: add one to the machine, or its driver to the initramfs"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix: u8) -> Network {
        Network {
            device: "eth0".into(),
            address: address.parse().unwrap(),
            prefix,
            gateway: None,
            dns: vec![[10, 0, 0, 3].into()],
            domains: vec!["lease.example".into()],
            hostname: Some("lent".into()),
            server: None,
            mtu_bytes: Some(1400),
            lease: None,
        }
    }

    #[test]
    fn a_gateway_is_near_or_not() {
        let near =
            |address, prefix, other: &str| network(address, prefix).is_near(other.parse().unwrap());
        assert!(near("10.0.0.2", 24, "10.0.0.254"));
        assert!(!near("10.0.0.2", 24, "10.0.1.1"));
        assert!(!near("10.0.0.2", 32, "10.0.0.1"));
        assert!(near("10.0.0.2", 0, "192.0.2.1"));
        assert!(near("fd00::2", 64, "fd00::1"));
        assert!(near("fd00::2", 64, "fe80::1"));
        assert!(!near("fd00::2", 64, "fd01::1"));
        assert!(near("fd00::2", 0, "fd01::1"));
        assert!(!near("fd00::2", 64, "10.0.0.1"));
    }

    #[test]
    fn the_line_counts_more_than_the_lease() {
        let IpLine::Dhcp(line) =
            IpLine::parse(":10.0.0.1:::mine::dhcp:10.0.0.53:domain=a.example").unwrap()
        else {
            panic!("not DHCP")
        };
        let merged = network("10.0.0.2", 24).with(&line.common);
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        assert_eq!(merged.dns, [address(53), address(3)]);
        assert_eq!(merged.domains, ["a.example"]);
        assert_eq!(merged.hostname.as_deref(), Some("mine"));
        assert_eq!(merged.server, Some(address(1)));
        assert_eq!(merged.mtu_bytes, Some(1400));
    }
}

//! `ip=`: how the early userspace sets the network, in the kernel's own form or as `dhcp` with its options.
//!
//! ```text
//! ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF[:DNS0[:DNS1]][:KEY=VALUE…]
//! ip=dhcp[:KEY=VALUE…]        ip=off
//! ```
//!
//! The fields are those of the kernel's `Documentation/admin-guide/nfs/nfsroot.rst`; each may be empty, and trailing
//! ones left out. Beyond the kernel: IPv6 and MAC addresses in brackets (`[fd00::2]`), a prefix length in place of a
//! netmask or after the address (`10.0.0.2/24`), `%HH` for a character that has a meaning of its own, and the keys of
//! [`KEYS`].

mod fields;
mod printer;
mod value;

use std::fmt;
use std::net::IpAddr;

use crate::identity::MacAddress;
use crate::root_line::{Parsed, Problem};
use fields::{Autoconf, Field, Fields, Keys, fields};
use value::Line;

/// The word's name.
pub const IP_WORD: &str = "ip";

/// How long DHCP is tried where `timeout=` does not say, in seconds.
pub const DHCP_TIMEOUT_S: u32 = 60;

/// The keys of `ip=`: name, form, what it does.
pub const KEYS: [(&str, &str, &str); 7] = [
    (
        "hostname",
        "NAME",
        "the machine's name, asked of DHCP as well",
    ),
    (
        "device",
        "eth0 or [MAC]",
        "the interface; else the first that has a carrier",
    ),
    (
        "client-id",
        "TEXT or 0xHEX",
        "DHCP's client identifier; else the MAC address",
    ),
    ("vendor-class", "TEXT", "DHCP's vendor class identifier"),
    (
        "timeout",
        "SECONDS",
        "how long DHCP is tried before the boot stops; 60",
    ),
    ("mtu", "BYTES", "of the interface; else what DHCP says"),
    (
        "domain",
        "NAME[,NAME…]",
        "where names without a dot are looked for; else what DHCP says",
    ),
];

/// What every machine takes in one piece (RFC 791). With less, a large file takes for ever, and TCP itself may stop.
pub const MTU_BYTES_MIN: u16 = 576;
/// With less the kernel takes IPv6 from an interface (RFC 8200).
const MTU_BYTES_MIN_V6: u16 = 1280;

/// What is done about the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpLine {
    /// It is left as it is.
    Off,
    Dhcp(Dhcp),
    Static(Static),
}

/// A lease is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dhcp {
    pub common: Common,
    pub client_id: Option<ClientId>,
    pub vendor_class: Option<String>,
    pub timeout_s: Option<u32>,
}

/// The address is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    pub common: Common,
    pub address: IpAddr,
    /// Of the address: at most 32, or 128 for IPv6.
    pub prefix: u8,
    /// Of the address's own family.
    pub gateway: Option<IpAddr>,
}

/// What both kinds may say; what is said here counts more than what a lease says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Common {
    pub server: Option<IpAddr>,
    pub hostname: Option<String>,
    pub device: Option<Device>,
    pub dns: Vec<IpAddr>,
    pub domains: Vec<String>,
    pub mtu_bytes: Option<u16>,
}

/// Which interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    Name(String),
    Mac(MacAddress),
}

/// DHCP's client identifier (RFC 2132, 9.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientId {
    /// Sent with the type 0, which says that it is no hardware address.
    Text(String),
    /// Sent as it is, the type with it.
    Bytes(Vec<u8>),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Name(name) => f.write_str(name),
            Device::Mac(mac) => write!(f, "[{mac}]"),
        }
    }
}

impl IpLine {
    /// From the text after `ip=`.
    pub fn parse(text: &str) -> Result<IpLine, Problem> {
        IpLine::understand(text).map_err(|wrong| wrong.in_text(text))
    }

    fn understand(text: &str) -> Parsed<IpLine> {
        let fields = fields(text)?;
        let line = Line;
        let keys_at = fields
            .iter()
            .position(|field| field.key().is_some())
            .unwrap_or(fields.len());
        let (fields, keys) = fields.split_at(keys_at);
        let keys = Keys::read(&line, keys)?;
        match fields {
            [] => line.wrong(0, "it must begin with an address, `dhcp` or `off`"),
            [Field { text: "", .. }] => {
                line.wrong(0, "nothing is said: write dhcp, off, or an address")
            }
            [word] if Autoconf::of(word.text).is_some() => {
                line.build(Autoconf::read(&line, word)?, &Fields::default(), keys)
            }
            fields => {
                let fields = Fields::read(&line, fields)?;
                let autoconf = match &fields.autoconf {
                    Some(field) => Autoconf::read(&line, field)?,
                    None => Autoconf::Any,
                };
                line.build(autoconf, &fields, keys)
            }
        }
    }

    /// What both kinds may say.
    pub fn common(&self) -> Option<&Common> {
        match self {
            IpLine::Off => None,
            IpLine::Dhcp(dhcp) => Some(&dhcp.common),
            IpLine::Static(fixed) => Some(&fixed.common),
        }
    }
}

impl Default for IpLine {
    /// What is done when a root needs the network and nothing is said of it.
    fn default() -> Self {
        IpLine::Dhcp(Dhcp::default())
    }
}

impl Line {
    fn build(&self, autoconf: Autoconf, fields: &Fields, keys: Keys) -> Parsed<IpLine> {
        for (field, key) in [(fields.hostname, "hostname"), (fields.device, "device")] {
            if let (Some(_), Some(at)) = (field, keys.place(key)) {
                return self.wrong(at, "it is said twice: in its field, and here");
            }
        }
        let hostname = fields.hostname.or(keys.hostname);
        let device = fields.device.or(keys.device);
        let address = |field: &Field| self.address(field);
        let common = Common {
            server: fields.server.as_ref().map(address).transpose()?,
            hostname: hostname.map(|field| self.hostname(&field)).transpose()?,
            device: device.map(|field| self.device(&field)).transpose()?,
            dns: fields.dns.iter().map(address).collect::<Parsed<_>>()?,
            domains: keys.domains.clone(),
            mtu_bytes: keys.mtu_bytes,
        };
        match (&fields.client, autoconf) {
            (Some(client), Autoconf::Dhcp) => self.wrong(
                client.at,
                "an address and dhcp exclude each other: leave one of them out",
            ),
            (Some(client), _) => {
                for key in ["client-id", "vendor-class", "timeout"] {
                    if let Some(at) = keys.place(key) {
                        return self.wrong(at, "it is for DHCP, and the address is given");
                    }
                }
                let small = common.mtu_bytes.filter(|bytes| *bytes < MTU_BYTES_MIN_V6);
                let fixed = self.fixed(client, fields, common)?;
                match (small, keys.place("mtu")) {
                    (Some(_), Some(at)) if fixed.address.is_ipv6() => {
                        self.wrong(at, "an address of IPv6 needs 1280 bytes at least")
                    }
                    _ => Ok(IpLine::Static(fixed)),
                }
            }
            (None, Autoconf::Off) => {
                if common != Common::default() || !keys.seen.is_empty() {
                    return self.wrong(0, "an address must come first, for the network is off");
                }
                Ok(IpLine::Off)
            }
            (None, Autoconf::Any | Autoconf::Dhcp) => {
                if let Some(field) = fields.gateway.as_ref().or(fields.netmask.as_ref()) {
                    return self.wrong(field.at, "it belongs to an address, and none is given");
                }
                Ok(IpLine::Dhcp(Dhcp {
                    common,
                    client_id: keys.client_id,
                    vendor_class: keys.vendor_class,
                    timeout_s: keys.timeout_s,
                }))
            }
        }
    }

    fn fixed(&self, client: &Field, fields: &Fields, common: Common) -> Parsed<Static> {
        let (address, own_prefix) = match client.text.split_once('/') {
            Some((address, length)) => {
                let at = client.at + address.len() + 1;
                let part = |at, text| Field {
                    at,
                    text,
                    ..*client
                };
                (
                    self.address(&part(client.at, address))?,
                    Some(part(at, length)),
                )
            }
            None => (self.address(client)?, None),
        };
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match (own_prefix, fields.netmask) {
            (Some(_), Some(netmask)) => {
                return self.wrong(netmask.at, "the address says its prefix length already");
            }
            (None, None) => {
                return self.wrong(
                    client.at + client.text.len(),
                    "a netmask is missing: write it as the fourth field, or ADDRESS/LENGTH",
                );
            }
            (Some(field), None) | (None, Some(field)) => self.prefix(&field, bits)?,
        };
        let gateway = match &fields.gateway {
            Some(field) => {
                let gateway = self.address(field)?;
                if gateway.is_ipv4() != address.is_ipv4() {
                    return self.wrong(field.at, "the gateway is of the other family of addresses");
                }
                Some(gateway)
            }
            None => None,
        };
        Ok(Static {
            common,
            address,
            prefix,
            gateway,
        })
    }
}

/// Letters, digits, `-`, `.` and `_`, as names in DNS are in practice; at most 253 of them, no empty label.
pub fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests;

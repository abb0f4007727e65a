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

mod printer;

use std::fmt;
use std::net::IpAddr;

use crate::identity::MacAddress;
use crate::root_line::{Parsed, Problem, Wrong};

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

const HOSTNAME_BYTES_MAX: usize = 64;
const DEVICE_BYTES_MAX: usize = 15;
const TEXT_BYTES_MAX: usize = 128;
const DOMAINS_MAX: usize = 6;
const DNS_MAX: usize = 2;

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

/// One field and where it begins in the text.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    at: usize,
    /// Without the brackets that hold all of it.
    text: &'a str,
    bracketed: bool,
}

impl<'a> Field<'a> {
    /// The two halves of `key=value`, the second with its place.
    fn key(&self) -> Option<(&'a str, Field<'a>)> {
        if self.bracketed {
            return None;
        }
        let (key, value) = self.text.split_once('=')?;
        let at = self.at + key.len() + 1;
        let inside = value
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let value = Field {
            at: at + usize::from(inside.is_some()),
            text: inside.unwrap_or(value),
            bracketed: inside.is_some(),
        };
        Some((key, value))
    }
}

/// Splits at each `:` that is not in brackets.
fn fields(text: &str) -> Parsed<Vec<Field<'_>>> {
    let line = Line;
    let mut fields = Vec::new();
    let mut open = None;
    let mut begin = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ':')]) {
        match (c, open) {
            _ if c.is_control() || c.is_whitespace() => {
                return line.wrong(at, "a blank: write %20");
            }
            ('[', None) => open = Some(at),
            ('[', Some(_)) => return line.wrong(at, "a bracket inside brackets"),
            (']', None) => return line.wrong(at, "no bracket was opened"),
            (']', Some(_)) => open = None,
            (':', None) => {
                let part = &text[begin..at];
                let inside = part.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                fields.push(Field {
                    at: begin + usize::from(inside.is_some()),
                    text: inside.unwrap_or(part),
                    bracketed: inside.is_some(),
                });
                begin = at + 1;
            }
            _ => {}
        }
    }
    match open {
        Some(at) => line.wrong(at, "this bracket is not closed"),
        None => Ok(fields),
    }
}

/// The fields of the kernel's form.
#[derive(Default)]
struct Fields<'a> {
    client: Option<Field<'a>>,
    server: Option<Field<'a>>,
    gateway: Option<Field<'a>>,
    netmask: Option<Field<'a>>,
    hostname: Option<Field<'a>>,
    device: Option<Field<'a>>,
    autoconf: Option<Field<'a>>,
    dns: Vec<Field<'a>>,
}

impl<'a> Fields<'a> {
    fn read(line: &Line, fields: &[Field<'a>]) -> Parsed<Fields<'a>> {
        let given = |index: usize| {
            fields
                .get(index)
                .copied()
                .filter(|field| !field.text.is_empty())
        };
        if let Some(field) = fields.get(7 + DNS_MAX) {
            return line.wrong(
                field.at,
                "there are nine fields at most, the last two for DNS; others are written KEY=VALUE",
            );
        }
        Ok(Fields {
            client: given(0),
            server: given(1),
            gateway: given(2),
            netmask: given(3),
            hostname: given(4),
            device: given(5),
            autoconf: given(6),
            dns: (7..fields.len()).filter_map(given).collect(),
        })
    }
}

#[derive(Default)]
struct Keys<'a> {
    seen: Vec<(&'a str, usize)>,
    hostname: Option<Field<'a>>,
    device: Option<Field<'a>>,
    client_id: Option<ClientId>,
    vendor_class: Option<String>,
    timeout_s: Option<u32>,
    mtu_bytes: Option<u16>,
    domains: Vec<String>,
}

impl<'a> Keys<'a> {
    fn read(line: &Line, fields: &[Field<'a>]) -> Parsed<Keys<'a>> {
        let mut keys = Keys::default();
        for field in fields {
            let Some((key, value)) = field.key() else {
                return line.wrong(
                    field.at,
                    "a field after KEY=VALUE: the keys stand at the end",
                );
            };
            if keys.seen.iter().any(|(seen, _)| *seen == key) {
                return line.wrong(field.at, "it is said twice");
            }
            keys.seen.push((key, field.at));
            match key {
                "hostname" => keys.hostname = Some(value),
                "device" => keys.device = Some(value),
                "client-id" => keys.client_id = Some(line.client_id(&value)?),
                "vendor-class" => keys.vendor_class = Some(line.text(&value)?),
                "timeout" => {
                    keys.timeout_s = Some(line.number(&value, 1..=3600, "seconds, 1 to 3600")?);
                }
                "mtu" => {
                    let mtu_bytes = line.number(&value, 68..=65535, "bytes, 68 to 65535")?;
                    keys.mtu_bytes = u16::try_from(mtu_bytes).ok();
                }
                "domain" => keys.domains = line.domains(&value)?,
                _ => {
                    let known: Vec<&str> = KEYS.iter().map(|(name, ..)| *name).collect();
                    return line.wrong(
                        field.at,
                        &format!("no such key; there are {}", known.join(", ")),
                    );
                }
            }
        }
        Ok(keys)
    }

    fn place(&self, key: &str) -> Option<usize> {
        let (_, at) = self.seen.iter().find(|(seen, _)| *seen == key)?;
        Some(*at)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Autoconf {
    Off,
    /// DHCP unless an address is given.
    Any,
    Dhcp,
}

impl Autoconf {
    fn of(word: &str) -> Option<std::result::Result<Autoconf, &'static str>> {
        Some(match word {
            "off" | "none" => Ok(Autoconf::Off),
            "on" | "any" => Ok(Autoconf::Any),
            "dhcp" => Ok(Autoconf::Dhcp),
            "bootp" | "rarp" | "both" => Err("DHCP took the place of it: write dhcp"),
            _ => return None,
        })
    }

    fn read(line: &Line, field: &Field) -> Parsed<Autoconf> {
        match Autoconf::of(field.text) {
            Some(Ok(autoconf)) => Ok(autoconf),
            Some(Err(reason)) => line.wrong(field.at, reason),
            None => line.wrong(field.at, "it must be dhcp, on, any, off or none"),
        }
    }
}

/// Reading fields: its errors are told by place.
struct Line;

impl Line {
    fn wrong<T>(&self, at: usize, message: &str) -> Parsed<T> {
        Err(Wrong::new(at, message))
    }

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
                self.fixed(client, fields, common).map(IpLine::Static)
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

    fn address(&self, field: &Field) -> Parsed<IpAddr> {
        let address: IpAddr = match field.text.parse() {
            Ok(address) => address,
            Err(_) => {
                return self.wrong(
                    field.at,
                    "it must be an address as 10.0.0.2, or as [fd00::2]",
                );
            }
        };
        if address.is_unspecified() || address.is_multicast() {
            return self.wrong(field.at, "no machine can have this address");
        }
        Ok(address)
    }

    /// A number of bits, or an IPv4 netmask.
    fn prefix(&self, field: &Field, bits: u8) -> Parsed<u8> {
        if let Ok(mask) = field.text.parse::<std::net::Ipv4Addr>()
            && bits == 32
        {
            let mask = u32::from(mask);
            let ones = mask.leading_ones();
            if mask.checked_shl(ones).unwrap_or(0) != 0 {
                return self.wrong(field.at, "a netmask is ones, then zeros");
            }
            return Ok(ones as u8);
        }
        match field.text.parse() {
            Ok(length) if length <= bits => Ok(length),
            _ => self.wrong(
                field.at,
                "it must be a netmask as 255.255.255.0, or a prefix length as 24",
            ),
        }
    }

    fn hostname(&self, field: &Field) -> Parsed<String> {
        if is_host_name(field.text) && field.text.len() <= HOSTNAME_BYTES_MAX {
            return Ok(field.text.to_owned());
        }
        self.wrong(
            field.at,
            "a host name has letters, digits, - and ., at most 64",
        )
    }

    fn domains(&self, field: &Field) -> Parsed<Vec<String>> {
        let mut at = field.at;
        let mut domains = Vec::new();
        for name in field.text.split(',') {
            if !is_host_name(name) || domains.len() == DOMAINS_MAX {
                return self.wrong(
                    at,
                    "a domain has letters, digits, - and .; at most six of them",
                );
            }
            domains.push(name.to_owned());
            at += name.len() + 1;
        }
        Ok(domains)
    }

    fn device(&self, field: &Field) -> Parsed<Device> {
        let text = field.text;
        if field.bracketed || text.contains(':') {
            return match text.parse() {
                Ok(mac) => Ok(Device::Mac(mac)),
                Err(_) => self.wrong(
                    field.at,
                    "in brackets it must be a MAC address, as [52:54:00:00:00:01]",
                ),
            };
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '%' | '[' | ']' | '=');
        if text.len() <= DEVICE_BYTES_MAX
            && !text.is_empty()
            && text.chars().all(plain)
            && !matches!(text, "." | "..")
        {
            return Ok(Device::Name(text.to_owned()));
        }
        self.wrong(
            field.at,
            "it must be the name of an interface, as eth0, at most 15 characters",
        )
    }

    fn client_id(&self, field: &Field) -> Parsed<ClientId> {
        let Some(digits) = field.text.strip_prefix("0x") else {
            return self.text(field).map(ClientId::Text);
        };
        let bytes: Option<Vec<u8>> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| hex(pair.first().copied(), pair.get(1).copied()))
            .collect();
        match bytes {
            Some(bytes) if (2..=TEXT_BYTES_MAX).contains(&bytes.len()) => {
                Ok(ClientId::Bytes(bytes))
            }
            _ => self.wrong(field.at, "0x and then 2 to 128 bytes, two digits each"),
        }
    }

    /// Text for DHCP, `%HH` decoded.
    fn text(&self, field: &Field) -> Parsed<String> {
        let mut bytes = Vec::new();
        let mut rest = field.text.bytes().enumerate();
        while let Some((index, byte)) = rest.next() {
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let mut digit = || rest.next().map(|(_, byte)| byte);
            match hex(digit(), digit()) {
                Some(byte) => bytes.push(byte),
                None => return self.wrong(field.at + index, "% is followed by two hex digits"),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text)
                if (1..=TEXT_BYTES_MAX).contains(&text.len())
                    && !text.chars().any(char::is_control) =>
            {
                Ok(text)
            }
            _ => self.wrong(
                field.at,
                "1 to 128 bytes of text, without control characters",
            ),
        }
    }

    fn number(
        &self,
        field: &Field,
        range: std::ops::RangeInclusive<u32>,
        form: &str,
    ) -> Parsed<u32> {
        match field.text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => self.wrong(field.at, &format!("it must be a number of {form}")),
        }
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

fn hex(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high?)? << 4 | digit(low?)?).ok()
}

#[cfg(test)]
mod tests;

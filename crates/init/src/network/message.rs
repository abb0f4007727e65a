//! Messages of DHCP (RFC 2131 and 2132), written and read. What is read comes from anybody on the cable.
//!
//! Own code, since the one crate that is well kept for it (`dhcproto`) brings a whole DNS library into PID 1.

use std::net::Ipv4Addr;

use estive_boot::identity::MacAddress;
use estive_boot::ip_line::{ClientId, MTU_BYTES_MIN, is_host_name};

/// As much as any link carries in one piece; what is longer is cut by the socket, and then refused.
pub const MESSAGE_BYTES_MAX: usize = 1472;
/// BOOTP's own fields, up to the magic cookie.
const HEAD_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop what is shorter (RFC 1542, 2.1).
const MESSAGE_BYTES_MIN: usize = 300;
const ADDRESSES_MAX: usize = 4;
const DOMAINS_MAX: usize = 6;
const ROUTES_MAX: usize = 16;
/// The shortest lease worth having: boot takes its time, and who renews comes later.
const LEASE_S_MIN: u32 = 30;
mod option {
    pub const PAD: u8 = 0;
    pub const NETMASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const ROOT_PATH: u8 = 17;
    pub const MTU: u8 = 26;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const SIZE_MAX: u8 = 57;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const BOOT_FILE: u8 = 67;
    pub const SEARCH: u8 = 119;
    pub const ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

const WANTED: [u8; 11] = [
    option::NETMASK,
    option::ROUTES,
    option::ROUTER,
    option::DNS,
    option::HOSTNAME,
    option::DOMAIN,
    option::ROOT_PATH,
    option::MTU,
    option::LEASE,
    option::BOOT_FILE,
    option::SEARCH,
];

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    Discover,
    Request { address: Ipv4Addr, server: Ipv4Addr },
}

/// Who says it; the same in every message.
#[derive(Debug, Clone)]
pub struct Speaker<'a> {
    pub mac: MacAddress,
    pub transaction: u32,
    pub client_id: Option<&'a ClientId>,
    pub hostname: Option<&'a str>,
    pub vendor_class: Option<&'a str>,
}

impl Speaker<'_> {
    /// The message, asking for an answer by broadcast: there is no address yet that another could reach.
    pub fn write(&self, say: Say, seconds: u16) -> Vec<u8> {
        let mut message = vec![1, 1, 6, 0];
        message.extend(self.transaction.to_be_bytes());
        message.extend(seconds.to_be_bytes());
        message.extend(0x8000_u16.to_be_bytes());
        message.extend([0; 16]);
        message.extend(self.mac.0);
        message.resize(HEAD_BYTES, 0);
        message.extend(COOKIE);
        let mut add = |code: u8, data: &[u8]| {
            // Every length is checked where it is parsed; none of ours is longer.
            let data = &data[..data.len().min(255)];
            message.extend([code, data.len() as u8]);
            message.extend(data);
        };
        match say {
            Say::Discover => add(option::KIND, &[1]),
            Say::Request { address, server } => {
                add(option::KIND, &[3]);
                add(option::REQUESTED, &address.octets());
                add(option::SERVER, &server.octets());
            }
        }
        let id = match self.client_id {
            Some(ClientId::Bytes(bytes)) => bytes.clone(),
            Some(ClientId::Text(text)) => [&[0], text.as_bytes()].concat(),
            None => [&[1], &self.mac.0[..]].concat(),
        };
        add(option::CLIENT_ID, &id);
        add(option::SIZE_MAX, &(MESSAGE_BYTES_MAX as u16).to_be_bytes());
        if let Some(name) = self.hostname {
            add(option::HOSTNAME, name.as_bytes());
        }
        if let Some(class) = self.vendor_class {
            add(option::VENDOR_CLASS, class.as_bytes());
        }
        add(option::WANTED, &WANTED);
        message.push(option::END);
        if message.len() < MESSAGE_BYTES_MIN {
            message.resize(MESSAGE_BYTES_MIN, option::PAD);
        }
        message
    }

    /// An answer that is for us and makes sense; anything else is passed over.
    pub fn read(&self, message: &[u8]) -> Option<Answer> {
        let head = message.get(..HEAD_BYTES)?;
        let is_ours = head[0] == 2
            && head[1] == 1
            && head[2] == 6
            && head[4..8] == self.transaction.to_be_bytes()
            && head[28..34] == self.mac.0
            && message.get(HEAD_BYTES..HEAD_BYTES + 4)? == COOKIE;
        if !is_ours {
            return None;
        }
        let options = Options::read(message)?;
        let server = options.address(option::SERVER);
        match options.get(option::KIND)? {
            [2] => Some(Answer::Offer(Granted::read(head, &options)?, server?)),
            [5] => Some(Answer::Granted(Box::new(Granted::read(head, &options)?))),
            [6] => Some(Answer::Refused(
                options.text(option::MESSAGE).unwrap_or_default(),
            )),
            _ => None,
        }
    }
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// And by whom.
    Offer(Granted, Ipv4Addr),
    Granted(Box<Granted>),
    /// In the server's words.
    Refused(String),
}

/// A lease, every value checked; one that makes no sense is left out, or the whole refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    /// Besides the one to the router.
    pub routes: Vec<Route>,
    pub dns: Vec<Ipv4Addr>,
    pub domains: Vec<String>,
    pub hostname: Option<String>,
    pub mtu_bytes: Option<u16>,
    /// One that is too small for a machine to boot by.
    pub mtu_left_out: Option<u16>,
    pub server: Option<Ipv4Addr>,
    /// The server to go on booting from.
    pub next_server: Option<Ipv4Addr>,
    pub lease_s: Option<u32>,
    pub root_path: Option<String>,
    pub boot_file: Option<String>,
}

/// A classless static route (RFC 3442); a gateway of 0.0.0.0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
}

impl Granted {
    fn read(head: &[u8], options: &Options) -> Option<Granted> {
        let address = machine(&head[16..20])?;
        let prefix = match options.get(option::NETMASK) {
            Some(mask) => {
                let mask = u32::from_be_bytes(mask.try_into().ok()?);
                let ones = mask.leading_ones();
                // A mask of no ones would make the whole world a neighbour.
                if ones == 0 || mask.checked_shl(ones).unwrap_or(0) != 0 {
                    return None;
                }
                ones as u8
            }
            // By the class of the address, as the kernel does it.
            None => match address.octets()[0] {
                ..128 => 8,
                128..192 => 16,
                _ => 24,
            },
        };
        let mut routes = options.routes();
        let router = match routes.iter().position(|route| route.prefix == 0) {
            Some(index) => Some(routes.remove(index).gateway),
            // Who sends routes means them instead of a router (RFC 3442).
            None if !routes.is_empty() => None,
            None => options.addresses(option::ROUTER).first().copied(),
        };
        let lease_s = match options.number(option::LEASE) {
            Some(u32::MAX) | None => None,
            Some(lease_s) if lease_s < LEASE_S_MIN => return None,
            Some(lease_s) => Some(lease_s),
        };
        let mut domains = options.search();
        if domains.is_empty() {
            domains.extend(options.name(option::DOMAIN));
        }
        let mtu_bytes = options
            .get(option::MTU)
            .and_then(|bytes| Some(u16::from_be_bytes(bytes.try_into().ok()?)));
        let (mtu_bytes, mtu_left_out) = match mtu_bytes {
            Some(small) if small < MTU_BYTES_MIN => (None, Some(small)),
            other => (other, None),
        };
        Some(Granted {
            address,
            prefix,
            router: router.filter(|router| is_machine(*router)),
            routes,
            dns: options.addresses(option::DNS),
            domains,
            hostname: options
                .name(option::HOSTNAME)
                .filter(|name| name.len() <= 64),
            mtu_bytes,
            mtu_left_out,
            server: options.address(option::SERVER),
            next_server: machine(&head[20..24]),
            lease_s,
            root_path: options.text(option::ROOT_PATH),
            boot_file: options.text(option::BOOT_FILE).or_else(|| options.file()),
        })
    }
}

/// The options of a message, those written in several pieces put together (RFC 3396).
struct Options<'a> {
    message: &'a [u8],
    overload: u8,
    values: Vec<(u8, Vec<u8>)>,
}

impl<'a> Options<'a> {
    /// `None` when a length points beyond the end.
    fn read(message: &'a [u8]) -> Option<Options<'a>> {
        let mut options = Options {
            message,
            overload: 0,
            values: Vec::new(),
        };
        options.add(&message[HEAD_BYTES + 4..])?;
        if let Some([overload @ 1..=3]) = options.get(option::OVERLOAD) {
            options.overload = *overload;
            if options.overload & 1 != 0 {
                options.add(&message[108..236])?;
            }
            if options.overload & 2 != 0 {
                options.add(&message[44..108])?;
            }
        }
        Some(options)
    }

    fn add(&mut self, mut rest: &[u8]) -> Option<()> {
        loop {
            match rest {
                [option::END, ..] | [] => return Some(()),
                [option::PAD, more @ ..] => rest = more,
                [code, length, more @ ..] => {
                    let data = more.get(..usize::from(*length))?;
                    match self.values.iter_mut().find(|(known, _)| known == code) {
                        Some((_, value)) => value.extend(data),
                        None => self.values.push((*code, data.to_vec())),
                    }
                    rest = &more[usize::from(*length)..];
                }
                [_] => return None,
            }
        }
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        let (_, value) = self.values.iter().find(|(known, _)| *known == code)?;
        Some(value)
    }

    fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        machine(self.get(code)?)
    }

    fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let all = self.get(code).unwrap_or_default().chunks_exact(4);
        all.filter_map(machine).take(ADDRESSES_MAX).collect()
    }

    fn name(&self, code: u8) -> Option<String> {
        let text = self.text(code)?;
        let text = text.trim_end_matches('.');
        is_host_name(text).then(|| text.to_owned())
    }

    /// Printable ASCII, up to a NUL.
    fn text(&self, code: u8) -> Option<String> {
        printable(self.get(code)?)
    }

    /// The field of BOOTP, unless it holds options.
    fn file(&self) -> Option<String> {
        (self.overload & 1 == 0)
            .then(|| printable(&self.message[108..236]))
            .flatten()
    }

    /// RFC 3442. One that is malformed spoils what follows it, but not what came before.
    fn routes(&self) -> Vec<Route> {
        let mut rest = self.get(option::ROUTES).unwrap_or_default();
        let mut routes = Vec::new();
        while let [prefix @ 0..=32, more @ ..] = rest {
            let bytes = usize::from(prefix.div_ceil(8));
            let (Some(significant), Some(gateway)) =
                (more.get(..bytes), more.get(bytes..bytes + 4))
            else {
                break;
            };
            let mut destination = [0; 4];
            destination[..bytes].copy_from_slice(significant);
            let mask = u32::MAX
                .checked_shl(32 - u32::from(*prefix))
                .unwrap_or_default();
            let gateway = [gateway[0], gateway[1], gateway[2], gateway[3]];
            routes.push(Route {
                destination: Ipv4Addr::from_bits(u32::from_be_bytes(destination) & mask),
                prefix: *prefix,
                gateway: gateway.into(),
            });
            rest = &more[bytes + 4..];
            if routes.len() == ROUTES_MAX {
                break;
            }
        }
        routes
    }

    /// The search list (RFC 3397), its names compressed as in DNS.
    fn search(&self) -> Vec<String> {
        let list = self.get(option::SEARCH).unwrap_or_default();
        let mut names = Vec::new();
        let mut at = 0;
        while at < list.len() && names.len() < DOMAINS_MAX {
            let Some((name, next)) = name_at(list, at) else {
                break;
            };
            if is_host_name(&name) {
                names.push(name);
            }
            at = next;
        }
        names
    }
}

/// One name and where the next begins. Pointers go backwards only, so that every walk ends.
fn name_at(list: &[u8], begin: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut next = None;
    let (mut at, mut lowest) = (begin, begin);
    loop {
        match *list.get(at)? {
            0 => return Some((name, next.unwrap_or(at + 1))),
            length @ 1..=63 => {
                let label = list.get(at + 1..at + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(std::str::from_utf8(label).ok()?);
                if name.len() > 253 {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            high @ 0xc0.. => {
                let low = *list.get(at + 1)?;
                next = next.or(Some(at + 2));
                at = usize::from(high & 0x3f) << 8 | usize::from(low);
                if at >= lowest {
                    return None;
                }
                lowest = at;
            }
            _ => return None,
        }
    }
}

fn machine(bytes: &[u8]) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?);
    is_machine(address).then_some(address)
}

/// Whether a machine can have this address on a cable.
fn is_machine(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_loopback())
}

fn printable(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let text = &bytes[..end];
    let is_plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    (!text.is_empty() && text.iter().all(is_plain))
        .then(|| text.iter().map(|byte| char::from(*byte)).collect())
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;

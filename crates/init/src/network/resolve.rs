//! Names made addresses (RFC 1035, RFC 3596): A and AAAA asked of the name servers, one after another.
//!
//! Own code around `simple-dns`, since a static program has no resolver: glibc's would load libraries that are not there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use estive_boot::ip_line::is_host_name;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::Network;
use super::dhcp::random;
use crate::console::uptime_ms;
use crate::failure::{Failure, Result, While, fail};

const PORT: u16 = 53;
/// Every server is asked so often, each time with twice the patience.
const ROUNDS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(1500);
/// One name, with all its kinds, aliases, domains and servers.
const WHOLE_MS: u64 = 60_000;
/// Who sends more that is no answer to one question only wants to keep us busy.
const STRAYS_MAX: u32 = 64;
/// Without EDNS no answer is longer (RFC 1035, 2.3.4); one that is cut says so, and what fits is used.
const ANSWER_BYTES_MAX: usize = 512;
/// A name that is another's name, and so on: RFC 1034 names no limit, resolvers stop near this.
const ALIASES_MAX: u32 = 8;
const ADDRESSES_MAX: usize = 8;

/// What one answer says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Addresses(Vec<IpAddr>),
    /// It is another name's; that one was not told as well.
    Alias(String),
    /// There is no such name, or it has no address of this kind.
    Nothing,
}

impl Network {
    /// The addresses of a name, or the one address that the text is. At least one.
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>> {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        if !is_host_name(name.trim_end_matches('.')) {
            return fail(format!("{name:?} is neither an address nor a name"));
        }
        if self.dns.is_empty() {
            return fail(format!(
                "no name server is known to ask for {name}: add one to ip= (its eighth field), or write the address"
            ));
        }
        self.resolve_by(&Servers, name)
    }

    fn resolve_by(&self, asked: &impl Asked, name: &str) -> Result<Vec<IpAddr>> {
        let mut complaints = Vec::new();
        let deadline_ms = asked.now_ms() + WHOLE_MS;
        for candidate in candidates(name, &self.domains) {
            for kind in self.kinds() {
                match self.look_up(asked, &candidate, kind, deadline_ms) {
                    Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                    Ok(_) => {}
                    Err(Failure(complaint)) => complaints.push(complaint),
                }
            }
        }
        complaints.dedup();
        match complaints.is_empty() {
            true => fail(format!(
                "the name server {} knows no address of {name}: correct it, or write the address",
                self.dns[0]
            )),
            false => fail(format!(
                "{name} has no address that could be found: {}",
                complaints.join("; ")
            )),
        }
    }

    /// Addresses of our own family first.
    fn kinds(&self) -> [TYPE; 2] {
        match self.address {
            IpAddr::V4(_) => [TYPE::A, TYPE::AAAA],
            IpAddr::V6(_) => [TYPE::AAAA, TYPE::A],
        }
    }

    fn look_up(
        &self,
        asked: &impl Asked,
        name: &str,
        kind: TYPE,
        deadline_ms: u64,
    ) -> Result<Vec<IpAddr>> {
        let mut name = name.to_owned();
        for _ in 0..ALIASES_MAX {
            match self.ask_servers(asked, &name, kind, deadline_ms)? {
                Said::Addresses(addresses) => return Ok(addresses),
                Said::Alias(other) => name = other,
                Said::Nothing => return Ok(Vec::new()),
            }
        }
        fail(format!("{name} leads from name to name without an end"))
    }

    fn ask_servers(
        &self,
        asked: &impl Asked,
        name: &str,
        kind: TYPE,
        deadline_ms: u64,
    ) -> Result<Said> {
        let mut complaint = String::new();
        for round in 0..ROUNDS {
            for server in &self.dns {
                let left = Duration::from_millis(deadline_ms.saturating_sub(asked.now_ms()));
                if left.is_zero() {
                    return fail(format!(
                        "the name servers took more than {} s",
                        WHOLE_MS / 1000
                    ));
                }
                let patience = left.min(FIRST_WAIT * 2_u32.pow(round));
                match asked.ask(*server, name, kind, patience) {
                    Ok(said) => return Ok(said),
                    Err(Failure(text)) => complaint = text,
                }
            }
        }
        fail(complaint)
    }
}

/// Who answers questions, and the time.
trait Asked {
    fn ask(&self, server: IpAddr, name: &str, kind: TYPE, patience: Duration) -> Result<Said>;
    fn now_ms(&self) -> u64;
}

struct Servers;

impl Asked for Servers {
    fn ask(&self, server: IpAddr, name: &str, kind: TYPE, patience: Duration) -> Result<Said> {
        ask(SocketAddr::new(server, PORT), name, kind, patience)
    }

    fn now_ms(&self) -> u64 {
        uptime_ms()
    }
}

/// The names to look for, in their order: as written when it has a dot, and in the domains.
fn candidates(name: &str, domains: &[String]) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let inside = domains.iter().map(|domain| format!("{name}.{domain}"));
    match name.contains('.') {
        true => [name.to_owned()].into_iter().chain(inside).collect(),
        false => inside.chain([name.to_owned()]).collect(),
    }
}

/// One question to one server. The socket is connected: only that server's answers reach it.
fn ask(server: SocketAddr, name: &str, kind: TYPE, patience: Duration) -> Result<Said> {
    let doing = || format!("asking the name server {} for {name}", server.ip());
    let id = random()? as u16;
    let question = question(id, name, kind).doing(doing)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The kernel draws the port: with the number of the question, that is what a forger has to guess.
    let socket = UdpSocket::bind((any, 0)).doing(doing)?;
    socket.connect(server).doing(doing)?;
    socket.send(&question).doing(doing)?;
    let deadline_ms = uptime_ms() + patience.as_millis() as u64;
    for _ in 0..STRAYS_MAX {
        let left_ms = deadline_ms.saturating_sub(uptime_ms());
        if left_ms == 0 {
            break;
        }
        let left = Duration::from_millis(left_ms);
        socket.set_read_timeout(Some(left)).doing(doing)?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        match socket.recv(&mut answer) {
            Ok(size_bytes) => {
                if let Some(said) = read(&answer[..size_bytes], id, name, kind) {
                    return said.doing(doing);
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error).doing(doing),
        }
    }
    fail(format!("{}: no answer", doing()))
}

fn question(id: u16, name: &str, kind: TYPE) -> simple_dns::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    let question = Question::new(Name::new(name)?, kind, class, false);
    packet.questions.push(question);
    packet.build_bytes_vec()
}

/// What an answer says; `None` when it is no answer to this question.
fn read(
    answer: &[u8],
    id: u16,
    name: &str,
    kind: TYPE,
) -> Option<std::result::Result<Said, String>> {
    let packet = Packet::parse(answer).ok()?;
    let asked = packet.questions.first()?;
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && asked.qtype == QTYPE::TYPE(kind)
        && is_same(&asked.qname.to_string(), name);
    if !is_ours {
        return None;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Some(Ok(Said::Nothing)),
        other => return Some(Err(format!("it answers {other:?}"))),
    }
    // Aliases may stand in any order; each is followed at most as often as there are records.
    let mut current = name.to_owned();
    for _ in 0..=ALIASES_MAX {
        let of_current = || {
            packet
                .answers
                .iter()
                .filter(|record| is_same(&record.name.to_string(), &current))
        };
        let addresses: Vec<IpAddr> = of_current()
            .filter_map(|record| match (&record.rdata, kind) {
                (RData::A(a), TYPE::A) => Some(Ipv4Addr::from_bits(a.address).into()),
                (RData::AAAA(aaaa), TYPE::AAAA) => Some(Ipv6Addr::from_bits(aaaa.address).into()),
                _ => None,
            })
            .take(ADDRESSES_MAX)
            .collect();
        if !addresses.is_empty() {
            return Some(Ok(Said::Addresses(addresses)));
        }
        let alias = of_current().find_map(|record| match &record.rdata {
            RData::CNAME(alias) => Some(alias.0.to_string()),
            _ => None,
        });
        match alias {
            Some(alias) if is_host_name(&alias) => current = alias,
            _ => break,
        }
    }
    Some(Ok(match is_same(&current, name) {
        true => Said::Nothing,
        false => Said::Alias(current),
    }))
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.')
        .eq_ignore_ascii_case(other.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    use super::*;

    enum Record<'a> {
        Address(&'a str, [u8; 4]),
        Alias(&'a str, &'a str),
    }

    fn answer(id: u16, asked: &str, records: &[Record]) -> Vec<u8> {
        let question = question(id, asked, TYPE::A).unwrap();
        let mut packet = Packet::parse(&question).unwrap().into_reply();
        for record in records {
            let (name, data) = match record {
                Record::Address(name, address) => {
                    (name, RData::A(A::from(Ipv4Addr::from(*address))))
                }
                Record::Alias(name, other) => {
                    (name, RData::CNAME(CNAME(Name::new(other).unwrap())))
                }
            };
            let name = Name::new(name).unwrap();
            packet
                .answers
                .push(ResourceRecord::new(name, CLASS::IN, 60, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn said(records: &[Record]) -> Said {
        let bytes = answer(7, "a.example", records);
        read(&bytes, 7, "a.example", TYPE::A).unwrap().unwrap()
    }

    #[test]
    fn addresses_and_aliases_are_read() {
        use Record::{Address, Alias};
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let both = [
            Address("a.example", [10, 0, 0, 1]),
            Address("A.EXAMPLE", [10, 0, 0, 2]),
        ];
        assert_eq!(said(&both), Said::Addresses(vec![address(1), address(2)]));
        let chain = [
            Address("c.example", [10, 0, 0, 3]),
            Alias("b.example", "c.example"),
            Alias("a.example", "b.example"),
        ];
        assert_eq!(said(&chain), Said::Addresses(vec![address(3)]));
        let open = [Alias("a.example", "b.example")];
        assert_eq!(said(&open), Said::Alias("b.example".into()));
        let circle = [
            Alias("a.example", "b.example"),
            Alias("b.example", "a.example"),
        ];
        said(&circle);
        assert_eq!(said(&[]), Said::Nothing);
        let stranger = [Address("x.example", [10, 0, 0, 9])];
        assert_eq!(said(&stranger), Said::Nothing);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let bytes = answer(7, "a.example", &[]);
        assert_eq!(read(&bytes, 8, "a.example", TYPE::A), None);
        assert_eq!(read(&bytes, 7, "b.example", TYPE::A), None);
        assert_eq!(read(&bytes, 7, "a.example", TYPE::AAAA), None);
        let question = question(7, "a.example", TYPE::A).unwrap();
        assert_eq!(read(&question, 7, "a.example", TYPE::A), None);
        assert_eq!(read(&bytes[..11], 7, "a.example", TYPE::A), None);
    }

    #[test]
    fn names_are_looked_for_in_the_domains() {
        let domains = ["x.example".to_owned(), "y".to_owned()];
        assert_eq!(candidates("a", &domains), ["a.x.example", "a.y", "a"]);
        assert_eq!(
            candidates("a.b", &domains),
            ["a.b", "a.b.x.example", "a.b.y"]
        );
        assert_eq!(candidates("a.", &domains), ["a"]);
    }

    /// Servers that lead on from name to name, each time at the last moment.
    struct Dawdlers(std::cell::Cell<u64>);

    impl Asked for Dawdlers {
        fn ask(&self, server: IpAddr, name: &str, _: TYPE, patience: Duration) -> Result<Said> {
            self.0.set(self.0.get() + patience.as_millis() as u64);
            match server == IpAddr::from([10, 0, 0, 4]) {
                true => Ok(Said::Alias(format!("x{name}"))),
                false => fail("no answer"),
            }
        }

        fn now_ms(&self) -> u64 {
            self.0.get()
        }
    }

    #[test]
    fn one_name_takes_no_longer_than_a_minute() {
        let network = Network {
            device: "eth0".into(),
            address: [10, 0, 0, 2].into(),
            prefix: 24,
            gateway: None,
            dns: vec![[10, 0, 0, 3].into(), [10, 0, 0, 4].into()],
            domains: ["a", "b", "c", "d", "e", "f"].map(str::to_owned).into(),
            hostname: None,
            server: None,
            mtu_bytes: None,
            lease: None,
        };
        let servers = Dawdlers(0.into());
        let Err(Failure(error)) = network.resolve_by(&servers, "name") else {
            panic!("it was found")
        };
        assert!(error.contains("more than 60 s"), "{error}");
        assert_eq!(servers.now_ms(), WHOLE_MS);
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            read(&bytes, 7, "a.example", TYPE::A);
        }

        #[test]
        fn a_spoilt_answer_is_taken_or_refused(at in 2usize..60, byte in any::<u8>()) {
            let mut bytes = answer(7, "a.example", &[
                Record::Alias("a.example", "b.example"),
                Record::Address("b.example", [10, 0, 0, 3]),
            ]);
            if let Some(spoilt) = bytes.get_mut(at) {
                *spoilt = byte;
            }
            read(&bytes, 7, "a.example", TYPE::A);
        }
    }
}

//! `ip=` as the kernel has it, as it is extended, and as nobody should write it.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::fields::DNS_MAX;
use super::*;

fn parse(text: &str) -> IpLine {
    IpLine::parse(text).unwrap_or_else(|error| panic!("{}", error.pointed()))
}

fn at(text: &str) -> (usize, String) {
    match IpLine::parse(text) {
        Err(Problem { at, message, .. }) => (at, message),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_kernels_own_form_is_read() {
    let line = "10.0.0.2:10.0.0.1:10.0.0.254:255.255.255.0:clone01:eth0:off:10.0.0.3:10.0.0.4";
    let IpLine::Static(fixed) = parse(line) else {
        panic!("{line}")
    };
    assert_eq!(fixed.address, IpAddr::from([10, 0, 0, 2]));
    assert_eq!(fixed.prefix, 24);
    assert_eq!(fixed.gateway, Some(IpAddr::from([10, 0, 0, 254])));
    assert_eq!(fixed.common.server, Some(IpAddr::from([10, 0, 0, 1])));
    assert_eq!(fixed.common.hostname.as_deref(), Some("clone01"));
    assert_eq!(fixed.common.device, Some(Device::Name("eth0".into())));
    assert_eq!(fixed.common.dns.len(), 2);
    assert_eq!(IpLine::Static(fixed).to_string(), line);
    for (text, printed) in [
        ("dhcp", "dhcp"),
        ("on", "dhcp"),
        ("off", "off"),
        (":::::eth1:dhcp", "dhcp:device=eth1"),
        ("::::node7", "dhcp:hostname=node7"),
        (
            "10.0.0.2/24::10.0.0.1",
            "10.0.0.2::10.0.0.1:255.255.255.0:::off",
        ),
        (
            "10.0.0.2::10.0.0.1:24",
            "10.0.0.2::10.0.0.1:255.255.255.0:::off",
        ),
        (
            "[fd00::2]::[fd00::1]:64::[52:54:00:00:00:0a]:none",
            "[fd00::2]::[fd00::1]:64::[52:54:00:00:00:0a]:off",
        ),
        (
            "[fd00::2/64]:::::::[fd00::53]",
            "[fd00::2]:::64:::off:[fd00::53]",
        ),
        (
            "dhcp:vendor-class=a%20b%3a:client-id=0x01525400000001:timeout=5",
            "dhcp:client-id=0x01525400000001:vendor-class=a%20b%3a:timeout=5",
        ),
        (
            "dhcp:device=[52:54:00:00:00:0a]:domain=a.example,b",
            "dhcp:device=[52:54:00:00:00:0a]:domain=a.example,b",
        ),
        (
            ":10.0.0.1::::eth0:dhcp:10.0.0.3:mtu=1400",
            ":10.0.0.1::::eth0:dhcp:10.0.0.3:mtu=1400",
        ),
    ] {
        assert_eq!(parse(text).to_string(), printed, "{text}");
    }
}

#[test]
fn an_error_points_at_its_character() {
    for (text, place, said) in [
        ("", 0, "write dhcp"),
        ("mtu=1400", 0, "begin with an address"),
        ("10.0.0.300:::24", 0, "10.0.0.2"),
        ("10.0.0.2", 8, "netmask is missing"),
        ("10.0.0.2::10.0.1:24", 10, "must be an address"),
        ("10.0.0.2:::255.0.255.0", 11, "ones, then zeros"),
        ("10.0.0.2/33", 9, "prefix length"),
        ("10.0.0.2/24:::24", 14, "already"),
        ("10.0.0.2/24::[fd00::1]", 14, "other family"),
        ("10.0.0.2/24:::::eth0:dhcp", 0, "exclude"),
        (":::::eth0:bootp", 10, "write dhcp"),
        (":::::eth0:maybe", 10, "off or none"),
        ("dhcp:colour=red", 5, "there are hostname"),
        ("dhcp:timeout=0", 13, "1 to 3600"),
        ("dhcp:timeout=1:timeout=2", 15, "twice"),
        ("::::a:::hostname=b", 8, "twice"),
        ("dhcp:vendor-class=%4", 18, "two hex digits"),
        ("dhcp:client-id=0x0", 15, "two digits each"),
        ("dhcp:device=[eth0]", 13, "MAC"),
        ("[fd00::2", 0, "not closed"),
        ("fd00::2]", 7, "no bracket"),
        ("10.0.0.2/24:a b", 13, "%20"),
        ("off:hostname=a", 0, "off"),
        ("::10.0.0.1:24", 2, "none is given"),
        ("10.0.0.2/24:timeout=3", 12, "for DHCP"),
        ("10.0.0.2/24:mtu=1400:x", 21, "at the end"),
        ("10.0.0.2/24:mtu=575", 16, "576 to 65535"),
        ("dhcp:mtu=70000", 9, "576 to 65535"),
        ("[fd00::2]:::64:mtu=1279", 15, "1280 bytes"),
        ("0.0.0.0/0", 0, "can have"),
        ("10.0.0.2/24::::-x", 15, "host name"),
        ("::::::dhcp:10.0.0.1:10.0.0.2:10.0.0.3", 29, "at most"),
    ] {
        let (found, reason) = at(text);
        assert_eq!(found, place, "{text}: {reason}");
        assert!(reason.contains(said), "{text}: {reason}");
    }
}

#[test]
fn the_caret_stands_under_the_character() {
    let error = IpLine::parse("10.0.0.2::10.0.1:24").unwrap_err();
    let shown = error.pointed();
    let lines: Vec<&str> = shown.lines().collect();
    let caret = lines[1].find('^').unwrap();
    assert_eq!(&lines[0][caret..caret + 8], "10.0.1:2");
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
    ]
    .prop_filter("a machine's", |address| {
        !address.is_unspecified() && !address.is_multicast()
    })
}

fn common() -> impl Strategy<Value = Common> {
    let device = prop_oneof![
        "[a-z][a-z0-9.@_-]{0,14}".prop_map(Device::Name),
        any::<[u8; 6]>().prop_map(|mut bytes| {
            bytes[0] = bytes[0] & 0xfc | 2;
            Device::Mac(MacAddress(bytes))
        }),
    ];
    (
        proptest::option::of(address()),
        proptest::option::of("[a-z0-9]{1,9}(\\.[a-z0-9]{1,9})?"),
        proptest::option::of(device),
        proptest::collection::vec(address(), 0..=DNS_MAX),
        proptest::collection::vec("[a-z][a-z0-9-]{0,8}[a-z]\\.example", 0..3),
        proptest::option::of(1280u16..),
    )
        .prop_map(
            |(server, hostname, device, dns, domains, mtu_bytes)| Common {
                server,
                hostname,
                device,
                dns,
                domains,
                mtu_bytes,
            },
        )
}

fn lines() -> impl Strategy<Value = IpLine> {
    let client_id = prop_oneof![
        "[^\\p{C}]{1,20}".prop_map(ClientId::Text),
        proptest::collection::vec(any::<u8>(), 2..20).prop_map(ClientId::Bytes),
    ];
    let dhcp = (
        common(),
        proptest::option::of(client_id),
        proptest::option::of("[^\\p{C}]{1,20}"),
        proptest::option::of(1u32..=3600),
    )
        .prop_map(|(common, client_id, vendor_class, timeout_s)| {
            IpLine::Dhcp(Dhcp {
                common,
                client_id,
                vendor_class,
                timeout_s,
            })
        });
    let fixed = (common(), address(), any::<u8>(), any::<bool>(), address()).prop_map(
        |(common, address, prefix, has_gateway, gateway)| {
            let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
            let same = gateway.is_ipv4() == address.is_ipv4();
            IpLine::Static(Static {
                common,
                address,
                prefix: prefix % (bits + 1),
                gateway: (has_gateway && same).then_some(gateway),
            })
        },
    );
    prop_oneof![Just(IpLine::Off), dhcp, fixed]
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(line in lines()) {
        let text = line.to_string();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'), "{}", text);
        prop_assert_eq!(IpLine::parse(&text).unwrap(), line);
    }

    #[test]
    fn any_text_is_taken_or_refused(text in "[ :0-9a-z\\[\\]%/=.]{0,60}|\\PC{0,40}") {
        match IpLine::parse(&text) {
            Ok(line) => prop_assert_eq!(IpLine::parse(&line.to_string()).unwrap(), line),
            Err(problem) => prop_assert!(text.is_char_boundary(problem.at)),
        }
    }
}

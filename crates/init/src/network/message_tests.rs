//! Messages of DHCP as servers send them, and as nobody should.

use proptest::prelude::*;

use super::*;

fn speaker() -> Speaker<'static> {
    Speaker {
        mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
        transaction: 0x0102_0304,
        client_id: None,
        hostname: Some("clone01"),
        vendor_class: Some("estive"),
    }
}

/// An acknowledgement with these options after its kind.
fn granted(options: &[u8]) -> Vec<u8> {
    let mut message = speaker().write(Say::Discover, 0);
    message.truncate(240);
    message[0] = 2;
    message[16..20].copy_from_slice(&[10, 0, 2, 15]);
    message[20..24].copy_from_slice(&[10, 0, 2, 2]);
    message[108..114].copy_from_slice(b"/boot\0");
    message.extend([53, 1, 5]);
    message.extend(options);
    message
}

fn read(options: &[u8]) -> Option<Granted> {
    match speaker().read(&granted(options))? {
        Answer::Granted(granted) => Some(*granted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_has_what_a_server_wants() {
    let message = speaker().write(
        Say::Request {
            address: Ipv4Addr::new(10, 0, 2, 15),
            server: Ipv4Addr::new(10, 0, 2, 2),
        },
        3,
    );
    assert_eq!(message.len(), MESSAGE_BYTES_MIN);
    assert_eq!(message[..4], [1, 1, 6, 0]);
    assert_eq!(message[8..12], [0, 3, 0x80, 0]);
    let options = Options::read(&message).unwrap();
    assert_eq!(options.get(option::KIND), Some(&[3][..]));
    assert_eq!(options.get(option::HOSTNAME), Some(&b"clone01"[..]));
    assert_eq!(options.get(option::VENDOR_CLASS), Some(&b"estive"[..]));
    assert_eq!(
        options.get(option::CLIENT_ID),
        Some(&[1, 0x52, 0x54, 0, 0, 0, 1][..])
    );
    assert_eq!(
        options.address(option::REQUESTED),
        Some(Ipv4Addr::new(10, 0, 2, 15))
    );
    let text = ClientId::Text("node7".into());
    let named = Speaker {
        client_id: Some(&text),
        ..speaker()
    };
    let message = named.write(Say::Discover, 0);
    let options = Options::read(&message).unwrap();
    assert_eq!(options.get(option::CLIENT_ID), Some(&b"\0node7"[..]));
}

#[test]
fn a_lease_is_read() {
    let mut options = vec![1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2];
    options.extend([6, 8, 10, 0, 2, 3, 10, 0, 2, 4]);
    options.extend([
        51, 4, 0, 1, 0x51, 0x80, 54, 4, 10, 0, 2, 2, 26, 2, 0x05, 0x78,
    ]);
    options.extend([12, 7]);
    options.extend(b"clone01");
    // `lab.example`, then `b.` and a pointer to `example`.
    options.extend([119, 17, 3]);
    options.extend(b"lab\x07example\0\x01b\xc0\x04");
    options.extend([15, 5]);
    options.extend(b"other");
    options.push(255);
    let lease = read(&options).unwrap();
    let address = |last: u8| Ipv4Addr::new(10, 0, 2, last);
    assert_eq!(lease.address, address(15));
    assert_eq!(lease.prefix, 24);
    assert_eq!(lease.router, Some(address(2)));
    assert_eq!(lease.dns, [address(3), address(4)]);
    assert_eq!(lease.domains, ["lab.example", "b.example"]);
    assert_eq!(lease.hostname.as_deref(), Some("clone01"));
    assert_eq!(lease.mtu_bytes, Some(1400));
    assert_eq!(lease.lease_s, Some(86_400));
    assert_eq!(lease.server, Some(address(2)));
    assert_eq!(lease.next_server, Some(address(2)));
    assert_eq!(lease.boot_file.as_deref(), Some("/boot"));
}

#[test]
fn classless_routes_stand_instead_of_the_router() {
    let lease = read(&[
        3, 4, 10, 0, 2, 9, 121, 18, 0, 10, 0, 2, 2, 22, 10, 7, 255, 10, 0, 2, 3, 32, 1, 2, 3, 4,
        255,
    ]);
    // The last one is cut: what came before it holds.
    let lease = lease.unwrap();
    assert_eq!(lease.router, Some(Ipv4Addr::new(10, 0, 2, 2)));
    assert_eq!(
        lease.routes,
        [Route {
            destination: Ipv4Addr::new(10, 7, 252, 0),
            prefix: 22,
            gateway: Ipv4Addr::new(10, 0, 2, 3)
        }]
    );
}

#[test]
fn what_makes_no_sense_is_left_out() {
    // A name with a space, an MTU of 5, a router that is nobody, a name server that is loopback.
    let mut options = vec![26, 2, 0, 5, 3, 4, 0, 0, 0, 0, 6, 4, 127, 0, 0, 1, 12, 3];
    options.extend(b"a b");
    options.extend([15, 4, b'x', 0x1b, b'[', b'J', 255]);
    let lease = read(&options).unwrap();
    assert_eq!(lease.prefix, 8);
    assert_eq!((lease.router, lease.mtu_bytes), (None, None));
    assert_eq!(lease.mtu_left_out, Some(5));
    let mtu_bytes = |bytes: [u8; 2]| read(&[26, 2, bytes[0], bytes[1], 255]).unwrap().mtu_bytes;
    assert_eq!(mtu_bytes([2, 63]), None);
    assert_eq!(mtu_bytes([2, 64]), Some(576));
    assert_eq!((lease.hostname, lease.domains.len()), (None, 0));
    assert!(lease.dns.is_empty());
}

#[test]
fn what_is_not_ours_or_wrong_is_passed_over() {
    assert!(read(&[255]).is_some());
    for spoil in [
        |message: &mut Vec<u8>| message[0] = 1,
        |message: &mut Vec<u8>| message[7] = 9,
        |message: &mut Vec<u8>| message[28] = 0,
        |message: &mut Vec<u8>| message[236] = 0,
        |message: &mut Vec<u8>| message[16..20].fill(0),
        |message: &mut Vec<u8>| message[16..20].fill(255),
        |message: &mut Vec<u8>| message.truncate(239),
        |message: &mut Vec<u8>| message.truncate(241),
        |message: &mut Vec<u8>| message[241] = 200,
    ] {
        let mut message = granted(&[255]);
        spoil(&mut message);
        assert_eq!(speaker().read(&message), None);
    }
    for options in [
        // A netmask with a hole, one of no bits, a lease of a second.
        &[1, 4, 255, 0, 255, 0, 255][..],
        &[1, 4, 0, 0, 0, 0, 255],
        &[51, 4, 0, 0, 0, 1, 255],
    ] {
        assert_eq!(read(options), None, "{options:?}");
    }
}

#[test]
fn pieces_are_put_together_and_fields_taken_over() {
    let mut message = granted(&[15, 3, b'l', b'a', b'b', 15, 2, b'.', b'x', 52, 1, 1, 255]);
    message[108..120].copy_from_slice(&[12, 4, b'n', b'a', b'm', b'e', 255, 0, 0, 0, 0, 0]);
    let Some(Answer::Granted(lease)) = speaker().read(&message) else {
        panic!("no lease")
    };
    assert_eq!(lease.domains, ["lab.x"]);
    assert_eq!(lease.hostname.as_deref(), Some("name"));
    assert_eq!(lease.boot_file, None);
}

#[test]
fn a_circle_of_pointers_ends() {
    for list in [&[0xc0, 0][..], &[1, b'a', 0xc0, 0], &[0xc0, 2, 0xc0, 0]] {
        let mut options = vec![119, list.len() as u8];
        options.extend(list);
        options.push(255);
        assert!(read(&options).unwrap().domains.is_empty());
    }
}

proptest! {
    #[test]
    fn any_options_are_taken_or_refused(options in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some(lease) = read(&options) {
            prop_assert!((1..=32).contains(&lease.prefix));
            prop_assert!(lease.dns.len() <= ADDRESSES_MAX && lease.routes.len() <= ROUTES_MAX);
            prop_assert!(lease.domains.iter().all(|name| is_host_name(name)));
        }
    }

    #[test]
    fn any_message_is_taken_or_refused(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        speaker().read(&message);
    }
}

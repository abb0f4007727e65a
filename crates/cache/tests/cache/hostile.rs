//! What no good client says is answered as the protocol has it, or ends that connection and no other.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::bed::Bed;
use crate::nbd_client::{NbdClient, option_reply, send_option};

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const EOVERFLOW: u32 = 75;

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_good_ones_go_on() {
    let bed = Bed::new();
    let image = bed.image("images", 2);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    let (socket, name) = (host.directory.socket(), image.name.hex().to_owned());
    let bytes = image.bytes.clone();
    let talking = tokio::task::spawn_blocking(move || {
        for structured in [true, false] {
            let mut client = NbdClient::open(&socket, &name, structured).unwrap();
            let size = client.size_bytes;
            // READ_ONLY and CAN_MULTI_CONN
            assert_eq!(client.flags & 0x102, 0x102);
            let (read, write, flush, trim, zeroes, status) = (0, 1, 3, 4, 6, 7);
            for (kind, flags, offset, length, number) in [
                (read, 0, size, 1, EINVAL),
                (read, 0, size - 1, 2, EINVAL),
                (read, 0, u64::MAX, 1, EINVAL),
                (read, 0, u64::MAX, u32::MAX, EOVERFLOW),
                (read, 0, 0, 0, EINVAL),
                (read, 0, 0, (32 << 20) + 1, EOVERFLOW),
                (read, 0xffff, 0, 1, EINVAL),
                (trim, 0, 0, 4096, EPERM),
                (zeroes, 0, 0, 4096, EPERM),
                (status, 0, 0, 4096, EINVAL),
                (flush, 0, 0, 1, EINVAL),
                (99, 0, 0, 0, EINVAL),
            ] {
                client.send(kind, flags, 5, offset, length);
                let answer = client.receive(0).unwrap();
                assert_eq!(answer, (5, Err(number)), "{kind} {flags} {offset} {length}");
            }
            client.send(write, 0, 6, 0, 4096);
            client.stream.write_all(&[7; 4096]).unwrap();
            assert_eq!(client.receive(0).unwrap(), (6, Err(EPERM)));
            client.send(flush, 0, 7, 0, 0);
            assert_eq!(client.receive(0).unwrap(), (7, Ok(vec![])));
            assert!(client.read(0, 4096).unwrap() == bytes[..4096]);
            client.send(2, 0, 0, 0, 0);
            assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "said goodbye");
        }
    });
    talking.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_own_connection_only() {
    let bed = Bed::new();
    let image = bed.image("images", 1);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    let (socket, name) = (host.directory.socket(), image.name.hex().to_owned());
    let bytes = image.bytes.clone();
    let talking = tokio::task::spawn_blocking(move || {
        let mut good = NbdClient::open(&socket, &name, true).unwrap();
        // Closed, or reset where something of ours was not read: anything but silence.
        let ended = |stream: &mut UnixStream| match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        let mut stream = NbdClient::greet(&socket);
        stream.write_all(&[0xff; 64]).unwrap();
        assert!(ended(&mut stream));
        // An option of 4 GiB.
        let mut stream = NbdClient::greet(&socket);
        stream
            .write_all(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff")
            .unwrap();
        assert!(ended(&mut stream));
        // One that is only too long is passed over.
        let mut stream = NbdClient::greet(&socket);
        send_option(&mut stream, 7, &vec![0; 100_000]);
        assert_eq!(option_reply(&mut stream).unwrap().0, (1 << 31) + 9);
        // Names that are none, and options that are not there.
        for (option, data, kind) in [
            (7, &b"\0\0\0\x02..\0\0"[..], (1 << 31) + 6),
            (7, b"\0\0\0\0\0\0", (1 << 31) + 6),
            (6, b"\0\0\xff\xffx\0\0", (1 << 31) + 3),
            (3, b"x", (1 << 31) + 3),
            (5, b"", (1 << 31) + 1),
            (10, b"", (1 << 31) + 1),
            (4711, b"abc", (1 << 31) + 1),
        ] {
            send_option(&mut stream, option, data);
            assert_eq!(
                option_reply(&mut stream).unwrap().0,
                kind,
                "{option} {data:?}"
            );
        }
        // Options without end.
        let mut stream = NbdClient::greet(&socket);
        let mut answers = 0;
        loop {
            send_option(&mut stream, 4711, b"");
            match option_reply(&mut stream) {
                Ok(_) => answers += 1,
                Err(_) => break,
            }
            assert!(answers < 1000);
        }
        let mut client = NbdClient::open(&socket, &name, true).unwrap();
        client.send(1, 0, 0, 0, u32::MAX);
        assert!(ended(&mut client.stream));
        let mut client = NbdClient::open(&socket, &name, true).unwrap();
        client.stream.write_all(&[9; 28]).unwrap();
        assert!(ended(&mut client.stream));
        // One that asks for much and reads nothing.
        let mut greedy = NbdClient::open(&socket, &name, true).unwrap();
        for cookie in 0..20 {
            greedy.send(0, 0, cookie, 0, 1_000_000);
        }
        assert!(good.read(0, 4096).unwrap() == bytes[..4096]);
        for _ in 0..20 {
            assert!(greedy.receive(0).unwrap().1.unwrap() == bytes[..1_000_000]);
        }
    });
    talking.await.unwrap();
}

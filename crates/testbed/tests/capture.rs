//! What can be read on the link: nothing. Every frame that passes the switch is looked at while a clone boots from its
//! sealed root, writes to its volume and moves, and another boots from a live root; none of what they read, write and
//! hold in memory is seen. Controls: a move in the clear, which hosts may be configured to make, shows memory; the same
//! bytes sent in the clear are seen, all of them.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use common::{
    ShownBed, bed_config, done, herd, on_guests, stdout, tiny_reference, told, until, work,
};
use estive_network::namespace::Namespace;
use estive_testbed::topology;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

const SEALED: &str = "clone01";
const SEALED_ADDRESS: &str = "10.77.0.101";
const LIVE: &str = "clone02";
const LIVE_ADDRESS: &str = "10.77.0.102";
/// Of each thing that is looked for.
const MARKER_BYTES: usize = 64;
const MARKERS: usize = 4;
/// The longest frame: what the kernel joins before it cuts it into packets.
const FRAME_BYTES: usize = 1 << 17;

#[test]
fn nothing_on_the_link_can_be_read() {
    on_guests("inside_capture");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_capture() {
    let (before, plain) = passes(true).await;
    println!("  {before:?}\n  {plain:?}");
    assert_eq!(before.seen, [0; MARKERS], "{before:?}");
    assert!(plain.seen.iter().all(|seen| *seen > 0), "{plain:?}");
}

#[test]
fn a_move_in_the_clear_is_seen() {
    on_guests("inside_clear");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_clear() {
    let (before, _) = passes(false).await;
    println!("  {before:?}");
    let [_of_root, program, memory, written] = before.seen[..] else {
        panic!("{before:?}");
    };
    // What is in memory. The file of the root is read by nobody; whether a read ahead has brought it there is chance.
    assert!(program > 0 && memory > 0 && written > 0, "{before:?}");
}

/// What was seen when all had passed, and after the same bytes were sent in the clear besides.
async fn passes(migration_tls: bool) -> (Seen, Seen) {
    let word = format!("estive.capture={}", text(2));
    assert!(word.len() >= MARKER_BYTES);
    let program = fs::read(program()).unwrap();
    let markers: [Marker; MARKERS] = [
        Marker::new("a file of the sealed root", text(1).as_bytes()),
        // Read by both clones, from the sealed and from the live root; in the memory of both.
        Marker::new("their program", part_of(&program)),
        Marker::new("the clone's memory", word.as_bytes()),
        // Written to the volume again and again, since every line is synced.
        Marker::new("what the clone writes", numbers().as_bytes()),
    ];
    let mut reference = tiny_reference("tiny", |root| {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/marker"), text(1)).unwrap();
    });
    reference.early = Some((told("ESTIVE_INIT"), told("ESTIVE_KERNEL_TREE")));
    let root = live_root();
    let mut config = bed_config(2, reference.clone());
    config.references.insert("as-it-is".to_owned(), reference);
    config.live.insert("as-it-is".to_owned(), root);
    config.volumes = Some(work().join("volumes"));
    config.migration_tls = migration_tls;
    let bed = ShownBed::start(config).await;
    let topology = bed.topology();
    let capture = Capture::start(&topology.switch, markers.into());

    let yaml = format!(
        "network: 10.77.0.0/24\naddresses: {SEALED_ADDRESS}-{LIVE_ADDRESS}\nmemory_mib: 160\ncpus: 1\nsets: []\n\
         up: [ping]\nhosts:\n\
         \x20 {SEALED}: {{host: host1, mode: stateful, volume: {{size: 64M}}, words: {word}}}\n\
         \x20 {LIVE}: {{host: host1, reference: as-it-is}}\n"
    );
    done(&bed, &["up", &herd("read", &yaml)]).await;
    // So many lines that those looked for are on the volume.
    let last = async |address: &str| {
        let url = format!("http://{address}/log");
        let asked = ["curl", "-sS", "-m", "10", &url];
        let said = topology.client.run_in(&asked).await.ok()?;
        let said: Value = serde_json::from_str(stdout(&said).trim()).ok()?;
        said["last"].as_u64()
    };
    until("lines are written", async || {
        (last(SEALED_ADDRESS).await? >= 100).then_some(())
    })
    .await;
    done(&bed, &["migrate", SEALED, "--to", "host2"]).await;
    let moved_at = last(SEALED_ADDRESS).await.unwrap();
    until("it writes on", async || {
        (last(SEALED_ADDRESS).await? > moved_at).then_some(())
    })
    .await;
    // What is looked for did pass: the volume and both roots have it.
    let on_disk = fs::read(work().join("volumes").join(SEALED).join("disk.qcow2")).unwrap();
    assert!(capture.finds(&on_disk) > 0);
    let before = capture.looked_at();
    // None was lost on its way to us: each comes in at one port of the switch.
    let came_in = bytes_in(&topology.switch).await;
    assert!(before.bytes >= came_in && came_in > 10 << 20, "{came_in}");
    send_plain(&topology.storage, &topology.hosts[0], capture.plain());
    let plain = until("what is sent in the clear is seen", async || {
        let now = capture.looked_at();
        let all = now.seen.iter().zip(&before.seen);
        all.into_iter()
            .all(|(now, before)| now > before)
            .then_some(now)
    })
    .await;
    capture.end();
    done(&bed, &["down", "read", "--volumes"]).await;
    bed.stop().await;
    (before, plain)
}

/// What came in at the ports of the switch since it was made, in bytes.
async fn bytes_in(switch: &Namespace) -> u64 {
    let shown = switch.run_in(&["ip", "-j", "-s", "link"]).await.unwrap();
    let links: Value = serde_json::from_str(&stdout(&shown)).unwrap();
    let ports = links.as_array().unwrap().iter();
    let ports = ports.filter(|link| link["ifname"].as_str().unwrap().starts_with("p-"));
    ports
        .map(|link| link["stats64"]["rx"]["bytes"].as_u64().unwrap())
        .sum()
}

/// Letters that are nowhere else.
fn text(seed: u64) -> String {
    let letter = |at: u64| {
        let mixed = (seed * 1000 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        char::from(b'a' + (mixed % 26) as u8)
    };
    (0..MARKER_BYTES as u64).map(letter).collect()
}

/// Lines of what the clone's program writes.
fn numbers() -> String {
    (20..50).map(|number| format!("{number}\n")).collect()
}

fn program() -> PathBuf {
    told("ESTIVE_GUEST_PROGRAMS").join("estive-beat")
}

/// Some bytes of the program's code, each of them another.
fn part_of(program: &[u8]) -> &[u8] {
    let various = |part: &&[u8]| {
        let mut bytes = part.to_vec();
        bytes.sort_unstable();
        bytes.dedup();
        bytes.len() > MARKER_BYTES / 2
    };
    let parts = program[4096 * 4..].chunks_exact(MARKER_BYTES);
    parts.into_iter().find(various).expect("it has code")
}

/// On a file system with handles: the private tmpfs is one.
fn live_root() -> PathBuf {
    let root = work().join("live-root");
    fs::create_dir_all(root.join("sbin")).unwrap();
    fs::copy(program(), root.join("sbin/init")).unwrap();
    root
}

struct Marker {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Marker {
    fn new(what: &'static str, bytes: &[u8]) -> Self {
        let bytes = bytes[..MARKER_BYTES].to_vec();
        Self { what, bytes }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        // SAFETY: both are readable for their lengths, and nothing is kept.
        let found = unsafe {
            libc::memmem(
                bytes.as_ptr().cast(),
                bytes.len(),
                self.bytes.as_ptr().cast(),
                self.bytes.len(),
            )
        };
        !found.is_null()
    }
}

/// Looks at every frame that comes to the switch or leaves it.
struct Capture {
    markers: Arc<Vec<Marker>>,
    seen: Arc<Mutex<Seen>>,
    ending: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    frames: u64,
    bytes: u64,
    /// How many frames had each marker.
    seen: Vec<u64>,
}

impl Capture {
    fn start(switch: &Namespace, markers: Vec<Marker>) -> Self {
        let markers = Arc::new(markers);
        let seen = Arc::new(Mutex::new(Seen {
            seen: vec![0; markers.len()],
            ..Seen::default()
        }));
        let ending = Arc::new(AtomicBool::new(false));
        let socket = in_namespace(switch, || {
            let all = u32::from((libc::ETH_P_ALL as u16).to_be());
            let protocol = NonZeroU32::new(all).map(Protocol::from_raw);
            let family = AddressFamily::PACKET;
            let flags = SocketFlags::CLOEXEC;
            rustix::net::socket_with(family, SocketType::RAW, flags, protocol).unwrap()
        });
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 256 << 20).unwrap();
        let pause = Some(std::time::Duration::from_millis(200));
        let way = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&socket, way, pause).unwrap();
        let looking = {
            let (markers, seen, ending) = (markers.clone(), seen.clone(), ending.clone());
            std::thread::spawn(move || {
                let mut frame = vec![0; FRAME_BYTES];
                while !ending.load(Ordering::Relaxed) {
                    let Ok((length, whole)) =
                        rustix::net::recv(&socket, &mut frame[..], RecvFlags::TRUNC)
                    else {
                        continue;
                    };
                    assert!(whole <= FRAME_BYTES, "a frame of {whole} bytes");
                    let mut seen = seen.lock().unwrap();
                    seen.frames += 1;
                    seen.bytes += length as u64;
                    for (marker, count) in markers.iter().zip(&mut seen.seen) {
                        if marker.is_in(&frame[..length]) {
                            *count += 1;
                            println!("  seen: {}", marker.what);
                        }
                    }
                }
            })
        };
        Self {
            markers,
            seen,
            ending,
            looking,
        }
    }

    fn looked_at(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// How many markers are in these bytes.
    fn finds(&self, bytes: &[u8]) -> usize {
        let found = self.markers.iter().filter(|marker| marker.is_in(bytes));
        found.count()
    }

    /// All markers among other bytes, several times, so that not each is cut by the end of a packet.
    fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        for round in 0..20 {
            for marker in self.markers.iter() {
                plain.extend(std::iter::repeat_n(0x55, 700 + 37 * round));
                plain.extend(&marker.bytes);
            }
        }
        plain
    }

    fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        self.looking.join().unwrap();
    }
}

/// In a thread of its own, which stays there.
fn in_namespace<T: Send>(namespace: &Namespace, act: impl FnOnce() -> T + Send) -> T {
    let place = fs::File::open(namespace.path()).unwrap();
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            use std::os::fd::AsFd;
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        there.join().unwrap()
    })
}

fn send_plain(from: &Namespace, to: &Namespace, bytes: Vec<u8>) {
    use std::io::{Read, Write};
    let address = (Ipv4Addr::UNSPECIFIED, 7999);
    let listener = in_namespace(to, || TcpListener::bind(address).unwrap());
    let receiving = std::thread::spawn(move || {
        let mut got = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut got).unwrap();
        got.len()
    });
    let to = (topology::host_address(1), 7999);
    let mut stream = in_namespace(from, || TcpStream::connect(to).unwrap());
    stream.write_all(&bytes).unwrap();
    drop(stream);
    assert_eq!(receiving.join().unwrap(), bytes.len());
}

//! HTTP and echo: small, one thread for each connection, with a limit on both.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::log;

const CONNECTIONS_MAX: usize = 200;
const HEAD_BYTES_MAX: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(600);
/// `/big`: this much, this often; a slow reader sets the pace by itself.
const BIG_BYTES: usize = 32 << 10;
const BIG_INTERVAL: Duration = Duration::from_millis(20);
const ACK_INTERVAL: Duration = Duration::from_millis(5);

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Answers HTTP on port 80 until the listener fails.
pub fn http(name: &str) -> io::Result<()> {
    let hello = format!("hello from {name}\n");
    listen(80, move |stream| {
        let hello = hello.clone();
        move || answer(&stream, &hello)
    })
}

/// Sends back what comes, on port 7, until the listener fails.
pub fn echo() -> io::Result<()> {
    listen(7, |mut stream| {
        move || {
            let mut bytes = [0; 4096];
            loop {
                match stream.read(&mut bytes)? {
                    0 => return Ok(()),
                    read => stream.write_all(&bytes[..read])?,
                }
            }
        }
    })
}

fn listen<W: FnOnce() -> io::Result<()> + Send + 'static>(
    port: u16,
    work: impl Fn(TcpStream) -> W,
) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        if CONNECTIONS.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let work = work(stream);
        CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let run = move || {
            // A peer that went away is its own affair.
            let _ = work();
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(run)
            .is_err()
        {
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(mut stream: &TcpStream, hello: &str) -> io::Result<()> {
    let path = path_asked(stream)?;
    match path.as_str() {
        "/" => whole(stream, "200 OK", hello),
        "/estive/time" => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            whole(
                stream,
                "200 OK",
                &format!("{}.{:03}\n", now.as_secs(), now.subsec_millis()),
            )
        }
        "/log" => match log::read()? {
            Some(found) => {
                // What is in the file and not yet on disk was promised to nobody.
                let last = match log::synced() {
                    0 => found.last,
                    synced => found.last.min(synced),
                };
                let contiguous = found.contiguous;
                let body = format!("{{\"last\":{last},\"contiguous\":{contiguous}}}\n");
                whole(stream, "200 OK", &body)
            }
            None => whole(stream, "200 OK", "{\"last\":0,\"contiguous\":true}\n"),
        },
        "/acks" => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
            )?;
            acks(stream)
        }
        "/forget" => {
            // What was read is read again from its disk.
            std::fs::write("/proc/sys/vm/drop_caches", "3")?;
            whole(stream, "200 OK", "forgotten\n")
        }
        "/fill" => whole(stream, "200 OK", &format!("{}\n", fill()?)),
        path if path.starts_with("/file/") => {
            // What stands there now, or why nothing does: another number for each reason.
            let file = std::fs::read_to_string(path.trim_start_matches("/file"));
            let text = file.unwrap_or_else(|error| match error.raw_os_error() {
                Some(number) => format!("errno {number}"),
                None => "no text".to_owned(),
            });
            whole(stream, "200 OK", &text)
        }
        path if path.starts_with("/nfs/") => {
            let answered = call_nfs(path.trim_start_matches("/nfs/"));
            let text = answered.unwrap_or_else(|error| error.to_string());
            whole(stream, "200 OK", &text)
        }
        "/big" => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
            )?;
            big(stream)
        }
        _ => whole(
            stream,
            "404 Not Found",
            "there is /, /estive/time, /big, /log, /acks, /fill, /forget, /file/PATH and /nfs/ADDRESS:PORT\n",
        ),
    }
}

/// Makes the call that every NFS server answers, NULL of version 3 (RFC 1813).
fn call_nfs(server: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // One record: its length, a number, a call of RPC 2 to program, version and procedure, nobody's.
    let call = [0x8000_0028_u32, 1, 0, 2, 100_003, 3, 0, 0, 0, 0, 0].map(u32::to_be_bytes);
    let mut answer = [0; 28];
    let read = stream
        .write_all(&call.concat())
        .and_then(|()| stream.read(&mut answer));
    // Who closes before the call has come resets the connection.
    let away = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    };
    match read {
        Ok(0) => Ok("turned away".to_owned()),
        Err(error) if away(&error) => Ok("turned away".to_owned()),
        read => read.map(|_| "answered".to_owned()),
    }
}

fn whole(mut stream: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())
}

/// Each line of the log that is on disk by now, as it comes there: what is kept of this elsewhere was acknowledged.
fn acks(mut stream: &TcpStream) -> io::Result<()> {
    let mut told = 0;
    loop {
        let synced = log::synced();
        if synced > told {
            stream.write_all(format!("{synced}\n").as_bytes())?;
            told = synced;
        }
        std::thread::sleep(ACK_INTERVAL);
    }
}

/// Fills the disk beneath the root; says by which error it ended, and what was written before.
fn fill() -> io::Result<String> {
    let mut file = std::fs::File::create("/tmp/fill")?;
    let block = vec![0x5a; 1 << 20];
    let mut written = 0;
    let error = loop {
        match file.write_all(&block).and_then(|()| file.sync_data()) {
            Ok(()) => written += block.len(),
            Err(error) => break error,
        }
    };
    let number = error.raw_os_error().unwrap_or_default();
    Ok(format!("errno {number} after {written}"))
}

/// Numbered lines without end, as `seq` prints them.
fn big(mut stream: &TcpStream) -> io::Result<()> {
    let mut number = 0_u64;
    let mut text = Vec::with_capacity(BIG_BYTES + 32);
    loop {
        text.clear();
        while text.len() < BIG_BYTES {
            number += 1;
            writeln!(text, "{number}")?;
        }
        stream.write_all(&text)?;
        std::thread::sleep(BIG_INTERVAL);
    }
}

/// Reads the head of a request and gives the path of a GET.
fn path_asked(mut stream: &TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut bytes)?;
        if read == 0 || head.len() + read > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&bytes[..read]);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default();
    Ok(path.to_owned())
}

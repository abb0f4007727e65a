//! A page server of the least size that a load generator can judge.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of `/big` sent at once, and the pause after them: about 320 KiB a second.
const BIG_CHUNK: usize = 16 * 1024;
const BIG_PAUSE: Duration = Duration::from_millis(50);

/// Answers one request and closes.
pub fn serve(mut stream: TcpStream, name: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = stream.set_nodelay(true);
    let mut request = Vec::new();
    let mut buffer = [0u8; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
        if request.len() > 8192 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&request);
    match text.split_whitespace().nth(1).unwrap_or("/") {
        "/" => answer(&mut stream, "200 OK", &format!("hello from {name}\n")),
        "/estive/time" => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let body = format!("{}.{:03}\n", now.as_secs(), now.subsec_millis());
            answer(&mut stream, "200 OK", &body);
        }
        "/log" => answer(&mut stream, "200 OK", &crate::log::judge()),
        "/big" => big(&mut stream),
        _ => answer(&mut stream, "404 Not Found", "no such page\n"),
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()));
}

/// Numbered lines without end, from 1, so that a reader can check every byte.
fn big(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    let mut number = 0u64;
    loop {
        let mut chunk = String::with_capacity(BIG_CHUNK + 32);
        while chunk.len() < BIG_CHUNK {
            number += 1;
            chunk.push_str(&number.to_string());
            chunk.push('\n');
        }
        if stream.write_all(chunk.as_bytes()).is_err() {
            return;
        }
        thread::sleep(BIG_PAUSE);
    }
}

//! One HTTP request on a connection of its own, judged strictly: a whole 200 or a reason.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: usize = 4 << 20;

/// One request on a new connection; gives the body, or what is wrong in a few words that can be counted.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("connect: {}", error.kind()))?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        path,
        address.ip()
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| format!("send: {}", error.kind()))?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let read = stream
            .read(&mut chunk)
            .await
            .map_err(|error| format!("receive: {}", error.kind()))?;
        answer.extend_from_slice(&chunk[..read]);
        match body_of(&answer, read == 0)? {
            Some(body) => return Ok(body.to_vec()),
            None if answer.len() > ANSWER_BYTES_MAX => {
                return Err("the answer is too long".to_owned());
            }
            None => {}
        }
    }
}

/// The whole body of a 200, once it is there; `None`: more is needed.
fn body_of(answer: &[u8], ended: bool) -> Result<Option<&[u8]>, String> {
    let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if ended {
            Err("the connection ended within the head".to_owned())
        } else {
            Ok(None)
        };
    };
    let body = &answer[head_end + 4..];
    let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    if status != "200" {
        return Err(format!(
            "status {}",
            status.chars().take(10).collect::<String>()
        ));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == "content-length")
        .map(|(_, value)| {
            value
                .trim()
                .parse::<usize>()
                .map_err(|_| "a bad content-length".to_owned())
        })
        .transpose()?;
    match length {
        Some(length) if body.len() >= length => Ok(Some(&body[..length])),
        Some(_) if ended => Err("the connection ended within the body".to_owned()),
        Some(_) => Ok(None),
        None => Ok(ended.then_some(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_or_not_there() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(body_of(whole, false).unwrap(), Some(&b"hello"[..]));
        for cut in 0..whole.len() {
            assert_eq!(body_of(&whole[..cut], false).unwrap(), None);
            assert!(body_of(&whole[..cut], true).is_err(), "cut at {cut}");
        }
        assert_eq!(body_of(b"HTTP/1.0 200 OK\r\n\r\nhel", false).unwrap(), None);
        assert_eq!(
            body_of(b"HTTP/1.0 200 OK\r\n\r\nhel", true).unwrap(),
            Some(&b"hel"[..])
        );
        assert!(
            body_of(
                b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
                false
            )
            .is_err()
        );
    }
}

//! Fetching a file by HTTP/1.1 (RFC 9110, RFC 9112): one GET, its redirections followed, its body given on as it comes.
//!
//! `httparse` reads heads and chunks; a whole client library would bring resolvers and TLS that a static PID 1 has no use
//! for.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use estive_boot::loaders::url::HttpUrl;

use crate::console::uptime_ms;
use crate::failure::{Failure, Result, While, fail};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
/// A server that says nothing for so long has gone.
const READ_PATIENCE: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 100;
const REDIRECTIONS_MAX: usize = 5;
/// The line before a chunk: its size, and extensions that nobody uses.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
const PIECE_BYTES: usize = 128 << 10;

/// Takes what comes, in order.
pub trait Taker {
    /// Called once before the first piece, with the size if the server says it.
    fn begin(&mut self, size_bytes: Option<u64>) -> Result<()>;
    fn take(&mut self, piece: &[u8]) -> Result<()>;
}

/// Fetches what is at `url`, all of it.
///
/// `resolve` makes a host's name addresses; `patience_ms` is how long a server that cannot be reached is tried again.
pub fn fetch(
    url: &HttpUrl,
    resolve: impl Fn(&str) -> Result<Vec<IpAddr>>,
    patience_ms: u64,
    taker: &mut impl Taker,
) -> Result<()> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTIONS_MAX {
        let doing = || format!("fetching {url}");
        let stream = connect(&url, &resolve(&url.host)?, patience_ms)?;
        let mut answer = ask(stream, &url).doing(doing)?;
        match answer.head.status {
            200 => {
                taker.begin(answer.head.size_bytes())?;
                return answer
                    .body(taker)
                    .map_err(|Failure(text)| Failure(format!("{}: {text}", doing())));
            }
            301 | 302 | 303 | 307 | 308 => {
                let location = answer.head.location.unwrap_or_default();
                url = url.follow(&location).map_err(|reason| {
                    Failure(format!("{} leads to {location:?}: {reason}", doing()))
                })?;
            }
            404 | 410 => {
                return fail(format!(
                    "{}: the server has no such file ({})",
                    doing(),
                    answer.head.status
                ));
            }
            401 | 403 => {
                return fail(format!(
                    "{}: the server does not give it to us ({})",
                    doing(),
                    answer.head.status
                ));
            }
            status => return fail(format!("{}: the server answers {status}", doing())),
        }
    }
    fail(format!(
        "{url}: the server has led us on {REDIRECTIONS_MAX} times: give the address it ends at"
    ))
}

fn connect(url: &HttpUrl, addresses: &[IpAddr], patience_ms: u64) -> Result<TcpStream> {
    let deadline_ms = uptime_ms() + patience_ms;
    loop {
        let mut last = String::from("it has no address");
        for address in addresses {
            let server = SocketAddr::new(*address, url.port);
            match TcpStream::connect_timeout(&server, CONNECT_PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        if uptime_ms() > deadline_ms {
            return fail(format!(
                "the web server {} cannot be reached ({last}): does it run, and on port {}?",
                url.host, url.port
            ));
        }
        std::thread::sleep(RETRY);
    }
}

fn ask(mut stream: TcpStream, url: &HttpUrl) -> std::result::Result<Answer<TcpStream>, Wrong> {
    stream.set_read_timeout(Some(READ_PATIENCE))?;
    stream.set_write_timeout(Some(READ_PATIENCE))?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: estive-init\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority()
    );
    stream.write_all(request.as_bytes())?;
    Answer::read(stream)
}

/// What is wrong with an answer, in words.
#[derive(Debug)]
struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Wrong("the server has fallen silent".into())
            }
            _ => Wrong(error.to_string()),
        }
    }
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Wrong {
        Wrong(text.to_owned())
    }
}

/// What of an answer's head is looked at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Option<u64>,
    location: Option<String>,
    is_chunked: bool,
}

impl Head {
    fn size_bytes(&self) -> Option<u64> {
        self.length.filter(|_| !self.is_chunked)
    }

    /// The head and where it ends; `None` as long as it is not whole.
    fn parse(bytes: &[u8]) -> std::result::Result<Option<(Head, usize)>, Wrong> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let end = match response.parse(bytes) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(Wrong(format!("this is no answer of HTTP: {error}"))),
        };
        let mut head = Head {
            status: response.code.unwrap_or_default(),
            ..Head::default()
        };
        for header in response.headers.iter() {
            let text = || {
                std::str::from_utf8(header.value)
                    .map(str::trim)
                    .map_err(|_| Wrong(format!("its header {} is no text", header.name)))
            };
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = text()?.parse().map_err(|_| "its length is no number")?;
                if head.length.is_some_and(|other| other != length) {
                    return Err("it gives two lengths".into());
                }
                head.length = Some(length);
            } else if header.name.eq_ignore_ascii_case("location") {
                head.location = Some(text()?.to_owned());
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if !text()?.eq_ignore_ascii_case("chunked") {
                    return Err(Wrong(format!("it is encoded as {}", text()?)));
                }
                head.is_chunked = true;
            } else if header.name.eq_ignore_ascii_case("content-encoding")
                && !text()?.eq_ignore_ascii_case("identity")
            {
                return Err(Wrong(format!(
                    "the server compresses it as {} unasked",
                    text()?
                )));
            }
        }
        Ok(Some((head, end)))
    }
}

/// An answer whose head was read.
struct Answer<S> {
    head: Head,
    stream: S,
    /// Read with the head, and not given on yet.
    ahead: Vec<u8>,
}

impl<S: Read> Answer<S> {
    fn read(mut stream: S) -> std::result::Result<Answer<S>, Wrong> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                return Err("the server closes before it has answered".into());
            }
            bytes.extend_from_slice(&piece[..read]);
            while let Some((head, end)) = Head::parse(&bytes)? {
                bytes.drain(..end);
                // 100 and its like only announce the answer.
                if head.status >= 200 {
                    return Ok(Answer {
                        head,
                        stream,
                        ahead: bytes,
                    });
                }
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err("its head has no end".into());
            }
        }
    }

    fn body(&mut self, taker: &mut impl Taker) -> Result<()> {
        if self.head.is_chunked {
            return self.chunks(taker);
        }
        match self.head.length {
            Some(length) => self.pass(length, taker),
            None => self.pass_all(taker),
        }
    }

    /// So many bytes, and not one less.
    fn pass(&mut self, size_bytes: u64, taker: &mut impl Taker) -> Result<()> {
        let mut left = size_bytes;
        while left > 0 {
            let mut piece = self.piece()?;
            if piece.is_empty() {
                return fail(format!(
                    "the server closes after {} of {size_bytes} bytes",
                    size_bytes - left
                ));
            }
            let ours = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            self.ahead = piece.split_off(ours);
            taker.take(&piece)?;
            left -= ours as u64;
        }
        Ok(())
    }

    fn pass_all(&mut self, taker: &mut impl Taker) -> Result<()> {
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                return Ok(());
            }
            taker.take(&piece)?;
        }
    }

    /// RFC 9112, 7.1. What follows the last chunk is not looked at.
    fn chunks(&mut self, taker: &mut impl Taker) -> Result<()> {
        loop {
            let size_bytes = self.chunk_line()?;
            if size_bytes == 0 {
                return Ok(());
            }
            self.pass(size_bytes, taker)?;
            for expected in *b"\r\n" {
                if self.byte()? != expected {
                    return fail("a chunk of the answer is longer than it says");
                }
            }
        }
    }

    fn chunk_line(&mut self) -> Result<u64> {
        let mut line = Vec::new();
        loop {
            line.push(self.byte()?);
            match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size_bytes))) => return Ok(size_bytes),
                Ok(httparse::Status::Partial) if line.len() < CHUNK_LINE_BYTES_MAX => {}
                _ => return fail("the size of a chunk of the answer is no number"),
            }
        }
    }

    fn byte(&mut self) -> Result<u8> {
        if self.ahead.is_empty() {
            self.ahead = self.piece()?;
        }
        match self.ahead.is_empty() {
            true => fail("the server closes before the end"),
            false => Ok(self.ahead.remove(0)),
        }
    }

    /// What was read ahead, or else what comes next; nothing at the end.
    fn piece(&mut self) -> Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match self.stream.read(&mut piece) {
                Ok(read) => {
                    piece.truncate(read);
                    return Ok(piece);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return fail(Wrong::from(error).0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Taken {
        announced: Option<u64>,
        bytes: Vec<u8>,
    }

    impl Taker for Taken {
        fn begin(&mut self, size_bytes: Option<u64>) -> Result<()> {
            self.announced = size_bytes;
            Ok(())
        }

        fn take(&mut self, piece: &[u8]) -> Result<()> {
            self.bytes.extend_from_slice(piece);
            Ok(())
        }
    }

    /// A stream that gives a few bytes at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(self.0.len()).min(into.len());
            into[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn body(answer: &str, drop_bytes: usize) -> std::result::Result<String, String> {
        let mut taken = Taken::default();
        let mut answer =
            Answer::read(Drops(answer.as_bytes(), drop_bytes)).map_err(|Wrong(text)| text)?;
        answer.body(&mut taken).map_err(|Failure(text)| text)?;
        Ok(String::from_utf8(taken.bytes).unwrap())
    }

    #[test]
    fn bodies_come_in_three_ways() {
        for drop_bytes in [1, 7, 4096] {
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
                "HTTP/1.0 200 OK\r\n\r\nhello",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            ] {
                assert_eq!(body(answer, drop_bytes).as_deref(), Ok("hello"), "{answer}");
            }
        }
    }

    #[test]
    fn what_is_cut_or_malformed_is_refused() {
        for (answer, said) in [
            ("", "before it has answered"),
            ("SSH-2.0-x\r\n\r\n", "no answer of HTTP"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
                "after 3 of 5",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "two lengths",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "encoded as gzip",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
                "unasked",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello",
                "longer than it says",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "no number",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
                "before the end",
            ),
        ] {
            let error = body(answer, 5).unwrap_err();
            assert!(error.contains(said), "{answer}: {error}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        assert!(body(&endless, 4096).unwrap_err().contains("no end"));
    }

    #[test]
    fn a_server_is_asked_and_its_redirection_followed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in [
                "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                asked.push(String::from_utf8(request).unwrap());
            }
            asked
        });
        let url = HttpUrl::parse(&format!("http://name:{port}/here?x")).unwrap();
        let resolve = |_: &str| Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        let mut taken = Taken::default();
        fetch(&url, resolve, 0, &mut taken).unwrap();
        assert_eq!((taken.announced, &*taken.bytes), (Some(5), &b"hello"[..]));
        let Failure(error) = fetch(&url, resolve, 0, &mut taken).unwrap_err();
        assert!(error.contains("no such file"), "{error}");
        let asked = server.join().unwrap();
        assert!(asked[0].starts_with("GET /here?x HTTP/1.1\r\n"));
        assert!(asked[1].starts_with("GET /there HTTP/1.1\r\n"));
        assert!(asked[0].contains(&format!("Host: name:{port}\r\n")));
        let Failure(error) = fetch(&url, resolve, 0, &mut taken).unwrap_err();
        assert!(error.contains("cannot be reached"), "{error}");
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_or_refused(tail in "[ -~\r\n]{0,200}", chunked in any::<bool>()) {
            let _ = body(&tail, 5);
            let encoding = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
            let _ = body(&format!("HTTP/1.1 200 OK\r\n{encoding}{tail}"), 5);
            let _ = body(&format!("HTTP/1.1 200 OK\r\n{encoding}\r\n{tail}"), 5);
        }
    }
}

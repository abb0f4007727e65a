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
/// Heads that only announce another one (RFC 9110, 15.2); nobody sends more than one or two.
const ANNOUNCEMENTS_MAX: usize = 8;
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 100;
const REDIRECTIONS_MAX: usize = 5;
/// The line before a chunk: its size, and extensions that nobody uses.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// What chunks may cost besides what is in them, until that is more.
const CHUNKS_COST_BYTES: u64 = 64 << 10;
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
    fetch_within(url, resolve, patience_ms, Limits::default(), taker)
}

fn fetch_within(
    url: &HttpUrl,
    resolve: impl Fn(&str) -> Result<Vec<IpAddr>>,
    patience_ms: u64,
    limits: Limits,
    taker: &mut impl Taker,
) -> Result<()> {
    let mut url = url.clone();
    let whole_ms = uptime_ms() + limits.whole_ms;
    for _ in 0..=REDIRECTIONS_MAX {
        let doing = || format!("fetching {url}");
        let stream = connect(&url, &resolve(&url.host)?, patience_ms)?;
        let pace = Pace::new(limits, whole_ms, uptime_ms());
        let mut answer = ask(stream, &url, pace).doing(doing)?;
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

fn ask(
    mut stream: TcpStream,
    url: &HttpUrl,
    pace: Pace,
) -> std::result::Result<Answer<TcpStream>, Wrong> {
    stream.set_read_timeout(Some(READ_PATIENCE))?;
    stream.set_write_timeout(Some(READ_PATIENCE))?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: estive-init\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority()
    );
    stream.write_all(request.as_bytes())?;
    Answer::read(stream, pace)
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

/// How long an answer may take. A server that says a byte now and then would hold a boot for ever.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// From the first redirection to the last byte.
    whole_ms: u64,
    /// One head, with those that announce it.
    head_ms: u64,
    /// In each time so long, so much of the body comes at least.
    window_ms: u64,
    window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            whole_ms: 4 * 3600 * 1000,
            head_ms: 60_000,
            window_ms: 60_000,
            // Four times what a modem brings.
            window_bytes: 60 * (28 << 10),
        }
    }
}

/// Where an answer stands within its limits.
#[derive(Debug)]
struct Pace {
    limits: Limits,
    whole_ms: u64,
    /// Of the head, then of the present window.
    began_ms: u64,
    window_bytes: u64,
}

impl Pace {
    /// `whole_ms`: when everything must be there.
    fn new(limits: Limits, whole_ms: u64, now_ms: u64) -> Pace {
        Pace {
            limits,
            whole_ms,
            began_ms: now_ms,
            window_bytes: 0,
        }
    }

    fn in_head(&mut self, now_ms: u64) -> std::result::Result<(), Wrong> {
        match now_ms - self.began_ms > self.limits.head_ms {
            true => Err("the server takes too long over the head of its answer".into()),
            false => self.on_the_whole(now_ms),
        }
    }

    fn begin_body(&mut self, now_ms: u64) {
        self.began_ms = now_ms;
    }

    /// So much has come now; 0 at the end, which is never too late.
    fn in_body(&mut self, bytes: u64, now_ms: u64) -> std::result::Result<(), Wrong> {
        self.window_bytes += bytes;
        if bytes == 0 {
            return Ok(());
        }
        let took_ms = now_ms - self.began_ms;
        if took_ms > self.limits.window_ms {
            if self.window_bytes < self.limits.window_bytes {
                return Err(Wrong(format!(
                    "the server has sent {} bytes in {} s, and at least {} are wanted: use one that is nearer",
                    self.window_bytes,
                    took_ms / 1000,
                    self.limits.window_bytes
                )));
            }
            self.began_ms = now_ms;
            self.window_bytes = 0;
        }
        self.on_the_whole(now_ms)
    }

    fn on_the_whole(&self, now_ms: u64) -> std::result::Result<(), Wrong> {
        match now_ms > self.whole_ms {
            true => Err(Wrong(format!(
                "it is not all there after {} minutes",
                self.limits.whole_ms / 60_000
            ))),
            false => Ok(()),
        }
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
    pace: Pace,
    /// Read with the head, and not given on yet.
    ahead: Vec<u8>,
}

impl<S: Read> Answer<S> {
    fn read(mut stream: S, mut pace: Pace) -> std::result::Result<Answer<S>, Wrong> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        let mut announcements = 0;
        loop {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                return Err("the server closes before it has answered".into());
            }
            pace.in_head(uptime_ms())?;
            bytes.extend_from_slice(&piece[..read]);
            while let Some((head, end)) = Head::parse(&bytes)? {
                bytes.drain(..end);
                // 100 and its like only announce the answer.
                if head.status >= 200 {
                    pace.begin_body(uptime_ms());
                    return Ok(Answer {
                        head,
                        stream,
                        pace,
                        ahead: bytes,
                    });
                }
                announcements += 1;
                if announcements > ANNOUNCEMENTS_MAX {
                    return Err("the server announces an answer again and again".into());
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
        let (mut cost_bytes, mut come_bytes) = (0, 0);
        loop {
            let (size_bytes, line_bytes) = self.chunk_line()?;
            if size_bytes == 0 {
                return Ok(());
            }
            cost_bytes += line_bytes as u64 + 2;
            if cost_bytes > CHUNKS_COST_BYTES.max(come_bytes) {
                return fail("the answer comes in so small chunks that it is mostly their sizes");
            }
            self.pass(size_bytes, taker)?;
            come_bytes += size_bytes;
            for expected in *b"\r\n" {
                if self.byte()? != expected {
                    return fail("a chunk of the answer is longer than it says");
                }
            }
        }
    }

    /// The size of a chunk, and of the line that says it.
    fn chunk_line(&mut self) -> Result<(u64, usize)> {
        let mut line = Vec::new();
        loop {
            line.push(self.byte()?);
            match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size_bytes))) => {
                    return Ok((size_bytes, line.len()));
                }
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
                    let come = self.pace.in_body(read as u64, uptime_ms());
                    return come.map(|()| piece).map_err(|Wrong(text)| Failure(text));
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
        let mut answer = Answer::read(
            Drops(answer.as_bytes(), drop_bytes),
            Pace::new(Limits::default(), u64::MAX, uptime_ms()),
        )
        .map_err(|Wrong(text)| text)?;
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
    fn what_costs_much_and_brings_nothing_is_refused() {
        let announced = "HTTP/1.1 102 Processing\r\n\r\n".repeat(ANNOUNCEMENTS_MAX + 1);
        let answer = format!("{announced}HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        for drop_bytes in [7, 4096] {
            let error = body(&answer, drop_bytes).unwrap_err();
            assert!(error.contains("again and again"), "{error}");
        }
        let chunked = |chunk: &str, count: usize| {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            body(&format!("{head}{}0\r\n\r\n", chunk.repeat(count)), 4096)
        };
        let padded = format!("1;{}\r\nx\r\n", "y".repeat(900));
        assert!(chunked(&padded, 60).is_ok());
        assert!(chunked(&padded, 100).unwrap_err().contains("small chunks"));
        let large = format!("400\r\n{}\r\n", "x".repeat(1024));
        assert!(chunked(&large, 20_000).is_ok());
    }

    #[test]
    fn a_slow_answer_is_given_up() {
        let limits = Limits {
            whole_ms: 1000,
            head_ms: 100,
            window_ms: 100,
            window_bytes: 50,
        };
        let begun = || Pace::new(limits, 1000, 0);
        let text = |pace: std::result::Result<(), Wrong>| pace.map_err(|Wrong(text)| text);
        assert!(text(begun().in_head(100)).is_ok());
        assert!(text(begun().in_head(101)).unwrap_err().contains("head"));
        let mut pace = begun();
        pace.begin_body(90);
        // A silence is borne within a window; one byte now and then is not.
        assert!(pace.in_body(50, 190).is_ok() && pace.in_body(1, 191).is_ok());
        for now_ms in (192..=291).step_by(11) {
            assert!(pace.in_body(1, now_ms).is_ok(), "{now_ms}");
        }
        assert!(
            text(pace.in_body(1, 292))
                .unwrap_err()
                .contains("sent 11 bytes")
        );
        let mut pace = begun();
        for now_ms in (0..=1000).step_by(10) {
            assert!(pace.in_body(50, now_ms).is_ok());
        }
        assert!(
            text(pace.in_body(50, 1001))
                .unwrap_err()
                .contains("not all there")
        );
        assert!(pace.in_body(0, 1001).is_ok());
    }

    #[test]
    fn a_server_that_drips_is_left() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for head in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut text = head.to_owned();
                // Until the client goes.
                while stream.write_all(text.as_bytes()).is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                    text = "X: x\r\n".into();
                }
            }
        });
        let url = HttpUrl::parse(&format!("http://name:{port}/")).unwrap();
        let limits = Limits {
            head_ms: 100,
            window_ms: 100,
            window_bytes: 1 << 20,
            ..Limits::default()
        };
        for said in ["over the head", "at least 1048576 are wanted"] {
            let resolve = |_: &str| Ok(vec![IpAddr::from([127, 0, 0, 1])]);
            let fetched = fetch_within(&url, resolve, 0, limits, &mut Taken::default());
            let Failure(error) = fetched.unwrap_err();
            assert!(error.contains(said), "{error}");
        }
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

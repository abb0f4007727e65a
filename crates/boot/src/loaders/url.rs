//! `url`: a file fetched by HTTP into memory.

use std::fmt;

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "url",
    help: "A file fetched by HTTP into memory. Plain HTTP proves nothing of what comes: give the digest.",
    parameters: &[
        Parameter {
            name: "URL",
            form: Form::Place {
                keys: &[],
                optional: false,
            },
            default: "",
            help: "where it is, http://HOST[:PORT]/PATH",
        },
        Parameter {
            name: "sha256",
            form: Form::Key("HEX"),
            default: "not checked, and said on the console",
            help: "digest of the file, checked before any of it is used",
        },
    ],
    is_source: true,
    takes: &[],
    gives: Shape::File,
    example: "livecd+url:http://10.0.0.1/live.iso",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub url: HttpUrl,
    pub sha256: Option<[u8; 32]>,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let url = taken.needed()?.text;
        let parsed = match HttpUrl::parse(&url.text) {
            Ok(parsed) => parsed,
            Err(reason) => return url.wrong(reason),
        };
        let sha256 = match taken.key("sha256") {
            Some(text) => match digest(&text.text) {
                Some(digest) => Some(digest),
                None => return text.wrong("a SHA-256 digest is 64 hexadecimal digits"),
            },
            None => None,
        };
        Ok(Options {
            url: parsed,
            sha256,
        })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.network = true;
    }
}

/// A URL of plain HTTP (RFC 9110, 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    /// With its query; begins with `/`.
    pub path: String,
}

const URL_BYTES_MAX: usize = 2000;
const HTTP_PORT: u16 = 80;

impl HttpUrl {
    /// What is wrong is said as advice.
    pub fn parse(text: &str) -> std::result::Result<HttpUrl, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("a URL begins with http://".into());
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return Err(
                    "https is not spoken this early: serve the file by http:// and give sha256=, which proves more"
                        .into(),
                );
            }
            "ftp" => {
                return Err(
                    "ftp is not spoken: serve the file by http:// (any web server will do) and give sha256="
                        .into(),
                );
            }
            "nfs" => return Err("a file on an NFS server is written livecd+nfs:SERVER:PATH".into()),
            other => return Err(format!("{other} is not spoken, only http")),
        }
        if text.len() > URL_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL has at most 2000 bytes of plain ASCII, without a blank".into());
        }
        // What follows # is for whoever shows the page.
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err("a user and password are not given away in plain HTTP".into());
        }
        let (host, port) = match authority
            .strip_prefix('[')
            .and_then(|inside| inside.split_once(']'))
        {
            Some((host, rest)) => {
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err("in brackets stands an IPv6 address".into());
                }
                (host, rest)
            }
            None => match authority.find(':') {
                Some(at) => authority.split_at(at),
                None => (authority, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| "a port is a number from 1 to 65535".to_owned())?,
            None if port.is_empty() => HTTP_PORT,
            None => return Err("what stands behind the bracket is no port".into()),
        };
        if !host.contains(':') && !crate::ip_line::is_host_name(host) {
            return Err("the host is neither a name nor an address".into());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(HttpUrl {
            host: host.to_owned(),
            port,
            path: format!("{slash}{path}"),
        })
    }

    /// Where a redirection leads: a whole URL, or a path of the same server.
    pub fn follow(&self, location: &str) -> std::result::Result<HttpUrl, String> {
        if location.contains("://") {
            return HttpUrl::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return HttpUrl::parse(&format!("http://{rest}"));
        }
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => {
                let path = self.path.split('?').next().unwrap_or_default();
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                format!("{directory}/{location}")
            }
        };
        HttpUrl::parse(&format!("http://{}{path}", self.authority()))
    }

    /// As the header `Host` has it.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            HTTP_PORT => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_printed() {
        for (text, host, port, path, printed) in [
            ("http://h/x", "h", 80, "/x", "http://h/x"),
            ("HTTP://a.b:8080", "a.b", 8080, "/", "http://a.b:8080/"),
            ("http://h?q=1#f", "h", 80, "/?q=1", "http://h/?q=1"),
            (
                "http://[fd00::1]:81/x:y",
                "fd00::1",
                81,
                "/x:y",
                "http://[fd00::1]:81/x:y",
            ),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!((&*url.host, url.port, &*url.path), (host, port, path));
            assert_eq!(url.to_string(), printed);
            assert_eq!(HttpUrl::parse(printed), Ok(url));
        }
    }

    #[test]
    fn what_is_not_spoken_is_answered_with_advice() {
        for (text, advice) in [
            ("https://h/x", "sha256="),
            ("ftp://h/x", "http://"),
            ("file:///x", "only http"),
            ("/x", "begins with http://"),
            ("http://", "neither a name"),
            ("http://u:p@h/", "password"),
            ("http://h:0/", "port"),
            ("http://h:99999/", "port"),
            ("http://[fd00::g]/", "IPv6"),
            ("http://[fd00::1]x/", "behind the bracket"),
            ("http://h/a b", "blank"),
            ("http://h\r\nx/", "blank"),
        ] {
            let error = HttpUrl::parse(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn a_redirection_leads_where_it_says() {
        let from = HttpUrl::parse("http://h:8080/a/b?c").unwrap();
        for (location, to) in [
            ("http://other/x", "http://other/x"),
            ("/x", "http://h:8080/x"),
            ("x", "http://h:8080/a/x"),
            ("//other/x", "http://other/x"),
        ] {
            assert_eq!(from.follow(location).unwrap().to_string(), to);
        }
        assert!(from.follow("https://h/").is_err());
        assert!(from.follow("/a\r\nb").is_err());
    }
}

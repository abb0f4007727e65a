//! Where a service listens: `https://ADDRESS:PORT` or `unix:/PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One place a service can be reached at. Its text form is what people write and what JSON carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// Mutual TLS over TCP. `host` is an address (IPv6 without brackets) or a DNS name.
    Tls { host: String, port: u16 },
    /// A unix socket of this machine.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `https://10.77.0.11:7601`, `https://[fd00::1]:7601`, `https://host:7601` or `unix:/run/x.sock`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadEndpoint {
            text: text.to_owned(),
            reason,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(bad("the path of a unix socket begins with /"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| bad("it begins neither with https:// nor unix:"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("it has no port"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .ok_or_else(|| bad("a [ is not closed"))?,
            None if host.contains(':') => {
                return Err(bad("an IPv6 address is written in brackets"));
            }
            None => host,
        };
        rustls_pki_types::ServerName::try_from(host)
            .map_err(|_| bad("the host is neither an address nor a name"))?;
        let port = port
            .parse()
            .ok()
            .filter(|&port: &u16| port != 0)
            .ok_or_else(|| bad("the port is not 1 to 65535"))?;
        Ok(Self::Tls {
            host: host.to_owned(),
            port,
        })
    }

    /// What goes into the `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Tls { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tls { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { .. } => write!(f, "https://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_round() {
        for text in [
            "https://10.77.0.11:7601",
            "https://[fd00::1]:7601",
            "https://manager.lan:1",
            "unix:/run/e.sock",
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused() {
        for text in [
            "",
            "http://10.77.0.11:7601",
            "https://10.77.0.11",
            "https://10.77.0.11:0",
            "https://10.77.0.11:70000",
            "https://fd00::1:7601",
            "https://[fd00::1:7601",
            "https://user@host:1",
            "https://host:1/path",
            "https://:1",
            "unix:relative",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text} was taken");
        }
    }
}

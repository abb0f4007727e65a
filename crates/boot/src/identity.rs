//! Who a clone is: given late, so that a frozen template can become any of them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most an identity may have as JSON: fw_cfg is quadratic in the size of a file.
pub const IDENTITY_BYTES_MAX: usize = 4096;

/// Version 1 of the identity, as JSON on fw_cfg or on the identity port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub version: u32,
    /// The clone's name in its herd.
    pub name: String,
    pub hostname: String,
    pub mac: MacAddress,
    pub address: InterfaceAddress,
    pub gateway: Option<Ipv4Addr>,
    /// Fresh random bytes for the guest's own generator.
    pub seed: Seed,
}

impl Identity {
    /// From JSON, whitespace around it allowed; every field checked.
    pub fn parse(bytes: &[u8]) -> Result<Identity> {
        if bytes.len() > IDENTITY_BYTES_MAX {
            return Err(wrong(
                "the size",
                format!("{} bytes, at most {IDENTITY_BYTES_MAX}", bytes.len()),
            ));
        }
        let identity: Identity =
            serde_json::from_slice(bytes).map_err(|error| wrong("the JSON", error.to_string()))?;
        identity.check()?;
        Ok(identity)
    }

    /// As one line of JSON without its end of line; checked, so that the guest will take it.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        let json =
            serde_json::to_string(self).map_err(|error| wrong("the JSON", error.to_string()))?;
        if json.len() >= IDENTITY_BYTES_MAX {
            return Err(wrong(
                "the size",
                format!("{} bytes, at most {IDENTITY_BYTES_MAX}", json.len()),
            ));
        }
        Ok(json)
    }

    fn check(&self) -> Result<()> {
        if self.version != 1 {
            return Err(wrong(
                "the version",
                format!("{} (this init knows 1)", self.version),
            ));
        }
        if self.name.is_empty() || self.name.len() > 253 || self.name.contains(char::is_control) {
            return Err(wrong("the name", format!("{:?}", self.name)));
        }
        check_hostname(&self.hostname)?;
        if !self.mac.is_unicast() {
            return Err(wrong(
                "the MAC address",
                format!("{} is not a single machine's", self.mac),
            ));
        }
        if let Some(gateway) = self.gateway
            && !self.address.network_holds(gateway)
        {
            return Err(wrong(
                "the gateway",
                format!("{gateway} is not in the network of {}", self.address),
            ));
        }
        Ok(())
    }
}

/// RFC 1123, and the kernel's limit of 64 bytes for the host name.
fn check_hostname(hostname: &str) -> Result<()> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if hostname.len() > 64 || !hostname.split('.').all(label) {
        return Err(wrong(
            "the host name",
            format!("{hostname:?} (letters, digits and '-', at most 64)"),
        ));
    }
    Ok(())
}

fn wrong(field: &'static str, reason: String) -> Error {
    Error::Identity { field, reason }
}

/// An Ethernet address; `52:54:00:00:00:01` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Neither a group address nor all zero: what the kernel takes for an interface.
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| hex_byte(part.as_bytes()))
                .ok_or_else(|| wrong("the MAC address", format!("{text:?}")))?;
        }
        if parts.next().is_some() {
            return Err(wrong("the MAC address", format!("{text:?}")));
        }
        Ok(MacAddress(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An IPv4 address with the length of its network's prefix; `10.77.0.101/24` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceAddress {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl InterfaceAddress {
    pub fn netmask(&self) -> Ipv4Addr {
        let host_bits = 32 - u32::from(self.prefix.min(32));
        Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    pub fn network_holds(&self, other: Ipv4Addr) -> bool {
        let mask = self.netmask().to_bits();
        self.address.to_bits() & mask == other.to_bits() & mask
    }
}

impl FromStr for InterfaceAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix = prefix
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| prefix.parse::<u8>().ok())??;
            let usable = !address.is_unspecified()
                && !address.is_multicast()
                && !address.is_broadcast()
                && !address.is_loopback();
            (usable && (1..=32).contains(&prefix)).then_some(InterfaceAddress { address, prefix })
        };
        parse().ok_or_else(|| {
            wrong(
                "the address",
                format!("{text:?} (an IPv4 address and its prefix, such as 10.77.0.101/24)"),
            )
        })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// 64 random bytes; 128 hexadecimal digits as text. Its debug form does not show them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seed(pub [u8; 64]);

impl FromStr for Seed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || wrong("the seed", "it is not 128 hexadecimal digits".to_owned());
        if text.len() != 128 {
            return Err(bad());
        }
        let mut bytes = [0; 64];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = hex_byte(digits).ok_or_else(bad)?;
        }
        Ok(Seed(bytes))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    )*};
}
as_text!(MacAddress, InterfaceAddress, Seed);

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        format!(
            r#"{{"version":1,"name":"clone01","hostname":"clone01","mac":"52:54:00:00:00:01","address":"10.77.1.101/24","gateway":null,"seed":"{}"}}"#,
            "0f".repeat(64)
        )
    }

    #[test]
    fn the_json_of_the_contract_is_read_and_written() {
        let identity = Identity::parse(example().as_bytes()).unwrap();
        assert_eq!(identity.mac.0, [0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(identity.address.netmask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(identity.seed.0, [0x0f; 64]);
        assert_eq!(identity.to_json().unwrap(), example());
        assert!(!format!("{identity:?}").contains("0f0f"));
    }

    #[test]
    fn each_wrong_field_is_named() {
        for (from, to, field) in [
            ("\"version\":1", "\"version\":2", "the version"),
            ("52:54:00:00:00:01", "53:54:00:00:00:01", "the MAC address"),
            ("52:54:00:00:00:01", "00:00:00:00:00:00", "the MAC address"),
            ("52:54:00:00:00:01", "52:54:0:0:0:1", "the MAC address"),
            ("10.77.1.101/24", "10.77.1.101", "the address"),
            ("10.77.1.101/24", "10.77.1.101/33", "the address"),
            ("10.77.1.101/24", "10.77.1.101/0", "the address"),
            ("10.77.1.101/24", "127.0.0.1/8", "the address"),
            (":null", ":\"10.78.0.1\"", "the gateway"),
            ("0f0f", "0f", "the seed"),
            ("0f0f", "0g0f", "the seed"),
            (
                "\"hostname\":\"clone01\"",
                "\"hostname\":\"-x\"",
                "the host name",
            ),
            (
                "\"hostname\":\"clone01\"",
                "\"hostname\":\"a b\"",
                "the host name",
            ),
            ("\"name\":\"clone01\"", "\"name\":\"\"", "the name"),
        ] {
            let text = example().replacen(from, to, 1);
            let error = Identity::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(field), "{text}: {error}");
        }
        assert!(Identity::parse(&[b' '; 4097]).is_err());
        assert!(Identity::parse(b"").is_err());
    }
}

//! Names and addresses of links, as pure functions of what they belong to.

use std::fmt;
use std::str::FromStr;

use estive_model::DomainName;

use crate::Error;

/// The longest name the kernel gives an interface: IFNAMSIZ less the final zero.
pub const NAME_BYTES_MAX: usize = 15;

/// A unicast MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;
    fn from_str(given: &str) -> Result<Self, Error> {
        let bad = || Error::Mac {
            given: given.chars().take(40).collect(),
        };
        let mut bytes = [0; 6];
        let mut parts = given.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(bad)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo). Names need spreading, not secrecy.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The upper bits folded into the lower 48.
fn fold_48(hash: u64) -> u64 {
    (hash ^ (hash >> 48)) & 0xffff_ffff_ffff
}

/// The tap of a domain on whatever host it runs: `t` and 12 hex digits, so at most 15 bytes whatever the domain's name.
#[must_use]
pub fn tap_name(domain: &DomainName) -> String {
    format!("t{:012x}", fold_48(fnv1a(domain.as_str())))
}

/// Is `name` of the form that [`tap_name`] makes?
pub(crate) fn is_tap_name(name: &str) -> bool {
    name.strip_prefix('t').is_some_and(|hex| {
        hex.len() == 12 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A fixed, locally administered address for a bridge. A bridge without one takes its lowest port's address, which
/// changes whenever a tap comes or goes, and peers then talk to an address that is gone.
#[must_use]
pub fn bridge_mac(host: &str, bridge: &str) -> MacAddress {
    let hash = fnv1a(&format!("{host}/{bridge}")).to_be_bytes();
    MacAddress([
        0x02,
        hash[0] ^ hash[5],
        hash[1] ^ hash[6],
        hash[2] ^ hash[7],
        hash[3],
        hash[4],
    ])
}

/// Checks the name of an interface or a namespace, so that it can be one word of an `ip` batch and of a path.
pub(crate) fn fit<'a>(what: &'static str, name: &'a str, longest: usize) -> Result<&'a str, Error> {
    let fits = !name.is_empty()
        && name.len() <= longest
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits {
        Ok(name)
    } else {
        Err(Error::Name {
            what,
            given: name.chars().take(80).collect(),
            longest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taps_name_fits_the_kernel_and_depends_only_on_the_domain() {
        let long = DomainName::new("x".repeat(63)).unwrap();
        let name = tap_name(&long);
        assert!(name.len() <= NAME_BYTES_MAX && is_tap_name(&name), "{name}");
        assert_eq!(name, tap_name(&long));
        // A running QEMU keeps its tap over an upgrade of the agent: the function must never change.
        assert_eq!(
            tap_name(&DomainName::new("clone01").unwrap()),
            "ta104067da329"
        );
    }

    #[test]
    fn a_thousand_domains_have_a_thousand_taps() {
        let taps: std::collections::HashSet<_> = (0..1000)
            .map(|n| tap_name(&DomainName::new(format!("clone{n:02}")).unwrap()))
            .collect();
        assert_eq!(taps.len(), 1000);
    }

    #[test]
    fn bridges_of_hosts_differ_and_are_locally_administered() {
        let (a, b) = (bridge_mac("host1", "br0"), bridge_mac("host2", "br0"));
        assert_ne!(a, b);
        assert_eq!(a.0[0], 2);
        assert_eq!(a.to_string().parse::<MacAddress>().unwrap(), a);
    }

    #[test]
    fn what_is_no_unicast_address_is_refused() {
        for bad in [
            "",
            "02:77:00:00:00",
            "02:77:00:00:00:0b:00",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "02:77:0:00:00:0b",
            "02:77:+1:00:00:0b",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn names_cannot_smuggle_words_or_paths() {
        for bad in [
            "",
            "-j",
            "a b",
            "a\nb",
            "../x",
            "a/b",
            "sixteen-bytes-xx",
            "ä",
        ] {
            assert!(
                fit("interface", bad, NAME_BYTES_MAX).is_err(),
                "{bad:?} was taken"
            );
        }
        assert!(fit("interface", "br0", NAME_BYTES_MAX).is_ok());
    }
}

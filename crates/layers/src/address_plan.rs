//! Which clone has which address, and its MAC: a function of names alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

/// An IPv4 network, as 10.77.0.0/24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: u32,
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{} is no network; write it as 10.77.0.0/24",
                crate::problem::shown(text)
            )
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=30).contains(&prefix) {
            return Err(format!("a network of /{prefix}; it can be /8 to /30"));
        }
        let network = Self {
            base: u32::from(address) & (u32::MAX << (32 - prefix)),
            prefix,
        };
        if network.base != u32::from(address) {
            return Err(format!(
                "{address} is not the first address of a /{prefix}; that is {network}"
            ));
        }
        Ok(network)
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether a machine may have this address: neither the network's nor the broadcast one.
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&u32::from(address))
    }

    fn first(&self) -> u32 {
        self.base + 1
    }

    fn last(&self) -> u32 {
        self.base + (u32::MAX >> self.prefix) - 1
    }

    /// Where [`Network::default`] draws from: the 101st to the 199th.
    pub fn default_pool(&self) -> Pool {
        Pool {
            first: self.base + 101,
            last: self.base + 199,
        }
    }

    /// The upper half: the lower one is left to hosts, gateways and others.
    pub fn upper_half(&self) -> Pool {
        Pool {
            first: self.base + (u32::MAX >> self.prefix) / 2 + 1,
            last: self.last(),
        }
    }
}

/// 10.77.0.0/24: a file that names no network, as the paper's own, still has addresses.
impl Default for Network {
    fn default() -> Self {
        Self {
            base: u32::from(Ipv4Addr::new(10, 77, 0, 0)),
            prefix: 24,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// A run of addresses to draw from, both ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    last: u32,
}

impl Pool {
    pub fn parse(text: &str, network: &Network) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{} is no run of addresses; write it as 10.77.0.101-10.77.0.199",
                crate::problem::shown(text)
            )
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let first: Ipv4Addr = first.trim().parse().map_err(|_| wrong())?;
        let last: Ipv4Addr = last.trim().parse().map_err(|_| wrong())?;
        for end in [first, last] {
            if !network.has_host(end) {
                return Err(format!("{end} is not an address of the network {network}"));
            }
        }
        if last < first {
            return Err(format!("the addresses {first}-{last} run backwards"));
        }
        Ok(Self {
            first: first.into(),
            last: last.into(),
        })
    }

    fn len(&self) -> u32 {
        self.last - self.first + 1
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            Ipv4Addr::from(self.first),
            Ipv4Addr::from(self.last)
        )
    }
}

/// Draws an address for each name: the hash of the name says where to look first, then one after
/// another. The same names get the same addresses; a name keeps its own when others come, unless
/// they meet on it. Those in `known` keep what they have, if it is of the pool and free. `None` when
/// the pool is too small.
pub fn draw(
    deployment: &str,
    names: &BTreeSet<String>,
    pool: Pool,
    taken: &BTreeSet<Ipv4Addr>,
    known: &BTreeMap<String, Ipv4Addr>,
) -> Option<BTreeMap<String, Ipv4Addr>> {
    let taken_here = taken
        .iter()
        .filter(|address| (pool.first..=pool.last).contains(&u32::from(**address)))
        .count();
    if names.len() + taken_here > pool.len() as usize {
        return None;
    }
    let mut used = Runs::default();
    for address in taken {
        used.insert(u32::from(*address));
    }
    let mut drawn = BTreeMap::new();
    for name in names {
        let Some(address) = known.get(name) else {
            continue;
        };
        let number = u32::from(*address);
        let in_pool = (pool.first..=pool.last).contains(&number);
        if in_pool && used.next_free(number) == Some(number) {
            used.insert(number);
            drawn.insert(name.clone(), *address);
        }
    }
    for name in names {
        if drawn.contains_key(name) {
            continue;
        }
        let start = (hash("address", deployment, name, 0) % u64::from(pool.len())) as u32;
        // The count above says that one is free: from the start on, or else from the first.
        let after = used.next_free(pool.first + start);
        let address = match after {
            Some(address) if address <= pool.last => address,
            _ => used.next_free(pool.first)?,
        };
        used.insert(address);
        drawn.insert(name.clone(), Ipv4Addr::from(address));
    }
    Some(drawn)
}

/// Numbers that are used, as runs of neighbours: the first to the last of each.
#[derive(Default)]
struct Runs(BTreeMap<u32, u32>);

impl Runs {
    /// The number itself or the first after it that is not used.
    fn next_free(&self, number: u32) -> Option<u32> {
        match self.0.range(..=number).next_back() {
            Some((_, last)) if *last >= number => last.checked_add(1),
            _ => Some(number),
        }
    }

    fn insert(&mut self, number: u32) {
        if self.next_free(number) != Some(number) {
            return;
        }
        let mut run = (number, number);
        if let Some(before) = number.checked_sub(1)
            && let Some((first, last)) = self.0.range(..=before).next_back()
            && *last == before
        {
            run.0 = *first;
        }
        if let Some(after) = number.checked_add(1)
            && let Some(last) = self.0.remove(&after)
        {
            run.1 = last;
        }
        self.0.insert(run.0, run.1);
    }
}

/// A locally administered MAC (QEMU's 52:54) for each name, different for each.
pub fn macs(deployment: &str, names: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut used = BTreeSet::new();
    let mut macs = BTreeMap::new();
    for name in names {
        for attempt in 0.. {
            let [a, b, c, d, ..] = hash("mac", deployment, name, attempt).to_be_bytes();
            let mac = format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
            if used.insert(mac.clone()) {
                macs.insert(name.clone(), mac);
                break;
            }
        }
    }
    macs
}

fn hash(purpose: &str, deployment: &str, name: &str, attempt: u64) -> u64 {
    let mut hasher = Sha256::new();
    for part in ["estive", purpose, deployment, name] {
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.update(attempt.to_be_bytes());
    let digest = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_pools_are_checked() {
        let network = Network::parse("10.77.0.0/24").unwrap();
        assert!(!network.has_host("10.77.0.0".parse().unwrap()));
        assert!(!network.has_host("10.77.0.255".parse().unwrap()));
        assert!(network.has_host("10.77.0.254".parse().unwrap()));
        assert_eq!(network.upper_half().to_string(), "10.77.0.128-10.77.0.254");
        assert_eq!(
            Network::parse("10.0.0.0/30")
                .unwrap()
                .upper_half()
                .to_string(),
            "10.0.0.2-10.0.0.2"
        );
        for bad in [
            "10.77.0.0",
            "10.77.0.1/24",
            "x/24",
            "10.0.0.0/33",
            "10.0.0.0/31",
            "0.0.0.0/0",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "10.77.0.9-10.77.0.1",
            "10.77.0.0-10.77.0.9",
            "10.78.0.1-10.78.0.2",
            "10.77.0.1",
        ] {
            assert!(Pool::parse(bad, &network).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn runs_are_a_set(numbers in proptest::collection::vec(0u32..40, 0..40)) {
            let (mut runs, mut plain) = (Runs::default(), BTreeSet::new());
            for number in numbers {
                runs.insert(number);
                plain.insert(number);
                for from in 0..41 {
                    let free = (from..).find(|number| !plain.contains(number));
                    proptest::prop_assert_eq!(runs.next_free(from), free);
                }
            }
        }
    }

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn a_full_pool_is_filled_to_its_last_address() {
        let network = Network::parse("10.0.0.0/28").unwrap();
        let pool = Pool::parse("10.0.0.1-10.0.0.5", &network).unwrap();
        let taken = BTreeSet::from(["10.0.0.3".parse().unwrap(), "10.0.0.9".parse().unwrap()]);
        let drawn = draw(
            "d",
            &names(["a", "b", "c", "e"]),
            pool,
            &taken,
            &BTreeMap::new(),
        )
        .unwrap();
        let addresses: BTreeSet<String> = drawn.values().map(ToString::to_string).collect();
        let expected = ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5"].map(str::to_owned);
        assert_eq!(addresses, BTreeSet::from(expected));
        assert_eq!(
            draw(
                "d",
                &names(["a", "b", "c", "e", "f"]),
                pool,
                &taken,
                &BTreeMap::new()
            ),
            None
        );
    }
}

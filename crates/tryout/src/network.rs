//! The network of a clone that is tried: the herd's own addresses, behind a router that QEMU plays.

use std::net::Ipv4Addr;

use estive_hypervisor::UserNetwork;
use estive_layers::{ClonePlan, HerdPlan};

use crate::error::TryoutError;

/// The clone's own address and prefix; its gateway is the router, or the first free address where it has none.
pub(crate) fn of(
    herd: &HerdPlan,
    clone: &ClonePlan,
    forwards: Vec<(u16, u16)>,
) -> Result<UserNetwork, TryoutError> {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(clone.prefix.min(32)))
        .unwrap_or(0);
    let network = clone.address.to_bits() & mask;
    let broadcast = network | !mask;
    let mut taken = vec![clone.address];
    let mut free = |wanted: Option<Ipv4Addr>| {
        let found = wanted.or_else(|| {
            (network + 1..broadcast)
                .take(8)
                .map(Ipv4Addr::from_bits)
                .find(|address| !taken.contains(address))
        });
        taken.extend(found);
        found
    };
    let (Some(router), Some(name_server)) = (free(clone.gateway), free(None)) else {
        return Err(TryoutError::Network {
            network: herd.network.clone(),
            clone: clone.name.to_string(),
            guest: clone.address,
        });
    };
    Ok(UserNetwork {
        network: format!("{}/{}", Ipv4Addr::from_bits(network), clone.prefix),
        router,
        name_server,
        guest: clone.address,
        forwards,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network_of(herd: &str) -> Result<UserNetwork, TryoutError> {
        let herd = estive_layers::herd::parse("herd.yaml", herd, "d").unwrap();
        of(&herd, &herd.clones[0], Vec::new())
    }

    #[test]
    fn router_and_name_server_are_neither_the_clone_nor_each_other() {
        for (herd, router, name_server) in [
            (
                "network: 10.1.0.0/24\nhosts: {a: {address: 10.1.0.9}}",
                "10.1.0.1",
                "10.1.0.2",
            ),
            (
                "network: 10.1.0.0/24\nhosts: {a: {address: 10.1.0.1}}",
                "10.1.0.2",
                "10.1.0.3",
            ),
            (
                "network: 10.1.0.0/24\nhosts: {a: {address: 10.1.0.9, gateway: 10.1.0.1}}",
                "10.1.0.1",
                "10.1.0.2",
            ),
            (
                "network: 10.1.0.0/24\nhosts: {a: {address: 10.1.0.2, gateway: 10.1.0.254}}",
                "10.1.0.254",
                "10.1.0.1",
            ),
        ] {
            let network = network_of(herd).unwrap();
            assert_eq!(network.network, "10.1.0.0/24");
            assert_eq!(network.router.to_string(), router, "{herd}");
            assert_eq!(network.name_server.to_string(), name_server, "{herd}");
        }
        let error =
            network_of("network: 10.1.0.0/30\nhosts: {a: {address: 10.1.0.1}}").unwrap_err();
        assert!(
            error.to_string().contains("no room for a (10.1.0.1)"),
            "{error}"
        );
    }
}

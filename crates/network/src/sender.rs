//! What may come in from a domain's interface: a root of a clone chooses what its frames say of their sender, and hosts
//! tell clones apart by that alone. Held to by the kernel where frames enter, before any bridge sees them.
//!
//! A table of nftables for each interface, by the interface's name; `nft flush ruleset` takes them away until the domain,
//! or the agent, is started again.

use std::net::Ipv4Addr;

use crate::Error;
use crate::ip::nft;
use crate::names::{MacAddress, NAME_BYTES_MAX, fit};

/// Who sends from an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// This MAC and this IPv4 address, and no other, in ARP too. By IPv6 nothing is decided: only the MAC is held to.
    Known { mac: MacAddress, address: Ipv4Addr },
    /// Whoever it says; but nothing of it comes to this address of the host.
    Unknown { door: Option<Ipv4Addr> },
}

/// A table's rules are replaced in one step: nothing slips in between. It need not be there.
fn anew(link: &str) -> String {
    format!("add table netdev estive-{link}\ndelete table netdev estive-{link}\n")
}

fn rules(link: &str, sender: &Sender) -> String {
    let (policy, lines) = match sender {
        Sender::Known { mac, address } => (
            "drop",
            format!(
                // Looking for who else has the address (RFC 5227) and asking for one (DHCP) are done without one. RARP
                // (0x8035) is how QEMU says for a clone that has moved where it is now.
                "ether saddr != {mac} drop
                ether type arp arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {address} }} accept
                ether type ip ip saddr {address} accept
                ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
                ether type {{ ip6, 0x8035 }} accept"
            ),
        ),
        Sender::Unknown { door: Some(door) } => {
            ("accept", format!("ether type ip ip daddr {door} drop"))
        }
        Sender::Unknown { door: None } => return anew(link),
    };
    format!(
        "{}table netdev estive-{link} {{
            chain entrance {{
                type filter hook ingress device \"{link}\" priority 0; policy {policy};
                {lines}
            }}
        }}\n",
        anew(link)
    )
}

/// Has the kernel hold an interface that is there to its sender. Asked again, it changes nothing, or to another sender.
pub async fn sender_ensure(link: &str, sender: &Sender) -> Result<(), Error> {
    fit("an interface", link, NAME_BYTES_MAX)?;
    match sender {
        Sender::Unknown { door: None } => sender_remove(link).await,
        _ => nft(&rules(link, sender)).await,
    }
}

/// Takes the rules of an interface away, which may be gone itself. None to be there is no error.
pub async fn sender_remove(link: &str) -> Result<(), Error> {
    fit("an interface", link, NAME_BYTES_MAX)?;
    match nft(&anew(link)).await {
        // Nobody made any then.
        Err(Error::Start { .. }) => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_nothing_but_the_sender() {
        let sender = Sender::Known {
            mac: "02:77:00:00:00:0b".parse().unwrap(),
            address: "10.77.0.101".parse().unwrap(),
        };
        let text = rules("t0123456789ab", &sender);
        assert!(text.contains("device \"t0123456789ab\" priority 0; policy drop;"));
        assert!(text.contains("ip saddr 10.77.0.101 accept"), "{text}");
        let nobody = Sender::Unknown { door: None };
        assert_eq!(rules("t0", &nobody), anew("t0"));
    }
}

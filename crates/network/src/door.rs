//! A host's address for the clones on it, the same on every host: what a clone that has moved finds again.
//!
//! It lies on one end of a pair of interfaces whose other end is a port of the bridge. The MAC is the same on every host
//! too, and the bridge is told that it is behind that port: a frame of a clone's for it never leaves the host, whoever of
//! all hosts answered when the clone asked for it. Answers go out by the bridge itself.

use std::net::Ipv4Addr;
use std::path::Path;

use serde::Deserialize;
use tokio::sync::Mutex;

use crate::Error;
use crate::ip::{Ip, bridge_table};
use crate::link::kind_of;

const DOOR: &str = "estive-door";
const PORT: &str = "estive-door-br";
/// Locally administered; of no host.
const MAC: &str = "02:e5:71:fe:d0:0a";

/// What is read of `ip -j address show`.
#[derive(Deserialize)]
struct LinkAddresses {
    #[serde(default)]
    addr_info: Vec<LinkAddress>,
}

#[derive(Deserialize)]
struct LinkAddress {
    local: Ipv4Addr,
    prefixlen: u8,
}

/// The domains of a herd are made at once, and each asks for the door: one looks and makes at a time.
static MAKING: Mutex<()> = Mutex::const_new(());

/// Makes the address on this host's bridge. Asked again, also by many at once, it changes nothing.
pub async fn door_ensure(bridge: &str, address: Ipv4Addr) -> Result<(), Error> {
    let _one = MAKING.lock().await;
    match kind_of(bridge).await? {
        None => {
            return Err(Error::NoBridge {
                name: bridge.to_owned(),
            });
        }
        Some(kind) if kind == "bridge" => {}
        Some(found) => {
            return Err(Error::Taken {
                name: bridge.to_owned(),
                wanted: "bridge",
                found,
            });
        }
    }
    let mut lines = Vec::new();
    match kind_of(DOOR).await? {
        None => lines.push(format!(
            "link add name {DOOR} address {MAC} type veth peer name {PORT}"
        )),
        Some(kind) if kind == "veth" => {}
        Some(found) => {
            return Err(Error::Taken {
                name: DOOR.to_owned(),
                wanted: "veth",
                found,
            });
        }
    }
    // Neither says anything by itself.
    lines.extend([DOOR, PORT].map(|link| format!("link set dev {link} addrgenmode none")));
    lines.push(format!("link set dev {PORT} master {bridge} up"));
    lines.push(format!("link set dev {DOOR} up"));
    lines.push(format!("address replace {address}/32 dev {DOOR}"));
    let ip = Ip::default();
    ip.batch(&lines).await?;
    // One that the host's configuration had before: clones must not find it here any more.
    let shown = ip.json::<LinkAddresses>(&["-4", "address", "show", "dev", DOOR]);
    let others: Vec<String> = shown
        .await?
        .into_iter()
        .flatten()
        .flat_map(|link| link.addr_info)
        .filter(|other| other.local != address)
        .map(|other| format!("address del {}/{} dev {DOOR}", other.local, other.prefixlen))
        .collect();
    if !others.is_empty() {
        ip.batch(&others).await?;
    }
    // Sticky: what another host's door says on the wire does not move it.
    bridge_table(&[
        "fdb", "replace", MAC, "dev", PORT, "master", "static", "sticky",
    ])
    .await?;
    // What comes in here is answered by the bridge: the kernel's check of ways back must be the loose one (2).
    set(DOOR, "rp_filter", "2")?;
    // Whoever asks for the address is told this MAC and no other: the bridge does not answer for it (arp_ignore 1), nor
    // asks for clones in its name (arp_announce 2). A clone that had learnt a host's own MAC would go on talking to that
    // host after it has moved.
    for link in [bridge, DOOR] {
        set(link, "arp_ignore", "1")?;
        set(link, "arp_announce", "2")?;
    }
    Ok(())
}

/// A setting of an interface (the kernel's `Documentation/networking/ip-sysctl.rst`).
fn set(link: &str, name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(link).join(name);
    std::fs::write(&path, value).map_err(|source| Error::Run {
        command: format!("writing {value} to {}", path.display()),
        source,
    })
}

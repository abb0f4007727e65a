//! Bridges and taps in the network namespace of this process.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::ip::Ip;
use crate::names::{MacAddress, NAME_BYTES_MAX, fit, is_tap_name};
use crate::sender::{Sender, sender_ensure, sender_remove};

/// What went through a tap since it was made, seen from the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficCount {
    /// Bytes the guest sent.
    pub sent_bytes: u64,
    /// Packets the guest sent.
    pub sent_packets: u64,
    /// Bytes delivered towards the guest.
    pub received_bytes: u64,
    /// Packets delivered towards the guest.
    pub received_packets: u64,
    /// Packets for the guest that were thrown away, for it was too slow.
    pub dropped_packets: u64,
}

/// One tap of ours on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// As [`crate::tap_name`] made it.
    pub name: String,
    /// The bridge it is attached to.
    pub bridge: Option<String>,
    /// Does a process (QEMU) hold it open?
    pub in_use: bool,
    /// Counters.
    pub traffic: TrafficCount,
}

/// What this crate reads of `ip -j -d -s link show`.
#[derive(Deserialize)]
struct LinkShown {
    ifname: String,
    #[serde(default)]
    address: String,
    master: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
    linkinfo: Option<LinkInfo>,
    stats64: Option<Counters>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    info_data: Option<TapInfo>,
}

#[derive(Deserialize)]
struct TapInfo {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Counters {
    rx: Direction,
    tx: Direction,
}

#[derive(Deserialize)]
struct Direction {
    bytes: u64,
    packets: u64,
    #[serde(default)]
    dropped: u64,
}

impl LinkShown {
    /// "bridge", "tap", "veth", …
    fn kind(&self) -> &str {
        let Some(info) = &self.linkinfo else {
            return "a link of the machine";
        };
        match (
            info.info_kind.as_deref(),
            info.info_data
                .as_ref()
                .and_then(|data| data.kind.as_deref()),
        ) {
            (Some("tun"), Some(kind)) => kind,
            (Some(kind), _) => kind,
            (None, _) => "a link of the machine",
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }
}

async fn shown(name: &str) -> Result<Option<LinkShown>, Error> {
    Ok(Ip::default()
        .json(&["-d", "link", "show", "dev", name])
        .await?
        .and_then(|links| links.into_iter().next()))
}

/// `bridge`, `tap`, `veth`, …; `None` where there is no such link.
pub(crate) async fn kind_of(name: &str) -> Result<Option<String>, Error> {
    fit("an interface", name, NAME_BYTES_MAX)?;
    Ok(shown(name).await?.map(|link| link.kind().to_owned()))
}

/// Sets `lo` up in the network namespace of this process.
pub async fn loopback_up() -> Result<(), Error> {
    Ip::default()
        .run(&["link", "set", "dev", "lo", "up"])
        .await
        .map(drop)
}

/// Makes the bridge `name` with the fixed address `mac` (see [`crate::bridge_mac`]) and sets it up. An existing bridge is
/// kept with its ports; its address is corrected if it differs.
pub async fn bridge_ensure(name: &str, mac: MacAddress) -> Result<(), Error> {
    fit("an interface", name, NAME_BYTES_MAX)?;
    match shown(name).await? {
        None => {
            let lines = [
                format!(
                    "link add name {name} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                ),
                format!("link set dev {name} up"),
            ];
            Ip::default().batch(&lines).await
        }
        Some(link) if link.kind() == "bridge" => {
            let mut lines = Vec::new();
            if link.address != mac.to_string() {
                lines.push(format!("link set dev {name} address {mac}"));
            }
            lines.push(format!("link set dev {name} up"));
            Ip::default().batch(&lines).await
        }
        Some(link) => Err(Error::Taken {
            name: name.to_owned(),
            wanted: "bridge",
            found: link.kind().to_owned(),
        }),
    }
}

/// Makes the persistent tap `tap` (owner root), attaches it to `bridge` and sets it up. An existing tap is kept, for a
/// running QEMU may hold it, and attached again if need be. Persistent, so that QEMU never needs the right to make links.
/// What comes in from it is held to `sender` before the bridge sees any of it.
pub async fn tap_ensure(tap: &str, bridge: &str, sender: &Sender) -> Result<(), Error> {
    fit("an interface", tap, NAME_BYTES_MAX)?;
    fit("an interface", bridge, NAME_BYTES_MAX)?;
    match shown(bridge).await? {
        None => {
            return Err(Error::NoBridge {
                name: bridge.to_owned(),
            });
        }
        Some(link) if link.kind() != "bridge" => {
            return Err(Error::Taken {
                name: bridge.to_owned(),
                wanted: "bridge",
                found: link.kind().to_owned(),
            });
        }
        Some(_) => {}
    }
    let ip = Ip::default();
    let is_new = match shown(tap).await? {
        None => {
            let user = ["mode", "tap", "user", "root"];
            ip.run(&[&["tuntap", "add", "dev", tap][..], &user].concat())
                .await?;
            true
        }
        Some(link) if link.kind() == "tap" => false,
        Some(link) => {
            return Err(Error::Taken {
                name: tap.to_owned(),
                wanted: "tap",
                found: link.kind().to_owned(),
            });
        }
    };
    let lines = [
        // Without an address of its own the host says nothing on the guest's wire.
        format!("link set dev {tap} addrgenmode none"),
        format!("link set dev {tap} master {bridge} up"),
    ];
    let made = match sender_ensure(tap, sender).await {
        Ok(()) => ip.batch(&lines).await,
        held => held,
    };
    if made.is_err() && is_new {
        let _ = tap_remove(tap).await;
    }
    made
}

/// Removes the tap, and what was held to of it. One that is not there is no error; a QEMU that still holds it keeps
/// running without a network.
pub async fn tap_remove(tap: &str) -> Result<(), Error> {
    fit("an interface", tap, NAME_BYTES_MAX)?;
    match shown(tap).await? {
        None => sender_remove(tap).await,
        Some(link) if link.kind() == "tap" => {
            match Ip::default().run(&["link", "delete", "dev", tap]).await {
                // Someone else removed it between the two.
                Err(Error::Refused { stderr, .. }) if stderr.contains("Cannot find device") => {
                    sender_remove(tap).await
                }
                Ok(_) => sender_remove(tap).await,
                Err(error) => Err(error),
            }
        }
        Some(link) => Err(Error::Taken {
            name: tap.to_owned(),
            wanted: "tap",
            found: link.kind().to_owned(),
        }),
    }
}

/// All taps of ours in this network namespace, by name, with what went through them.
pub async fn taps() -> Result<Vec<Tap>, Error> {
    let links: Vec<LinkShown> = Ip::default()
        .json(&["-d", "-s", "link", "show", "type", "tun"])
        .await?
        .unwrap_or_default();
    let mut taps: Vec<Tap> = links
        .into_iter()
        .filter(|link| link.kind() == "tap" && is_tap_name(&link.ifname))
        .map(|link| Tap {
            in_use: link.has("LOWER_UP"),
            traffic: link.stats64.as_ref().map(traffic).unwrap_or_default(),
            name: link.ifname,
            bridge: link.master,
        })
        .collect();
    taps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(taps)
}

/// What the host's tap receives is what the guest sent.
fn traffic(counters: &Counters) -> TrafficCount {
    TrafficCount {
        sent_bytes: counters.rx.bytes,
        sent_packets: counters.rx.packets,
        received_bytes: counters.tx.bytes,
        received_packets: counters.tx.packets,
        dropped_packets: counters.tx.dropped,
    }
}

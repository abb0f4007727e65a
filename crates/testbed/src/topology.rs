//! The machines of the testbed as network namespaces around one switch.
//!
//! ```text
//!            sw: bridge swbr, ports p-h1 p-h2 p-h3 p-st p-mg p-cl
//!   ┌─────────┬────┴────┬──────────┬─────────┬─────────┐
//!  h1        h2        h3         st        mg        cl
//!  br0 .11   br0 .12   br0 .13    .5        .2        .100      10.77.0.0/24; clones from .101 up
//! ```

use std::net::Ipv4Addr;

use estive_network::{bridge_mac, namespace::Namespace};

use crate::Error;

/// Of every host for its own clones: where live references are mounted from.
pub const DOOR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// The storage place's address.
pub const STORAGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
/// The manager's address.
pub const MANAGER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The address of the client that puts load on clones.
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The first address a clone gets.
pub const FIRST_CLONE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
/// All addresses are in one network of this length.
pub const PREFIX_BITS: u8 = 24;
/// The bridge of every host.
pub const HOST_BRIDGE: &str = "br0";
/// Between host and client addresses.
pub const HOSTS_MAX: u8 = 80;

const SWITCH_BRIDGE: &str = "swbr";

/// Host `number` (from 1)'s address.
#[must_use]
pub fn host_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

/// The namespaces, made and joined. They go with the outer namespace; nothing removes them before.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The switch: its ports are named `p-` and the namespace behind them.
    pub switch: Namespace,
    /// Hosts `h1`, `h2`, …
    pub hosts: Vec<Namespace>,
    /// `st`
    pub storage: Namespace,
    /// `mg`
    pub manager: Namespace,
    /// `cl`
    pub client: Namespace,
}

impl Topology {
    /// Makes everything for `hosts` hosts (1 to [`HOSTS_MAX`]).
    pub async fn make(hosts: u8) -> Result<Self, Error> {
        if !(1..=HOSTS_MAX).contains(&hosts) {
            let (given, most) = (u64::from(hosts), u64::from(HOSTS_MAX));
            return Err(Error::Limit {
                what: "number of hosts",
                given,
                least: 1,
                most,
            });
        }
        let switch = create("sw").await?;
        let failed = || Error::network("making the switch");
        switch
            .bridge(SWITCH_BRIDGE, bridge_mac("sw", SWITCH_BRIDGE))
            .await
            .map_err(failed())?;
        let mut made = Vec::with_capacity(usize::from(hosts));
        for number in 1..=hosts {
            made.push(host(&switch, number).await?);
        }
        Ok(Self {
            storage: place(&switch, "st", STORAGE_ADDRESS).await?,
            manager: place(&switch, "mg", MANAGER_ADDRESS).await?,
            client: place(&switch, "cl", CLIENT_ADDRESS).await?,
            switch,
            hosts: made,
        })
    }

    /// The switch's ports behind which hosts are: where a guest's frames come in.
    #[must_use]
    pub fn host_ports(&self) -> Vec<String> {
        self.hosts.iter().map(|host| port(host.name())).collect()
    }

    /// Cuts (`false`) or joins host `number`'s cable.
    pub async fn set_cable(&self, number: u8, joined: bool) -> Result<(), Error> {
        let port = port(&format!("h{number}"));
        self.switch
            .set_link(&port, joined)
            .await
            .map_err(Error::network(format!("switching the cable {port}")))
    }
}

fn port(namespace: &str) -> String {
    format!("p-{namespace}")
}

async fn create(name: &str) -> Result<Namespace, Error> {
    Namespace::create(name)
        .await
        .map_err(Error::network(format!(
            "making the network namespace {name}"
        )))
}

/// A cable from `interface` in `namespace` to the switch.
async fn cable(switch: &Namespace, namespace: &Namespace, interface: &str) -> Result<(), Error> {
    let name = namespace.name();
    let port = port(name);
    let failed = || Error::network(format!("joining {name} to the switch"));
    namespace
        .veth(interface, switch, &port)
        .await
        .map_err(failed())?;
    switch.attach(&port, SWITCH_BRIDGE).await.map_err(failed())
}

async fn host(switch: &Namespace, number: u8) -> Result<Namespace, Error> {
    let name = format!("h{number}");
    let namespace = create(&name).await?;
    cable(switch, &namespace, "upl").await?;
    let failed = || Error::network(format!("making the bridge of {name}"));
    namespace
        .bridge(HOST_BRIDGE, bridge_mac(&name, HOST_BRIDGE))
        .await
        .map_err(failed())?;
    namespace
        .attach("upl", HOST_BRIDGE)
        .await
        .map_err(failed())?;
    namespace
        .address(HOST_BRIDGE, host_address(number), PREFIX_BITS)
        .await
        .map_err(failed())?;
    Ok(namespace)
}

async fn place(switch: &Namespace, name: &str, address: Ipv4Addr) -> Result<Namespace, Error> {
    let namespace = create(name).await?;
    cable(switch, &namespace, "eth0").await?;
    let failed = Error::network(format!("giving {name} its address"));
    namespace
        .address("eth0", address, PREFIX_BITS)
        .await
        .map_err(failed)?;
    Ok(namespace)
}

//! The seam for what a host's network has for domains: the interface of each, and the door of all.

use async_trait::async_trait;
use estive_model::DomainName;
use estive_network::Sender;
use std::net::Ipv4Addr;

/// Makes and removes the tap of a domain. All may be asked again.
#[async_trait]
pub trait Taps: Send + Sync {
    /// Its name, at most 15 characters.
    fn name(&self, domain: &DomainName) -> String;
    /// Makes it and joins it to the bridge; nothing comes in from it but of its sender.
    async fn ensure(
        &self,
        domain: &DomainName,
        bridge: &str,
        sender: &Sender,
    ) -> Result<(), String>;
    /// Makes the address that domains of this host mount live references from.
    async fn door(&self, bridge: &str, address: Ipv4Addr) -> Result<(), String>;
    /// Removes a domain's tap; one that is not there is no error.
    async fn remove(&self, domain: &DomainName) -> Result<(), String>;
}

/// Taps of this host's kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostTaps;

#[async_trait]
impl Taps for HostTaps {
    fn name(&self, domain: &DomainName) -> String {
        estive_network::tap_name(domain)
    }

    async fn ensure(
        &self,
        domain: &DomainName,
        bridge: &str,
        sender: &Sender,
    ) -> Result<(), String> {
        estive_network::tap_ensure(&self.name(domain), bridge, sender)
            .await
            .map_err(|error| error.to_string())
    }

    async fn door(&self, bridge: &str, address: Ipv4Addr) -> Result<(), String> {
        estive_network::door_ensure(bridge, address)
            .await
            .map_err(|error| error.to_string())
    }

    async fn remove(&self, domain: &DomainName) -> Result<(), String> {
        estive_network::tap_remove(&self.name(domain))
            .await
            .map_err(|error| error.to_string())
    }
}

/// No taps at all, for a simulated hypervisor.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTaps;

#[async_trait]
impl Taps for NoTaps {
    fn name(&self, domain: &DomainName) -> String {
        estive_network::tap_name(domain)
    }

    async fn ensure(&self, _: &DomainName, _: &str, _: &Sender) -> Result<(), String> {
        Ok(())
    }

    async fn door(&self, _bridge: &str, _address: Ipv4Addr) -> Result<(), String> {
        Ok(())
    }

    async fn remove(&self, _domain: &DomainName) -> Result<(), String> {
        Ok(())
    }
}

//! Where each domain is, and who is on each host: the only thing that a search changes.

use estive_world::{DomainIx, HostIx, Indexed, World};

/// Where a domain is, and where the second copy of its disks is. "Nowhere" is the place after the last host
/// ([`Places::nowhere`]): so that a vector over hosts has a row for it, and nothing asks twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// Where it runs.
    pub host: HostIx,
    /// Where its replica is.
    pub replica: HostIx,
}

/// Where a world has its domains.
pub fn spots_of(world: &World) -> Vec<Spot> {
    let nowhere = HostIx::of(world.hosts.len());
    (world.domains.iter())
        .map(|domain| Spot {
            host: domain.host.unwrap_or(nowhere),
            replica: domain.replica.unwrap_or(nowhere),
        })
        .collect()
}

/// A domain's new spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Which domain.
    pub domain: DomainIx,
    /// Where it is then.
    pub to: Spot,
}

/// Spots of all domains, and guests of all hosts.
#[derive(Debug, Clone)]
pub struct Places {
    spots: Vec<Spot>,
    guests: Vec<Vec<DomainIx>>,
    slots: Vec<u32>,
    copies: Vec<Vec<DomainIx>>,
}

impl Places {
    /// As the world has them.
    pub fn new(world: &World) -> Self {
        let hosts = world.hosts.len();
        let nowhere = HostIx::of(hosts);
        let mut places = Self {
            spots: Vec::with_capacity(world.domains.len()),
            guests: vec![Vec::new(); hosts + 1],
            slots: vec![0; world.domains.len()],
            copies: vec![Vec::new(); hosts + 1],
        };
        for (number, domain) in world.domains.iter().enumerate() {
            let spot = Spot {
                host: domain.host.unwrap_or(nowhere),
                replica: domain.replica.unwrap_or(nowhere),
            };
            places.spots.push(spot);
            places.enter(DomainIx::of(number), spot);
        }
        places
    }

    /// The place of what has no place.
    pub fn nowhere(&self) -> HostIx {
        HostIx::of(self.guests.len() - 1)
    }

    /// Where a domain is.
    pub fn spot(&self, domain: DomainIx) -> Spot {
        self.spots[domain]
    }

    /// All spots, in the order of domains.
    pub fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// Domains that run on a host, in no order that means anything.
    pub fn guests(&self, host: HostIx) -> &[DomainIx] {
        &self.guests[host]
    }

    /// Domains whose replica is on a host.
    pub fn copies(&self, host: HostIx) -> &[DomainIx] {
        &self.copies[host]
    }

    /// Puts a domain on its new spot; gives the old one.
    pub fn change(&mut self, change: Change) -> Spot {
        let domain = change.domain;
        let old = self.spots[domain];
        let slot = self.slots[domain.at()] as usize;
        let guests = &mut self.guests[old.host];
        guests.swap_remove(slot);
        if let Some(&other) = guests.get(slot) {
            self.slots[other.at()] = slot as u32;
        }
        if old.replica != self.nowhere() {
            self.copies[old.replica].retain(|&other| other != domain);
        }
        self.spots[domain] = change.to;
        self.enter(domain, change.to);
        old
    }

    fn enter(&mut self, domain: DomainIx, spot: Spot) {
        self.slots[domain.at()] = self.guests[spot.host].len() as u32;
        self.guests[spot.host].push(domain);
        if spot.replica != self.nowhere() {
            self.copies[spot.replica].push(domain);
        }
    }
}

//! What one domain has to do to get where it should be, alone in the world.

use estive_world::HostIx;

/// Where a domain is, and the second copy of its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    pub host: Option<HostIx>,
    pub replica: Option<HostIx>,
}

/// One step of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// It starts there.
    Place(HostIx),
    /// It moves there.
    Move(HostIx),
    /// Its replica is made there anew.
    Replica(HostIx),
}

impl Hop {
    /// Where it goes.
    pub fn to(self) -> HostIx {
        match self {
            Self::Place(to) | Self::Move(to) | Self::Replica(to) => to,
        }
    }

    /// Where the domain is afterwards. One that moves to its replica leaves a replica behind.
    pub fn done(self, from: Spot) -> Spot {
        match self {
            Self::Place(to) => Spot {
                host: Some(to),
                ..from
            },
            Self::Move(to) => Spot {
                host: Some(to),
                replica: from.replica.and(from.host),
            },
            Self::Replica(to) => Spot {
                replica: Some(to),
                ..from
            },
        }
    }
}

/// The next hop to a host and, if it is said, to where the replica is to be. A domain with a replica only moves to where its
/// replica is: first that goes ahead, then the domain follows, and what it leaves behind is the replica; at last this goes
/// where it should be.
pub fn next(at: Spot, host: Option<HostIx>, replica: Option<HostIx>) -> Option<Hop> {
    let Some(now) = at.host else {
        return host.map(Hop::Place);
    };
    let host = host.unwrap_or(now);
    match at.replica {
        None => (now != host).then_some(Hop::Move(host)),
        Some(_) if now == host => replica
            .filter(|&wanted| at.replica != Some(wanted) && wanted != host)
            .map(Hop::Replica),
        Some(there) if there == host => Some(Hop::Move(host)),
        Some(_) => Some(Hop::Replica(host)),
    }
}

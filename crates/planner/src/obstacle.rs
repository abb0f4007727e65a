//! Why a domain may not be on a host, as a value and in words.

use estive_world::{DomainIx, HostIx, Indexed, SiteIx, UserIx, VolumeIx, World};

use crate::Kind;

/// What stands in the way of a domain on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It is pinned to where it is.
    Pinned,
    /// It is being moved.
    UnderWay,
    /// It moved a short while ago, and stays for so many seconds more.
    Cooldown {
        /// Seconds.
        left_s: u64,
    },
    /// Nobody can tell what its host does.
    SourceUnknown(HostIx),
    /// The host is not on.
    NotOn(HostIx),
    /// The host is under maintenance.
    Maintenance(HostIx),
    /// It is an hour of the host's owner, or he sits at it.
    Owners(HostIx),
    /// An hour of the host's owner begins before a move there would have paid for itself.
    OwnersSoon(HostIx),
    /// The host is ours only until then, in seconds of the world's clock.
    Ends(HostIx, u64),
    /// The host lacks a word that the domain needs.
    Needs(String),
    /// The host does not reach a volume.
    Volume(VolumeIx),
    /// Its processor lacks what the domain was started with.
    Processor(HostIx),
    /// No link between the sites.
    NoLink(SiteIx, SiteIx),
    /// A relation of the world keeps it away: its place among `Rules::relations`.
    Relation(usize),
    /// It must be apart from this one, which is there.
    Apart(DomainIx),
    /// It must be together with this one, which is elsewhere.
    Together(DomainIx),
    /// Too little of a kind: what is free for people, and what is needed, in the kind's unit, in thousandths.
    Full {
        /// Of which kind.
        kind: Kind,
        /// What is free.
        free_milli: u64,
        /// What is needed.
        needs_milli: u64,
    },
    /// If that host failed, what has its replica here would not fit any more.
    NoSpare {
        /// The host that could fail.
        failing: HostIx,
    },
    /// A domain's replica cannot be where it runs.
    SamePlace,
    /// A user has as much as he may.
    Quota(UserIx),
}

impl Obstacle {
    /// In words that are the same for all hosts that it stands before: to be counted.
    pub fn kind(&self, world: &World) -> String {
        match self {
            Self::SourceUnknown(_) => "its host does not answer".to_owned(),
            Self::NotOn(_) => "not on".to_owned(),
            Self::Maintenance(_) => "under maintenance".to_owned(),
            Self::Owners(_) => "its owner's now".to_owned(),
            Self::OwnersSoon(_) => "its owner's soon".to_owned(),
            Self::Ends(..) => "had for too short a time".to_owned(),
            Self::Processor(_) => "another processor".to_owned(),
            Self::NoLink(..) => "no link between the sites".to_owned(),
            Self::Apart(_) => "one is there that it must be apart from".to_owned(),
            Self::Together(_) => "those that it must be with are elsewhere".to_owned(),
            Self::Full { kind, .. } => format!("too little {}", kind.name()),
            Self::NoSpare { .. } => "no spare if another host failed".to_owned(),
            other => other.words(world),
        }
    }

    /// In words, with the world's names.
    pub fn words(&self, world: &World) -> String {
        let host = |host: &HostIx| match world.hosts.get(host.at()) {
            Some(host) => host.name.as_str(),
            None => "nowhere",
        };
        match self {
            Self::Pinned => "it is pinned".to_owned(),
            Self::UnderWay => "it is being moved".to_owned(),
            Self::Cooldown { left_s } => {
                format!("it moved a short while ago, and stays for {left_s} s more")
            }
            Self::SourceUnknown(from) => format!(
                "{} does not answer, so nothing is taken from it",
                host(from)
            ),
            Self::NotOn(to) => format!("{} is not on", host(to)),
            Self::Maintenance(to) => format!("{} is under maintenance", host(to)),
            Self::Owners(to) => format!("{} is its owner's now", host(to)),
            Self::OwnersSoon(to) => format!(
                "{} is its owner's again before a move there has paid for itself",
                host(to)
            ),
            Self::Ends(to, until_s) => format!("{} is only had until {until_s}", host(to)),
            Self::Needs(word) => format!("it needs {word:?}, which is not there"),
            Self::Volume(volume) => {
                format!(
                    "its volume {} is not reached from there",
                    world.volumes[*volume].name
                )
            }
            Self::Processor(to) => format!(
                "it runs, and the processor of {} has not all that it was started with",
                host(to)
            ),
            Self::NoLink(from, to) => format!(
                "there is no link between {} and {}",
                world.sites[*from].name, world.sites[*to].name
            ),
            Self::Relation(number) => format!("a rule keeps it away (relation {})", number + 1),
            Self::Apart(other) => {
                format!(
                    "it must be apart from {}, which is there",
                    world.domains[*other].name
                )
            }
            Self::Together(other) => {
                format!(
                    "it must be together with {}, which is elsewhere",
                    world.domains[*other].name
                )
            }
            Self::Full {
                kind,
                free_milli,
                needs_milli,
            } => format!(
                "too little {}: {} {} free, {} needed",
                kind.name(),
                milli(*free_milli),
                kind.unit(),
                milli(*needs_milli)
            ),
            Self::NoSpare { failing } => format!(
                "if {} failed, what has its replica there would not fit any more",
                host(failing)
            ),
            Self::SamePlace => "its replica is there".to_owned(),
            Self::Quota(user) => format!("{} has as much as he may", world.users[*user].name),
        }
    }
}

/// Thousandths as a number without useless zeros.
fn milli(amount: u64) -> String {
    let text = format!("{}.{:03}", amount / 1000, amount % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

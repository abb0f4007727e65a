//! Why a domain is where it is, and why not elsewhere: every host with what it would gain, or what stands in the way.

use estive_world::{DomainIx, HostIx, Indexed, World};
use serde::Serialize;

use crate::ledger::Ledger;
use crate::objectives::MOST_RANKS;
use crate::obstacle::Obstacle;
use crate::places::{Change, Spot};

/// A host for a domain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Which.
    pub host: HostIx,
    /// Whether it is there.
    pub now: bool,
    /// What it would mean; or what stands in the way, in words.
    pub answer: Result<Gain, String>,
}

/// What a move would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gain {
    /// How much the objective's ranks would rise; less is better.
    pub by: Vec<f64>,
    /// The rank that decides: the first in which something changes.
    pub rank: usize,
    /// What the move must gain in that rank: the least gain and its own time.
    pub price: f64,
    /// Bytes that it carries.
    pub bytes: u64,
    /// Seconds that it lasts.
    pub duration_s: f64,
    /// What is broken less, or more, in words; empty: nothing.
    pub mends: Option<bool>,
}

impl Gain {
    /// Whether a plan would take it.
    pub fn pays(&self) -> bool {
        match self.mends {
            Some(mends) => mends,
            None => self
                .by
                .get(self.rank)
                .is_some_and(|by| by + self.price < 0.0),
        }
    }
}

/// All hosts for a domain, in their order.
pub fn choices(ledger: &Ledger<'_>, domain: DomainIx) -> Vec<Choice> {
    let hosts = ledger.ground().world.hosts.len();
    (0..hosts)
        .map(|host| choice(ledger, domain, HostIx::of(host)))
        .collect()
}

/// One host for a domain.
pub fn choice(ledger: &Ledger<'_>, domain: DomainIx, host: HostIx) -> Choice {
    let spot = ledger.spot(domain);
    let answer = match ledger.may(domain, host) {
        Err(obstacle) => Err(obstacle.words(ledger.ground().world)),
        Ok(()) => Ok(gain(ledger, domain, host)),
    };
    Choice {
        host,
        now: spot.host == host,
        answer,
    }
}

fn gain(ledger: &Ledger<'_>, domain: DomainIx, host: HostIx) -> Gain {
    let ground = ledger.ground();
    let now = ledger.spot(domain);
    let replica = if host == now.replica {
        now.host
    } else {
        now.replica
    };
    let to = if host == now.host {
        now
    } else {
        Spot { host, replica }
    };
    let by = if to == now {
        crate::Value::default()
    } else {
        ledger.delta(&[Change { domain, to }])
    };
    let hosts = ground.world.hosts.len().max(1) as f64;
    let cost = ground.toll.cost(domain, now, to);
    let ranks = ledger.gauge().count().min(MOST_RANKS);
    // As a search has it: less than this share of a value is no difference.
    let differs = |rank: &usize| {
        by.ranks[*rank].abs() > (ledger.value().ranks[*rank].abs() * 1e-9).max(1e-12)
    };
    let rank = (0..ranks).find(differs).unwrap_or(0);
    Gain {
        by: by.ranks[..ranks].to_vec(),
        rank,
        price: ground.toll.share(domain, now, to) * ledger.gauge().degrees()[rank].abs() / hosts,
        bytes: cost.bytes,
        duration_s: cost.duration_s,
        mends: (by.broken != 0).then_some(by.broken < 0),
    }
}

/// Why a domain is not on a host, in a sentence.
pub fn why_not(ledger: &Ledger<'_>, domain: DomainIx, host: HostIx) -> String {
    let world = ledger.ground().world;
    let names = (&world.domains[domain].name, &world.hosts[host].name);
    let choice = choice(ledger, domain, host);
    if choice.now {
        return format!("{} is on {}", names.0, names.1);
    }
    match choice.answer {
        Err(obstacle) => format!("{} may not come to {}: {obstacle}", names.0, names.1),
        Ok(gain) if gain.mends == Some(true) => {
            format!(
                "{} on {} mends what is broken: a plan would move it",
                names.0, names.1
            )
        }
        Ok(gain) => {
            let by = gain.by.get(gain.rank).copied().unwrap_or_default();
            let verdict = if by >= 0.0 {
                "it gets worse".to_owned()
            } else if gain.pays() {
                "it pays: a plan takes it unless something better comes first".to_owned()
            } else {
                format!(
                    "that is less than the {:.6} that a move must gain",
                    gain.price
                )
            };
            format!(
                "{} on {}: the objective goes from {:.6} by {by:+.6}; {verdict}",
                names.0,
                names.1,
                ledger.value().ranks[gain.rank]
            )
        }
    }
}

/// Why a domain is where it is, in sentences: what speaks against its place, and its best other places.
pub fn why(ledger: &Ledger<'_>, domain: DomainIx) -> Vec<String> {
    let world: &World = ledger.ground().world;
    let name = &world.domains[domain].name;
    let spot = ledger.spot(domain);
    let mut words = Vec::new();
    match world.hosts.get(spot.host.at()) {
        None => words.push(format!("{name} has no place")),
        Some(host) => words.push(match ledger.ground().hinders_staying(domain, spot.host) {
            Some(obstacle) => {
                format!(
                    "{name} is on {}, and should not be: {}",
                    host.name,
                    obstacle.words(world)
                )
            }
            None => format!("{name} is on {}", host.name),
        }),
    }
    if let Some(still) = ledger.ground().still(domain) {
        words.push(format!("it stays: {}", still.words(world)));
        return words;
    }
    let mut obstacles: Vec<Obstacle> = Vec::new();
    let mut gains: Vec<(f64, HostIx)> = Vec::new();
    for host in (0..world.hosts.len())
        .map(HostIx::of)
        .filter(|&host| host != spot.host)
    {
        match ledger.may(domain, host) {
            Err(obstacle) => obstacles.push(obstacle),
            Ok(()) => {
                let by = gain(ledger, domain, host).by;
                gains.push((by.first().copied().unwrap_or_default(), host));
            }
        }
    }
    gains.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    words.extend(
        gains
            .iter()
            .take(3)
            .map(|&(_, host)| why_not(ledger, domain, host)),
    );
    let counted = crate::place::counted(obstacles, world);
    words.extend((counted.into_iter()).map(|hindrance| {
        let hosts = if hindrance.count == 1 {
            "host"
        } else {
            "hosts"
        };
        format!("{} {hosts}: {}", hindrance.count, hindrance.what)
    }));
    words
}

//! What a plan does when its steps begin and end at random, as far as they wait for each other: looked at by plain counting,
//! with nothing of the linter in it.

use estive_world::{Act, DomainIx, HostIx, HostPower, Indexed, Relation, Scope, Step, World};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::{Amounts, KINDS, Rooms};

/// What a domain has somewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Copy {
    domain: DomainIx,
    host: HostIx,
    /// Only the second copy of its disks.
    replica: bool,
}

/// The first thing that is worse than at the start in one of the orders that may happen.
pub fn broken(world: &World, steps: &[Step], seed: u64) -> Option<String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut state = State::new(world);
    let start = state.clone();
    let (mut waiting, mut running): (Vec<usize>, Vec<usize>) =
        ((0..steps.len()).collect(), Vec::new());
    let mut ended = vec![false; steps.len()];
    while !waiting.is_empty() || !running.is_empty() {
        let ready: Vec<usize> = (waiting.iter().copied())
            .filter(|&step| steps[step].after.iter().all(|earlier| ended[earlier.at()]))
            .collect();
        let choice = random.next_u64() as usize % (ready.len() + running.len());
        if let Some(&step) = ready.get(choice) {
            waiting.retain(|&other| other != step);
            running.push(step);
            state.begin(&steps[step].act);
        } else {
            let step = running.swap_remove(choice - ready.len());
            ended[step] = true;
            state.end(&steps[step].act);
        }
        if let Some(worse) = state.worse_than(&start) {
            return Some(format!(
                "{worse}; running {running:?}, not begun {waiting:?} of {steps:#?}"
            ));
        }
    }
    None
}

#[derive(Clone)]
struct State<'w> {
    world: &'w World,
    rooms: Rooms,
    copies: Vec<Copy>,
    on: Vec<bool>,
}

impl<'w> State<'w> {
    fn new(world: &'w World) -> Self {
        let mut copies = Vec::new();
        for (number, domain) in world.domains.iter().enumerate() {
            let domain_ix = DomainIx::of(number);
            let of = |host, replica| Copy {
                domain: domain_ix,
                host,
                replica,
            };
            copies.extend(domain.host.map(|host| of(host, false)));
            copies.extend(domain.replica.map(|host| of(host, true)));
        }
        Self {
            world,
            rooms: Rooms::new(world),
            copies,
            on: world
                .hosts
                .iter()
                .map(|host| host.state == HostPower::On)
                .collect(),
        }
    }

    fn begin(&mut self, act: &Act) {
        match *act {
            Act::Move { domain, to, .. } | Act::Place { domain, to } => {
                self.copies.push(Copy {
                    domain,
                    host: to,
                    replica: false,
                });
            }
            Act::MoveReplica { domain, to, .. } => {
                self.copies.push(Copy {
                    domain,
                    host: to,
                    replica: true,
                });
            }
            Act::SwitchOff { host } => self.on[host.at()] = false,
            Act::SwitchOn { .. } => {}
        }
    }

    fn end(&mut self, act: &Act) {
        let gone = |copy: Copy, copies: &mut Vec<Copy>| {
            let at = copies
                .iter()
                .position(|other| *other == copy)
                .expect("it is there");
            copies.remove(at);
        };
        match *act {
            Act::Move {
                domain, from, to, ..
            } => {
                gone(
                    Copy {
                        domain,
                        host: from,
                        replica: false,
                    },
                    &mut self.copies,
                );
                // What it leaves behind is its replica then.
                if let Some(copy) =
                    (self.copies.iter_mut()).find(|it| it.domain == domain && it.replica)
                {
                    assert_eq!(copy.host, to, "it can only go to its replica");
                    copy.host = from;
                }
            }
            Act::MoveReplica { domain, from, .. } => {
                gone(
                    Copy {
                        domain,
                        host: from,
                        replica: true,
                    },
                    &mut self.copies,
                );
            }
            Act::SwitchOn { host } => self.on[host.at()] = true,
            Act::Place { .. } | Act::SwitchOff { .. } => {}
        }
    }

    /// What is taken of each host, disks that a domain finds at its replica counted once.
    fn taken(&self) -> Vec<Amounts> {
        let mut taken = vec![Amounts::NONE; self.world.hosts.len()];
        for copy in &self.copies {
            let both = (self.copies.iter()).any(|it| {
                it.domain == copy.domain && it.host == copy.host && it.replica != copy.replica
            });
            let amounts = match (copy.replica, both) {
                (true, _) => *self.rooms.kept(copy.domain),
                (false, true) => *self.rooms.live(copy.domain),
                (false, false) => self.rooms.takes(copy.domain),
            };
            taken[copy.host.at()].add(&amounts);
        }
        taken
    }

    /// Pairs of those that should be apart and are not.
    fn met(&self) -> Vec<(usize, DomainIx, DomainIx)> {
        let mut met = Vec::new();
        for (number, relation) in self.world.rules.relations.iter().enumerate() {
            let Relation::Apart(scope, members) = relation else {
                continue;
            };
            let at = |host: HostIx| match scope {
                Scope::Host => host.at(),
                Scope::Site => self.world.hosts[host].site.at(),
            };
            let of = |domain: DomainIx| {
                self.copies
                    .iter()
                    .filter(move |it| it.domain == domain && !it.replica)
            };
            for &one in members {
                for &other in members.iter().filter(|&&other| other > one) {
                    if of(one).any(|here| of(other).any(|there| at(here.host) == at(there.host))) {
                        met.push((number, one, other));
                    }
                }
            }
        }
        met
    }

    fn worse_than(&self, start: &Self) -> Option<String> {
        for (host, (taken, before)) in self.taken().iter().zip(start.taken()).enumerate() {
            let room = self.rooms.room(HostIx::of(host));
            if let Some(kind) =
                (0..KINDS).find(|&kind| taken.0[kind] > room.0[kind].max(before.0[kind]))
            {
                return Some(format!(
                    "host {host} has {} of {} of kind {kind}",
                    taken.0[kind], room.0[kind]
                ));
            }
        }
        let before = start.met();
        if let Some(pair) = self.met().into_iter().find(|pair| !before.contains(pair)) {
            return Some(format!("{pair:?} are not apart"));
        }
        for copy in self.copies.iter().filter(|copy| !self.on[copy.host.at()]) {
            if !start.copies.contains(copy) || start.on[copy.host.at()] {
                return Some(format!(
                    "domain {} is on a host that is not on",
                    copy.domain.0
                ));
            }
        }
        None
    }
}

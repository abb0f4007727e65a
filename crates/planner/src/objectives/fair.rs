//! The term `fair`: how far users are from their fair part of the processors.
//!
//! What a host has is shared among its guests in proportion to what they ask (all are scaled alike where they ask more
//! than there is). A user's fair part is what weighted max-min sharing of all processors would give him (progressive
//! filling; Bertsekas and Gallager, "Data Networks", 6.5.2), never more than he asks. The value is the sum over users of
//! what each lacks of that, as a share of all power.

use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed, World};

use super::Meter;
use super::arrival::{Arrivals, MARKS, Wakes, Weighing};
use super::occupied::{processor_power, processor_use};
use crate::books::Books;
use crate::places::Change;

/// What users lack.
#[derive(Debug, Clone)]
pub struct Fair {
    fixed: Arc<Fixed>,
    /// By user: what his domains get.
    gets: Vec<i64>,
    asked: Vec<u64>,
    lacking: i64,
}

#[derive(Debug)]
struct Fixed {
    /// By domain.
    asks: Vec<u64>,
    users: Vec<Option<usize>>,
    /// By host.
    power: Vec<u64>,
    all: f64,
    /// By user.
    parts: Vec<i64>,
}

impl Fair {
    /// Measures a state.
    pub fn new(books: &Books<'_>) -> Self {
        let world = books.ground.world;
        let asks: Vec<u64> = (0..world.domains.len())
            .map(|domain| processor_use(world, DomainIx::of(domain)))
            .collect();
        let users: Vec<Option<usize>> = (world.domains.iter())
            .map(|domain| domain.user.map(Indexed::at))
            .collect();
        let mut power: Vec<u64> = (0..world.hosts.len())
            .map(|host| processor_power(world, HostIx::of(host)))
            .collect();
        let all: u64 = power.iter().sum();
        power.push(0);
        let mut wants = vec![0u64; world.users.len()];
        let mut nobodys = 0;
        for (ask, user) in asks.iter().zip(&users) {
            match user {
                Some(user) => wants[*user] += ask,
                None => nobodys += ask,
            }
        }
        let parts = fill(world, &wants, all.saturating_sub(nobodys));
        let mut fair = Self {
            fixed: Arc::new(Fixed {
                asks,
                users,
                power,
                all: all.max(1) as f64,
                parts,
            }),
            gets: vec![0; world.users.len()],
            asked: vec![0; world.hosts.len() + 1],
            lacking: 0,
        };
        for host in (0..=world.hosts.len()).map(HostIx::of) {
            let guests = books.places.guests(host);
            fair.asked[host.at()] = guests.iter().map(|guest| fair.fixed.asks[guest.at()]).sum();
            for &guest in guests {
                let given = fair.given(guest, host, fair.asked[host.at()]);
                if let Some(user) = fair.fixed.users[guest.at()] {
                    fair.gets[user] += given;
                }
            }
        }
        fair.lacking = (0..fair.gets.len())
            .map(|user| fair.lack(user, fair.gets[user]))
            .sum();
        fair
    }

    /// What a guest gets of a host of which so much is asked.
    fn given(&self, guest: DomainIx, host: HostIx, asked: u64) -> i64 {
        let (ask, power) = (self.fixed.asks[guest.at()], self.fixed.power[host.at()]);
        if asked <= power {
            return ask as i64;
        }
        (u128::from(ask) * u128::from(power) / u128::from(asked)) as i64
    }

    fn lack(&self, user: usize, gets: i64) -> i64 {
        (self.fixed.parts[user] - gets).max(0)
    }

    /// What users get more by some changes; each user may come more than once.
    fn more(&self, books: &Books<'_>, changes: &[Change]) -> Vec<(usize, i64)> {
        let mut more = Vec::new();
        let mut hosts: Vec<HostIx> = Vec::with_capacity(4);
        for change in changes {
            hosts.extend([books.places.spot(change.domain).host, change.to.host]);
        }
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let asked = self.asked[host.at()];
            let mut will = asked;
            for change in changes {
                let ask = self.fixed.asks[change.domain.at()];
                if change.to.host == host {
                    will += ask;
                }
                if books.places.spot(change.domain).host == host {
                    will -= ask;
                }
            }
            let mut add = |guest: DomainIx, by: i64| {
                if let Some(user) = self.fixed.users[guest.at()] {
                    more.push((user, by));
                }
            };
            for &guest in books.places.guests(host) {
                let now = self.given(guest, host, asked);
                let leaves = changes
                    .iter()
                    .any(|change| change.domain == guest && change.to.host != host);
                let then = if leaves {
                    0
                } else {
                    self.given(guest, host, will)
                };
                if now != then {
                    add(guest, then - now);
                }
            }
            for change in changes {
                if change.to.host == host && books.places.spot(change.domain).host != host {
                    add(change.domain, self.given(change.domain, host, will));
                }
            }
        }
        more
    }
}

/// Weighted max-min parts of so much for users who want so much each.
fn fill(world: &World, wants: &[u64], all: u64) -> Vec<i64> {
    let mut parts = vec![0i64; wants.len()];
    let share = |user: usize| u128::from(world.users[user].share);
    let mut order: Vec<usize> = (0..wants.len()).filter(|&user| share(user) > 0).collect();
    // Who wants least for his share is filled first.
    order.sort_by(|&one, &other| {
        (u128::from(wants[one]) * share(other)).cmp(&(u128::from(wants[other]) * share(one)))
    });
    let mut left = u128::from(all);
    let mut shares: u128 = order.iter().map(|&user| share(user)).sum();
    for user in order {
        let part = (left * share(user) / shares.max(1)).min(u128::from(wants[user]));
        parts[user] = i64::try_from(part).unwrap_or(i64::MAX);
        left -= part;
        shares -= share(user);
    }
    parts
}

/// Only who asks nothing of processors is weighed by the host alone: it is the same on each.
impl Arrivals for Fair {
    fn model(&self, _host: HostIx) -> u32 {
        0
    }

    fn marks(&self, _books: &Books<'_>, _host: HostIx) -> [f64; MARKS] {
        [0.0; MARKS]
    }

    fn weighing(&self, _books: &Books<'_>, domain: DomainIx, _host: HostIx) -> Option<Weighing> {
        (self.fixed.asks[domain.at()] == 0).then_some(Weighing::Wakes(Wakes {
            lack: 0.0,
            lack_then: 0.0,
            unit: 1.0,
        }))
    }
}

impl Meter for Fair {
    fn value(&self) -> f64 {
        self.lacking as f64 / self.fixed.all
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        let mut more = self.more(books, changes);
        more.sort_unstable();
        let mut by = 0;
        let mut at = 0;
        while at < more.len() {
            let user = more[at].0;
            let end = more[at..]
                .iter()
                .position(|entry| entry.0 != user)
                .map_or(more.len(), |n| at + n);
            let gets: i64 = more[at..end].iter().map(|entry| entry.1).sum();
            by += self.lack(user, self.gets[user] + gets) - self.lack(user, self.gets[user]);
            at = end;
        }
        by as f64 / self.fixed.all
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        for (user, by) in self.more(books, &[change]) {
            self.lacking -= self.lack(user, self.gets[user]);
            self.gets[user] += by;
            self.lacking += self.lack(user, self.gets[user]);
        }
        let ask = self.fixed.asks[change.domain.at()];
        self.asked[books.places.spot(change.domain).host] -= ask;
        self.asked[change.to.host] += ask;
    }

    fn load(&self, _books: &Books<'_>, host: HostIx) -> f64 {
        self.asked[host.at()] as f64 / self.fixed.power[host.at()].max(1) as f64
    }

    fn arrivals(&self) -> Option<&dyn Arrivals> {
        Some(self)
    }

    fn parts(&self) -> Vec<(String, f64)> {
        vec![("lacking of users' fair parts".to_owned(), self.value())]
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}

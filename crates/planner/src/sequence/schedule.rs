//! The schedule that is played: what begins when, what it waits for, what ends.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use estive_world::{
    Act, DomainIx, Figures, HostIx, HostPower, Indexed, Reason, Step, StepIx, World,
};

use super::hops::{self, Hop, Spot};
use super::stock::{Deal, Stock};
use super::{Goal, Left, pivot};
use crate::lint::places::Fences;
use crate::transfer;

/// Who goes first where not all can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The longest move: it ends the earlier.
    Longest,
    /// The one whose leaving most others wait for.
    Wanted,
    /// The shortest move.
    Shortest,
}

/// A schedule as far as it was played.
pub struct Schedule<'a> {
    pub world: &'a World,
    pub target: &'a Goal,
    pub fences: Fences<'a>,
    pub stock: Stock<'a>,
    pub steps: Vec<Step>,
    pub left: Vec<Left>,
    pub pivots: usize,
    pub spots: Vec<Spot>,
    /// A host to which a domain steps aside, and for whom.
    pub aside: Vec<Option<(HostIx, DomainIx)>>,
    pub stepped_aside: Vec<bool>,
    /// Those that stepped aside from where they are to be, and for whom: they go back when that one has come.
    pub coming_back: Vec<(DomainIx, DomainIx)>,
    /// By pool: who waits for it, in order.
    pub waiting: Vec<BTreeSet<(u64, DomainIx)>>,
    ranks: Vec<u64>,
    /// The last step of each domain.
    last: Vec<Option<u32>>,
    /// The step that switches a host on.
    switched: Vec<Option<u32>>,
    pub on: Vec<bool>,
    running: BinaryHeap<Reverse<(u64, u32)>>,
    deals: Vec<(Option<DomainIx>, Option<Hop>, Deal)>,
    busy: Vec<u32>,
    /// Steps that touch each host that is to be off.
    touching: Vec<Option<Vec<u32>>>,
    now_ms: u64,
}

impl<'a> Schedule<'a> {
    pub fn new(world: &'a World, target: &'a Goal, first: First) -> Self {
        let (hosts, domains) = (world.hosts.len(), world.domains.len());
        let mut schedule = Self {
            world,
            target,
            fences: Fences::new(world),
            stock: Stock::new(world, target),
            steps: Vec::new(),
            left: Vec::new(),
            pivots: 0,
            spots: (world.domains.iter())
                .map(|domain| Spot {
                    host: domain.host,
                    replica: domain.replica,
                })
                .collect(),
            aside: vec![None; domains],
            stepped_aside: vec![false; domains],
            coming_back: Vec::new(),
            waiting: Vec::new(),
            ranks: Vec::new(),
            last: vec![None; domains],
            switched: vec![None; hosts],
            on: world
                .hosts
                .iter()
                .map(|host| host.state == HostPower::On)
                .collect(),
            running: BinaryHeap::new(),
            deals: Vec::new(),
            busy: vec![0; hosts],
            touching: vec![None; hosts],
            now_ms: 0,
        };
        for &host in &target.off {
            schedule.touching[host.at()] = Some(Vec::new());
        }
        schedule.ranks = schedule.ranks(first);
        schedule
    }

    /// Fewer left undone, then fewer pivots, then sooner done.
    pub fn price(&self) -> (usize, usize, u64) {
        (self.left.len(), self.pivots, self.now_ms)
    }

    fn ranks(&self, first: First) -> Vec<u64> {
        let mut wanted = vec![0u64; self.world.hosts.len()];
        let goals = || (0..self.world.domains.len()).map(|at| self.next(DomainIx::of(at)));
        for hop in goals().flatten() {
            wanted[hop.to().at()] += 1;
        }
        goals()
            .enumerate()
            .map(|(at, hop)| {
                let Some(hop) = hop else { return 0 };
                let domain = DomainIx::of(at);
                let lasts_ms = || ms(self.figures(domain, hop, 1).duration_s);
                match first {
                    First::Longest => u64::MAX - lasts_ms(),
                    First::Shortest => lasts_ms(),
                    First::Wanted => {
                        u64::MAX - self.spots[at].host.map_or(0, |from| wanted[from.at()])
                    }
                }
            })
            .collect()
    }

    /// What a domain does next.
    pub fn next(&self, domain: DomainIx) -> Option<Hop> {
        if let Some((to, _)) = self.aside[domain.at()] {
            return Some(Hop::Move(to));
        }
        let at = domain.at();
        hops::next(self.spots[at], self.goal(at), self.target.replicas[at])
    }

    /// Where a domain is to be at the end.
    pub fn goal(&self, at: usize) -> Option<HostIx> {
        self.target.hosts[at].or(self.world.domains[DomainIx::of(at)].host)
    }

    fn figures(&self, domain: DomainIx, hop: Hop, sharing: u32) -> Figures {
        let spot = self.spots[domain.at()];
        let what = &self.world.domains[domain];
        let rate = |from: HostIx| {
            transfer::rate_bytes_per_s(self.world, from, hop.to()) / u64::from(sharing.max(1))
        };
        match hop {
            Hop::Place(_) => Figures::default(),
            Hop::Move(_) => spot
                .host
                .map_or_else(Figures::default, |from| transfer::of_move(what, rate(from))),
            // The copy is made from where the domain runs.
            Hop::Replica(_) => spot.host.map_or_else(Figures::default, |from| {
                transfer::of_replica(what, rate(from))
            }),
        }
    }

    /// Plays it to the end.
    pub fn run(&mut self) {
        self.refuse_under_way();
        self.switch_on();
        let mut all: Vec<(u64, DomainIx)> = (0..self.world.domains.len())
            .map(|at| (self.ranks[at], DomainIx::of(at)))
            .filter(|&(_, domain)| self.next(domain).is_some())
            .collect();
        all.sort_unstable();
        for (_, domain) in all {
            self.try_begin(domain);
        }
        loop {
            while self.end_next() {}
            if !(self.come_back(false) || pivot::step_aside(self) || self.come_back(true)) {
                break;
            }
        }
        for pool in 0..self.waiting.len() {
            for (_, domain) in std::mem::take(&mut self.waiting[pool]) {
                let to = self.next(domain).expect("it waits for something").to();
                let from = self.spots[domain.at()].host;
                let dark = [Some(to), from]
                    .into_iter()
                    .flatten()
                    .find(|host| !self.on[host.at()]);
                let because = dark.map_or_else(
                    || self.stock.because(pool),
                    |host| format!("{} is not on", self.world.hosts[host].name),
                );
                self.leave(Some(domain), to, because);
            }
        }
        self.switch_off();
        self.left.sort_by_key(|left| (left.domain, left.to));
    }

    fn leave(&mut self, domain: Option<DomainIx>, to: HostIx, because: String) {
        let name = domain.map(|domain| self.world.domains[domain].name.as_str());
        let because = match name {
            Some(name) => format!(
                "{name} cannot go to {}: {because}",
                self.world.hosts[to].name
            ),
            None => because,
        };
        self.left.push(Left {
            domain,
            to,
            because,
        });
    }

    /// What somebody else moves just now is not touched.
    fn refuse_under_way(&mut self) {
        for operation in &self.world.operations {
            let domain = operation.domain;
            if let Some(hop) = self.next(domain) {
                self.leave(
                    Some(domain),
                    hop.to(),
                    "something else moves it just now".to_owned(),
                );
                self.stepped_aside[domain.at()] = true;
                self.last[domain.at()] = Some(u32::MAX);
            }
        }
    }

    fn switch_on(&mut self) {
        let mut comes = vec![0usize; self.world.hosts.len()];
        for at in 0..self.world.domains.len() {
            let Some(hop) = self.next(DomainIx::of(at)) else {
                continue;
            };
            let Spot { host, replica } = self.spots[at];
            let copied = replica.filter(|_| matches!(hop, Hop::Replica(_)));
            let hosts = [
                Some(hop.to()),
                self.goal(at),
                self.target.replicas[at],
                host,
                copied,
            ];
            for host in hosts.into_iter().flatten() {
                comes[host.at()] += 1;
            }
        }
        let mut stands_by = vec![false; self.world.hosts.len()];
        for host in &self.target.on {
            stands_by[host.at()] = comes[host.at()] == 0;
        }
        for (at, comes) in comes.into_iter().enumerate() {
            let host = &self.world.hosts[at];
            if (comes > 0 || stands_by[at]) && host.state == HostPower::Off {
                let lasts_s = f64::from(host.power.boot_s);
                let step = self.push(
                    Act::SwitchOn {
                        host: HostIx::of(at),
                    },
                    BTreeSet::new(),
                );
                self.steps[step as usize].figures.duration_s = lasts_s;
                let does = match stands_by[at] {
                    true => "stands by",
                    false => "takes domains",
                };
                self.steps[step as usize].reason = Reason::Serves {
                    what: format!("{} {does}", host.name),
                };
                self.switched[at] = Some(step);
                self.deals.push((None, None, Deal::default()));
                self.running.push(Reverse((ms(lasts_s), step)));
            }
        }
    }

    fn push(&mut self, act: Act, after: BTreeSet<u32>) -> u32 {
        // What one of them waits for itself need not be said again.
        let implied: BTreeSet<StepIx> = (after.iter())
            .flat_map(|&earlier| self.steps[earlier as usize].after.iter().copied())
            .collect();
        let after = after
            .into_iter()
            .map(StepIx)
            .filter(|step| !implied.contains(step));
        let step = Step {
            act,
            after: after.collect(),
            reason: Reason::Asked {
                what: "the target".to_owned(),
            },
            figures: Figures::default(),
        };
        self.steps.push(step);
        self.steps.len() as u32 - 1
    }

    /// Begins a domain's next step if it can; else lets it wait for what it lacks.
    pub fn try_begin(&mut self, domain: DomainIx) {
        let Some(hop) = self.next(domain) else { return };
        if self.last[domain.at()] == Some(u32::MAX) {
            return;
        }
        let to = hop.to();
        let spot = self.spots[domain.at()];
        let deal = self.stock.deal(domain, spot, hop);
        // A replica is given up where it was: that one must answer too.
        let copied = spot.replica.filter(|_| matches!(hop, Hop::Replica(_)));
        let dark = [Some(to), spot.host, copied]
            .into_iter()
            .flatten()
            .find(|host| !self.on[host.at()]);
        let lacking = if dark.is_none() {
            let mut takes = deal.takes.iter();
            let lacking = takes.find(|&&(pool, amount)| !self.stock.pools[pool].admits(amount));
            lacking.map(|(pool, _)| *pool)
        } else {
            dark.map(|host| self.stock.slots(host))
        };
        if let Some(pool) = lacking {
            if self.waiting.len() <= pool {
                self.waiting.resize(pool + 1, BTreeSet::new());
            }
            self.waiting[pool].insert((self.ranks[domain.at()], domain));
            return;
        }
        self.begin(domain, spot, hop, deal);
    }

    fn begin(&mut self, domain: DomainIx, spot: Spot, hop: Hop, deal: Deal) {
        let to = hop.to();
        let mut after: BTreeSet<u32> = BTreeSet::new();
        after.extend(self.last[domain.at()]);
        for host in spot.host.into_iter().chain([to]) {
            after.extend(self.switched[host.at()]);
        }
        for &(pool, amount) in &deal.takes {
            self.stock.pools[pool].claim(amount, &mut after);
        }
        let aside = self.aside[domain.at()];
        let (act, from) = match hop {
            Hop::Place(to) => (Act::Place { domain, to }, None),
            Hop::Move(to) => {
                let from = spot.host.expect("what moves is somewhere");
                let pivot = aside.is_some();
                let act = Act::Move {
                    domain,
                    from,
                    to,
                    pivot,
                };
                (act, Some(from))
            }
            Hop::Replica(to) => {
                let from = spot.replica.expect("what is made anew is somewhere");
                (Act::MoveReplica { domain, from, to }, Some(from))
            }
        };
        let touched: Vec<HostIx> = from.into_iter().chain([to]).collect();
        let mut sharing = 0;
        for host in touched.iter().filter(|_| from.is_some()) {
            self.busy[host.at()] += 1;
            sharing = sharing.max(self.busy[host.at()]);
        }
        let figures = self.figures(domain, hop, sharing);
        let number = self.push(act, after);
        let step = &mut self.steps[number as usize];
        step.figures = figures;
        if let Some((_, for_domain)) = aside {
            step.reason = Reason::MakesRoom { for_domain };
        }
        for host in touched {
            if let Some(touching) = &mut self.touching[host.at()] {
                touching.push(number);
            }
        }
        self.last[domain.at()] = Some(number);
        self.deals.push((Some(domain), Some(hop), deal));
        self.running
            .push(Reverse((self.now_ms + ms(figures.duration_s), number)));
    }

    /// Ends what ends next, and begins what that lets begin; false if nothing runs.
    fn end_next(&mut self) -> bool {
        let Some(&Reverse((at_ms, _))) = self.running.peek() else {
            return false;
        };
        self.now_ms = at_ms;
        let mut freed: BTreeSet<usize> = BTreeSet::new();
        let mut woken: Vec<HostIx> = Vec::new();
        let mut moved: BTreeSet<(u64, DomainIx)> = BTreeSet::new();
        while let Some(&Reverse((then_ms, step))) = self.running.peek()
            && then_ms == at_ms
        {
            self.running.pop();
            let (domain, hop, deal) = std::mem::take(&mut self.deals[step as usize]);
            for &(pool, amount) in &deal.frees {
                self.stock.pools[pool].release(amount, step);
                freed.insert(pool);
            }
            match self.steps[step as usize].act {
                Act::SwitchOn { host } => {
                    self.on[host.at()] = true;
                    woken.push(host);
                }
                Act::Move { from, to, .. } | Act::MoveReplica { from, to, .. } => {
                    self.busy[from.at()] -= 1;
                    self.busy[to.at()] -= 1;
                }
                Act::Place { .. } | Act::SwitchOff { .. } => {}
            }
            if let (Some(domain), Some(hop)) = (domain, hop) {
                let spot = &mut self.spots[domain.at()];
                *spot = hop.done(*spot);
                let stepped_aside = self.aside[domain.at()].take();
                match (stepped_aside, self.steps[step as usize].act) {
                    (Some((_, for_domain)), Act::Move { from, .. })
                        if self.goal(domain.at()) == Some(from) =>
                    {
                        self.coming_back.push((domain, for_domain));
                    }
                    _ => {
                        moved.insert((self.ranks[domain.at()], domain));
                    }
                }
            }
        }
        for (_, domain) in moved {
            self.try_begin(domain);
        }
        for host in woken {
            self.wake(self.stock.slots(host));
        }
        for pool in freed {
            self.wake(pool);
        }
        true
    }

    /// Lets those go back that stepped aside for somebody who has come, or all; false if none can.
    fn come_back(&mut self, all: bool) -> bool {
        for (domain, for_domain) in std::mem::take(&mut self.coming_back) {
            if all || self.next(for_domain).is_none() {
                self.try_begin(domain);
            } else {
                self.coming_back.push((domain, for_domain));
            }
        }
        !self.running.is_empty()
    }

    /// Lets those that wait for a pool try again, as long as there is something in it.
    pub fn wake(&mut self, pool: usize) {
        let Some(waiting) = self.waiting.get_mut(pool) else {
            return;
        };
        let mut waiting = std::mem::take(waiting);
        while let Some((rank, domain)) = waiting.pop_first() {
            let stock = &self.stock.pools[pool];
            if stock.taken >= stock.room {
                waiting.insert((rank, domain));
                break;
            }
            self.try_begin(domain);
        }
        self.waiting[pool].extend(waiting);
    }

    fn switch_off(&mut self) {
        let mut there = vec![false; self.world.hosts.len()];
        for spot in &self.spots {
            for host in [spot.host, spot.replica].into_iter().flatten() {
                there[host.at()] = true;
            }
        }
        for operation in &self.world.operations {
            there[operation.to.at()] = true;
        }
        let mut off = self.target.off.clone();
        off.sort_unstable();
        off.dedup();
        for host in off {
            let what = &self.world.hosts[host];
            if what.state == HostPower::Unknown {
                self.leave(None, host, format!("{} does not answer", what.name));
            } else if there[host.at()] {
                self.leave(None, host, format!("{} is not empty", what.name));
            } else if self.on[host.at()] {
                let mut after: BTreeSet<u32> = BTreeSet::new();
                after.extend(self.touching[host.at()].take().into_iter().flatten());
                after.extend(self.switched[host.at()]);
                let lasts_s = f64::from(what.power.halt_s);
                let step = self.push(Act::SwitchOff { host }, after);
                let step = &mut self.steps[step as usize];
                step.figures.duration_s = lasts_s;
                step.reason = Reason::Serves {
                    what: format!("{} is empty then", what.name),
                };
            }
        }
    }
}

fn ms(seconds: f64) -> u64 {
    // Longer than a century is as good as never; the cast of what is not finite gives a bound too.
    ((seconds * 1000.0).ceil() as u64).min(1 << 42)
}

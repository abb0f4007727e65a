//! A search's state: the ledger, what was paid, what may still be done, and the way back.

use std::cmp::Ordering;
use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed, ReservedKind};

use super::groups::Groups;
use super::limits::{Limits, Price, Spent};
use crate::ground::Ground;
use crate::ledger::Ledger;
use crate::objectives::{MOST_RANKS, Value};
use crate::places::{Change, Spot};
use crate::room::{Amounts, KINDS};

/// Up to so many hosts are all looked at for each domain; of more, those in the shortlist.
const ALL_HOSTS: usize = 192;
/// How many hosts are in the shortlist by their load.
const SHORTLIST: usize = 32;
/// And how many others, a few further on each time.
const OTHERS: usize = 16;
/// A shortlist is made anew after so many changes.
const SHORTLIST_LASTS: u32 = 64;
/// Differences smaller than this share of a value are none.
const NOTHING: f64 = 1e-9;

/// See the module.
#[derive(Clone)]
pub struct Seeker<'w> {
    pub(super) ledger: Ledger<'w>,
    /// Spots that moves are paid from.
    base: Vec<Spot>,
    /// Spots that limits count from.
    origin: Vec<Spot>,
    /// What one share of toll costs in each rank.
    unit: [f64; MOST_RANKS],
    /// What is no difference, in each rank.
    nothing: [f64; MOST_RANKS],
    limits: Limits,
    /// Of limits, now and at the base.
    spent: Spent,
    paid: Spent,
    price: Price,
    /// Gained since the base, tolls and bytes paid.
    total: Value,
    undo: Vec<Change>,
    work: u64,
    groups: Arc<Groups>,
    /// What half of all domains take no more of than, by kind: who has no room for it is in no shortlist.
    common: Amounts,
    shortlist: Vec<HostIx>,
    shortlist_age: u32,
    turn: usize,
    /// Room to work in.
    targets: Vec<HostIx>,
    deltas: Vec<f64>,
    spare: Vec<f64>,
}

impl<'w> Seeker<'w> {
    /// Stands at a ledger's state, which is what moves are paid from; limits count from the world's.
    pub fn new(ledger: Ledger<'w>, limits: Limits) -> Self {
        let hosts = ledger.ground().world.hosts.len().max(1) as f64;
        let value = ledger.value();
        let base = ledger.books().places.spots().to_vec();
        let mut seeker = Self {
            unit: (ledger.gauge().degrees()).map(|rank| rank.abs() / hosts),
            nothing: value.ranks.map(|rank| (rank.abs() * NOTHING).max(1e-12)),
            spent: Spent::default(),
            paid: Spent::default(),
            price: Price::default(),
            total: Value::default(),
            undo: Vec::new(),
            work: 0,
            groups: Arc::new(Groups::new(ledger.ground())),
            common: common(ledger.ground()),
            shortlist: Vec::new(),
            shortlist_age: u32::MAX,
            turn: 0,
            targets: Vec::new(),
            deltas: Vec::new(),
            spare: Vec::new(),
            limits,
            origin: ledger.ground().start.clone(),
            base,
            ledger,
        };
        seeker.count();
        seeker
    }

    /// The same, where limits count from another ground's start: that of a world with the same domains and hosts.
    pub fn since(ledger: Ledger<'w>, limits: Limits, origin: &Ground<'_>) -> Self {
        let mut seeker = Self::new(ledger, limits);
        seeker.origin = origin.start.clone();
        seeker.count();
        seeker
    }

    fn count(&mut self) {
        self.spent = Spent::default();
        for number in 0..self.base.len() {
            let part = self.part_of(DomainIx::of(number), self.base[number]);
            self.spent = self.spent.with(Spent::default(), part);
        }
        self.paid = self.spent;
    }

    /// What is kept to.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Keeps to something else.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What limits count.
    pub(super) fn spent(&self) -> Spent {
        self.spent
    }

    /// Whether anything was moved before it began.
    pub(super) fn goes_on(&self) -> bool {
        self.paid.moves > 0
    }

    /// Another price for bytes.
    pub(super) fn set_price(&mut self, price: Price) {
        self.total = self.unpriced();
        self.price = price;
        self.total.ranks[0] += price.of(self.spent) - price.of(self.paid);
    }

    /// Gained since the base, tolls paid but not bytes.
    pub(super) fn unpriced(&self) -> Value {
        let mut total = self.total;
        if self.price.each != 0.0 {
            total.ranks[0] -= self.price.of(self.spent) - self.price.of(self.paid);
        }
        total
    }

    /// What bytes cost more if a domain went to a spot.
    fn priced(&self, domain: DomainIx, to: Spot) -> f64 {
        if self.price.each == 0.0 {
            return 0.0;
        }
        let now = self.part_of(domain, self.ledger.spot(domain));
        self.price.of(self.part_of(domain, to)) - self.price.of(now)
    }

    /// Whether it stands at something better than where it began.
    pub fn improved(&self) -> bool {
        self.gains(&self.total)
    }

    /// Where everything is.
    pub fn spots(&self) -> Vec<Spot> {
        self.ledger.books().places.spots().to_vec()
    }

    /// The state.
    pub fn ledger(&self) -> &Ledger<'w> {
        &self.ledger
    }

    /// Gained since the base, tolls paid.
    pub fn total(&self) -> Value {
        self.total
    }

    /// Candidates looked at.
    pub fn work(&self) -> u64 {
        self.work
    }

    pub(super) fn set_work(&mut self, work: u64) {
        self.work = work;
    }

    pub(super) fn looked_at(&mut self, candidates: usize) {
        self.work += candidates as u64;
    }

    /// Where moves are paid from.
    pub(super) fn base(&self) -> &[Spot] {
        &self.base
    }

    /// Whether one difference is better than another.
    pub(super) fn less(&self, one: &Value, other: &Value) -> bool {
        match one.broken.cmp(&other.broken) {
            Ordering::Less => return true,
            Ordering::Greater => return false,
            Ordering::Equal => {}
        }
        for rank in 0..self.ledger.gauge().count() {
            match self.decides(rank, one, other) {
                Ordering::Less => return true,
                Ordering::Greater => return false,
                Ordering::Equal => {}
            }
        }
        // Equal in all: what is spared. Of two mendings of what is broken, where nothing can be gained, none is better.
        let spared = other.toll - one.toll;
        !self.ledger.ground().wakes()
            && (0..self.ledger.gauge().count())
                .any(|rank| spared * self.unit[rank] > self.nothing[rank])
    }

    /// How two differences compare in a rank, tolls paid. What gains less there than it costs, or loses less than it spares, is
    /// no difference: the next rank decides, and must pay the same toll in its own measure. So moves that change nothing in the first
    /// rank are made for the second, and what was moved for the second is not taken back for the first rank's toll.
    fn decides(&self, rank: usize, one: &Value, other: &Value) -> Ordering {
        let paid = one.ranks[rank] - other.ranks[rank];
        let nothing = self.nothing[rank];
        // Where hosts are switched, later ranks see other hosts after it than before: what they gain on the way is not to be
        // had. There the first rank's toll is paid whatever it is for.
        let plain = match self.ledger.ground().wakes() {
            true => paid,
            false => paid - (one.toll - other.toll) * self.unit[rank],
        };
        if plain < -nothing && paid < -nothing {
            Ordering::Less
        } else if plain > nothing && paid > nothing {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    }

    /// By what a queue orders a difference of what is: the first rank's, or 0 where a later one decides.
    pub(super) fn first_of(&self, value: &Value) -> f64 {
        let later = self.ledger.gauge().count() > 1
            && !self.ledger.ground().wakes()
            && self.decides(0, value, &Value::default()) == Ordering::Equal;
        if later { 0.0 } else { value.ranks[0] }
    }

    /// Whether a difference is an improvement.
    pub(super) fn gains(&self, by: &Value) -> bool {
        self.less(by, &Value::default())
    }

    /// Whether this state is better than another's.
    pub(super) fn beats(&self, other: &Self) -> bool {
        self.less(&self.unpriced(), &other.unpriced())
    }

    /// What a domain's spot counts of limits.
    fn part_of(&self, domain: DomainIx, spot: Spot) -> Spent {
        let ground = self.ledger.ground();
        let start = self.origin[domain.at()];
        if spot == start || start.host == ground.nowhere() {
            return Spent::default();
        }
        let moved = spot.host != start.host;
        let promised = ground.world.domains[domain].reserved[ReservedKind::MemoryMib].min(1 << 24);
        Spent {
            moves: 1,
            bytes: ground.toll.cost(domain, start, spot).bytes,
            memory_bytes: if moved {
                promised.saturating_mul(1 << 20)
            } else {
                0
            },
        }
    }

    /// What limits would count if a domain were on a spot.
    fn spent_with(&self, domain: DomainIx, to: Spot) -> Spent {
        let now = self.part_of(domain, self.ledger.spot(domain));
        self.spent.with(now, self.part_of(domain, to))
    }

    /// Whether a domain may be put on a spot as far as limits go.
    pub(super) fn within_limits(&self, domain: DomainIx, to: Spot) -> bool {
        self.spent_with(domain, to).is_within(self.limits)
    }

    /// Whether the state is within the limits.
    pub(super) fn is_within_limits(&self) -> bool {
        self.spent.is_within(self.limits)
    }

    /// What putting a domain elsewhere must gain at least in the first rank; nothing if it was moved already.
    pub(super) fn least_gain(&self, domain: DomainIx) -> f64 {
        let ground = self.ledger.ground();
        let base = self.base[domain.at()];
        if self.ledger.spot(domain) != base {
            return 0.0;
        }
        ground.toll.least_share(domain, base) * self.unit[0]
    }

    /// Whether limits keep a domain where it was, as far as that can be said without a look.
    pub(super) fn is_kept_by_limits(&self, domain: DomainIx) -> bool {
        let now = self.ledger.spot(domain);
        let nowhere = self.ledger.ground().nowhere();
        !self.may_move_more() && now == self.origin[domain.at()] && now.host != nowhere
    }

    /// Looks at something as if there were no limits.
    pub(super) fn without_limits<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        let limits = std::mem::replace(&mut self.limits, Limits::NONE);
        let found = look(self);
        self.limits = limits;
        found
    }

    /// Whether another domain may be moved at all.
    pub(super) fn may_move_more(&self) -> bool {
        self.spent.moves < self.limits.moves && self.spent.bytes < self.limits.bytes
    }

    /// What putting a domain on a spot costs beside what it gains, as a share.
    fn toll(&self, domain: DomainIx, to: Spot) -> f64 {
        let ground = self.ledger.ground();
        let base = self.base[domain.at()];
        ground.toll.share(domain, base, to)
            - ground.toll.share(domain, base, self.ledger.spot(domain))
    }

    /// How much some changes that are let through would gain, tolls paid.
    pub(super) fn weigh(&self, changes: &[Change]) -> Value {
        let mut by = self.ledger.delta(changes);
        let toll: f64 = changes
            .iter()
            .map(|change| self.toll(change.domain, change.to))
            .sum();
        for (rank, unit) in self.unit.iter().enumerate() {
            by.ranks[rank] += toll * unit;
        }
        by.toll += toll;
        for change in changes {
            by.ranks[0] += self.priced(change.domain, change.to);
        }
        by
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, change: Change) {
        let domain = change.domain;
        let before = self.ledger.value();
        let toll = self.toll(domain, change.to);
        let spent = self.spent_with(domain, change.to);
        if self.price.each != 0.0 {
            self.total.ranks[0] += self.price.of(spent) - self.price.of(self.spent);
        }
        self.spent = spent;
        let undo = self.ledger.apply(change);
        self.undo.push(undo);
        let after = self.ledger.value();
        self.total.broken += after.broken - before.broken;
        self.total.toll += toll;
        for rank in 0..MOST_RANKS {
            self.total.ranks[rank] +=
                after.ranks[rank] - before.ranks[rank] + toll * self.unit[rank];
        }
        self.shortlist_age = self.shortlist_age.saturating_add(1);
    }

    /// A moment to come back to.
    pub(super) fn mark(&self) -> (usize, Value) {
        (self.undo.len(), self.total)
    }

    /// Goes back to it.
    pub(super) fn back_to(&mut self, mark: (usize, Value)) {
        while self.undo.len() > mark.0 {
            if let Some(change) = self.undo.pop() {
                self.apply(change);
                self.undo.pop();
            }
        }
        self.total = mark.1;
    }

    /// Domains that were changed since a moment.
    pub(super) fn changed_since(&self, mark: (usize, Value)) -> Vec<DomainIx> {
        self.undo[mark.0..]
            .iter()
            .map(|change| change.domain)
            .collect()
    }

    /// Forgets the way back; gives the domains that were changed since.
    pub(super) fn forget(&mut self) -> Vec<DomainIx> {
        self.undo.drain(..).map(|change| change.domain).collect()
    }

    /// Takes a domain back to its base if that may be; says whether it did.
    pub(super) fn take_back(&mut self, domain: DomainIx) -> bool {
        let to = self.base[domain.at()];
        let may = to != self.ledger.spot(domain)
            && self.ledger.books().may(domain, to).is_ok()
            && self.within_limits(domain, to);
        if may {
            self.apply(Change { domain, to });
        }
        may
    }

    /// The best spot for a domain, and what it gains; none if it cannot go anywhere.
    pub(crate) fn best_of(&mut self, domain: DomainIx) -> Option<(Value, Spot)> {
        let ground = std::sync::Arc::clone(self.ledger.ground());
        if ground.still(domain).is_some() {
            return None;
        }
        if self.is_kept_by_limits(domain) {
            return None;
        }
        let now = self.ledger.spot(domain);
        let mut targets = std::mem::take(&mut self.targets);
        self.list_targets(domain, &mut targets);
        let best = if now.replica == ground.nowhere() {
            self.best_host(domain, now, &mut targets)
        } else {
            self.best_pair(domain, now, &targets)
        };
        self.targets = targets;
        best
    }

    /// Whether there is room in the limits for one more of the usual size.
    pub(super) fn has_slack(&self) -> bool {
        self.spent.has_slack(self.limits)
    }

    /// The best host for a domain without a replica.
    fn best_host(
        &mut self,
        domain: DomainIx,
        now: Spot,
        targets: &mut Vec<HostIx>,
    ) -> Option<(Value, Spot)> {
        let spot = |host| Spot {
            host,
            replica: now.replica,
        };
        let ground = self.ledger.ground();
        let books = self.ledger.books();
        let bound = !ground.apart_of[domain.at()].is_empty()
            || !ground.together_of[domain.at()].is_empty()
            || books.keeps_spare();
        if bound {
            targets.retain(|&host| host != now.host && books.may(domain, spot(host)).is_ok());
        } else {
            let takes = ground.rooms.takes(domain);
            targets.retain(|&host| {
                host != now.host
                    && host != books.nowhere()
                    && books.taken(host).admits(&takes, ground.rooms.open(host))
            });
        }
        let away = self.base[domain.at()].host;
        // Where there is one rate, limits are the same for all but the host that it came from.
        let one_rate = ground.toll.has_one_rate();
        let origin = self.origin[domain.at()].host;
        if one_rate {
            let other = targets.iter().find(|&&host| host != origin).copied();
            if other.is_some_and(|other| !self.within_limits(domain, spot(other))) {
                targets.retain(|&host| host == origin);
            }
        } else {
            targets.retain(|&host| self.within_limits(domain, spot(host)));
        }
        self.work += targets.len() as u64;
        let mut deltas = std::mem::take(&mut self.deltas);
        let mut spare = std::mem::take(&mut self.spare);
        self.ledger.gauge().scan(
            self.ledger.books(),
            domain,
            targets,
            &mut deltas,
            &mut spare,
        );
        let mut best: Option<(Value, Spot)> = None;
        // What leaving mends is the same for all; what coming breaks is looked at where it can be.
        let plain = !bound && self.ledger.value().broken == 0;
        let (toll_away, toll_back) = match targets.iter().find(|&&host| host != away) {
            Some(&other) => (
                self.toll(domain, spot(other)),
                self.toll(domain, self.base[domain.at()]),
            ),
            None => (0.0, self.toll(domain, self.base[domain.at()])),
        };
        // Bytes are the same for all but the host that it came from.
        let (priced, unpriced) = match targets.iter().find(|&&host| host != origin) {
            Some(&other) => (
                self.priced(domain, spot(other)),
                self.priced(domain, spot(origin)),
            ),
            None => (0.0, self.priced(domain, spot(origin))),
        };
        for (&host, &delta) in targets.iter().zip(deltas.iter()) {
            let toll = if host == away {
                toll_back
            } else if one_rate {
                toll_away
            } else {
                self.toll(domain, spot(host))
            };
            let bytes = if host == origin {
                unpriced
            } else if one_rate {
                priced
            } else {
                self.priced(domain, spot(host))
            };
            let mut value = Value::default();
            value.ranks[0] = delta + toll * self.unit[0] + bytes;
            value.toll = toll;
            let change = Change {
                domain,
                to: spot(host),
            };
            if !plain {
                value.broken = self.ledger.books().broken_by(&[change]);
            }
            let close = best.as_ref().is_none_or(|(best, _)| {
                value.broken < best.broken
                    || (value.broken == best.broken
                        && self.decides(0, &value, best) != Ordering::Greater)
            });
            if !close {
                continue;
            }
            for rank in 1..self.ledger.gauge().count() {
                value.ranks[rank] =
                    self.ledger
                        .gauge()
                        .delta_of(rank, self.ledger.books(), &[change])
                        + toll * self.unit[rank];
            }
            if best
                .as_ref()
                .is_none_or(|(best, _)| self.less(&value, best))
            {
                best = Some((value, change.to));
            }
        }
        self.deltas = deltas;
        self.spare = spare;
        best
    }

    /// The best spot for a domain with a replica: over to it, a new replica, or both.
    fn best_pair(
        &mut self,
        domain: DomainIx,
        now: Spot,
        targets: &[HostIx],
    ) -> Option<(Value, Spot)> {
        let mut best: Option<(Value, Spot)> = None;
        let whole = self.ledger.value().broken == 0;
        let over = Spot {
            host: now.replica,
            replica: now.host,
        };
        let others = targets
            .iter()
            .filter(|&&host| host != now.host && host != now.replica);
        let all = others.flat_map(|&host| {
            [
                (now.host, host),
                (host, now.host),
                (host, now.replica),
                (now.replica, host),
            ]
        });
        let all = all.map(|(host, replica)| Spot { host, replica });
        let base = self.base[domain.at()];
        let unlimited = self.limits == Limits::NONE && self.price.each == 0.0;
        let part = self.part_of(domain, now);
        let share = self.ledger.ground().toll.share(domain, base, now);
        for to in std::iter::once(over).chain(all) {
            self.work += 1;
            let better =
                |value: &Value| (best.as_ref()).is_none_or(|(best, _)| self.less(value, best));
            let change = [Change { domain, to }];
            let mut value = Value {
                broken: 0,
                ranks: (self.ledger.gauge()).delta(self.ledger.books(), &change),
                toll: 0.0,
            };
            // From the cheapest to the dearest: most are no better than the best so far, whatever they cost.
            let mut least = value;
            for (rank, unit) in self.unit.iter().enumerate() {
                least.ranks[rank] -= share * unit;
            }
            least.toll = -share;
            if whole && self.price.each == 0.0 && !better(&least) {
                continue;
            }
            if !unlimited {
                let will = self.part_of(domain, to);
                if !self.spent.with(part, will).is_within(self.limits) {
                    continue;
                }
                value.ranks[0] += self.price.of(will) - self.price.of(part);
            }
            let toll = self.ledger.ground().toll.share(domain, base, to) - share;
            for (rank, unit) in self.unit.iter().enumerate() {
                value.ranks[rank] += toll * unit;
            }
            value.toll = toll;
            if (whole && !better(&value)) || self.ledger.books().may(domain, to).is_err() {
                continue;
            }
            if !whole {
                value.broken = self.ledger.books().broken_by(&change);
            }
            if better(&value) {
                best = Some((value, to));
            }
        }
        best
    }

    /// Hosts to look at for a domain.
    fn list_targets(&mut self, domain: DomainIx, targets: &mut Vec<HostIx>) {
        targets.clear();
        let ground = std::sync::Arc::clone(self.ledger.ground());
        let list = ground.come_list(domain);
        let start = self.origin[domain.at()];
        if list.len() <= ALL_HOSTS {
            targets.extend_from_slice(list);
        } else {
            self.freshen_shortlist();
            targets.extend(
                self.shortlist
                    .iter()
                    .filter(|&&host| ground.may_come(domain, host)),
            );
            self.ledger
                .gauge()
                .suggest(self.ledger.books(), domain, targets);
            targets.retain(|&host| ground.may_come(domain, host));
            targets.sort_unstable();
            targets.dedup();
        }
        for home in [start.host, start.replica] {
            // To where it must not be it is not taken back: what that breaks is not looked at for each host.
            let may = home != ground.nowhere() && ground.may_stay(domain, home);
            if may && !targets.contains(&home) {
                targets.push(home);
            }
        }
    }

    /// The hosts that should receive first, of a world with many.
    fn freshen_shortlist(&mut self) {
        if self.shortlist_age < SHORTLIST_LASTS {
            return;
        }
        let books = self.ledger.books();
        let ground = self.ledger.ground();
        let mut loads: Vec<(f64, HostIx)> = (0..books.nowhere().at())
            .map(HostIx::of)
            .filter(|&host| {
                books
                    .taken(host)
                    .admits(&self.common, ground.rooms.open(host))
            })
            .map(|host| (self.ledger.gauge().load(books, host), host))
            .collect();
        let order = |one: &(f64, HostIx), other: &(f64, HostIx)| {
            one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))
        };
        if loads.len() > SHORTLIST {
            loads.select_nth_unstable_by(SHORTLIST, order);
            loads.truncate(SHORTLIST);
        }
        loads.sort_unstable_by(order);
        self.shortlist = loads.into_iter().map(|(_, host)| host).collect();
        let hosts = books.nowhere().at();
        for _ in 0..OTHERS {
            // By the golden section, so that soon every part of the world was seen.
            self.turn = (self.turn + hosts * 618 / 1000 + 1) % hosts;
            self.shortlist.push(HostIx::of(self.turn));
        }
        self.shortlist_age = 0;
    }
}

impl Seeker<'_> {
    /// Who must be where others are.
    pub(super) fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }

    /// Hosts that are looked at for a domain.
    pub(super) fn targets_of(&mut self, domain: DomainIx) -> Vec<HostIx> {
        let mut targets = Vec::new();
        self.list_targets(domain, &mut targets);
        targets
    }

    /// A domain's spot if it came to a host: its replica stays, and changes places with it if it is there.
    pub(super) fn spot_to(&self, domain: DomainIx, host: HostIx) -> Spot {
        let now = self.ledger.spot(domain);
        if host == now.host {
            return now;
        }
        let replica = if host == now.replica {
            now.host
        } else {
            now.replica
        };
        Spot { host, replica }
    }

    /// Makes a change that room and others may speak against; fixed rules may not. Says whether it did.
    pub(super) fn force(&mut self, change: Change) -> bool {
        let ground = self.ledger.ground();
        let Change { domain, to } = change;
        let (now, home) = (self.ledger.spot(domain), ground.start[domain.at()]);
        let nowhere = ground.nowhere();
        // As `Books::may` has it.
        let has_place = to.host != to.replica
            && to.host != nowhere
            && !(now.host == nowhere && to.host == now.replica);
        let stays = [
            to.host == home.host,
            to.replica == home.host || to == home || to.replica == nowhere,
        ];
        let is_open = ([to.host, to.replica].into_iter().zip(stays))
            .all(|(host, stays)| stays || ground.may_come(domain, host));
        let may = to != now && has_place && is_open && ground.still(domain).is_none();
        if may {
            self.looked_at(1);
            self.apply(change);
        }
        may
    }

    /// Makes some changes if they may be made together; says whether it did.
    pub(super) fn apply_all(&mut self, changes: &[Change]) -> bool {
        let mark = self.mark();
        let all = changes
            .iter()
            .all(|&change| self.ledger.spot(change.domain) == change.to || self.force(change));
        if all && self.is_sound_since(mark) {
            return true;
        }
        self.back_to(mark);
        false
    }

    /// Whether what was done since a moment is within the rules: no more is broken than then, nothing is broken where
    /// anything came to, and the limits are kept.
    pub(super) fn is_sound_since(&self, mark: (usize, Value)) -> bool {
        if self.total.broken > mark.1.broken || !self.is_within_limits() {
            return false;
        }
        let (books, ground) = (self.ledger.books(), self.ledger.ground());
        let broken = self.ledger.value().broken != 0;
        let has_room = |domain: DomainIx, host: HostIx| {
            let (takes, open) = (ground.rooms.takes(domain), ground.rooms.open(host));
            let taken = books.taken(host);
            (0..KINDS).all(|kind| takes.0[kind] == 0 || taken.0[kind] <= open.0[kind])
        };
        let is_whole = |domain: DomainIx, spot: Spot| {
            let host = |host: HostIx| {
                books.broken_host(host, books.taken(host), books.spare_due(host).0) == 0
            };
            host(spot.host)
                && host(spot.replica)
                && books.broken_spot(domain, spot) == 0
                && books.broken_bonds(domain, spot.host) == 0
        };
        (self.undo[mark.0..]).iter().all(|was| {
            let spot = self.ledger.spot(was.domain);
            spot == was.to
                || (has_room(was.domain, spot.host)
                    && (spot.replica == books.nowhere() || has_room(was.domain, spot.replica))
                    && (!broken || is_whole(was.domain, spot)))
        })
    }

    /// [`Self::within_limits`] for two domains together.
    pub(super) fn within_limits_both(&self, changes: &[Change; 2]) -> bool {
        let mut spent = self.spent;
        for change in changes {
            let now = self.part_of(change.domain, self.ledger.spot(change.domain));
            spent = spent.with(now, self.part_of(change.domain, change.to));
        }
        spent.is_within(self.limits)
    }

    /// The hosts that would take a domain best if all had room for it.
    pub(super) fn best_hosts(&mut self, domain: DomainIx, most: usize) -> Vec<HostIx> {
        let order = self.wanted(domain, most);
        order.into_iter().map(|(_, host)| host).collect()
    }

    /// The same, with what the first rank would rise by.
    pub(super) fn wanted(&mut self, domain: DomainIx, most: usize) -> Vec<(f64, HostIx)> {
        let mut targets = std::mem::take(&mut self.targets);
        self.list_targets(domain, &mut targets);
        let mut order = self.ranked(domain, &targets);
        order.truncate(most);
        self.targets = targets;
        order
    }

    /// Some hosts by what the first rank would rise by if a domain came there.
    pub(super) fn ranked(&mut self, domain: DomainIx, targets: &[HostIx]) -> Vec<(f64, HostIx)> {
        let (mut deltas, mut spare) = (
            std::mem::take(&mut self.deltas),
            std::mem::take(&mut self.spare),
        );
        self.ledger.gauge().scan(
            self.ledger.books(),
            domain,
            targets,
            &mut deltas,
            &mut spare,
        );
        self.work += targets.len() as u64;
        let mut order: Vec<(f64, HostIx)> = deltas
            .iter()
            .copied()
            .zip(targets.iter().copied())
            .collect();
        order.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        (self.deltas, self.spare) = (deltas, spare);
        order
    }
}

/// The median of what domains take, by kind.
fn common(ground: &Ground<'_>) -> Amounts {
    let count = ground.start.len();
    let mut takes: Vec<Amounts> = (0..count)
        .map(|domain| ground.rooms.takes(DomainIx::of(domain)))
        .collect();
    let mut common = Amounts::NONE;
    for kind in 0..KINDS {
        if count > 0 {
            let (_, median, _) = takes.select_nth_unstable_by_key(count / 2, |takes| takes.0[kind]);
            common.0[kind] = median.0[kind];
        }
    }
    common
}

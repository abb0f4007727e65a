//! The state that a search changes and terms read: places, what is taken of each host, what each must keep spare.

use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed};

use crate::ground::Ground;
use crate::places::{Change, Places, Spot};
use crate::room::Amounts;

/// Place of memory among the kinds of [`Amounts`].
pub(crate) const MEMORY: usize = 1;

/// Places and sums over them. Sums are of whole numbers, so that they do not depend on the way that led here.
#[derive(Debug, Clone)]
pub struct Books<'w> {
    /// What stays.
    pub ground: Arc<Ground<'w>>,
    /// Who is where.
    pub places: Places,
    taken: Vec<Amounts>,
    /// For each host, memory that it needs if another fails, by that other, the smallest number first.
    due: Vec<Vec<(HostIx, u64)>>,
    replicated: bool,
}

impl<'w> Books<'w> {
    /// As the world has it.
    pub fn new(ground: Arc<Ground<'w>>) -> Self {
        let world = ground.world;
        let mut taken = ground.rooms.taken(world);
        let mut nowhere = Amounts::NONE;
        for (number, _) in
            (world.domains.iter().enumerate()).filter(|(_, domain)| domain.host.is_none())
        {
            nowhere.add(&ground.rooms.takes(DomainIx::of(number)));
        }
        taken.push(nowhere);
        let mut books = Self {
            places: Places::new(world),
            due: vec![Vec::new(); world.hosts.len() + 1],
            replicated: world.domains.iter().any(|domain| domain.replica.is_some()),
            taken,
            ground,
        };
        for number in 0..world.domains.len() {
            let domain = DomainIx::of(number);
            let spot = books.places.spot(domain);
            books.owe(domain, spot, true);
        }
        books
    }

    /// Whether any domain has a replica.
    pub fn replicated(&self) -> bool {
        self.replicated
    }

    /// The place of what has no place.
    pub fn nowhere(&self) -> HostIx {
        self.ground.nowhere()
    }

    /// What is taken of a host.
    pub fn taken(&self, host: HostIx) -> &Amounts {
        &self.taken[host.at()]
    }

    /// Memory that a host must keep free for the worst failure of one other, and which that is.
    pub fn spare_due(&self, host: HostIx) -> (u64, HostIx) {
        (self.due[host.at()].iter()).fold((0, self.nowhere()), |most, &(failing, memory)| {
            if memory > most.0 {
                (memory, failing)
            } else {
                most
            }
        })
    }

    /// The same as [`Self::spare_due`] if so much memory less or more were due for some failing hosts.
    pub fn spare_due_with(&self, host: HostIx, changes: &[(HostIx, i64)]) -> u64 {
        let changed = |failing: HostIx| -> i64 {
            changes
                .iter()
                .filter(|(of, _)| *of == failing)
                .map(|(_, by)| by)
                .sum()
        };
        let due = &self.due[host.at()];
        let kept = due
            .iter()
            .map(|&(failing, memory)| memory as i64 + changed(failing));
        let new = (changes.iter())
            .filter(|(of, _)| due.iter().all(|(failing, _)| failing != of))
            .map(|(of, _)| changed(*of));
        kept.chain(new).max().unwrap_or(0).max(0) as u64
    }

    /// What a spot takes of each host: of the one where the domain runs, and of the one with its replica.
    pub fn takes(&self, domain: DomainIx) -> (Amounts, &Amounts) {
        let rooms = &self.ground.rooms;
        (rooms.takes(domain), rooms.kept(domain))
    }

    /// Puts a domain on its new spot; gives the change that undoes it.
    pub fn apply(&mut self, change: Change) -> Change {
        let domain = change.domain;
        let old = self.places.spot(domain);
        let ground = Arc::clone(&self.ground);
        let (all, kept) = (ground.rooms.takes(domain), ground.rooms.kept(domain));
        self.taken[old.host.at()].take(&all);
        self.taken[change.to.host.at()].add(&all);
        if old.replica != change.to.replica {
            if old.replica != self.nowhere() {
                self.taken[old.replica.at()].take(kept);
            }
            if change.to.replica != self.nowhere() {
                self.taken[change.to.replica.at()].add(kept);
            }
        }
        self.owe(domain, old, false);
        self.owe(domain, change.to, true);
        self.places.change(change);
        Change { domain, to: old }
    }

    fn owe(&mut self, domain: DomainIx, spot: Spot, more: bool) {
        if spot.replica == self.nowhere() || spot.host == self.nowhere() {
            return;
        }
        let memory = self.ground.rooms.live(domain).0[MEMORY];
        let due = &mut self.due[spot.replica.at()];
        match (due.binary_search_by_key(&spot.host, |entry| entry.0), more) {
            (Ok(at), true) => due[at].1 += memory,
            (Ok(at), false) => due[at].1 -= memory,
            (Err(at), true) => due.insert(at, (spot.host, memory)),
            (Err(_), false) => {}
        }
    }
}

//! Many domains at once: all or none, and those that must be together one after the other.

use std::cmp::Reverse;
use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed};

use super::{NoPlace, Placed, Placer, TREE_FROM, company, no_place};
use crate::KINDS;
use crate::host_set::HostSet;
use crate::obstacle::Obstacle;
use crate::plan::FREE_MILLI;
use crate::way;

impl Placer<'_> {
    /// Puts domains that must be together, all or none, the first where there is room for as many as must be on its host.
    ///
    /// Where that leaves one without a place, the first tries a host, or a site, after the other.
    pub(super) fn place_group(&mut self, group: &[DomainIx]) -> Result<Vec<Placed>, NoPlace> {
        let ground = Arc::clone(self.ledger.ground());
        let mut shunned = HostSet::none(ground.world.hosts.len() + 1);
        let mut first: Option<NoPlace> = None;
        let mut sorted = group.to_vec();
        sorted.sort_unstable();
        loop {
            let mut placed: Vec<Placed> = Vec::with_capacity(group.len());
            let failed = group.iter().find_map(|&domain| {
                let needs = company::needs(self.ledger.books(), domain, &sorted);
                let shunned = placed.is_empty().then_some(&shunned);
                match self.place_one(domain, &needs, shunned) {
                    Ok(place) => {
                        placed.push(place);
                        None
                    }
                    Err(failed) => Some(failed),
                }
            });
            let Some(mut failed) = failed else {
                return Ok(placed);
            };
            self.take_back(&placed);
            let Some(tried) = placed.first().copied() else {
                return Err(first.unwrap_or(failed));
            };
            failed.beside = placed;
            company::shun(&ground, group, tried.host, &mut shunned);
            first = first.or(Some(failed));
        }
    }

    /// Puts many domains, all or none: those that may go to fewest hosts first, then the largest; those that must be together
    /// one after the other. Where that leaves one without a place, the largest first by each single kind is tried too. The answer
    /// is in the order in which they came to their places.
    ///
    /// If one host may fail, what it would leave finds a place after that, as far as it does now: where it does not, more and
    /// more of each host is kept free.
    ///
    /// # Errors
    /// One that finds no place beside the others; nothing is placed then. A greedy order can fail where some other would
    /// just fit.
    pub fn place_all(&mut self, domains: &[DomainIx]) -> Result<Vec<Placed>, NoPlace> {
        let mut placed = self.place_each(domains)?;
        if !way::must_survive(self.ledger.ground().world) || self.survives() {
            return Ok(placed);
        }
        self.take_back(&placed);
        for free_milli in FREE_MILLI.into_iter().filter(|&milli| milli > 0) {
            let Some(mut other) = self.keeping_free(free_milli) else {
                continue;
            };
            if let Ok(found) = other.place_each(domains)
                && other.survives()
            {
                for place in &found {
                    self.put(place.domain, place.host);
                }
                return Ok(found);
            }
        }
        let world = self.ledger.ground().world;
        let last = placed.pop();
        let failing = last.map_or(HostIx(0), |last| last.host);
        let domain = last.map_or(DomainIx(0), |last| last.domain);
        let mut failed = no_place(domain, [Obstacle::NoSpare { failing }], world);
        failed.beside = placed;
        Err(failed)
    }

    fn survives(&self) -> bool {
        way::survives(self.ledger.ground(), self.ledger.books().places.spots())
    }

    /// One in the same state that does not fill so much of each host.
    fn keeping_free(&self, free_milli: u32) -> Option<Self> {
        let world = self.ledger.ground().world;
        let other = Self::with_trees(world, &self.objective, TREE_FROM, free_milli);
        let mut other = other.ok()?;
        for domain in (0..world.domains.len()).map(DomainIx::of) {
            let host = self.ledger.spot(domain).host;
            if host != other.ledger.spot(domain).host {
                other.put(domain, host);
            }
        }
        Some(other)
    }

    /// As [`Self::place_all`], whatever one host leaves when it fails.
    fn place_each(&mut self, domains: &[DomainIx]) -> Result<Vec<Placed>, NoPlace> {
        let ground = Arc::clone(self.ledger.ground());
        let mut room = [1u64; KINDS];
        for host in (0..ground.world.hosts.len()).map(HostIx::of) {
            for (most, here) in room.iter_mut().zip(ground.rooms.room(host).0) {
                *most = (*most).max(here);
            }
        }
        // How large a domain is: its largest part of the largest host, in millionths.
        let part = |domain: DomainIx, kind: usize| {
            let takes = ground.rooms.takes(domain).0[kind];
            (u128::from(takes) * 1_000_000 / u128::from(room[kind])) as u64
        };
        let groups = company::groups(self.ledger.books(), domains);
        let mut first: Option<NoPlace> = None;
        for only in std::iter::once(None).chain((0..KINDS).map(Some)) {
            if let Some(kind) = only
                && domains.iter().all(|&domain| part(domain, kind) == 0)
            {
                continue;
            }
            let size = |domain: DomainIx| match only {
                Some(kind) => part(domain, kind),
                None => (0..KINDS).map(|kind| part(domain, kind)).max().unwrap_or(0),
            };
            let key = |&domain: &DomainIx| {
                (
                    ground.come_list(domain).len(),
                    Reverse(size(domain)),
                    domain,
                )
            };
            let mut order = groups.clone();
            for group in &mut order {
                group.sort_by_key(key);
            }
            order.sort_by_cached_key(|group| {
                let (fewest, _, first) = key(&group[0]);
                let whole: u64 = group.iter().map(|&domain| size(domain)).sum();
                (fewest, Reverse(whole), first)
            });
            match self.try_all(&order) {
                Ok(placed) => return Ok(placed),
                Err(failed) => first = first.or(Some(failed)),
            }
        }
        first.map_or(Ok(Vec::new()), Err)
    }

    fn try_all(&mut self, order: &[Vec<DomainIx>]) -> Result<Vec<Placed>, NoPlace> {
        let mut placed = Vec::with_capacity(order.len());
        for group in order {
            let more = match group.as_slice() {
                &[domain] => {
                    let takes = self.ledger.ground().rooms.takes(domain);
                    self.place_one(domain, &takes, None).map(|one| vec![one])
                }
                group => self.place_group(group),
            };
            match more {
                Ok(more) => placed.extend(more),
                Err(mut failed) => {
                    self.take_back(&placed);
                    placed.append(&mut failed.beside);
                    failed.beside = placed;
                    return Err(failed);
                }
            }
        }
        Ok(placed)
    }
}

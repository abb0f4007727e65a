//! THR, IQR, MAD and LR with minimum migration time: overloaded hosts give guests away, the least used are emptied.

use super::draft::Draft;
use super::first_fit::Room;
use super::overload::Overload;
use crate::day::{Day, Variant};
use crate::policy::{Move, Policy, View};

/// A peer that moves guests.
#[derive(Debug, Clone, Copy)]
pub struct Consolidate {
    overload: Overload,
}

impl Consolidate {
    /// By its test for overload.
    pub fn new(overload: Overload) -> Self {
        Self { overload }
    }

    /// The host whose power rises least with a guest more, of those that have room, are not excluded, and are not
    /// overloaded then, a host that gives nothing taken untested.
    fn place(&self, draft: &Draft<'_>, guest: usize, excluded: &[bool]) -> Option<usize> {
        let mut best = None;
        let mut least = f64::MAX;
        for (host, &excluded) in excluded.iter().enumerate() {
            if excluded || !draft.suits(guest, host) {
                continue;
            }
            let rise = draft.rise_watts(guest, host);
            if rise < least
                && (draft.gives_nothing(host)
                    || !draft.overloaded(self.overload, host, Some(guest)))
            {
                least = rise;
                best = Some(host);
            }
        }
        best
    }

    /// Guests that must leave overloaded hosts: those with the least memory first, until the host is not overloaded.
    fn taken_from_overloaded(
        &self,
        draft: &mut Draft<'_>,
        view: &View<'_>,
        over: &[usize],
    ) -> Vec<usize> {
        let mut taken = Vec::new();
        for &host in over {
            loop {
                let least = draft.hosts[host]
                    .on
                    .iter()
                    .copied()
                    .min_by_key(|&guest| view.day.guests[guest].memory_mb);
                let Some(guest) = least else { break };
                taken.push(guest);
                draft.take(guest, host);
                if !draft.overloaded(self.overload, host, None) {
                    break;
                }
            }
        }
        taken
    }

    /// Empties the least used hosts onto others that are on, one after another, each wholly or not at all.
    fn empty_the_least_used(
        &self,
        draft: &mut Draft<'_>,
        view: &View<'_>,
        over: &[usize],
    ) -> Vec<Move> {
        let mut moves = Vec::new();
        let mut not_emptied: Vec<bool> = (0..draft.hosts.len())
            .map(|host| draft.load_now(host) == 0.0)
            .collect();
        for &host in over {
            not_emptied[host] = true;
        }
        let mut no_target = not_emptied.clone();
        loop {
            let mut least = 1.0;
            let mut found = None;
            for (host, &kept) in not_emptied.iter().enumerate() {
                let load = draft.load_now(host);
                if !kept && load > 0.0 && load < least && !draft.hosts[host].on.is_empty() {
                    least = load;
                    found = Some(host);
                }
            }
            let Some(host) = found else { break };
            not_emptied[host] = true;
            no_target[host] = true;
            let mut guests = draft.hosts[host].on.clone();
            by_decreasing_load(&mut guests, view);
            let mut placed: Vec<Move> = Vec::new();
            for guest in guests {
                if let Some(to) = self.place(draft, guest, &no_target) {
                    draft.bring(guest, to);
                    placed.push(Move { guest, to });
                } else {
                    for go in placed.drain(..) {
                        draft.take(go.guest, go.to);
                    }
                    break;
                }
            }
            for go in &placed {
                not_emptied[go.to] = true;
            }
            moves.extend(placed);
        }
        moves
    }
}

fn by_decreasing_load(guests: &mut [usize], view: &View<'_>) {
    guests.sort_by(|&one, &other| view.asked_mips[other].total_cmp(&view.asked_mips[one]));
}

impl Policy for Consolidate {
    fn name(&self) -> String {
        self.overload.name()
    }

    /// Each in order to the host whose power rises least. CloudSim takes what a host draws before as that of no load, for
    /// all of them, since no load was seen yet: so empty hosts come first, and guests spread over all. Its test for overload
    /// sees nothing asked by guests that came before, and therefore never bites here.
    fn start(&mut self, day: &Day, _: Variant) -> Option<Vec<usize>> {
        let mut rooms: Vec<Room> = (0..day.hosts.len())
            .map(|host| Room::of(day, host))
            .collect();
        day.guests
            .iter()
            .map(|guest| {
                let mut best = None;
                let mut least = f64::MAX;
                for (host, room) in rooms.iter().enumerate() {
                    if !room.holds(guest.mips, guest.memory_mb) {
                        continue;
                    }
                    let kind = day.kind(host);
                    let load = (kind.mips() - room.mips + guest.mips) / kind.mips();
                    let rise = kind.watts_at(load) - kind.watts_at(0.0);
                    if rise < least {
                        least = rise;
                        best = Some(host);
                    }
                }
                let host = best?;
                rooms[host].take(guest.mips, guest.memory_mb);
                Some(host)
            })
            .collect()
    }

    fn moves(&mut self, view: &View<'_>) -> Vec<Move> {
        let mut draft = Draft::of(view);
        let over: Vec<usize> = (0..draft.hosts.len())
            .filter(|&host| draft.overloaded(self.overload, host, None))
            .collect();
        let mut taken = self.taken_from_overloaded(&mut draft, view, &over);
        by_decreasing_load(&mut taken, view);
        let mut excluded = vec![false; draft.hosts.len()];
        for &host in &over {
            excluded[host] = true;
        }
        let mut moves = Vec::new();
        for guest in taken {
            if let Some(to) = self.place(&draft, guest, &excluded) {
                draft.bring(guest, to);
                moves.push(Move { guest, to });
            }
        }
        moves.extend(self.empty_the_least_used(&mut draft, view, &over));
        moves
    }
}

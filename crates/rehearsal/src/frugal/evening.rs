//! Guests that are quiet now and are not on average go from full hosts to empty ones: the cheapest time to move a busy guest is
//! when it is not busy.

use super::Tuning;
use super::desk::{Desk, Desks};

/// Hosts whose guests ask less than this share of them on average are left alone.
const FULL: f64 = 0.7;

/// Chooses such moves.
pub fn even_out(desks: &mut Desks<'_>, tuning: &Tuning) {
    for _ in 0..tuning.evening_moves {
        let Some((guest, from, to)) = next(desks, tuning) else {
            return;
        };
        desks.go(guest, from, to);
    }
}

/// The move between the fullest and the emptiest host that brings them nearest to each other.
fn next(desks: &Desks<'_>, tuning: &Tuning) -> Option<(usize, usize, usize)> {
    let share = |desk: &Desk| desk.mean / desk.mips;
    let on = || (0..desks.hosts.len()).filter(|&host| !desks.hosts[host].on.is_empty());
    let by_share = |one: &usize, other: &usize| {
        share(&desks.hosts[*one]).total_cmp(&share(&desks.hosts[*other]))
    };
    let from = on().max_by(by_share)?;
    let to = on()
        .filter(|&host| !desks.hosts[host].sends)
        .min_by(by_share)?;
    let (full, empty) = (&desks.hosts[from], &desks.hosts[to]);
    let distance = share(full) - share(empty);
    if distance < tuning.uneven || share(full) < FULL {
        return None;
    }
    let half = distance / 2.0 * full.mips;
    let fits = |guest: &usize| {
        let known = desks.known(*guest);
        !desks.moved[*guest]
            && known.now <= known.mean * tuning.quiet
            && (half * 0.2..=half * 1.5).contains(&known.mean)
            && desks.holds(to, *guest, tuning.fill)
    };
    let miss = |guest: usize| (desks.known(guest).mean - half).abs();
    let guest = full
        .on
        .iter()
        .copied()
        .filter(fits)
        .min_by(|&one, &other| miss(one).total_cmp(&miss(other)))?;
    Some((guest, from, to))
}

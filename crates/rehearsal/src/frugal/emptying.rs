//! Hosts whose guests have room elsewhere are emptied, when it is time.

use super::Tuning;
use super::desk::Desks;
use crate::outlook::Guest;
use crate::policy::Move;

/// Hosts in a row that could not be emptied, after which no more are tried.
const TRIES: u32 = 40;

/// Chooses moves that empty hosts. `waited` are the ticks in which some host could have been emptied and was not; gives their number
/// after this one.
pub fn empty(desks: &mut Desks<'_>, tuning: &Tuning, waited: u32) -> u32 {
    let view = desks.view;
    let order = by_worth(desks);
    let idle_watts = |host: usize| view.day.kind(host).watts_at(0.0);
    let watts: f64 = order.iter().map(|&host| idle_watts(host)).sum();
    let could = what_could_be_emptied(desks, tuning, &order);
    let saved: f64 = could.iter().map(|(host, _)| idle_watts(*host)).sum();
    let ticks_a_day = 86_400.0 / view.day.sample_s;
    let at_stake = saved / (watts - saved).max(1.0) / ticks_a_day;
    let mut left = 0;
    for (host, moves) in could {
        let desk = &desks.hosts[host];
        let restless = desk.error.sqrt() / desk.mean.max(1.0);
        let patience = (tuning.patience * restless).max(1.0);
        let harm = |load: fn(&Guest) -> f64| -> f64 {
            let of = |go: &Move| load(desks.known(go.guest)) * view.day.move_s(go.guest);
            moves.iter().map(of).sum()
        };
        let bearable = harm(|known| known.mean) * (f64::from(waited) / patience).powi(2);
        if at_stake > tuning.hurry || harm(|known| known.now) <= bearable {
            for go in moves {
                desks.go(go.guest, host, go.to);
            }
        } else {
            left += 1;
        }
    }
    if left == 0 { 0 } else { waited + 1 }
}

/// Hosts that are on, those that give least for what they draw first, and of equal ones those whose guests are least busy.
fn by_worth(desks: &Desks<'_>) -> Vec<usize> {
    let view = desks.view;
    let worth = |host: usize| {
        let desk = &desks.hosts[host];
        let kind = view.day.kind(host);
        let used = if view.variant.kept {
            let memory = desk
                .on
                .iter()
                .map(|&guest| view.day.guests[guest].memory_mb);
            f64::from(memory.sum::<u32>()) / f64::from(desk.memory_mb)
        } else {
            desk.now.max(desk.next) / desk.mips
        };
        (used * kind.mips() / kind.watts_at(1.0), desk.mean)
    };
    let mut order: Vec<(usize, (f64, f64))> = (0..desks.hosts.len())
        .filter(|&host| !desks.hosts[host].on.is_empty() && !desks.hosts[host].sends)
        .map(|host| (host, worth(host)))
        .collect();
    order.sort_by(|(_, one), (_, other)| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
    order.into_iter().map(|(host, _)| host).collect()
}

/// All that could be emptied one after another, with the moves for it.
fn what_could_be_emptied(
    desks: &Desks<'_>,
    tuning: &Tuning,
    order: &[usize],
) -> Vec<(usize, Vec<Move>)> {
    let mut trial = desks.clone();
    trial.moves.clear();
    let mut could = Vec::new();
    let mut failed = 0;
    for &host in order {
        if failed > TRIES {
            break;
        }
        if trial.hosts[host].receives > 0 {
            continue;
        }
        if !try_one(&mut trial, tuning, host) {
            failed += 1;
            continue;
        }
        if trial.filled() > tuning.total {
            break;
        }
        could.push((host, std::mem::take(&mut trial.moves)));
        failed = 0;
    }
    could
}

/// Moves all guests of a host to the fullest others that hold them, the largest first, or none.
fn try_one(trial: &mut Desks<'_>, tuning: &Tuning, host: usize) -> bool {
    let view = trial.view;
    let mut guests = trial.hosts[host].on.clone();
    let size = |guest: usize| {
        if view.variant.kept {
            f64::from(view.day.guests[guest].memory_mb)
        } else {
            let known = trial.known(guest);
            known.now.max(known.next)
        }
    };
    guests.sort_by(|&one, &other| size(other).total_cmp(&size(one)));
    for guest in guests {
        let to = trial.best(guest, host, tuning.fill, false);
        let Some(to) = to.filter(|_| !trial.moved[guest]) else {
            trial.take_back(host);
            return false;
        };
        trial.go(guest, host, to);
    }
    true
}

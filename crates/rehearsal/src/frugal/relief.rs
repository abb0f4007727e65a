//! Overloaded hosts send away what they must.

use super::Tuning;
use super::desk::{Desk, Desks};

/// One or two guests that are enough by themselves.
#[derive(Debug, Clone, Copy)]
struct Choice {
    harm: f64,
    one: usize,
    other: Option<usize>,
}

/// Relieves every host that is asked for more than it has, the worst first.
pub fn relieve(desks: &mut Desks<'_>, tuning: &Tuning) {
    let excess = |desk: &Desk| desk.now - desk.mips;
    let mut over: Vec<usize> = (0..desks.hosts.len())
        .filter(|&host| excess(&desks.hosts[host]) > 0.0)
        .collect();
    over.sort_by(|&one, &other| excess(&desks.hosts[other]).total_cmp(&excess(&desks.hosts[one])));
    for host in over {
        loop {
            let desk = &desks.hosts[host];
            let excess = desk.now - desk.mips * tuning.relieved;
            if excess <= 0.0 || desk.on.len() < 2 || !send_away(desks, tuning, host, excess) {
                break;
            }
        }
    }
}

/// Chooses moves that take off an excess, or part of it; false: there are none.
fn send_away(desks: &mut Desks<'_>, tuning: &Tuning, host: usize, excess: f64) -> bool {
    let mut movable = desks.hosts[host].on.clone();
    movable.retain(|&guest| !desks.moved[guest] && desks.known(guest).now > 0.0);
    let enough = enough(desks, tuning, &movable, excess);
    for fill in [tuning.fill, 1.0] {
        for choice in &enough {
            let Some(to) = desks.best(choice.one, host, fill, true) else {
                continue;
            };
            let Some(other) = choice.other else {
                desks.go(choice.one, host, to);
                return true;
            };
            if desks.best(other, host, fill, true).is_none() {
                continue;
            }
            desks.go(choice.one, host, to);
            // The room that was there may be what the first has taken.
            if let Some(to) = desks.best(other, host, 1.0, true) {
                desks.go(other, host, to);
            }
            return true;
        }
    }
    let day = desks.view.day;
    let rate = |guest: usize| desks.known(guest).now / day.move_s(guest);
    movable.sort_by(|&one, &other| rate(other).total_cmp(&rate(one)));
    for &guest in &movable {
        if let Some(to) = desks.best(guest, host, 1.0, true) {
            desks.go(guest, host, to);
            return true;
        }
    }
    // A host is switched on for it only where the shortage is expected to last.
    let desk = &desks.hosts[host];
    let lasts = desk.next > desk.mips || desks.filled() > tuning.high;
    let first = movable.first().filter(|_| lasts).copied();
    match first.and_then(|guest| Some((guest, desks.fresh(guest)?))) {
        Some((guest, to)) => {
            desks.go(guest, host, to);
            true
        }
        None => false,
    }
}

/// All single guests and pairs that take off an excess, the least harm first: what they ask while they move, and for how long the two
/// hosts are short, which is the time once more.
fn enough(desks: &Desks<'_>, tuning: &Tuning, movable: &[usize], excess: f64) -> Vec<Choice> {
    let day = desks.view.day;
    let asked = |guest: usize| desks.known(guest).now;
    let harm = |guest: usize| asked(guest) * day.move_s(guest).powi(2) + excess * tuning.each;
    let mut choices = Vec::new();
    for (place, &one) in movable.iter().enumerate() {
        if asked(one) >= excess {
            choices.push(Choice {
                harm: harm(one),
                one,
                other: None,
            });
            continue;
        }
        for &other in &movable[place + 1..] {
            if asked(other) < excess && asked(one) + asked(other) >= excess {
                choices.push(Choice {
                    harm: harm(one) + harm(other),
                    one,
                    other: Some(other),
                });
            }
        }
    }
    choices.sort_by(|one, other| one.harm.total_cmp(&other.harm));
    choices
}

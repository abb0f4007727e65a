//! A placement made to keep the rules: who is where he may not be, or where there is too much, leaves at the least cost.

use super::placing::Placing;

/// Whether every rule holds in the end.
pub fn repair(placing: &mut Placing) -> bool {
    let hosts = placing.problem.rooms.len() as u32;
    for vertex in 0..placing.hosts().len() as u32 {
        if !placing
            .problem
            .may(vertex, placing.hosts()[vertex as usize])
            && !leave(placing, vertex)
        {
            return false;
        }
    }
    for host in 0..hosts {
        // Each round takes something off; a swap takes off at least one unit of something, so a bound is needed.
        let mut rounds = 4 * placing.members(host).len() + 4;
        while placing.is_over(host) || placing.has_clash(host) {
            rounds -= 1;
            if rounds == 0 || !relieve(placing, host) {
                return false;
            }
        }
    }
    placing.keeps_rules()
}

/// The cheapest host with room for a vertex, and what it costs more there.
fn cheapest(placing: &Placing, vertex: u32) -> Option<(i64, u32)> {
    let hosts = placing.problem.rooms.len() as u32;
    let mut best: Option<(i64, u32)> = None;
    for to in 0..hosts {
        if to != placing.hosts()[vertex as usize] && placing.admits(vertex, to) {
            let loss = -placing.gain(vertex, to);
            if best.is_none_or(|(least, _)| loss < least) {
                best = Some((loss, to));
            }
        }
    }
    best
}

fn leave(placing: &mut Placing, vertex: u32) -> bool {
    if let Some((_, to)) = cheapest(placing, vertex) {
        placing.put(vertex, to);
        return true;
    }
    let hosts = placing.problem.rooms.len() as u32;
    for to in 0..hosts {
        for other in placing.members(to).to_vec() {
            if placing.admits_for(vertex, to, other)
                && placing.admits_for(other, placing.hosts()[vertex as usize], vertex)
            {
                let from = placing.hosts()[vertex as usize];
                placing.put(vertex, to);
                placing.put(other, from);
                return true;
            }
        }
    }
    false
}

/// One move away from a host, or a swap that leaves less on it.
fn relieve(placing: &mut Placing, host: u32) -> bool {
    let members = placing.members(host).to_vec();
    let mut best: Option<(i64, u32, u32)> = None;
    for &member in members
        .iter()
        .filter(|&&member| placing.is_over_by(host, member))
    {
        if let Some((loss, to)) = cheapest(placing, member)
            && best.is_none_or(|(least, ..)| loss < least)
        {
            best = Some((loss, member, to));
        }
    }
    if let Some((_, member, to)) = best {
        placing.put(member, to);
        return true;
    }
    let hosts = placing.problem.rooms.len() as u32;
    let mut best: Option<(i64, u32, u32)> = None;
    for &member in &members {
        for to in (0..hosts).filter(|&to| to != host) {
            for &other in placing.members(to) {
                if !placing.relieves(member, other) || !placing.admits_for(member, to, other) {
                    continue;
                }
                let loss = -placing.gain(member, to) - placing.gain(other, host);
                if best.is_none_or(|(least, ..)| loss < least) {
                    best = Some((loss, member, other));
                }
            }
        }
    }
    let Some((_, member, other)) = best else {
        return false;
    };
    let to = placing.hosts()[other as usize];
    placing.put(member, to);
    placing.put(other, host);
    true
}

//! The first placement of many guests at once, each by what it may ask at the most.

use crate::day::Day;
use crate::peers::Room;

/// The largest memory first, then the fastest; each on the fullest host (by memory, then speed) that has room for all that it
/// may ask; a host that is opened for it is the one that draws least when idle. None: there is no room.
pub fn pack(day: &Day) -> Option<Vec<usize>> {
    let mut rooms: Vec<Room> = (0..day.hosts.len())
        .map(|host| Room::of(day, host))
        .collect();
    let mut opened = vec![false; rooms.len()];
    let mut order: Vec<usize> = (0..day.guests.len()).collect();
    order.sort_by(|&one, &other| {
        let (one, other) = (&day.guests[one], &day.guests[other]);
        other
            .memory_mb
            .cmp(&one.memory_mb)
            .then(other.mips.total_cmp(&one.mips))
    });
    let mut places = vec![0; day.guests.len()];
    for guest in order {
        let asks = &day.guests[guest];
        let fits = |host: &usize| rooms[*host].holds(asks.mips, asks.memory_mb);
        let fullest = (0..rooms.len())
            .filter(|&host| opened[host])
            .filter(fits)
            .min_by(|&one, &other| {
                rooms[one]
                    .memory_mb
                    .cmp(&rooms[other].memory_mb)
                    .then(rooms[one].mips.total_cmp(&rooms[other].mips))
            });
        let idle = |host: usize| day.kind(host).watts_at(0.0);
        let host = fullest.or_else(|| {
            (0..rooms.len())
                .filter(|&host| !opened[host])
                .filter(fits)
                .min_by(|&one, &other| idle(one).total_cmp(&idle(other)))
        })?;
        rooms[host].take(asks.mips, asks.memory_mb);
        opened[host] = true;
        places[guest] = host;
    }
    Some(places)
}

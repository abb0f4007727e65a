//! The energy below which no placement comes: what the loads of a day cost if they could be cut up at will.
//!
//! At each moment: over all numbers of hosts of each kind that together have the MIPS asked (and, where memory is enforced,
//! room for the memory of all guests: a host that holds one is on, though the energy account lets it draw nothing while none of
//! its guests asks anything), the least power with the loads spread over them at best, each kind's
//! power curve replaced by its lower convex hull. A step between two moments costs the mean of both, the first one nothing, as in
//! the energy account. But for that leniency of the account no policy can come below it, and hardly any can reach it: guests cannot be cut, loads are not known
//! before, and moves take time.

use crate::day::{Day, Variant};

/// The floor in kWh.
pub fn floor_kwh(day: &Day, variant: Variant) -> f64 {
    let mut gone = vec![false; day.guests.len()];
    let mut joules = 0.0;
    let mut before: Option<(f64, f64)> = None;
    for time_s in day.ticks_s() {
        let mut asked = 0.0;
        let mut there = Vec::new();
        for (guest, gone) in day.guests.iter().zip(&mut gone) {
            let load = guest.load_at(time_s, day.sample_s);
            if !variant.kept && load == 0.0 {
                *gone = true;
            }
            if !*gone {
                asked += load * guest.mips;
                there.push(guest.memory_mb);
            }
        }
        let least = if variant.kept {
            hosts_for_memory(day, &there)
        } else {
            0
        };
        let watts = least_watts(day, asked, least);
        if let Some((then_s, then_watts)) = before {
            joules += (then_watts + watts) / 2.0 * (time_s - then_s);
        }
        before = Some((time_s, watts));
    }
    joules / 3_600_000.0
}

/// A number of hosts that the memory of guests needs at least: by sum, and, for each size above a share of a host, by how many
/// of that size or more fit on one (counting a guest of twice the size twice).
fn hosts_for_memory(day: &Day, guests_mb: &[u32]) -> usize {
    let host_mb = day
        .kinds
        .iter()
        .map(|kind| kind.memory_mb)
        .max()
        .unwrap_or(0)
        .max(1);
    let sum: u64 = guests_mb.iter().map(|&mb| u64::from(mb)).sum();
    let mut least = sum.div_ceil(u64::from(host_mb));
    let mut sizes = guests_mb.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes.into_iter().filter(|&size| size > 0) {
        // A guest counts as many units as whole sizes go into it; a host holds as many units as go into it.
        let units: u64 = guests_mb.iter().map(|&mb| u64::from(mb / size)).sum();
        least = least.max(units.div_ceil(u64::from((host_mb / size).max(1))));
    }
    usize::try_from(least).unwrap_or(usize::MAX)
}

/// The least power of at least so many hosts that together give so many MIPS.
fn least_watts(day: &Day, asked: f64, hosts: usize) -> f64 {
    if asked <= 0.0 {
        return 0.0;
    }
    let there: Vec<usize> = (0..day.kinds.len())
        .map(|kind| day.hosts.iter().filter(|&&of| of == kind).count())
        .collect();
    let hulls: Vec<Vec<(f64, f64)>> = day.kinds.iter().map(|kind| hull(&kind.watts)).collect();
    let mut best = f64::MAX;
    let mut numbers = vec![0; there.len()];
    try_numbers(
        day,
        asked,
        hosts,
        &there,
        &hulls,
        0,
        &mut numbers,
        &mut best,
    );
    best
}

/// All numbers of all kinds but the last; of the last the fewest that do.
#[allow(clippy::too_many_arguments)]
fn try_numbers(
    day: &Day,
    asked: f64,
    hosts: usize,
    there: &[usize],
    hulls: &[Vec<(f64, f64)>],
    kind: usize,
    numbers: &mut [usize],
    best: &mut f64,
) {
    let given: f64 = (0..kind)
        .map(|kind| numbers[kind] as f64 * day.kinds[kind].mips())
        .sum();
    let so_far: usize = numbers[..kind].iter().sum();
    if kind + 1 == there.len() {
        let for_mips = ((asked - given) / day.kinds[kind].mips()).ceil().max(0.0) as usize;
        let number = for_mips.max(hosts.saturating_sub(so_far));
        if number <= there[kind] {
            numbers[kind] = number;
            *best = best.min(spread_watts(day, asked, numbers, hulls));
        }
        return;
    }
    for number in 0..=there[kind] {
        numbers[kind] = number;
        try_numbers(day, asked, hosts, there, hulls, kind + 1, numbers, best);
    }
}

/// What so many hosts of each kind draw with a load spread at best: the flattest pieces of the curves are filled first.
fn spread_watts(day: &Day, asked: f64, numbers: &[usize], hulls: &[Vec<(f64, f64)>]) -> f64 {
    let mut pieces: Vec<(f64, f64)> = Vec::new();
    let mut watts = 0.0;
    for (kind, hull) in hulls.iter().enumerate() {
        let number = numbers[kind] as f64;
        let mips = day.kinds[kind].mips();
        watts += hull[0].1 * number;
        for piece in hull.windows(2) {
            let width = (piece[1].0 - piece[0].0) * mips;
            pieces.push(((piece[1].1 - piece[0].1) / width, width * number));
        }
    }
    pieces.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut left = asked;
    for (slope, width) in pieces {
        let part = left.min(width);
        watts += part * slope;
        left -= part;
    }
    watts
}

/// Lower convex hull of a power curve: loads and watts.
fn hull(watts: &[f64]) -> Vec<(f64, f64)> {
    let steps = (watts.len() - 1) as f64;
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for (place, &watt) in watts.iter().enumerate() {
        let point = (place as f64 / steps, watt);
        while let [.., before, last] = hull.as_slice() {
            let rises = (last.1 - before.1) * (point.0 - before.0);
            if rises < (point.1 - before.1) * (last.0 - before.0) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hull_leaves_out_what_bulges_upwards() {
        assert_eq!(hull(&[10.0, 14.0, 16.0]), [(0.0, 10.0), (1.0, 16.0)]);
        assert_eq!(
            hull(&[10.0, 12.0, 16.0]),
            [(0.0, 10.0), (0.5, 12.0), (1.0, 16.0)]
        );
    }

    #[test]
    fn memory_is_counted_by_units_where_the_sum_says_less() {
        let day = Day::planetlab(&[("a".into(), vec![1])], 2);
        // Five of 1740: two on each host of 4096, though their sum would go on 2.1 hosts.
        assert_eq!(hosts_for_memory(&day, &[1740; 5]), 3);
        // Units of 870: 2 × 3 + 3 = 9, four on each host.
        assert_eq!(
            hosts_for_memory(&day, &[1740, 1740, 1740, 870, 870, 870]),
            3
        );
    }

    #[test]
    fn little_asked_goes_on_the_host_that_draws_least_for_it() {
        let day = Day::planetlab(&[("a".into(), vec![1])], 2);
        // 372 MIPS: a tenth of the small one is 89.1 on its chord, on the large one 96.0.
        assert!((least_watts(&day, 372.0, 0) - 89.1).abs() < 0.01);
        // The large one full.
        assert!((least_watts(&day, 5320.0, 0) - 135.0).abs() < 1e-9);
        assert_eq!(least_watts(&day, 0.0, 0), 0.0);
    }
}

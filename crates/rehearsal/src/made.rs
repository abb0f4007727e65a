//! Days made from a seed, for tests and for trying a policy on what it was not tuned on.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Loads in whole percents that look like those of small servers: each guest has a level of its own, most of them low; it goes
/// to and fro about it, wakes up for some samples, and now and then asks nothing. All follow the hour a little.
pub fn made_traces(seed: u64, guests: usize, samples: usize) -> Vec<(String, Vec<u8>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chance = move || (f64::from(rng.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
    (0..guests)
        .map(|guest| {
            let level = (-chance().ln() * 10.0).min(60.0);
            let restless = 1.0 + chance() * level * 0.6;
            let wakes = chance() * 0.03;
            let sleeps = chance() * 0.01;
            let (mut off, mut awake, mut asleep) = (0.0, 0_u32, 0_u32);
            let mut burst = 0.0;
            let loads = (0..samples).map(|sample| {
                let day = sample as f64 / samples.max(1) as f64 * std::f64::consts::TAU;
                // The sum of three is near enough to a bell.
                let bell = chance() + chance() + chance() - 1.5;
                off = off * 0.75 + bell * restless;
                if awake == 0 && chance() < wakes {
                    awake = 1 + (chance() * 8.0) as u32;
                    burst = chance() * 70.0;
                }
                if asleep == 0 && chance() < sleeps {
                    asleep = 2 + (chance() * 12.0) as u32;
                }
                let mut load = level * (1.0 + 0.2 * day.sin()) + off;
                if awake > 0 {
                    awake -= 1;
                    load += burst;
                }
                if asleep > 0 {
                    asleep -= 1;
                    load = 0.0;
                }
                load.round().clamp(0.0, 100.0) as u8
            });
            (format!("made-{guest:04}"), loads.collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_day_and_another_another() {
        let day = made_traces(7, 40, 48);
        assert_eq!(day, made_traces(7, 40, 48));
        assert_ne!(day, made_traces(8, 40, 48));
        let all: Vec<u8> = day.iter().flat_map(|(_, loads)| loads.clone()).collect();
        assert!(all.contains(&0) && all.iter().any(|&load| load > 50));
    }
}

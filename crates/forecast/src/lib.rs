//! What domains will use: trend and season of their windows, held against the past, and left out where "as now" was as
//! good.
//!
//! No I/O, no clock, no chance: the same windows give the same forecast. The models are those of the library `augurs`:
//! exponential smoothing chosen by AICc (Hyndman et al., "A State Space Framework for Automatic Forecasting Using
//! Exponential Smoothing Methods", 2002), and seasons taken out by LOESS (Bandara et al., "MSTL", 2021).

mod model;
mod past;

use estive_world::{Domain, DomainIx, DomainLife, Indexed, USED, Used, UsedKind, World};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use model::Method;
pub use past::Held;

/// What is expected of one kind of use of one domain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Which domain.
    pub domain: DomainIx,
    /// What of it.
    pub kind: UsedKind,
    /// How it was foreseen; [`Method::AsNow`] where nothing was better.
    pub method: Method,
    /// The most within the horizon, in the kind's unit.
    pub expected: u64,
    /// How far off it was on the past.
    pub held: Held,
}

/// Forecasts of all domains with windows, over so many seconds; by domain, then by kind. Kinds of which nothing was ever
/// used are left out.
pub fn foresee(world: &World, horizon_s: u64) -> Vec<Foreseen> {
    let Some(shape) = Shape::of(world.window_s, horizon_s) else {
        return Vec::new();
    };
    let all: Vec<Vec<Foreseen>> = (world.domains.par_iter().enumerate())
        .map(|(number, domain)| of_domain(DomainIx::of(number), domain, shape))
        .collect();
    all.into_iter().flatten().collect()
}

/// [`foresee`], and what was foreseen is written into the domains: none where no kind is foreseen better than "as now". A
/// domain without windows keeps the forecast that it came with.
pub fn fill(world: &mut World, horizon_s: u64) -> Vec<Foreseen> {
    let foreseen = foresee(world, horizon_s);
    let observed = (world.domains.iter_mut()).filter(|domain| !domain.windows.is_empty());
    for domain in observed {
        domain.forecast = None;
    }
    for one in foreseen.iter().filter(|one| one.method != Method::AsNow) {
        let domain = &mut world.domains[one.domain];
        let used = domain.used;
        domain.forecast.get_or_insert(used)[one.kind] = one.expected;
    }
    foreseen
}

/// Those that are used, for a plan's report.
pub fn used(foreseen: &[Foreseen]) -> Vec<estive_world::Foreseen> {
    (foreseen.iter())
        .filter(|one| one.method != Method::AsNow)
        .map(|one| estive_world::Foreseen {
            domain: one.domain,
            kind: one.kind,
            method: one.method.words().to_owned(),
            expected: one.expected,
            error: one.held.error,
            as_now: one.held.as_now,
        })
        .collect()
}

/// How far is looked, in windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    horizon: usize,
    /// Windows of a day.
    day: usize,
}

impl Shape {
    /// None where there are no windows or nothing is ahead.
    fn of(window_s: u32, horizon_s: u64) -> Option<Self> {
        if window_s == 0 || horizon_s == 0 {
            return None;
        }
        let window_s = u64::from(window_s);
        Some(Self {
            horizon: usize::try_from(horizon_s.div_ceil(window_s))
                .ok()?
                .min(past::LONGEST),
            day: usize::try_from(86_400 / window_s).ok()?,
        })
    }
}

fn of_domain(number: DomainIx, domain: &Domain, shape: Shape) -> Vec<Foreseen> {
    if domain.life == DomainLife::Stopped || domain.windows.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for kind in USED {
        let series: Vec<f64> = (domain.windows.iter())
            .map(|window| window.used[kind] as f64)
            .collect();
        if series.iter().all(|&value| value == 0.0) {
            continue;
        }
        let (method, held) = past::best(&series, shape);
        let expected = match method {
            Method::AsNow => domain.used[kind],
            method => whole(
                model::most(method, &series, shape),
                &series,
                domain.used[kind],
            ),
        };
        all.push(Foreseen {
            domain: number,
            kind,
            method,
            expected,
            held,
        });
    }
    all
}

/// A forecast as a whole number. A model that runs away is held to twice what was ever seen.
fn whole(most: Option<f64>, series: &[f64], now: u64) -> u64 {
    let seen = series.iter().copied().fold(0.0, f64::max);
    match most.filter(|most| most.is_finite()) {
        Some(most) => most.clamp(0.0, 2.0 * seen).ceil() as u64,
        None => now,
    }
}

/// What is used, kind by kind, of what was foreseen for one domain.
pub fn expected(foreseen: &[Foreseen], domain: DomainIx) -> Used {
    let mut used = Used::NONE;
    for one in foreseen.iter().filter(|one| one.domain == domain) {
        used[one.kind] = one.expected;
    }
    used
}

#[cfg(test)]
mod tests {
    use estive_world::Window;

    use super::*;

    fn world(series: impl Iterator<Item = u64>) -> World {
        let windows: Vec<Window> = series
            .map(|micro| Window {
                used: Used([micro, 0, 0, 0]),
            })
            .collect();
        let domain = Domain {
            used: windows.last().map_or(Used::NONE, |last| last.used),
            windows,
            ..Domain::named("d")
        };
        World {
            window_s: 3600,
            domains: vec![domain],
            ..World::default()
        }
    }

    #[test]
    fn a_trend_goes_on() {
        let mut world = world((0..60).map(|hour| 100_000 + hour * 5000));
        let foreseen = fill(&mut world, 4 * 3600);
        assert_eq!(foreseen.len(), 1);
        assert_eq!(foreseen[0].method, Method::Trend);
        assert!(foreseen[0].held.error < foreseen[0].held.as_now / 4.0);
        let expected = world.domains[0].forecast.unwrap()[UsedKind::CpuMicrocores];
        assert!((410_000..=420_000).contains(&expected), "{expected}");
    }

    #[test]
    fn a_day_comes_again() {
        // Idle at night, busy from 9 to 17; it is 6 in the morning after ten days.
        let hour = |hour: u64| {
            if (9..17).contains(&(hour % 24)) {
                900_000
            } else {
                50_000
            }
        };
        let mut world = world((0..246).map(hour));
        let foreseen = fill(&mut world, 6 * 3600);
        assert_eq!(foreseen[0].method, Method::Season);
        let expected = world.domains[0].forecast.unwrap()[UsedKind::CpuMicrocores];
        assert!((800_000..=1_000_000).contains(&expected), "{expected}");
    }

    #[test]
    fn what_never_changes_is_as_now() {
        let mut world = world((0..60).map(|_| 300_000));
        let foreseen = fill(&mut world, 3600);
        assert_eq!(foreseen[0].method, Method::AsNow);
        assert_eq!(world.domains[0].forecast, None);
    }

    #[test]
    fn with_too_short_a_past_nothing_is_foreseen() {
        let mut world = world((0..7).map(|hour| hour * 100_000));
        assert_eq!(fill(&mut world, 3600)[0].method, Method::AsNow);
        world.window_s = 0;
        assert_eq!(fill(&mut world, 3600), []);
    }

    #[test]
    fn a_forecast_that_came_with_a_domain_is_kept_where_nothing_was_observed() {
        let mut world = world((0..60).map(|_| 300_000));
        let said = Some(Used([900_000, 0, 0, 0]));
        world.domains[0].forecast = said;
        world.domains.push(Domain {
            forecast: said,
            ..Domain::named("e")
        });
        let foreseen = fill(&mut world, 3600);
        assert_eq!(world.domains[0].forecast, None);
        assert_eq!(world.domains[1].forecast, said);
        assert_eq!(used(&foreseen), []);
    }
}

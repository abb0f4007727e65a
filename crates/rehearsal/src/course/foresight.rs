//! What domains will use, foreseen anew every hour of a course from the windows that it has seen until then.

use estive_forecast::{Foreseen, Method, foresee};
use estive_world::{Used, UsedKind, World};
use serde::{Deserialize, Serialize};

/// Seconds between two looks: models are fitted to every domain's past, which takes a thousand times as long as a step.
const EVERY_S: u64 = 3600;

/// What was foreseen in a course.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Foresight {
    /// Forecasts looked at: one for each kind of use of each domain that was ever seen to use some, each hour.
    pub looked_at: u64,
    /// Those that were nearer than "as now" on the past, and were used.
    pub used: u64,
    /// Sum over those that were used of how far off they were on the past, as a share of what "as now" was off.
    pub error_sum: f64,
}

impl Foresight {
    /// How far off those that were used were on the past, as a share of what "as now" was off; none: none was used.
    pub fn error(&self) -> Option<f64> {
        (self.used > 0).then(|| self.error_sum / self.used as f64)
    }
}

/// Forecasts, in the units of windows: processor time on common cores.
#[derive(Debug, Default)]
pub(super) struct Foreseer {
    next_s: u64,
    /// By domain; nothing of a kind is as good as none, since what is used now counts beside it.
    expected: Vec<Option<Used>>,
    sum: Foresight,
}

impl Foreseer {
    /// Looks again if it is time; the world's windows are those of common cores.
    pub fn look(&mut self, world: &World, horizon_s: u32) {
        let is_time = world.at_s >= self.next_s;
        if horizon_s == 0 || !is_time || world.window_s == 0 {
            return;
        }
        self.next_s = world.at_s + EVERY_S;
        let foreseen = foresee(world, u64::from(horizon_s));
        self.expected = vec![None; world.domains.len()];
        for one in &foreseen {
            self.count(one);
            if one.method != Method::AsNow {
                let expected = &mut self.expected[one.domain.0 as usize];
                expected.get_or_insert(Used::NONE)[one.kind] = one.expected;
            }
        }
    }

    fn count(&mut self, one: &Foreseen) {
        self.sum.looked_at += 1;
        if one.method != Method::AsNow && one.held.as_now > 0.0 {
            self.sum.used += 1;
            self.sum.error_sum += one.held.error / one.held.as_now;
        }
    }

    /// A domain's forecast on cores of a speed, in thousandths; none: as now.
    pub fn of(&self, place: usize, speed_milli: u32) -> Option<Used> {
        let mut used = (*self.expected.get(place)?)?;
        let micro = &mut used[UsedKind::CpuMicrocores];
        *micro = super::engine::scaled(*micro, 1000, speed_milli);
        Some(used)
    }

    /// What it came to.
    pub fn close(&self) -> Option<Foresight> {
        (self.sum.looked_at > 0).then_some(self.sum)
    }
}

//! What each guest is expected to ask next, learnt from what it asked, and how wrong that was.

use crate::policy::View;

/// How slowly a guest's mean forgets: its newest sample weighs at least this much.
const MEAN_WEIGHT: f64 = 1.0 / 36.0;
/// How slowly its error forgets.
const ERROR_WEIGHT: f64 = 1.0 / 24.0;

/// What is known of one guest, in MIPS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guest {
    /// What it asks now.
    pub now: f64,
    /// What it asks on average.
    pub mean: f64,
    /// What it will ask at the next tick.
    pub next: f64,
    /// Mean square of what that was wrong by.
    pub error: f64,
    seen: u32,
}

/// What is known of all.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// Each guest.
    pub guests: Vec<Guest>,
    /// How much of its distance from the mean a guest keeps until the next tick, over all guests: sums of products and of
    /// squares of distances, as shares of speed.
    kept: f64,
    squares: f64,
}

impl Default for Outlook {
    fn default() -> Self {
        Self {
            guests: Vec::new(),
            // Two thirds, until a few hundred distances were seen.
            kept: 2.0,
            squares: 3.0,
        }
    }
}

impl Outlook {
    /// Takes in a moment.
    pub fn see(&mut self, view: &View<'_>) {
        if self.guests.is_empty() {
            self.first(view);
            return;
        }
        for (place, known) in self.guests.iter_mut().enumerate() {
            if view.gone[place] {
                *known = Guest::default();
                continue;
            }
            let now = view.asked_mips[place];
            let speed = view.day.guests[place].mips;
            if known.seen > 1 {
                let (was, is) = (known.now - known.mean, now - known.mean);
                self.kept += was * is / (speed * speed);
                self.squares += was * was / (speed * speed);
            }
            let wrong = now - known.next;
            known.seen += 1;
            let seen = f64::from(known.seen);
            known.mean += (now - known.mean) * MEAN_WEIGHT.max(1.0 / seen);
            known.error += (wrong * wrong - known.error) * ERROR_WEIGHT.max(1.0 / (seen + 1.0));
            known.now = now;
        }
        let keeps = (self.kept / self.squares).clamp(0.0, 1.0);
        for known in &mut self.guests {
            known.next = known.mean + keeps * (known.now - known.mean);
        }
    }

    /// Nothing but one sample is known: a guest will be between it and the mean of all.
    fn first(&mut self, view: &View<'_>) {
        let loads: Vec<f64> = view
            .asked_mips
            .iter()
            .zip(&view.day.guests)
            .map(|(asked, guest)| asked / guest.mips)
            .collect();
        let count = loads.len().max(1) as f64;
        let mean = loads.iter().sum::<f64>() / count;
        let spread = loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>() / count;
        self.guests = loads
            .iter()
            .zip(&view.day.guests)
            .map(|(load, guest)| Guest {
                now: load * guest.mips,
                mean: (load + mean) / 2.0 * guest.mips,
                next: (load * 0.8 + mean * 0.2) * guest.mips,
                error: spread * 0.25 * guest.mips * guest.mips,
                seen: 1,
            })
            .collect();
    }
}

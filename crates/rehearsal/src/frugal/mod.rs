//! Our policy: few hosts, well filled, and few moves.
//!
//! - **Prediction.** Each guest's next load is learnt ([`crate::outlook`]); hosts are filled by what is asked now and what will be.
//! - **Relief** ([`relief`]). A host that gives less than is asked sends away what it must and no more, to the emptiest host that
//!   is on.
//! - **Emptying** ([`emptying`]). A host whose guests have room elsewhere is emptied at once when much energy is at stake; else it
//!   waits for its guests to be quiet, the longer the more they go up and down. A move's harm is what the guest asks while it moves.
//! - **Evening** ([`evening`]). Guests that are busy on average and quiet now move from full hosts to empty ones.
//! - Memory counts on both hosts of a move wherever the variant enforces it.

mod desk;
mod emptying;
mod evening;
mod relief;

use crate::day::{Day, Variant};
use crate::outlook::Outlook;
use crate::policy::{Move, Policy, View};
use desk::Desks;

/// What is set by hand. Found on one day of PlanetLab (sorted traces); shares are of a host's processors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Up to which relief and emptying fill a host.
    pub fill: f64,
    /// Down to which an overloaded host is relieved.
    pub relieved: f64,
    /// The share of all hosts that are on which may be asked after one is emptied.
    pub total: f64,
    /// The share of all hosts that are on above which relief switches one on.
    pub high: f64,
    /// What any move harms beside its own, in seconds × the excess that it is to take off: few moves rather than many.
    pub each: f64,
    /// Ticks that a host waits to be emptied, times how restless its guests are (relative error of their sum).
    pub patience: f64,
    /// Energy that one tick of waiting costs, in a day's worth, above which nothing is waited for.
    pub hurry: f64,
    /// By how much the mean load of a host may be above another's before quiet guests move between them.
    pub uneven: f64,
    /// What a guest may ask then, as a share of its mean.
    pub quiet: f64,
    /// Moves of that kind in one tick at the most.
    pub evening_moves: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            fill: 0.98,
            relieved: 0.985,
            total: 0.907,
            high: 0.93,
            each: 5.0,
            patience: 12.0,
            hurry: 0.01,
            uneven: 0.05,
            quiet: 0.3,
            evening_moves: 4,
        }
    }
}

/// The policy.
#[derive(Debug, Clone, Default)]
pub struct Frugal {
    tuning: Tuning,
    outlook: Outlook,
    /// For how many ticks some host could have been emptied and was not.
    waited: u32,
}

impl Frugal {
    /// With other settings.
    pub fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            ..Self::default()
        }
    }
}

impl Policy for Frugal {
    fn name(&self) -> String {
        "estive".to_owned()
    }

    /// All guests are known together ([`crate::start`]).
    fn start(&mut self, day: &Day, _: Variant) -> Option<Vec<usize>> {
        crate::start::pack(day)
    }

    fn moves(&mut self, view: &View<'_>) -> Vec<Move> {
        self.outlook.see(view);
        let mut desks = Desks::of(view, &self.outlook);
        relief::relieve(&mut desks, &self.tuning);
        self.waited = emptying::empty(&mut desks, &self.tuning, self.waited);
        evening::even_out(&mut desks, &self.tuning);
        desks.moves
    }
}

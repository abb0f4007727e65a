//! The policies of CloudSim 3.0.3's power examples, written anew from the description of what they do, so that a replay can
//! be checked against their published figures and ours can be held against theirs.

mod consolidate;
mod draft;
mod first_fit;
mod overload;

pub use consolidate::Consolidate;
pub use first_fit::FirstFit;
pub(crate) use first_fit::Room;
pub use overload::Overload;

use crate::policy::Policy;

/// All peers by name, in the order of the tables.
pub fn peers() -> Vec<(&'static str, Box<dyn Policy>)> {
    let consolidate = |overload| -> Box<dyn Policy> { Box::new(Consolidate::new(overload)) };
    vec![
        ("NPA", Box::new(FirstFit::all_at_full_power())),
        ("DVFS", Box::new(FirstFit::by_load())),
        ("THR-MMT-0.8", consolidate(Overload::Threshold(0.8))),
        ("IQR-MMT-1.5", consolidate(Overload::InterQuartile(1.5))),
        ("MAD-MMT-2.5", consolidate(Overload::MedianDeviation(2.5))),
        ("LR-MMT-1.2", consolidate(Overload::LocalRegression(1.2))),
    ]
}

/// The peer of that name.
pub fn peer(name: &str) -> Option<Box<dyn Policy>> {
    peers()
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, policy)| policy)
}

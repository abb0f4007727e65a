//! The linter: what could go wrong with a plan in a world, whatever order its steps really take.
//!
//! A plan only says what comes after what; an executor may run the rest side by side, each step as fast or as slow as it
//! happens to be. The states that can be met are the *down-sets* of an order over two events for each step, its begin and
//! its end. There may be exponentially many, but each rule is about one place (a host, a link, a group on a host), and what
//! is there is a sum over events that bring something (a begin) and events that take it away (an end). Its largest value
//! over all down-sets is a maximum closure, found by one flow ([`closure`]). So no state is left out, and none is made up:
//! the linter says exactly what an enumeration of all states says, in polynomial time.
//!
//! What is broken before the plan is no fault of it, as long as no state is worse than the start. Relations of kind *together* and what only makes sense of a whole (a host may fail) are held against the
//! end.

mod capacity;
mod chains;
mod closure;
mod fault;
mod limits;
mod order;
pub(crate) mod places;
mod power;
mod relations;
mod spare;
#[cfg(test)]
mod twin;

use estive_world::{Indexed, Plan, Step, StepIx, World};

use crate::Rooms;
use chains::Passage;
pub use fault::Fault;
use order::Ancestors;
pub(crate) use relations::place as place_of;

/// All faults of a plan, those of its form first: if there are any, what depends on them is not looked at. Cost: O(s²/64)
/// word operations for s steps to find what comes before what, and for each place where it is not plain that all is well a
/// flow over the steps there.
pub fn lint(world: &World, plan: &Plan) -> Vec<Fault> {
    let mut faults = Vec::new();
    let Some(passages) = chains::passages(world, &plan.steps, &mut faults) else {
        return faults;
    };
    let lint = Lint {
        world,
        steps: &plan.steps,
        rooms: Rooms::new(world),
        passages: passages.of_steps,
    };
    chains::in_order(&lint, &mut faults);
    places::check(&lint, &mut faults);
    power::check(&lint, &mut faults);
    if !faults.is_empty() {
        return faults;
    }
    capacity::check(&lint, &mut faults);
    limits::check(&lint, &mut faults);
    relations::check(&lint, &passages.end, &mut faults);
    spare::check(&lint, &passages.end, &mut faults);
    faults
}

/// What every check looks at.
struct Lint<'a> {
    world: &'a World,
    steps: &'a [Step],
    rooms: Rooms,
    passages: Vec<Option<Passage>>,
}

impl Lint<'_> {
    /// What of each group of steps comes before what of it. Groups name steps by number, the smallest first.
    fn ancestors(&self, groups: &[Vec<usize>]) -> Vec<Ancestors> {
        order::ancestors(self.steps, groups)
    }
}

/// Steps by number, as a plan names them.
fn named(steps: impl IntoIterator<Item = usize>) -> Vec<StepIx> {
    steps.into_iter().map(StepIx::of).collect()
}

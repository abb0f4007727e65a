//! Who decides in a course.

use estive_planner::{Goal, Question, Thresholds, Watch, plan, relieve, sequence};
use estive_world::{Indexed, Step, World};

/// Somebody who is shown a world and says what to do.
pub trait Mind {
    /// Its name in tables.
    fn name(&self) -> String;

    /// What to do now. What is under way stands in the world's operations and goes on.
    ///
    /// # Errors
    /// In words, why there is no answer.
    fn steps(&mut self, world: &World) -> Result<Vec<Step>, String>;
}

/// Does nothing: what the others are compared with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Mind for Nothing {
    fn name(&self) -> String {
        "nothing".to_owned()
    }

    fn steps(&mut self, _: &World) -> Result<Vec<Step>, String> {
        Ok(Vec::new())
    }
}

/// The planner, asked the same question each time, by the same call as `estive plan`.
#[derive(Debug, Clone)]
pub struct Plans {
    /// What it is asked.
    pub question: Question,
}

impl Mind for Plans {
    fn name(&self) -> String {
        "plan".to_owned()
    }

    fn steps(&mut self, world: &World) -> Result<Vec<Step>, String> {
        // What there is no way for is looked at again at the next asking.
        plan(world, &self.question).map(|plan| plan.steps)
    }
}

/// The built-in policy: hot hosts are relieved, and who visits a host that has little to do goes home.
#[derive(Debug, Clone, Default)]
pub struct Relieves {
    /// When it acts.
    pub thresholds: Thresholds,
    /// What it saw so far.
    pub watch: Watch,
}

impl Mind for Relieves {
    fn name(&self) -> String {
        "relieve".to_owned()
    }

    fn steps(&mut self, world: &World) -> Result<Vec<Step>, String> {
        self.watch.see(world, &self.thresholds);
        let decision = relieve(world, &self.thresholds, &self.watch);
        let mut goal = Goal::now(world);
        goal.pivots = false;
        for relief in decision.moves() {
            goal.hosts[relief.domain.at()] = Some(relief.to);
        }
        // What there is no room for on the way is decided anew at the next asking.
        let steps = sequence(world, &goal).unwrap_or_else(|stuck| stuck.steps);
        for _ in &steps {
            self.watch.moved(world.at_s);
        }
        Ok(steps)
    }
}

//! Who decides in a course.

use estive_planner::{Goal, Question, Term, sequence, target};
use estive_world::{HostIx, HostPower, Indexed, Step, World};

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

/// The planner, asked the same question each time: a target, and the safe way to it. Where the question is about energy or cost, hosts that are
/// empty at the target are switched off on the way.
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
        let target = target(world, &self.question)?;
        let place = |host: HostIx| (host.at() < world.hosts.len()).then_some(host);
        let hosts = target.spots.iter().map(|spot| place(spot.host)).collect();
        let mut goal = Goal::of(world, hosts);
        goal.replicas = target
            .spots
            .iter()
            .map(|spot| place(spot.replica))
            .collect();
        if self.switches() {
            goal.off = left_empty(world, &goal);
        }
        // What there is no way for is looked at again at the next asking.
        Ok(sequence(world, &goal).unwrap_or_else(|stuck| stuck.steps))
    }
}

impl Plans {
    fn switches(&self) -> bool {
        let mut terms = self.question.objective.ranks.iter().flatten();
        terms.any(|weighted| matches!(weighted.term, Term::Consolidate { .. } | Term::Cost))
    }
}

/// Hosts that are on, and hold nothing at a goal, and to which nothing is under way.
fn left_empty(world: &World, goal: &Goal) -> Vec<HostIx> {
    let mut used = vec![false; world.hosts.len()];
    let homes = world.domains.iter().map(|domain| domain.host);
    for (now, then) in homes.zip(&goal.hosts) {
        // A domain without a goal stays where it is.
        if let Some(host) = then.or(now) {
            used[host.at()] = true;
        }
    }
    for operation in &world.operations {
        used[operation.to.at()] = true;
        if let Some(host) = world.domains[operation.domain].host {
            used[host.at()] = true;
        }
    }
    for replica in world.domains.iter().filter_map(|domain| domain.replica) {
        used[replica.at()] = true;
    }
    for replica in goal.replicas.iter().flatten() {
        used[replica.at()] = true;
    }
    (0..world.hosts.len())
        .map(HostIx::of)
        .filter(|&host| !used[host.at()] && world.hosts[host].state == HostPower::On)
        .collect()
}

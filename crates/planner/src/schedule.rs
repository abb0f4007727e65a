//! Which steps of a plan may begin now: those whose predecessors have ended, within the limits of moves at once.

use std::collections::BTreeMap;

use estive_world::{Act, HostIx, Indexed, PlanFile, Step};

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun.
    Waits,
    /// It has begun.
    Runs,
    /// It ended well.
    Done,
    /// It ended otherwise.
    Failed,
}

/// A plan that is being carried out.
#[derive(Debug)]
pub struct Schedule<'f> {
    file: &'f PlanFile,
    stages: Vec<Stage>,
    of_host: BTreeMap<HostIx, u32>,
    of_link: BTreeMap<(u32, u32), u32>,
    /// The first step that may still wait.
    first: usize,
    is_over: bool,
}

impl<'f> Schedule<'f> {
    /// Nothing has begun.
    pub fn new(file: &'f PlanFile) -> Self {
        Self {
            file,
            stages: vec![Stage::Waits; file.plan.steps.len()],
            of_host: BTreeMap::new(),
            of_link: BTreeMap::new(),
            first: 0,
            is_over: false,
        }
    }

    /// Where each step stands.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Begins the first step that may begin: its number, from 0. None: something must end first, or all is over.
    pub fn begin(&mut self) -> Option<usize> {
        if self.is_over {
            return None;
        }
        while self
            .stages
            .get(self.first)
            .is_some_and(|stage| *stage != Stage::Waits)
        {
            self.first += 1;
        }
        let found = (self.first..self.stages.len()).find(|&number| self.may_begin(number))?;
        self.stages[found] = Stage::Runs;
        self.count(found, 1);
        Some(found)
    }

    /// A step that ran has ended. After one that failed nothing begins any more.
    ///
    /// # Panics
    /// If it did not run.
    pub fn ended(&mut self, number: usize, is_well: bool) {
        assert_eq!(
            self.stages[number],
            Stage::Runs,
            "step {number} did not run"
        );
        self.stages[number] = if is_well { Stage::Done } else { Stage::Failed };
        self.is_over |= !is_well;
        self.count(number, -1);
    }

    /// Nothing begins any more.
    pub fn stop(&mut self) {
        self.is_over = true;
    }

    fn may_begin(&self, number: usize) -> bool {
        let step = &self.file.plan.steps[number];
        self.stages[number] == Stage::Waits
            && (step.after.iter()).all(|other| self.stages[other.at()] == Stage::Done)
            && self.has_room(step)
    }

    /// A limit of none would let a plan stand still for ever: one move at once is always allowed.
    fn has_room(&self, step: &Step) -> bool {
        let Some((from, to)) = ends(step) else {
            return true;
        };
        let hosts = [from, to].into_iter().flatten();
        let of_host = |host: HostIx| self.of_host.get(&host).copied().unwrap_or(0);
        let is_free = |host| of_host(host) < self.file.moves_per_host.max(1);
        let of_link = self
            .link(from, to)
            .map_or(0, |link| self.of_link.get(&link).copied().unwrap_or(0));
        hosts.into_iter().all(is_free) && of_link < self.file.moves_per_link.max(1)
    }

    fn link(&self, from: Option<HostIx>, to: Option<HostIx>) -> Option<(u32, u32)> {
        let (one, other) = (self.file.sites[from?.at()], self.file.sites[to?.at()]);
        (one != other).then(|| (one.min(other), one.max(other)))
    }

    fn count(&mut self, number: usize, by: i32) {
        let Some((from, to)) = ends(&self.file.plan.steps[number]) else {
            return;
        };
        let add = |count: &mut u32| *count = count.saturating_add_signed(by);
        for host in [from, to].into_iter().flatten() {
            add(self.of_host.entry(host).or_default());
        }
        if let Some(link) = self.link(from, to) {
            add(self.of_link.entry(link).or_default());
        }
    }
}

/// The hosts that a step keeps busy.
fn ends(step: &Step) -> Option<(Option<HostIx>, Option<HostIx>)> {
    match step.act {
        Act::Move { from, to, .. } | Act::MoveReplica { from, to, .. } => {
            Some((Some(from), Some(to)))
        }
        Act::Place { to, .. } => Some((None, Some(to))),
        Act::SwitchOn { .. } | Act::SwitchOff { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_world::{DomainIx, Figures, Plan, Reason, Report, StepIx, World};

    /// Moves of a domain each, and what each comes after.
    fn file(world: &str, moves: &[(u32, u32, &[u32])]) -> PlanFile {
        let steps = (moves.iter().enumerate())
            .map(|(number, (from, to, after))| Step {
                act: Act::Move {
                    domain: DomainIx::of(number),
                    from: HostIx(*from),
                    to: HostIx(*to),
                    pivot: false,
                },
                after: after.iter().copied().map(StepIx).collect(),
                reason: Reason::Asked {
                    what: String::new(),
                },
                figures: Figures::default(),
            })
            .collect();
        let plan = Plan {
            world: String::new(),
            objective: String::new(),
            seed: 0,
            work: 0,
            steps,
            report: Report::default(),
        };
        PlanFile::new(&World::from_text(world).unwrap(), plan)
    }

    const HOSTS: &str = "rules moves-per-host=1\nhost a\nhost b\nhost c\nhost d";

    #[test]
    fn what_does_not_disturb_runs_side_by_side_and_the_rest_waits() {
        let file = file(
            HOSTS,
            &[(0, 1, &[]), (0, 2, &[]), (2, 3, &[]), (1, 0, &[0])],
        );
        let mut schedule = Schedule::new(&file);
        assert_eq!(schedule.begin(), Some(0));
        assert_eq!(schedule.begin(), Some(2));
        assert_eq!(schedule.begin(), None);
        schedule.ended(2, true);
        // Step 1 needs host a, which step 0 still keeps busy.
        assert_eq!(schedule.begin(), None);
        schedule.ended(0, true);
        assert_eq!(schedule.begin(), Some(1));
        assert_eq!(schedule.begin(), None);
        schedule.ended(1, true);
        assert_eq!(schedule.begin(), Some(3));
        schedule.ended(3, true);
        assert_eq!(schedule.begin(), None);
        assert_eq!(schedule.stages(), [Stage::Done; 4]);
    }

    #[test]
    fn after_a_failure_nothing_begins() {
        let file = file(HOSTS, &[(0, 1, &[]), (2, 3, &[]), (1, 0, &[0])]);
        let mut schedule = Schedule::new(&file);
        assert_eq!((schedule.begin(), schedule.begin()), (Some(0), Some(1)));
        schedule.ended(0, false);
        schedule.ended(1, true);
        assert_eq!(schedule.begin(), None);
        assert_eq!(
            schedule.stages(),
            [Stage::Failed, Stage::Done, Stage::Waits]
        );
    }

    #[test]
    fn a_link_between_sites_has_its_own_limit() {
        let world = "rules moves-per-host=9 moves-per-link=1\nsite p\nsite q\nhost a\nhost b site=q\nhost c\n";
        let file = file(world, &[(0, 1, &[]), (2, 1, &[]), (0, 2, &[])]);
        let mut schedule = Schedule::new(&file);
        assert_eq!(schedule.begin(), Some(0));
        assert_eq!(schedule.begin(), Some(2));
        assert_eq!(schedule.begin(), None);
        schedule.ended(0, true);
        assert_eq!(schedule.begin(), Some(1));
    }
}

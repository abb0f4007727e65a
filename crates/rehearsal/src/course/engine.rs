//! The events of a course, in the order of their times.

use std::collections::BTreeMap;

use estive_world::{HostIx, HostPower, Indexed, UsedKind, Window, World};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::account::Account;
use super::foresight::Foreseer;
use super::steps::{Running, Turn};
use super::{Course, CourseError, HAPPENINGS_AT_MOST, Happening, Mind, Setting, Trace};

/// Seconds between looks at owners' hours and hosts' ends where there is no trace.
const LOOK_S: u32 = 300;
/// Windows of a domain that are remembered, where the world came with fewer.
const WINDOWS: usize = 288;
/// The hour of the week, counted from Monday, in which 1970 began: a Thursday.
const FIRST_HOUR: u64 = 72;

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A row of the trace; owners come and go.
    Sample,
    /// The mind is asked.
    Ask,
    /// Something under way ends.
    Ends(u64),
    /// A host fails.
    Fails(HostIx),
    /// It is back.
    Mended(HostIx),
}

pub(super) struct Engine<'a> {
    pub world: World,
    trace: Option<&'a Trace>,
    pub setting: &'a Setting,
    pub account: Account,
    rng: ChaCha8Rng,
    queue: BTreeMap<(u64, u64), Event>,
    numbered: u64,
    pub now_ms: u64,
    begin_s: u64,
    /// What each domain does in a second, in microcores of a common core.
    work: Vec<u64>,
    /// Steps of the last plan.
    pub turns: Vec<Turn>,
    /// Which plan they are of.
    pub plan: u64,
    pub running: BTreeMap<u64, Running>,
    /// How many were begun: the last one's number.
    pub begun: u64,
    happenings: Vec<Happening>,
    foreseer: Foreseer,
}

impl<'a> Engine<'a> {
    pub fn new(world: &World, trace: Option<&'a Trace>, setting: &'a Setting) -> Self {
        let mut engine = Self {
            world: world.clone(),
            trace,
            setting,
            account: Account::default(),
            rng: ChaCha8Rng::seed_from_u64(setting.seed),
            queue: BTreeMap::new(),
            numbered: 0,
            now_ms: 0,
            begin_s: world.at_s,
            work: Vec::new(),
            turns: Vec::new(),
            plan: 0,
            running: BTreeMap::new(),
            begun: 0,
            happenings: Vec::new(),
            foreseer: Foreseer::default(),
        };
        engine.take_windows_over();
        engine.work = (0..world.domains.len())
            .map(|domain| engine.work_of(domain))
            .collect();
        engine.account.recount(&engine.world);
        engine
    }

    /// Runs it.
    pub fn run(mut self, mind: &mut dyn Mind) -> Result<Course, CourseError> {
        let end_ms = u64::from(self.setting.length_s) * 1000;
        let mut periods = Vec::new();
        self.at(0, Event::Sample);
        self.at(0, Event::Ask);
        for host in 0..self.world.hosts.len() {
            self.next_fault(HostIx::of(host));
        }
        while let Some((&(time_ms, number), &event)) = self.queue.first_key_value() {
            if time_ms >= end_ms {
                break;
            }
            self.queue.remove(&(time_ms, number));
            self.pass_until(time_ms);
            match event {
                Event::Sample => self.sample(),
                Event::Ask => {
                    periods.push(self.account.period(&self.world, self.now_s()));
                    self.ask(mind)?;
                }
                Event::Ends(number) => self.ends(number),
                Event::Fails(host) => self.fails(host),
                Event::Mended(host) => {
                    self.world.hosts[host].state = HostPower::On;
                    let name = self.world.hosts[host].name.clone();
                    self.tell(format!("host {name} is back"));
                    self.account.recount(&self.world);
                    self.next_fault(host);
                }
            }
            self.begin_what_may();
        }
        self.pass_until(end_ms);
        periods.push(self.account.period(&self.world, self.now_s()));
        let length_s = f64::from(self.setting.length_s);
        Ok(Course {
            policy: mind.name(),
            figures: self.account.close(length_s),
            foresight: self.foreseer.close(),
            periods,
            happenings: self.happenings,
        })
    }

    /// Puts an event into the queue, so many milliseconds from now.
    pub fn at(&mut self, after_ms: u64, event: Event) {
        self.numbered += 1;
        self.queue
            .insert((self.now_ms + after_ms, self.numbered), event);
    }

    /// Seconds from the begin.
    pub fn now_s(&self) -> f64 {
        self.now_ms as f64 / 1000.0
    }

    /// Says what happened.
    pub fn tell(&mut self, what: String) {
        if self.happenings.len() < HAPPENINGS_AT_MOST {
            let at_s = self.now_s();
            self.happenings.push(Happening { at_s, what });
        }
    }

    /// A chance of so many in a thousand.
    pub fn chance(&mut self, milli: u32) -> bool {
        milli > 0 && self.rng.next_u32() % 1000 < milli
    }

    fn pass_until(&mut self, time_ms: u64) {
        if time_ms > self.now_ms {
            let length_s = (time_ms - self.now_ms) as f64 / 1000.0;
            self.account.pass(&self.world, self.world.at_s, length_s);
            self.now_ms = time_ms;
            self.world.at_s = self.begin_s + time_ms / 1000;
        }
    }

    fn sample(&mut self) {
        let step_s = self.trace.map_or(LOOK_S, |trace| trace.step_s);
        if let Some(trace) = self.trace.filter(|trace| !trace.rows.is_empty()) {
            let at = self.now_ms / 1000 / u64::from(trace.step_s);
            let row = &trace.rows[at as usize % trace.rows.len()];
            for (place, used) in row.iter().enumerate() {
                let domain = &mut self.world.domains[place];
                domain.used = *used;
                self.work[place] = used[UsedKind::CpuMicrocores];
                domain.windows.push(Window { used: *used });
                if domain.windows.len() > WINDOWS {
                    domain.windows.remove(0);
                }
                self.settle(place);
            }
            self.world.window_s = trace.step_s;
        }
        let hour = (self.world.at_s / 3600 + FIRST_HOUR) % 168;
        for place in 0..self.world.hosts.len() {
            let host = &mut self.world.hosts[place];
            if let Some(owner) = &host.owner {
                let there = owner.hours.iter().any(|&of| u64::from(of) == hour);
                if there != host.owner_present {
                    host.owner_present = there;
                    let name = host.name.clone();
                    let word = if there { "sits down at" } else { "leaves" };
                    self.tell(format!("its owner {word} {name}"));
                }
            }
            let host = &mut self.world.hosts[place];
            let over = host.until_s.is_some_and(|until| until <= self.world.at_s);
            if over && host.state == HostPower::On {
                host.state = HostPower::Unknown;
                let name = host.name.clone();
                self.tell(format!("host {name} is taken away: its time is over"));
                self.break_off(HostIx::of(place));
            }
        }
        self.account.recount(&self.world);
        self.at(u64::from(step_s) * 1000, Event::Sample);
    }

    /// Windows that the world came with become those of common cores, as the trace's are; of another length than the trace's
    /// steps they are no beginning of its series.
    fn take_windows_over(&mut self) {
        let other_length = (self.trace).is_some_and(|trace| trace.step_s != self.world.window_s);
        for place in 0..self.world.domains.len() {
            let speed = self.speed(place);
            let windows = &mut self.world.domains[place].windows;
            if other_length {
                windows.clear();
            }
            for window in windows {
                let micro = &mut window.used[UsedKind::CpuMicrocores];
                *micro = scaled(*micro, speed, 1000);
            }
        }
    }

    /// What domains with windows will use, where that was foreseen better than "as now".
    fn foresee(&mut self) {
        if self.setting.horizon_s == 0 {
            return;
        }
        self.foreseer.look(&self.world, self.setting.horizon_s);
        for place in 0..self.world.domains.len() {
            if !self.world.domains[place].windows.is_empty() {
                self.world.domains[place].forecast = self.foreseer.of(place, self.speed(place));
            }
        }
    }

    fn ask(&mut self, mind: &mut dyn Mind) -> Result<(), CourseError> {
        self.foresee();
        let steps = mind
            .steps(&self.world)
            .map_err(|because| CourseError::Mind {
                policy: mind.name(),
                at_s: self.now_s(),
                because,
            })?;
        self.account.figures.plans += 1;
        self.account.figures.plans_of_nothing += u64::from(steps.is_empty());
        self.plan += 1;
        self.turns = steps.into_iter().map(Turn::new).collect();
        self.at(u64::from(self.setting.period_s) * 1000, Event::Ask);
        Ok(())
    }

    fn fails(&mut self, host: HostIx) {
        if self.world.hosts[host].state != HostPower::On {
            self.next_fault(host);
            return;
        }
        self.account.figures.faults += 1;
        self.world.hosts[host].state = HostPower::Unknown;
        let there = self.account.domains[host.at()];
        let name = self.world.hosts[host].name.clone();
        self.tell(format!("host {name} fails with {there} domains"));
        self.break_off(host);
        self.account.recount(&self.world);
        let repair_s = u64::from(self.setting.faults.repair_s.max(1));
        self.at(repair_s * 1000, Event::Mended(host));
    }

    /// The next time that a host fails: such times have no memory.
    fn next_fault(&mut self, host: HostIx) {
        let rate = self.setting.faults.host_fails_per_1000_h;
        if rate <= 0.0 {
            return;
        }
        // Between 0 and 1, neither of them.
        let chance = (f64::from(self.rng.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
        let hours = -chance.ln() * 1000.0 / rate;
        let after_ms = (hours * 3_600_000.0).min(1e15) as u64;
        self.at(after_ms, Event::Fails(host));
    }

    /// What a domain does, from what it uses where it is.
    fn work_of(&self, place: usize) -> u64 {
        let domain = &self.world.domains[place];
        scaled(
            domain.used[UsedKind::CpuMicrocores],
            self.speed(place),
            1000,
        )
    }

    /// What a domain uses where it is, from what it does: the same work takes longer on a slow core.
    pub fn settle(&mut self, place: usize) {
        let speed = self.speed(place);
        self.world.domains[place].used[UsedKind::CpuMicrocores] =
            scaled(self.work[place], 1000, speed);
    }

    fn speed(&self, place: usize) -> u32 {
        let host = self.world.domains[place].host;
        host.map_or(1000, |host| self.world.hosts[host].core_speed_milli.max(1))
    }
}

pub(super) fn scaled(value: u64, times: u32, over: u32) -> u64 {
    let value = u128::from(value) * u128::from(times) / u128::from(over.max(1));
    u64::try_from(value).unwrap_or(u64::MAX)
}

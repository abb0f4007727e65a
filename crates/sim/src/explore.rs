//! Every world that can be reached, breadth first.
//!
//! The network is a *set*: whatever was sent may come at any time, any number of times, in any order, or never. That is
//! loss, delay and duplication at once. Worlds are kept as five small numbers (the parts are interned), so that some
//! millions of them fit in memory.
//!
//! `tests/explore.rs` explores 14 million worlds and 122 million transitions in all, in some 50 s of two cores; the
//! largest single one 2.8 million. Run by hand: three moves in a row, 12.9 million worlds and 129 million
//! transitions; one move with three crashes of the source's agent, two of the destination's and two deaths of
//! instances, 3.5 million and 28 million. Beyond these bounds walk the random walks (`tests/faults.rs`).
//!
//! **What is assumed**: an agent handles one input at a time and does its effects in order, and a crash drops those
//! left; `Persist` is done or not done; a kill ends the instance for certain; what an agent sees is true at that moment
//! or "unclear"; `StartPostCopy` halts the processors for good whatever becomes of the stream, and post-copy is switched
//! to only while the stream is connected; an instance whose connected stream breaks ends by itself; an agent that found
//! its instance unclear looks again until it is clear; agents repeat a commit until it is answered, and take silence to
//! "are you ready" for "no"; no agent is driven past the manager, and the store grants one move or start after the
//! other, each with a new number; the storage grants each before its order is sent. `Define` comes to a domain that the manager has read, at some moment, not to be
//! running on its owner. `Forget` is not explored.
//!
//! Liveness is shown constructively: from every world reached, with every message on its way lost, the fair driver
//! ([`crate::Run`]) must come to rest with the domain held once by the owner that the store names, and the next move
//! must succeed. That is more than "a good world can be reached": the agents and the manager reach it by themselves.

use crate::rest::Run;
use crate::world::{Action, Broken, HostState, ManagerState, Message, Rules, Violation, World};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What may happen at most, so that there is an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Generations granted beyond the first.
    pub grants: u64,
    /// Deaths of agent A, of agent B.
    pub crashes: [u8; 2],
    /// Deaths of instances (other than by a failed stream).
    pub deaths: u8,
    /// Moves are ordered.
    pub moves: bool,
    /// Moves that allow post-copy are ordered too.
    pub post_copy: bool,
    /// Starts and stops are ordered too.
    pub starts: bool,
    /// One that is stopped is made anew too.
    pub defines: bool,
    /// Its memory is saved, restored and dropped too.
    pub saves: bool,
    /// Moves are given up by people too.
    pub give_up: bool,
    /// An instance may be impossible to ask whenever an agent looks.
    pub unclear: bool,
    /// An agent may look anew at any time, not only after a restart.
    pub looks: bool,
    /// The moment of the switch, processors halted and stream not complete, is a state of its own.
    pub switching: bool,
    /// Liveness, (v) and (vi), is checked too.
    pub liveness: bool,
    /// Only this rule is checked: a trace to the disaster itself, not to the first wrong step.
    pub only: Option<Broken>,
    /// Stop there: a bound against running out of memory, never reached in the tests.
    pub states_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            grants: 1,
            crashes: [1, 1],
            deaths: 1,
            moves: true,
            post_copy: false,
            starts: false,
            defines: false,
            saves: false,
            give_up: true,
            unclear: false,
            looks: false,
            switching: true,
            liveness: true,
            only: None,
            states_max: 8_000_000,
        }
    }
}

/// How a world was reached in which something is broken.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What.
    pub violation: Violation,
    /// Each step in words, and the world after it.
    pub steps: Vec<(String, World)>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "BROKEN {:?}: {}",
            self.violation.broken, self.violation.words
        )?;
        let mut before = String::new();
        for (number, (words, world)) in self.steps.iter().enumerate() {
            writeln!(f, "{number:4}. {words}")?;
            let now = world.to_string();
            for line in now
                .lines()
                .filter(|line| !before.lines().any(|old| old == *line))
            {
                writeln!(f, "{line}")?;
            }
            before = now;
        }
        Ok(())
    }
}

/// What an exploration found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Different worlds.
    pub states: usize,
    /// Things that happened, whether they led to a new world or not.
    pub transitions: usize,
    /// Worlds, without what is on its way, from which the fair driver was run.
    pub rested: usize,
    /// Steps to the farthest world.
    pub depth: usize,
    /// Different messages.
    pub messages: usize,
    /// A shortest way to something broken.
    pub broken: Option<Trace>,
    /// Whether the bound on states was met.
    pub cut: bool,
}

/// FxHash (Firefox, rustc): fast, and nothing hostile comes here.
#[derive(Default)]
struct Quick(u64);

impl Quick {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        // The table looks at the high bits and the low ones.
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.add(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.add(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }
    fn write_u128(&mut self, n: u128) {
        self.add(n as u64);
        self.add((n >> 64) as u64);
    }
    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }
    fn write_isize(&mut self, n: isize) {
        self.add(n as u64);
    }
}

type QuickHash = BuildHasherDefault<Quick>;

struct Parts<T> {
    numbers: HashMap<T, u32, QuickHash>,
    parts: Vec<T>,
}

impl<T: Clone + Eq + Hash> Parts<T> {
    fn new() -> Self {
        Self {
            numbers: HashMap::default(),
            parts: Vec::new(),
        }
    }

    fn number(&mut self, part: &T) -> u32 {
        if let Some(number) = self.numbers.get(part) {
            return *number;
        }
        let number = self.parts.len() as u32;
        self.parts.push(part.clone());
        self.numbers.insert(part.clone(), number);
        number
    }
}

/// A world in 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Small {
    net: [u64; 2],
    hosts: [u32; 2],
    manager: u32,
    rest: u32,
}

struct Interned {
    hosts: Parts<HostState>,
    managers: Parts<ManagerState>,
    messages: Parts<Message>,
}

impl Interned {
    fn small(&mut self, world: &World, net: [u64; 2]) -> Small {
        let link = world.link.map_or(0, |host| 1 + host as u32);
        Small {
            net,
            hosts: [
                self.hosts.number(&world.hosts[0]),
                self.hosts.number(&world.hosts[1]),
            ],
            manager: self.managers.number(&world.manager),
            rest: link
                | u32::from(world.excused) << 2
                // Generations are few: five bits.
                | (world.fenced.0 as u32) << 3
                | u32::from(world.crashes_left[0]) << 8
                | u32::from(world.crashes_left[1]) << 16
                | u32::from(world.deaths_left) << 24,
        }
    }

    fn world(&self, small: &Small) -> World {
        World {
            hosts: small.hosts.map(|number| self.hosts.parts[number as usize]),
            manager: self.managers.parts[small.manager as usize].clone(),
            link: match small.rest & 3 {
                0 => None,
                1 => Some(crate::Host::A),
                _ => Some(crate::Host::B),
            },
            excused: small.rest & 4 != 0,
            fenced: estive_model::Generation(u64::from(small.rest >> 3 & 31)),
            crashes_left: [(small.rest >> 8) as u8, (small.rest >> 16) as u8],
            deaths_left: (small.rest >> 24) as u8,
        }
    }

    fn net(&self, net: [u64; 2], out: &mut Vec<Message>) {
        out.clear();
        for (word, bits) in net.into_iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                out.push(self.messages.parts[word * 64 + bits.trailing_zeros() as usize]);
                bits &= bits - 1;
            }
        }
    }

    fn known(&self, mut net: [u64; 2], sent: &[Message]) -> [u64; 2] {
        for number in sent
            .iter()
            .filter_map(|message| self.messages.numbers.get(message))
        {
            net[*number as usize / 64] |= 1 << (number % 64);
        }
        net
    }

    fn sent(&mut self, mut net: [u64; 2], sent: &[Message]) -> [u64; 2] {
        for message in sent {
            let number = self.messages.number(message) as usize;
            assert!(
                number < 128,
                "more than 128 different messages: lower the bounds"
            );
            net[number / 64] |= 1 << (number % 64);
        }
        net
    }
}

/// Explores every world that can be reached from `start` under `rules` within `bounds`; stops at the first one in
/// which something is broken.
pub fn explore(start: &World, rules: &Rules, bounds: &Bounds) -> Report {
    let mut parts = Interned {
        hosts: Parts::new(),
        managers: Parts::new(),
        messages: Parts::new(),
    };
    let mut seen: HashSet<Small, QuickHash> = HashSet::default();
    let mut all: Vec<(Small, u32)> = Vec::new();
    let mut rested: HashSet<(u32, u32, u32, u32), QuickHash> = HashSet::default();
    let first = parts.small(start, [0; 2]);
    seen.insert(first);
    all.push((first, 0));
    let (mut actions, mut net, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let mut report = Report {
        states: 0,
        transitions: 0,
        rested: 0,
        depth: 0,
        messages: 0,
        broken: None,
        cut: false,
    };
    let counts = |violation: &Violation| bounds.only.is_none_or(|only| only == violation.broken);
    let (mut at, mut level_end) = (0, 1);
    'all: while at < all.len() {
        if at == level_end {
            level_end = all.len();
            report.depth += 1;
        }
        let (small, _) = all[at];
        let world = parts.world(&small);
        if bounds.liveness
            && rested.insert((
                small.hosts[0],
                small.hosts[1],
                small.manager,
                small.rest & 0xff,
            ))
            && let Err(violation) = comes_to_rest(&world, rules, bounds)
            && counts(&violation)
        {
            report.broken = Some(trace(&all, &parts, at, None, rules, bounds, violation));
            break;
        }
        parts.net(small.net, &mut net);
        world.enabled(&net, bounds, rules, &mut actions);
        for action in &actions {
            report.transitions += 1;
            let mut next = world.clone();
            sent.clear();
            let done = next.apply_granting(*action, rules, &mut sent);
            let wrong = [done, next.check()]
                .into_iter()
                .filter_map(Result::err)
                .find(&counts);
            if let Some(violation) = wrong {
                let last = Some((*action, next));
                report.broken = Some(trace(&all, &parts, at, last, rules, bounds, violation));
                break 'all;
            }
            let net = parts.sent(small.net, &sent);
            let next = parts.small(&next, net);
            if seen.insert(next) {
                all.push((next, at as u32));
            }
        }
        at += 1;
        if all.len() > bounds.states_max {
            report.cut = true;
            break;
        }
    }
    report.states = all.len();
    report.rested = rested.len();
    report.messages = parts.messages.parts.len();
    report
}

/// (v) and (vi), from here with every message on its way lost.
fn comes_to_rest(world: &World, rules: &Rules, bounds: &Bounds) -> Result<(), Violation> {
    let rests = |words: bool| {
        let mut run = Run::new(world.clone(), *rules);
        run.looks = bounds.unclear;
        run.names = words.then(Vec::new);
        let rests = run
            .settle()
            .and_then(|()| run.at_rest())
            .and_then(|()| run.next_move());
        (rests, run.names.unwrap_or_default())
    };
    let (rested, _) = rests(false);
    rested.map_err(|violation| {
        let (_, names) = rests(true);
        let steps: Vec<String> = names
            .iter()
            .map(|step| format!("      {}: {}", step.process, step.name))
            .collect();
        Violation {
            words: format!(
                "{}\n   after the steps below, left alone, with all messages lost:\n{}",
                violation.words,
                steps.join("\n")
            ),
            ..violation
        }
    })
}

fn trace(
    all: &[(Small, u32)],
    parts: &Interned,
    at: usize,
    last: Option<(Action, World)>,
    rules: &Rules,
    bounds: &Bounds,
    violation: Violation,
) -> Trace {
    let mut path = vec![at];
    while let Some(&here) = path.last()
        && here != 0
    {
        path.push(all[here].1 as usize);
    }
    path.reverse();
    let mut steps = vec![("at first".to_owned(), parts.world(&all[0].0))];
    let (mut net, mut actions, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for pair in path.windows(2) {
        let (from, to) = (&all[pair[0]].0, &all[pair[1]].0);
        let (world, reached) = (parts.world(from), parts.world(to));
        parts.net(from.net, &mut net);
        world.enabled(&net, bounds, rules, &mut actions);
        let found = actions.iter().find(|action| {
            let mut next = world.clone();
            sent.clear();
            // Only the rule asked for stops an exploration: others may be broken on the way.
            let _ = next.apply_granting(**action, rules, &mut sent);
            next == reached && parts.known(from.net, &sent) == to.net
        });
        if let Some(action) = found {
            steps.push((action.words(&world, rules), reached));
        }
    }
    if let Some((action, next)) = last {
        let world = parts.world(&all[at].0);
        steps.push((action.words(&world, rules), next));
    }
    Trace { violation, steps }
}

//! The steps of a plan, carried out: what may begin begins, within the limits of moves at once; what it waits for and never
//! comes is dropped with all that waits for it.

use estive_planner::transfer;
use estive_world::{Act, DomainIx, Figures, HostIx, HostPower, Operation, Step};

use super::engine::{Engine, Event};

/// A step and how far it is.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    step: Step,
    state: TurnState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnState {
    Waits,
    Runs,
    Done,
    Dropped,
}

impl Turn {
    pub fn new(step: Step) -> Self {
        Self {
            step,
            state: TurnState::Waits,
        }
    }
}

/// Something under way.
#[derive(Debug, Clone)]
pub(super) struct Running {
    act: Act,
    plan: u64,
    turn: usize,
    figures: Figures,
    /// It will end where it began.
    fails: bool,
}

/// What becomes of a step whose turn it is.
enum Fate {
    Begins(Figures),
    Waits,
    Refused,
}

impl Engine<'_> {
    /// Begins whatever waits for nothing more.
    pub fn begin_what_may(&mut self) {
        let mut again = true;
        while again {
            again = false;
            for turn in 0..self.turns.len() {
                if self.turns[turn].state != TurnState::Waits {
                    continue;
                }
                let before = |state| {
                    let mut after = self.turns[turn].step.after.iter();
                    after.any(|step| {
                        let other = self.turns.get(step.0 as usize);
                        other.is_none_or(|other| other.state == state)
                    })
                };
                if before(TurnState::Dropped) {
                    self.turns[turn].state = TurnState::Dropped;
                    again = true;
                } else if !before(TurnState::Waits) && !before(TurnState::Runs) {
                    again |= self.turn(turn);
                }
            }
        }
    }

    /// Whether anything changed for the others.
    fn turn(&mut self, turn: usize) -> bool {
        let act = self.turns[turn].step.act;
        match self.fate(&act) {
            Fate::Waits => false,
            Fate::Refused => {
                self.account.figures.refused_steps += 1;
                self.turns[turn].state = TurnState::Dropped;
                true
            }
            Fate::Begins(figures) => {
                self.begin(act, turn, figures);
                false
            }
        }
    }

    fn fate(&self, act: &Act) -> Fate {
        let is = |host: HostIx, state| {
            self.world
                .hosts
                .get(host.0 as usize)
                .is_some_and(|host| host.state == state)
        };
        let on = |host| is(host, HostPower::On);
        let known = |domain: DomainIx| self.world.domains.get(domain.0 as usize);
        match *act {
            Act::Move {
                domain, from, to, ..
            } => {
                let there = known(domain).is_some_and(|domain| domain.host == Some(from));
                let moves = self
                    .world
                    .operations
                    .iter()
                    .any(|other| other.domain == domain);
                if !there || moves || from == to || !on(from) || !on(to) {
                    return Fate::Refused;
                }
                let Some(busy) = self.beside(from, to) else {
                    return Fate::Waits;
                };
                let rate = transfer::rate_bytes_per_s(&self.world, from, to) / (1 + busy);
                Fate::Begins(transfer::of_move(&self.world.domains[domain], rate))
            }
            Act::Place { domain, to } => {
                let asks = known(domain).is_some_and(|domain| domain.host.is_none());
                if asks && on(to) {
                    Fate::Begins(Figures::default())
                } else {
                    Fate::Refused
                }
            }
            Act::MoveReplica { domain, from, to } => {
                let there = known(domain).is_some_and(|domain| domain.replica == Some(from));
                if !there || !on(to) {
                    return Fate::Refused;
                }
                let rate = transfer::rate_bytes_per_s(&self.world, from, to);
                Fate::Begins(transfer::of_replica(&self.world.domains[domain], rate))
            }
            Act::SwitchOn { host } if is(host, HostPower::Off) => Fate::Begins(Figures {
                duration_s: f64::from(self.world.hosts[host].power.boot_s),
                ..Figures::default()
            }),
            Act::SwitchOff { host } => {
                let lives = self
                    .world
                    .domains
                    .iter()
                    .any(|domain| domain.host == Some(host));
                let comes = self.world.operations.iter().any(|other| other.to == host);
                if !on(host) || lives || comes {
                    return Fate::Refused;
                }
                Fate::Begins(Figures {
                    duration_s: f64::from(self.world.hosts[host].power.halt_s),
                    ..Figures::default()
                })
            }
            Act::SwitchOn { .. } => Fate::Refused,
        }
    }

    /// Moves that share the way of another between two hosts; none: there may be no more at once.
    fn beside(&self, from: HostIx, to: HostIx) -> Option<u64> {
        let (mut shared, mut link) = (0, 0);
        let (mut out, mut into) = (0, 0);
        let site = |host: HostIx| self.world.hosts[host].site;
        let ends = |one: HostIx, other: HostIx| {
            let (one, other) = (site(one), site(other));
            (one.min(other), one.max(other))
        };
        for operation in &self.world.operations {
            let Some(home) = self.world.domains[operation.domain].host else {
                continue;
            };
            let touches = |host: HostIx| home == host || operation.to == host;
            out += u32::from(touches(from));
            into += u32::from(touches(to));
            shared += u64::from(touches(from) || touches(to));
            if site(from) != site(to) && ends(home, operation.to) == ends(from, to) {
                link += 1;
            }
        }
        let rules = &self.world.rules;
        let host_full = out.max(into) >= rules.moves_per_host.max(1);
        let link_full = site(from) != site(to) && link >= rules.moves_per_link.max(1);
        (!host_full && !link_full).then_some(shared)
    }

    fn begin(&mut self, act: Act, turn: usize, figures: Figures) {
        self.turns[turn].state = TurnState::Runs;
        let fails = matches!(act, Act::Move { .. }) && {
            let milli = self.setting.faults.move_fails_milli;
            self.chance(milli)
        };
        match act {
            Act::Move { domain, to, .. } => {
                self.world.operations.push(Operation { domain, to });
            }
            // It still draws while it halts, but nothing may come to it any more.
            Act::SwitchOff { host } => self.world.hosts[host].state = HostPower::Off,
            Act::SwitchOn { host } => {
                self.account.figures.boots += 1;
                self.account.figures.kwh += self.world.hosts[host].power.boot_wh / 1000.0;
            }
            _ => {}
        }
        self.begun += 1;
        let number = self.begun;
        self.running.insert(
            number,
            Running {
                act,
                plan: self.plan,
                turn,
                figures,
                fails,
            },
        );
        self.at((figures.duration_s * 1000.0) as u64, Event::Ends(number));
    }

    /// Something under way ends, if it was not broken off.
    pub fn ends(&mut self, number: u64) {
        let Some(running) = self.running.remove(&number) else {
            return;
        };
        let ended = if running.fails {
            TurnState::Dropped
        } else {
            TurnState::Done
        };
        self.carry_out(&running);
        if running.plan == self.plan {
            self.turns[running.turn].state = ended;
        }
        self.account.recount(&self.world);
    }

    fn carry_out(&mut self, running: &Running) {
        let at_s = self.world.at_s;
        match running.act {
            Act::Move {
                domain, from, to, ..
            } => {
                self.world.operations.retain(|other| other.domain != domain);
                let name = self.world.domains[domain].name.clone();
                let (from, to_name) = (
                    self.world.hosts[from].name.clone(),
                    self.world.hosts[to].name.clone(),
                );
                let figures = running.figures;
                if running.fails {
                    self.account.figures.moves_failed += 1;
                    self.tell(format!("{name} did not get from {from} to {to_name}"));
                    return;
                }
                let sums = &mut self.account.figures;
                sums.moves += 1;
                sums.moved_bytes += figures.bytes;
                sums.downtime_ms += figures.downtime_ms;
                sums.longest_downtime_ms = sums.longest_downtime_ms.max(figures.downtime_ms);
                self.world.domains[domain].host = Some(to);
                self.world.domains[domain].moved_s = Some(at_s);
                self.settle(domain.0 as usize);
                self.tell(format!(
                    "{name} went from {from} to {to_name} in {:.1} s, standing still for {:.0} ms",
                    figures.duration_s, figures.downtime_ms
                ));
            }
            Act::Place { domain, to } => {
                self.world.domains[domain].host = Some(to);
                self.settle(domain.0 as usize);
            }
            Act::MoveReplica { domain, to, .. } => {
                self.world.domains[domain].replica = Some(to);
            }
            Act::SwitchOn { host } => self.switched(host, HostPower::On, "on"),
            Act::SwitchOff { host } => self.switched(host, HostPower::Off, "off"),
        }
    }

    fn switched(&mut self, host: HostIx, state: HostPower, word: &str) {
        self.world.hosts[host].state = state;
        let name = self.world.hosts[host].name.clone();
        self.tell(format!("host {name} is {word}"));
    }

    /// A host is gone: whatever was under way to it or from it ends where it began.
    pub fn break_off(&mut self, host: HostIx) {
        let touched: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, running)| match running.act {
                Act::Move { from, to, .. } => from == host || to == host,
                Act::MoveReplica { to, .. } | Act::Place { to, .. } => to == host,
                Act::SwitchOn { host: of } | Act::SwitchOff { host: of } => of == host,
            })
            .map(|(number, _)| *number)
            .collect();
        for number in touched {
            let Some(running) = self.running.remove(&number) else {
                continue;
            };
            if let Act::Move { domain, .. } = running.act {
                self.world.operations.retain(|other| other.domain != domain);
                self.account.figures.moves_failed += 1;
            }
            if running.plan == self.plan {
                self.turns[running.turn].state = TurnState::Dropped;
            }
        }
    }
}

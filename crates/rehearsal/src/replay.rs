//! A day replayed under a policy, event by event, as CloudSim 3.0.3's power package does it.
//!
//! Facts of that model which look odd are kept where the peers' figures rest on them, and named: a host's energy is counted
//! from what it was doing at the event before; a host whose guests ask exactly nothing draws nothing; a guest that is moved
//! twice in one tick is booked on both targets and settles on the later one.

use crate::day::{BOOT_KWH, BOOT_S, Day, Variant};
use crate::policy::{HISTORY, Move, Policy, View};
use crate::share::{Ask, Stay, shares};
use crate::tally::{Outcome, Series, Tally};

/// What can be wrong with a replay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The start.
    #[error(
        "policy {policy}: no place for every guest at the start: fewer guests or more hosts are needed"
    )]
    NoRoom {
        /// Whose.
        policy: String,
    },
    /// A move to where a guest already is, or of one that is not there, or into memory that is not there.
    #[error("policy {policy}, {time_s} s: guest {guest} cannot go to host {to}: {because}")]
    BadMove {
        /// Whose.
        policy: String,
        /// When.
        time_s: f64,
        /// Which guest.
        guest: usize,
        /// Where to.
        to: usize,
        /// Why not.
        because: &'static str,
    },
}

/// What a host did from tick to tick, for drawings and for finding where two replays differ.
#[derive(Debug, Clone, PartialEq)]
pub struct TickRecord {
    /// The moment.
    pub time_s: f64,
    /// Hosts that are on after the policy was asked.
    pub hosts_on: usize,
    /// Hosts that give less than is asked, before it was asked.
    pub short: usize,
    /// Moves begun.
    pub moves: usize,
    /// Guests that are there.
    pub guests: usize,
    /// MIPS asked by all.
    pub asked_mips: f64,
    /// kWh until now.
    pub kwh: f64,
}

/// A replayed day.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The figures.
    pub outcome: Outcome,
    /// Tick by tick.
    pub ticks: Vec<TickRecord>,
}

/// Replays a day.
pub fn replay(day: &Day, variant: Variant, policy: &mut dyn Policy) -> Result<Replayed, Error> {
    if policy.all_at_full_power() {
        return Ok(all_at_full_power(day));
    }
    let start = policy.start(day, variant).ok_or_else(|| Error::NoRoom {
        policy: policy.name(),
    })?;
    let mut state = State::new(day, variant, &start);
    let mut ticks = Vec::new();
    for (tick, time_s) in day.ticks_s().into_iter().enumerate() {
        state.update(time_s);
        state.remember(time_s);
        let moves = policy.moves(&View {
            day,
            variant,
            time_s,
            tick,
            on: &state.on,
            used_mips: &state.used_mips,
            asked_mips: &state.asked_mips,
            history: &state.history,
            gone: &state.gone,
        });
        let short = state.short;
        state
            .carry_out(&moves, time_s)
            .map_err(|(go, because)| Error::BadMove {
                policy: policy.name(),
                time_s,
                guest: go.guest,
                to: go.to,
                because,
            })?;
        ticks.push(TickRecord {
            time_s,
            hosts_on: state.used_mips.iter().filter(|&&mips| mips > 0.0).count(),
            short,
            moves: moves.len(),
            guests: state.gone.iter().filter(|gone| !**gone).count(),
            asked_mips: state.asked_mips.iter().sum(),
            kwh: state.tally.joules / 3_600_000.0,
        });
    }
    let length_s = ticks.last().map_or(0.0, |last| last.time_s) - day.begin_s - day.sample_s;
    Ok(Replayed {
        outcome: state.tally.outcome(length_s),
        ticks,
    })
}

/// Hosts that know no saving: each draws its most from the begin to the last tick.
fn all_at_full_power(day: &Day) -> Replayed {
    let last_s = day.ticks_s().last().copied().unwrap_or(0.0);
    let watts: f64 = (0..day.hosts.len())
        .map(|host| day.kind(host).watts_at(1.0))
        .sum();
    Replayed {
        outcome: Outcome {
            kwh: watts * last_s / 3_600_000.0,
            hosts_on: day.hosts.len() as f64,
            ..Outcome::default()
        },
        ticks: Vec::new(),
    }
}

struct State<'a> {
    day: &'a Day,
    variant: Variant,
    /// Guests on each host, those that are coming too.
    on: Vec<Vec<usize>>,
    /// Those of them that are coming.
    coming: Vec<Vec<usize>>,
    /// Where each guest lives.
    home: Vec<usize>,
    moving: Vec<bool>,
    gone: Vec<bool>,
    asked_mips: Vec<f64>,
    history: Vec<Vec<f64>>,
    used_mips: Vec<f64>,
    before_mips: Vec<f64>,
    last_s: f64,
    short: usize,
    host_series: Vec<Series>,
    guest_series: Vec<Series>,
    tally: Tally,
    asks: Vec<Ask>,
    given: Vec<f64>,
}

impl<'a> State<'a> {
    fn new(day: &'a Day, variant: Variant, start: &[usize]) -> Self {
        let (hosts, guests) = (day.hosts.len(), day.guests.len());
        let mut on = vec![Vec::new(); hosts];
        for (guest, &host) in start.iter().enumerate() {
            on[host].push(guest);
        }
        Self {
            day,
            variant,
            on,
            coming: vec![Vec::new(); hosts],
            home: start.to_vec(),
            moving: vec![false; guests],
            gone: vec![false; guests],
            asked_mips: vec![0.0; guests],
            history: vec![Vec::new(); guests],
            used_mips: vec![0.0; hosts],
            before_mips: vec![0.0; hosts],
            last_s: 0.0,
            short: 0,
            host_series: vec![Series::default(); hosts],
            guest_series: vec![Series::default(); guests],
            tally: Tally::default(),
            asks: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Brings everything to a moment: loads, shares, energy since the last one, guests that go.
    fn update(&mut self, time_s: f64) {
        for (guest, asked) in self.asked_mips.iter_mut().enumerate() {
            if !self.gone[guest] {
                let guest = &self.day.guests[guest];
                *asked = guest.load_at(time_s, self.day.sample_s) * guest.mips;
            }
        }
        self.short = 0;
        for host in 0..self.on.len() {
            self.update_host(host, time_s);
        }
        let length_s = time_s - self.last_s;
        if length_s > 0.0 {
            for host in 0..self.on.len() {
                let kind = self.day.kind(host);
                let load = |mips: f64| {
                    let load = mips / kind.mips();
                    if load > 1.0 && load < 1.01 { 1.0 } else { load }
                };
                let (before, now) = (load(self.before_mips[host]), load(self.used_mips[host]));
                if before != 0.0 {
                    let (from, to) = (kind.watts_at(before), kind.watts_at(now));
                    self.tally.joules += (from + (to - from) / 2.0) * length_s;
                }
            }
        }
        if !self.variant.kept {
            self.delete_idle();
        }
        self.last_s = time_s;
    }

    fn update_host(&mut self, host: usize, time_s: f64) {
        let kind = self.day.kind(host);
        self.asks.clear();
        for &guest in &self.on[host] {
            let stay = if self.coming[host].contains(&guest) {
                Stay::Coming
            } else if self.moving[guest] {
                Stay::Leaving
            } else {
                Stay::Settled
            };
            self.asks.push(Ask {
                mips: self.asked_mips[guest],
                stay,
            });
        }
        shares(kind.core_mips, kind.mips(), &self.asks, &mut self.given);
        let (mut used, mut asked) = (0.0, 0.0);
        for ((&guest, ask), &given) in self.on[host].iter().zip(&self.asks).zip(&self.given) {
            let mut drawn = given;
            if ask.stay != Stay::Coming {
                let moving = ask.stay == Stay::Leaving;
                self.tally.guest(
                    &mut self.guest_series[guest],
                    time_s,
                    given,
                    ask.mips,
                    moving,
                );
                if moving {
                    drawn /= 0.9;
                }
            }
            used += drawn;
            asked += ask.mips;
        }
        self.before_mips[host] = self.used_mips[host];
        self.used_mips[host] = used;
        if used < asked && used > 0.0 {
            self.short += 1;
        }
        self.tally
            .host(&mut self.host_series[host], time_s, used, asked);
    }

    fn delete_idle(&mut self) {
        for host in 0..self.on.len() {
            let (moving, asked, gone) = (&self.moving, &self.asked_mips, &mut self.gone);
            self.on[host].retain(|&guest| {
                let stays = moving[guest] || asked[guest] != 0.0;
                if !stays {
                    gone[guest] = true;
                }
                stays
            });
        }
    }

    /// Adds the moment's loads to what is remembered, where the moment is a sample's to the last bit.
    fn remember(&mut self, time_s: f64) {
        if (time_s - 0.1) % self.day.sample_s != 0.0 {
            return;
        }
        for (guest, history) in self.history.iter_mut().enumerate() {
            if self.gone[guest] {
                continue;
            }
            let load = self.day.guests[guest].load_at(time_s, self.day.sample_s);
            history.insert(0, load);
            history.truncate(HISTORY);
        }
    }

    fn carry_out(&mut self, moves: &[Move], time_s: f64) -> Result<(), (Move, &'static str)> {
        for &go in moves {
            self.check(go).map_err(|because| (go, because))?;
        }
        let (booting, at_once): (Vec<Move>, Vec<Move>) = moves
            .iter()
            .partition(|go| self.variant.boots && self.on[go.to].is_empty());
        let mut booted: Vec<usize> = moves
            .iter()
            .map(|go| go.to)
            .filter(|&to| self.on[to].is_empty())
            .collect();
        booted.sort_unstable();
        booted.dedup();
        self.tally.boots += booted.len() as u64;
        if self.variant.boots {
            self.tally.joules += booted.len() as f64 * BOOT_KWH * 3_600_000.0;
        }
        let mut ends = Vec::new();
        self.begin(&at_once, time_s, &mut ends)?;
        if !booting.is_empty() {
            let up_s = time_s + BOOT_S;
            // Moves that end before hosts have booted end first.
            let (sooner, later): (Vec<_>, Vec<_>) =
                ends.into_iter().partition(|(end_s, _)| *end_s <= up_s);
            self.end(sooner);
            ends = later;
            self.update(up_s);
            let still: Vec<Move> = booting
                .into_iter()
                .filter(|go| !self.gone[go.guest] && self.home[go.guest] != go.to)
                .collect();
            self.begin(&still, up_s, &mut ends)?;
        }
        self.end(ends);
        Ok(())
    }

    fn check(&self, go: Move) -> Result<(), &'static str> {
        if go.guest >= self.home.len() || go.to >= self.on.len() {
            return Err("there is no such guest or host");
        }
        if self.gone[go.guest] {
            return Err("it is there no more");
        }
        if self.home[go.guest] == go.to {
            return Err("it is there already");
        }
        Ok(())
    }

    fn begin(
        &mut self,
        moves: &[Move],
        time_s: f64,
        ends: &mut Vec<(f64, Move)>,
    ) -> Result<(), (Move, &'static str)> {
        for &go in moves {
            self.tally.moves += 1;
            self.moving[go.guest] = true;
            if !self.coming[go.to].contains(&go.guest) {
                if self.variant.kept {
                    let there: u32 = self.on[go.to]
                        .iter()
                        .map(|&guest| self.day.guests[guest].memory_mb)
                        .sum();
                    if there + self.day.guests[go.guest].memory_mb > self.day.kind(go.to).memory_mb
                    {
                        return Err((go, "its memory is full"));
                    }
                }
                self.coming[go.to].push(go.guest);
                self.on[go.to].push(go.guest);
                self.update_host(go.to, time_s);
                self.update_host(self.home[go.guest], time_s);
            }
            ends.push((time_s + self.day.move_s(go.guest), go));
        }
        Ok(())
    }

    /// Ends moves, those of one moment together and in the order in which they began.
    fn end(&mut self, mut ends: Vec<(f64, Move)>) {
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        for together in ends.chunk_by(|one, other| one.0 == other.0) {
            let time_s = together[0].0;
            self.update(time_s);
            for &(_, Move { guest, to }) in together {
                let from = self.home[guest];
                self.on[from].retain(|&other| other != guest);
                self.coming[to].retain(|&other| other != guest);
                self.on[to].retain(|&other| other != guest);
                self.on[to].push(guest);
                self.moving[guest] = false;
                self.home[guest] = to;
            }
            self.update(time_s);
        }
    }
}

//! Our policy: few hosts, well filled, and few moves.
//!
//! - **Prediction.** Each guest's next load and its error are learnt ([`crate::outlook`]); a host is filled by the sum of what its
//!   guests will ask and the spread of that sum, not by each guest's own worst.
//! - **Relief.** A host that gives less than is asked sends away what it must and no more, the quickest moves first, to the
//!   fullest host that has room.
//! - **Emptying.** A host whose guests have room elsewhere is emptied at once when much energy is at stake; else it waits until
//!   its guests are quiet, the longer the less quiet they must be. A move's harm is what the guest asks while it moves.
//! - Memory counts on both hosts of a move wherever the variant enforces it.

use crate::day::{Day, Variant};
use crate::outlook::{self, Outlook};
use crate::policy::{Move, Policy, View};

/// What is set by hand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// The share of a host up to which relief fills it.
    pub fill: f64,
    /// The share of a host up to which emptying fills others.
    pub fill_emptying: f64,
    /// Standard errors of the sum kept free above the prediction.
    pub spread: f64,
    /// The share of a host that relief goes down to.
    pub relieved: f64,
    /// The share of a host above which it is relieved.
    pub over: f64,
    /// Ticks after which a host that could have been emptied all that time is emptied however busy its guests are.
    pub patience: f64,
    /// The share of a host by which its guests' means may be above another's before quiet ones move between them.
    pub uneven: f64,
    /// What a guest may ask then, as a share of its mean.
    pub quiet: f64,
    /// Moves of that kind in one tick at the most.
    pub evening_moves: usize,
    /// Relief goes to the emptiest host instead of the fullest.
    pub widest: bool,
    /// Relative saving of energy in one tick, in days' worth, above which nothing is waited for.
    pub hurry: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            fill: 0.97,
            fill_emptying: 0.92,
            spread: 0.5,
            relieved: 0.97,
            over: 1.0,
            patience: 12.0,
            uneven: 0.05,
            quiet: 0.3,
            evening_moves: 4,
            widest: true,
            hurry: 0.003,
        }
    }
}

/// The policy.
#[derive(Debug, Clone, Default)]
pub struct Frugal {
    tuning: Tuning,
    outlook: Outlook,
    /// For how many ticks some host could have been emptied.
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

/// One host while moves are chosen.
#[derive(Debug, Clone, Default)]
struct Desk {
    on: Vec<usize>,
    mips: f64,
    core_mips: f64,
    /// What is asked now, on average, and what will be.
    now: f64,
    mean: f64,
    next: f64,
    error: f64,
    /// MB booked: what leaves in this tick is still there.
    booked_mb: u32,
    memory_mb: u32,
    /// Guests that are coming in this tick.
    receives: u32,
    /// A guest is leaving in this tick.
    sends: bool,
}

struct Desks<'v> {
    view: &'v View<'v>,
    outlook: &'v Outlook,
    hosts: Vec<Desk>,
    moved: Vec<bool>,
    moves: Vec<Move>,
}

impl<'v> Desks<'v> {
    fn of(view: &'v View<'v>, outlook: &'v Outlook) -> Self {
        let hosts = view
            .on
            .iter()
            .enumerate()
            .map(|(host, on)| {
                let kind = view.day.kind(host);
                let mut desk = Desk {
                    mips: kind.mips(),
                    core_mips: kind.core_mips,
                    memory_mb: kind.memory_mb,
                    ..Desk::default()
                };
                for &guest in on {
                    desk.add(guest, view, outlook);
                }
                desk
            })
            .collect();
        Self {
            view,
            outlook,
            hosts,
            moved: vec![false; view.gone.len()],
            moves: Vec::new(),
        }
    }

    /// Whether a host would be well with a guest more.
    fn holds(&self, host: usize, guest: usize, fill: f64, spread: f64) -> bool {
        let (desk, known) = (&self.hosts[host], &self.outlook.guests[guest]);
        let next = desk.next + known.next;
        let error = (desk.error + known.error).sqrt();
        known.now.max(known.next) <= desk.core_mips
            && desk.now + known.now <= desk.mips * fill
            && next + error * spread <= desk.mips * fill
            && (!self.view.variant.kept
                || desk.booked_mb + self.view.day.guests[guest].memory_mb <= desk.memory_mb)
    }

    /// The fullest host that is on and would be well with a guest more; hosts that receive anyway come first.
    fn best(
        &self,
        guest: usize,
        fill: f64,
        spread: f64,
        without: Option<usize>,
        widest: bool,
    ) -> Option<usize> {
        let mut best = None;
        let mut least = f64::MAX;
        for (host, desk) in self.hosts.iter().enumerate() {
            if desk.on.is_empty()
                || desk.sends
                || Some(host) == without
                || !self.holds(host, guest, fill, spread)
            {
                continue;
            }
            let free = if self.view.variant.kept {
                f64::from(desk.memory_mb - desk.booked_mb) / f64::from(desk.memory_mb)
                    + (desk.next + self.outlook.guests[guest].next) / desk.mips * 0.1
            } else {
                (desk.mips * fill - desk.now.max(desk.next)) / desk.mips
            };
            let free = if widest && !self.view.variant.kept {
                -free
            } else {
                free
            };
            let score = if desk.receives > 0 { free - 0.02 } else { free };
            if score < least {
                least = score;
                best = Some(host);
            }
        }
        best
    }

    fn go(&mut self, guest: usize, from: usize, to: usize) {
        let (view, outlook) = (self.view, self.outlook);
        self.hosts[from].remove(guest, outlook);
        self.hosts[from].sends = true;
        self.hosts[to].add(guest, view, outlook);
        self.hosts[to].receives += 1;
        self.moved[guest] = true;
        self.moves.push(Move { guest, to });
    }

    /// Takes back what was chosen since there were `moves` of them, all from `from`.
    fn take_back(&mut self, moves: usize, from: usize) {
        let (view, outlook) = (self.view, self.outlook);
        for go in self.moves.drain(moves..) {
            self.hosts[go.to].remove(go.guest, outlook);
            self.hosts[go.to].receives -= 1;
            self.hosts[go.to].booked_mb -= view.day.guests[go.guest].memory_mb;
            self.hosts[from].on.push(go.guest);
            self.hosts[from].count(&outlook.guests[go.guest]);
            self.moved[go.guest] = false;
        }
        self.hosts[from].sends = false;
    }

    /// An empty host that gives most for its power, and suits a guest.
    fn fresh(&self, guest: usize) -> Option<usize> {
        let day = self.view.day;
        let cost = |host: usize| {
            let kind = day.kind(host);
            kind.watts_at(1.0) / kind.mips()
        };
        (0..self.hosts.len())
            .filter(|&host| self.hosts[host].on.is_empty() && !self.hosts[host].sends)
            .filter(|&host| self.holds(host, guest, 1.0, 0.0))
            .min_by(|&one, &other| cost(one).total_cmp(&cost(other)))
    }
}

impl Desk {
    fn add(&mut self, guest: usize, view: &View<'_>, outlook: &Outlook) {
        let known = &outlook.guests[guest];
        self.on.push(guest);
        self.count(known);
        self.booked_mb += view.day.guests[guest].memory_mb;
    }

    fn count(&mut self, known: &outlook::Guest) {
        self.now += known.now;
        self.mean += known.mean;
        self.next += known.next;
        self.error += known.error;
    }

    fn remove(&mut self, guest: usize, outlook: &Outlook) {
        let known = &outlook.guests[guest];
        self.on.retain(|&other| other != guest);
        self.now -= known.now;
        self.mean -= known.mean;
        self.next -= known.next;
        self.error = (self.error - known.error).max(0.0);
    }
}

impl Frugal {
    /// Overloaded hosts send away what they must.
    fn relieve(&self, desks: &mut Desks<'_>) {
        let tuning = self.tuning;
        let mut over: Vec<usize> = (0..desks.hosts.len())
            .filter(|&host| {
                let desk = &desks.hosts[host];
                desk.now > desk.mips * tuning.over
            })
            .collect();
        let excess = |desk: &Desk| desk.now - desk.mips;
        over.sort_by(|&one, &other| {
            excess(&desks.hosts[other]).total_cmp(&excess(&desks.hosts[one]))
        });
        for host in over {
            loop {
                let desk = &desks.hosts[host];
                let excess = desk.now - desk.mips * tuning.relieved;
                if excess <= 0.0 || desk.on.len() < 2 {
                    break;
                }
                let Some((guest, to)) = self.relief(desks, host, excess) else {
                    break;
                };
                desks.go(guest, host, to);
            }
        }
    }

    /// The guest whose move takes off the excess with the least harm, and where it goes: one that is enough by itself if
    /// there is one, else the one that takes off most for the time of its move.
    fn relief(&self, desks: &Desks<'_>, host: usize, excess: f64) -> Option<(usize, usize)> {
        let day = desks.view.day;
        let mut order: Vec<usize> = desks.hosts[host]
            .on
            .iter()
            .copied()
            .filter(|&guest| !desks.moved[guest] && desks.outlook.guests[guest].now > 0.0)
            .collect();
        let harm = |guest: usize| {
            let asked = desks.outlook.guests[guest].now;
            if asked >= excess {
                (0, asked * day.move_s(guest))
            } else {
                (1, -asked / day.move_s(guest))
            }
        };
        order.sort_by(|&one, &other| {
            let (one, other) = (harm(one), harm(other));
            one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
        });
        for &guest in order.iter().take(8) {
            if let Some(to) =
                desks.best(guest, self.tuning.fill, 0.0, Some(host), self.tuning.widest)
            {
                return Some((guest, to));
            }
        }
        // A host is switched on for it only where the shortage is expected to last.
        let guest = *order.first()?;
        let desk = &desks.hosts[host];
        let lasts = desk.next > desk.mips;
        desks.fresh(guest).filter(|_| lasts).map(|to| (guest, to))
    }

    /// Guests that are quiet now and are not on average go from hosts that have too much of such to others: the cheapest time
    /// to move a busy guest is when it is not busy.
    fn even_out(&self, desks: &mut Desks<'_>) {
        let tuning = self.tuning;
        for _ in 0..tuning.evening_moves {
            let share = |desk: &Desk| desk.mean / desk.mips;
            let on = || (0..desks.hosts.len()).filter(|&host| !desks.hosts[host].on.is_empty());
            let by_share = |one: &usize, other: &usize| {
                share(&desks.hosts[*one]).total_cmp(&share(&desks.hosts[*other]))
            };
            let Some(from) = on().max_by(by_share) else {
                return;
            };
            let Some(to) = on()
                .filter(|&host| !desks.hosts[host].sends)
                .min_by(by_share)
            else {
                return;
            };
            let (high, low) = (&desks.hosts[from], &desks.hosts[to]);
            let distance = share(high) - share(low);
            if distance < tuning.uneven || share(high) < 0.7 {
                return;
            }
            let half = distance / 2.0 * high.mips;
            let chosen = high
                .on
                .iter()
                .copied()
                .filter(|&guest| {
                    let known = &desks.outlook.guests[guest];
                    !desks.moved[guest]
                        && known.mean <= half * 1.5
                        && known.mean >= half * 0.2
                        && known.now <= known.mean * tuning.quiet
                        && desks.holds(to, guest, tuning.fill, 0.0)
                })
                .min_by(|&one, &other| {
                    let miss = |guest: usize| (desks.outlook.guests[guest].mean - half).abs();
                    miss(one).total_cmp(&miss(other))
                });
            let Some(guest) = chosen else { return };
            desks.go(guest, from, to);
        }
    }

    /// Hosts whose guests have room elsewhere are emptied, if it is time.
    fn empty(&mut self, desks: &mut Desks<'_>) {
        let tuning = self.tuning;
        let view = desks.view;
        let mut order: Vec<usize> = (0..desks.hosts.len())
            .filter(|&host| !desks.hosts[host].on.is_empty() && !desks.hosts[host].sends)
            .collect();
        // What it costs to keep a host on for what it gives: idle and dear ones go first.
        let worth = |host: usize| {
            let desk = &desks.hosts[host];
            let kind = view.day.kind(host);
            let load = desk.now.max(desk.next) / desk.mips;
            let memory: u32 = desk
                .on
                .iter()
                .map(|&guest| view.day.guests[guest].memory_mb)
                .sum();
            let used = if view.variant.kept {
                f64::from(memory) / f64::from(desk.memory_mb)
            } else {
                load
            };
            used * kind.mips() / kind.watts_at(1.0)
        };
        let worths: Vec<f64> = (0..desks.hosts.len()).map(worth).collect();
        order.sort_by(|&one, &other| worths[one].total_cmp(&worths[other]));
        let watts_now: f64 = order
            .iter()
            .map(|&host| view.day.kind(host).watts_at(0.0))
            .sum();
        let mut could: Vec<(usize, Vec<Move>)> = Vec::new();
        // First what could be done, then whether it is time.
        let mut trial = Desks {
            view: desks.view,
            outlook: desks.outlook,
            hosts: desks.hosts.clone(),
            moved: desks.moved.clone(),
            moves: Vec::new(),
        };
        let mut failed = 0;
        for &host in &order {
            if trial.hosts[host].receives > 0 || failed > 12 {
                continue;
            }
            if self.try_to_empty(&mut trial, host) {
                could.push((host, trial.moves.drain(..).collect()));
                failed = 0;
            } else {
                failed += 1;
            }
        }
        let saved: f64 = could
            .iter()
            .map(|(host, _)| view.day.kind(*host).watts_at(0.0))
            .sum();
        let ticks_a_day = 86_400.0 / view.day.sample_s;
        let at_stake = saved / (watts_now - saved).max(1.0) / ticks_a_day;
        let mut left = 0;
        for (host, moves) in could {
            let harm = |load: fn(&outlook::Guest) -> f64| -> f64 {
                moves
                    .iter()
                    .map(|go| load(&desks.outlook.guests[go.guest]) * view.day.move_s(go.guest))
                    .sum()
            };
            let (now, usual) = (harm(|known| known.now), harm(|known| known.mean));
            let waited = f64::from(self.waited);
            let quiet = now <= usual * (waited / tuning.patience).powi(2);
            if at_stake > tuning.hurry || quiet || now == 0.0 {
                for go in moves {
                    desks.go(go.guest, host, go.to);
                }
            } else {
                left += 1;
            }
        }
        self.waited = if left == 0 { 0 } else { self.waited + 1 };
    }

    fn try_to_empty(&self, trial: &mut Desks<'_>, host: usize) -> bool {
        let tuning = self.tuning;
        let before = trial.moves.len();
        let mut guests = trial.hosts[host].on.clone();
        let outlook = trial.outlook;
        let view = trial.view;
        guests.sort_by(|&one, &other| {
            let size = |guest: usize| {
                if view.variant.kept {
                    f64::from(view.day.guests[guest].memory_mb)
                } else {
                    outlook.guests[guest].now.max(outlook.guests[guest].next)
                }
            };
            size(other).total_cmp(&size(one))
        });
        for guest in guests {
            let to = trial.best(
                guest,
                tuning.fill_emptying,
                tuning.spread,
                Some(host),
                self.tuning.widest,
            );
            let Some(to) = to.filter(|_| !trial.moved[guest]) else {
                trial.take_back(before, host);
                return false;
            };
            trial.go(guest, host, to);
        }
        true
    }
}

impl Policy for Frugal {
    fn name(&self) -> String {
        "estive".to_owned()
    }

    /// All guests are known together: the largest memory first, each on the fullest host that still has room for its full speed
    /// and memory, a new one being that which draws least when idle.
    fn start(&mut self, day: &Day, _: Variant) -> Option<Vec<usize>> {
        crate::start::pack(day)
    }

    fn moves(&mut self, view: &View<'_>) -> Vec<Move> {
        self.outlook.see(view);
        let outlook = self.outlook.clone();
        let mut desks = Desks::of(view, &outlook);
        self.relieve(&mut desks);
        self.empty(&mut desks);
        self.even_out(&mut desks);
        desks.moves
    }
}

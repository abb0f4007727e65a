//! Hosts while moves are chosen: what each will be asked, and who has room.

use crate::outlook::{self, Outlook};
use crate::policy::{Move, View};

/// What a host that receives anyway is preferred by, as a share of a host: its time short is counted once.
const RECEIVES_ANYWAY: f64 = 0.02;

/// One host.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    pub on: Vec<usize>,
    pub mips: f64,
    pub core_mips: f64,
    /// MIPS asked now, on average, and at the next tick.
    pub now: f64,
    pub mean: f64,
    pub next: f64,
    /// Mean square of what the last was wrong by.
    pub error: f64,
    /// MB booked: what leaves in this tick is still there.
    pub booked_mb: u32,
    pub memory_mb: u32,
    /// Guests that come in this tick.
    pub receives: u32,
    /// Whether a guest leaves in this tick.
    pub sends: bool,
}

/// All hosts, and the moves chosen so far.
#[derive(Debug, Clone)]
pub struct Desks<'v> {
    pub view: &'v View<'v>,
    pub outlook: &'v Outlook,
    pub hosts: Vec<Desk>,
    pub moved: Vec<bool>,
    pub moves: Vec<Move>,
}

impl<'v> Desks<'v> {
    pub fn of(view: &'v View<'v>, outlook: &'v Outlook) -> Self {
        let desk = |(host, on): (usize, &Vec<usize>)| {
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
        };
        Self {
            view,
            outlook,
            hosts: view.on.iter().enumerate().map(desk).collect(),
            moved: vec![false; view.gone.len()],
            moves: Vec::new(),
        }
    }

    /// What is known of a guest.
    pub fn known(&self, guest: usize) -> &'v outlook::Guest {
        &self.outlook.guests[guest]
    }

    /// Whether a host would be filled no more than to a share with a guest more. A guest never goes where a core is slower than
    /// it may ask.
    pub fn holds(&self, host: usize, guest: usize, fill: f64) -> bool {
        let (desk, known) = (&self.hosts[host], self.known(guest));
        let asks = &self.view.day.guests[guest];
        asks.mips <= desk.core_mips
            && (desk.now + known.now).max(desk.next + known.next) <= desk.mips * fill
            && (!self.view.variant.kept || desk.booked_mb + asks.memory_mb <= desk.memory_mb)
    }

    /// The best host that is on and holds a guest. Where memory counts it is the one with the least of it left: memory is what runs
    /// out. Else the fullest, so that room for large guests is left somewhere, or the emptiest, which stays below its bound longest.
    pub fn best(&self, guest: usize, from: usize, fill: f64, emptiest: bool) -> Option<usize> {
        let score = |desk: &Desk| {
            let free = if self.view.variant.kept {
                let left = f64::from(desk.memory_mb - desk.booked_mb) / f64::from(desk.memory_mb);
                left + 0.1 * desk.next / desk.mips
            } else {
                let free = fill - desk.now.max(desk.next) / desk.mips;
                if emptiest { -free } else { free }
            };
            if desk.receives > 0 {
                free - RECEIVES_ANYWAY
            } else {
                free
            }
        };
        (0..self.hosts.len())
            .filter(|&host| {
                let desk = &self.hosts[host];
                !desk.on.is_empty() && !desk.sends && host != from && self.holds(host, guest, fill)
            })
            .min_by(|&one, &other| score(&self.hosts[one]).total_cmp(&score(&self.hosts[other])))
    }

    /// An empty host that gives most for its power and holds a guest.
    pub fn fresh(&self, guest: usize) -> Option<usize> {
        let cost = |host: usize| {
            let kind = self.view.day.kind(host);
            kind.watts_at(1.0) / kind.mips()
        };
        (0..self.hosts.len())
            .filter(|&host| self.hosts[host].on.is_empty() && !self.hosts[host].sends)
            .filter(|&host| self.holds(host, guest, 1.0))
            .min_by(|&one, &other| cost(one).total_cmp(&cost(other)))
    }

    /// Chooses a move.
    pub fn go(&mut self, guest: usize, from: usize, to: usize) {
        let (view, outlook) = (self.view, self.outlook);
        self.hosts[from].remove(guest, outlook);
        self.hosts[from].sends = true;
        self.hosts[to].add(guest, view, outlook);
        self.hosts[to].receives += 1;
        self.moved[guest] = true;
        self.moves.push(Move { guest, to });
    }

    /// Takes back all moves, which are all from one host.
    pub fn take_back(&mut self, from: usize) {
        let (view, outlook) = (self.view, self.outlook);
        for go in self.moves.drain(..) {
            let to = &mut self.hosts[go.to];
            to.remove(go.guest, outlook);
            to.receives -= 1;
            to.booked_mb -= view.day.guests[go.guest].memory_mb;
            self.hosts[from].on.push(go.guest);
            self.hosts[from].count(&outlook.guests[go.guest]);
            self.moved[go.guest] = false;
        }
        self.hosts[from].sends = false;
    }

    /// The share of all hosts that are on which is asked, now or at the next tick.
    pub fn filled(&self) -> f64 {
        let (mut now, mut next, mut there) = (0.0, 0.0, 0.0);
        for desk in self.hosts.iter().filter(|desk| !desk.on.is_empty()) {
            now += desk.now;
            next += desk.next;
            there += desk.mips;
        }
        f64::max(now, next) / f64::max(there, 1.0)
    }
}

impl Desk {
    fn add(&mut self, guest: usize, view: &View<'_>, outlook: &Outlook) {
        self.on.push(guest);
        self.count(&outlook.guests[guest]);
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

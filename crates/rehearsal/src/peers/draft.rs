//! A placement that is tried out: what each host would be asked and would give.

use crate::policy::{HISTORY, View};
use crate::share::{Ask, Stay, shares};

/// One host of it.
#[derive(Debug, Clone)]
pub struct DraftHost {
    /// Guests, in the order in which they came.
    pub on: Vec<usize>,
    /// MIPS asked by them.
    asked_mips: f64,
    /// MIPS given to them.
    given_mips: f64,
    /// MIPS that are free.
    free_mips: f64,
    memory_mb: u32,
    longest_move_s: f64,
    /// Sums of their past loads as shares of the host, the newest first.
    history: [f64; HISTORY],
    /// What it draws now, before anything is moved.
    watts_now: f64,
}

/// All hosts.
pub struct Draft<'v> {
    view: &'v View<'v>,
    /// The hosts.
    pub hosts: Vec<DraftHost>,
}

impl<'v> Draft<'v> {
    /// Of what there is.
    pub fn of(view: &'v View<'v>) -> Self {
        let mut draft = Self {
            view,
            hosts: Vec::new(),
        };
        for (host, on) in view.on.iter().enumerate() {
            let kind = view.day.kind(host);
            draft.hosts.push(DraftHost {
                on: on.clone(),
                asked_mips: 0.0,
                given_mips: 0.0,
                free_mips: 0.0,
                memory_mb: 0,
                longest_move_s: 0.0,
                history: [0.0; HISTORY],
                watts_now: kind.watts_at(draft.load_now(host)),
            });
            draft.sum_up(host);
        }
        draft
    }

    /// The load of a host before anything is moved.
    pub fn load_now(&self, host: usize) -> f64 {
        let load = self.view.used_mips[host] / self.view.day.kind(host).mips();
        if load > 1.0 && load < 1.01 { 1.0 } else { load }
    }

    /// Brings a guest to a host, at the end of its list. It is not taken from where it is.
    pub fn bring(&mut self, guest: usize, host: usize) {
        self.hosts[host].on.push(guest);
        self.sum_up(host);
    }

    /// Takes a guest off a host.
    pub fn take(&mut self, guest: usize, host: usize) {
        self.hosts[host].on.retain(|&other| other != guest);
        self.sum_up(host);
    }

    fn sum_up(&mut self, host: usize) {
        let view = self.view;
        let kind = view.day.kind(host);
        let there = &mut self.hosts[host];
        let asks: Vec<Ask> = there
            .on
            .iter()
            .map(|&guest| Ask {
                mips: view.asked_mips[guest],
                stay: Stay::Settled,
            })
            .collect();
        let mut given = Vec::with_capacity(asks.len());
        shares(kind.core_mips, kind.mips(), &asks, &mut given);
        there.asked_mips = asks.iter().map(|ask| ask.mips).sum();
        there.given_mips = given.iter().sum();
        let wanted: f64 = asks.iter().map(|ask| ask.mips.min(kind.core_mips)).sum();
        there.free_mips = (kind.mips() - wanted).max(0.0);
        there.memory_mb = 0;
        there.longest_move_s = 0.0;
        there.history = [0.0; HISTORY];
        for &guest in &there.on {
            there.memory_mb += view.day.guests[guest].memory_mb;
            there.longest_move_s = there.longest_move_s.max(view.day.move_s(guest));
            add_history(&mut there.history, view, guest, kind.mips());
        }
    }

    /// Whether a host has room for a guest, by what it asks now.
    pub fn suits(&self, guest: usize, host: usize) -> bool {
        let (view, there) = (self.view, &self.hosts[host]);
        let asked = view.asked_mips[guest];
        let kind = view.day.kind(host);
        kind.core_mips >= asked
            && there.free_mips >= asked
            && (!view.variant.kept
                || there.memory_mb + view.day.guests[guest].memory_mb <= kind.memory_mb)
    }

    /// Whether it gives nothing to anybody.
    pub fn gives_nothing(&self, host: usize) -> bool {
        self.hosts[host].given_mips == 0.0
    }

    /// By how much a host's power rises with a guest more. Guests that were brought here before in this draft count in
    /// what it draws afterwards, not in what it draws now: so does CloudSim.
    pub fn rise_watts(&self, guest: usize, host: usize) -> f64 {
        let kind = self.view.day.kind(host);
        let there = &self.hosts[host];
        let load = (there.given_mips + self.view.asked_mips[guest]) / kind.mips();
        kind.watts_at(load) - there.watts_now
    }

    /// Whether a host is overloaded, with a guest more if one is named.
    pub fn overloaded(&self, rule: super::Overload, host: usize, with: Option<usize>) -> bool {
        let view = self.view;
        let there = &self.hosts[host];
        let mips = view.day.kind(host).mips();
        let (mut asked, mut longest_s) = (there.asked_mips, there.longest_move_s);
        let ticks = |seconds: f64| (seconds / view.day.sample_s).ceil();
        let Some(guest) = with else {
            return rule.test(asked / mips, &there.history, ticks(longest_s));
        };
        asked += view.asked_mips[guest];
        longest_s = longest_s.max(view.day.move_s(guest));
        let mut history = there.history;
        add_history(&mut history, view, guest, mips);
        rule.test(asked / mips, &history, ticks(longest_s))
    }
}

fn add_history(sums: &mut [f64; HISTORY], view: &View<'_>, guest: usize, host_mips: f64) {
    let mips = view.day.guests[guest].mips;
    for (sum, load) in sums.iter_mut().zip(&view.history[guest]) {
        *sum += load * mips / host_mips;
    }
}

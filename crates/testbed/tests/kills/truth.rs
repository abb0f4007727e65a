//! What must hold of a case, while something is dead and at its end: asked of `estive show`, of the hosts' processes and
//! of the witness.

use std::time::Duration;

use estive_testbed::now_us;
use serde_json::Value;

use crate::cases::{Case, Ends, Order, Where};
use crate::common::{BOUND, name, qemus, stderr};
use crate::field::{Fact, Field, Hosts, said};

const UNREACHABLE: i32 = 4;

impl Field {
    /// With something dead: what `estive show` says of it is so, or it says that it cannot tell.
    pub async fn tells_no_lie(&mut self, domain: &str) -> Fact<()> {
        if !self.bed.manager_is_running() {
            let output = self.bed.estive(&["show", domain]).await.map_err(said)?;
            return match output.status.code() {
                Some(UNREACHABLE) => Ok(()),
                code => Err(format!(
                    "without a manager, 'estive show' ended with {code:?}: {}",
                    stderr(&output)
                )),
            };
        }
        let from_us = now_us();
        let Ok(show) = self.show(domain).await else {
            // Not on record: then nothing of it is anywhere.
            let left = qemus(Some(domain));
            return match left.is_empty() {
                true => Ok(()),
                false => Err(format!("it is not on record, and its QEMUs run: {left:?}")),
            };
        };
        let owner = host_of(&show)?;
        match show["state"].as_str().unwrap_or_default() {
            "running" => {
                let heard = async |field: &Self| {
                    let (at_us, _) = field.witness.last_heard(domain)?;
                    // Or what was so when it was asked has changed since.
                    let changed = field
                        .show(domain)
                        .await
                        .is_ok_and(|now| now["state"] != "running");
                    (at_us > from_us || changed).then_some(())
                };
                self.until("it is said to run, so it is heard", heard).await
            }
            "stopped" | "crashed" | "saved" => match self.bed.qemu_pid(&name(domain), owner) {
                None => Ok(()),
                // A kill may be under way.
                Some(_) => {
                    let gone = async |field: &Self| {
                        field
                            .bed
                            .qemu_pid(&name(domain), owner)
                            .is_none()
                            .then_some(())
                    };
                    self.until("it is said not to run, so its QEMU goes", gone)
                        .await
                }
            },
            _ => Ok(()),
        }
    }

    /// Waits until it has ended so, as `estive show` says, as the hosts' processes are, and as the switch hears. Gives the
    /// host that shows it.
    pub async fn comes_to(&self, domain: &str, ends: Ends, hosts: &Hosts) -> Fact<u8> {
        let mut last = String::new();
        let rests = async {
            loop {
                let show = self.show(domain).await;
                let pids = [1, 2].map(|host| self.bed.qemu_pid(&name(domain), host));
                if let Some(host) = fitting(&show, pids, domain, ends, hosts) {
                    return host;
                }
                let shown = show.map_or_else(|why| why, |show| show.to_string());
                last = format!("{shown}; QEMUs {pids:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let rested = tokio::time::timeout(BOUND, rests).await;
        let on = rested.map_err(|_| format!("not so within {BOUND:?}: {ends}; last: {last}"))?;
        // Without a QEMU nothing can be heard.
        if matches!(ends, Ends::Runs(_)) {
            self.is_heard_from(domain, on).await?;
        }
        Ok(on)
    }

    /// Starts it if it does not run, and moves it from `on` to the other host and nowhere else.
    pub async fn next_move_works(&mut self, case: &Case, on: u8, boots: usize) -> Fact<()> {
        let domain = case.domain();
        let runs = matches!(case.ends, Ends::Runs(_));
        let is_saved = matches!(case.ends, Ends::Saved(_));
        match case.order {
            // A stop or a save that was not done is taken back by it.
            Order::Stop | Order::Save if runs => self.succeeds(&["start", domain]).await?,
            _ if runs => {}
            Order::Up => self.succeeds(&["up", &self.folders[1]]).await?,
            _ if is_saved => self.succeeds(&["restore", domain]).await?,
            _ => self.succeeds(&["start", domain]).await?,
        }
        self.is_heard_from(domain, on).await?;
        let other = 3 - on;
        self.succeeds(&["migrate", domain, "--to", &format!("host{other}")])
            .await?;
        self.is_heard_from(domain, other).await?;
        let show = self.show(domain).await?;
        if !stands(&show, "running", other) || show["wanted"] != "running" {
            return Err(format!("after the next move it is shown as {show}"));
        }
        let ordered = matches!(case.order, Order::Start | Order::Up);
        // From what was saved it goes on: that is no boot.
        let booted = ordered || !runs && !is_saved;
        let (heard, expected) = (self.boots(domain), boots + usize::from(booted));
        if heard != expected {
            return Err(format!("{heard} boots of it were heard, not {expected}"));
        }
        if case.order == Order::Up {
            self.succeeds(&["down", "second"]).await?;
        }
        Ok(())
    }

    pub fn nothing_ran_twice(&mut self) -> Fact<()> {
        let judgement = self.witness.judgement();
        let new = judgement.twice_count - self.twice;
        if new == 0 {
            return Ok(());
        }
        let from = usize::try_from(self.twice).unwrap_or(usize::MAX);
        let first = judgement.twice.get(from).map(ToString::to_string);
        self.twice = judgement.twice_count;
        Err(format!("it ran twice: {new} beats, first {first:?}"))
    }

    pub fn boots(&self, domain: &str) -> usize {
        let judgement = self.witness.judgement();
        judgement.guests.get(domain).map_or(0, Vec::len)
    }

    pub async fn is_heard_from(&self, domain: &str, host: u8) -> Fact<()> {
        let (from_us, wanted) = (now_us(), format!("p-h{host}"));
        self.until(
            &format!("a beat of {domain} from {wanted}"),
            async |field| {
                let (at_us, port) = field.witness.last_heard(domain)?;
                (at_us > from_us && port == wanted).then_some(())
            },
        )
        .await
    }
}

/// At rest there, in this state.
pub fn stands(show: &Value, state: &str, host: u8) -> bool {
    show["state"] == state && show["host"] == format!("host{host}") && show["moving"].is_null()
}

/// The host that shows the domain, if all is as it must end.
fn fitting(
    show: &Fact<Value>,
    pids: [Option<u32>; 2],
    domain: &str,
    ends: Ends,
    hosts: &Hosts,
) -> Option<u8> {
    let (state, place) = match ends {
        Ends::Runs(place) => ("running", place),
        Ends::Crashed(place) => ("crashed", place),
        Ends::Stopped(place) => ("stopped", place),
        Ends::Saved(place) => ("saved", place),
        Ends::Unmade => ("unknown", Where::Here),
        Ends::Unknown => {
            let unknown = show.as_ref().is_err_and(|why| why.contains(domain));
            return (unknown && pids == [None; 2]).then_some(hosts.here);
        }
    };
    let show = show.as_ref().ok()?;
    let places = hosts.any_of(place);
    let on = places.into_iter().find(|host| stands(show, state, *host))?;
    let running = [1, 2].map(|host| matches!(ends, Ends::Runs(_)) && host == on);
    let note = show["note"].as_str().unwrap_or_default();
    let told = ends != Ends::Unmade || note.contains("holds nothing");
    (told && pids.map(|pid| pid.is_some()) == running).then_some(on)
}

pub fn host_of(show: &Value) -> Fact<u8> {
    let host = show["host"].as_str().unwrap_or_default();
    host.strip_prefix("host")
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("'estive show' names no host: {show}"))
}

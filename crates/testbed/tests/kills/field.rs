//! The bed, its guests and the witness, and how one case is played on them.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use estive_api::{Client, Endpoint};
use estive_hypervisor::qmp::Qmp;
use estive_testbed::{Witness, error_chain};
use serde_json::Value;
use tokio::process::Child;

use crate::cases::{Case, Ends, Halt, Order, Side, Then, Victim, Where};
use crate::common::{
    BOUND, ShownBed, TOOL, bed_config, done, herd, name, qemus, stderr, stdout, tiny_herd,
    tiny_reference, work,
};
use crate::kept::Kept;
use crate::truth::{host_of, stands};

/// What is moved, started and stopped.
const DOMAIN: &str = "clone01";
/// What is brought up and down.
const SECOND: &str = "clone02";
/// What is moved, started and stopped with a volume.
const KEPT: &str = "clone03";

/// What does not hold, in words.
pub type Fact<T> = Result<T, String>;

pub struct Field {
    pub bed: ShownBed,
    pub witness: Witness,
    /// The herd's folder, and that of the second one.
    pub folders: [String; 2],
    /// Beats of somebody who ran twice that were told already.
    pub twice: u64,
    /// Cases that were played to their end.
    played: usize,
    /// The stateful one, once there is one.
    pub kept: Option<Kept>,
}

/// What is where, by the hosts' numbers.
pub struct Hosts {
    pub here: u8,
    pub there: u8,
}

impl Hosts {
    pub fn of(&self, place: Where) -> u8 {
        match place {
            Where::Here | Where::Either => self.here,
            Where::There => self.there,
        }
    }

    /// What `Either` may be.
    pub fn any_of(&self, place: Where) -> Vec<u8> {
        match place {
            Where::Either => vec![self.here, self.there],
            place => vec![self.of(place)],
        }
    }
}

impl Case {
    pub fn domain(&self) -> &'static str {
        match (self.order, self.kept) {
            (Order::Up, _) => SECOND,
            (_, false) => DOMAIN,
            (_, true) => KEPT,
        }
    }
}

impl Field {
    pub async fn start() -> Self {
        let mut config = bed_config(2, tiny_reference("tiny", |_| {}));
        config.volumes = Some(work().join("volumes"));
        let bed = ShownBed::start(config).await;
        let witness = Witness::start(Path::new(TOOL), bed.topology())
            .await
            .unwrap();
        let folders = [("first", DOMAIN), ("second", SECOND)]
            .map(|(folder, clone)| herd(folder, &tiny_herd(&[(clone, Some("host1"))])));
        done(&bed, &["up", &folders[0]]).await;
        Self {
            bed,
            witness,
            folders,
            twice: 0,
            played: 0,
            kept: None,
        }
    }

    pub async fn play(&mut self, case: &Case) -> Fact<()> {
        let domain = case.domain();
        let hosts = self.begin(case).await?;
        let boots = self.boots(domain);
        let own = self.bed.qemu_pid(&name(domain), hosts.here);
        self.arm(case, &hosts).await?;
        if self.bed.qemu_pid(&name(domain), hosts.here) != own {
            return Err("the restart of a daemon disturbed the guest".into());
        }
        let command = self.order(case, &hosts)?;
        let mut command = self.wait_until_held_up(case, &hosts, command).await?;
        match case.then {
            Some(Then::Qemu(place)) if !self.bed.kill_qemu(&name(domain), hosts.of(place)) => {
                return Err(format!("there was no QEMU on {place} to kill"));
            }
            Some(Then::Process(Victim::Agent(place))) => {
                self.bed.kill_agent(hosts.of(place)).await.map_err(said)?;
            }
            Some(Then::Process(Victim::Manager)) => self.bed.kill_manager().await,
            Some(Then::Process(Victim::Storage)) => self.bed.kill_volumes().await,
            Some(Then::Process(Victim::Command)) => drop(command.take()),
            Some(Then::Qemu(_)) | None => {}
        }
        self.tells_no_lie(domain).await?;
        self.revive().await?;
        if let Some(command) = command {
            let output = ended(command).await?;
            let words = stderr(&output);
            // A move is given up for the death of its QEMU, whatever else dies.
            let is_why = matches!(case.halt, Halt::Fault(Victim::Storage, ..))
                && case.order != Order::GiveUp;
            if is_why && !output.status.success() && !words.contains("storage host") {
                return Err(format!("the command does not say why it failed: {words}"));
            }
        }
        let on = self.comes_to(domain, case.ends, &hosts).await?;
        if case.kept {
            self.nobody_else_may_open_it(case, on).await?;
        }
        self.next_move_works(case, on, boots).await?;
        if case.kept {
            self.has_its_data().await?;
        }
        self.nothing_ran_twice()?;
        self.played += 1;
        Ok(())
    }

    /// Where the domain is, once it stands as the order needs it.
    async fn begin(&mut self, case: &Case) -> Fact<Hosts> {
        let (order, domain) = (case.order, case.domain());
        if order == Order::Up {
            return Ok(Hosts { here: 1, there: 2 });
        }
        if case.kept && self.kept.is_none() {
            self.kept = Some(Kept::comes_up(self, domain).await?);
        }
        let show = self.show(domain).await?;
        let here = host_of(&show)?;
        self.is_heard_from(domain, here).await?;
        if order == Order::Start {
            self.succeeds(&["stop", domain, "--grace", "0"]).await?;
        }
        if order == Order::Restore {
            self.succeeds(&["save", domain]).await?;
        }
        Ok(Hosts {
            here,
            there: 3 - here,
        })
    }

    /// Restarts whose end is wanted with the fault in its environment.
    async fn arm(&mut self, case: &Case, hosts: &Hosts) -> Fact<()> {
        if case.halt == Halt::Copying || case.order == Order::GiveUp {
            let wire = "qdisc add dev upl root tbf rate 40mbit burst 256kb latency 400ms";
            self.tc(hosts.here, wire).await?;
        }
        let Halt::Fault(victim, point, side) = &case.halt else {
            return Ok(());
        };
        let fault = fault(point, *side);
        let environment = [("ESTIVE_FAULT", fault.as_str())];
        let started = match victim {
            Victim::Agent(place) => {
                let host = hosts.of(*place);
                self.bed.kill_agent(host).await.map_err(said)?;
                self.bed.start_agent_with(host, &environment).await
            }
            Victim::Manager => {
                self.bed.kill_manager().await;
                self.bed.start_manager_with(&environment).await
            }
            Victim::Storage => {
                self.bed.kill_volumes().await;
                self.bed.start_volumes_with(&environment).await
            }
            Victim::Command => Ok(()),
        };
        started.map_err(said)?;
        // The manager has heard of it.
        self.until("every agent answers", async |field| {
            let listed = field.bed.estive_json(&["hosts"]).await.ok()?;
            let up = |host: &Value| host["health"] == "up";
            listed.as_array()?.iter().all(up).then_some(())
        })
        .await
    }

    fn order(&self, case: &Case, hosts: &Hosts) -> Fact<Child> {
        let there = format!("host{}", hosts.there);
        let mut command = self.bed.estive_command();
        let domain = case.domain();
        command.args(match case.order {
            Order::Migrate | Order::GiveUp => vec!["migrate", domain, "--to", &there],
            Order::Start => vec!["start", domain],
            Order::Stop => vec!["stop", domain, "--grace", "0"],
            Order::Up => vec!["up", &self.folders[1]],
            Order::Save => vec!["save", domain],
            Order::Restore => vec!["restore", domain],
        });
        if let Halt::Fault(Victim::Command, point, side) = case.halt {
            command.env("ESTIVE_FAULT", fault(point, side));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().map_err(|error| error.to_string())
    }

    /// Waits for the death at the fault point, or for the stream. The command is given back, unless it died.
    async fn wait_until_held_up(
        &mut self,
        case: &Case,
        hosts: &Hosts,
        command: Child,
    ) -> Fact<Option<Child>> {
        let domain = case.domain();
        if case.order == Order::GiveUp {
            self.memory_flows(domain, hosts.here).await?;
            if !self.bed.kill_qemu(&name(domain), hosts.there) {
                return Err("there was no QEMU to kill where it was going".into());
            }
        }
        let code = match case.halt {
            Halt::Copying => {
                self.memory_flows(domain, hosts.here).await?;
                return Ok(Some(command));
            }
            Halt::Fault(Victim::Agent(place), ..) => {
                self.bed.agent_ended(hosts.of(place), BOUND).await
            }
            Halt::Fault(Victim::Manager, ..) => self.bed.manager_ended(BOUND).await,
            Halt::Fault(Victim::Storage, ..) => self.bed.volumes_ended(BOUND).await,
            Halt::Fault(Victim::Command, ..) => {
                let output = ended(command).await?;
                return match output.status.code() {
                    None => Ok(None),
                    Some(code) => Err(format!(
                        "the command was not killed at its point; it ended with {code}: {}",
                        stderr(&output)
                    )),
                };
            }
        };
        match code {
            Ok(137) => Ok(Some(command)),
            Ok(code) => Err(format!("it ended with {code}, not at its fault point")),
            // What the command said tells why the point was not come to.
            Err(error) => {
                let output = tokio::time::timeout(Duration::from_secs(1), ended(command)).await;
                let words = output.map_or_else(|_| "nothing yet".into(), |output| told(&output));
                Err(format!(
                    "it did not come to its fault point: {}; the command said: {words}",
                    said(error)
                ))
            }
        }
    }

    /// Waits until some of the memory was sent and some was not.
    async fn memory_flows(&self, domain: &str, source: u8) -> Fact<()> {
        let agent = Client::new(Endpoint::Unix(self.bed.agent_socket(source)), None)
            .map_err(|error| error.to_string())?;
        self.until("memory is being copied", async |field| {
            let show = field.show(domain).await.ok()?;
            let operation = show["moving"]["operation"].as_str()?;
            let path = format!("/operation/{operation}");
            let report: Value = agent.get_json(&path, BOUND).await.ok()?;
            let bytes = |key: &str| report[key].as_u64().unwrap_or_default();
            let flows = report["phase"] == "copying" && bytes("sent_bytes") > 0;
            (flows && bytes("remaining_bytes") > 0).then_some(())
        })
        .await
    }

    /// Starts again what does not run, without any fault, and takes the narrow wire away.
    async fn revive(&mut self) -> Fact<()> {
        for host in [1, 2] {
            // There may be none.
            let _ = self.tc(host, "qdisc del dev upl root").await;
            self.bed.start_agent(host).await.map_err(said)?;
        }
        self.bed.start_volumes().await.map_err(said)?;
        self.bed.start_manager().await.map_err(said)
    }

    /// Everything as at the beginning, whatever a failed case has left.
    pub async fn recover(&mut self) -> Fact<()> {
        // Those that run still have their fault.
        for host in [1, 2] {
            self.bed.kill_agent(host).await.map_err(said)?;
        }
        self.bed.kill_manager().await;
        self.bed.kill_volumes().await;
        self.revive().await?;
        let _ = self.nothing_ran_twice();
        let _ = self.bed.estive(&["down", "second"]).await;
        // It comes up again with the next case of it.
        if self.kept.take().is_some() {
            self.succeeds(&["down", "kept"]).await?;
        }
        let _ = self.bed.estive(&["restore", DOMAIN]).await;
        let _ = self.bed.estive(&["start", DOMAIN]).await;
        let running = async |field: &Self| {
            let show = field.show(DOMAIN).await.ok()?;
            let host = host_of(&show).ok()?;
            stands(&show, "running", host).then_some(())
        };
        if self.until("it runs again", running).await.is_ok() {
            return Ok(());
        }
        self.succeeds(&["down", "first"]).await?;
        self.succeeds(&["up", &self.folders[0]]).await
    }

    /// The witness was awake: what it judged was there to be judged.
    pub fn assert_seen(&self) {
        let judgement = self.witness.judgement();
        assert!(judgement.is_clean(), "{:?}", judgement.twice);
        let moves: usize = [DOMAIN, KEPT]
            .iter()
            .flat_map(|domain| &judgement.guests[*domain])
            .map(|boot| boot.ports.len() - 1)
            .sum();
        println!("{} cases, {moves} moves heard", self.played);
        assert!(moves > self.played / 2, "{moves} moves heard");
    }

    /// That a domain which does run twice is noticed: a source is made to go on after it has released the domain.
    pub async fn notices_what_runs_twice(&mut self) -> Fact<()> {
        let point = "move.released_persisted";
        let case = Case {
            kept: false,
            order: Order::Migrate,
            halt: Halt::Fault(Victim::Agent(Where::Here), point, Side::After),
            then: None,
            ends: Ends::Runs(Where::There),
        };
        let hosts = self.begin(&case).await?;
        self.arm(&case, &hosts).await?;
        let command = self.order(&case, &hosts)?;
        let command = self.wait_until_held_up(&case, &hosts, command).await?;
        let socket = format!("host{}/q/{DOMAIN}/qmp.sock", hosts.here);
        let (monitor, _events) = Qmp::connect(&work().join(socket), BOUND)
            .await
            .map_err(said)?;
        let went_on = monitor.execute("cont", Value::Null, BOUND).await;
        went_on.map_err(said)?;
        // A monitor talks to one at a time.
        drop(monitor);
        self.is_heard_from(DOMAIN, hosts.here).await?;
        self.revive().await?;
        if let Some(command) = command {
            ended(command).await?;
        }
        self.is_heard_from(DOMAIN, hosts.there).await?;
        match self.nothing_ran_twice() {
            Ok(()) => Err("a source went on after its release, and nobody has noticed".into()),
            Err(_) => Ok(()),
        }
    }

    pub async fn stop(self) {
        self.bed.stop().await;
        assert!(qemus(None).is_empty());
    }

    pub async fn until<T>(
        &self,
        what: &str,
        mut fact: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> Fact<T> {
        let asking = async {
            loop {
                if let Some(found) = fact(self).await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(BOUND, asking).await;
        found.map_err(|_| format!("{what}: not within {BOUND:?}"))
    }

    pub async fn show(&self, domain: &str) -> Fact<Value> {
        self.bed.estive_json(&["show", domain]).await.map_err(said)
    }

    pub async fn succeeds(&self, arguments: &[&str]) -> Fact<()> {
        let output = self.bed.estive(arguments).await.map_err(said)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "estive {}: {}",
                arguments.join(" "),
                told(&Ok(output))
            )),
        }
    }

    async fn tc(&self, host: u8, arguments: &str) -> Fact<()> {
        let mut argv = vec!["tc"];
        argv.extend(arguments.split(' '));
        let namespace = &self.bed.topology().hosts[usize::from(host - 1)];
        namespace.run_in(&argv).await.map(drop).map_err(said)
    }
}

fn fault(point: &str, side: Side) -> String {
    format!("{point}:{}", format!("{side:?}").to_lowercase())
}

async fn ended(command: Child) -> Fact<Output> {
    let ending = tokio::time::timeout(BOUND, command.wait_with_output()).await;
    let output = ending.map_err(|_| format!("the command did not end within {BOUND:?}"))?;
    output.map_err(|error| error.to_string())
}

fn told(output: &Fact<Output>) -> String {
    match output {
        Ok(output) => format!("{} {}{}", output.status, stdout(output), stderr(output)),
        Err(why) => why.clone(),
    }
}

pub fn said(error: impl std::error::Error) -> String {
    error_chain(&error)
}

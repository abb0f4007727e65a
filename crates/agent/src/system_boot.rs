//! How a clone's own init came up: asked of it by its guest agent when all is over, so that it costs the boot nothing.
//!
//! systemd tells of its units; OpenRC leaves a link for each service it has started, and the link's age is when. Of
//! any other nothing is known. The guest answers, so its words are hostile: bounded here, cleaned where they are kept.

use estive_boot::record::{SystemBoot, Unit};
use estive_hypervisor::guest_agent::{GuestAgent, GuestAgentError};
use estive_hypervisor::guest_exec::GuestProgram;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What a guest may say in all.
const OUTPUT_BYTES_MAX: usize = 512 << 10;
/// How long the guest agent may take to answer, and to run a program.
const PING: Duration = Duration::from_secs(5);
const EXEC: Duration = Duration::from_secs(60);
/// One that answers is asked soon; one that nobody has seen answer is left alone for so long.
const SETTLED: Duration = Duration::from_secs(2);
const UNSEEN: Duration = Duration::from_secs(30);
/// Between two questions, and how many are asked.
const PAUSE: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 15;

/// Units of other kinds take no time, or stand for what the kernel found.
const PATTERNS: [&str; 5] = ["*.service", "*.mount", "*.socket", "*.swap", "*.target"];
/// Microseconds of the guest's uptime.
const UNIT_PROPERTIES: &str = "--property=Id,ActiveState,InactiveExitTimestampMonotonic,\
ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic";
const MANAGER_PROPERTIES: &str =
    "--property=Version,UserspaceTimestampMonotonic,FinishTimestampMonotonic";
/// Uptime, time of day, and when each link was made, in seconds. busybox's `find` prints no times, and some of its
/// `date` no parts of a second: there `stat` says whole ones.
const OPENRC: &str = "cd /run/openrc/started && cat /proc/uptime && date +%s.%N && \
{ find . -mindepth 1 -maxdepth 1 -printf '%T@ %f\\n' 2>/dev/null || stat -c '%Y %n' *; }";

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// It cannot be said yet.
    Later,
    /// All of it.
    System(SystemBoot),
    /// It will not be known, and why.
    Nothing(String),
}

/// When the next question is due, and how many there were.
#[derive(Debug, Default)]
pub struct Asking {
    /// The boot that is asked about.
    number: u64,
    since: Option<Instant>,
    asked: u32,
    last: Option<Instant>,
}

impl Asking {
    /// Whether it is time to ask about a boot.
    pub fn is_due(&mut self, number: u64, is_answering: bool) -> bool {
        if self.number != number || self.since.is_none() {
            *self = Self {
                number,
                since: Some(Instant::now()),
                ..Self::default()
            };
        }
        let waited = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| since.elapsed());
        match self.last {
            Some(_) => waited(self.last) >= PAUSE,
            None if is_answering => waited(self.since) >= SETTLED,
            None => waited(self.since) >= UNSEEN,
        }
    }

    /// Asks once.
    pub async fn ask(&mut self, guest: &GuestAgent, number: u64) -> Said {
        debug_assert_eq!(self.number, number);
        self.asked += 1;
        let said = ask(guest).await;
        self.last = Some(Instant::now());
        match said {
            Err(why) if self.asked >= ATTEMPTS => Said::Nothing(why),
            Err(why) => {
                tracing::debug!(why, "how the clone's own init came up is not known yet");
                Said::Later
            }
            Ok(said) => said,
        }
    }
}

/// An error is why it cannot be said yet.
async fn ask(guest: &GuestAgent) -> Result<Said, String> {
    if guest.ping(PING).await.is_err() {
        return Err("no guest agent answers".to_owned());
    }
    let Some(text) = run(guest, "systemctl", &["show", MANAGER_PROPERTIES]).await? else {
        return openrc(guest).await;
    };
    let manager = blocks(&text).next().unwrap_or_default();
    let at_ms = |name: &str| stamp_ms(&manager, name);
    let Some(began_ms) = at_ms("UserspaceTimestampMonotonic") else {
        // systemctl is there, and another init runs.
        return openrc(guest).await;
    };
    let Some(finished_ms) = at_ms("FinishTimestampMonotonic") else {
        return Err("its systemd still starts units".to_owned());
    };
    let arguments: Vec<&str> = ["show", UNIT_PROPERTIES]
        .into_iter()
        .chain(PATTERNS)
        .collect();
    let Some(units) = run(guest, "systemctl", &arguments).await? else {
        return Err("systemctl show failed".to_owned());
    };
    let version = manager.get("Version").copied().unwrap_or_default();
    // `252.36-1~deb12u1`
    let version = version
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    Ok(Said::System(SystemBoot {
        init: format!("systemd {version}").trim().to_owned(),
        began_ms: Some(began_ms),
        finished_ms: Some(finished_ms),
        told_ms: 0,
        units: blocks(&units).filter_map(|block| unit(&block)).collect(),
        left_out: 0,
    }))
}

/// What a program says; none when there is no such program, or it fails.
async fn run(guest: &GuestAgent, path: &str, arguments: &[&str]) -> Result<Option<String>, String> {
    let program = GuestProgram {
        path,
        arguments,
        input: b"",
        output_limit_bytes: OUTPUT_BYTES_MAX,
    };
    match guest.exec(&program, EXEC).await {
        Ok(exit) if exit.code == Some(0) => {
            Ok(Some(String::from_utf8_lossy(&exit.output).into_owned()))
        }
        Ok(_) => Ok(None),
        Err(GuestAgentError::Refused { detail, .. }) if detail.contains("No such file") => Ok(None),
        Err(GuestAgentError::Refused { .. }) => Err("its guest agent runs no programs".to_owned()),
        Err(_) => Err("its guest agent did not say how it came up".to_owned()),
    }
}

/// Blocks of `KEY=value` with an empty line between them.
fn blocks(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    text.split("\n\n").map(|block| {
        block
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect()
    })
}

/// Milliseconds; none for 0, which says never.
fn stamp_ms(block: &BTreeMap<&str, &str>, name: &str) -> Option<u64> {
    let stamp_us: u64 = block.get(name)?.parse().ok()?;
    (stamp_us > 0).then_some(stamp_us / 1000)
}

fn unit(block: &BTreeMap<&str, &str>) -> Option<Unit> {
    let began_ms = stamp_ms(block, "InactiveExitTimestampMonotonic")?;
    // One that does its work and is done was never active.
    let ended = [
        "ActiveEnterTimestampMonotonic",
        "InactiveEnterTimestampMonotonic",
    ];
    let ended_ms = ended
        .into_iter()
        .filter_map(|name| stamp_ms(block, name))
        .find(|ended_ms| *ended_ms >= began_ms);
    Some(Unit {
        name: (*block.get("Id")?).to_owned(),
        began_ms: Some(began_ms),
        ended_ms,
        failed: block.get("ActiveState") == Some(&"failed"),
    })
}

async fn openrc(guest: &GuestAgent) -> Result<Said, String> {
    Ok(match run(guest, "sh", &["-c", OPENRC]).await? {
        Some(text) => started(&text).map_or_else(
            || Said::Nothing("its OpenRC left nothing to be read".to_owned()),
            Said::System,
        ),
        None => Said::Nothing("it has neither systemd nor OpenRC".to_owned()),
    })
}

/// What OpenRC has started, from the output of [`OPENRC`].
fn started(text: &str) -> Option<SystemBoot> {
    let mut lines = text.lines();
    let ms = |text: &str| -> Option<u64> {
        // Of a `date` without parts of a second: `1000040.%N`, or the like.
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let seconds: f64 = text
            .parse()
            .or_else(|_| match part.contains(['%', 'N']) {
                true => whole.parse(),
                false => text.parse(),
            })
            .ok()?;
        (seconds.is_finite() && (0.0..1e12).contains(&seconds)).then_some((seconds * 1000.0) as u64)
    };
    let uptime_ms = ms(lines.next()?.split(' ').next()?)?;
    let booted_ms = ms(lines.next()?)?.checked_sub(uptime_ms)?;
    let units: Vec<Unit> = lines
        .filter_map(|line| {
            let (time, name) = line.split_once(' ')?;
            Some(Unit {
                name: name.to_owned(),
                began_ms: None,
                ended_ms: Some(ms(time)?.checked_sub(booted_ms)?),
                failed: false,
            })
        })
        .collect();
    let finished_ms = units.iter().filter_map(|unit| unit.ended_ms).max();
    Some(SystemBoot {
        init: "OpenRC".to_owned(),
        finished_ms,
        units,
        ..SystemBoot::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_hypervisor::guest_exec::GuestExit;
    use estive_hypervisor::simulated::{SimulatedCall, SimulatedGuestAgent};

    const MANAGER: &str = "Version=252.36-1~deb12u1\nUserspaceTimestampMonotonic=2000000\nFinishTimestampMonotonic=9000999\n";
    const UNITS: &str = "Id=nginx.service\nActiveState=active\nInactiveExitTimestampMonotonic=3000000\nActiveEnterTimestampMonotonic=4000000\nInactiveEnterTimestampMonotonic=0\n\n\
        Id=fsck.service\nActiveState=inactive\nInactiveExitTimestampMonotonic=2500000\nActiveEnterTimestampMonotonic=0\nInactiveEnterTimestampMonotonic=2600000\n\n\
        Id=never.service\nActiveState=inactive\nInactiveExitTimestampMonotonic=0\n\n\
        Id=slow.service\nActiveState=activating\nInactiveExitTimestampMonotonic=8000000\nActiveEnterTimestampMonotonic=0\n\n\
        Id=bad.service\nActiveState=failed\nInactiveExitTimestampMonotonic=5000000\nInactiveEnterTimestampMonotonic=5100000\n\nnoise\n";

    /// A guest whose programs end so, by what they are asked.
    async fn asked(
        said: impl Fn(&SimulatedCall) -> (i64, &'static str) + Send + Sync + 'static,
    ) -> Result<Said, String> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("qga");
        let _agent = SimulatedGuestAgent::listen(&socket, move |call| {
            let (code, output) = said(&call);
            GuestExit {
                code: Some(code),
                output: output.as_bytes().to_vec(),
                error: Vec::new(),
            }
        })
        .unwrap();
        ask(&GuestAgent::new(&socket)).await
    }

    #[tokio::test]
    async fn systemd_tells_of_its_units() {
        let said = asked(|call| match call.arguments[1].contains("Version") {
            true => (0, MANAGER),
            false => (0, UNITS),
        })
        .await;
        let Ok(Said::System(system)) = said else {
            panic!("{said:?}")
        };
        assert_eq!(system.init, "systemd 252");
        assert_eq!(
            (system.began_ms, system.finished_ms),
            (Some(2000), Some(9000))
        );
        let units: Vec<_> = system
            .units
            .iter()
            .map(|unit| {
                (
                    unit.name.as_str(),
                    unit.began_ms,
                    unit.ended_ms,
                    unit.failed,
                )
            })
            .collect();
        assert_eq!(
            units,
            [
                ("nginx.service", Some(3000), Some(4000), false),
                ("fsck.service", Some(2500), Some(2600), false),
                ("slow.service", Some(8000), None, false),
                ("bad.service", Some(5000), Some(5100), true),
            ]
        );
    }

    #[tokio::test]
    async fn what_is_not_over_or_not_there_is_said() {
        let starting = asked(|_| {
            (
                0,
                "UserspaceTimestampMonotonic=2000000\nFinishTimestampMonotonic=0\n",
            )
        });
        assert_eq!(
            starting.await,
            Err("its systemd still starts units".to_owned())
        );
        let none = asked(|_| (1, ""));
        assert_eq!(
            none.await,
            Ok(Said::Nothing(
                "it has neither systemd nor OpenRC".to_owned()
            ))
        );
        // 40.5 s after its boot at 1 000 000 s.
        let openrc = asked(|call| match call.path.as_str() {
            "sh" => (
                0,
                "40.50 80.00\n1000040.500000000\n1000012.25 sshd\n1000009.0 a\u{1b}b\n999999 before\n",
            ),
            _ => (1, ""),
        });
        let Ok(Said::System(system)) = openrc.await else {
            panic!("no OpenRC")
        };
        let units: Vec<_> = system
            .units
            .iter()
            .map(|unit| (unit.began_ms, unit.ended_ms))
            .collect();
        assert_eq!(units, [(None, Some(12_250)), (None, Some(9_000))]);
        let busybox = started("40.50 80.00\n1000040.%N\n1000012 sshd\n1000009 cron\n").unwrap();
        let ended_ms: Vec<_> = busybox.units.iter().map(|unit| unit.ended_ms).collect();
        assert_eq!(ended_ms, [Some(12_500), Some(9_500)]);
        let directory = tempfile::tempdir().unwrap();
        let silent = ask(&GuestAgent::new(directory.path().join("none"))).await;
        assert_eq!(silent, Err("no guest agent answers".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clone_that_answers_is_asked_soon_and_never_for_ever() {
        let mut asking = Asking::default();
        assert!(!asking.is_due(1, true));
        tokio::time::advance(SETTLED).await;
        assert!(asking.is_due(1, true) && !asking.is_due(1, false));
        // Another boot begins to wait anew.
        assert!(!asking.is_due(2, true));
        tokio::time::advance(UNSEEN).await;
        assert!(asking.is_due(2, false));
        let nobody = GuestAgent::new("/nonexistent/socket");
        let mut said = Said::Later;
        for _ in 0..ATTEMPTS {
            assert_eq!(said, Said::Later);
            assert!(asking.is_due(2, false));
            said = asking.ask(&nobody, 2).await;
            assert!(!asking.is_due(2, true));
            tokio::time::advance(PAUSE).await;
        }
        assert_eq!(said, Said::Nothing("no guest agent answers".to_owned()));
    }
}

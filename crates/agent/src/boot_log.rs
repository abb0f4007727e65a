//! The boots of a domain: what `estive-init` reports, and when it arrived, beside what this agent did for them; the
//! last few are kept. On the same port the clone's own system registers later.

use estive_api::wire::{Answered, BootTimes, Boots, Registration};
use estive_boot::boots::BOOTS_BYTES_MAX;
use estive_boot::record::{ArrivedLine, BootRecord, HostSpan, HostWork};
use estive_boot::report::{LINE_BYTES_MAX, Line, Phase, REPORT_BYTES_MAX};
use estive_model::HostName;
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Name of the kept log in the domain's directory.
const FILE: &str = "boot.json";
const MAX_REPORT_BYTES: u64 = REPORT_BYTES_MAX as u64;

/// The boots of a domain that are kept, and what its running system says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootLog {
    /// This host's name.
    #[serde(skip)]
    host: String,
    /// The oldest first; the last may be under way.
    pub boots: Boots,
    /// What the running system has registered.
    registered: Option<Registration>,
    /// The archive that was taken for the next boot.
    archive: Option<HostSpan>,
    /// What was known before the boot that is being made, until there is an instance that boots.
    #[serde(skip)]
    before: Option<Box<(Boots, Option<HostSpan>)>>,
    /// Bytes of the report already read.
    offset: u64,
    /// When the report was looked at last; nothing is known of before.
    #[serde(skip)]
    looked_ms: Option<u64>,
    /// What was kept of the last boot before boots were kept.
    #[serde(skip_serializing)]
    lines: Vec<ArrivedLine>,
}

impl BootLog {
    /// Of a domain that has not booted.
    pub fn new(host: &HostName) -> Self {
        Self {
            host: host.to_string(),
            ..Self::default()
        }
    }

    /// The kept log; empty when there is none.
    pub fn load(place: &Path, host: &HostName) -> Self {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let limit = 2 * BOOTS_BYTES_MAX as u64;
            std::fs::File::open(place.join(FILE))?
                .take(limit)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let mut log: Self = match read() {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                let path = place.join(FILE);
                tracing::warn!(path = %path.display(), %error, "the kept boots are not readable and begin anew");
                Self::default()
            }),
            Err(_) => Self::default(),
        };
        log.host = host.to_string();
        let lines = std::mem::take(&mut log.lines);
        if log.boots.last().is_none() && !lines.is_empty() {
            log.boots.begin(BootRecord {
                lines,
                ..BootRecord::default()
            });
        }
        log
    }

    /// Writes it to the domain's directory.
    pub fn keep(&self, place: &Path) {
        let path = place.join(FILE);
        // Aside first: one that is killed here must not leave half of what was known.
        let aside = place.join(format!(".{FILE}.new"));
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&aside, text))
            .and_then(|()| std::fs::rename(&aside, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the boot's times were not kept");
        }
    }

    /// The last boot in short.
    pub fn times(&self) -> BootTimes {
        let mut times = BootTimes {
            registered: self.registered.clone(),
            ..BootTimes::default()
        };
        let Some(boot) = self.boots.last() else {
            return times;
        };
        times.asked_ms = boot.asked_ms;
        for arrived in &boot.lines {
            if let Line::Done { phase, uptime_ms } = &arrived.line {
                let name = phase.name().to_owned();
                times
                    .phases_ms
                    .entry(name.clone())
                    .or_insert(arrived.arrived_ms);
                times.uptimes_ms.entry(name).or_insert(*uptime_ms);
            }
        }
        times.error = boot
            .failure()
            .map(|(phase, error)| format!("in phase {phase}: {error}"));
        times
    }

    /// Nothing more is awaited of the early userspace.
    pub fn is_over(&self) -> bool {
        self.boots.last().is_some_and(BootRecord::is_over)
    }

    /// The guest has said that it knows who it is.
    pub fn has_identity(&self) -> bool {
        let last = self.boots.last();
        last.is_some_and(|boot| boot.phase(Phase::Identity).is_some())
    }

    /// An archive was taken: the next boot is of it.
    pub fn take_archive(&mut self, began_ms: u64, ended_ms: u64) {
        self.archive = Some(HostSpan {
            what: HostWork::Archive,
            began_ms,
            ended_ms,
        });
    }

    /// Another boot begins, in a QEMU of its own, whose report begins anew.
    pub fn begin(&mut self, asked_ms: Option<u64>, now_ms: u64) {
        // One that was begun and did not come about before this agent was killed.
        let is_nothing = |boot: &BootRecord| {
            boot.host == self.host
                && !boot.rebooted
                && boot.lines.is_empty()
                && boot.host_span(HostWork::Interface).is_some()
                && boot.host_span(HostWork::Emulator).is_none()
        };
        if self.boots.last().is_some_and(is_nothing) {
            self.boots.0.pop();
        }
        self.before = Some(Box::new((self.boots.clone(), self.archive)));
        self.boots.begin(BootRecord {
            host: self.host.clone(),
            asked_ms,
            host_spans: self.archive.take().into_iter().collect(),
            ..BootRecord::default()
        });
        (self.offset, self.looked_ms, self.registered) = (0, Some(now_ms), None);
    }

    /// Its next instance goes on with this boot, and writes its report into a new file.
    pub fn report_begins_anew(&mut self) {
        self.offset = 0;
    }

    /// It did not come about: there was no instance that could have booted.
    pub fn give_up(&mut self) {
        if let Some(before) = self.before.take() {
            (self.boots, self.archive) = *before;
        }
    }

    /// There is an instance that boots.
    pub fn came_about(&mut self) {
        self.before = None;
    }

    /// This agent did something for the boot that is under way.
    pub fn did(&mut self, what: HostWork, began_ms: u64, ended_ms: u64) {
        // A paused clone that goes on does not boot.
        if let Some(boot) = self.boots.last_mut()
            && !boot.is_over()
            && boot.host_span(what).is_none()
        {
            boot.host_spans.push(HostSpan {
                what,
                began_ms,
                ended_ms,
            });
        }
    }

    /// The manager has seen the clone answer, after the start that was asked for at `asked_ms`. Says whether that is
    /// the last boot.
    pub fn answered(&mut self, asked_ms: u64, answered: Answered) -> bool {
        match self.boots.last_mut() {
            Some(boot) if boot.asked_ms == Some(asked_ms) => {
                boot.answered.get_or_insert(answered);
                true
            }
            _ => false,
        }
    }

    /// Boots that came along with a domain from another host: when it is to move here, and when it has.
    pub fn came_along(&mut self, boots: Boots) {
        self.boots.merge(boots);
    }

    fn take(&mut self, line: Line, arrived_ms: u64) {
        match line {
            Line::Registered { registered } => {
                self.registered = Some(Registration {
                    address: registered.address,
                    cpus: registered.cpus,
                    since_ms: arrived_ms,
                });
            }
            Line::Unregistered { .. } => self.registered = None,
            line => self.take_boot_line(line, arrived_ms),
        }
    }

    fn take_boot_line(&mut self, line: Line, arrived_ms: u64) {
        let is_first = matches!(
            line,
            Line::Done {
                phase: Phase::Init,
                ..
            }
        );
        let last = self.boots.last();
        if is_first && last.is_some_and(|boot| !boot.lines.is_empty()) {
            // The guest began again.
            self.boots.begin(BootRecord {
                host: self.host.clone(),
                rebooted: true,
                ..BootRecord::default()
            });
            self.registered = None;
        }
        if self.boots.last().is_none() {
            self.boots.begin(BootRecord {
                host: self.host.clone(),
                ..BootRecord::default()
            });
        }
        let within_ms = self
            .looked_ms
            .map(|looked_ms| arrived_ms.saturating_sub(looked_ms));
        if let Some(boot) = self.boots.last_mut() {
            boot.take(ArrivedLine {
                arrived_ms,
                within_ms,
                line,
            });
        }
    }

    /// Reads complete lines that were added to the report; true when there were any.
    pub fn read_on(&mut self, report: &Path, now_ms: u64) -> std::io::Result<bool> {
        let read = self.read_lines(report, now_ms);
        self.looked_ms = Some(now_ms);
        read
    }

    fn read_lines(&mut self, report: &Path, now_ms: u64) -> std::io::Result<bool> {
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(report)?;
        let length = file.metadata()?.len();
        if length < self.offset {
            self.offset = 0;
        }
        if length == self.offset {
            return Ok(false);
        }
        // A guest that writes without end is not followed.
        let from = self.offset.max(length.saturating_sub(MAX_REPORT_BYTES));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&file).take(MAX_REPORT_BYTES).read_to_end(&mut bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        if length > MAX_REPORT_BYTES {
            // Nor does it fill the disk: QEMU appends, and goes on at the new end.
            file.set_len(0)?;
            self.offset = 0;
        } else if let Some(end) = end {
            self.offset = from + end as u64 + 1;
        }
        let Some(end) = end else {
            return Ok(false);
        };
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            if line.len() <= LINE_BYTES_MAX
                && let Ok(line) = serde_json::from_slice(line.trim_ascii())
            {
                self.take(line, now_ms);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_boot::boots::BOOTS_MAX;
    use std::io::Write as _;

    fn host() -> HostName {
        HostName::new("host1").unwrap()
    }

    #[test]
    fn the_running_system_registers_and_takes_it_back() {
        let home = tempfile::tempdir().unwrap();
        let report = home.path().join("report");
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&report)
            .unwrap();
        let mut log = BootLog::default();
        let registered = b"{\"registered\":{\"address\":\"10.77.0.101\",\"cpus\":2}}\n";
        file.write_all(registered).unwrap();
        assert!(log.read_on(&report, 70).unwrap());
        let known = log.times().registered.unwrap();
        assert_eq!((known.cpus, known.since_ms), (2, 70));
        assert!(log.boots.last().is_none(), "no part of a boot");
        // A guest that writes without end neither fills the disk nor hides what it says last.
        file.write_all(&vec![b'x'; MAX_REPORT_BYTES as usize])
            .unwrap();
        file.write_all(b"\n{\"unregistered\":true}\n").unwrap();
        assert!(log.read_on(&report, 80).unwrap());
        assert_eq!(log.times().registered, None);
        assert_eq!(file.metadata().unwrap().len(), 0);
        file.write_all(registered).unwrap();
        assert!(log.read_on(&report, 90).unwrap());
        assert_eq!(log.times().registered.unwrap().since_ms, 90);
    }

    #[test]
    fn lines_are_taken_once_when_they_are_complete() {
        let home = tempfile::tempdir().unwrap();
        let report = home.path().join("report");
        let mut file = std::fs::File::create(&report).unwrap();
        let mut log = BootLog::default();
        file.write_all(b"{\"phase\":\"init\",\"uptime_ms\":900}\nnoise\n{\"phase\":\"mod")
            .unwrap();
        assert!(log.read_on(&report, 10).unwrap());
        assert_eq!(log.times().phases_ms.len(), 1);
        assert!(!log.read_on(&report, 11).unwrap());
        file.write_all(b"ules\",\"uptime_ms\":950}\n{\"phase\":\"root\",\"error\":\"no disk\"}\n")
            .unwrap();
        assert!(log.read_on(&report, 14).unwrap());
        let times = log.times();
        assert_eq!(times.phases_ms["init"], 10);
        assert_eq!(times.phases_ms["modules"], 14);
        assert_eq!(times.uptimes_ms["modules"], 950);
        assert!(log.is_over() && times.error.unwrap().contains("no disk"));
        // When each was not there yet.
        let within: Vec<_> = log
            .boots
            .last()
            .unwrap()
            .lines
            .iter()
            .map(|line| line.within_ms)
            .collect();
        assert_eq!(within, [None, Some(3), Some(3)]);
        log.keep(home.path());
        let kept = BootLog::load(home.path(), &host());
        assert_eq!((&kept.boots, kept.offset), (&log.boots, log.offset));
        // A guest that reboots begins again, and what was before is kept.
        file.write_all(b"{\"phase\":\"init\",\"uptime_ms\":800}\n")
            .unwrap();
        assert!(log.read_on(&report, 20).unwrap());
        assert_eq!(log.times().phases_ms["init"], 20);
        assert!(!log.is_over());
        let boots: Vec<_> = log
            .boots
            .0
            .iter()
            .map(|boot| (boot.number, boot.rebooted))
            .collect();
        assert_eq!(boots, [(1, false), (2, true)]);
    }

    #[test]
    fn what_this_agent_did_is_of_the_boot_it_did_it_for() {
        let mut log = BootLog::new(&host());
        log.take_archive(1, 2);
        log.begin(Some(5), 6);
        log.did(HostWork::Emulator, 6, 7);
        let answered = |by: &str| Answered {
            ordered_ms: 0,
            answered_ms: 9,
            by: by.to_owned(),
        };
        assert!(log.answered(5, answered("ping")) && log.answered(5, answered("late")));
        assert!(!log.answered(4, answered("of another start")));
        for phase in [Phase::Init, Phase::Switch] {
            log.take(
                Line::Done {
                    phase,
                    uptime_ms: 1,
                },
                8,
            );
        }
        // Paused and gone on, moved: no part of the boot.
        log.did(HostWork::Processors, 50, 60);
        log.begin(Some(70), 71);
        let works: Vec<Vec<HostWork>> = log
            .boots
            .0
            .iter()
            .map(|boot| boot.host_spans.iter().map(|span| span.what).collect())
            .collect();
        assert_eq!(works, [vec![HostWork::Archive, HostWork::Emulator], vec![]]);
        assert_eq!(log.boots.0[0].answered.as_ref().unwrap().by, "ping");
        assert_eq!(log.times().asked_ms, Some(70));
        // What comes along from another host takes nothing from what is known here.
        let mut other = BootLog::new(&HostName::new("host2").unwrap());
        other.came_along(log.boots.clone());
        other.came_along(Boots::default());
        assert_eq!(other.boots, log.boots);
        // A guest that begins again does so where it is.
        for _ in 0..2 {
            let phase = Phase::Init;
            other.take(
                Line::Done {
                    phase,
                    uptime_ms: 1,
                },
                90,
            );
        }
        let hosts: Vec<&str> = other
            .boots
            .0
            .iter()
            .map(|boot| boot.host.as_str())
            .collect();
        assert_eq!(hosts, ["host1", "host1", "host2"]);
    }

    #[test]
    fn a_start_that_fails_takes_nothing_away() {
        let mut log = BootLog::new(&host());
        for asked_ms in 1..=BOOTS_MAX as u64 {
            log.begin(Some(asked_ms), asked_ms);
            log.came_about();
        }
        log.take_archive(20, 21);
        let known = (log.boots.clone(), log.archive);
        for asked_ms in 30..50 {
            log.begin(Some(asked_ms), asked_ms);
            log.did(HostWork::Interface, asked_ms, asked_ms);
            log.give_up();
            assert_eq!((&log.boots, &log.archive), (&known.0, &known.1));
        }
    }

    #[test]
    fn a_boot_is_its_own_though_the_agent_is_killed_while_it_begins() {
        let home = tempfile::tempdir().unwrap();
        let report = home.path().join("report");
        let mut log = BootLog::new(&host());
        for asked_ms in [5, 6, 7] {
            log.begin(Some(asked_ms), asked_ms);
            log.did(HostWork::Interface, asked_ms, asked_ms);
            if asked_ms == 5 {
                log.did(HostWork::Emulator, 5, 5);
                log.came_about();
                std::fs::write(&report, "{\"phase\":\"init\",\"uptime_ms\":9}\n").unwrap();
                log.read_on(&report, 5).unwrap();
            }
            log.keep(home.path());
            // Killed here; the second left no QEMU, the third did.
            log = BootLog::load(home.path(), &host());
        }
        std::fs::write(&report, "{\"phase\":\"init\",\"uptime_ms\":8}\n").unwrap();
        log.read_on(&report, 8).unwrap();
        let known: Vec<_> = log
            .boots
            .0
            .iter()
            .map(|boot| (boot.number, boot.asked_ms, boot.lines.len()))
            .collect();
        assert_eq!(known, [(1, Some(5), 1), (2, Some(7), 1)]);
    }

    #[test]
    fn a_log_of_before_boots_were_kept_is_read() {
        let home = tempfile::tempdir().unwrap();
        let text = br#"{"times":{"phases_ms":{"switch":9},"uptimes_ms":{"switch":7}},"lines":[{"arrived_ms":9,"line":{"phase":"switch","uptime_ms":7}}],"offset":33}"#;
        std::fs::write(home.path().join(FILE), text).unwrap();
        let log = BootLog::load(home.path(), &host());
        assert!(log.is_over());
        assert_eq!((log.times().phases_ms["switch"], log.offset), (9, 33));
    }
}

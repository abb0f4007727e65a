//! Telling the services of a clone that files of theirs were changed, in the words of its init.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use estive_archive::Service;
use estive_boot::push::ServiceAct;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::own_agent::{hand_over, is_own};
use crate::console::uptime_ms;

/// How long one service may take.
const PATIENCE_MS: u64 = 60_000;
const POLL: Duration = Duration::from_millis(20);
const WORDS_BYTES_MAX: usize = 4096;
/// Of one service in the report, which has a bound of its own.
const WORDS_CHARS_MAX: usize = 400;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where systemd reads units that a layer may change.
const UNITS: [&str; 4] = [
    "etc/systemd/system/",
    "lib/systemd/system/",
    "usr/lib/systemd/system/",
    "usr/local/lib/systemd/system/",
];

/// What is still to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Units were changed: systemd itself reads them again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    units: bool,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    restart: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    reload: BTreeSet<String>,
}

impl Due {
    pub fn is_empty(&self) -> bool {
        *self == Due::default()
    }

    /// Adds what a change of this path means.
    pub fn add(&mut self, path: &str, services: &[Service]) {
        self.units |= UNITS.iter().any(|units| path.starts_with(units));
        for service in services.iter().filter(|service| service.concerns(path)) {
            self.restart.extend(service.restart.iter().cloned());
            self.reload.extend(service.reload.iter().cloned());
        }
    }

    /// Each service once; one that restarts need not reload.
    fn acts(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let reload = self.reload.difference(&self.restart);
        let restart = self.restart.iter().map(|name| (name.as_str(), "restart"));
        restart.chain(reload.map(|name| (name.as_str(), "reload")))
    }

    /// What would be told.
    pub fn foretell(&self) -> Vec<ServiceAct> {
        let act = |(name, act): (&str, &str)| ServiceAct {
            name: name.to_owned(),
            act: act.to_owned(),
            failure: None,
        };
        self.acts().map(act).collect()
    }

    /// Tells all; what fails is said and stops nothing. The service that this program belongs to is told last, and only
    /// once the report can have been read.
    pub fn tell(&self, unions: &Path) -> Vec<ServiceAct> {
        let manager = Manager::of_running_system();
        let mut done = Vec::new();
        if self.units && manager == Some(Manager::Systemd) {
            // Said only when it fails: nobody asked for it by name.
            if let Err(failure) = run(&["systemctl", "daemon-reload"]) {
                done.push(ServiceAct {
                    name: "systemd".to_owned(),
                    act: "reload".to_owned(),
                    failure: Some(failure),
                });
            }
        }
        let (own, others): (Vec<_>, Vec<_>) = self.acts().partition(|(name, _)| is_own(name));
        for (name, act) in others.into_iter().chain(own) {
            let told = match manager {
                Some(manager) if is_own(name) => hand_over(manager, unions, name, act),
                Some(manager) => manager.tell(name, act),
                None => Err("this system has none of systemctl, rc-service and service".to_owned()),
            };
            done.push(ServiceAct {
                name: name.to_owned(),
                act: act.to_owned(),
                failure: told.err(),
            });
        }
        done
    }
}

/// What starts and ends services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Systemd,
    OpenRc,
    SysV,
}

impl Manager {
    pub fn of_running_system() -> Option<Manager> {
        let is_there = |path: &str| Path::new(path).exists();
        // As sd_booted(3), and what OpenRC makes when it runs.
        if is_there("/run/systemd/system") {
            Some(Manager::Systemd)
        } else if is_there("/run/openrc/softlevel") {
            Some(Manager::OpenRc)
        } else if is_there("/usr/sbin/service") || is_there("/sbin/service") {
            Some(Manager::SysV)
        } else {
            None
        }
    }

    /// A service that does not run is left alone: it reads its files when it starts.
    pub fn tell(self, name: &str, act: &str) -> std::result::Result<(), String> {
        match self {
            Manager::Systemd if act == "restart" => run(&["systemctl", "try-restart", name]),
            Manager::Systemd => run(&["systemctl", "try-reload-or-restart", name]),
            // Nor is one that is not there: distributions call the same service `ssh` and `sshd`.
            Manager::OpenRc => run(&["rc-service", "--ifexists", "--ifstarted", name, act]),
            Manager::SysV if !Path::new("/etc/init.d").join(name).exists() => {
                Err(format!("there is no /etc/init.d/{name}"))
            }
            Manager::SysV => match run(&["service", name, "status"]) {
                Ok(()) => run(&["service", name, act]),
                Err(_) => Ok(()),
            },
        }
    }
}

/// Runs a program to its end; the error is its last words.
pub fn run(words: &[&str]) -> std::result::Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut words = Words::of(&mut child)?;
    let started_ms = uptime_ms();
    let status = loop {
        words.hear();
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if uptime_ms() > started_ms + PATIENCE_MS => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no end after {} s", PATIENCE_MS / 1000));
            }
            Ok(None) => std::thread::sleep(POLL),
            Err(error) => return Err(format!("{program}: {error}")),
        }
    };
    match status.success() {
        true => Ok(()),
        false => Err(format!("{} ({status})", words.last())),
    }
}

/// What a program says on standard error. Never waited for: a daemon that it has started may keep it open as long as it
/// lives.
struct Words {
    from: Option<ChildStderr>,
    last: Vec<u8>,
}

impl Words {
    fn of(child: &mut Child) -> std::result::Result<Words, String> {
        let from = child.stderr.take();
        if let Some(from) = &from {
            rustix::fs::fcntl_setfl(from, OFlags::NONBLOCK)
                .map_err(|errno| format!("reading what it says: {errno}"))?;
        }
        Ok(Words {
            from,
            last: Vec::new(),
        })
    }

    /// Takes what there is, and keeps the end of it.
    fn hear(&mut self) {
        let Some(from) = &mut self.from else { return };
        let mut buffer = [0; WORDS_BYTES_MAX];
        // A program that says more and more is ended all the same.
        for _ in 0..1024 {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.last.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            let spare = self.last.len().saturating_sub(WORDS_BYTES_MAX);
            self.last.drain(..spare);
        }
    }

    fn last(mut self) -> String {
        self.hear();
        let words = String::from_utf8_lossy(&self.last);
        let words: Vec<&str> = words.split_whitespace().collect();
        let words = words.join(" ");
        let spare = words.chars().count().saturating_sub(WORDS_CHARS_MAX);
        words.chars().skip(spare).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(files: &str, restart: &[&str], reload: &[&str]) -> Service {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Service {
            files: vec![files.to_owned()],
            restart: names(restart),
            reload: names(reload),
        }
    }

    #[test]
    fn each_service_is_told_once_and_a_restart_is_enough() {
        let services = [
            service("etc/nginx/**", &["nginx"], &[]),
            service("var/www/**", &[], &["nginx", "varnish"]),
            service("etc/ssh/*", &["ssh"], &[]),
        ];
        let mut due = Due::default();
        for path in ["etc/nginx/a", "etc/nginx/b/c", "var/www/x"] {
            due.add(path, &services);
        }
        assert_eq!(
            due.acts().collect::<Vec<_>>(),
            [("nginx", "restart"), ("varnish", "reload")]
        );
        let mut none = Due::default();
        none.add("etc/hosts", &services);
        assert!(none.is_empty());
        none.add("etc/systemd/system/x.service.d/y.conf", &services);
        assert!(!none.is_empty() && none.acts().next().is_none());
    }

    #[test]
    fn a_program_that_fails_says_why() {
        assert_eq!(run(&["true"]), Ok(()));
        let said = run(&["sh", "-c", "echo no such thing >&2; exit 3"]).unwrap_err();
        assert!(said.starts_with("no such thing (exit status: 3"), "{said}");
        assert!(
            run(&["/no/such/program"])
                .unwrap_err()
                .contains("/no/such/program")
        );
    }

    #[test]
    fn much_is_heard_and_its_end_is_told() {
        let much = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo the end >&2; exit 3";
        let said = run(&["sh", "-c", much]).unwrap_err();
        assert!(said.ends_with("xxx the end (exit status: 3)"), "{said}");
        assert!(said.len() < 500, "{said}");
    }

    #[test]
    fn a_daemon_that_keeps_standard_error_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let fifo = home.path().join("end");
        let daemon = format!(
            "mkfifo {fifo}; cat {fifo} >&2 & echo no luck >&2; exit 3",
            fifo = fifo.display()
        );
        let said = run(&["sh", "-c", &daemon]).unwrap_err();
        // It lives, and ends only now.
        std::fs::write(&fifo, "").unwrap();
        assert!(said.starts_with("no luck (exit status: 3"), "{said}");
    }
}

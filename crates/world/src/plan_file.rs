//! A plan as it is kept in a file: with the names that it speaks of, and where everything was.

use serde::{Deserialize, Serialize};

use crate::{Act, DomainIx, HostIx, Indexed, Plan, World, WorldError};

/// The form that is written here.
const FORM: u32 = 1;
/// Bytes of a file.
const FILE_BYTES: usize = 256 << 20;

/// A plan that stands by itself: whoever carries it out has not the world it was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Which form it is in: 1.
    pub estive_plan: u32,
    /// [`World::placement_digest`] of the world that it was made for.
    pub placement: String,
    /// Names of hosts.
    pub hosts: Vec<String>,
    /// The site of each, by its number.
    pub sites: Vec<u32>,
    /// Names of domains.
    pub domains: Vec<String>,
    /// Where each was.
    pub at: Vec<Option<HostIx>>,
    /// Moves at once out of and into one host.
    pub moves_per_host: u32,
    /// Moves at once between two sites.
    pub moves_per_link: u32,
    /// The plan.
    pub plan: Plan,
}

impl PlanFile {
    /// The file of a plan for a world.
    pub fn new(world: &World, plan: Plan) -> Self {
        Self {
            estive_plan: FORM,
            placement: world.placement_digest(),
            hosts: world.hosts.iter().map(|host| host.name.clone()).collect(),
            sites: world.hosts.iter().map(|host| host.site.0).collect(),
            domains: world
                .domains
                .iter()
                .map(|domain| domain.name.clone())
                .collect(),
            at: world.domains.iter().map(|domain| domain.host).collect(),
            moves_per_host: world.rules.moves_per_host,
            moves_per_link: world.rules.moves_per_link,
            plan,
        }
    }

    /// Reads one that may be hostile: whatever it names is there.
    ///
    /// # Errors
    /// If it is none, of another form, or names what it has not.
    pub fn read(text: &str) -> Result<Self, WorldError> {
        let wrong = |what: String| WorldError::Form {
            what,
            advice: "make it with `estive plan --out FILE`".to_owned(),
        };
        if text.len() > FILE_BYTES {
            return Err(wrong(format!("a plan of {} bytes", text.len())));
        }
        let file: Self = serde_json::from_str(text)
            .map_err(|error| wrong(format!("this is no plan: {error}")))?;
        if file.estive_plan != FORM {
            return Err(wrong(format!("a plan of form {}", file.estive_plan)));
        }
        let (hosts, domains) = (file.hosts.len(), file.domains.len());
        if file.sites.len() != hosts || file.at.len() != domains {
            return Err(wrong(
                "a plan with more or fewer places than names".to_owned(),
            ));
        }
        let is_host = |host: HostIx| host.at() < hosts;
        if !file.at.iter().flatten().all(|host| is_host(*host)) {
            return Err(wrong("a domain that is on no host of the plan".to_owned()));
        }
        for (number, step) in file.plan.steps.iter().enumerate() {
            let (domain, of_hosts) = match step.act {
                Act::Move {
                    domain, from, to, ..
                }
                | Act::MoveReplica { domain, from, to } => (Some(domain), [Some(from), Some(to)]),
                Act::Place { domain, to } => (Some(domain), [Some(to), None]),
                Act::SwitchOn { host } | Act::SwitchOff { host } => (None, [Some(host), None]),
            };
            let is_known = domain.is_none_or(|domain| domain.at() < domains)
                && of_hosts.into_iter().flatten().all(is_host);
            let is_after = step.after.iter().all(|other| other.at() < number);
            if !is_known || !is_after {
                return Err(wrong(format!(
                    "step {} names what the plan has not",
                    number + 1
                )));
            }
        }
        Ok(file)
    }

    /// The plan as of a world with the same hosts and domains, which may have them in another order. None: it has not all of
    /// them.
    pub fn plan_of(&self, world: &World) -> Option<Plan> {
        use std::collections::HashMap;
        let hosts: HashMap<&str, HostIx> = (world.hosts.iter().enumerate())
            .map(|(at, host)| (&*host.name, HostIx::of(at)))
            .collect();
        let domains: HashMap<&str, DomainIx> = (world.domains.iter().enumerate())
            .map(|(at, domain)| (&*domain.name, DomainIx::of(at)))
            .collect();
        let host = |host: HostIx| hosts.get(&*self.hosts[host]).copied();
        let domain = |domain: DomainIx| domains.get(&*self.domains[domain]).copied();
        let mut plan = self.plan.clone();
        for step in &mut plan.steps {
            step.act = match step.act {
                Act::Move {
                    domain: of,
                    from,
                    to,
                    pivot,
                } => Act::Move {
                    domain: domain(of)?,
                    from: host(from)?,
                    to: host(to)?,
                    pivot,
                },
                Act::Place { domain: of, to } => Act::Place {
                    domain: domain(of)?,
                    to: host(to)?,
                },
                Act::MoveReplica {
                    domain: of,
                    from,
                    to,
                } => Act::MoveReplica {
                    domain: domain(of)?,
                    from: host(from)?,
                    to: host(to)?,
                },
                Act::SwitchOn { host: of } => Act::SwitchOn { host: host(of)? },
                Act::SwitchOff { host: of } => Act::SwitchOff { host: host(of)? },
            };
        }
        Some(plan)
    }

    /// Where a world differs from the one that the plan was made for, in words, a few at the most.
    pub fn differences(&self, world: &World) -> Vec<String> {
        use std::collections::BTreeMap;
        const FEW: usize = 3;
        let was: BTreeMap<&str, Option<&str>> = (self.domains.iter().zip(&self.at))
            .map(|(name, at)| (&**name, at.map(|host| &*self.hosts[host])))
            .collect();
        let is: BTreeMap<&str, Option<&str>> = (world.domains.iter())
            .map(|domain| {
                let host = domain.host.map(|host| &*world.hosts[host].name);
                (&*domain.name, host)
            })
            .collect();
        let place = |host: Option<&str>| host.unwrap_or("nowhere").to_owned();
        let mut words: Vec<String> = Vec::new();
        for (name, host) in &was {
            match is.get(name) {
                None => words.push(format!("{name} is gone")),
                Some(now) if now != host => words.push(format!(
                    "{name} is on {} and was on {}",
                    place(*now),
                    place(*host)
                )),
                Some(_) => {}
            }
        }
        words.extend(
            (is.keys().filter(|name| !was.contains_key(*name)))
                .map(|name| format!("{name} is new")),
        );
        if !world.operations.is_empty() {
            words.push(format!("{} moves are under way", world.operations.len()));
        }
        if words.len() > FEW {
            let more = words.len() - FEW;
            words.truncate(FEW);
            words.push(format!("{more} more"));
        }
        if words.is_empty() {
            words.push("a host or a domain is in another state".to_owned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Figures, Reason, Report, Step, StepIx};

    fn world(text: &str) -> World {
        World::from_text(text).unwrap()
    }

    fn file() -> PlanFile {
        let step = |to, after| Step {
            act: Act::Move {
                domain: DomainIx(0),
                from: HostIx(0),
                to: HostIx(to),
                pivot: false,
            },
            after,
            reason: Reason::Asked {
                what: "for a test".to_owned(),
            },
            figures: Figures::default(),
        };
        let plan = Plan {
            world: String::new(),
            objective: "balance".to_owned(),
            seed: 1,
            work: 2,
            steps: vec![step(1, vec![]), step(0, vec![StepIx(0)])],
            report: Report::default(),
        };
        PlanFile::new(&world("host a\nhost b\ndomain x on=a\ndomain y on=b"), plan)
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let text = serde_json::to_string(&file()).unwrap();
        assert_eq!(PlanFile::read(&text), Ok(file()));
    }

    #[test]
    fn a_plan_that_names_what_it_has_not_is_refused() {
        let text = serde_json::to_string(&file()).unwrap();
        for (from, to) in [
            ("\"to\":1", "\"to\":2"),
            ("\"domain\":0", "\"domain\":2"),
            ("\"after\":[0]", "\"after\":[1]"),
            ("\"at\":[0,1]", "\"at\":[0,2]"),
            ("\"at\":[0,1]", "\"at\":[0]"),
            ("\"estive_plan\":1", "\"estive_plan\":2"),
            ("\"hosts\":", "\"guests\":"),
            ("{", "["),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text, "{from}");
            assert!(PlanFile::read(&other).is_err(), "{to}");
        }
    }

    #[test]
    fn a_plan_is_followed_by_names_into_a_world_of_another_order() {
        let plan = file().plan_of(&world("host b\nhost a\ndomain y on=b\ndomain x on=a"));
        let acts: Vec<Act> = plan.unwrap().steps.iter().map(|step| step.act).collect();
        let act = |to| Act::Move {
            domain: DomainIx(1),
            from: HostIx(1),
            to: HostIx(to),
            pivot: false,
        };
        assert_eq!(acts, [act(0), act(1)]);
        assert_eq!(
            file().plan_of(&world("host a\nhost b\ndomain y on=b")),
            None
        );
    }

    #[test]
    fn a_world_that_has_moved_on_is_told_in_words() {
        for (text, said) in [
            (
                "host a\nhost b\ndomain x on=b\ndomain y on=b",
                "x is on b and was on a",
            ),
            ("host a\nhost b\ndomain x on=a", "y is gone"),
            (
                "host a\nhost b\ndomain x on=a\ndomain y on=b\ndomain z on=b",
                "z is new",
            ),
            (
                "host a\nhost b\ndomain x stopped on=a\ndomain y on=b",
                "another state",
            ),
            (
                "host a\nhost b\ndomain x on=a\ndomain y on=b\nmoving x to=b",
                "1 moves are under way",
            ),
        ] {
            let words = file().differences(&world(text)).join(", ");
            assert!(words.contains(said), "{words}");
        }
    }
}

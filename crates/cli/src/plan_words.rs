//! A plan in words: what each step does, and why.

use estive_world::{Act, DomainIx, HostIx, PlanFile, Reason, Step};

/// Names of what a plan speaks of.
pub struct Names<'f>(pub &'f PlanFile);

impl Names<'_> {
    /// The name of a domain.
    pub fn domain(&self, domain: DomainIx) -> &str {
        &self.0.domains[domain]
    }

    /// The name of a host.
    pub fn host(&self, host: HostIx) -> &str {
        &self.0.hosts[host]
    }

    /// What a step does.
    pub fn act(&self, step: &Step) -> String {
        match step.act {
            Act::Move {
                domain,
                from,
                to,
                pivot,
            } => {
                let for_now = if pivot { " for now" } else { "" };
                let (from, to) = (self.host(from), self.host(to));
                format!("move {} from {from} to {to}{for_now}", self.domain(domain))
            }
            Act::Place { domain, to } => {
                format!("start {} on {}", self.domain(domain), self.host(to))
            }
            Act::MoveReplica { domain, from, to } => format!(
                "copy {}'s disks to {}, give up those on {}",
                self.domain(domain),
                self.host(to),
                self.host(from)
            ),
            Act::SwitchOn { host } => format!("switch {} on", self.host(host)),
            Act::SwitchOff { host } => format!("switch {} off", self.host(host)),
        }
    }

    /// Why a step is there.
    pub fn reason(&self, step: &Step) -> String {
        match &step.reason {
            Reason::Repairs { rule } => format!("mends: {rule}"),
            Reason::Gains { what, .. } => what.clone(),
            Reason::MakesRoom { for_domain } => {
                format!("makes room for {}", self.domain(*for_domain))
            }
            Reason::Serves { what } | Reason::Asked { what } => what.clone(),
        }
    }

    /// Steps that it comes after, as people count them.
    pub fn after(&self, step: &Step) -> String {
        let numbers: Vec<String> = (step.after.iter())
            .map(|after| (u64::from(after.0) + 1).to_string())
            .collect();
        numbers.join(",")
    }
}

//! Digests: of all that a world says, and of where its domains are.

use sha2::{Digest, Sha256};

use crate::text::quoted;
use crate::{DomainLife, HostPower, World};

impl World {
    /// SHA-256 of its text, in hexadecimal: two worlds have the same where they say the same.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.to_text()))
    }

    /// SHA-256 over what a plan may not find changed: which hosts there are and whether they take domains, where each
    /// domain is and whether it runs, what is under way. What is used, the moment and the order of lines are not in it.
    pub fn placement_digest(&self) -> String {
        let mut lines = Vec::with_capacity(self.hosts.len() + self.domains.len());
        for host in &self.hosts {
            let state = match host.state {
                HostPower::On => "on",
                HostPower::Off => "off",
                HostPower::Unknown => "unknown",
            };
            let maintenance = if host.maintenance { " maintenance" } else { "" };
            lines.push(format!(
                "host {} {state}{maintenance}\n",
                quoted(&host.name)
            ));
        }
        for domain in &self.domains {
            // A domain that has nothing to do runs: only who looks at its load knows the difference.
            let life = match domain.life {
                DomainLife::Running | DomainLife::Idle => "runs",
                DomainLife::Stopped => "stopped",
            };
            let at = |host: Option<crate::HostIx>| match host {
                Some(host) => quoted(&self.hosts[host].name),
                None => "-".into(),
            };
            lines.push(format!(
                "domain {} {life} {} {}\n",
                quoted(&domain.name),
                at(domain.host),
                at(domain.replica),
            ));
        }
        for operation in &self.operations {
            lines.push(format!(
                "moving {} {}\n",
                quoted(&self.domains[operation.domain].name),
                quoted(&self.hosts[operation.to].name),
            ));
        }
        lines.sort_unstable();
        let mut sum = Sha256::new();
        for line in lines {
            sum.update(line);
        }
        hex(&sum.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use crate::World;

    fn world(text: &str) -> World {
        World::from_text(text).unwrap()
    }

    #[test]
    fn a_placement_is_where_domains_are_and_no_more() {
        let before = world("host a\nhost b\ndomain x on=a\ndomain y on=b\n");
        let busier =
            world("host b\nhost a\ndomain y on=b uses-cpu=1c\ndomain x idle on=a\nrules gain=1%");
        assert_eq!(before.placement_digest(), busier.placement_digest());
        assert_ne!(before.digest(), busier.digest());
        for other in [
            "host a\nhost b\ndomain x on=b\ndomain y on=b\n",
            "host a\nhost b\ndomain x on=a\n",
            "host a\nhost b\ndomain x on=a\ndomain y stopped on=b\n",
            "host a\nhost b\ndomain x on=a\ndomain y on=b\nmoving x to=b",
            "host a\nhost b maintenance\ndomain x on=a\ndomain y on=b\n",
            "host a\nhost b off\ndomain x on=a\ndomain y on=b\n",
            "host a\nhost b\nhost c\ndomain x on=a\ndomain y on=b\n",
        ] {
            assert_ne!(
                before.placement_digest(),
                world(other).placement_digest(),
                "{other}"
            );
        }
    }
}

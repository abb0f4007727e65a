//! What of its reference a clone was made of, and what of that the reference has another of by now. Pure.

use crate::reference::{LIVE_ROOT, Reference};
use estive_api::Endpoint;
use estive_api::domain_xml::LiveSource;
use estive_model::{Digest, DomainName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

/// What a clone starts with, as it was sent to its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MadeOf {
    /// The root's name.
    pub root: String,
    pub kernel: Digest,
    pub initramfs: Digest,
    /// It was made for a `root:` of the herd file, and is in no reference.
    #[serde(default)]
    pub own_initramfs: bool,
    pub modules: Digest,
    /// By what it mounts from its host's door, if it does.
    #[serde(default)]
    pub route: Option<Route>,
}

/// As its description has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub door: SocketAddrV4,
    pub origins: Vec<Endpoint>,
}

impl Route {
    fn of(live: &LiveSource) -> Self {
        Self {
            door: live.door,
            origins: live.origins.clone(),
        }
    }
}

impl MadeOf {
    /// `route` is the reference's where the clone mounts by it.
    pub fn new(reference: &Reference, initramfs: &Digest, route: Option<&LiveSource>) -> Self {
        Self {
            root: reference.root_name(),
            kernel: reference.kernel.digest.clone(),
            initramfs: initramfs.clone(),
            own_initramfs: *initramfs != reference.initramfs.digest,
            modules: reference.modules.digest.clone(),
            route: route.map(Route::of),
        }
    }

    /// It has no sealed root.
    pub fn is_live(&self) -> bool {
        self.root.starts_with(LIVE_ROOT)
    }

    /// The parts that are others in `now`, by their names in the manager's configuration; `route` is what `live:` and
    /// `shares:` say.
    pub fn older_than(&self, now: &Self) -> Vec<&'static str> {
        let others = [
            ("root", self.root != now.root),
            ("kernel", self.kernel != now.kernel),
            ("initramfs", self.initramfs != now.initramfs),
            ("modules", self.modules != now.modules),
            ("route", self.route != now.route),
        ];
        let others = others.into_iter().filter(|(_, is_other)| *is_other);
        others.map(|(part, _)| part).collect()
    }

    /// The same where the reference is all that is at hand: what was made for the clone alone is taken as it is.
    pub fn older_than_reference(&self, reference: &Reference) -> Vec<&'static str> {
        self.older_than(&self.of_now(reference))
    }

    /// What a clone made of this has of the reference as it is now; what was made for it alone it keeps.
    pub fn of_now(&self, reference: &Reference) -> Self {
        let initramfs = match self.own_initramfs {
            true => &self.initramfs,
            false => &reference.initramfs.digest,
        };
        // One that mounts nothing by the reference does not begin to, unless its root becomes another kind.
        let mounts = self.route.is_some() || self.is_live() != reference.root.is_none();
        let route = reference.route.as_ref().filter(|_| mounts);
        Self {
            own_initramfs: self.own_initramfs,
            ..Self::new(reference, initramfs, route)
        }
    }
}

/// Clones that an `up` found running on what their reference had before, and left so.
#[derive(Debug, Default)]
pub(crate) struct Older(BTreeMap<(String, Vec<&'static str>), Vec<DomainName>>);

impl Older {
    pub fn note(&mut self, domain: &DomainName, reference: &str, parts: Vec<&'static str>) {
        let of = self.0.entry((reference.to_owned(), parts)).or_default();
        of.push(domain.clone());
        of.sort();
    }

    /// A line for all clones that have the same in common.
    pub fn lines(&self) -> Vec<String> {
        let line = |((reference, parts), domains): (&(String, Vec<&str>), &Vec<DomainName>)| {
            let shown: Vec<&str> = domains.iter().take(SHOWN).map(DomainName::as_str).collect();
            let more = match domains.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "{}{more}: on an older {} of the reference {reference}, and left so; estive stop, then estive up \
                 again, takes the new",
                shown.join(", "),
                parts.join(", ")
            )
        };
        self.0.iter().map(line).collect()
    }
}

/// Names in one line.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_that_have_the_same_in_common_are_one_line() {
        let mut older = Older::default();
        for number in (1..=10).rev() {
            let name = DomainName::new(format!("a{number:02}")).unwrap();
            older.note(&name, "default", vec!["root", "kernel"]);
        }
        older.note(&DomainName::new("b").unwrap(), "default", vec!["kernel"]);
        let lines = older.lines();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("b: on an older kernel of"),
            "{lines:?}"
        );
        let many = "a01, a02, a03, a04, a05, a06, a07, a08 and 2 more: on an older root, kernel of the reference default";
        assert!(lines[1].starts_with(many), "{lines:?}");
    }
}

//! What a line `ask` of a file asks for where it is not a plan: `ask why=web`, `ask why-not=web,h2`, `ask place=new`,
//! `ask capacity=web`, `ask overbook=web`.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use estive_world::text::{Fields, Value};
use estive_world::{DomainIx, HostIx, Indexed, World, WorldError};

/// What a question of a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A plan: what is asked where nothing else is said.
    Plan,
    /// Why a domain is where it is ([`crate::why`]).
    Why(DomainIx),
    /// What stands in the way of a domain on a host ([`crate::why_not`]).
    WhyNot(DomainIx, HostIx),
    /// Places for these, all or none ([`crate::Placer::place_all`]).
    Place(Vec<DomainIx>),
    /// How many more like this domain fit ([`crate::capacity`]).
    Capacity(DomainIx),
    /// How many like this domain may be sold ([`crate::overbook()`]).
    Overbook(DomainIx),
}

/// Domains by name: made when the first line asks for one, so that no file takes long to read.
pub(crate) struct Named<'w> {
    world: &'w World,
    domains: OnceCell<BTreeMap<&'w str, DomainIx>>,
}

impl<'w> Named<'w> {
    /// Of a world.
    pub(crate) fn of(world: &'w World) -> Self {
        Self {
            world,
            domains: OnceCell::new(),
        }
    }

    fn domain(&self, value: &Value<'_>) -> Result<DomainIx, WorldError> {
        let name = value.name()?;
        let domains = self.domains.get_or_init(|| {
            (self.world.domains.iter().enumerate())
                .map(|(number, domain)| (domain.name.as_str(), DomainIx::of(number)))
                .collect()
        });
        let found = domains.get(&*name).copied();
        found.ok_or_else(|| value.fault(format!("no domain {name}"), "name domains of this world"))
    }
}

/// What a line asks for: one thing.
///
/// # Errors
/// With the place of what is wrong.
pub(crate) fn about(fields: &mut Fields<'_, '_>, named: &Named<'_>) -> Result<About, WorldError> {
    let world = named.world;
    let mut about = About::Plan;
    for key in ["why", "why-not", "place", "capacity", "overbook"] {
        let Some(value) = fields.key(key) else {
            continue;
        };
        if about != About::Plan {
            return Err(value.fault("a line asks two things", "make it two lines"));
        }
        let domain = || named.domain(value);
        about = match key {
            "why" => About::Why(domain()?),
            "why-not" => {
                let [what, host] = value.list()?[..] else {
                    return Err(value.fault(
                        format!("`{}` is not a domain and a host", value.raw),
                        "write why-not=DOMAIN,HOST",
                    ));
                };
                About::WhyNot(named.domain(&what)?, host_of(&host, world)?)
            }
            "place" => {
                let (mut domains, mut seen) = (Vec::new(), BTreeSet::new());
                for part in value.list()? {
                    let found = named.domain(&part)?;
                    if world.domains[found].host.is_some() || !seen.insert(found) {
                        return Err(part.fault(
                            format!("{} has a place, or is named twice", part.raw),
                            "name domains without on=, each once",
                        ));
                    }
                    domains.push(found);
                }
                About::Place(domains)
            }
            "capacity" => About::Capacity(domain()?),
            _ => About::Overbook(domain()?),
        };
    }
    Ok(about)
}

/// The host of a name.
///
/// # Errors
/// There is none.
pub(crate) fn host_of(value: &Value<'_>, world: &World) -> Result<HostIx, WorldError> {
    let name = value.name()?;
    let found = world.hosts.iter().position(|host| host.name == *name);
    let found =
        found.ok_or_else(|| value.fault(format!("no host {name}"), "name hosts of this world"))?;
    Ok(HostIx::of(found))
}

#[cfg(test)]
mod tests {
    use estive_world::text;

    use super::*;
    use crate::asked;

    const WORLD: &str = "host h1\nhost \"h 2\"\n";

    #[test]
    fn a_line_may_ask_something_else_than_a_plan() {
        let text = format!(
            "{WORLD}domain web on=h1\ndomain new\ndomain other\nask\nask why=web objective=cost\n\
             ask why-not=web,\"h 2\"\nask place=new,other\nask capacity=web\nask overbook=web\n"
        );
        let abouts: Vec<About> = (asked(&text::read(&text).unwrap()).unwrap().into_iter())
            .map(|asked| asked.about)
            .collect();
        let web = DomainIx(0);
        assert_eq!(
            abouts,
            [
                About::Plan,
                About::Why(web),
                About::WhyNot(web, HostIx(1)),
                About::Place(vec![DomainIx(1), DomainIx(2)]),
                About::Capacity(web),
                About::Overbook(web),
            ]
        );
        for (line, said) in [
            ("ask why=mail", "line 6, column 9: no domain mail"),
            (
                "ask why-not=web",
                "column 13: `web` is not a domain and a host",
            ),
            ("ask why-not=web,h3", "column 17: no host h3"),
            (
                "ask place=new,new",
                "column 15: new has a place, or is named twice",
            ),
            ("ask place=web", "column 11: web has a place"),
            (
                "ask why=web capacity=web",
                "column 22: a line asks two things",
            ),
        ] {
            let text = format!("{WORLD}domain web on=h1\ndomain new\ndomain other\n{line}");
            let fault = asked(&text::read(&text).unwrap()).unwrap_err().to_string();
            assert!(fault.contains(said), "{line}: {fault}");
        }
    }
}

//! Where new clones go: a pure function of what is asked and what every host still has, by the planner's rule.

use estive_api::Problem;
use estive_api::wire::Placement;
use estive_model::{DomainName, HostName};
use estive_planner::{Objective, Placer, Term, Weighted};
use estive_world::{
    Domain, DomainIx, Host, HostIx, HostPower, Indexed, Ratio, Relation, Reserved, ReservedKind,
    Site, World,
};
use serde_json::json;
use std::collections::BTreeMap;

/// What may be promised of a host's cores: the manager bounds memory alone.
pub const CPUS_MILLI: u32 = 1_000_000;

/// A clone that needs a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The clone.
    pub domain: DomainName,
    /// Memory it needs, in MiB.
    pub memory_mib: u64,
    /// Its virtual processors.
    pub cpus: u32,
    /// The only host it may go to, if its herd file names one.
    pub pinned: Option<HostName>,
}

/// What a host has, and has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The host.
    pub host: HostName,
    /// Declared memory that is not promised to a domain, in MiB; `None` while the host is unknown.
    pub free_memory_mib: Option<u64>,
    /// All memory that it declares, in MiB.
    pub memory_mib: u64,
    /// Cores that it declares.
    pub cores: u32,
    /// Virtual processors that are promised there.
    pub promised_cpus: u64,
}

/// Gives every wish a host, or says with counts why that cannot be.
///
/// The rule is the planner's, for `balance`: pinned clones first, then the largest first, ties by name; each goes where
/// declared memory and processors are promised most evenly over the hosts then, ties by name. Unknown hosts have no part.
/// Weakness: a greedy choice can fail where some other order would just fit; it then refuses, it never overcommits.
///
/// The answer is in the order of the wishes.
pub fn place(wishes: &[Wish], spaces: &[Space]) -> Result<Vec<Placement>, Problem> {
    let mut left: Vec<Space> = spaces.to_vec();
    left.sort_by(|a, b| a.host.cmp(&b.host));
    let mut order: Vec<&Wish> = wishes.iter().collect();
    order.sort_by(|a, b| a.domain.cmp(&b.domain));
    let world = world(&order, &left);
    let all: Vec<DomainIx> = (0..order.len()).map(DomainIx::of).collect();
    let mut placer = Placer::new(&world, &balance()).map_err(Problem::failed)?;
    let mut placed: BTreeMap<&DomainName, Placement> = BTreeMap::new();
    match placer.place_all(&all) {
        Ok(places) => {
            for place in places {
                let wish = order[place.domain.at()];
                placed.insert(&wish.domain, settle(wish, &mut left, place.host));
            }
        }
        Err(none) => {
            for place in none.beside {
                settle(order[place.domain.at()], &mut left, place.host);
            }
            return Err(shortage(order[none.domain.at()], wishes, &left, spaces));
        }
    }
    // Each has found a place, or the function has returned.
    Ok((wishes.iter())
        .filter_map(|wish| placed.remove(&wish.domain))
        .collect())
}

/// Wishes that wait, and hosts with what is promised there.
fn world(wishes: &[&Wish], spaces: &[Space]) -> World {
    let mut world = World {
        sites: vec![Site::named("here")],
        ..World::default()
    };
    let Ratio([_, others @ ..]) = Ratio::default();
    let ratio = Ratio([CPUS_MILLI, others[0], others[1], others[2]]);
    world.rules.overbook.insert(String::new(), ratio);
    for (number, wish) in wishes.iter().enumerate() {
        let mut domain = Domain::named(wish.domain.as_str());
        domain.reserved[ReservedKind::Vcpus] = u64::from(wish.cpus);
        domain.reserved[ReservedKind::MemoryMib] = wish.memory_mib;
        world.domains.push(domain);
        if let Some(pinned) = &wish.pinned {
            let named = spaces.iter().position(|space| space.host == *pinned);
            let hosts = named.map(HostIx::of).into_iter().collect();
            let only = Relation::Only(vec![DomainIx::of(number)], hosts);
            world.rules.relations.push(only);
        }
    }
    for (number, space) in spaces.iter().enumerate() {
        let free_mib = space.free_memory_mib.unwrap_or(0);
        let memory_mib = space.memory_mib.max(free_mib);
        let mut host = Host::named(space.host.as_str());
        host.capacity = Reserved([u64::from(space.cores.max(1)), memory_mib, 0, 0]);
        if space.free_memory_mib.is_none() {
            host.state = HostPower::Unknown;
        }
        world.hosts.push(host);
        // All that is promised there, as one.
        let mut there = Domain::named(space.host.as_str());
        there.host = Some(HostIx::of(number));
        there.reserved = Reserved([space.promised_cpus, memory_mib - free_mib, 0, 0]);
        world.domains.push(there);
    }
    world
}

fn balance() -> Objective {
    let weighted = Weighted {
        term: Term::Balance,
        weight: 1.0,
    };
    Objective {
        ranks: vec![vec![weighted]],
    }
}

/// Takes what a wish needs of its host, and says why it is there.
fn settle(wish: &Wish, left: &mut [Space], host: HostIx) -> Placement {
    let free = |space: &Space| space.free_memory_mib.unwrap_or_default();
    let most_mib = left.iter().map(free).max().unwrap_or_default();
    let space = &mut left[host.at()];
    let free_mib = free(space);
    let reason = match &wish.pinned {
        Some(_) => format!("its herd file names this host ({free_mib} MiB free)"),
        None if free_mib == most_mib => format!("most free memory: {free_mib} MiB"),
        None => format!("hosts are most even with it there: {free_mib} MiB free"),
    };
    space.free_memory_mib = Some(free_mib.saturating_sub(wish.memory_mib));
    Placement {
        domain: wish.domain.clone(),
        host: space.host.clone(),
        reason,
    }
}

fn shortage(wish: &Wish, wishes: &[Wish], left: &[Space], spaces: &[Space]) -> Problem {
    let needs = wish.memory_mib;
    if let Some(pinned) = &wish.pinned {
        match spaces.iter().find(|space| space.host == *pinned) {
            None => {
                let known = names(spaces.iter());
                return Problem::impossible(format!(
                    "{} is to run on {pinned}, and there is no such host; there are: {known}",
                    wish.domain
                ))
                .advice("correct host: in the herd file")
                .details(json!({ "host": pinned, "hosts": known }));
            }
            Some(space) if space.free_memory_mib.is_none() => {
                return Problem::unreachable(format!(
                    "{} is to run on {pinned}, whose agent does not answer",
                    wish.domain
                ))
                .advice("estive hosts, to see why; start the agent there");
            }
            Some(_) => {}
        }
    }
    if spaces.iter().all(|space| space.free_memory_mib.is_none()) {
        let silent = names(spaces.iter());
        return Problem::unreachable(format!(
            "no host answers, so {} can be placed nowhere; silent: {silent}",
            wish.domain
        ))
        .advice("estive hosts, to see why; start the agents there")
        .details(json!({ "domain": wish.domain, "silent": silent }));
    }
    let free = |spaces: &[Space]| -> serde_json::Map<String, serde_json::Value> {
        spaces
            .iter()
            .filter_map(|space| Some((space.host.to_string(), json!(space.free_memory_mib?))))
            .collect()
    };
    let unknown: Vec<&Space> = spaces
        .iter()
        .filter(|space| space.free_memory_mib.is_none())
        .collect();
    let mut has: Vec<String> = left
        .iter()
        .filter_map(|space| Some(format!("{} {} MiB", space.host, space.free_memory_mib?)))
        .collect();
    if !unknown.is_empty() {
        has.push(format!("{} silent", unknown.len()));
    }
    let has = has.join(", ");
    let total_needs: u64 = wishes.iter().map(|wish| wish.memory_mib).sum();
    let total_free: u64 = spaces
        .iter()
        .filter_map(|space| space.free_memory_mib)
        .sum();
    Problem::impossible(format!(
            "not enough declared memory: {} needs {needs} MiB and no host it may run on has that left ({has}; all {} \
             clones together need {total_needs} MiB of {total_free} MiB free)",
            wish.domain,
            wishes.len()
    ))
    .advice("lower memory_mib, take another deployment down, or declare more memory in an agent's capacity")
    .details(json!({
        "domain": wish.domain,
        "needs_mib": needs,
        "free_mib": free(spaces),
        "left_mib": free(left),
        "silent": names(unknown.into_iter()),
        "total_needs_mib": total_needs,
        "total_free_mib": total_free,
    }))
}

fn names<'a>(spaces: impl Iterator<Item = &'a Space>) -> String {
    spaces
        .map(|space| space.host.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::ProblemKind;
    use proptest::prelude::*;

    fn wish(name: &str, memory_mib: u64, pinned: Option<&str>) -> Wish {
        Wish {
            domain: DomainName::new(name).unwrap(),
            memory_mib,
            cpus: 1,
            pinned: pinned.map(|host| HostName::new(host).unwrap()),
        }
    }

    fn space(name: &str, free: Option<u64>) -> Space {
        Space {
            host: HostName::new(name).unwrap(),
            free_memory_mib: free,
            memory_mib: 8192,
            cores: 4,
            promised_cpus: 0,
        }
    }

    fn hosts(placements: &[Placement]) -> Vec<&str> {
        placements
            .iter()
            .map(|placement| placement.host.as_str())
            .collect()
    }

    #[test]
    fn equal_clones_spread_over_equal_hosts_by_name() {
        let wishes: Vec<Wish> = (1..=4)
            .map(|n| wish(&format!("clone0{n}"), 384, None))
            .collect();
        let spaces = [
            space("h2", Some(2048)),
            space("h1", Some(2048)),
            space("h3", Some(2048)),
        ];
        let placed = place(&wishes, &spaces).unwrap();
        assert_eq!(hosts(&placed), ["h1", "h2", "h3", "h1"]);
        assert_eq!(placed[0].reason, "most free memory: 2048 MiB");
    }

    #[test]
    fn the_larger_of_two_hosts_that_are_as_full_takes_it() {
        let large = Space {
            memory_mib: 16384,
            ..space("large", Some(6000))
        };
        let placed = place(&[wish("a", 384, None)], &[space("h1", Some(3000)), large]).unwrap();
        assert_eq!(hosts(&placed), ["large"]);
    }

    #[test]
    fn processors_that_are_promised_count_and_bound_nothing() {
        let busy = Space {
            promised_cpus: 9,
            ..space("h1", Some(2048))
        };
        let spaces = [busy.clone(), space("h2", Some(2048))];
        let placed = place(&[wish("a", 384, None)], &spaces).unwrap();
        assert_eq!(hosts(&placed), ["h2"]);
        assert_eq!(placed[0].reason, "most free memory: 2048 MiB");
        let placed = place(&[wish("a", 384, None)], &[busy]).unwrap();
        assert_eq!(hosts(&placed), ["h1"]);
    }

    #[test]
    fn a_pin_is_kept_and_others_make_room_for_it() {
        let wishes = [wish("a", 600, None), wish("b", 600, Some("h1"))];
        let placed = place(&wishes, &[space("h1", Some(1000)), space("h2", Some(700))]).unwrap();
        assert_eq!(hosts(&placed), ["h2", "h1"]);
    }

    #[test]
    fn too_little_memory_is_said_with_counts() {
        let wishes = [wish("a", 300, None), wish("b", 300, None)];
        let problem = place(
            &wishes,
            &[
                space("h1", Some(500)),
                space("h2", Some(200)),
                space("h3", None),
            ],
        )
        .unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Impossible);
        assert!(problem.error.contains("b needs 300 MiB"), "{problem}");
        assert!(
            problem.error.contains("h1 200 MiB, h2 200 MiB, 1 silent"),
            "{problem}"
        );
        assert_eq!(problem.details["free_mib"]["h1"], 500);
    }

    #[test]
    fn silent_hosts_are_not_used() {
        let problem = place(&[wish("a", 1, None)], &[space("h1", None)]).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Unreachable);
        let pinned = [wish("a", 1, Some("h1"))];
        let problem = place(&pinned, &[space("h1", None), space("h2", Some(9))]).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Unreachable);
        let problem = place(&pinned, &[space("h2", Some(9))]).unwrap_err();
        assert!(problem.error.contains("no such host"), "{problem}");
    }

    proptest! {
        #[test]
        fn nothing_is_overcommitted_and_every_wish_is_answered(
            memories in proptest::collection::vec((1u64..2000, proptest::option::of(0usize..4)), 0..12),
            free in proptest::collection::vec(proptest::option::of(0u64..6000), 1..5),
        ) {
            let spaces: Vec<Space> = free.iter().enumerate().map(|(n, free)| space(&format!("h{n}"), *free)).collect();
            let wishes: Vec<Wish> = memories.iter().enumerate().map(|(n, (memory, pinned))| {
                wish(&format!("c{n}"), *memory, pinned.map(|n| format!("h{n}")).as_deref())
            }).collect();
            if let Ok(placed) = place(&wishes, &spaces) {
                prop_assert_eq!(placed.len(), wishes.len());
                for (wish, placement) in wishes.iter().zip(&placed) {
                    prop_assert_eq!(&wish.domain, &placement.domain);
                    if let Some(pinned) = &wish.pinned {
                        prop_assert_eq!(pinned, &placement.host);
                    }
                }
                for space in &spaces {
                    let used: u64 = wishes.iter().zip(&placed)
                        .filter(|(_, placement)| placement.host == space.host)
                        .map(|(wish, _)| wish.memory_mib).sum();
                    prop_assert!(used <= space.free_memory_mib.unwrap_or(0));
                }
            }
        }
    }
}

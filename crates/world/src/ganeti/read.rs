//! Ganeti's text form, read: groups, nodes, instances, tags and policies, with an empty line between two.

use std::collections::{HashMap, HashSet};

use super::loads::{WHOLE_RATE, read_loads};
use super::{Ganeti, LOCAL, instance, node, whole_number};
use crate::text::units::{COUNT, read_real};
use crate::text::{Value, limits};
use crate::{
    Domain, DomainLife, Host, HostIx, Indexed, Ratio, Reserved, Site, SiteIx, Used, World,
    WorldError,
};

impl Ganeti {
    /// Reads a cluster, and its loads where they are known; a domain without a load uses nothing that is known.
    ///
    /// # Errors
    /// With the place of the first thing that is wrong.
    pub fn read(data: &str, loads: Option<&str>) -> Result<Self, WorldError> {
        let sections = sections(data)?;
        let [groups, nodes, instances, tags, policies] = &sections;
        let mut world = World::default();
        world.rules.use_at_most_milli = [0; 4];
        let mut groups_by_id = HashMap::new();
        for row in groups {
            let row = fields(row, 3, "group")?;
            let name = name(&row[0])?;
            groups_by_id.insert(row[1].raw, SiteIx::of(world.sites.len()));
            world.sites.push(Site::named(name));
        }
        let nodes = (nodes.iter())
            .map(|row| fields(row, node::LEAST, "node"))
            .collect::<Result<Vec<_>, _>>()?;
        let mut hosts = HashMap::new();
        for row in &nodes {
            let mut host = Host::named(name(&row[node::NAME])?);
            if hosts
                .insert(row[node::NAME].raw, HostIx::of(world.hosts.len()))
                .is_some()
            {
                return Err(row[0].fault(format!("a second node {}", host.name), "leave one out"));
            }
            host.site = *groups_by_id.get(row[node::GROUP].raw).ok_or_else(|| {
                row[node::GROUP].fault("no group has this id", "the groups stand above the nodes")
            })?;
            if row[node::STATE].raw == "Y" || row[1..7].iter().any(|field| field.raw == "?") {
                host.capacity = Reserved::NONE;
                host.maintenance = true;
            } else {
                host.capacity = Reserved([
                    COUNT.read(&row[node::CPUS])?.min(1_000_000),
                    COUNT.read(&row[node::MEMORY])?,
                    COUNT.read(&row[node::DISK])?,
                    row.get(node::SPINDLES)
                        .map_or(Ok(1), |field| COUNT.read(field))?,
                ]);
                if let Some(field) = row.get(node::CPU_SPEED) {
                    let speed = read_real(field, &[("", 0)], "1.0")?;
                    host.core_speed_milli = (speed * 1000.0).round().min(1e9) as u32;
                }
            }
            world.hosts.push(host);
        }
        let cores = world.hosts.iter().map(|host| host.capacity.0[0]).max();
        let memory_mib = world.hosts.iter().map(|host| host.capacity.0[1]).max();
        let whole = Used([
            cores.unwrap_or(0).saturating_mul(1_000_000),
            memory_mib.unwrap_or(0).saturating_mul(1024),
            WHOLE_RATE,
            WHOLE_RATE,
        ]);
        for host in &mut world.hosts {
            host.speed = whole;
        }
        let loads = loads.map(read_loads).transpose()?.unwrap_or_default();
        let instances = (instances.iter())
            .map(|row| fields(row, instance::LEAST, "instance"))
            .collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::new();
        for row in &instances {
            let domain = read_instance(row, &hosts, &loads, &whole)?;
            if !seen.insert(row[instance::NAME].raw) {
                let what = format!("a second instance {}", domain.name);
                return Err(row[0].fault(what, "leave one out"));
            }
            world.domains.push(domain);
        }
        // Groups may have their own policies: the tightest holds for all.
        let mut tightest: Option<Ratio> = None;
        for row in policies {
            if let Some(ratio) = read_policy(row)? {
                tightest = Some(match tightest {
                    Some(Ratio(most)) => {
                        Ratio(std::array::from_fn(|kind| most[kind].min(ratio.0[kind])))
                    }
                    None => ratio,
                });
            }
        }
        if let Some(ratio) = tightest {
            world.rules.overbook.insert(String::new(), ratio);
        }
        let owned = |rows: &[Vec<Value<'_>>]| -> Vec<Vec<String>> {
            (rows.iter())
                .map(|row| row.iter().map(|field| field.raw.to_owned()).collect())
                .collect()
        };
        let lines = |rows: &[Value<'_>]| rows.iter().map(|row| row.raw.to_owned()).collect();
        let mut cluster = Self {
            groups: lines(groups),
            nodes: owned(&nodes),
            instances: owned(&instances),
            before: (world.domains.iter())
                .map(|domain| (domain.host, domain.replica))
                .collect(),
            tags: lines(tags),
            policies: lines(policies),
            world,
        };
        cluster.count_system()?;
        Ok(cluster)
    }

    /// What is neither free nor an instance's is the system's.
    fn count_system(&mut self) -> Result<(), WorldError> {
        let taken = self.taken(&self.before);
        for (at, host) in self.world.hosts.iter_mut().enumerate() {
            for (kind, field) in [(1, node::FREE_MEMORY), (2, node::FREE_DISK)] {
                let free = whole_number(&self.nodes[at][field]).unwrap_or(0);
                let left = i128::from(host.capacity.0[kind]) - free - taken[at][kind - 1];
                host.system.0[kind] = u64::try_from(left.max(0)).unwrap_or(0);
            }
        }
        Ok(())
    }
}

/// The five parts of the file, each a vector of its lines.
fn sections(data: &str) -> Result<[Vec<Value<'_>>; 5], WorldError> {
    if data.len() > limits::TEXT_BYTES {
        let what = format!("a file of {} bytes", data.len());
        return Err(WorldError::text(1, 1, what, "make two clusters of it"));
    }
    let mut sections: [Vec<Value<'_>>; 5] = Default::default();
    let mut at = 0;
    for (line, raw) in (1..).zip(data.lines()) {
        let value = Value {
            raw,
            line,
            column: 1,
        };
        if raw.len() > limits::LINE_BYTES {
            return Err(value.fault("a line is too long", "lines have at most 1 MiB"));
        }
        if raw.is_empty() {
            at += 1;
            continue;
        }
        match sections.get_mut(at) {
            Some(section) if section.len() < limits::DOMAINS => section.push(value),
            Some(_) => return Err(value.fault("too many lines", "make two clusters of it")),
            None => {
                return Err(value.fault(
                    "a sixth part",
                    "groups, nodes, instances, tags and policies, with an empty line between two",
                ));
            }
        }
    }
    if at < 3 {
        return Err(WorldError::text(
            1,
            1,
            format!("{} parts where there should be 4 or 5", at + 1),
            "groups, nodes, instances, tags and policies, with an empty line between two",
        ));
    }
    Ok(sections)
}

/// The fields of a line.
fn fields<'a>(line: &Value<'a>, least: usize, of: &str) -> Result<Vec<Value<'a>>, WorldError> {
    let mut column = 1;
    let mut fields = Vec::with_capacity(least + 6);
    for raw in line.raw.split('|') {
        fields.push(Value {
            raw,
            line: line.line,
            column,
        });
        column += u32::try_from(raw.chars().count()).unwrap_or(0) + 1;
    }
    if fields.len() < least || fields.len() > 64 {
        return Err(line.fault(
            format!("{} fields of a {of}", fields.len()),
            format!("a {of} has at least {least}, with | between two"),
        ));
    }
    Ok(fields)
}

fn name(value: &Value<'_>) -> Result<String, WorldError> {
    if value.raw.is_empty() || value.raw.len() > limits::NAME_BYTES {
        return Err(value.fault("a name is empty or too long", "write a name"));
    }
    if value.raw.contains(char::is_control) {
        return Err(value.fault("a control character in a name", "take it out"));
    }
    Ok(value.raw.to_owned())
}

fn read_instance(
    row: &[Value<'_>],
    hosts: &HashMap<&str, HostIx>,
    loads: &HashMap<&str, [f64; 4]>,
    whole: &Used,
) -> Result<Domain, WorldError> {
    let mut domain = Domain::named(name(&row[instance::NAME])?);
    let host = |field: &Value<'_>| {
        hosts.get(field.raw).copied().ok_or_else(|| {
            field.fault(
                format!("no node {}", field.raw),
                "the nodes stand above the instances",
            )
        })
    };
    domain.host = Some(host(&row[instance::PRIMARY])?);
    if !row[instance::SECONDARY].raw.is_empty() {
        domain.replica = Some(host(&row[instance::SECONDARY])?);
        if domain.replica == domain.host {
            return Err(row[instance::SECONDARY].fault(
                "primary and secondary are the same node",
                "leave the secondary empty",
            ));
        }
    }
    // Ganeti keeps memory for what is down, not for what is offline.
    domain.life = match row[instance::STATUS].raw {
        "running" | "ERROR_up" => DomainLife::Running,
        "ADMIN_offline" => DomainLife::Stopped,
        _ => DomainLife::Idle,
    };
    domain.pinned = row[instance::AUTO_BALANCE].raw == "N";
    let is_local = LOCAL.contains(&row[instance::TEMPLATE].raw);
    let local = |amount: u64| if is_local { amount } else { 0 };
    let spindles = row
        .get(instance::SPINDLES)
        .map_or(Ok(1), |field| COUNT.read(field))?;
    domain.reserved = Reserved([
        COUNT.read(&row[instance::CPUS])?.min(1_000_000),
        COUNT.read(&row[instance::MEMORY])?,
        local(COUNT.read(&row[instance::DISK])?),
        local(spindles),
    ]);
    if let Some(load) = loads.get(row[instance::NAME].raw) {
        domain.used = Used(std::array::from_fn(|kind| {
            (load[kind] * whole.0[kind] as f64)
                .round()
                .min(limits::AMOUNT as f64) as u64
        }));
    }
    Ok(domain)
}

/// How much may be promised by a policy: `owner|…|…|…|CPUS|SPINDLES`.
fn read_policy(line: &Value<'_>) -> Result<Option<Ratio>, WorldError> {
    let row = fields(line, 1, "policy")?;
    let [.., cpus, spindles] = &row[..] else {
        return Ok(None);
    };
    let ratio = |field: &Value<'_>| {
        read_real(field, &[("", 0)], "4.0").map(|ratio| (ratio * 1000.0).round().min(4e9) as u32)
    };
    Ok(Some(Ratio([ratio(cpus)?, 1000, 1000, ratio(spindles)?])))
}

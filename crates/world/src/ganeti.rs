//! Ganeti's text form (`htools -t`) with its file of loads (`hbal -U`): read as a world, written so that hbal may judge it.
//!
//! What Ganeti has and a world has not (tags, policies, kinds of disks) is kept beside the world and written again as it was.
//! A group is a site of its own, without a link to others: hbal moves nothing between groups either. Loads are shares of a
//! host without saying of which: each host gets the speed of the fastest, so that a share stays the same share everywhere,
//! and no rule bounds what is used, as in hbal. Disks on shared storage take no room of a host, spindles neither.

use std::collections::{HashMap, HashSet};

use crate::text::units::{COUNT, read_real};
use crate::text::{Value, common, limits};
use crate::{
    Domain, DomainLife, HostIx, Indexed, Ratio, Reserved, Site, SiteIx, Used, World, WorldError,
};

/// Bytes per second that a load of 1 of disk or network stands for.
const WHOLE_RATE: u64 = 1_000_000_000;

/// A cluster: the world in it, and the rest of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Ganeti {
    /// What a planner needs of it.
    pub world: World,
    groups: Vec<String>,
    /// Fields of each node, in the order of `World::hosts`.
    nodes: Vec<Vec<String>>,
    /// Fields of each instance, in the order of `World::domains`.
    instances: Vec<Vec<String>>,
    /// Where each instance was and had its copy when the file was written: free memory and disk there are counted from that.
    before: Vec<(Option<HostIx>, Option<HostIx>)>,
    tags: Vec<String>,
    policies: Vec<String>,
}

/// Fields of a node.
mod node {
    pub const NAME: usize = 0;
    pub const MEMORY: usize = 1;
    pub const FREE_MEMORY: usize = 3;
    pub const DISK: usize = 4;
    pub const FREE_DISK: usize = 5;
    pub const CPUS: usize = 6;
    pub const STATE: usize = 7;
    pub const GROUP: usize = 8;
    pub const SPINDLES: usize = 9;
    pub const CPU_SPEED: usize = 14;
    /// Fields that every version writes.
    pub const LEAST: usize = 9;
}

/// Fields of an instance.
mod instance {
    pub const NAME: usize = 0;
    pub const MEMORY: usize = 1;
    pub const DISK: usize = 2;
    pub const CPUS: usize = 3;
    pub const STATUS: usize = 4;
    pub const AUTO_BALANCE: usize = 5;
    pub const PRIMARY: usize = 6;
    pub const SECONDARY: usize = 7;
    pub const TEMPLATE: usize = 8;
    pub const SPINDLES: usize = 10;
    /// Fields that every version writes.
    pub const LEAST: usize = 10;
}

/// Kinds of disks that are on the hosts themselves.
const LOCAL: [&str; 2] = ["drbd", "plain"];

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
            world.sites.push(common::site(&name));
        }
        let nodes = (nodes.iter())
            .map(|row| fields(row, node::LEAST, "node"))
            .collect::<Result<Vec<_>, _>>()?;
        let mut hosts = HashMap::new();
        for row in &nodes {
            let mut host = common::host(&name(&row[node::NAME])?);
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

    /// A cluster for a world that does not come from Ganeti.
    ///
    /// # Errors
    /// If a name cannot stand in such a file, or a domain is nowhere.
    pub fn of(world: &World) -> Result<Self, WorldError> {
        let id = |site: usize| format!("00000000-0000-4000-8000-{site:012}");
        for name in (world.sites.iter().map(|site: &Site| &site.name))
            .chain(world.hosts.iter().map(|host| &host.name))
            .chain(world.domains.iter().map(|domain| &domain.name))
        {
            if name.is_empty() || name.contains(['|', ' ', '\t']) || name.contains(char::is_control)
            {
                return Err(WorldError::Form {
                    what: format!("the name {name:?} cannot stand in Ganeti's form"),
                    advice: "take out spaces and |".to_owned(),
                });
            }
        }
        let groups = (world.sites.iter().enumerate())
            .map(|(at, site)| format!("{}|{}|preferred||", site.name, id(at)))
            .collect();
        let instances: Vec<Vec<String>> = (world.domains.iter())
            .map(|domain| {
                let status = match domain.life {
                    DomainLife::Running => "running",
                    DomainLife::Idle => "ADMIN_down",
                    DomainLife::Stopped => "ADMIN_offline",
                };
                let template = match (domain.replica, domain.reserved.0[2]) {
                    (Some(_), _) => "drbd",
                    (None, 0) => "ext",
                    (None, _) => "plain",
                };
                let [cpus, memory, disk, spindles] = domain.reserved.0;
                [
                    domain.name.clone(),
                    memory.to_string(),
                    disk.to_string(),
                    cpus.to_string(),
                    status.to_owned(),
                    if domain.pinned { "N" } else { "Y" }.to_owned(),
                    String::new(),
                    String::new(),
                    template.to_owned(),
                    String::new(),
                    spindles.to_string(),
                    "-".to_owned(),
                ]
                .to_vec()
            })
            .collect();
        let mut cluster = Self {
            groups,
            nodes: vec![Vec::new(); world.hosts.len()],
            instances,
            before: (world.domains.iter())
                .map(|domain| (domain.host, domain.replica))
                .collect(),
            tags: Vec::new(),
            policies: policies(world),
            world: world.clone(),
        };
        let taken = cluster.taken(&cluster.before);
        cluster.nodes = (world.hosts.iter().enumerate())
            .map(|(at, host)| {
                let free = |kind: usize| {
                    i128::from(host.capacity.0[kind])
                        - i128::from(host.system.0[kind])
                        - taken[at][kind - 1]
                };
                [
                    host.name.clone(),
                    host.capacity.0[1].to_string(),
                    host.system.0[1].to_string(),
                    free(1).max(0).to_string(),
                    host.capacity.0[2].to_string(),
                    free(2).max(0).to_string(),
                    host.capacity.0[0].to_string(),
                    if at == 0 { "M" } else { "N" }.to_owned(),
                    id(host.site.at()),
                    host.capacity.0[3].max(1).to_string(),
                    String::new(),
                    "N".to_owned(),
                    "0".to_owned(),
                    host.system.0[0].to_string(),
                    format!("{:.3}", f64::from(host.core_speed_milli) / 1000.0),
                ]
                .to_vec()
            })
            .collect();
        Ok(cluster)
    }

    /// The file, with the domains where `world` has them.
    ///
    /// # Errors
    /// If `world` has other hosts or domains, or a domain is nowhere.
    pub fn data(&self, world: &World) -> Result<String, WorldError> {
        let is_same = world.hosts.len() == self.nodes.len()
            && world.domains.len() == self.instances.len()
            && (world.hosts.iter().zip(&self.nodes)).all(|(host, row)| host.name == row[0])
            && (world.domains.iter().zip(&self.instances))
                .all(|(domain, row)| domain.name == row[0]);
        if !is_same {
            return Err(WorldError::Form {
                what: "this world has other hosts or domains than the cluster".to_owned(),
                advice: "read the cluster that it was made from".to_owned(),
            });
        }
        let now: Vec<(Option<HostIx>, Option<HostIx>)> = (world.domains.iter())
            .map(|domain| (domain.host, domain.replica))
            .collect();
        let (was_taken, is_taken) = (self.taken(&self.before), self.taken(&now));
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (at, row) in self.nodes.iter().enumerate() {
            let mut row = row.clone();
            for (kind, field) in [(0, node::FREE_MEMORY), (1, node::FREE_DISK)] {
                if let Some(free) = whole_number(&row[field]) {
                    row[field] = (free + was_taken[at][kind] - is_taken[at][kind]).to_string();
                }
            }
            nodes.push(row.join("|"));
        }
        let mut instances = Vec::with_capacity(self.instances.len());
        for (domain, row) in world.domains.iter().zip(&self.instances) {
            let Some(host) = domain.host else {
                return Err(WorldError::Form {
                    what: format!("{} is nowhere", domain.name),
                    advice: "give it a place first: Ganeti's form knows no other".to_owned(),
                });
            };
            let mut row = row.clone();
            row[instance::PRIMARY].clone_from(&world.hosts[host].name);
            row[instance::SECONDARY] = domain
                .replica
                .map_or_else(String::new, |host| world.hosts[host].name.clone());
            instances.push(row.join("|"));
        }
        let mut text = String::new();
        for (at, section) in [&self.groups, &nodes, &instances, &self.tags, &self.policies]
            .into_iter()
            .enumerate()
        {
            if at > 0 {
                text.push('\n');
            }
            for line in section {
                text.push_str(line);
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// The file of loads for `hbal -U`.
    pub fn loads(world: &World) -> String {
        use std::fmt::Write;
        let whole: [f64; 4] = std::array::from_fn(|kind| {
            let speed = world.hosts.iter().map(|host| host.speed.0[kind]).max();
            speed.filter(|speed| *speed > 0).unwrap_or(WHOLE_RATE) as f64
        });
        let mut text = String::new();
        for domain in &world.domains {
            text.push_str(&domain.name);
            for (used, whole) in domain.used.0.iter().zip(whole) {
                let _ = write!(text, " {:.9}", *used as f64 / whole);
            }
            text.push('\n');
        }
        text
    }

    /// Memory and disk that instances take of each host, in MiB.
    fn taken(&self, places: &[(Option<HostIx>, Option<HostIx>)]) -> Vec<[i128; 2]> {
        let mut taken = vec![[0; 2]; self.world.hosts.len()];
        for ((row, domain), (host, replica)) in
            self.instances.iter().zip(&self.world.domains).zip(places)
        {
            let disk = match LOCAL.contains(&&*row[instance::TEMPLATE]) {
                true => i128::from(domain.reserved.0[2]),
                false => 0,
            };
            if let Some(host) = host {
                if domain.life != DomainLife::Stopped {
                    taken[host.at()][0] += i128::from(domain.reserved.0[1]);
                }
                taken[host.at()][1] += disk;
            }
            if let Some(replica) = replica.filter(|replica| Some(*replica) != *host) {
                taken[replica.at()][1] += disk;
            }
        }
        taken
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

/// A number that may be below 0, as Ganeti writes what is free.
fn whole_number(text: &str) -> Option<i128> {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    whole.parse::<i64>().ok().map(i128::from)
}

fn read_instance(
    row: &[Value<'_>],
    hosts: &HashMap<&str, HostIx>,
    loads: &HashMap<&str, [f64; 4]>,
    whole: &Used,
) -> Result<Domain, WorldError> {
    let mut domain = common::domain(&name(&row[instance::NAME])?);
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

fn read_loads(text: &str) -> Result<HashMap<&str, [f64; 4]>, WorldError> {
    let mut loads = HashMap::new();
    for (line, raw) in (1..).zip(text.lines()) {
        let whole_line = Value {
            raw,
            line,
            column: 1,
        };
        let mut words = raw.split_whitespace();
        let Some(name) = words.next() else {
            continue;
        };
        let mut load = [0.0; 4];
        for kind in &mut load {
            let raw = words.next().ok_or_else(|| {
                whole_line.fault(
                    "fewer than four loads",
                    "write NAME CPU MEMORY DISK NETWORK",
                )
            })?;
            *kind = read_real(&Value { raw, ..whole_line }, &[("", 0)], "0.25")?;
        }
        if words.next().is_some() {
            return Err(
                whole_line.fault("more than four loads", "write NAME CPU MEMORY DISK NETWORK")
            );
        }
        loads.insert(name, load);
    }
    Ok(loads)
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

/// Policies that allow everything a world allows.
fn policies(world: &World) -> Vec<String> {
    let usual = world.rules.overbook.get("").copied().unwrap_or_default();
    let shapes = "1024,1,1024,1,1,1|0,1,0,0,0,1;1073741824,1000000,1073741824,16,16,1000000";
    let templates = "diskless,file,sharedfile,plain,blockdev,drbd,rbd,ext";
    let ratios = [0, 3]
        .map(|kind| format!("{:?}", f64::from(usual.0[kind]) / 1000.0))
        .join("|");
    std::iter::once("")
        .chain(world.sites.iter().map(|site| &*site.name))
        .map(|owner| format!("{owner}|{shapes}|{templates}|{ratios}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "\
group1|uuid-1|preferred||

a|196608|4096|184320|8388608|8286208|16|M|uuid-1|1||N|0|1|1.0
b|196608|4096|192512|8388608|8286208|16|N|uuid-1|1||N|0|1|1.0

vm1|8192|76800|4|running|Y|a||ext||1|-
vm2|4096|102400|2|ADMIN_offline|Y|a|b|drbd|tag|1|-


|1024,1,1024,1,1,1|128,1,0,0,1,1;131072,64,8388608,16,8,12|ext|3.5|1000.0
";

    #[test]
    fn a_cluster_is_read_as_ganeti_means_it() {
        let cluster = Ganeti::read(DATA, Some("vm1 0.25 0.5 0.001 0.002\n")).unwrap();
        let world = &cluster.world;
        assert_eq!(world.hosts[0].system.0[1], 4096);
        assert_eq!(world.hosts[1].system.0[2], 0);
        assert_eq!(world.domains[0].reserved, Reserved([4, 8192, 0, 0]));
        assert_eq!(world.domains[1].reserved, Reserved([2, 4096, 102_400, 1]));
        assert_eq!(world.domains[1].replica, Some(HostIx(1)));
        assert_eq!(world.domains[1].life, DomainLife::Stopped);
        assert_eq!(
            world.domains[0].used,
            Used([4_000_000, 96 << 20, 1_000_000, 2_000_000])
        );
        assert_eq!(
            world.rules.overbook[""],
            Ratio([3500, 1000, 1000, 1_000_000])
        );
        assert_eq!(
            Ganeti::loads(world).lines().next(),
            Some("vm1 0.250000000 0.500000000 0.001000000 0.002000000")
        );
    }

    #[test]
    fn what_was_read_is_written_as_it_was_and_a_move_takes_its_memory_along() {
        let cluster = Ganeti::read(DATA, None).unwrap();
        assert_eq!(cluster.data(&cluster.world).unwrap(), DATA);
        let mut after = cluster.world.clone();
        after.domains[0].host = Some(HostIx(1));
        let text = cluster.data(&after).unwrap();
        assert!(text.contains("a|196608|4096|192512|"), "{text}");
        assert!(text.contains("b|196608|4096|184320|"), "{text}");
        assert!(text.contains("vm1|8192|76800|4|running|Y|b||ext"), "{text}");
        // What a file says of a cluster survives the text form of a world.
        let again = World::from_text(&after.to_text()).unwrap();
        assert_eq!(cluster.data(&again).unwrap(), text);
    }

    #[test]
    fn another_world_becomes_a_cluster_that_is_read_back() {
        let world = World::from_text(
            "host a cpus=8c memory=32G disk=1T spindles=2\nhost b\ndomain x on=a cpus=2c disk=10G\ndomain y on=b\n",
        )
        .unwrap();
        let cluster = Ganeti::of(&world).unwrap();
        let text = cluster.data(&world).unwrap();
        let back = Ganeti::read(&text, Some(&Ganeti::loads(&world))).unwrap();
        assert_eq!(back.world.domains, world.domains);
        assert_eq!(back.world.hosts[0].capacity, world.hosts[0].capacity);
        assert_eq!(back.world.hosts[0].system, world.hosts[0].system);
    }

    #[test]
    fn what_is_no_cluster_is_refused_where_it_goes_wrong() {
        for (from, to, said) in [
            ("|a||ext", "|c||ext", "line 6, column 28: no node c"),
            ("b|196608", "a|196608", "line 4, column 1: a second node a"),
            ("vm2", "vm1", "line 7, column 1: a second instance vm1"),
            ("|a|b|drbd", "|a|a|drbd", "the same node"),
            (
                "|uuid-1|1||N|0|1|1.0\nb",
                "|uuid-2|1||N|0|1|1.0\nb",
                "no group has this id",
            ),
            ("|8192|76800", "|many|76800", "line 6, column 5: `many`"),
            ("\n\n\n|", "\n\n\n\n|", "a sixth part"),
        ] {
            let text = DATA.replacen(from, to, 1);
            assert_ne!(text, DATA, "{from}");
            let fault = Ganeti::read(&text, None).unwrap_err().to_string();
            assert!(fault.contains(said), "{fault}");
        }
        assert!(Ganeti::read("", None).is_err());
        assert!(Ganeti::read(DATA, Some("vm1 0.1 0.2")).is_err());
    }
}

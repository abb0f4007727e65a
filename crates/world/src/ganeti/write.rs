//! Ganeti's text form, written: of a world that came from it, or of any other.

use super::{Ganeti, instance, node, whole_number};
use crate::{DomainLife, HostIx, Indexed, Site, World, WorldError};

impl Ganeti {
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

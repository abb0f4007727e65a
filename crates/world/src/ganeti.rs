//! Ganeti's text form (`htools -t`) with its file of loads (`hbal -U`): read as a world, written so that hbal may judge it.
//!
//! What Ganeti has and a world has not (tags, policies, kinds of disks) is kept beside the world and written again as it was.
//! A group is a site of its own, without a link to others: hbal moves nothing between groups either. Loads are shares of a
//! host without saying of which: each host gets the speed of the fastest, so that a share stays the same share everywhere,
//! and no rule bounds what is used, as in hbal. Disks on shared storage take no room of a host, spindles neither.

mod loads;
mod read;
mod write;

use crate::{DomainLife, HostIx, Indexed, World};

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

/// A number that may be below 0, as Ganeti writes what is free.
fn whole_number(text: &str) -> Option<i128> {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    whole.parse::<i64>().ok().map(i128::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ratio, Reserved, Used};

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

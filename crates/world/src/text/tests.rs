//! What is read is what was written; what is wrong is said where it is; no text brings a reader down.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{limits, read};
use crate::{
    Deployment, Domain, DomainIx, DomainLife, Host, HostIx, HostPower, Hysteresis, Indexed, Link,
    Operation, OwnerHours, PowerCurve, Ratio, Relation, Reserved, Rules, Scope, Site, SiteIx, Talk,
    Tariff, Used, User, UserIx, Volume, VolumeIx, Window, World, WorldError,
};

/// Choices that follow from a seed.
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
    fn is(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.is() { Some(make(self)) } else { None }
    }
    /// Small, large, round and odd.
    fn amount(&mut self, most: u64) -> u64 {
        let amount = match self.next() % 4 {
            0 => 0,
            1 => self.next() % 100,
            2 => (self.next() % 100) * 1_000_000,
            _ => self.next(),
        };
        amount % (most + 1)
    }
    fn small(&mut self) -> u32 {
        u32::try_from(self.amount(u64::from(u32::MAX))).unwrap()
    }
    fn real(&mut self) -> f64 {
        match self.next() % 3 {
            0 => 0.0,
            1 => (self.next() % 100_000) as f64 / 7.0,
            _ => (self.next() % 1000) as f64,
        }
    }
    fn reserved(&mut self) -> Reserved {
        Reserved([
            self.amount(1_000_000),
            self.amount(10_000_000_000),
            self.amount(10_000_000_000),
            self.amount(limits::AMOUNT),
        ])
    }
    fn used(&mut self) -> Used {
        Used(std::array::from_fn(|_| self.amount(limits::AMOUNT)))
    }
    /// Places of a vector, no one twice.
    fn places(&mut self, of: usize) -> Vec<usize> {
        (0..of).filter(|_| self.next().is_multiple_of(3)).collect()
    }
    fn name(&mut self, word: &str, number: usize) -> String {
        let odd = ["", " ", "\"", "\\", ",", "=", "#", "é", "\u{2028}"];
        format!("{word}{}{number}", odd[self.below(odd.len())])
    }
    fn words(&mut self) -> BTreeSet<String> {
        (0..self.below(3)).map(|at| self.name("w", at)).collect()
    }
}

fn world(seed: u64) -> World {
    let mut some = Choices(seed | 1);
    let (sites, hosts, domains) = (1 + some.below(3), some.below(5), some.below(8));
    let others = some.below(3);
    let mut world = World {
        at_s: some.amount(limits::AMOUNT),
        window_s: some.small(),
        ..World::default()
    };
    for at in 0..sites {
        let mut from_s = 0;
        world.sites.push(Site {
            name: some.name("site", at),
            rate_bytes_per_s: some.amount(limits::AMOUNT),
            latency_us: some.small(),
            energy: (0..some.below(3))
                .map(|_| {
                    from_s += 1 + some.next() % 9999;
                    Tariff {
                        from_s,
                        micro_per_kwh: some.amount(limits::AMOUNT),
                    }
                })
                .collect(),
        });
    }
    for one in 0..sites {
        for other in one + 1..sites {
            if some.is() {
                world.links.push(Link {
                    ends: (SiteIx::of(one), SiteIx::of(other)),
                    rate_bytes_per_s: some.amount(limits::AMOUNT),
                    latency_us: some.small(),
                    micro_per_gib: some.amount(limits::AMOUNT),
                });
            }
        }
    }
    for at in 0..hosts {
        world.hosts.push(Host {
            name: some.name("host", at),
            site: SiteIx::of(some.below(sites)),
            capacity: some.reserved(),
            system: some.reserved(),
            speed: some.used(),
            own_use: some.used(),
            core_speed_milli: some.small(),
            cpu_model: some.some(|some| some.name("model", 1)).unwrap_or_default(),
            features: some.words(),
            power: PowerCurve {
                watts: (0..some.below(4)).map(|_| some.real()).collect(),
                off_watts: some.real(),
                boot_s: some.small(),
                boot_wh: some.real(),
                halt_s: some.small(),
            },
            state: [HostPower::On, HostPower::Off, HostPower::Unknown][some.below(3)],
            maintenance: some.is(),
            owner: some.some(|some| OwnerHours {
                hours: (0..some.below(9))
                    .map(|_| (some.next() % 168) as u8)
                    .collect(),
            }),
            owner_present: some.is(),
            price_micro_per_h: some.amount(limits::AMOUNT),
            until_s: some.some(|some| some.amount(limits::AMOUNT)),
        });
    }
    for at in 0..others {
        world.users.push(User {
            name: some.name("user", at),
            quota: if some.is() {
                some.reserved()
            } else {
                Reserved([u64::MAX; 4])
            },
            share: some.small(),
        });
        world.deployments.push(Deployment {
            name: some.name("deployment", at),
        });
        world.volumes.push(Volume {
            name: some.name("volume", at),
            reach: some.places(hosts).into_iter().map(HostIx::of).collect(),
        });
    }
    for at in 0..domains {
        let windows = some.below(4);
        let host = |some: &mut Choices| {
            (hosts > 0)
                .then(|| some.some(|some| HostIx::of(some.below(hosts))))
                .flatten()
        };
        let domain = Domain {
            name: some.name("domain", at),
            host: host(&mut some),
            life: [DomainLife::Running, DomainLife::Idle, DomainLife::Stopped][some.below(3)],
            reserved: some.reserved(),
            used: some.used(),
            windows: (0..windows).map(|_| Window { used: some.used() }).collect(),
            forecast: some.some(Choices::used),
            dirtied_bytes_per_s: some.amount(limits::AMOUNT),
            hot_kib: some.amount(limits::AMOUNT),
            class: some.some(|some| some.name("class", 1)).unwrap_or_default(),
            deployment: (others > 0).then(|| some.below(others) as u32),
            user: (others > 0).then(|| UserIx::of(some.below(others))),
            priority: some.next() as i32,
            home: host(&mut some),
            pinned: some.is(),
            needs: some.words(),
            volumes: some.places(others).into_iter().map(VolumeIx::of).collect(),
            replica: host(&mut some),
            moved_s: some.some(|some| some.amount(limits::AMOUNT)),
        };
        world.domains.push(domain);
    }
    for one in 0..domains {
        for other in one + 1..domains {
            if some.is() {
                world.talks.push(Talk {
                    pair: (DomainIx::of(one), DomainIx::of(other)),
                    bytes_per_s: some.amount(limits::AMOUNT),
                    messages_per_s: some.small(),
                });
            }
        }
        if let Some(from) = world.domains[one].host
            && hosts > 1
        {
            world.operations.push(Operation {
                domain: DomainIx::of(one),
                to: HostIx::of((from.at() + 1) % hosts),
            });
        }
    }
    world.rules = rules(&mut some, hosts, domains);
    world
}

fn rules(some: &mut Choices, hosts: usize, domains: usize) -> Rules {
    let ratio = |some: &mut Choices| Ratio(std::array::from_fn(|_| some.small()));
    let mut overbook = BTreeMap::from([(String::new(), ratio(some))]);
    for at in 0..some.below(3) {
        overbook.insert(some.name("class", at), ratio(some));
    }
    let mut relations = Vec::new();
    for _ in 0..if domains > 0 { some.below(5) } else { 0 } {
        let mut of: Vec<DomainIx> = some.places(domains).into_iter().map(DomainIx::of).collect();
        if of.is_empty() {
            of.push(DomainIx(0));
        }
        let mut on: Vec<HostIx> = some.places(hosts).into_iter().map(HostIx::of).collect();
        if on.is_empty() && hosts > 0 {
            on.push(HostIx(0));
        }
        let scope = [Scope::Host, Scope::Site][some.below(2)];
        relations.push(match some.below(if hosts > 0 { 4 } else { 2 }) {
            0 => Relation::Together(scope, of),
            1 => Relation::Apart(scope, of),
            2 => Relation::Only(of, on),
            _ => Relation::Never(of, on),
        });
    }
    Rules {
        overbook,
        use_at_most_milli: std::array::from_fn(|_| some.small()),
        one_may_fail: some.is(),
        moves_per_host: some.small(),
        moves_per_link: some.small(),
        relations,
        hysteresis: Hysteresis {
            cooldown_s: some.small(),
            gain_at_least_ppm: some.small(),
            pays_back_within_s: some.small(),
        },
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_and_written_the_same(seed in any::<u64>()) {
        let world = world(seed);
        let text = world.to_text();
        let read = World::from_text(&text);
        prop_assert_eq!(read.as_ref(), Ok(&world), "{}", text);
        prop_assert_eq!(read.unwrap().to_text(), text);
    }

    #[test]
    fn no_text_brings_the_reader_down(
        seed in any::<u64>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), ".{0,3}"), 1..6),
    ) {
        let mut text: Vec<char> = world(seed).to_text().chars().collect();
        for (at, new) in cuts {
            if !text.is_empty() {
                let at = at.index(text.len());
                let end = (at + new.chars().count()).min(text.len());
                text.splice(at..end, new.chars());
            }
        }
        let text: String = text.into_iter().collect();
        // What is still read is a world that can be written and read again.
        if let Ok(world) = World::from_text(&text) {
            prop_assert_eq!(World::from_text(&world.to_text()), Ok(world));
        }
    }
}

#[test]
fn a_small_world_is_read_as_a_person_means_it() {
    let text = "\
# Two machines and a web server.
host big cpus=32c memory=128G
host small  maintenance
domain web on=big cpus=4c memory=8G uses-cpu=1.5c pinned # it stays
domain db on=small idle
talk db web rate=10MB/s
apart web db
ask objective=balance
";
    let document = read(text).unwrap();
    let world = document.world;
    assert_eq!(world.sites[0].name, "here");
    assert_eq!(
        world.hosts[0].capacity,
        Reserved([32, 128 << 10, 1 << 20, 0])
    );
    assert_eq!(
        world.hosts[0].speed,
        Used([32_000_000, 128 << 20, 0, 125_000_000])
    );
    assert!(world.hosts[1].maintenance);
    assert_eq!(world.domains[0].used.0[0], 1_500_000);
    assert_eq!(world.domains[1].life, DomainLife::Idle);
    assert_eq!(world.talks[0].pair, (DomainIx(0), DomainIx(1)));
    assert_eq!(document.asks.len(), 1);
    assert_eq!(
        world.to_text(),
        "\
site here
host big cpus=32c memory=128G
host small maintenance
domain web pinned on=big cpus=4c memory=8G uses-cpu=1.5c
domain db idle on=small
talk web db rate=10MB/s
apart web db
"
    );
}

#[test]
fn a_mistake_is_said_with_its_place_and_what_to_do() {
    for (text, said) in [
        (
            "hots a",
            "line 1, column 1: no line begins with `hots`; known are",
        ),
        (
            "host",
            "line 1, column 1: host without the name of a host; write host NAME",
        ),
        (
            "host a cpu=4c",
            "line 1, column 8: host knows no cpu=; its keys are site cpus",
        ),
        (
            "host a cpus=4q",
            "column 13: `4q` has no ending that is known here; write it like 4c",
        ),
        (
            "host a up",
            "column 8: `up` says nothing of a host; known are off unknown",
        ),
        (
            "host a\nhost a",
            "line 2, column 6: a second host a; give it another name",
        ),
        (
            "domain d on=a",
            "column 13: no host a above this line; write `host a …`",
        ),
        (
            "host a\ndomain d on=a,a",
            "column 13: `,` in the name `a,a`; write \"a,a\"",
        ),
        (
            "host a\nvolume v reach=a,a",
            "line 2, column 18: a is named twice",
        ),
        (
            "domain a\ndomain b\ntalk a b\ntalk b a",
            "line 4, column 1: a and b talk a second",
        ),
        (
            "domain a\ntalk a a",
            "line 2, column 8: a domain that talks to itself",
        ),
        (
            "host h\ndomain a\nmoving a to=h",
            "line 3, column 8: a domain that is nowhere",
        ),
        (
            "host h\ndomain a on=h\nmoving a to=h",
            "it is there already",
        ),
        (
            "domain a windows-cpu=1c,2c windows-net=1B/s",
            "1 windows beside 2; write as many",
        ),
        (
            "site a energy=0.1@7h,0.2",
            "column 22: the price 0.2 does not begin after",
        ),
        ("rules\nrules", "line 2, column 1: a second line `rules `"),
        (
            "domain a\ntogether a in=rack",
            "`rack` is neither host nor site",
        ),
        ("domain a\nonly a", "only without on=; write on=…"),
        (
            "host a owner=9-5",
            "`9-5` are no hours; write it like mon-fri/8-18",
        ),
        ("domain a idle stopped", "idle and stopped"),
        ("world at=1 at=2", "at is said twice on one line"),
    ] {
        let fault = World::from_text(text).unwrap_err();
        let WorldError::Text { .. } = fault else {
            panic!("{fault:?}");
        };
        assert!(fault.to_string().contains(said), "{text}: {fault}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let long_name = format!("host {}", "a".repeat(256));
    let long_line = format!("host a features={}", "a,".repeat(1 << 19));
    let many_keys: String =
        (0..200).fold("host a".to_owned(), |text, at| format!("{text} k{at}=1"));
    let many_asks = "ask\n".repeat(1001);
    for text in [&long_name, &long_line, &many_keys, &many_asks] {
        assert!(World::from_text(text).is_err());
    }
    assert!(World::from_text("host a memory=99999P").is_err());
    assert!(World::from_text("host a cpus=2000000c").is_err());
}

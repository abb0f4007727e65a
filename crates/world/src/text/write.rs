//! From a world to its text.

use std::fmt::Write;

use super::units::{
    COUNT, KIB, MICROSECONDS, MOMENT, Measure, PER_GIB, PER_HOUR, PER_KWH, PER_S, PPM, RATE, RATIO,
    SECONDS, SHARE, write_real,
};
use super::{
    FORECAST_KEYS, OWN_KEYS, RESERVED_KEYS, RESERVED_MEASURES, SPEED_KEYS, SYSTEM_KEYS,
    USE_AT_MOST_KEYS, USED_MEASURES, USES_KEYS, WINDOWS_KEYS, hours, quoted,
};
use crate::{
    Domain, DomainIx, DomainLife, Host, HostIx, HostPower, Hysteresis, Link, OwnerHours, Ratio,
    Relation, Rules, Scope, Site, SiteIx, User, World,
};

/// A line that grows.
struct Out(String);

impl Out {
    fn line(&mut self, word: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(word);
    }
    fn bare(&mut self, word: &str) {
        self.0.push(' ');
        self.0.push_str(word);
    }
    fn name(&mut self, name: &str) {
        self.bare(&quoted(name));
    }
    fn key(&mut self, key: &str, value: &str) {
        let _ = write!(self.0, " {key}={value}");
    }
    /// A key, unless its value is the common one.
    fn amount(&mut self, key: &str, measure: &Measure, amount: u64, common: u64) {
        if amount != common {
            self.key(key, &measure.write(amount));
        }
    }
    fn amounts(
        &mut self,
        keys: &[&str; 4],
        measures: &[&Measure; 4],
        amounts: &[u64; 4],
        common: &[u64; 4],
    ) {
        for kind in 0..4 {
            self.amount(keys[kind], measures[kind], amounts[kind], common[kind]);
        }
    }
    fn real(&mut self, key: &str, number: f64, ending: &str) {
        if number != 0.0 {
            self.key(key, &format!("{}{ending}", write_real(number)));
        }
    }
    fn names<'a>(&mut self, key: &str, names: impl IntoIterator<Item = &'a str>) {
        let list: Vec<_> = names.into_iter().map(quoted).collect();
        if !list.is_empty() {
            self.key(key, &list.join(","));
        }
    }
    fn flag(&mut self, word: &str, is_so: bool) {
        if is_so {
            self.bare(word);
        }
    }
}

/// The whole text, ended by a newline.
pub fn world(world: &World) -> String {
    let mut out = Out(String::new());
    if world.at_s != 0 || world.window_s != 0 {
        out.line("world");
        out.amount("at", &MOMENT, world.at_s, 0);
        out.amount("window", &SECONDS, u64::from(world.window_s), 0);
    }
    rules(&mut out, &world.rules);
    for each in &world.sites {
        site(&mut out, each);
    }
    for each in &world.links {
        link(&mut out, world, each);
    }
    for each in &world.hosts {
        host(&mut out, world, each);
    }
    for each in &world.users {
        user(&mut out, each);
    }
    for deployment in &world.deployments {
        out.line("deployment");
        out.name(&deployment.name);
    }
    for volume in &world.volumes {
        out.line("volume");
        out.name(&volume.name);
        out.names("reach", hosts(world, &volume.reach));
    }
    for each in &world.domains {
        domain(&mut out, world, each);
    }
    for talk in &world.talks {
        out.line("talk");
        out.name(&world.domains[talk.pair.0].name);
        out.name(&world.domains[talk.pair.1].name);
        out.amount("rate", &RATE, talk.bytes_per_s, 0);
        out.amount("messages", &PER_S, u64::from(talk.messages_per_s), 0);
    }
    for operation in &world.operations {
        out.line("moving");
        out.name(&world.domains[operation.domain].name);
        out.names("to", hosts(world, &[operation.to]));
    }
    for each in &world.rules.relations {
        relation(&mut out, world, each);
    }
    if !out.0.is_empty() {
        out.0.push('\n');
    }
    out.0
}

fn hosts<'a>(world: &'a World, hosts: &'a [HostIx]) -> impl Iterator<Item = &'a str> {
    hosts.iter().map(|host| &*world.hosts[*host].name)
}

fn domains<'a>(world: &'a World, domains: &'a [DomainIx]) -> impl Iterator<Item = &'a str> {
    domains.iter().map(|domain| &*world.domains[*domain].name)
}

fn rules(out: &mut Out, rules: &Rules) {
    let usual = Rules::default();
    let Hysteresis {
        cooldown_s,
        gain_at_least_ppm,
        pays_back_within_s,
    } = rules.hysteresis;
    let mut line = Out("rules".to_owned());
    line.flag("one-may-fail", rules.one_may_fail);
    for (kind, key) in USE_AT_MOST_KEYS.iter().enumerate() {
        let share = rules.use_at_most_milli[kind];
        if share == 0 && usual.use_at_most_milli[kind] != 0 {
            line.key(key, "any");
        } else if share != usual.use_at_most_milli[kind] {
            line.key(key, &SHARE.write(u64::from(share)));
        }
    }
    for (key, measure, amount, common) in [
        (
            "moves-per-host",
            &COUNT,
            rules.moves_per_host,
            usual.moves_per_host,
        ),
        (
            "moves-per-link",
            &COUNT,
            rules.moves_per_link,
            usual.moves_per_link,
        ),
        (
            "cooldown",
            &SECONDS,
            cooldown_s,
            usual.hysteresis.cooldown_s,
        ),
        (
            "gain",
            &PPM,
            gain_at_least_ppm,
            usual.hysteresis.gain_at_least_ppm,
        ),
        (
            "pays-back",
            &SECONDS,
            pays_back_within_s,
            usual.hysteresis.pays_back_within_s,
        ),
    ] {
        line.amount(key, measure, u64::from(amount), u64::from(common));
    }
    if line.0 != "rules" {
        out.line(&line.0);
    }
    let common = Ratio::default();
    for (class, ratio) in &rules.overbook {
        if class.is_empty() && *ratio == common {
            continue;
        }
        out.line("overbook");
        if !class.is_empty() {
            out.name(class);
        }
        for (kind, key) in RESERVED_KEYS.iter().enumerate() {
            out.amount(
                key,
                &RATIO,
                u64::from(ratio.0[kind]),
                u64::from(common.0[kind]),
            );
        }
    }
}

fn site(out: &mut Out, site: &Site) {
    let usual = Site::named("");
    out.line("site");
    out.name(&site.name);
    out.amount("rate", &RATE, site.rate_bytes_per_s, usual.rate_bytes_per_s);
    out.amount(
        "latency",
        &MICROSECONDS,
        u64::from(site.latency_us),
        u64::from(usual.latency_us),
    );
    let prices: Vec<String> = site
        .energy
        .iter()
        .map(|tariff| {
            let price = PER_KWH.write(tariff.micro_per_kwh);
            match tariff.from_s {
                0 => price,
                from => format!("{price}@{}", SECONDS.write(from)),
            }
        })
        .collect();
    if !prices.is_empty() {
        out.key("energy", &prices.join(","));
    }
}

fn link(out: &mut Out, world: &World, link: &Link) {
    let usual = Site::named("");
    out.line("link");
    out.name(&world.sites[link.ends.0].name);
    out.name(&world.sites[link.ends.1].name);
    out.amount("rate", &RATE, link.rate_bytes_per_s, usual.rate_bytes_per_s);
    out.amount(
        "latency",
        &MICROSECONDS,
        u64::from(link.latency_us),
        u64::from(usual.latency_us),
    );
    out.amount("price", &PER_GIB, link.micro_per_gib, 0);
}

fn host(out: &mut Out, world: &World, host: &Host) {
    let usual = Host::named("");
    out.line("host");
    out.name(&host.name);
    match host.state {
        HostPower::On => {}
        HostPower::Off => out.bare("off"),
        HostPower::Unknown => out.bare("unknown"),
    }
    out.flag("maintenance", host.maintenance);
    out.flag("owner-present", host.owner_present);
    if host.site != SiteIx(0) {
        out.names("site", [&*world.sites[host.site].name]);
    }
    out.amounts(
        &RESERVED_KEYS,
        &RESERVED_MEASURES,
        &host.capacity.0,
        &usual.capacity.0,
    );
    out.amounts(&SYSTEM_KEYS, &RESERVED_MEASURES, &host.system.0, &[0; 4]);
    out.amounts(
        &SPEED_KEYS,
        &USED_MEASURES,
        &host.speed.0,
        &host.usual_speed(&world.sites).0,
    );
    out.amounts(&OWN_KEYS, &USED_MEASURES, &host.own_use.0, &[0; 4]);
    out.amount(
        "core-speed",
        &RATIO,
        u64::from(host.core_speed_milli),
        u64::from(usual.core_speed_milli),
    );
    if !host.cpu_model.is_empty() {
        out.names("model", [&*host.cpu_model]);
    }
    out.names("features", host.features.iter().map(|word| &**word));
    let power = &host.power;
    if !power.watts.is_empty() {
        let watts: Vec<String> = power.watts.iter().map(|watts| write_real(*watts)).collect();
        out.key("watts", &watts.join(","));
    }
    out.real("off-watts", power.off_watts, "");
    out.amount("boot", &SECONDS, u64::from(power.boot_s), 0);
    out.real("boot-energy", power.boot_wh, "Wh");
    out.amount("halt", &SECONDS, u64::from(power.halt_s), 0);
    if let Some(owner) = &host.owner {
        let owner: &OwnerHours = owner;
        out.key("owner", &hours::write(owner));
    }
    out.amount("price", &PER_HOUR, host.price_micro_per_h, 0);
    if let Some(until) = host.until_s {
        out.key("until", &MOMENT.write(until));
    }
}

fn user(out: &mut Out, user: &User) {
    out.line("user");
    out.name(&user.name);
    out.amounts(
        &RESERVED_KEYS,
        &RESERVED_MEASURES,
        &user.quota.0,
        &[u64::MAX; 4],
    );
    out.amount("share", &COUNT, u64::from(user.share), 1);
}

fn domain(out: &mut Out, world: &World, domain: &Domain) {
    let usual = Domain::named("");
    out.line("domain");
    out.name(&domain.name);
    match domain.life {
        DomainLife::Running => {}
        DomainLife::Idle => out.bare("idle"),
        DomainLife::Stopped => out.bare("stopped"),
    }
    out.flag("pinned", domain.pinned);
    out.names("on", hosts(world, domain.host.as_slice()));
    out.amounts(
        &RESERVED_KEYS,
        &RESERVED_MEASURES,
        &domain.reserved.0,
        &usual.reserved.0,
    );
    out.amounts(&USES_KEYS, &USED_MEASURES, &domain.used.0, &[0; 4]);
    out.amount("dirties", &RATE, domain.dirtied_bytes_per_s, 0);
    out.amount("hot", &KIB, domain.hot_kib, 0);
    if let Some(forecast) = &domain.forecast {
        if forecast.0 == [0; 4] {
            out.key(FORECAST_KEYS[0], &USED_MEASURES[0].write(0));
        }
        out.amounts(&FORECAST_KEYS, &USED_MEASURES, &forecast.0, &[0; 4]);
    }
    if !domain.class.is_empty() {
        out.names("class", [&*domain.class]);
    }
    let deployment = domain.deployment.map(|at| at as usize);
    out.names(
        "deployment",
        deployment.map(|at| &*world.deployments[at].name),
    );
    out.names("user", domain.user.map(|user| &*world.users[user].name));
    if domain.priority != 0 {
        out.key("priority", &domain.priority.to_string());
    }
    out.names("home", hosts(world, domain.home.as_slice()));
    out.names("needs", domain.needs.iter().map(|word| &**word));
    out.names(
        "volumes",
        domain
            .volumes
            .iter()
            .map(|volume| &*world.volumes[*volume].name),
    );
    out.names("replica", hosts(world, domain.replica.as_slice()));
    if let Some(moved) = domain.moved_s {
        out.key("moved", &MOMENT.write(moved));
    }
    for kind in 0..4 {
        let is_said = domain.windows.iter().any(|window| window.used.0[kind] != 0);
        let is_only = kind == 0 && domain.windows.iter().all(|window| window.used.0 == [0; 4]);
        if domain.windows.is_empty() || !(is_said || is_only) {
            continue;
        }
        let windows: Vec<String> = domain
            .windows
            .iter()
            .map(|window| USED_MEASURES[kind].write(window.used.0[kind]))
            .collect();
        out.key(WINDOWS_KEYS[kind], &windows.join(","));
    }
}

fn relation(out: &mut Out, world: &World, relation: &Relation) {
    let (word, of) = match relation {
        Relation::Together(_, of) => ("together", of),
        Relation::Apart(_, of) => ("apart", of),
        Relation::Only(of, _) => ("only", of),
        Relation::Never(of, _) => ("never", of),
    };
    out.line(word);
    for name in domains(world, of) {
        out.name(name);
    }
    match relation {
        Relation::Together(scope, _) | Relation::Apart(scope, _) => {
            if *scope == Scope::Site {
                out.key("in", "site");
            }
        }
        Relation::Only(_, on) | Relation::Never(_, on) => out.names("on", hosts(world, on)),
    }
}

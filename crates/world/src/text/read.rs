//! From a text to a world: one pass, every name declared before it is used.

use std::collections::{BTreeSet, HashSet};

use super::fields::Fields;
use super::names::{Listed, Names};
use super::units::{
    COUNT, KIB, MICROSECONDS, MOMENT, PER_GIB, PER_HOUR, PER_KWH, PER_S, PPM, RATE, RATIO, SECONDS,
    SHARE, read_real,
};
use super::{
    ASK, FORECAST_KEYS, Line, OWN_KEYS, RESERVED_KEYS, RESERVED_MEASURES, SPEED_KEYS, SYSTEM_KEYS,
    USE_AT_MOST_KEYS, USED_MEASURES, USES_KEYS, Value, WINDOWS_KEYS, hours, lexer, limits,
};
use crate::{
    Deployment, Domain, DomainIx, DomainLife, Host, HostIx, HostPower, Link, Operation, Ratio,
    Relation, Reserved, Scope, Site, SiteIx, Talk, Tariff, Used, User, UserIx, Volume, VolumeIx,
    Window, World, WorldError,
};

/// The most questions of a text.
const ASKS: usize = 1000;

/// What a text holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<'a> {
    /// The world.
    pub world: World,
    /// Lines that ask something about it, in order.
    pub asks: Vec<Line<'a>>,
}

/// A text half read.
struct Reader<'a> {
    document: Document<'a>,
    sites: Names<'a>,
    hosts: Names<'a>,
    users: Names<'a>,
    deployments: Names<'a>,
    volumes: Names<'a>,
    domains: Names<'a>,
    links: HashSet<(SiteIx, SiteIx)>,
    /// The line of each talk.
    talks: Vec<(Talk, u32)>,
    moving: HashSet<DomainIx>,
    /// Words that were said and may be said once.
    once: BTreeSet<String>,
    listed: Listed,
}

/// Reads the whole text.
pub fn document(text: &str) -> Result<Document<'_>, WorldError> {
    if text.len() > limits::TEXT_BYTES {
        return Err(WorldError::text(
            1,
            1,
            format!("a text of {} bytes", text.len()),
            format!("worlds have at most {} MiB", limits::TEXT_BYTES >> 20),
        ));
    }
    let mut reader = Reader {
        document: Document {
            world: World::default(),
            asks: Vec::new(),
        },
        sites: Names::new("site", limits::SITES),
        hosts: Names::new("host", limits::HOSTS),
        users: Names::new("user", limits::OTHERS),
        deployments: Names::new("deployment", limits::OTHERS),
        volumes: Names::new("volume", limits::OTHERS),
        domains: Names::new("domain", limits::DOMAINS),
        links: HashSet::new(),
        talks: Vec::new(),
        moving: HashSet::new(),
        once: BTreeSet::new(),
        listed: Listed::new(),
    };
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(line) = lexer::line(line, number)? {
            reader.take(line)?;
        }
    }
    reader.end()
}

impl<'a> Reader<'a> {
    fn take(&mut self, line: Line<'a>) -> Result<(), WorldError> {
        if line.word.raw == ASK {
            if self.document.asks.len() == ASKS {
                return Err(line
                    .word
                    .fault(format!("more than {ASKS} questions"), "ask fewer at once"));
            }
            self.document.asks.push(line);
            return Ok(());
        }
        let mut fields = Fields::of(&line);
        match line.word.raw {
            "world" => self.world(&line, &mut fields)?,
            "rules" => self.rules(&line, &mut fields)?,
            "overbook" => self.overbook(&line, &mut fields)?,
            "site" => self.site(&mut fields)?,
            "link" => self.link(&mut fields)?,
            "host" => self.host(&line, &mut fields)?,
            "user" => self.user(&mut fields)?,
            "deployment" => self.deployment(&mut fields)?,
            "volume" => self.volume(&mut fields)?,
            "domain" => self.domain(&mut fields)?,
            "talk" => self.talk(&line, &mut fields)?,
            "moving" => self.moving(&mut fields)?,
            "together" | "apart" | "only" | "never" => self.relation(&line, &mut fields)?,
            other => {
                return Err(line.word.fault(
                    format!("no line begins with `{other}`"),
                    "known are world rules overbook site link host user deployment volume domain \
                     talk moving together apart only never ask",
                ));
            }
        }
        fields.end()
    }

    fn once(&mut self, line: &Line<'a>, of: String) -> Result<(), WorldError> {
        let word = line.word.raw;
        if self.once.insert(format!("{word} {of}")) {
            return Ok(());
        }
        Err(line
            .word
            .fault(format!("a second line `{word} {of}`"), "make it one line"))
    }

    fn world(&mut self, line: &Line<'a>, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        self.once(line, String::new())?;
        let world = &mut self.document.world;
        world.at_s = fields.amount("at", &MOMENT, 0)?;
        world.window_s = fields.small("window", &SECONDS, 0)?;
        Ok(())
    }

    fn rules(&mut self, line: &Line<'a>, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        self.once(line, String::new())?;
        let rules = &mut self.document.world.rules;
        [rules.one_may_fail] = fields.flags(["one-may-fail"])?;
        for (kind, key) in USE_AT_MOST_KEYS.into_iter().enumerate() {
            if let Some(value) = fields.key(key) {
                rules.use_at_most_milli[kind] = match value.raw {
                    "any" => 0,
                    _ => SHARE.read_small(value)?,
                };
            }
        }
        rules.moves_per_host = fields.small("moves-per-host", &COUNT, rules.moves_per_host)?;
        rules.moves_per_link = fields.small("moves-per-link", &COUNT, rules.moves_per_link)?;
        let against = &mut rules.hysteresis;
        against.cooldown_s = fields.small("cooldown", &SECONDS, against.cooldown_s)?;
        against.gain_at_least_ppm = fields.small("gain", &PPM, against.gain_at_least_ppm)?;
        against.pays_back_within_s =
            fields.small("pays-back", &SECONDS, against.pays_back_within_s)?;
        Ok(())
    }

    fn overbook(&mut self, line: &Line<'a>, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let class = match fields.optional_name() {
            Some(value) => value.name()?.into_owned(),
            None => String::new(),
        };
        self.once(line, class.clone())?;
        let mut ratio = Ratio::default();
        for (kind, key) in RESERVED_KEYS.into_iter().enumerate() {
            ratio.0[kind] = fields.small(key, &RATIO, ratio.0[kind])?;
        }
        self.document.world.rules.overbook.insert(class, ratio);
        Ok(())
    }

    fn site(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let mut site = Site::named(self.sites.declare(fields.name("site")?)?);
        site.rate_bytes_per_s = fields.amount("rate", &RATE, site.rate_bytes_per_s)?;
        site.latency_us = fields.small("latency", &MICROSECONDS, site.latency_us)?;
        if let Some(value) = fields.key("energy") {
            for part in value.list()? {
                self.listed.take(&part)?;
                let (price, from_s) = match part.raw.rsplit_once('@') {
                    Some((price, from)) => (price, SECONDS.read(&Value { raw: from, ..part })?),
                    None => (part.raw, 0),
                };
                if site.energy.last().is_some_and(|last| last.from_s >= from_s) {
                    return Err(part.fault(
                        format!("the price {} does not begin after the one before", part.raw),
                        "write them in order: 0.12/kWh,0.2/kWh@7h",
                    ));
                }
                site.energy.push(Tariff {
                    from_s,
                    micro_per_kwh: PER_KWH.read(&Value { raw: price, ..part })?,
                });
            }
        }
        self.document.world.sites.push(site);
        Ok(())
    }

    fn link(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let (one, other) = (fields.name("site")?, fields.name("site")?);
        let ends = (
            SiteIx(self.sites.find(one)?),
            SiteIx(self.sites.find(other)?),
        );
        let ends = (ends.0.min(ends.1), ends.0.max(ends.1));
        if ends.0 == ends.1 {
            return Err(other.fault(
                "a link from a site to itself",
                "a site's own rate= stands on its line",
            ));
        }
        if !self.links.insert(ends) {
            return Err(other.fault("a second link between these sites", "leave one out"));
        }
        if self.links.len() > limits::LINKS {
            return Err(other.fault(
                format!("more than {} links", limits::LINKS),
                "make two worlds of it",
            ));
        }
        let usual = Site::named("");
        let link = Link {
            ends,
            rate_bytes_per_s: fields.amount("rate", &RATE, usual.rate_bytes_per_s)?,
            latency_us: fields.small("latency", &MICROSECONDS, usual.latency_us)?,
            micro_per_gib: fields.amount("price", &PER_GIB, 0)?,
        };
        self.document.world.links.push(link);
        Ok(())
    }

    fn host(&mut self, line: &Line<'a>, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let mut host = Host::named(self.hosts.declare(fields.name("host")?)?);
        if self.document.world.sites.is_empty() {
            let name = self.sites.declare(&Value {
                raw: "here",
                ..line.word
            })?;
            self.document.world.sites.push(Site::named(name));
        }
        let [off, unknown, maintenance, owner_present] =
            fields.flags(["off", "unknown", "maintenance", "owner-present"])?;
        host.state = match (off, unknown) {
            (false, false) => HostPower::On,
            (true, false) => HostPower::Off,
            (false, true) => HostPower::Unknown,
            (true, true) => {
                return Err(line
                    .word
                    .fault("a host that is off and unknown", "leave one out"));
            }
        };
        (host.maintenance, host.owner_present) = (maintenance, owner_present);
        if let Some(value) = fields.key("site") {
            host.site = SiteIx(self.sites.find(value)?);
        }
        host.capacity =
            Reserved(fields.amounts(&RESERVED_KEYS, &RESERVED_MEASURES, host.capacity.0)?);
        host.system = Reserved(fields.amounts(&SYSTEM_KEYS, &RESERVED_MEASURES, [0; 4])?);
        let speed = host.usual_speed(&self.document.world.sites);
        host.speed = Used(fields.amounts(&SPEED_KEYS, &USED_MEASURES, speed.0)?);
        host.own_use = Used(fields.amounts(&OWN_KEYS, &USED_MEASURES, [0; 4])?);
        host.core_speed_milli = fields.small("core-speed", &RATIO, host.core_speed_milli)?;
        if let Some(value) = fields.key("model") {
            host.cpu_model = value.name()?.into_owned();
        }
        host.features = self.words(fields.key("features"))?;
        if let Some(value) = fields.key("watts") {
            for part in value.list()? {
                self.listed.take(&part)?;
                let watts = read_real(&part, &[("W", 0), ("", 0)], "86,89.4,117")?;
                host.power.watts.push(watts);
            }
        }
        host.power.off_watts = fields.real("off-watts", &[("W", 0), ("", 0)], "2.5")?;
        host.power.boot_s = fields.small("boot", &SECONDS, 0)?;
        host.power.boot_wh = fields.real("boot-energy", &[("kWh", 3), ("Wh", 0)], "20Wh")?;
        host.power.halt_s = fields.small("halt", &SECONDS, 0)?;
        if let Some(value) = fields.key("owner") {
            host.owner = Some(hours::read(value)?);
        }
        host.price_micro_per_h = fields.amount("price", &PER_HOUR, 0)?;
        if let Some(value) = fields.key("until") {
            host.until_s = Some(MOMENT.read(value)?);
        }
        self.document.world.hosts.push(host);
        Ok(())
    }

    fn user(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let user = User {
            name: self.users.declare(fields.name("user")?)?,
            quota: Reserved(fields.amounts(&RESERVED_KEYS, &RESERVED_MEASURES, [u64::MAX; 4])?),
            share: fields.small("share", &COUNT, 1)?,
        };
        self.document.world.users.push(user);
        Ok(())
    }

    fn deployment(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let name = self.deployments.declare(fields.name("deployment")?)?;
        self.document.world.deployments.push(Deployment { name });
        Ok(())
    }

    fn volume(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let volume = Volume {
            name: self.volumes.declare(fields.name("volume")?)?,
            reach: self.hosts_of(fields.key("reach"))?,
        };
        self.document.world.volumes.push(volume);
        Ok(())
    }

    fn domain(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let value = fields.name("domain")?;
        let mut domain = Domain::named(self.domains.declare(value)?);
        let [idle, stopped, pinned] = fields.flags(["idle", "stopped", "pinned"])?;
        domain.life = match (idle, stopped) {
            (false, false) => DomainLife::Running,
            (true, false) => DomainLife::Idle,
            (false, true) => DomainLife::Stopped,
            (true, true) => {
                return Err(value.fault("a domain that is idle and stopped", "leave one out"));
            }
        };
        domain.pinned = pinned;
        domain.host = self.host_of(fields.key("on"))?;
        domain.reserved =
            Reserved(fields.amounts(&RESERVED_KEYS, &RESERVED_MEASURES, domain.reserved.0)?);
        domain.used = Used(fields.amounts(&USES_KEYS, &USED_MEASURES, [0; 4])?);
        domain.dirtied_bytes_per_s = fields.amount("dirties", &RATE, 0)?;
        domain.hot_kib = fields.amount("hot", &KIB, 0)?;
        for (kind, key) in FORECAST_KEYS.into_iter().enumerate() {
            if let Some(value) = fields.key(key) {
                let forecast = domain.forecast.get_or_insert_default();
                forecast.0[kind] = USED_MEASURES[kind].read(value)?;
            }
        }
        if let Some(value) = fields.key("class") {
            domain.class = value.name()?.into_owned();
        }
        if let Some(value) = fields.key("deployment") {
            domain.deployment = Some(self.deployments.find(value)?);
        }
        if let Some(value) = fields.key("user") {
            domain.user = Some(UserIx(self.users.find(value)?));
        }
        if let Some(value) = fields.key("priority") {
            domain.priority = value.raw.parse().map_err(|_| {
                value.fault(
                    format!("`{}` is no priority", value.raw),
                    "write a whole number like 5 or -5",
                )
            })?;
        }
        domain.home = self.host_of(fields.key("home"))?;
        domain.needs = self.words(fields.key("needs"))?;
        if let Some(value) = fields.key("volumes") {
            let found = self.volumes.find_all(&value.list()?, &mut self.listed)?;
            domain.volumes = found.into_iter().map(VolumeIx).collect();
        }
        domain.replica = self.host_of(fields.key("replica"))?;
        if let Some(value) = fields.key("moved") {
            domain.moved_s = Some(MOMENT.read(value)?);
        }
        for (kind, key) in WINDOWS_KEYS.into_iter().enumerate() {
            let Some(value) = fields.key(key) else {
                continue;
            };
            let list = value.list()?;
            if domain.windows.is_empty() {
                let empty = Window {
                    used: Used::default(),
                };
                domain.windows = vec![empty; list.len()];
            }
            if domain.windows.len() != list.len() {
                return Err(value.fault(
                    format!("{} windows beside {}", list.len(), domain.windows.len()),
                    "write as many of each kind",
                ));
            }
            for (window, part) in domain.windows.iter_mut().zip(&list) {
                self.listed.take(part)?;
                window.used.0[kind] = USED_MEASURES[kind].read(part)?;
            }
        }
        self.document.world.domains.push(domain);
        Ok(())
    }

    fn talk(&mut self, line: &Line<'a>, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let (one, other) = (fields.name("domain")?, fields.name("domain")?);
        let (first, second) = (
            DomainIx(self.domains.find(one)?),
            DomainIx(self.domains.find(other)?),
        );
        if first == second {
            return Err(other.fault("a domain that talks to itself", "leave it out"));
        }
        if self.talks.len() == limits::TALKS {
            return Err(other.fault(
                format!("more than {} pairs that talk", limits::TALKS),
                "leave out those that say little",
            ));
        }
        let talk = Talk {
            pair: (first.min(second), first.max(second)),
            bytes_per_s: fields.amount("rate", &RATE, 0)?,
            messages_per_s: fields.small("messages", &PER_S, 0)?,
        };
        self.talks.push((talk, line.word.line));
        Ok(())
    }

    fn moving(&mut self, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        let value = fields.name("domain")?;
        let domain = DomainIx(self.domains.find(value)?);
        let to = HostIx(self.hosts.find(fields.must("to")?)?);
        let world = &mut self.document.world;
        match world.domains[domain].host {
            None => {
                return Err(value.fault(
                    "a domain that is nowhere cannot be moving",
                    "write on= on its line",
                ));
            }
            Some(from) if from == to => {
                return Err(value.fault("it is there already", "leave the line out"));
            }
            Some(_) => {}
        }
        if !self.moving.insert(domain) {
            return Err(value.fault("it moves twice", "leave one out"));
        }
        world.operations.push(Operation { domain, to });
        Ok(())
    }

    fn relation(&mut self, line: &Line<'a>, fields: &mut Fields<'_, 'a>) -> Result<(), WorldError> {
        if self.document.world.rules.relations.len() == limits::RELATIONS {
            return Err(line.word.fault(
                format!("more than {} such rules", limits::RELATIONS),
                "join some",
            ));
        }
        let names = fields.names();
        if names.is_empty() {
            return Err(line.word.fault(
                format!("{} without a domain", line.word.raw),
                format!("write {} NAME NAME …", line.word.raw),
            ));
        }
        let found = self.domains.find_all(names, &mut self.listed)?;
        let of: Vec<DomainIx> = found.into_iter().map(DomainIx).collect();
        let relation = match line.word.raw {
            word @ ("together" | "apart") => {
                let scope = match fields.key("in") {
                    None => Scope::Host,
                    Some(value) => match value.raw {
                        "host" => Scope::Host,
                        "site" => Scope::Site,
                        other => {
                            return Err(value.fault(
                                format!("`{other}` is neither host nor site"),
                                "write in=host or in=site",
                            ));
                        }
                    },
                };
                match word {
                    "together" => Relation::Together(scope, of),
                    _ => Relation::Apart(scope, of),
                }
            }
            word => {
                let on = self.hosts_of(Some(fields.must("on")?))?;
                match word {
                    "only" => Relation::Only(of, on),
                    _ => Relation::Never(of, on),
                }
            }
        };
        self.document.world.rules.relations.push(relation);
        Ok(())
    }

    fn host_of(&self, value: Option<&Value<'a>>) -> Result<Option<HostIx>, WorldError> {
        value
            .map(|value| self.hosts.find(value).map(HostIx))
            .transpose()
    }

    fn hosts_of(&mut self, value: Option<&Value<'a>>) -> Result<Vec<HostIx>, WorldError> {
        let Some(value) = value else {
            return Ok(Vec::new());
        };
        let found = self.hosts.find_all(&value.list()?, &mut self.listed)?;
        Ok(found.into_iter().map(HostIx).collect())
    }

    fn words(&mut self, value: Option<&Value<'a>>) -> Result<BTreeSet<String>, WorldError> {
        let mut words = BTreeSet::new();
        let Some(value) = value else {
            return Ok(words);
        };
        for part in value.list()? {
            self.listed.take(&part)?;
            if !words.insert(part.name()?.into_owned()) {
                return Err(part.fault(format!("{} is named twice", part.raw), "leave one out"));
            }
        }
        Ok(words)
    }

    fn end(mut self) -> Result<Document<'a>, WorldError> {
        self.talks.sort_by_key(|(talk, line)| (talk.pair, *line));
        for two in self.talks.windows(2) {
            if let [(one, _), (other, line)] = two
                && one.pair == other.pair
            {
                let domains = &self.document.world.domains;
                let (first, second) = (&domains[one.pair.0].name, &domains[one.pair.1].name);
                return Err(WorldError::text(
                    *line,
                    1,
                    format!("{first} and {second} talk a second time"),
                    "write one line with both directions together",
                ));
            }
        }
        self.document.world.talks = self.talks.iter().map(|(talk, _)| *talk).collect();
        Ok(self.document)
    }
}

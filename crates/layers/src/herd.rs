//! The herd file: YAML text in, [`HerdPlan`] out, or everything that is wrong with its place.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use estive_boot::{INIT_WORD, Root, SHARED_WORD};
use estive_model::{DeploymentName, DomainName, HostName};

use crate::address_plan::{self, Network, Pool};
use crate::cascade;
use crate::field::Field;
use crate::frame::Frame;
use crate::joined::Joined;
use crate::plan::{
    ClonePlan, CloneValues, HerdPlan, STATEFUL_ROOT, SharedPlace, UpCheck, VOLUME_DISK,
};
use crate::problem::{HerdError, Problems, shown};
use crate::yaml::{self, Node, Position, Value};

const DEFAULT_MEMORY_MIB: u64 = 384;
const DEFAULT_CPUS: u32 = 1;
const DEFAULT_VOLUME_BYTES: u64 = 4 << 30;
const DEFAULT_REFERENCE: &str = "default";

const MEMORY_MIB: std::ops::RangeInclusive<i64> = 64..=4 << 20;
const CPUS: std::ops::RangeInclusive<i64> = 1..=256;
const MAX_KEY_LINE_BYTES: usize = 16 << 10;

/// Reads a herd file.
///
/// `file` is its name for messages; `default_deployment` the deployment's name when the file has
/// none (the name of its directory, say), which must be fit as one.
pub fn parse(file: &str, text: &str, default_deployment: &str) -> Result<HerdPlan, HerdError> {
    parse_knowing(file, text, default_deployment, &BTreeMap::new())
}

/// The same for a deployment of which some clones are there: they keep the addresses that they
/// have, where those are drawn and not written. By names alone one that comes may take another's.
pub fn parse_knowing(
    file: &str,
    text: &str,
    default_deployment: &str,
    known: &BTreeMap<String, Ipv4Addr>,
) -> Result<HerdPlan, HerdError> {
    let root = yaml::parse(text).map_err(|(at, message)| Problems::only(file, at, message))?;
    let mut problems = Problems::default();
    let top = root.at;
    if !matches!(root.value, Value::Map(_) | Value::Null) {
        let message = format!("a herd file is a mapping; this is {}", root.value.kind());
        return Err(Problems::only(file, top, message));
    }
    let herd = cascade::read(file, root, &mut problems);
    let globals = herd
        .globals
        .reserved(&mut |at, what| problems.add(at, what));
    let deployment = deployment_name(&globals, default_deployment, top, &mut problems);
    let (network, pool, pool_at) = network(&globals, top, &mut problems);
    if herd.hosts.is_empty() {
        problems.add(
            top,
            "no hosts; name at least one, as hosts: {\"clone[01-04]\": }",
        );
    }
    let mut frames: BTreeMap<*const Frame, Reserved> = BTreeMap::new();
    let mut drafts: Vec<Draft> = Vec::new();
    for host in herd.hosts {
        let reserved = frames
            .entry(Arc::as_ptr(&host.frame))
            .or_insert_with(|| read_frame(&host.frame, &network, &mut problems))
            .clone();
        let name = match host_name(&host.name) {
            Ok(name) => name,
            Err(message) => {
                problems.add(host.at, message);
                continue;
            }
        };
        drafts.push(Draft {
            address: reserved.address,
            gateway: reserved.gateway,
            plan: ClonePlan {
                name,
                groups: host.groups,
                memory_mib: reserved.memory_mib,
                cpus: reserved.cpus,
                address: reserved
                    .address
                    .map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address),
                prefix: network.prefix(),
                mac: String::new(),
                gateway: reserved.gateway.map(|(gateway, _)| gateway),
                reference: reserved.reference,
                sets: reserved.sets,
                init: reserved.init,
                root: reserved.root,
                volume_bytes: reserved.volume_bytes,
                shared: reserved.shared,
                words: reserved.words,
                host: reserved.host,
                ssh_authorized_keys: reserved.ssh_authorized_keys,
                post_copy_allowed: reserved.post_copy_allowed,
                up_checks: reserved.up_checks,
                values: CloneValues {
                    frame: host.frame,
                    at: host.at,
                },
            },
        });
    }
    let mut taken = check_clashes(&drafts, &mut problems);
    problems.check(file)?;
    // Those that the file no longer names are there still.
    let named: BTreeSet<&str> = drafts
        .iter()
        .map(|draft| draft.plan.name.as_str())
        .collect();
    let unnamed = known
        .iter()
        .filter(|(name, _)| !named.contains(name.as_str()));
    taken.extend(unnamed.map(|(_, address)| *address));
    // Nothing was wrong, so the deployment has its name.
    let deployment = deployment.ok_or_else(|| Problems::only(file, top, "no name"))?;

    let names = drafts.iter().map(|draft| draft.plan.name.to_string());
    let mut macs = address_plan::macs(deployment.as_str(), &names.collect());
    let without = drafts.iter().filter(|draft| draft.address.is_none());
    let without: BTreeSet<String> = without.map(|draft| draft.plan.name.to_string()).collect();
    let mut drawn = address_plan::draw(deployment.as_str(), &without, pool, &taken, known).ok_or_else(|| {
        let message = format!(
            "{} hosts need an address and {pool} has not as many free; write larger addresses: or a larger network:",
            without.len()
        );
        Problems::only(file, pool_at, message)
    })?;
    let mut clones: Vec<ClonePlan> = drafts
        .into_iter()
        .map(|draft| {
            let mut clone = draft.plan;
            let name = clone.name.as_str();
            // Both maps have every name that is asked for here.
            clone.mac = macs.remove(name).unwrap_or_default();
            if let Some(address) = drawn.remove(name) {
                clone.address = address;
            }
            clone
        })
        .collect();
    clones.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(HerdPlan {
        file: file.to_owned(),
        deployment,
        network: network.to_string(),
        clones,
    })
}

fn host_name(text: &str) -> Result<DomainName, String> {
    let name = DomainName::new(text).map_err(|_| {
        format!(
            "{} is no name for a host: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end",
            shown(text)
        )
    })?;
    // As inet_aton(3) reads them, and every program that looks names up.
    let hexadecimal = text.strip_prefix("0x").filter(|rest| !rest.is_empty());
    let digits = hexadecimal.map_or_else(
        || text.bytes().all(|byte| byte.is_ascii_digit()),
        |rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()),
    );
    if digits {
        return Err(format!(
            "the name {text} would be read as an address; begin it with a letter"
        ));
    }
    if ["localhost", "ip6-localhost", "ip6-loopback"].contains(&text) {
        return Err(format!(
            "the name {text} means something else on every machine; choose another"
        ));
    }
    Ok(name)
}

/// A clone whose address may still be drawn.
struct Draft {
    plan: ClonePlan,
    address: Option<(Ipv4Addr, Position)>,
    gateway: Option<(Ipv4Addr, Position)>,
}

/// Reports addresses given twice; all that are not free to draw.
fn check_clashes(drafts: &[Draft], problems: &mut Problems) -> BTreeSet<Ipv4Addr> {
    let mut taken: BTreeMap<Ipv4Addr, (&str, Position)> = BTreeMap::new();
    for draft in drafts {
        let Some((address, at)) = draft.address else {
            continue;
        };
        let name = draft.plan.name.as_str();
        match taken.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert((name, at));
            }
            Entry::Occupied(entry) => {
                let (other, first) = entry.get();
                let message =
                    format!("the address {address} of {name} is also that of {other}, at {first}");
                problems.add(at, message);
            }
        }
    }
    let mut gateways = BTreeSet::new();
    for draft in drafts {
        let Some((gateway, at)) = draft.gateway else {
            continue;
        };
        gateways.insert(gateway);
        if let Some((other, _)) = taken.get(&gateway) {
            problems.add(
                at,
                format!("the gateway {gateway} is also the address of {other}"),
            );
        }
    }
    gateways.extend(taken.into_keys());
    gateways
}

fn deployment_name(
    globals: &BTreeMap<&'static str, Joined>,
    default: &str,
    top: Position,
    problems: &mut Problems,
) -> Option<DeploymentName> {
    let (given, at) = match globals.get("name").map(Joined::to_node) {
        Some(node) => (Field::of("name", &node).text(problems)?, node.at),
        None => (default.to_owned(), top),
    };
    DeploymentName::new(&given)
        .map_err(|error| problems.add(at, format!("{error}; write a fit one as name:")))
        .ok()
}

/// The network, the addresses to draw from, and the place to name when they do not suffice.
fn network(
    globals: &BTreeMap<&'static str, Joined>,
    top: Position,
    problems: &mut Problems,
) -> (Network, Pool, Position) {
    let default = Network::default();
    let mut at = top;
    let mut pool = None;
    let mut network = default;
    if let Some(node) = globals.get("network").map(Joined::to_node) {
        at = node.at;
        let field = Field::of("network", &node);
        if let Some(given) = field.parsed(problems, Network::parse) {
            network = given;
        }
        pool = Some(network.upper_half());
    }
    if let Some(node) = globals.get("addresses").map(Joined::to_node) {
        at = node.at;
        let field = Field::of("addresses", &node);
        pool = field
            .parsed(problems, |text| Pool::parse(text, &network))
            .or(pool);
    }
    (network, pool.unwrap_or_else(|| default.default_pool()), at)
}

/// What the reserved keys of a level and those around it say.
#[derive(Debug, Clone)]
struct Reserved {
    address: Option<(Ipv4Addr, Position)>,
    gateway: Option<(Ipv4Addr, Position)>,
    memory_mib: u64,
    cpus: u32,
    reference: String,
    sets: Vec<String>,
    init: Option<String>,
    root: Option<String>,
    volume_bytes: Option<u64>,
    shared: Vec<SharedPlace>,
    words: Vec<String>,
    host: Option<HostName>,
    ssh_authorized_keys: Arc<[String]>,
    post_copy_allowed: bool,
    up_checks: Vec<UpCheck>,
}

/// The variables are joined too: not to keep them, but to say what cannot be joined.
fn read_frame(frame: &Frame, network: &Network, problems: &mut Problems) -> Reserved {
    let reserved = frame.reserved(&mut |at, what| problems.add(at, what));
    frame.variables(BTreeMap::new(), &mut |at, what| problems.add(at, what));
    let nodes: BTreeMap<&'static str, Node> = reserved
        .iter()
        .map(|(key, joined)| (*key, joined.to_node()))
        .collect();
    let field = |key: &'static str| nodes.get(key).map(|node| Field::of(key, node));
    let placed = |field: Option<Field<'_>>, problems: &mut Problems| {
        let field = field?;
        let address = field.parsed(problems, |text| address_in(text, network))?;
        Some((address, field.node.at))
    };
    let address = placed(field("address"), problems);
    let gateway = placed(field("gateway"), problems);
    let memory_mib = field("memory_mib").and_then(|f| f.integer(problems, MEMORY_MIB));
    let cpus = field("cpus").and_then(|f| f.integer(problems, CPUS));
    let reference = field("reference").and_then(|f| f.parsed(problems, short_name));
    let sets = field("sets").map(|f| f.list(problems, short_name));
    let init = field("init").and_then(|f| f.parsed(problems, init_path));
    let root = field("root").and_then(|f| f.parsed(problems, root_line));
    let volume_bytes = volume_bytes(field("mode"), field("volume"), problems);
    if let (Some(_), Some(line), Some(field)) = (volume_bytes, &root, field("root"))
        && !line.contains(VOLUME_DISK)
    {
        problems.add(
            field.node.at,
            format!("root: a stateful clone's line names its volume, {VOLUME_DISK}, as in {STATEFUL_ROOT}"),
        );
    }
    let shared = field("shared").map(|f| f.shared(problems));
    let words = field("words").map(|f| f.list(problems, kernel_word));
    let host = field("host").and_then(|f| {
        f.parsed(problems, |text| {
            HostName::new(text).map_err(|e| e.to_string())
        })
    });
    let keys = field("ssh_authorized_keys").map(|f| f.list(problems, key_line));
    let up_checks = field("up").map(|f| f.list(problems, up_check));
    let post_copy = field("migration").map(|f| f.post_copy_allowed(problems));
    let mut sets = sets.unwrap_or_default();
    drop_earlier_twins(&mut sets);
    Reserved {
        address,
        gateway,
        memory_mib: memory_mib.map_or(DEFAULT_MEMORY_MIB, i64::unsigned_abs),
        cpus: cpus
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(DEFAULT_CPUS),
        reference: reference.unwrap_or_else(|| DEFAULT_REFERENCE.to_owned()),
        sets,
        init,
        root,
        volume_bytes,
        shared: shared.unwrap_or_default(),
        words: words.unwrap_or_default(),
        host,
        ssh_authorized_keys: keys.unwrap_or_default().into(),
        post_copy_allowed: post_copy.unwrap_or_default(),
        up_checks: up_checks.unwrap_or_default(),
    }
}

/// What `mode:` and `volume:` say together.
fn volume_bytes(
    mode: Option<Field<'_>>,
    volume: Option<Field<'_>>,
    problems: &mut Problems,
) -> Option<u64> {
    let stateful = mode.and_then(|field| {
        field.parsed(problems, |text| match text {
            "stateful" => Ok(true),
            "stateless" => Ok(false),
            _ => Err(format!("{} is neither stateless nor stateful", shown(text))),
        })
    });
    let size_bytes = volume.and_then(|field| field.volume_size(problems));
    match stateful {
        // A group may give its hosts a size, and one of them be stateless.
        Some(true) => Some(size_bytes.unwrap_or(DEFAULT_VOLUME_BYTES)),
        _ => None,
    }
}

/// A set named twice stands where it was named last.
fn drop_earlier_twins(sets: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    sets.reverse();
    sets.retain(|set| seen.insert(set.clone()));
    sets.reverse();
}

fn address_in(text: &str, network: &Network) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr = text
        .parse()
        .map_err(|_| format!("{} is no IPv4 address", shown(text)))?;
    if network.has_host(address) {
        Ok(address)
    } else {
        Err(format!(
            "{address} is not an address of the network {network}"
        ))
    }
}

/// A name that becomes a file name elsewhere: a reference, a template set.
fn short_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=63).contains(&text.len()) && text.chars().all(fits) && !text.starts_with(['.', '-']) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} is no name: use 1 to 63 letters, digits, '-', '_', '.', not first '.' or '-'",
            shown(text)
        ))
    }
}

/// The path goes on the kernel's command line.
fn init_path(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    let plain = text.split('/').all(|part| part != "..");
    if text.len() <= 256 && text.starts_with('/') && text.chars().all(fits) && plain {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} is no path of a program: write it from '/', of letters, digits and /._-+@",
            shown(text)
        ))
    }
}

/// With the line and a caret below the message.
fn root_line(text: &str) -> Result<String, String> {
    match Root::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(problem) => {
            let pointed = problem.pointed();
            let mut lines = pointed.lines();
            let (line, caret) = (lines.next(), lines.next());
            Err(format!(
                "{}\n  {}\n  {}",
                problem.message,
                line.unwrap_or_default(),
                caret.unwrap_or_default()
            ))
        }
    }
}

/// One word, and none that has a key of its own.
fn kernel_word(text: &str) -> Result<String, String> {
    for (name, key) in [
        ("root", "root"),
        ("init", "init"),
        (INIT_WORD, "init"),
        (SHARED_WORD, "shared"),
    ] {
        if text.split('=').next() == Some(name) {
            return Err(format!("{} is written as the key {key}:", shown(text)));
        }
    }
    match estive_boot::command_line(None, [text]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn key_line(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = text.len() <= MAX_KEY_LINE_BYTES
        && !text.chars().any(char::is_control)
        && text.split_whitespace().count() >= 2;
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} is no public key: write the one line of a .pub file",
            shown(text)
        ))
    }
}

fn up_check(text: &str) -> Result<UpCheck, String> {
    text.parse().map_err(|()| {
        let names = UpCheck::NAMES.join(", ");
        format!("{} is no check; use some of {names}", shown(text))
    })
}

//! What each clone's layer is made from, as digests: the same inputs, the same layer. And which of
//! them changed since another time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::LayerError;
use crate::layer::LAYER_FORMAT;
use crate::request::{CloneFacts, RenderRequest};
use crate::secrets::hex;
use crate::template_set::TemplateSet;

/// So many changed paths of a set are named.
const PATHS_NAMED: usize = 3;

/// Inputs that clones of the same sets and variables have in common: a name and a short digest of
/// the value each.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommonInputs {
    /// Lowest first.
    pub sets: Vec<String>,
    /// Variables that the sets read.
    pub variables: BTreeMap<String, String>,
    /// The rest, by the words for it.
    pub others: BTreeMap<String, String>,
}

/// Of each set, the digest of every path.
pub type SetInputs = BTreeMap<String, BTreeMap<String, String>>;

/// Inputs of one clone alone: words for them and values.
pub type OwnInputs = BTreeMap<String, String>;

/// What identifies the root that a clone's scripts see; `None` where that cannot be told.
pub type RootIdentity<'a> = dyn Fn(&CloneFacts) -> Option<String> + 'a;

/// What stands for a root that cannot be told from another.
const UNKNOWN_ROOT: &str = "unknown";
const ROOT: &str = "the reference's root";

/// The inputs of a request.
pub struct LayerInputs<'a> {
    request: &'a RenderRequest,
    root_of: &'a RootIdentity<'a>,
    lists: Vec<ListInputs>,
    sets: OnceLock<SetInputs>,
    /// By number of list and of variables.
    kinds: BTreeMap<(usize, usize), Kind>,
}

/// What a list of sets asks for.
struct ListInputs {
    /// Words in its templates: a variable that is not among them is not read.
    words: BTreeSet<String>,
    has_scripts: bool,
}

struct Kind {
    inputs: CommonInputs,
    digest: [u8; 32],
}

impl<'a> LayerInputs<'a> {
    pub fn new(
        request: &'a RenderRequest,
        root_of: &'a RootIdentity<'a>,
    ) -> Result<Self, LayerError> {
        let mut lists = Vec::new();
        for list in &request.set_lists {
            lists.push(ListInputs::new(&TemplateSet::find_all(
                list,
                &request.sets,
            )?));
        }
        let mut sets = BTreeMap::new();
        for (name, tree) in &request.sets {
            sets.insert(name.as_str(), hex(&tree.digest()));
        }
        let all_clones = ClonesDigests::new(request);
        let mut kinds = BTreeMap::new();
        for clone in request.clones.iter() {
            let key = (clone.sets, clone.variables);
            if kinds.contains_key(&key) {
                continue;
            }
            let (Some(list), Some(text)) = (
                lists.get(clone.sets),
                request.variables.get(clone.variables),
            ) else {
                continue;
            };
            let kind = Kind::new(request, clone, list, text, &all_clones, &sets)?;
            kinds.insert(key, kind);
        }
        Ok(Self {
            request,
            root_of,
            lists,
            sets: OnceLock::new(),
            kinds,
        })
    }

    /// One digest of all inputs of the clone of this number, 64 hex digits; `None` when they cannot
    /// be told from others.
    pub fn key(&self, number: usize) -> Option<String> {
        let (clone, kind) = self.clone_and_kind(number)?;
        let mut hash = Sha256::new_with_prefix(kind.digest);
        feed(&mut hash, clone.name.as_str());
        for (name, value) in self.own(number)? {
            if name == ROOT && value == UNKNOWN_ROOT {
                return None;
            }
            feed(&mut hash, &name);
            feed(&mut hash, &value);
        }
        Some(hex(&hash.finalize()))
    }

    pub fn common(&self, number: usize) -> Option<&CommonInputs> {
        self.clone_and_kind(number).map(|(_, kind)| &kind.inputs)
    }

    /// What a clone has alone, as far as its sets ask for it.
    pub fn own(&self, number: usize) -> Option<OwnInputs> {
        let clone = self.request.clones.get(number)?;
        let list = self.lists.get(clone.sets)?;
        let mut own = OwnInputs::new();
        if list.asks("clone") {
            let mut put = |name: &str, value: String| own.insert(name.to_owned(), value);
            put("groups", clone.groups.join(" / "));
            put("memory_mib", clone.memory_mib.to_string());
            put("cpus", clone.cpus.to_string());
            put("address", format!("{}/{}", clone.address, clone.prefix));
            put("mac", clone.mac.clone());
            if let Some(gateway) = clone.gateway {
                put("gateway", gateway.to_string());
            }
            if !clone.ssh_authorized_keys.is_empty() {
                let keys = clone.ssh_authorized_keys.join("\n");
                put("ssh_authorized_keys", short(keys.as_bytes()));
            }
        }
        if list.has_scripts {
            let root = (self.root_of)(clone);
            let root = root.unwrap_or_else(|| UNKNOWN_ROOT.to_owned());
            own.insert(ROOT.to_owned(), root);
        }
        Some(own)
    }

    /// Every set that the request has.
    pub fn sets(&self) -> &SetInputs {
        self.sets.get_or_init(|| {
            let sets = self.request.sets.iter();
            sets.map(|(name, tree)| (name.clone(), tree.path_digests()))
                .collect()
        })
    }

    fn clone_and_kind(&self, number: usize) -> Option<(&CloneFacts, &Kind)> {
        let clone = self.request.clones.get(number)?;
        let kind = self.kinds.get(&(clone.sets, clone.variables))?;
        Some((clone, kind))
    }
}

impl ListInputs {
    fn new(sets: &[TemplateSet]) -> Self {
        let mut words = BTreeSet::new();
        for set in sets {
            words.extend(set.variables().map(|(name, _)| name.to_owned()));
            for template in set.templates() {
                let part = |c: char| !(c.is_alphanumeric() || c == '_');
                words.extend(template.source.split(part).map(str::to_owned));
            }
        }
        Self {
            words,
            has_scripts: sets.iter().any(|set| !set.scripts().is_empty()),
        }
    }

    /// A name that is not written in any template is not looked up by it; a script is told all.
    fn asks(&self, name: &str) -> bool {
        self.has_scripts || self.words.contains(name)
    }
}

/// Digests of the list of all clones.
struct ClonesDigests {
    /// Names and addresses.
    hosts: String,
    /// All that templates can know of other clones.
    whole: String,
}

impl ClonesDigests {
    fn new(request: &RenderRequest) -> Self {
        let (mut hosts, mut whole) = (Sha256::new(), Sha256::new());
        for clone in request.clones.iter() {
            let host = format!("{} {}\n", clone.name, clone.address);
            hosts.update(&host);
            whole.update(&host);
            let more = format!("{} {} {}\n", clone.prefix, clone.cpus, clone.memory_mib);
            whole.update(more);
            // Its host key comes of its name and the secret, which is an input of its own.
            for list in [&clone.groups[..], request.sets_of(clone)] {
                feed(&mut whole, &list.len().to_string());
                list.iter().for_each(|name| feed(&mut whole, name));
            }
        }
        let short = |hash: Sha256| hex(&hash.finalize()[..8]);
        Self {
            hosts: short(hosts),
            whole: short(whole),
        }
    }
}

impl Kind {
    fn new(
        request: &RenderRequest,
        clone: &CloneFacts,
        list: &ListInputs,
        variables: &str,
        clones: &ClonesDigests,
        sets: &BTreeMap<&str, String>,
    ) -> Result<Self, LayerError> {
        let object: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(variables).map_err(|_| LayerError::Request {
                what: "variables that are no object".to_owned(),
            })?;
        let read = object.into_iter().filter(|(name, _)| list.asks(name));
        let variables: BTreeMap<String, String> = read
            .map(|(name, value)| (name, short(value.to_string().as_bytes())))
            .collect();
        let clones = match list.asks("clones") {
            true => &clones.whole,
            false => &clones.hosts,
        };
        let secret = format!("estive secret {}", request.secret.to_hex());
        let mut others: BTreeMap<String, String> = [
            ("Estive's layer format", LAYER_FORMAT.to_string()),
            ("the deployment's secret", short(secret.as_bytes())),
            ("the list of clones", clones.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if list.asks("deployment") {
            let name = request.deployment.to_string();
            others.insert("the deployment's name".to_owned(), name);
        }
        let inputs = CommonInputs {
            sets: request.sets_of(clone).to_vec(),
            variables,
            others,
        };
        let mut hash = Sha256::new();
        for name in &inputs.sets {
            feed(&mut hash, name);
            feed(
                &mut hash,
                sets.get(name.as_str()).map_or("", String::as_str),
            );
        }
        for (name, value) in inputs.variables.iter().chain(&inputs.others) {
            feed(&mut hash, name);
            feed(&mut hash, value);
        }
        Ok(Self {
            inputs,
            digest: hash.finalize().into(),
        })
    }
}

/// Which inputs of a clone are others than they were, in words; empty when none is.
pub fn changed_inputs(
    was: (&CommonInputs, &OwnInputs, &SetInputs),
    is: (&CommonInputs, &OwnInputs, &SetInputs),
) -> Vec<String> {
    let (was_common, was_own, was_sets) = was;
    let (common, own, sets) = is;
    let of_sets = changed_sets((&was_common.sets, was_sets), (&common.sets, sets));
    // What other sets ask for and these did not is no change of its own.
    let both = |name: &String, was: &BTreeMap<String, String>, is: &BTreeMap<String, String>| {
        let (was, is) = (was.get(name), is.get(name));
        was != is && (of_sets.is_empty() || (was.is_some() && is.is_some()))
    };
    let mut changes = Vec::new();
    for name in names(&was_common.others, &common.others) {
        if both(name, &was_common.others, &common.others) {
            changes.push(name.clone());
        }
    }
    for name in names(was_own, own) {
        if !both(name, was_own, own) {
            continue;
        }
        changes.push(match (was_own.get(name), own.get(name)) {
            _ if name == "ssh_authorized_keys" || name == ROOT => name.clone(),
            (Some(was), Some(is)) => format!("{name}: {was}, now {is}"),
            (_, Some(is)) => format!("{name}: now {is}"),
            (_, None) => format!("{name}: none now"),
        });
    }
    for name in names(&was_common.variables, &common.variables) {
        if both(name, &was_common.variables, &common.variables) {
            changes.push(format!("variable {name}"));
        }
    }
    changes.extend(of_sets);
    changes
}

fn names<'a>(
    was: &'a BTreeMap<String, String>,
    is: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a String> {
    was.keys().chain(is.keys()).collect()
}

fn changed_sets(was: (&[String], &SetInputs), is: (&[String], &SetInputs)) -> Vec<String> {
    let mut changes = Vec::new();
    for name in was.0.iter().filter(|name| !is.0.contains(name)) {
        changes.push(format!("set {name} removed"));
    }
    let none = BTreeMap::new();
    for name in is.0 {
        if !was.0.contains(name) {
            changes.push(format!("set {name} added"));
            continue;
        }
        let (old, new) = (
            was.1.get(name).unwrap_or(&none),
            is.1.get(name).unwrap_or(&none),
        );
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differ: Vec<&String> = paths
            .into_iter()
            .filter(|path| old.get(*path) != new.get(*path))
            .collect();
        let more = differ.len().saturating_sub(PATHS_NAMED);
        let named = differ.into_iter().take(PATHS_NAMED);
        changes.extend(named.map(|path| format!("set {name}: {path}")));
        if more > 0 {
            changes.push(format!("set {name}: {more} more paths"));
        }
    }
    let common = |list: &[String], other: &[String]| -> Vec<String> {
        list.iter()
            .filter(|name| other.contains(name))
            .cloned()
            .collect()
    };
    if common(was.0, is.0) != common(is.0, was.0) {
        changes.push("the order of the sets".to_owned());
    }
    changes
}

/// 16 hex digits: enough to see that something changed.
fn short(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

fn feed(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeploymentSecret, OwnSets, SetKind, SetNode, herd};

    const HERD: &str = "sets: [own]\ngreeting: hi\nunread: 1\nhosts: {a: {address: 10.77.0.7}, b: {address: 10.77.0.8}}\n";

    fn own(template: &str) -> OwnSets {
        let mut builder = crate::set_tree::SetTreeBuilder::new("own");
        for (path, text) in [("etc/x.j2", template), ("etc/y", "y")] {
            builder.admit(path, 0).unwrap();
            builder
                .put(path, SetNode::new(0o644, SetKind::File(text.into())))
                .unwrap();
        }
        [("own".to_owned(), builder.finish().unwrap())].into()
    }

    fn request(text: &str, sets: &OwnSets, secret: u8) -> RenderRequest {
        let plan = herd::parse("herd.yaml", text, "d").unwrap();
        RenderRequest::new(&plan, sets, &DeploymentSecret::new([secret; 32])).unwrap()
    }

    /// What is said to have changed for the clone `a`, whose key changes with it.
    fn changes(was: &RenderRequest, is: &RenderRequest) -> Vec<String> {
        let (was, is) = (
            LayerInputs::new(was, &|_| None).unwrap(),
            LayerInputs::new(is, &|_| None).unwrap(),
        );
        let changes = changed_inputs(
            (was.common(0).unwrap(), &was.own(0).unwrap(), was.sets()),
            (is.common(0).unwrap(), &is.own(0).unwrap(), is.sets()),
        );
        assert_eq!(was.key(0) != is.key(0), !changes.is_empty(), "{changes:?}");
        changes
    }

    #[test]
    fn what_is_read_counts_and_nothing_else() {
        let sets = own("{{ greeting }} {{ clone.address }}");
        let first = request(HERD, &sets, 7);
        let edited =
            |from: &str, to: &str| changes(&first, &request(&HERD.replace(from, to), &sets, 7));
        assert_eq!(edited("", ""), Vec::<String>::new());
        assert_eq!(edited("unread: 1", "unread: 2"), Vec::<String>::new());
        assert_eq!(
            edited("greeting: hi", "greeting: ho"),
            ["variable greeting"]
        );
        assert_eq!(
            edited(
                "b: {address: 10.77.0.8}",
                "b: {cpus: 2, address: 10.77.0.8}"
            ),
            Vec::<String>::new()
        );
        assert_eq!(edited("10.77.0.8", "10.77.0.9"), ["the list of clones"]);
        assert_eq!(
            edited("10.77.0.7", "10.77.0.9"),
            [
                "the list of clones",
                "address: 10.77.0.7/24, now 10.77.0.9/24"
            ]
        );
        assert_eq!(edited("[own]", "[web, own]"), ["set web added"]);
        assert_eq!(
            changes(&first, &request(HERD, &sets, 8)),
            ["the deployment's secret"]
        );
        let other = own("{{ greeting }} {{ clone.address }}!");
        assert_eq!(
            changes(&first, &request(HERD, &other, 7)),
            ["set own: etc/x.j2"]
        );
    }

    #[test]
    fn the_list_of_clones_counts_as_far_as_it_is_read() {
        let sets = own("{% for one in clones %}{{ one.cpus }}{% endfor %}");
        let first = request(HERD, &sets, 7);
        let edited =
            |from: &str, to: &str| changes(&first, &request(&HERD.replace(from, to), &sets, 7));
        assert_eq!(
            edited(
                "b: {address: 10.77.0.8}",
                "b: {cpus: 2, address: 10.77.0.8}"
            ),
            ["the list of clones"]
        );
        assert_eq!(edited("greeting: hi", "greeting: ho"), Vec::<String>::new());
        for (from, to) in [
            (
                ", b: {address: 10.77.0.8}}",
                "}\ngroups: {g: {hosts: {b: {address: 10.77.0.8}}}}",
            ),
            (
                "b: {address: 10.77.0.8}",
                "b: {sets+: [web], address: 10.77.0.8}",
            ),
        ] {
            assert_eq!(edited(from, to), ["the list of clones"], "{to}");
        }
    }

    #[test]
    fn the_order_of_sets_counts() {
        let text = |sets: &str| HERD.replace("[own]", sets);
        let sets = own("");
        let first = request(&text("[own, web]"), &sets, 7);
        let swapped = request(&text("[web, own]"), &sets, 7);
        assert_eq!(changes(&first, &swapped), ["the order of the sets"]);
        let less = request(&text("[web]"), &sets, 7);
        assert_eq!(changes(&first, &less), ["set own removed"]);
    }
}

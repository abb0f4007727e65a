//! What each clone's layer is made from, as digests: the same inputs, the same layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::LayerError;
use crate::layer::LAYER_FORMAT;
use crate::request::{CloneFacts, RenderRequest};
use crate::secrets::hex;
use crate::template_set::{SetLibrary, TemplateSet};

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
pub(crate) const ROOT: &str = "the reference's root";

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
    /// Words in the templates of each set: a variable that is not among them is not read.
    words: Vec<Arc<BTreeSet<String>>>,
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
        let mut library = SetLibrary::new(&request.sets);
        let mut words = BTreeMap::new();
        let mut lists = Vec::new();
        for list in &request.set_lists {
            lists.push(ListInputs::new(&library.find_all(list)?, &mut words));
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
            let CloneFacts {
                // The clone is called so in every list of ours.
                name: _,
                groups,
                memory_mib,
                cpus,
                address,
                prefix,
                mac,
                gateway,
                ssh_authorized_keys,
                // With those of the same kind.
                sets: _,
                variables: _,
            } = clone;
            let mut put = |name: &str, value: String| own.insert(name.to_owned(), value);
            put("groups", groups.join(" / "));
            put("memory_mib", memory_mib.to_string());
            put("cpus", cpus.to_string());
            put("address", format!("{address}/{prefix}"));
            put("mac", mac.clone());
            if let Some(gateway) = gateway {
                put("gateway", gateway.to_string());
            }
            if !ssh_authorized_keys.is_empty() {
                let keys = ssh_authorized_keys.join("\n");
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
    /// `known` are the words of the sets that other lists have, by their names.
    fn new(sets: &[TemplateSet], known: &mut BTreeMap<String, Arc<BTreeSet<String>>>) -> Self {
        let words = sets.iter().map(|set| {
            let words = known.entry(set.name().to_owned());
            Arc::clone(words.or_insert_with(|| words_of(set).into()))
        });
        Self {
            words: words.collect(),
            has_scripts: sets.iter().any(|set| !set.scripts().is_empty()),
        }
    }

    /// A name that is not written in any template is not looked up by it; a script is told all.
    fn asks(&self, name: &str) -> bool {
        self.has_scripts || self.words.iter().any(|words| words.contains(name))
    }
}

fn words_of(set: &TemplateSet) -> BTreeSet<String> {
    let mut words: BTreeSet<String> = set.variables().map(|(name, _)| name.to_owned()).collect();
    for template in set.templates() {
        let part = |c: char| !(c.is_alphanumeric() || c == '_');
        words.extend(template.source.split(part).map(str::to_owned));
    }
    words
}

/// Digests of the list of all clones.
struct ClonesDigests {
    /// Names and addresses.
    hosts: String,
    /// All that templates can know of other clones: see `listed_clone`. Their keys follow from
    /// their names and the secret.
    whole: String,
}

impl ClonesDigests {
    fn new(request: &RenderRequest) -> Self {
        let (mut hosts, mut whole) = (Sha256::new(), Sha256::new());
        for clone in request.clones.iter() {
            // Every field is named, so that a new one is not forgotten.
            let CloneFacts {
                name,
                groups,
                memory_mib,
                cpus,
                address,
                prefix,
                // Of the clone alone: others cannot see it.
                mac: _,
                gateway: _,
                ssh_authorized_keys: _,
                sets: _,
                variables: _,
            } = clone;
            let host = format!("{name} {address}\n");
            hosts.update(&host);
            whole.update(&host);
            whole.update(format!("{prefix} {cpus} {memory_mib}\n"));
            for list in [&groups[..], request.sets_of(clone)] {
                whole.update((list.len() as u64).to_le_bytes());
                for name in list {
                    feed(&mut whole, name);
                }
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

/// 16 hex digits: enough to see that something changed.
fn short(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

fn feed(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

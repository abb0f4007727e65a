//! The cascade: globals, then groups from the outermost in, then the host; the later level wins.
//! Mappings are joined key by key, all else is replaced.

use std::collections::BTreeMap;

use crate::host_range::{self, MAX_CLONES};
use crate::layer;
use crate::problem::{Problems, shown};
use crate::reserved::{self, Level};
use crate::yaml::{Key, Node, Position, Value};

const MAX_GROUP_DEPTH: usize = 16;
const MAX_GROUP_NAME_CHARS: usize = 128;
const MAX_KEY_BYTES: usize = 256;

/// The values of one level, or of several joined. Each node still knows where it was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    pub reserved: BTreeMap<&'static str, Node>,
    pub variables: BTreeMap<String, Node>,
}

impl Values {
    fn joined_with(&self, later: Values) -> Self {
        let mut joined = self.clone();
        for (key, node) in later.reserved {
            match joined.reserved.get_mut(key) {
                Some(earlier) => join(earlier, node),
                None => {
                    joined.reserved.insert(key, node);
                }
            }
        }
        for (key, node) in later.variables {
            match joined.variables.get_mut(&key) {
                Some(earlier) => join(earlier, node),
                None => {
                    joined.variables.insert(key, node);
                }
            }
        }
        joined
    }
}

fn join(earlier: &mut Node, later: Node) {
    let Value::Map(later_entries) = later.value else {
        *earlier = later;
        return;
    };
    let Value::Map(entries) = &mut earlier.value else {
        earlier.value = Value::Map(later_entries);
        earlier.at = later.at;
        return;
    };
    for (key, node) in later_entries {
        match entries.iter_mut().find(|(name, _)| name.text == key.text) {
            Some((_, known)) => join(known, node),
            None => entries.push((key, node)),
        }
    }
}

/// A host after the cascade.
#[derive(Debug)]
pub(crate) struct Host {
    pub name: String,
    /// Where its key stands.
    pub at: Position,
    pub groups: Vec<String>,
    pub values: Values,
}

/// What the file says, before values are checked.
#[derive(Debug)]
pub(crate) struct Herd {
    pub globals: Values,
    pub hosts: Vec<Host>,
}

pub(crate) fn read(root: Node, problems: &mut Problems) -> Herd {
    let mut reader = Reader {
        problems,
        hosts: Vec::new(),
        seen: BTreeMap::new(),
    };
    let globals = reader
        .mapping(root, "a herd file", "a mapping")
        .map(|entries| reader.frame(entries, &Values::default(), &[], Place::Top))
        .unwrap_or_default();
    Herd {
        globals,
        hosts: reader.hosts,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Group,
    Host,
    /// A host key that stands for several.
    HostRange,
}

struct Reader<'a> {
    problems: &'a mut Problems,
    hosts: Vec<Host>,
    seen: BTreeMap<String, Position>,
}

impl Reader<'_> {
    /// The top or a group: its own values joined to the outer ones; its hosts are kept.
    fn frame(
        &mut self,
        entries: Vec<(Key, Node)>,
        outer: &Values,
        groups: &[String],
        place: Place,
    ) -> Values {
        let mut inner_groups = None;
        let mut hosts = None;
        let mut own = Vec::new();
        for (key, node) in entries {
            match key.text.as_str() {
                "groups" => inner_groups = Some(node),
                "hosts" => hosts = Some(node),
                _ => own.push((key, node)),
            }
        }
        let own = self.values(own, place);
        let values = outer.joined_with(own);
        if let Some(node) = hosts {
            self.read_hosts(node, &values, groups);
        }
        if let Some(node) = inner_groups {
            self.read_groups(node, &values, groups);
        }
        values
    }

    fn read_groups(&mut self, node: Node, outer: &Values, groups: &[String]) {
        if groups.len() >= MAX_GROUP_DEPTH {
            self.problems.add(
                node.at,
                format!("groups nested deeper than {MAX_GROUP_DEPTH}"),
            );
            return;
        }
        let Some(entries) = self.mapping(node, "groups", "a mapping of names to groups") else {
            return;
        };
        for (key, node) in entries {
            let bad = key.text.trim().is_empty()
                || key.text.chars().count() > MAX_GROUP_NAME_CHARS
                || key.text.chars().any(char::is_control);
            if bad {
                self.problems.add(
                    key.at,
                    format!(
                        "{} is no name for a group; use 1 to {MAX_GROUP_NAME_CHARS} printable characters",
                        shown(&key.text)
                    ),
                );
            }
            let mut path = groups.to_vec();
            path.push(key.text);
            if let Some(entries) = self.mapping(node, "a group", "a mapping with hosts: or groups:")
            {
                self.frame(entries, outer, &path, Place::Group);
            }
        }
    }

    fn read_hosts(&mut self, node: Node, outer: &Values, groups: &[String]) {
        let Some(entries) = self.mapping(node, "hosts", "a mapping of names, each with a ':'")
        else {
            return;
        };
        for (key, node) in entries {
            let names = match host_range::expand(&key.text) {
                Ok(names) => names,
                Err(what) => {
                    self.problems.add(key.at, what);
                    continue;
                }
            };
            if self.hosts.len() + names.len() > MAX_CLONES {
                self.problems.add(key.at, host_range::too_many());
                return;
            }
            let place = if names.len() == 1 {
                Place::Host
            } else {
                Place::HostRange
            };
            let what = "a host";
            let Some(entries) = self.mapping(node, what, "nothing or a mapping of values") else {
                continue;
            };
            let own = self.values(entries, place);
            let values = outer.joined_with(own);
            for name in names {
                if let Some(first) = self.seen.get(&name) {
                    let message = format!(
                        "the host {name} is already at {first}; a host stands in one group"
                    );
                    self.problems.add(key.at, message);
                    continue;
                }
                self.seen.insert(name.clone(), key.at);
                self.hosts.push(Host {
                    name,
                    at: key.at,
                    groups: groups.to_vec(),
                    values: values.clone(),
                });
            }
        }
    }

    /// Sorts keys into reserved ones and variables.
    fn values(&mut self, entries: Vec<(Key, Node)>, place: Place) -> Values {
        let mut values = Values::default();
        for (key, node) in entries {
            let Some((name, level, _)) = reserved::KEYS.iter().find(|(name, ..)| *name == key.text)
            else {
                if let Some(meant) = reserved::meant(&key.text) {
                    let given = shown(&key.text);
                    let message = format!(
                        "unknown key {given}; did you mean {meant}? (a variable of that name goes under vars:)"
                    );
                    self.problems.add(key.at, message);
                } else {
                    self.variable(key, node, &mut values);
                }
                continue;
            };
            if let Some(what) = misplaced(*level, place) {
                self.problems.add(key.at, format!("{name} {what}"));
            } else if reserved::NOT_YET.contains(name) {
                self.problems
                    .add(key.at, format!("{name} is reserved and not supported yet"));
            } else if *name == "vars" {
                let Some(entries) = self.mapping(node, "vars", "a mapping of variables") else {
                    continue;
                };
                for (key, node) in entries {
                    self.variable(key, node, &mut values);
                }
            } else {
                values.reserved.insert(*name, node);
            }
        }
        values
    }

    fn variable(&mut self, key: Key, node: Node, values: &mut Values) {
        let name = key.text;
        if name.is_empty() || name.len() > MAX_KEY_BYTES {
            let message = format!("a key has 1 to {MAX_KEY_BYTES} bytes");
            self.problems.add(key.at, message);
        } else if layer::TEMPLATE_NAMES.contains(&name.as_str()) {
            let message = format!("{name} means something else in templates; choose another name");
            self.problems.add(key.at, message);
        } else if values.variables.insert(name.clone(), node).is_some() {
            let message = format!("the variable {name} stands here and beside vars:");
            self.problems.add(key.at, message);
        }
    }

    /// The entries of a mapping; nothing counts as an empty one.
    fn mapping(&mut self, node: Node, what: &str, expected: &str) -> Option<Vec<(Key, Node)>> {
        match node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(Vec::new()),
            other => {
                let kind = other.kind();
                self.problems
                    .add(node.at, format!("{what} is {expected}; this is {kind}"));
                None
            }
        }
    }
}

fn misplaced(level: Level, place: Place) -> Option<&'static str> {
    match (level, place) {
        (Level::Deployment, Place::Top) | (Level::Any, _) | (Level::Host, Place::Host) => None,
        (Level::Frame, Place::Top | Place::Group) => None,
        (Level::Deployment, _) => {
            Some("is of the whole deployment; write it at the top of the file")
        }
        (Level::Host, Place::HostRange) => {
            Some("cannot be the same for several hosts; name one host")
        }
        (Level::Host, _) => Some("is of one host; write it below that host"),
        (Level::Frame, _) => Some("cannot stand inside a host"),
    }
}

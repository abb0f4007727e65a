//! The cascade: globals, then groups from the outermost in, then the host. What the file writes at
//! each level, before values are joined and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::frame::{Frame, MAX_JOINED_VALUES, OwnValue, OwnValues};
use crate::host_range::{self, MAX_CLONES};
use crate::joined::split_key;
use crate::problem::{Problems, shown};
use crate::provenance::{Level, Origin};
use crate::reserved::{self, Stands};
use crate::templates::TEMPLATE_NAMES;
use crate::yaml::{Key, Node, Position, Value};

const MAX_GROUP_DEPTH: usize = 16;
const MAX_GROUP_NAME_CHARS: usize = 128;
const MAX_KEY_BYTES: usize = 256;

/// A host and the levels it stands in.
#[derive(Debug)]
pub(crate) struct Host {
    pub name: String,
    /// Where its key stands.
    pub at: Position,
    pub groups: Vec<String>,
    /// Shared by all hosts that have no values of their own, and by those of one range.
    pub frame: Arc<Frame>,
}

/// What the file says, before values are checked.
#[derive(Debug)]
pub(crate) struct Herd {
    pub globals: Arc<Frame>,
    pub hosts: Vec<Host>,
}

pub(crate) fn read(file: &str, root: Node, problems: &mut Problems) -> Herd {
    let mut reader = Reader {
        file,
        problems,
        hosts: Vec::new(),
        seen: BTreeMap::new(),
        named: 0,
        joined_values: 0,
    };
    let entries = reader.mapping(root, "a herd file", "a mapping");
    let globals = reader.frame(entries.unwrap_or_default(), None, &[], Place::Top);
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
    file: &'a str,
    problems: &'a mut Problems,
    hosts: Vec<Host>,
    seen: BTreeMap<String, Position>,
    /// Names so far, also those that were there already.
    named: usize,
    joined_values: usize,
}

impl Reader<'_> {
    /// The top or a group: its own values within the outer ones; its hosts are kept.
    fn frame(
        &mut self,
        entries: Vec<(Key, Node)>,
        outer: Option<&Arc<Frame>>,
        groups: &[String],
        place: Place,
    ) -> Arc<Frame> {
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
        let level = match groups {
            [] => Level::Globals,
            groups => Level::Group(groups.to_vec()),
        };
        let frame = self.level(level, own, outer, place);
        if let Some(node) = hosts {
            self.read_hosts(node, &frame, groups);
        }
        if let Some(node) = inner_groups {
            self.read_groups(node, &frame, groups);
        }
        frame
    }

    fn level(
        &mut self,
        level: Level,
        entries: Vec<(Key, Node)>,
        outer: Option<&Arc<Frame>>,
        place: Place,
    ) -> Arc<Frame> {
        let own = self.values(entries, place);
        let file = self.file.to_owned();
        let origin = Arc::new(Origin { level, file });
        Arc::new(Frame::new(outer.cloned(), origin, own))
    }

    fn read_groups(&mut self, node: Node, outer: &Arc<Frame>, groups: &[String]) {
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
                self.frame(entries, Some(outer), &path, Place::Group);
            }
        }
    }

    fn read_hosts(&mut self, node: Node, outer: &Arc<Frame>, groups: &[String]) {
        let Some(entries) = self.mapping(node, "hosts", "a mapping of names, each with a ':'")
        else {
            return;
        };
        let mut outer_counted = false;
        for (key, node) in entries {
            if self.is_full() {
                return;
            }
            let names = match host_range::expand(&key.text) {
                Ok(names) => names,
                Err(what) => {
                    self.problems.add(key.at, what);
                    continue;
                }
            };
            self.named += names.len();
            if self.named > MAX_CLONES {
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
            let is_outer = entries.is_empty();
            let frame = if is_outer {
                Arc::clone(outer)
            } else {
                let level = Level::Host(key.text.clone());
                self.level(level, entries, Some(outer), place)
            };
            if !is_outer || !outer_counted {
                self.joined_values = self.joined_values.saturating_add(frame.weight());
                outer_counted |= is_outer;
            }
            if self.joined_values > MAX_JOINED_VALUES {
                let message = format!(
                    "more than {MAX_JOINED_VALUES} values, inherited ones counted for each group with hosts and each host with values of its own, long texts as several; give a range of hosts the same values, or inherit less"
                );
                self.problems.add(key.at, message);
                // Joining the hosts so far, to complain of them too, would cost what is refused.
                self.hosts.truncate(1);
                return;
            }
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
                    frame: Arc::clone(&frame),
                });
            }
        }
    }

    /// What was refused for its size is not read any further.
    fn is_full(&self) -> bool {
        self.named > MAX_CLONES || self.joined_values > MAX_JOINED_VALUES
    }

    /// Sorts keys into reserved ones and variables.
    fn values(&mut self, entries: Vec<(Key, Node)>, place: Place) -> OwnValues {
        let mut values = OwnValues::default();
        for (key, node) in entries {
            let (base, appends) = split_key(&key.text);
            let known = reserved::KEYS.iter().find(|(name, ..)| *name == base);
            let Some((name, stands, _)) = known else {
                if let Some(meant) = reserved::meant(base) {
                    let given = shown(&key.text);
                    let plus = if appends { "+" } else { "" };
                    let message = format!(
                        "unknown key {given}; did you mean {meant}{plus}? (a variable of that name goes under vars:)"
                    );
                    self.problems.add(key.at, message);
                } else {
                    self.variable(key, node, &mut values);
                }
                continue;
            };
            if let Some(what) = misplaced(*stands, place) {
                self.problems.add(key.at, format!("{name} {what}"));
            } else if reserved::NOT_YET.contains(name) {
                self.problems
                    .add(key.at, format!("{name} is reserved and not supported yet"));
            } else if appends && !reserved::LISTS.contains(name) {
                let lists = reserved::LISTS.join(", ");
                let message = format!(
                    "{name} is no list to append to; of the reserved keys {lists} are lists"
                );
                self.problems.add(key.at, message);
            } else if *name == "vars" {
                let Some(entries) = self.mapping(node, "vars", "a mapping of variables") else {
                    continue;
                };
                for (key, node) in entries {
                    self.variable(key, node, &mut values);
                }
            } else {
                let own = self.own_value(key.at, appends, node);
                if values.reserved.insert(*name, own).is_some() {
                    self.problems.add(key.at, twice(name));
                }
            }
        }
        values
    }

    fn variable(&mut self, key: Key, node: Node, values: &mut OwnValues) {
        let (name, appends) = split_key(&key.text);
        if name.is_empty() || name.len() > MAX_KEY_BYTES {
            let message = format!("a key has 1 to {MAX_KEY_BYTES} bytes");
            self.problems.add(key.at, message);
        } else if TEMPLATE_NAMES.contains(&name) {
            let message = format!("{name} means something else in templates; choose another name");
            self.problems.add(key.at, message);
        } else {
            let own = self.own_value(key.at, appends, node);
            if let Some(known) = values.variables.insert(name.to_owned(), own) {
                let message = if known.appends == appends {
                    format!("the variable {name} stands here and beside vars:")
                } else {
                    twice(name)
                };
                self.problems.add(key.at, message);
            }
        }
    }

    fn own_value(&mut self, key_at: Position, appends: bool, node: Node) -> OwnValue {
        self.check_keys(&node);
        OwnValue {
            key_at,
            appends,
            node,
        }
    }

    /// A mapping that says a key and appends to it would depend on its order.
    fn check_keys(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else {
            return;
        };
        let mut names = BTreeSet::new();
        for (key, node) in entries {
            let (name, _) = split_key(&key.text);
            if !names.insert(name) {
                self.problems.add(key.at, twice(name));
            }
            self.check_keys(node);
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

fn twice(name: &str) -> String {
    format!("{name} and {name}+ stand in one place; write the whole list as {name}")
}

fn misplaced(stands: Stands, place: Place) -> Option<&'static str> {
    match (stands, place) {
        (Stands::Deployment, Place::Top) | (Stands::Any, _) | (Stands::Host, Place::Host) => None,
        (Stands::Frame, Place::Top | Place::Group) => None,
        (Stands::Deployment, _) => {
            Some("is of the whole deployment; write it at the top of the file")
        }
        (Stands::Host, Place::HostRange) => {
            Some("cannot be the same for several hosts; name one host")
        }
        (Stands::Host, _) => Some("is of one host; write it below that host"),
        (Stands::Frame, _) => Some("cannot stand inside a host"),
    }
}

//! Joining: what several levels write under one key becomes one value that knows where it comes
//! from. Mappings are joined key by key, a key that ends in `+` appends its list to the value so
//! far, all else is replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::provenance::{EarlierValue, Origin, Source, TracedValue};
use crate::yaml::{Key, Node, Position, Value};

/// What one level writes under one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub key_at: Position,
    /// The key ended in `+`.
    pub appends: bool,
    pub node: &'a Node,
}

/// A value after some levels.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub key_at: Position,
    pub value: JoinedValue,
    /// The last level that wrote it; of a mapping, any part of it.
    pub source: Source,
    pub earlier: Option<Box<Earlier>>,
}

#[derive(Debug, Clone)]
pub(crate) enum JoinedValue {
    Scalar(Value),
    List(Vec<Node>),
    Map(BTreeMap<String, Joined>),
}

#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    pub value: Joined,
    /// Appended to, not overridden.
    pub kept: bool,
}

/// Takes what is wrong, at its place.
pub(crate) type Wrong<'a> = dyn FnMut(Position, String) + 'a;

/// How lists are appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// Only a list is a list.
    Strict,
    /// One text alone is a list of one.
    OneIsEnough,
}

/// A key of a mapping without its `+`, and whether it had one.
pub(crate) fn split_key(text: &str) -> (&str, bool) {
    match text.strip_suffix('+') {
        Some(name) if !name.is_empty() => (name, true),
        _ => (text, false),
    }
}

/// Writes onto the value so far. What cannot be done is said, and leaves the value as it was.
pub(crate) fn write(
    so_far: Option<Joined>,
    name: &str,
    written: Written<'_>,
    origin: &Arc<Origin>,
    lists: Lists,
    wrong: &mut Wrong<'_>,
) -> Option<Joined> {
    let source = Source {
        origin: Arc::clone(origin),
        at: written.node.at,
    };
    if written.appends {
        return append(so_far, name, written, source, lists, wrong);
    }
    let replaced = |so_far: Option<Joined>, value| {
        let earlier = so_far.map(|value| Box::new(Earlier { value, kept: false }));
        Some(Joined {
            key_at: written.key_at,
            value,
            source: source.clone(),
            earlier,
        })
    };
    match &written.node.value {
        Value::Map(entries) => {
            let (mut map, mut joined) = match so_far {
                Some(Joined {
                    value: JoinedValue::Map(map),
                    key_at,
                    earlier,
                    ..
                }) => {
                    let joined = Joined {
                        key_at,
                        value: JoinedValue::Map(BTreeMap::new()),
                        source: source.clone(),
                        earlier,
                    };
                    (map, joined)
                }
                other => {
                    let empty = JoinedValue::Map(BTreeMap::new());
                    (BTreeMap::new(), replaced(other, empty)?)
                }
            };
            for (key, node) in entries {
                let (name, appends) = split_key(&key.text);
                let inner = Written {
                    key_at: key.at,
                    appends,
                    node,
                };
                let known = map.remove(name);
                if let Some(now) = write(known, name, inner, origin, Lists::Strict, wrong) {
                    map.insert(name.to_owned(), now);
                }
            }
            joined.value = JoinedValue::Map(map);
            Some(joined)
        }
        Value::List(items) => replaced(so_far, JoinedValue::List(items.clone())),
        scalar => replaced(so_far, JoinedValue::Scalar(scalar.clone())),
    }
}

fn append(
    so_far: Option<Joined>,
    name: &str,
    written: Written<'_>,
    source: Source,
    lists: Lists,
    wrong: &mut Wrong<'_>,
) -> Option<Joined> {
    let one_is_enough = lists == Lists::OneIsEnough;
    let own = match &written.node.value {
        Value::List(items) => items.clone(),
        Value::Null => Vec::new(),
        Value::Text(_) if one_is_enough => vec![written.node.clone()],
        other => {
            let kind = other.kind();
            let what = format!("{name}+ appends a list; this is {kind}");
            wrong(written.node.at, what);
            return so_far;
        }
    };
    let Some(before) = so_far else {
        return Some(Joined {
            key_at: written.key_at,
            value: JoinedValue::List(own),
            source,
            earlier: None,
        });
    };
    let (mut items, kept) = match &before.value {
        JoinedValue::List(items) => (items.clone(), true),
        JoinedValue::Scalar(Value::Null) => (Vec::new(), false),
        JoinedValue::Scalar(text @ Value::Text(_)) if one_is_enough => {
            let node = Node {
                at: before.source.at,
                value: text.clone(),
            };
            (vec![node], true)
        }
        _ => {
            let what = format!(
                "{name}+ appends to a list; {name} is {} ({})",
                before.value.kind(),
                before.source
            );
            wrong(written.key_at, what);
            return Some(before);
        }
    };
    items.extend(own);
    Some(Joined {
        key_at: written.key_at,
        value: JoinedValue::List(items),
        source,
        earlier: Some(Box::new(Earlier {
            value: before,
            kept,
        })),
    })
}

impl JoinedValue {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(value) => value.kind(),
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    pub fn to_json(&self) -> Json {
        match self {
            Self::Scalar(value) => value.to_json(),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(map) => Json::Object(to_json_map(map)),
        }
    }
}

/// The keys come out sorted.
pub(crate) fn to_json_map(map: &BTreeMap<String, Joined>) -> serde_json::Map<String, Json> {
    map.iter()
        .map(|(key, joined)| (key.clone(), joined.value.to_json()))
        .collect()
}

impl Joined {
    /// The same as if one level had written all of it.
    pub fn to_node(&self) -> Node {
        let value = match &self.value {
            JoinedValue::Scalar(value) => value.clone(),
            JoinedValue::List(items) => Value::List(items.clone()),
            JoinedValue::Map(map) => {
                let entries = map.iter().map(|(name, joined)| {
                    let key = Key {
                        at: joined.key_at,
                        text: name.clone(),
                    };
                    (key, joined.to_node())
                });
                Value::Map(entries.collect())
            }
        };
        Node {
            at: self.source.at,
            value,
        }
    }

    /// Its leaves, each with its own source: mappings are entered, lists are not.
    pub fn trace(&self, name: &str, into: &mut Vec<TracedValue>) {
        self.trace_below(name, &[], into);
    }

    /// `above`: what a mapping around it overrode.
    fn trace_below(&self, name: &str, above: &[EarlierValue], into: &mut Vec<TracedValue>) {
        let mut earlier = Vec::new();
        let mut next = self.earlier.as_deref();
        while let Some(Earlier { value, kept }) = next {
            earlier.push(EarlierValue {
                value: value.value.to_json(),
                source: value.source.clone(),
                kept: *kept,
            });
            next = value.earlier.as_deref();
        }
        earlier.extend_from_slice(above);
        match &self.value {
            JoinedValue::Map(map) if !map.is_empty() => {
                for (key, inner) in map {
                    inner.trace_below(&format!("{name}.{}", dotted(key)), &earlier, into);
                }
            }
            value => into.push(TracedValue {
                name: name.to_owned(),
                value: value.to_json(),
                source: self.source.clone(),
                earlier,
            }),
        }
    }
}

/// A key as a part of a dotted name.
pub(crate) fn dotted(key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(plain) {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

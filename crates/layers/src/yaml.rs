//! YAML as a tree that knows where each value was written, read within fixed limits.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// A file larger than this is no herd file.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;

/// A text that is longer weighs as much as several values.
const TEXT_BYTES_OF_ONE: usize = 64;

/// A place in a file; line and column count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub at: Position,
    pub text: String,
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// What it costs to have it: how many values it is, itself and all within it. A long text counts
    /// for more than one.
    pub fn weight(&self) -> usize {
        let of_text = |text: &str| text.len() / TEXT_BYTES_OF_ONE;
        1 + match self {
            Self::Text(text) => of_text(text),
            Self::List(items) => items.iter().map(|item| item.value.weight()).sum(),
            Self::Map(entries) => entries
                .iter()
                .map(|(key, node)| of_text(&key.text) + node.value.weight())
                .sum(),
            _ => 0,
        }
    }

    /// As JSON with the keys of mappings sorted, so that their order in the file changes nothing.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Integer(value) => Json::from(*value),
            Self::Float(value) => Json::from(*value),
            Self::Text(value) => Json::from(value.as_str()),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|(a, _), (b, _)| a.text.cmp(&b.text));
                let pairs = sorted.into_iter();
                Json::Object(
                    pairs
                        .map(|(key, node)| (key.text.clone(), node.value.to_json()))
                        .collect(),
                )
            }
        }
    }
}

/// Reads one document. The error is a place, when known, and a message of one line.
pub(crate) fn parse(text: &str) -> Result<Node, (Position, String)> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!(
            "the file has {} bytes, the limit is {MAX_FILE_BYTES}",
            text.len()
        );
        return Err((Position { line: 1, column: 1 }, message));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 500_000,
            max_nodes: 250_000,
            max_depth: 64,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let read = serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options);
    match read {
        Ok(spanned) => Ok(spanned.into()),
        Err(error) => {
            let at = error.location().map(Position::from).unwrap_or_default();
            let message = error.without_snippet().to_string();
            // The place stands before the message already, and our user has no such options.
            let message = message.split(" at line ").next().unwrap_or_default();
            let message = message.split(", set ").next().unwrap_or_default();
            let message = message.replace('\n', " ");
            Err((at, message))
        }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self {
            at: spanned.referenced.into(),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Integer)
            .map_err(|_| E::custom(format!("the number {value} is too large; quote it")))
    }

    /// JSON, in which values travel, knows neither the infinite nor what is no number.
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match value.is_finite() {
            true => Ok(Value::Float(value)),
            false => Err(E::custom(format!("{value} is no finite number; quote it"))),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Spanned<Value>>()?;
            let key = Key {
                at: key.referenced.into(),
                text: key.value,
            };
            entries.push((key, value.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_keys_and_values_are_known() {
        let node = parse("a: 1\nb:\n  clone[01-04]:\n  - x\n  1: {y: 10.0.0.1}\n").unwrap();
        let Value::Map(top) = &node.value else {
            panic!("{node:?}")
        };
        assert_eq!(top[1].0.at.to_string(), "2:1");
        let Value::Map(b) = &top[1].1.value else {
            panic!("{node:?}")
        };
        assert_eq!(
            (b[0].0.text.as_str(), b[0].0.at.to_string().as_str()),
            ("clone[01-04]", "3:3")
        );
        let Value::List(list) = &b[0].1.value else {
            panic!("{node:?}")
        };
        assert_eq!(list[0].at.to_string(), "4:5");
        assert_eq!(b[1].0.text, "1");
        assert_eq!(node.value.to_json()["b"]["1"]["y"], "10.0.0.1");
    }

    #[test]
    fn bombs_and_nonsense_are_refused_with_a_place() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let p = i - 1;
            bomb += &format!("a{i}: &a{i} [{}]\n", format!("*a{p}, ").repeat(10));
        }
        let deep = "[".repeat(10_000);
        for bad in [
            bomb.as_str(),
            &deep,
            "a: 1\na: 2\n",
            "a: [1\n",
            "a: !!python/object x\n",
            "a: b: c\n",
            "a: .nan\n",
            "a: [-.inf]\n",
            "a: 18446744073709551615\n",
        ] {
            let (at, message) = parse(bad).unwrap_err();
            assert!(at.line >= 1, "{message}");
            assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        }
        assert!(parse(&" ".repeat(MAX_FILE_BYTES + 1)).is_err());
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let node = parse("a: yes\nb: true\nc:\nd: ~\n").unwrap();
        assert_eq!(
            node.value.to_json().to_string(),
            r#"{"a":"yes","b":true,"c":null,"d":null}"#
        );
    }
}

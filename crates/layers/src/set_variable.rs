//! A variable as a set declares it: its type, its default, and what it is for.

use std::fmt;

use crate::joined::JoinedValue;
use crate::yaml::{Node, Position, Value};

/// What kind of value a variable takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableType {
    Text,
    Integer,
    Number,
    Boolean,
    List,
    Mapping,
    Any,
}

impl VariableType {
    /// All, and how a `set.yaml` spells them.
    pub const NAMES: [(&str, Self); 7] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("list", Self::List),
        ("mapping", Self::Mapping),
        ("any", Self::Any),
    ];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, kind)| *kind)
    }

    /// Nothing is no value of any type.
    pub(crate) fn takes(self, value: &JoinedValue) -> bool {
        match value {
            JoinedValue::List(_) => matches!(self, Self::List | Self::Any),
            JoinedValue::Map(_) => matches!(self, Self::Mapping | Self::Any),
            JoinedValue::Scalar(value) => self.takes_value(value),
        }
    }

    pub(crate) fn takes_value(self, value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Bool(_) => matches!(self, Self::Boolean | Self::Any),
            Value::Integer(_) => matches!(self, Self::Integer | Self::Number | Self::Any),
            Value::Float(_) => matches!(self, Self::Number | Self::Any),
            Value::Text(_) => matches!(self, Self::Text | Self::Any),
            Value::List(_) => matches!(self, Self::List | Self::Any),
            Value::Map(_) => matches!(self, Self::Mapping | Self::Any),
        }
    }

    /// For messages, with its article.
    pub(crate) fn wanted(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Mapping => "a mapping",
            Self::Any => "a value",
        }
    }
}

impl fmt::Display for VariableType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, kind)| kind == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// A variable that a set reads.
#[derive(Debug, Clone, PartialEq)]
pub struct SetVariable {
    pub kind: VariableType,
    /// Templates may find it undefined.
    pub optional: bool,
    /// One line; may be empty.
    pub help: String,
    pub(crate) key_at: Position,
    pub(crate) default: Option<Node>,
}

impl SetVariable {
    pub fn default(&self) -> Option<serde_json::Value> {
        self.default.as_ref().map(|node| node.value.to_json())
    }

    /// The herd file must give it.
    pub fn required(&self) -> bool {
        !self.optional && self.default.is_none()
    }
}

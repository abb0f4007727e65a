//! Where a value of a clone comes from: the level that wrote it, the place, and what it overrode.

use std::fmt;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value as Json;

use crate::yaml::Position;

/// Who wrote a value. A later one here wins over an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Estive itself, when nobody wrote one.
    BuiltIn,
    /// An address drawn for the clone's name.
    Drawn,
    /// The default in the `set.yaml` of the set of this name.
    Set(String),
    Globals,
    /// The names of the groups, outermost first.
    Group(Vec<String>),
    /// The key in the file: a name, or a range of them.
    Host(String),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::Drawn => f.write_str("drawn"),
            Self::Set(name) => write!(f, "set {name} default"),
            Self::Globals => f.write_str("globals"),
            Self::Group(names) => write!(f, "group {}", names.join(" / ")),
            Self::Host(key) => write!(f, "host {key}"),
        }
    }
}

/// A level and the file in which it stands; one for all its values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub level: Level,
    pub file: String,
}

/// The place of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub(crate) origin: Arc<Origin>,
    pub(crate) at: Position,
}

impl Source {
    /// Of a value that stands in no file.
    pub(crate) fn nowhere(level: Level) -> Self {
        let file = String::new();
        Self {
            origin: Arc::new(Origin { level, file }),
            at: Position::default(),
        }
    }

    pub fn level(&self) -> &Level {
        &self.origin.level
    }

    /// File and place in it; none when no file says it.
    pub fn place(&self) -> Option<(&str, Position)> {
        let file = self.origin.file.as_str();
        (!file.is_empty()).then_some((file, self.at))
    }
}

/// `globals, herd.yaml:3:9`
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level())?;
        match self.place() {
            Some((file, at)) => write!(f, ", {file}:{at}"),
            None => Ok(()),
        }
    }
}

/// One value of a clone after the cascade.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedValue {
    /// A key, or keys with dots between them.
    pub name: String,
    pub value: Json,
    pub source: Source,
    /// What stood there before it, the latest first.
    pub earlier: Vec<EarlierValue>,
}

/// A value that a later level wrote over, or appended to.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierValue {
    pub value: Json,
    pub source: Source,
    /// It is still part of the value: a later level appended to it.
    pub kept: bool,
}

impl Serialize for TracedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("TracedValue", 7)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("value", &self.value)?;
        place::<S>(&mut fields, &self.source)?;
        fields.serialize_field("earlier", &self.earlier)?;
        fields.end()
    }
}

impl Serialize for EarlierValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("EarlierValue", 6)?;
        fields.serialize_field("value", &self.value)?;
        place::<S>(&mut fields, &self.source)?;
        fields.serialize_field("kept", &self.kept)?;
        fields.end()
    }
}

fn place<S: Serializer>(fields: &mut S::SerializeStruct, source: &Source) -> Result<(), S::Error> {
    let (file, at) = source.place().unzip();
    fields.serialize_field("level", &source.level().to_string())?;
    fields.serialize_field("file", &file)?;
    fields.serialize_field("line", &at.map(|at| at.line))?;
    fields.serialize_field("column", &at.map(|at| at.column))
}

//! `set.yaml`: what the file system of a checkout cannot say of a template set.

use std::collections::BTreeMap;

use crate::error::LayerError;
use crate::problem::shown;
use crate::yaml::{self, Position, Value};

/// The file's name, at the top of a set.
pub(crate) const SETTINGS: &str = "set.yaml";

/// What a set says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SetSettings {
    /// One line on what it is for.
    pub help: String,
    /// By path in the clone.
    pub files: BTreeMap<String, Settings>,
}

/// What `set.yaml` says of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
    /// Left out when it renders to nothing but white space.
    pub optional: bool,
}

impl SetSettings {
    /// Reads the file of the set of this name.
    pub fn parse(set: &str, bytes: &[u8]) -> Result<Self, LayerError> {
        let text = std::str::from_utf8(bytes).map_err(|_| LayerError::Set {
            set: set.to_owned(),
            path: SETTINGS.to_owned(),
            what: "is not UTF-8".to_owned(),
        })?;
        Self::read(text).map_err(|(at, what)| LayerError::Set {
            set: set.to_owned(),
            path: format!("{SETTINGS}:{at}"),
            what,
        })
    }

    fn read(text: &str) -> Result<Self, (Position, String)> {
        let root = yaml::parse(text)?;
        let Value::Map(entries) = root.value else {
            return Err((root.at, "a mapping is wanted".to_owned()));
        };
        let mut settings = Self::default();
        for (key, node) in entries {
            match (key.text.as_str(), node.value) {
                ("help", Value::Text(text)) => settings.help = text,
                ("files", Value::Map(files)) => {
                    for (path, node) in files {
                        let file = file_settings(&node.value).map_err(|what| (node.at, what))?;
                        settings.files.insert(path.text, file);
                    }
                }
                _ => {
                    let what = format!(
                        "{}: not understood; there are help: TEXT and files: MAPPING",
                        shown(&key.text)
                    );
                    return Err((key.at, what));
                }
            }
        }
        Ok(settings)
    }
}

fn file_settings(value: &Value) -> Result<Settings, String> {
    const EXPECTED: &str = "of a file there are mode: \"0644\", uid, gid, optional: true";
    let Value::Map(entries) = value else {
        return Err(EXPECTED.to_owned());
    };
    let mut settings = Settings::default();
    for (key, node) in entries {
        match (key.text.as_str(), &node.value) {
            ("mode", Value::Text(text)) => {
                let mode = u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777);
                settings.mode = Some(mode.ok_or(EXPECTED)?);
            }
            ("uid", Value::Integer(id)) => {
                settings.uid = u32::try_from(*id).map_err(|_| EXPECTED)?
            }
            ("gid", Value::Integer(id)) => {
                settings.gid = u32::try_from(*id).map_err(|_| EXPECTED)?
            }
            ("optional", Value::Bool(optional)) => settings.optional = *optional,
            _ => return Err(format!("{}: {EXPECTED}", shown(&key.text))),
        }
    }
    Ok(settings)
}

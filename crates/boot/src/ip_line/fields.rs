//! The parts of `ip=`: split at their colons, those of the kernel's form by their place, the others by their keys.

use super::value::Line;
use super::{ClientId, KEYS, MTU_BYTES_MIN};
use crate::root_line::Parsed;

pub(super) const DNS_MAX: usize = 2;

/// One field and where it begins in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub at: usize,
    /// Without the brackets that hold all of it.
    pub text: &'a str,
    pub bracketed: bool,
}

impl<'a> Field<'a> {
    /// The two halves of `key=value`, the second with its place.
    pub(super) fn key(&self) -> Option<(&'a str, Field<'a>)> {
        if self.bracketed {
            return None;
        }
        let (key, value) = self.text.split_once('=')?;
        let at = self.at + key.len() + 1;
        let inside = value
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let value = Field {
            at: at + usize::from(inside.is_some()),
            text: inside.unwrap_or(value),
            bracketed: inside.is_some(),
        };
        Some((key, value))
    }
}

/// Splits at each `:` that is not in brackets.
pub(super) fn fields(text: &str) -> Parsed<Vec<Field<'_>>> {
    let line = Line;
    let mut fields = Vec::new();
    let mut open = None;
    let mut begin = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ':')]) {
        match (c, open) {
            _ if c.is_control() || c.is_whitespace() => {
                return line.wrong(at, "a blank: write %20");
            }
            ('[', None) => open = Some(at),
            ('[', Some(_)) => return line.wrong(at, "a bracket inside brackets"),
            (']', None) => return line.wrong(at, "no bracket was opened"),
            (']', Some(_)) => open = None,
            (':', None) => {
                let part = &text[begin..at];
                let inside = part.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                fields.push(Field {
                    at: begin + usize::from(inside.is_some()),
                    text: inside.unwrap_or(part),
                    bracketed: inside.is_some(),
                });
                begin = at + 1;
            }
            _ => {}
        }
    }
    match open {
        Some(at) => line.wrong(at, "this bracket is not closed"),
        None => Ok(fields),
    }
}

/// The fields of the kernel's form.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub client: Option<Field<'a>>,
    pub server: Option<Field<'a>>,
    pub gateway: Option<Field<'a>>,
    pub netmask: Option<Field<'a>>,
    pub hostname: Option<Field<'a>>,
    pub device: Option<Field<'a>>,
    pub autoconf: Option<Field<'a>>,
    pub dns: Vec<Field<'a>>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(line: &Line, fields: &[Field<'a>]) -> Parsed<Fields<'a>> {
        let given = |index: usize| {
            fields
                .get(index)
                .copied()
                .filter(|field| !field.text.is_empty())
        };
        if let Some(field) = fields.get(7 + DNS_MAX) {
            return line.wrong(
                field.at,
                "there are nine fields at most, the last two for DNS; others are written KEY=VALUE",
            );
        }
        Ok(Fields {
            client: given(0),
            server: given(1),
            gateway: given(2),
            netmask: given(3),
            hostname: given(4),
            device: given(5),
            autoconf: given(6),
            dns: (7..fields.len()).filter_map(given).collect(),
        })
    }
}

#[derive(Default)]
pub(super) struct Keys<'a> {
    pub seen: Vec<(&'a str, usize)>,
    pub hostname: Option<Field<'a>>,
    pub device: Option<Field<'a>>,
    pub client_id: Option<ClientId>,
    pub vendor_class: Option<String>,
    pub timeout_s: Option<u32>,
    pub mtu_bytes: Option<u16>,
    pub domains: Vec<String>,
}

impl<'a> Keys<'a> {
    pub(super) fn read(line: &Line, fields: &[Field<'a>]) -> Parsed<Keys<'a>> {
        let mut keys = Keys::default();
        for field in fields {
            let Some((key, value)) = field.key() else {
                return line.wrong(
                    field.at,
                    "a field after KEY=VALUE: the keys stand at the end",
                );
            };
            if keys.seen.iter().any(|(seen, _)| *seen == key) {
                return line.wrong(field.at, "it is said twice");
            }
            keys.seen.push((key, field.at));
            match key {
                "hostname" => keys.hostname = Some(value),
                "device" => keys.device = Some(value),
                "client-id" => keys.client_id = Some(line.client_id(&value)?),
                "vendor-class" => keys.vendor_class = Some(line.text(&value)?),
                "timeout" => {
                    keys.timeout_s = Some(line.number(&value, 1..=3600, "seconds, 1 to 3600")?);
                }
                "mtu" => {
                    let most = u32::from(u16::MAX);
                    let range = u32::from(MTU_BYTES_MIN)..=most;
                    let mtu_bytes = line.number(&value, range, "bytes, 576 to 65535")?;
                    keys.mtu_bytes = u16::try_from(mtu_bytes).ok();
                }
                "domain" => keys.domains = line.domains(&value)?,
                _ => {
                    let known: Vec<&str> = KEYS.iter().map(|(name, ..)| *name).collect();
                    return line.wrong(
                        field.at,
                        &format!("no such key; there are {}", known.join(", ")),
                    );
                }
            }
        }
        Ok(keys)
    }

    pub(super) fn place(&self, key: &str) -> Option<usize> {
        let (_, at) = self.seen.iter().find(|(seen, _)| *seen == key)?;
        Some(*at)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Autoconf {
    Off,
    /// DHCP unless an address is given.
    Any,
    Dhcp,
}

impl Autoconf {
    pub(super) fn of(word: &str) -> Option<std::result::Result<Autoconf, &'static str>> {
        Some(match word {
            "off" | "none" => Ok(Autoconf::Off),
            "on" | "any" => Ok(Autoconf::Any),
            "dhcp" => Ok(Autoconf::Dhcp),
            "bootp" | "rarp" | "both" => Err("DHCP took the place of it: write dhcp"),
            _ => return None,
        })
    }

    pub(super) fn read(line: &Line, field: &Field) -> Parsed<Autoconf> {
        match Autoconf::of(field.text) {
            Some(Ok(autoconf)) => Ok(autoconf),
            Some(Err(reason)) => line.wrong(field.at, reason),
            None => line.wrong(field.at, "it must be dhcp, on, any, off or none"),
        }
    }
}

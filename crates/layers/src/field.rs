//! A reserved key's value read as what it should be, each complaint at its place.

use crate::plan::SharedPlace;
use crate::problem::{Problems, shown};
use crate::reserved;
use crate::yaml::{Key, Node, Position, Value};
use estive_boot::shared_line::{SHARED_MAX, check_place, is_within};
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

const MAX_LIST_ITEMS: usize = 256;

/// One reserved key's value.
pub(crate) struct Field<'a> {
    key: &'static str,
    pub node: &'a Node,
}

impl<'a> Field<'a> {
    pub fn of(key: &'static str, node: &'a Node) -> Self {
        Self { key, node }
    }

    fn wrong(&self, at: Position, what: impl std::fmt::Display, problems: &mut Problems) {
        problems.add(at, format!("{}: {what}", self.key));
    }

    pub fn text(&self, problems: &mut Problems) -> Option<String> {
        match &self.node.value {
            Value::Text(text) => Some(text.clone()),
            other => {
                let what = format!("a text is wanted, this is {}", other.kind());
                self.wrong(self.node.at, what, problems);
                None
            }
        }
    }

    pub fn parsed<T>(
        &self,
        problems: &mut Problems,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(problems)?;
        parse(&text)
            .map_err(|what| self.wrong(self.node.at, what, problems))
            .ok()
    }

    pub fn integer(
        &self,
        problems: &mut Problems,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let (low, high) = (range.start(), range.end());
        let what = match &self.node.value {
            Value::Integer(value) if range.contains(value) => return Some(*value),
            Value::Integer(value) => format!("{value} is not within {low} to {high}"),
            Value::Text(text) => format!(
                "{} is no whole number; units belong to the key",
                shown(text)
            ),
            other => format!("a whole number is wanted, this is {}", other.kind()),
        };
        self.wrong(self.node.at, what, problems);
        None
    }

    /// A list of texts, or one text alone.
    pub fn list<T>(
        &self,
        problems: &mut Problems,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let items = match &self.node.value {
            Value::List(items) => items.as_slice(),
            Value::Null => &[],
            _ => std::slice::from_ref(self.node),
        };
        if items.len() > MAX_LIST_ITEMS {
            let what = format!("{} items, the limit is {MAX_LIST_ITEMS}", items.len());
            self.wrong(self.node.at, what, problems);
            return Vec::new();
        }
        items
            .iter()
            .filter_map(|node| Field::of(self.key, node).parsed(problems, &parse))
            .collect()
    }

    /// `volume: {size: 4G}`, in bytes.
    pub fn volume_size(&self, problems: &mut Problems) -> Option<u64> {
        const KEY: &str = "size";
        let Value::Map(entries) = &self.node.value else {
            let kind = self.node.value.kind();
            let what = format!("a mapping is wanted, as {{{KEY}: 4G}}; this is {kind}");
            self.wrong(self.node.at, what, problems);
            return None;
        };
        let mut size_bytes = None;
        for (key, node) in entries {
            match (key.text.as_str(), &node.value) {
                (KEY, Value::Text(text)) => match size(text) {
                    Ok(bytes) => size_bytes = Some(bytes),
                    Err(what) => self.wrong(node.at, what, problems),
                },
                (KEY, _) => self.wrong(
                    node.at,
                    "write the size with its unit, as 512M, 4G",
                    problems,
                ),
                _ => self.wrong(
                    key.at,
                    format!("unknown key {}; it has {KEY}", shown(&key.text)),
                    problems,
                ),
            }
        }
        size_bytes
    }

    /// `shared: {/home: {}, /data: {from: nfs://10.0.0.1/srv/data}}`, in the order of their places.
    pub fn shared(&self, problems: &mut Problems) -> Vec<SharedPlace> {
        let Value::Map(entries) = &self.node.value else {
            let kind = self.node.value.kind();
            let what = format!("a mapping is wanted, as {{/home: {{}}}}; this is {kind}");
            self.wrong(self.node.at, what, problems);
            return Vec::new();
        };
        let mut places: Vec<SharedPlace> = Vec::new();
        for (key, node) in entries {
            let at = key.text.as_str();
            if let Err(what) = check_place(at) {
                self.wrong(key.at, what, problems);
                continue;
            }
            let around =
                |place: &&SharedPlace| is_within(at, &place.at) || is_within(&place.at, at);
            if let Some(other) = places.iter().find(around) {
                let what = format!("{at} and {} lie in one another", other.at);
                self.wrong(key.at, what, problems);
                continue;
            }
            let from = match &node.value {
                Value::Null => None,
                Value::Map(entries) => self.shared_from(entries, problems),
                Value::Text(text) if text == "none" => continue,
                _ => {
                    let what = "write {} for the reference's, {from: nfs://ADDRESS/PATH}, or none";
                    self.wrong(node.at, what, problems);
                    None
                }
            };
            places.push(SharedPlace {
                at: at.to_owned(),
                from,
            });
        }
        if places.len() > SHARED_MAX {
            let what = format!("{} directories, the limit is {SHARED_MAX}", places.len());
            self.wrong(self.node.at, what, problems);
        }
        places.sort_by(|a, b| a.at.cmp(&b.at));
        places
    }

    fn shared_from(&self, entries: &[(Key, Node)], problems: &mut Problems) -> Option<String> {
        const KEY: &str = "from";
        let mut from = None;
        for (key, node) in entries {
            match (key.text.as_str(), &node.value) {
                (KEY, Value::Text(text)) => match nfs_device(text) {
                    Ok(device) => from = Some(device),
                    Err(what) => self.wrong(node.at, what, problems),
                },
                (KEY, _) => self.wrong(node.at, "write nfs://ADDRESS/PATH", problems),
                _ => {
                    let what = format!("unknown key {}; it has {KEY}", shown(&key.text));
                    self.wrong(key.at, what, problems);
                }
            }
        }
        from
    }

    /// `migration: {post_copy: allow}`
    pub fn post_copy_allowed(&self, problems: &mut Problems) -> bool {
        const KEY: &str = "post_copy";
        let Value::Map(entries) = &self.node.value else {
            let kind = self.node.value.kind();
            let what = format!("a mapping is wanted, as {{{KEY}: allow}}; this is {kind}");
            self.wrong(self.node.at, what, problems);
            return false;
        };
        let mut allowed = false;
        for (key, node) in entries {
            if key.text != KEY {
                let hint = match reserved::nearest(&key.text, [KEY]) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("it has {KEY}"),
                };
                self.wrong(
                    key.at,
                    format!("unknown key {}; {hint}", shown(&key.text)),
                    problems,
                );
                continue;
            }
            match &node.value {
                Value::Text(text) if text == "allow" => allowed = true,
                Value::Text(text) if text == "never" => allowed = false,
                _ => self.wrong(node.at, format!("{KEY} is allow or never"), problems),
            }
        }
        allowed
    }
}

/// `nfs://10.0.0.1/srv/data`, `nfs://10.0.0.1:2050/data`, as a device of `root=`. Clones ask no name server as they boot.
fn nfs_device(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{} is no directory of a server: write nfs://ADDRESS/PATH or nfs://ADDRESS:PORT/PATH, the address in numbers",
            shown(text)
        )
    };
    let rest = text.strip_prefix("nfs://").ok_or_else(wrong)?;
    let (server, export) = rest.split_at(rest.find('/').ok_or_else(wrong)?);
    let (address, port) = match server.split_once(':') {
        Some((address, port)) => (
            address,
            Some(port.parse::<NonZeroU16>().map_err(|_| wrong())?),
        ),
        None => (server, None),
    };
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    if export != "/" {
        check_place(export).map_err(|_| wrong())?;
    }
    let port = port.map_or(String::new(), |port| format!(":port={port}"));
    Ok(format!("nfs:{address}:{export}{port}"))
}

/// Powers of 1024: `512M`, `4G`, `1T`. What a storage host takes: from 32 MiB to 16 TiB.
fn size(text: &str) -> Result<u64, String> {
    let unit = text.chars().last().unwrap_or_default();
    let shift = match unit {
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => return Err(format!("{} has no unit: write 512M, 4G or 1T", shown(text))),
    };
    let digits = &text[..text.len() - 1];
    let plain =
        !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().unwrap_or(0);
    let bytes = number << shift;
    match plain && number < 1 << 24 && (32 << 20..=16 << 40).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!(
            "{} is no size from 32M to 16T, a whole number of its unit",
            shown(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("4G"), Ok(4 << 30));
        assert_eq!(size("16T"), Ok(16 << 40));
        for wrong in [
            "",
            "4",
            "G",
            "4g",
            "1.5G",
            "-1G",
            "31M",
            "17T",
            "99999999T",
            "4GB",
            "\u{e9}",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

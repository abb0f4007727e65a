//! A reserved key's value read as what it should be, each complaint at its place.

use crate::problem::{Problems, shown};
use crate::reserved;
use crate::yaml::{Node, Position, Value};

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

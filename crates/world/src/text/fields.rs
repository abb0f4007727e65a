//! What a line says, taken out key by key; what is left over is a mistake.

use super::units::{Measure, read_real};
use super::{Line, Value};
use crate::WorldError;

/// A line that is being read.
pub struct Fields<'l, 'a> {
    line: &'l Line<'a>,
    is_taken: Vec<bool>,
    bare: std::slice::Iter<'l, Value<'a>>,
    known: Vec<&'static str>,
}

impl<'l, 'a> Fields<'l, 'a> {
    /// All of a line is still to be read.
    pub fn of(line: &'l Line<'a>) -> Self {
        Self {
            line,
            is_taken: vec![false; line.keys.len()],
            bare: line.bare.iter(),
            known: Vec::new(),
        }
    }

    /// The next name.
    pub fn name(&mut self, of: &str) -> Result<&'l Value<'a>, WorldError> {
        self.bare.next().ok_or_else(|| {
            self.line.word.fault(
                format!("{} without the name of a {of}", self.line.word.raw),
                format!("write {} NAME …", self.line.word.raw),
            )
        })
    }

    /// The next name, if there is one.
    pub fn optional_name(&mut self) -> Option<&'l Value<'a>> {
        self.bare.next()
    }

    /// All names that are left.
    pub fn names(&mut self) -> &'l [Value<'a>] {
        std::mem::take(&mut self.bare).as_slice()
    }

    /// Words that may stand among what is left bare: whether each does.
    pub fn flags<const N: usize>(
        &mut self,
        words: [&'static str; N],
    ) -> Result<[bool; N], WorldError> {
        let mut said = [false; N];
        for value in self.bare.by_ref() {
            let Some(at) = words.iter().position(|word| *word == value.raw) else {
                let known = if N == 0 {
                    "only its name stands bare here".to_owned()
                } else {
                    format!("known are {}", words.join(" "))
                };
                return Err(value.fault(
                    format!("`{}` says nothing of a {}", value.raw, self.line.word.raw),
                    known,
                ));
            };
            if std::mem::replace(&mut said[at], true) {
                return Err(value.fault(format!("{} twice", value.raw), "leave one out"));
            }
        }
        Ok(said)
    }

    /// The value of a key, if it is there.
    pub fn key(&mut self, key: &'static str) -> Option<&'l Value<'a>> {
        self.known.push(key);
        let at = self
            .line
            .keys
            .iter()
            .position(|(name, _)| name.raw == key)?;
        self.is_taken[at] = true;
        Some(&self.line.keys[at].1)
    }

    /// The value of a key that must be there.
    pub fn must(&mut self, key: &'static str) -> Result<&'l Value<'a>, WorldError> {
        self.key(key).ok_or_else(|| {
            self.line.word.fault(
                format!("{} without {key}=", self.line.word.raw),
                format!("write {key}=…"),
            )
        })
    }

    /// An amount.
    pub fn amount(
        &mut self,
        key: &'static str,
        measure: &Measure,
        common: u64,
    ) -> Result<u64, WorldError> {
        self.key(key)
            .map_or(Ok(common), |value| measure.read(value))
    }

    /// An amount of 32 bits.
    pub fn small(
        &mut self,
        key: &'static str,
        measure: &Measure,
        common: u32,
    ) -> Result<u32, WorldError> {
        self.key(key)
            .map_or(Ok(common), |value| measure.read_small(value))
    }

    /// An amount of each kind.
    pub fn amounts(
        &mut self,
        keys: &[&'static str; 4],
        measures: &[&Measure; 4],
        common: [u64; 4],
    ) -> Result<[u64; 4], WorldError> {
        let mut amounts = common;
        for kind in 0..4 {
            amounts[kind] = self.amount(keys[kind], measures[kind], common[kind])?;
        }
        Ok(amounts)
    }

    /// A number with a point; 0 where it is not said.
    pub fn real(
        &mut self,
        key: &'static str,
        endings: &[(&str, i32)],
        example: &str,
    ) -> Result<f64, WorldError> {
        self.key(key)
            .map_or(Ok(0.0), |value| read_real(value, endings, example))
    }

    /// Nothing may be left.
    pub fn end(mut self) -> Result<(), WorldError> {
        if let Some(value) = self.bare.next() {
            return Err(value.fault(
                format!("`{}` is too much here", value.raw),
                "take it out, or write KEY=VALUE",
            ));
        }
        for ((key, _), is_taken) in self.line.keys.iter().zip(&self.is_taken) {
            if !is_taken {
                return Err(key.fault(
                    format!("{} knows no {}=", self.line.word.raw, key.raw),
                    if self.known.is_empty() {
                        "it has no keys".to_owned()
                    } else {
                        format!("its keys are {}", self.known.join(" "))
                    },
                ));
            }
        }
        Ok(())
    }
}

//! Names of one kind of noun, and the place of each.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Value, limits};
use crate::WorldError;

/// The names declared so far. They are only looked up: their order decides nothing.
pub struct Names<'a> {
    noun: &'static str,
    most: usize,
    places: HashMap<Cow<'a, str>, u32>,
}

impl<'a> Names<'a> {
    /// None yet, and at the most so many.
    pub fn new(noun: &'static str, most: usize) -> Self {
        Self {
            noun,
            most,
            places: HashMap::new(),
        }
    }

    /// A new name; it gets the next place.
    pub fn declare(&mut self, value: &Value<'a>) -> Result<String, WorldError> {
        let name = value.name()?;
        if self.places.len() == self.most {
            return Err(value.fault(
                format!("more than {} of {}", self.most, self.noun),
                "make two worlds of it",
            ));
        }
        let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        if self.places.contains_key(&name) {
            return Err(value.fault(
                format!("a second {} {name}", self.noun),
                "give it another name",
            ));
        }
        let owned = name.clone().into_owned();
        self.places.insert(name, place);
        Ok(owned)
    }

    /// The place of a name.
    pub fn find(&self, value: &Value<'a>) -> Result<u32, WorldError> {
        let name = value.name()?;
        self.places.get(&name).copied().ok_or_else(|| {
            value.fault(
                format!("no {} {name} above this line", self.noun),
                format!("write `{} {name} …` before it is named", self.noun),
            )
        })
    }

    /// The places of a list of names, no one twice.
    pub fn find_all(
        &self,
        values: &[Value<'a>],
        room: &mut Listed,
    ) -> Result<Vec<u32>, WorldError> {
        let mut places = Vec::with_capacity(values.len());
        let mut seen = std::collections::HashSet::with_capacity(values.len());
        for value in values {
            room.take(value)?;
            let place = self.find(value)?;
            if !seen.insert(place) {
                return Err(value.fault(format!("{} is named twice", value.raw), "leave one out"));
            }
            places.push(place);
        }
        Ok(places)
    }
}

/// How many elements of lists a text may still have.
pub struct Listed(usize);

impl Listed {
    /// All of them.
    pub fn new() -> Self {
        Self(limits::LISTED)
    }

    /// One less.
    pub fn take(&mut self, value: &Value<'_>) -> Result<(), WorldError> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| {
            value.fault(
                format!("more than {} elements in all lists", limits::LISTED),
                "make two worlds of it",
            )
        })?;
        Ok(())
    }
}

//! Dealing a device's options out to the stages of its chain.

use super::{COMMON, Form, Loader, Parameter};
use crate::root_line::{DeviceText, OptionText, Parsed, Wrong};

/// The value of an option, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub at: usize,
}

impl Text {
    /// That this value is wrong, and why.
    pub fn wrong<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Wrong::new(self.at, message))
    }
}

/// An option that is known by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `UUID` of `UUID=…`.
    pub key: Option<String>,
    pub text: Text,
}

/// The options of one stage, each taken once.
#[derive(Debug, Default)]
pub struct Taken {
    places: std::collections::VecDeque<Place>,
    keys: Vec<(&'static str, Text)>,
    flags: Vec<&'static str>,
}

impl Taken {
    /// The next option by its place; `None` when no optional one was written.
    pub fn place(&mut self) -> Option<Place> {
        self.places.pop_front()
    }

    /// The next option by its place, of a loader all of whose places must be given.
    pub fn needed(&mut self) -> Parsed<Place> {
        // Dealing has seen to it that they are there.
        self.place()
            .ok_or_else(|| Wrong::new(0, "an option is missing"))
    }

    /// The value of `name=`.
    pub fn key(&mut self, name: &str) -> Option<Text> {
        let index = self.keys.iter().position(|(key, _)| *key == name)?;
        Some(self.keys.remove(index).1)
    }

    pub fn flag(&mut self, name: &str) -> bool {
        self.flags.contains(&name)
    }
}

/// Gives every option to the stage that has it; the last of what is returned is the device's own.
pub(super) fn deal(device: &DeviceText, chain: &[&'static Loader]) -> Parsed<Vec<Taken>> {
    let mut dealt: Vec<Taken> = chain.iter().map(|_| Taken::default()).collect();
    dealt.push(Taken::default());
    let owners: Vec<&'static [Parameter]> = chain
        .iter()
        .map(|loader| loader.parameters)
        .chain([&COMMON[..]])
        .collect();
    let mut places = Vec::new();
    let mut options = device.options.iter().peekable();
    while let Some(option) = options.next() {
        let mut text = Text {
            text: option.value.clone(),
            at: option.at.0,
        };
        if let Some((owner, parameter)) = find(&owners, option) {
            let name = parameter.name;
            if let Form::KeyOfParts { heads, .. } = parameter.form
                && heads.contains(&text.text.as_str())
                && let Some(second) = options.next_if(|second| second.key.is_none())
            {
                text.text = format!("{}:{}", text.text, second.value);
            }
            let taken = &mut dealt[owner];
            let again = match option.key {
                Some(_) => taken.keys.iter().any(|(key, _)| *key == name),
                None => taken.flags.contains(&name),
            };
            if again {
                return text.wrong(format!("{name} is written twice"));
            }
            match option.key {
                Some(_) => taken.keys.push((name, text)),
                None => taken.flags.push(name),
            }
        } else if is_place(&owners, option) {
            let key = option.key.clone();
            places.push(Place { key, text });
        } else {
            return text.wrong(format!(
                "{} has no option {}= (it has {})",
                names(chain),
                option.key.as_deref().unwrap_or_default(),
                known(&owners)
            ));
        }
    }
    deal_places(device, chain, places, &mut dealt)?;
    Ok(dealt)
}

/// From left to right; an optional one is filled when more are written than are needed.
fn deal_places(
    device: &DeviceText,
    chain: &[&'static Loader],
    places: Vec<Place>,
    dealt: &mut [Taken],
) -> Parsed<()> {
    let wanted = || {
        chain.iter().enumerate().flat_map(|(stage, loader)| {
            loader
                .parameters
                .iter()
                .filter_map(move |parameter| match parameter.form {
                    Form::Place { keys, optional } => Some((stage, parameter.name, keys, optional)),
                    _ => None,
                })
        })
    };
    let needed = wanted().filter(|(_, _, _, optional)| !optional).count();
    let mut spare = places.len().saturating_sub(needed);
    let mut given = places.into_iter();
    for (stage, name, keys, optional) in wanted() {
        if optional {
            if spare == 0 {
                continue;
            }
            spare -= 1;
        }
        let Some(place) = given.next() else {
            let end = device.options.last().map_or_else(
                || {
                    device
                        .chain
                        .last()
                        .map_or(0, |last| last.at.0 + last.text.len())
                },
                |last| last.at.0,
            );
            return Err(Wrong::new(
                end,
                format!(
                    "{name} of `{}` is missing: write {}",
                    chain[stage].name,
                    usage(chain)
                ),
            ));
        };
        if let Some(key) = &place.key
            && !keys.contains(&key.as_str())
        {
            return place.text.wrong(format!(
                "{name} of `{}` cannot be written as {key}=",
                chain[stage].name
            ));
        }
        if place.text.text.is_empty() {
            return place.text.wrong(format!("{name} is empty"));
        }
        dealt[stage].places.push_back(place);
    }
    match given.next() {
        Some(place) => place.text.wrong(format!(
            "{:?} is one option too many: {} is written {}",
            place.text.text,
            names(chain),
            usage(chain)
        )),
        None => Ok(()),
    }
}

/// The stage and the parameter, if the option is a key or a flag of one.
fn find(
    owners: &[&'static [Parameter]],
    option: &OptionText,
) -> Option<(usize, &'static Parameter)> {
    owners.iter().enumerate().find_map(|(owner, parameters)| {
        let found = parameters.iter().find(|parameter| match parameter.form {
            Form::Key(_) | Form::KeyOfParts { .. } => option.key.as_deref() == Some(parameter.name),
            Form::Flag => option.key.is_none() && option.value == parameter.name,
            Form::Place { .. } => false,
        });
        found.map(|parameter| (owner, parameter))
    })
}

fn is_place(owners: &[&'static [Parameter]], option: &OptionText) -> bool {
    let Some(key) = option.key.as_deref() else {
        return true;
    };
    owners
        .iter()
        .flat_map(|parameters| *parameters)
        .any(|parameter| matches!(parameter.form, Form::Place { keys, .. } if keys.contains(&key)))
}

fn names(chain: &[&'static Loader]) -> String {
    let names: Vec<&str> = chain.iter().map(|loader| loader.name).collect();
    format!("`{}`", names.join("+"))
}

/// How the chain is written: the names, and everybody's places, then everybody's keys.
fn usage(chain: &[&'static Loader]) -> String {
    let names: Vec<&str> = chain.iter().map(|loader| loader.name).collect();
    let places = chain.iter().flat_map(|loader| loader.parameters);
    let places = places.filter_map(|parameter| match parameter.form {
        Form::Place {
            optional: false, ..
        } => Some(format!(":{}", parameter.name)),
        Form::Place { optional: true, .. } => Some(format!("[:{}]", parameter.name)),
        _ => None,
    });
    names.join("+") + &places.collect::<String>()
}

fn known(owners: &[&'static [Parameter]]) -> String {
    let mut names: Vec<String> = Vec::new();
    for parameter in owners.iter().flat_map(|parameters| *parameters) {
        let shown: Vec<String> = match parameter.form {
            Form::Key(_) | Form::KeyOfParts { .. } => vec![format!("{}=", parameter.name)],
            Form::Flag => vec![parameter.name.to_owned()],
            Form::Place { keys, .. } => keys.iter().map(|key| format!("{key}=")).collect(),
        };
        for name in shown {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.join(", ")
}

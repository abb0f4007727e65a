//! A clone's variables held against the sets chosen for it: defaults of sets fill in below the herd
//! file's levels, types are checked, what is missing is an error, what nobody reads a warning.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::LayerError;
use crate::frame::{Frame, MAX_JOINED_VALUES};
use crate::joined::{self, Earlier, Joined, JoinedValue, Lists, Written};
use crate::plan::{ClonePlan, HerdPlan};
use crate::problem::{HerdWarnings, MAX_PROBLEMS, Problems, shown};
use crate::provenance::{Level, Origin, Source, TracedValue};
use crate::reserved;
use crate::set_settings::{SETTINGS, SetSettings};
use crate::template_set::TemplateSet;
use crate::yaml::{Position, Value};

impl ClonePlan {
    /// What templates see: the clone's variables over the defaults of its sets (lowest first).
    /// Fails when a set lacks one, or reads one as something else than it is.
    pub fn context_variables(
        &self,
        sets: &[TemplateSet],
    ) -> Result<serde_json::Map<String, Json>, LayerError> {
        let mut problems = Problems::default();
        let joined = resolve(self, sets, &mut problems);
        problems.check(&self.values.frame.origin.file)?;
        Ok(joined::to_json_map(&joined))
    }

    /// Every value of the clone after the cascade, in the order of their names, each with where it
    /// comes from. What sets lack or read otherwise is not said here: see [`check_variables`].
    pub fn traced_values(&self, sets: &[TemplateSet]) -> Vec<TracedValue> {
        let mut traced = Vec::new();
        for (name, joined) in resolve(self, sets, &mut Problems::default()) {
            joined.trace(&joined::dotted(&name), &mut traced);
        }
        let reserved = self.values.frame.reserved(&mut |_, _| {});
        for (name, joined) in &reserved {
            joined.trace(name, &mut traced);
        }
        let unsaid = [
            (
                "address",
                Level::Drawn,
                Json::from(self.address.to_string()),
            ),
            ("cpus", Level::BuiltIn, Json::from(self.cpus)),
            ("memory_mib", Level::BuiltIn, Json::from(self.memory_mib)),
            (
                "reference",
                Level::BuiltIn,
                Json::from(self.reference.as_str()),
            ),
        ];
        for (name, level, value) in unsaid {
            if !reserved.contains_key(name) {
                traced.push(TracedValue {
                    name: name.to_owned(),
                    value,
                    source: Source::nowhere(level),
                    earlier: Vec::new(),
                });
            }
        }
        traced.sort_by(|a, b| a.name.cmp(&b.name));
        traced
    }
}

/// Holds the variables of every clone against the sets chosen for it, lowest first. What is wrong
/// is an error, what no chosen set reads a warning.
pub fn check_variables<'a>(
    herd: &HerdPlan,
    sets_of: impl Fn(&ClonePlan) -> &'a [TemplateSet],
) -> Result<HerdWarnings, LayerError> {
    let mut problems = Problems::default();
    let mut checked: BTreeMap<(*const Frame, SetsKey), Checked<'_, 'a>> = BTreeMap::new();
    for clone in &herd.clones {
        let sets = sets_of(clone);
        let key = (Arc::as_ptr(&clone.values.frame), sets_key(sets));
        let first = Checked {
            clone,
            sets,
            alike: 0,
        };
        checked.entry(key).or_insert(first).alike += 1;
    }
    let mut joining = Joining::default();
    for one in checked.values() {
        joining.count(one.clone, one.sets, &herd.file)?;
        let mut of_one = Problems::default();
        resolve(one.clone, one.sets, &mut of_one);
        for mut problem in of_one.take() {
            if one.alike > 1 {
                let _ = write!(problem.message, " (and for {} more clones)", one.alike - 1);
            }
            problems.add(problem.at, problem.message);
        }
    }
    problems.check(&herd.file)?;
    let mut warnings = Problems::default();
    unread(checked.values(), &mut warnings)?;
    Ok(HerdWarnings {
        file: herd.file.clone(),
        warnings: warnings.take_sorted(),
    })
}

/// How much was joined: what a herd file's levels inherit is held against the limit when the file
/// is read, but the defaults of sets come to it once for each kind of clones.
#[derive(Default)]
pub(crate) struct Joining {
    weight: usize,
}

impl Joining {
    /// Before the clone's variables are joined over the defaults of these sets.
    pub fn count(
        &mut self,
        clone: &ClonePlan,
        sets: &[TemplateSet],
        file: &str,
    ) -> Result<(), LayerError> {
        let of_sets: usize = sets.iter().map(TemplateSet::variables_weight).sum();
        let of_one = of_sets.saturating_add(clone.values.frame.weight());
        self.weight = self.weight.saturating_add(of_one);
        if self.weight <= MAX_JOINED_VALUES {
            return Ok(());
        }
        let message = format!(
            "more than {MAX_JOINED_VALUES} values, those of sets counted for each group with hosts and each host with values or sets of its own, long texts as several; give more hosts the same values, or sets with fewer variables"
        );
        Err(Problems::only(file, clone.values.at, message).into())
    }
}

/// Clones of the same values and sets.
struct Checked<'p, 'a> {
    clone: &'p ClonePlan,
    sets: &'a [TemplateSet],
    alike: usize,
}

/// Which sets were chosen: the same slice, the same sets.
type SetsKey = (*const TemplateSet, usize);

fn sets_key(sets: &[TemplateSet]) -> SetsKey {
    (sets.as_ptr(), sets.len())
}

/// A level, once for all clones below it, and the sets that may read what it writes.
struct ReadLevel<'p> {
    frame: &'p Frame,
    by: BTreeSet<SetKey<'p>>,
}

/// The variables over the sets' defaults, and what is wrong with them for these sets.
fn resolve(
    clone: &ClonePlan,
    sets: &[TemplateSet],
    problems: &mut Problems,
) -> BTreeMap<String, Joined> {
    let mut wrong = |at: Position, what: String| problems.add(at, what);
    let defaults = defaults(sets, &mut wrong);
    let mut joined = clone.values.frame.variables(defaults.clone(), &mut wrong);
    for set in sets {
        for (name, variable) in set.variables() {
            // Nothing takes back what the levels before it say.
            if let Some(taken) = take_nothing(&mut joined, name)
                && let Some(mut default) = defaults.get(name).cloned()
            {
                default.earlier = Some(Box::new(Earlier {
                    value: taken,
                    kept: false,
                }));
                joined.insert(name.to_owned(), default);
            }
            let help = match variable.help.as_str() {
                "" => String::new(),
                help => format!(" ({help})"),
            };
            match joined.get(name) {
                Some(given) if !variable.kind.takes(&given.value) => {
                    let wanted = variable.kind.wanted();
                    let kind = given.value.kind();
                    let from = match given.source.level() {
                        Level::Set(other) => format!(", by default of the set {other}"),
                        _ => String::new(),
                    };
                    let what = format!(
                        "{name}: the set {} reads {wanted}; this is {kind}{from}{help}",
                        set.name()
                    );
                    let at = if from.is_empty() {
                        given.source.at
                    } else {
                        clone.values.at
                    };
                    problems.add(at, what);
                }
                None if variable.required() => {
                    let what = format!(
                        "{} needs the variable {name}, {}, which the set {} reads{help}",
                        clone.name,
                        variable.kind.wanted(),
                        set.name()
                    );
                    problems.add(clone.values.at, what);
                }
                _ => {}
            }
        }
    }
    joined
}

fn defaults(sets: &[TemplateSet], wrong: &mut joined::Wrong<'_>) -> BTreeMap<String, Joined> {
    let mut defaults = BTreeMap::new();
    for set in sets {
        let origin = Arc::new(Origin {
            level: Level::Set(set.name().to_owned()),
            file: format!("sets/{}/{SETTINGS}", set.name()),
        });
        for (name, variable) in set.variables() {
            let Some(node) = &variable.default else {
                continue;
            };
            let written = Written {
                key_at: variable.key_at,
                appends: false,
                node,
            };
            let so_far = defaults.remove(name);
            let now = joined::write(so_far, name, written, &origin, Lists::Strict, wrong);
            defaults.extend(now.map(|now| (name.to_owned(), now)));
        }
    }
    defaults
}

fn take_nothing(joined: &mut BTreeMap<String, Joined>, name: &str) -> Option<Joined> {
    let nothing = matches!(joined.get(name)?.value, JoinedValue::Scalar(Value::Null));
    nothing.then(|| joined.remove(name)).flatten()
}

/// Warns of each place that writes a variable that no set of the clones below it reads.
fn unread<'p, 'a: 'p>(
    checked: impl Iterator<Item = &'p Checked<'p, 'a>>,
    warnings: &mut Problems,
) -> Result<(), LayerError> {
    let mut reads: BTreeMap<SetKey<'_>, BTreeSet<String>> = BTreeMap::new();
    let mut levels: BTreeMap<*const Frame, ReadLevel<'_>> = BTreeMap::new();
    for one in checked {
        for set in one.sets {
            if let Entry::Vacant(entry) = reads.entry(set_key(set)) {
                entry.insert(set.reads()?);
            }
        }
        for frame in one.clone.values.frame.levels() {
            let by = BTreeSet::new();
            let level = levels.entry(frame).or_insert(ReadLevel { frame, by });
            level.by.extend(one.sets.iter().map(set_key));
        }
    }
    let mut all = Vec::new();
    for level in levels.values() {
        let chosen = level.by.iter().filter_map(|set| reads.get(set));
        let chosen: Vec<&BTreeSet<String>> = chosen.collect();
        for (name, own) in &level.frame.own.variables {
            if !chosen.iter().any(|reads| reads.contains(name)) {
                all.push((own.key_at, name, level));
            }
        }
    }
    all.sort_by_key(|(at, name, _)| (*at, *name));
    for (number, (at, name, level)) in all.into_iter().enumerate() {
        // Looking for what was meant takes long, and only the first ones are told.
        let hint = match number < MAX_PROBLEMS {
            true => meant_by(name, level, &reads)?,
            false => String::new(),
        };
        let message = format!("no chosen set reads the variable {}{hint}", shown(name));
        warnings.add(at, message);
    }
    Ok(())
}

/// What the one who wrote a variable that no set reads may have meant.
fn meant_by(
    name: &str,
    level: &ReadLevel<'_>,
    reads: &BTreeMap<SetKey<'_>, BTreeSet<String>>,
) -> Result<String, LayerError> {
    let chosen = || level.by.iter().filter_map(|set| reads.get_key_value(set));
    let names = chosen().flat_map(|(_, reads)| reads.iter().map(String::as_str));
    if let Some(meant) = reserved::nearest(name, names)
        && let Some(((set, _), _)) = chosen().find(|(_, reads)| reads.contains(meant))
    {
        return Ok(format!(
            "; did you mean {meant}, which the set {set} reads?"
        ));
    }
    for set in TemplateSet::shipped() {
        if TemplateSet::embedded(set)?.reads()?.contains(name) {
            return Ok(format!("; the set {set} reads it, and is not among sets:"));
        }
    }
    Ok(String::new())
}

/// One set, by its name and what was read of it: two lists that have it have the same.
type SetKey<'a> = (&'a str, *const SetSettings);

fn set_key(set: &TemplateSet) -> SetKey<'_> {
    (set.name(), Arc::as_ptr(&set.settings))
}

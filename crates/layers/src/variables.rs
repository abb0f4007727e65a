//! A clone's variables held against the sets chosen for it: defaults of sets fill in below the herd
//! file's levels, types are checked, what is missing is an error, what nobody reads a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::LayerError;
use crate::frame::Frame;
use crate::joined::{self, Earlier, Joined, JoinedValue, Lists, Written};
use crate::plan::{ClonePlan, HerdPlan};
use crate::problem::{HerdWarnings, Problems, shown};
use crate::provenance::{Level, Origin, Source, TracedValue};
use crate::reserved;
use crate::set_settings::SETTINGS;
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
    for one in checked.values() {
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
    by: BTreeSet<SetsKey>,
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
    let mut reads: BTreeMap<SetsKey, Reads> = BTreeMap::new();
    let mut levels: BTreeMap<*const Frame, ReadLevel<'_>> = BTreeMap::new();
    for one in checked {
        let key = sets_key(one.sets);
        if let std::collections::btree_map::Entry::Vacant(entry) = reads.entry(key) {
            entry.insert(read_by(one.sets)?);
        }
        for frame in one.clone.values.frame.levels() {
            let by = BTreeSet::new();
            let level = levels.entry(frame).or_insert(ReadLevel { frame, by });
            level.by.insert(key);
        }
    }
    let mut shipped = None;
    for level in levels.values() {
        let chosen: Vec<&Reads> = level.by.iter().filter_map(|key| reads.get(key)).collect();
        for (name, own) in &level.frame.own.variables {
            if chosen.iter().any(|reads| reads.contains_key(name)) {
                continue;
            }
            let slip = chosen.iter().find_map(|reads| {
                let meant = reserved::nearest(name, reads.keys().map(String::as_str))?;
                Some((meant, reads.get(meant)?))
            });
            let hint = match slip {
                Some((meant, set)) => format!("; did you mean {meant}, which the set {set} reads?"),
                None => {
                    let shipped = match &shipped {
                        Some(shipped) => shipped,
                        None => shipped.insert(read_by_shipped()?),
                    };
                    match shipped.get(name) {
                        Some(set) => format!("; the set {set} reads it, and is not among sets:"),
                        None => String::new(),
                    }
                }
            };
            let message = format!("no chosen set reads the variable {}{hint}", shown(name));
            warnings.add(own.key_at, message);
        }
    }
    Ok(())
}

/// Each variable and a set that reads it.
type Reads = BTreeMap<String, String>;

fn read_by(sets: &[TemplateSet]) -> Result<Reads, LayerError> {
    let mut reads = Reads::new();
    for set in sets {
        for name in set.reads()? {
            reads.insert(name, set.name().to_owned());
        }
    }
    Ok(reads)
}

fn read_by_shipped() -> Result<Reads, LayerError> {
    let sets: Result<Vec<TemplateSet>, LayerError> =
        TemplateSet::shipped().map(TemplateSet::embedded).collect();
    read_by(&sets?)
}

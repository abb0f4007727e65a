//! What a push is to do, path by path: a value, made by looking only.
//!
//! ```text
//!   current = wanted             nothing
//!   current = recorded           ours: written or taken away
//!   else                         the clone's own: left, and said
//! ```
//!
//! `wanted` is what a start with the new layer would show there, `recorded` what was last put
//! there. Only paths are visited where the two can differ, or that the new layer names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use estive_boot::push::{PushReport, WhyLeft};

use super::layer::Layer;
use super::node::{Node, Print};
use super::record::{Put, Record};
use super::tree::{Look, Tree};

/// The directory of the layers themselves, in the clone's root.
pub const UNIONS: &str = ".unions";
/// What a running system must not have changed beneath it; its start takes it.
const KEPT_WHILE_RUNNING: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];
/// Paths beyond the layer's own, when whole directories of the root come back or go.
const WALKED_MAX: usize = 20_000;

/// One change, with what it is to be made of.
pub struct Act<'a> {
    pub path: String,
    /// What stood there when the plan was made.
    pub was: Print,
    pub becomes: Node,
    pub how: How<'a>,
    /// Recorded once it is done; `None` where the root speaks for itself.
    pub put: Option<Put>,
    /// Recorded until it is done, and when it fails: as it was.
    pub stays: Put,
}

pub enum How<'a> {
    /// A new node, with this content if it is a file.
    Make(&'a [u8]),
    /// As the root has it.
    Restore,
    /// Another name of this path.
    Link(String),
    /// A directory that stays gets the mode, owner and attributes.
    Attributes,
    Remove,
}

pub struct Plan<'a> {
    pub acts: Vec<Act<'a>>,
    /// What was left, and why.
    pub report: PushReport,
    /// The record, without what the acts will add.
    pub put: BTreeMap<String, Put>,
}

/// The names of one file.
#[derive(Default)]
struct Names<'a> {
    /// The first that is written.
    first: Option<String>,
    /// Those that are as wanted, with what makes them one file with the others, should they not be.
    right: Vec<(Act<'a>, (u64, u64))>,
}

impl Names<'_> {
    /// The first name that is written has the content; the others are names of it.
    fn join(&mut self, act: &mut Act) {
        match &self.first {
            Some(first) => act.how = How::Link(first.clone()),
            None => self.first = Some(act.path.clone()),
        }
    }
}

pub struct Planner<'a, 't> {
    layer: &'t Layer<'a>,
    record: &'t Record,
    root: &'t Tree,
    merged: &'t Tree,
    plan: Plan<'a>,
    /// Files of the layer with several names.
    links: BTreeMap<u32, Names<'a>>,
    walked: usize,
}

impl<'a, 't> Planner<'a, 't> {
    pub fn new(layer: &'t Layer<'a>, record: &'t Record, root: &'t Tree, merged: &'t Tree) -> Self {
        Planner {
            layer,
            record,
            root,
            merged,
            plan: Plan {
                acts: Vec::new(),
                report: PushReport::new(),
                put: BTreeMap::new(),
            },
            links: BTreeMap::new(),
            walked: 0,
        }
    }

    pub fn plan(mut self) -> Plan<'a> {
        for name in self.named_below("") {
            self.visit(&name, false);
        }
        self.join_links();
        self.plan
    }

    /// Looks at one path and what is to be looked at below it. Says whether nothing will stand there.
    ///
    /// `is_new`: the directory that holds it is yet to be made, so that nothing in it is the clone's.
    fn visit(&mut self, path: &str, is_new: bool) -> bool {
        if path.split('/').next() == Some(UNIONS) {
            return self.skip(path, "it lies where the layers themselves are");
        }
        if KEPT_WHILE_RUNNING.contains(&path) {
            return self.skip(path, "a running system keeps the identity it started with");
        }
        if !self.is_named(path) {
            self.walked += 1;
            if self.walked > WALKED_MAX {
                return self.skip(path, "too much of the root comes back or goes at once");
            }
        }
        let (current, file) = match self.merged.look(path) {
            _ if is_new => (Node::absent(), (0, 0)),
            Look::Found { node, file } => (node, file),
            Look::Blocked(reason) => return self.skip(path, &reason),
        };
        let wanted = self.layer.expected(path, self.root);
        if current.is_large() || wanted.is_large() {
            return self.skip(path, "it is too large to be compared");
        }
        let (print, recorded) = (current.print(), self.record.print(path, self.root));
        let is_ours = is_new || current == wanted || self.is_ours(path, &print, &recorded);
        if !is_ours {
            if !(current.is_directory() && wanted.is_directory()) {
                return self.leave(path, &print, recorded);
            }
            // Its mode or owner is the clone's own; what lies in it need not be.
            let reason = print.difference(&recorded);
            self.plan.report.add_left(path, WhyLeft::Own, &reason);
        } else if current.is_directory() && !wanted.is_directory() && !self.empties(path) {
            let reason = "it holds what is the clone's own";
            self.plan.report.add_left(path, WhyLeft::Own, reason);
        } else {
            return self.settle(path, wanted, &current, file);
        }
        let stays = Put {
            print: recorded,
            hides: self.layer.hides_below(path),
        };
        self.plan.put.insert(path.to_owned(), stays);
        if wanted.is_directory() {
            self.descend(path, false);
        }
        false
    }

    /// Plans the change of one path that is ours, or records that it is right, and goes on below.
    fn settle(&mut self, path: &str, wanted: Node, current: &Node, file: (u64, u64)) -> bool {
        let (is_absent, is_directory) = (wanted.is_absent(), wanted.is_directory());
        let is_right = *current == wanted;
        let named = self.layer.wanted.get(path);
        let put = named.map(|named| Put {
            print: wanted.print(),
            hides: named.hides,
        });
        let how = match named {
            _ if is_absent => How::Remove,
            _ if is_directory && current.is_directory() => How::Attributes,
            Some(named) => How::Make(named.content),
            None => How::Restore,
        };
        let mut act = Act {
            path: path.to_owned(),
            was: current.print(),
            becomes: wanted,
            how,
            put: put.clone(),
            // What stands there is ours, also when a push that was killed has put it there.
            stays: Put {
                print: current.print(),
                hides: self.record.hides(path),
            },
        };
        match named.and_then(|named| named.link) {
            Some(link) => {
                let names = self.links.entry(link).or_default();
                if is_right {
                    names.right.push((act, file));
                } else {
                    names.join(&mut act);
                    self.plan.acts.push(act);
                }
            }
            None if !is_right => self.plan.acts.push(act),
            None => {}
        }
        if is_right && let Some(put) = put {
            self.plan.put.insert(path.to_owned(), put);
        }
        if is_directory {
            self.descend(path, !current.is_directory());
        }
        is_absent
    }

    /// Names that are as wanted are made again where they are not one file with the others.
    fn join_links(&mut self) {
        for (_, mut names) in std::mem::take(&mut self.links) {
            let mut right = std::mem::take(&mut names.right);
            let file = right.first().map(|(_, file)| *file);
            let is_joined = right.iter().all(|(_, other)| Some(*other) == file);
            if names.first.is_some() || !is_joined {
                for (act, _) in &mut right {
                    names.join(act);
                }
                self.plan.acts.extend(right.into_iter().map(|(act, _)| act));
            }
        }
    }

    fn descend(&mut self, path: &str, is_new: bool) {
        for name in self.to_visit_below(path, is_new) {
            self.visit(&format!("{path}/{name}"), is_new);
        }
    }

    /// Visits all that a directory holds, which is to go. Says whether it will be empty.
    fn empties(&mut self, path: &str) -> bool {
        let (names, strange) = match self.merged.names(path) {
            Ok(found) => found,
            Err(errno) => {
                self.plan
                    .report
                    .add_left(path, WhyLeft::Failed, &format!("reading it: {errno}"));
                return false;
            }
        };
        let mut is_empty = strange == 0;
        for name in names {
            is_empty &= self.visit(&format!("{path}/{name}"), false);
        }
        is_empty
    }

    /// Names in a directory that is to be there: those of either layer, and the root's own where what
    /// is seen of it changes.
    fn to_visit_below(&self, path: &str, is_new: bool) -> BTreeSet<String> {
        let mut names = self.named_below(path);
        let hides = self.layer.hides_below(path);
        if ((is_new && !hides) || hides != self.record.hides_below(path))
            && let Ok((below, _)) = self.root.names(path)
        {
            names.extend(below);
        }
        names
    }

    fn named_below(&self, path: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let wanted = beneath(&self.layer.wanted, path);
        let put = beneath(&self.record.put, path);
        for named in wanted
            .chain(put)
            .chain(beneath(&self.record.intended, path))
        {
            let rest = named[path.len()..].trim_start_matches('/');
            names.extend(rest.split('/').next().map(str::to_owned));
        }
        names
    }

    fn is_named(&self, path: &str) -> bool {
        self.layer.wanted.contains_key(path) || self.record.put.contains_key(path)
    }

    /// Whether what stands there was put there by us.
    fn is_ours(&self, path: &str, current: &Print, recorded: &Print) -> bool {
        if current == recorded {
            return true;
        }
        // A push that was killed may have been at this path.
        let Some(intended) = self.record.intended.get(path) else {
            return false;
        };
        let (was, becomes) = (recorded.is_directory(), intended.is_directory());
        current == intended
            // A directory is taken away before a file can have its name.
            || (was && !becomes && current.is_absent())
            // Owner and mode of a directory are not changed at once.
            || (was && becomes && current.is_directory())
    }

    /// Leaves what the clone has made its own, and all below it.
    fn leave(&mut self, path: &str, current: &Print, recorded: Print) -> bool {
        let reason = current.difference(&recorded);
        self.plan.report.add_left(path, WhyLeft::Own, &reason);
        self.stay(path, recorded);
        false
    }

    /// Leaves what cannot be changed now, and says so where the layers differ.
    fn skip(&mut self, path: &str, reason: &str) -> bool {
        let mut below: BTreeSet<String> = beneath(&self.layer.wanted, path).cloned().collect();
        below.extend(beneath(&self.record.put, path).cloned());
        below.insert(path.to_owned());
        for path in &below {
            let wanted = self.layer.expected(path, self.root).print();
            if wanted != self.record.print(path, self.root) {
                self.plan.report.add_left(path, WhyLeft::NextStart, reason);
            }
        }
        let recorded = self.record.print(path, self.root);
        self.stay(path, recorded);
        false
    }

    /// Records a path, and all below it, as it was recorded before.
    fn stay(&mut self, path: &str, recorded: Print) {
        let stays = Put {
            print: recorded,
            hides: self.record.hides(path),
        };
        self.plan.put.insert(path.to_owned(), stays);
        let mut below: BTreeSet<String> = beneath(&self.layer.wanted, path).cloned().collect();
        below.extend(beneath(&self.record.put, path).cloned());
        for path in below {
            let stays = Put {
                print: self.record.print(&path, self.root),
                hides: self.record.hides(&path),
            };
            self.plan.put.insert(path, stays);
        }
    }
}

/// The keys that lie below a path; all for the top, which is empty.
fn beneath<'m, V>(map: &'m BTreeMap<String, V>, path: &str) -> impl Iterator<Item = &'m String> {
    // '0' follows '/'.
    let (from, to) = match path {
        "" => (Bound::Unbounded, Bound::Unbounded),
        path => (
            Bound::Included(format!("{path}/")),
            Bound::Excluded(format!("{path}0")),
        ),
    };
    map.range::<String, _>((from, to)).map(|(path, _)| path)
}

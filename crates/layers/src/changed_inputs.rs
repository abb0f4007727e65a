//! Which inputs of a clone's layer are others than they were, in words.

use std::collections::{BTreeMap, BTreeSet};

use crate::inputs::{CommonInputs, OwnInputs, ROOT, SetInputs};

/// So many changed paths of a set are named.
const PATHS_NAMED: usize = 3;

/// Which inputs of a clone are others than they were, in words; empty when none is.
pub fn changed_inputs(
    was: (&CommonInputs, &OwnInputs, &SetInputs),
    is: (&CommonInputs, &OwnInputs, &SetInputs),
) -> Vec<String> {
    let (was_common, was_own, was_sets) = was;
    let (common, own, sets) = is;
    let of_sets = changed_sets((&was_common.sets, was_sets), (&common.sets, sets));
    // What other sets ask for and these did not is no change of its own.
    let both = |name: &String, was: &BTreeMap<String, String>, is: &BTreeMap<String, String>| {
        let (was, is) = (was.get(name), is.get(name));
        was != is && (of_sets.is_empty() || (was.is_some() && is.is_some()))
    };
    let mut changes = Vec::new();
    for name in names(&was_common.others, &common.others) {
        if both(name, &was_common.others, &common.others) {
            changes.push(name.clone());
        }
    }
    for name in names(was_own, own) {
        if !both(name, was_own, own) {
            continue;
        }
        changes.push(match (was_own.get(name), own.get(name)) {
            _ if name == "ssh_authorized_keys" || name == ROOT => name.clone(),
            (Some(was), Some(is)) => format!("{name}: {was}, now {is}"),
            (_, Some(is)) => format!("{name}: now {is}"),
            (_, None) => format!("{name}: none now"),
        });
    }
    for name in names(&was_common.variables, &common.variables) {
        if both(name, &was_common.variables, &common.variables) {
            changes.push(format!("variable {name}"));
        }
    }
    changes.extend(of_sets);
    changes
}

fn names<'a>(
    was: &'a BTreeMap<String, String>,
    is: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a String> {
    was.keys().chain(is.keys()).collect()
}

fn changed_sets(was: (&[String], &SetInputs), is: (&[String], &SetInputs)) -> Vec<String> {
    let mut changes = Vec::new();
    for name in was.0.iter().filter(|name| !is.0.contains(name)) {
        changes.push(format!("set {name} removed"));
    }
    let none = BTreeMap::new();
    for name in is.0 {
        if !was.0.contains(name) {
            changes.push(format!("set {name} added"));
            continue;
        }
        let (old, new) = (
            was.1.get(name).unwrap_or(&none),
            is.1.get(name).unwrap_or(&none),
        );
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differ: Vec<&String> = paths
            .into_iter()
            .filter(|path| old.get(*path) != new.get(*path))
            .collect();
        let more = differ.len().saturating_sub(PATHS_NAMED);
        let named = differ.into_iter().take(PATHS_NAMED);
        changes.extend(named.map(|path| format!("set {name}: {path}")));
        if more > 0 {
            changes.push(format!("set {name}: {more} more paths"));
        }
    }
    let common = |list: &[String], other: &[String]| -> Vec<String> {
        list.iter()
            .filter(|name| other.contains(name))
            .cloned()
            .collect()
    };
    if common(was.0, is.0) != common(is.0, was.0) {
        changes.push("the order of the sets".to_owned());
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::LayerInputs;
    use crate::request::RenderRequest;
    use crate::{DeploymentSecret, OwnSets, SetKind, SetNode, herd};

    const HERD: &str = "sets: [own]\ngreeting: hi\nunread: 1\nhosts: {a: {address: 10.77.0.7}, b: {address: 10.77.0.8}}\n";

    fn own(template: &str) -> OwnSets {
        let mut builder = crate::set_tree::SetTreeBuilder::new("own");
        for (path, text) in [("etc/x.j2", template), ("etc/y", "y")] {
            builder.admit(path, 0).unwrap();
            builder
                .put(path, SetNode::new(0o644, SetKind::File(text.into())))
                .unwrap();
        }
        [("own".to_owned(), builder.finish().unwrap())].into()
    }

    fn request(text: &str, sets: &OwnSets, secret: u8) -> RenderRequest {
        let plan = herd::parse("herd.yaml", text, "d").unwrap();
        RenderRequest::new(&plan, sets, &DeploymentSecret::new([secret; 32])).unwrap()
    }

    /// What is said to have changed for the clone `a`, whose key changes with it.
    fn changes(was: &RenderRequest, is: &RenderRequest) -> Vec<String> {
        let (was, is) = (
            LayerInputs::new(was, &|_| None).unwrap(),
            LayerInputs::new(is, &|_| None).unwrap(),
        );
        let changes = changed_inputs(
            (was.common(0).unwrap(), &was.own(0).unwrap(), was.sets()),
            (is.common(0).unwrap(), &is.own(0).unwrap(), is.sets()),
        );
        assert_eq!(was.key(0) != is.key(0), !changes.is_empty(), "{changes:?}");
        changes
    }

    #[test]
    fn what_is_read_counts_and_nothing_else() {
        let sets = own("{{ greeting }} {{ clone.address }}");
        let first = request(HERD, &sets, 7);
        let edited =
            |from: &str, to: &str| changes(&first, &request(&HERD.replace(from, to), &sets, 7));
        assert_eq!(edited("", ""), Vec::<String>::new());
        assert_eq!(edited("unread: 1", "unread: 2"), Vec::<String>::new());
        assert_eq!(
            edited("greeting: hi", "greeting: ho"),
            ["variable greeting"]
        );
        assert_eq!(
            edited(
                "b: {address: 10.77.0.8}",
                "b: {cpus: 2, address: 10.77.0.8}"
            ),
            Vec::<String>::new()
        );
        assert_eq!(edited("10.77.0.8", "10.77.0.9"), ["the list of clones"]);
        assert_eq!(
            edited("10.77.0.7", "10.77.0.9"),
            [
                "the list of clones",
                "address: 10.77.0.7/24, now 10.77.0.9/24"
            ]
        );
        assert_eq!(edited("[own]", "[web, own]"), ["set web added"]);
        assert_eq!(
            changes(&first, &request(HERD, &sets, 8)),
            ["the deployment's secret"]
        );
        let other = own("{{ greeting }} {{ clone.address }}!");
        assert_eq!(
            changes(&first, &request(HERD, &other, 7)),
            ["set own: etc/x.j2"]
        );
    }

    #[test]
    fn the_list_of_clones_counts_as_far_as_it_is_read() {
        let sets = own("{% for one in clones %}{{ one.cpus }}{% endfor %}");
        let first = request(HERD, &sets, 7);
        let edited =
            |from: &str, to: &str| changes(&first, &request(&HERD.replace(from, to), &sets, 7));
        assert_eq!(
            edited(
                "b: {address: 10.77.0.8}",
                "b: {cpus: 2, address: 10.77.0.8}"
            ),
            ["the list of clones"]
        );
        assert_eq!(edited("greeting: hi", "greeting: ho"), Vec::<String>::new());
        for (from, to) in [
            (
                ", b: {address: 10.77.0.8}}",
                "}\ngroups: {g: {hosts: {b: {address: 10.77.0.8}}}}",
            ),
            (
                "b: {address: 10.77.0.8}",
                "b: {sets+: [web], address: 10.77.0.8}",
            ),
        ] {
            assert_eq!(edited(from, to), ["the list of clones"], "{to}");
        }
    }

    #[test]
    fn the_order_of_sets_counts() {
        let text = |sets: &str| HERD.replace("[own]", sets);
        let sets = own("");
        let first = request(&text("[own, web]"), &sets, 7);
        let swapped = request(&text("[web, own]"), &sets, 7);
        assert_eq!(changes(&first, &swapped), ["the order of the sets"]);
        let less = request(&text("[web]"), &sets, 7);
        assert_eq!(changes(&first, &less), ["set own removed"]);
    }
}

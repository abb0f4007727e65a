//! The cascade: what several levels write becomes one value, and every value knows where it comes
//! from. Laws against a plain model, and the words of it one by one.

use std::collections::BTreeSet;

use estive_layers::{ClonePlan, HerdPlan, TemplateSet, check_variables, herd};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

fn plan(text: &str) -> HerdPlan {
    herd::parse("herd.yaml", text, "demo").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn complaint(text: &str) -> String {
    herd::parse("herd.yaml", text, "demo")
        .expect_err("a complaint")
        .to_string()
}

fn set(name: &str, settings: &str, template: &str) -> TemplateSet {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("set.yaml"), settings).unwrap();
    std::fs::write(dir.path().join("page.j2"), template).unwrap();
    TemplateSet::load(name, dir.path()).unwrap()
}

/// `name value | level, place | what it overrode`
fn told(clone: &ClonePlan, sets: &[TemplateSet]) -> Vec<String> {
    let values = clone.traced_values(sets).into_iter();
    values
        .map(|value| {
            let mut text = format!("{} {} | {}", value.name, value.value, value.source);
            for earlier in value.earlier {
                let how = if earlier.kept { "onto" } else { "over" };
                text += &format!(" | {how} {} | {}", earlier.value, earlier.source);
            }
            text
        })
        .collect()
}

#[test]
fn a_key_with_a_plus_appends() {
    let plan = plan(
        "
sets: base-debian
ssh_authorized_keys: ssh-ed25519 A one
up: [ssh]
nameservers: [10.0.0.1]
deep: {list: [1], other: 2}
groups:
  g:
    sets+: [web]
    ssh_authorized_keys+: ssh-ed25519 B two
    up+: [http]
    nameservers+: [10.0.0.2]
    deep: {list+: [2, 3]}
    groups:
      inner:
        nameservers+: [10.0.0.3]
        hosts:
          a: {vars: {nameservers+: []}, deep: {list+: [4], new+: [5]}}
    hosts:
      b: {sets: [web], nameservers: [10.0.0.9], deep: {list: [9]}}
",
    );
    let a = plan.clone_named("a").unwrap();
    assert_eq!(a.sets, ["base-debian", "web"]);
    assert_eq!(
        a.ssh_authorized_keys[..],
        ["ssh-ed25519 A one", "ssh-ed25519 B two"]
    );
    assert_eq!(a.up_checks.len(), 2);
    assert_eq!(
        Json::from(a.variables()),
        json!({
            "deep": {"list": [1, 2, 3, 4], "new": [5], "other": 2},
            "nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        })
    );
    let b = plan.clone_named("b").unwrap();
    assert_eq!(b.sets, ["web"]);
    assert_eq!(
        Json::from(b.variables()),
        json!({"deep": {"list": [9], "other": 2}, "nameservers": ["10.0.0.9"]})
    );
}

#[test]
fn keys_in_the_items_of_a_list_are_taken_as_they_stand() {
    let plan = plan("languages: [{C++: 1, C+: 2}]\nhosts: {a: }\n");
    assert_eq!(
        Json::from(plan.clones[0].variables()),
        json!({"languages": [{"C+": 2, "C++": 1}]})
    );
}

#[test]
fn what_cannot_be_appended_is_said_at_its_place() {
    for (text, expected) in [
        (
            "x: 1\nhosts:\n  a: {x+: [2]}\n",
            "herd.yaml:3:7: x+ appends to a list; x is a number (globals, herd.yaml:1:4)",
        ),
        (
            "hosts:\n  a: {x+: 2}\n",
            "herd.yaml:2:11: x+ appends a list; this is a number",
        ),
        (
            "x: {y: {z: 1}}\ngroups: {g: {hosts: {a: {x: {y+: [2]}}}}}\n",
            "herd.yaml:2:30: y+ appends to a list; y is a mapping (globals, herd.yaml:1:8)",
        ),
        (
            "x: [1]\nx+: [2]\nhosts: {a: }\n",
            "herd.yaml:2:1: x and x+ stand in one place; write the whole list as x",
        ),
        (
            "x: {y+: [1], y: [1]}\nhosts: {a: }\n",
            "herd.yaml:1:14: y and y+ stand in one place; write the whole list as y",
        ),
        (
            "sets: [a]\nsets+: [b]\nhosts: {a: }\n",
            "herd.yaml:2:1: sets and sets+ stand in one place; write the whole list as sets",
        ),
        (
            "cpus+: [1]\nhosts: {a: }\n",
            "herd.yaml:1:1: cpus is no list to append to; of the reserved keys sets, ssh_authorized_keys, up, words are lists",
        ),
        (
            "hosts+: {a: }\n",
            "herd.yaml:1:1: hosts is no list to append to; of the reserved keys sets, ssh_authorized_keys, up, words are lists\nherd.yaml:1:1: no hosts; name at least one, as hosts: {\"clone[01-04]\": }",
        ),
        (
            "setss+: [1]\nhosts: {a: }\n",
            "herd.yaml:1:1: unknown key \"setss+\"; did you mean sets+? (a variable of that name goes under vars:)",
        ),
        (
            "sets+: {a: b}\nhosts: {a: }\n",
            "herd.yaml:1:8: sets+ appends a list; this is a mapping",
        ),
    ] {
        assert_eq!(complaint(text), expected, "{text}");
    }
}

#[test]
fn every_value_knows_its_level_its_place_and_what_it_overrode() {
    let plan = plan(
        "memory_mib: 512
title: all
deep: {x: 1, y: 2}
list: [1]
groups:
  blue sheep:
    title: group
    groups:
      inner:
        deep: none
        list+: [2]
        hosts:
          a[1-2]: {title: host, deep: {x: {z: 3}, \"with.dot\": {}}}
hosts: {b: }
",
    );
    let sets = [set(
        "own",
        "variables:\n  title: {type: text, default: shipped}\n  port: {type: integer, default: 80}\n",
        "",
    )];
    assert_eq!(
        told(plan.clone_named("a2").unwrap(), &sets),
        [
            "address \"10.77.0.166\" | drawn",
            "cpus 1 | built in",
            "deep.\"with.dot\" {} | host a[1-2], herd.yaml:13:63 | over \"none\" | group blue sheep / inner, herd.yaml:10:15 | over {\"x\":1,\"y\":2} | globals, herd.yaml:3:7",
            "deep.x.z 3 | host a[1-2], herd.yaml:13:47 | over \"none\" | group blue sheep / inner, herd.yaml:10:15 | over {\"x\":1,\"y\":2} | globals, herd.yaml:3:7",
            "list [1,2] | group blue sheep / inner, herd.yaml:11:16 | onto [1] | globals, herd.yaml:4:7",
            "memory_mib 512 | globals, herd.yaml:1:13",
            "port 80 | set own default, sets/own/set.yaml:3:34",
            "reference \"default\" | built in",
            "title \"host\" | host a[1-2], herd.yaml:13:27 | over \"group\" | group blue sheep, herd.yaml:7:12 | over \"all\" | globals, herd.yaml:2:8 | over \"shipped\" | set own default, sets/own/set.yaml:2:32",
        ]
    );
    let json = serde_json::to_value(plan.clone_named("b").unwrap().traced_values(&[])).unwrap();
    let title = json
        .as_array()
        .unwrap()
        .iter()
        .find(|value| value["name"] == "title");
    assert_eq!(
        title.unwrap(),
        &json!({"name": "title", "value": "all", "level": "globals", "file": "herd.yaml", "line": 2, "column": 8, "earlier": []})
    );
}

#[test]
fn defaults_of_sets_are_the_lowest_level() {
    let plan = plan(
        "modules+: [b]\nnfs: {soft: true}\nhosts:\n  a:\n  b: {title: }\n  c: {page: , title: mine}\n",
    );
    let sets = [
        set(
            "lower",
            "variables:
  modules: {type: list, default: [a]}
  nfs: {type: mapping, default: {soft: false, version: 3}}
  title: {type: text, default: lower}
  page: {type: text, optional: true}
",
            "",
        ),
        set(
            "upper",
            "variables: {title: {type: text, default: upper}}",
            "",
        ),
    ];
    let context = |name: &str| {
        let clone = plan.clone_named(name).unwrap();
        Json::from(clone.context_variables(&sets).unwrap())
    };
    let nfs = json!({"soft": true, "version": 3});
    let all = json!({"modules": ["a", "b"], "nfs": nfs, "title": "upper"});
    assert_eq!(context("a"), all);
    // Nothing is no value: the default shows again, and an optional one is undefined.
    assert_eq!(context("b"), all);
    assert_eq!(
        context("c"),
        json!({"modules": ["a", "b"], "nfs": nfs, "title": "mine"})
    );
}

fn held(text: &str, sets: &[TemplateSet]) -> Result<Vec<String>, String> {
    let plan = plan(text);
    match check_variables(&plan, |_| sets) {
        Ok(warnings) => Ok(warnings.lines().collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_a_set_lacks_or_reads_otherwise_is_an_error() {
    let sets = [set(
        "own",
        "variables:\n  workers: {type: integer, help: processes a clone}\n  title: {type: text, optional: true}\n",
        "",
    )];
    assert_eq!(
        held("hosts:\n  a: {workers: 2}\n  b[1-3]:\n", &sets).unwrap_err(),
        "herd.yaml:3:3: b1 needs the variable workers, a whole number, which the set own reads (processes a clone) (and for 2 more clones)"
    );
    assert_eq!(
        held("workers: 2.5\nhosts:\n  a: {title: [x]}\n", &sets).unwrap_err(),
        "herd.yaml:1:10: workers: the set own reads a whole number; this is a number (processes a clone)\n\
         herd.yaml:3:14: title: the set own reads a text; this is a list"
    );
    assert_eq!(
        held("workers:\nhosts: {a: }\n", &sets).unwrap_err(),
        "herd.yaml:2:9: a needs the variable workers, a whole number, which the set own reads (processes a clone)"
    );
    let clash = [
        sets[0].clone(),
        set("above", "variables: {workers: {type: any, default: x}}", ""),
    ];
    assert_eq!(
        held("hosts: {a: }\n", &clash).unwrap_err(),
        "herd.yaml:1:9: workers: the set own reads a whole number; this is a text, by default of the set above (processes a clone)"
    );
    let plan = plan("hosts: {a: }\n");
    assert!(plan.clones[0].context_variables(&sets).is_err());
    assert_eq!(held("workers: 2\nhosts: {a: }\n", &sets), Ok(vec![]));
}

#[test]
fn a_variable_that_no_set_reads_is_warned_of_with_what_was_meant() {
    let sets = [set(
        "own",
        "variables: {workers: {type: any, optional: true}}",
        "{{ clone.name }} {{ titel.x | default(range(3)) }} {% for x in pages %}{{ x }}{% endfor %}",
    )];
    assert_eq!(
        held(
            "worker: 1\nhosts:\n  a: {titel: {x: 1}, pages: []}\n  b: {greeting: hi, colour_of_sheep: x}\n",
            &sets
        )
        .unwrap(),
        [
            "herd.yaml:1:1: no chosen set reads the variable \"worker\"; did you mean workers, which the set own reads?",
            "herd.yaml:4:7: no chosen set reads the variable \"greeting\"; the set web reads it, and is not among sets:",
            "herd.yaml:4:21: no chosen set reads the variable \"colour_of_sheep\"",
        ]
    );
}

#[test]
fn a_variable_is_read_when_one_clone_below_it_reads_it() {
    let plan = plan(
        "common: 1\ngroups:\n  g: {only: 2, hosts: {a: }}\n  h: {only: 2, sets: [own], hosts: {b: }}\n",
    );
    let own = [set("own", "help: x", "{{ common }}{{ only }}")];
    let warnings = check_variables(
        &plan,
        |clone| if clone.sets.is_empty() { &[] } else { &own },
    );
    assert_eq!(
        warnings.unwrap().lines().collect::<Vec<_>>(),
        ["herd.yaml:3:7: no chosen set reads the variable \"only\""]
    );
}

#[test]
fn levels_without_end_are_refused_before_they_are_joined() {
    let mut text = String::new();
    for number in 0..2_000 {
        text += &format!("v{number}: 1\n");
    }
    text += "hosts:\n";
    for number in 0..8_000 {
        text += &format!("  h{number}: {{x: 1}}\n");
    }
    let complaint = complaint(&text);
    assert!(
        complaint.contains("more than 4000000 values"),
        "{complaint}"
    );
    // One range with the same values is as large as one host.
    let plan = plan(&format!(
        "network: 10.0.0.0/16\n{}  \"h[0001-9999]\": {{x: 1}}\n",
        text.split_inclusive("hosts:\n").next().unwrap()
    ));
    assert_eq!(plan.clones.len(), 9_999);
    assert_eq!(plan.clones[9_998].variables().len(), 2_001);
}

#[test]
fn what_is_inherited_counts_for_every_group_with_hosts_and_by_its_length() {
    let mut groups = "groups:\n".to_owned();
    let mut hosts = "hosts:\n".to_owned();
    for number in 0..4_000 {
        groups += &format!("  g{number}: {{hosts: {{h{number}: }}}}\n");
        hosts += &format!("  h{number}: {{x: 1}}\n");
    }
    let values = format!("list: [{}]\n", "1,".repeat(2_000));
    let text = format!("text: {}\n", "x".repeat(100_000));
    for herd in [values + &groups, text + &hosts] {
        let complaint = complaint(&format!("network: 10.0.0.0/16\n{herd}"));
        assert!(
            complaint.contains("more than 4000000 values"),
            "{complaint}"
        );
    }
}

#[test]
fn defaults_of_sets_count_for_every_level_with_hosts() {
    let settings = format!(
        "variables: {{list: {{type: list, default: [{}]}}}}",
        "1,".repeat(4_000)
    );
    let sets = [set("own", &settings, "{{ list }}")];
    let mut text = "network: 10.0.0.0/16\nhosts:\n".to_owned();
    for number in 0..2_000 {
        text += &format!("  h{number}: {{x: 1}}\n");
    }
    let complaint = held(&text, &sets).unwrap_err();
    assert!(
        complaint.contains("more than 4000000 values, those of sets counted"),
        "{complaint}"
    );
}

/// A value that a level may write: the keys of mappings with `+` where they append.
fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        (0..9).prop_map(Json::from),
        Just(Json::Null),
        proptest::collection::vec(0..9, 0..3).prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| level_of(inner).prop_map(Json::Object))
}

/// Keys of a level: a key stands with or without `+`, not both.
fn level_of(inner: impl Strategy<Value = Json>) -> impl Strategy<Value = Map<String, Json>> {
    let appended = proptest::collection::vec(0..9, 0..3).prop_map(Json::from);
    let entry = prop_oneof![
        3 => inner.prop_map(|value| (false, value)),
        1 => appended.prop_map(|value| (true, value)),
    ];
    proptest::collection::btree_map("[xyz]", entry, 0..3).prop_map(|entries| {
        let key = |name, plus| if plus { format!("{name}+") } else { name };
        entries
            .into_iter()
            .map(|(name, (plus, value))| (key(name, plus), value))
            .collect()
    })
}

/// The cascade as the documentation says it, without places. `Err`: something cannot be appended.
fn join(so_far: Option<Json>, appends: bool, value: &Json) -> Result<Json, ()> {
    if appends {
        let mut items = match so_far {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Array(items)) => items,
            Some(_) => return Err(()),
        };
        items.extend(value.as_array().unwrap().iter().cloned());
        return Ok(Json::Array(items));
    }
    let Json::Object(entries) = value else {
        return Ok(value.clone());
    };
    let mut joined = match so_far {
        Some(Json::Object(joined)) => joined,
        _ => Map::new(),
    };
    for (key, value) in entries {
        let name = key.trim_end_matches('+');
        let now = join(joined.remove(name), name != key, value)?;
        joined.insert(name.to_owned(), now);
    }
    Ok(Json::Object(joined))
}

/// Four levels, as YAML's JSON. `turned`: the keys of every mapping the other way round.
fn herd_text(levels: &[Map<String, Json>], turned: bool) -> String {
    let mut host = Map::new();
    host.insert("vars".to_owned(), Json::Object(levels[3].clone()));
    let mut inner = Map::new();
    inner.insert("vars".to_owned(), Json::Object(levels[2].clone()));
    inner.insert("hosts".to_owned(), json!({"a": host, "b": {}}));
    let mut outer = Map::new();
    outer.insert("vars".to_owned(), Json::Object(levels[1].clone()));
    outer.insert("groups".to_owned(), json!({"inner": inner}));
    let top = json!({"vars": levels[0], "groups": {"outer": outer, "other": {"hosts": {"d": {}}}}, "hosts": {"c": {}}});
    if turned { turn(top) } else { top }.to_string()
}

fn turn(value: Json) -> Json {
    match value {
        Json::Object(entries) => {
            let turned = entries.into_iter().rev();
            Json::Object(turned.map(|(key, value)| (key, turn(value))).collect())
        }
        other => other,
    }
}

fn at_path<'a>(value: &'a Json, path: &str) -> &'a Json {
    path.split('.').fold(value, |value, key| &value[key])
}

/// The paths of all values that are no mapping and do not append.
fn leaves(entries: &Map<String, Json>, prefix: &str, into: &mut Vec<(String, Json)>) {
    for (key, value) in entries {
        match value {
            _ if key.ends_with('+') => {}
            Json::Object(inner) => leaves(inner, &format!("{prefix}{key}."), into),
            value => into.push((format!("{prefix}{key}"), value.clone())),
        }
    }
}

proptest! {
    #[test]
    fn the_cascade_is_its_model(levels in proptest::collection::vec(level_of(value()), 4)) {
        let text = herd_text(&levels, false);
        let fold = |count: usize| {
            levels[..count].iter().try_fold(json!({}), |so_far, level| {
                join(Some(so_far), false, &Json::Object(level.clone()))
            })
        };
        let read = herd::parse("herd.yaml", &text, "demo");
        let (Ok(a), Ok(b), Ok(c)) = (fold(4), fold(3), fold(1)) else {
            prop_assert!(read.is_err(), "{}", text);
            return Ok(());
        };
        let plan = read.unwrap_or_else(|error| panic!("{error}\n{text}"));
        for (name, expected) in [("a", a), ("b", b), ("c", c)] {
            let clone = plan.clone_named(name).unwrap();
            let variables = Json::from(clone.variables());
            prop_assert_eq!(&variables, &expected, "{}", text);
            // What provenance tells is what the plan has, each part of it once.
            let ours = ["address", "cpus", "memory_mib", "reference"];
            let mut told = BTreeSet::new();
            for value in clone.traced_values(&[]) {
                if !ours.contains(&value.name.as_str()) {
                    prop_assert_eq!(at_path(&variables, &value.name), &value.value, "{}", text);
                    prop_assert!(told.insert(value.name), "{}", text);
                }
            }
            let mut there = Vec::new();
            leaves(&clone.variables(), "", &mut there);
            for (path, _) in there {
                prop_assert!(told.contains(&path), "{} of {}", path, text);
            }
        }
    }

    #[test]
    fn a_lower_level_always_wins(
        above in proptest::collection::vec(level_of(value()), 3),
        host in level_of(value()),
    ) {
        let levels: Vec<_> = above.into_iter().chain([host.clone()]).collect();
        let text = herd_text(&levels, false);
        if let Ok(plan) = herd::parse("herd.yaml", &text, "demo") {
            let clone = plan.clone_named("a").unwrap();
            let variables = Json::from(clone.variables());
            let mut own = Vec::new();
            leaves(&host, "", &mut own);
            let told = clone.traced_values(&[]);
            for (path, value) in own {
                prop_assert_eq!(at_path(&variables, &path), &value, "{} of {}", path, text);
                let told = told.iter().find(|told| told.name == path).unwrap();
                prop_assert_eq!(told.source.level().to_string(), "host a");
            }
        }
    }

    #[test]
    fn the_order_of_keys_changes_nothing(levels in proptest::collection::vec(level_of(value()), 4)) {
        let straight = herd::parse("herd.yaml", &herd_text(&levels, false), "demo");
        let turned = herd::parse("herd.yaml", &herd_text(&levels, true), "demo");
        prop_assert_eq!(straight.is_ok(), turned.is_ok());
        if let (Ok(straight), Ok(turned)) = (straight, turned) {
            prop_assert_eq!(straight, turned);
        }
    }
}

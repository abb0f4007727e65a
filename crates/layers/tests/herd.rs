//! Herd files: what they become, and every complaint word for word.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use estive_layers::{HerdPlan, UpCheck, herd};
use proptest::prelude::*;

fn plan(text: &str) -> HerdPlan {
    herd::parse("herd.yaml", text, "demo").unwrap_or_else(|error| panic!("{error}"))
}

fn complaint(text: &str) -> String {
    herd::parse("herd.yaml", text, "demo")
        .expect_err("a complaint")
        .to_string()
}

/// Listing IV.1 of the paper, by its facts: a server, the root's and the home's device, type and
/// options, one group with spaces in its name, 24 hosts of which nothing is said.
fn papers_file() -> String {
    let mut text = "\nserver: 10.0.0.1\n".to_owned();
    for (what, device) in [("root", "10.0.0.1:/"), ("home", "10.0.0.1:/home")] {
        writeln!(
            text,
            "\nos_{what}_device: {device}\nos_{what}_fs_type: nfs\nos_{what}_fs_options: nfsvers=3"
        )
        .unwrap();
    }
    text += "\ngroups:\n  attack of the clones:\n    hosts:\n";
    for number in 1..=24 {
        writeln!(text, "      clone{number:02}:").unwrap();
    }
    text
}

#[test]
fn the_papers_own_file_loads_unchanged() {
    let plan = plan(&papers_file());
    let names: Vec<String> = (1..=24).map(|number| format!("clone{number:02}")).collect();
    let of_plan: Vec<&str> = plan
        .clones
        .iter()
        .map(|clone| clone.name.as_str())
        .collect();
    assert_eq!(of_plan, names);
    for clone in &plan.clones {
        assert_eq!(clone.groups, ["attack of the clones"]);
        assert_eq!(
            serde_json::to_string(&clone.variables()).unwrap(),
            r#"{"os_home_device":"10.0.0.1:/home","os_home_fs_options":"nfsvers=3","os_home_fs_type":"nfs","os_root_device":"10.0.0.1:/","os_root_fs_options":"nfsvers=3","os_root_fs_type":"nfs","server":"10.0.0.1"}"#
        );
        assert_eq!(
            (clone.memory_mib, clone.cpus, clone.reference.as_str()),
            (384, 1, "default")
        );
        assert!(!clone.post_copy_allowed && clone.up_checks.is_empty() && clone.sets.is_empty());
    }
    // Golden: the same name has the same address, today and in ten years.
    let of = |name: &str| plan.clone_named(name).unwrap();
    assert_eq!(
        (
            of("clone01").address_with_prefix(),
            of("clone01").mac.as_str()
        ),
        ("10.77.0.121/24".to_owned(), "52:54:3c:75:a3:9b")
    );
    assert_eq!(of("clone24").address.to_string(), "10.77.0.112");
}

/// The blocks of the page whose first line ends so.
fn blocks_of_the_page(kind: &str) -> Vec<&'static str> {
    let page = include_str!("../../../docs/herd-file.md");
    let begin = format!("```yaml {kind}\n");
    let after = page.split(begin.as_str()).skip(1);
    after
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_examples_of_the_page_mean_what_it_says() {
    let herds = blocks_of_the_page("herd");
    assert_eq!(herds.len(), 2);
    let first = plan(herds[0]);
    assert_eq!(first.clones.len(), 5);
    assert_eq!(first.clone_named("clone05").unwrap().memory_mib, 512);
    let second = plan(herds[1]);
    let node = |name: &str| second.clone_named(name).unwrap();
    assert_eq!(
        serde_json::to_string(&node("node8").variables()).unwrap(),
        r#"{"nameservers":["10.0.0.1","10.0.0.2"],"nfs":{"options":{"retry":2,"soft":true},"server":"10.0.0.1"}}"#
    );
    assert_eq!(node("node9").sets, ["base-debian", "dummy"]);
    assert_eq!(node("node9").variables()["nameservers"][0], "10.9.9.9");

    let sets = blocks_of_the_page("set");
    assert_eq!(sets.len(), 1);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("set.yaml"), sets[0]).unwrap();
    let set = estive_layers::TemplateSet::load("page", dir.path()).unwrap();
    let required: Vec<&str> = set
        .variables()
        .filter(|(_, variable)| variable.required())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(required, ["port"]);
}

#[test]
fn the_example_is_four_clones_with_addresses_of_its_range() {
    let plan = plan(include_str!("../../../examples/first-herd/herd.yaml"));
    assert_eq!(plan.deployment.as_str(), "first-herd");
    let names: Vec<&str> = plan
        .clones
        .iter()
        .map(|clone| clone.name.as_str())
        .collect();
    assert_eq!(names, ["clone01", "clone02", "clone03", "clone04"]);
    for clone in &plan.clones {
        assert!(
            (101..=199).contains(&clone.address.octets()[3]),
            "{}",
            clone.address
        );
        assert_eq!(clone.sets, ["base-debian", "web"]);
        assert_eq!(clone.up_checks, [UpCheck::Http, UpCheck::Ssh]);
        assert!(clone.mac.starts_with("52:54:"));
    }
    // Golden: other parts, and people, rely on a name keeping its address.
    let address = plan.clones[0].address_with_prefix();
    assert_eq!(address, "10.77.0.148/24");
}

#[test]
fn the_lower_level_wins_and_mappings_are_joined() {
    let plan = plan(
        "
memory_mib: 100
nfs: {server: a, options: {soft: true, retry: 1}}
list: [1, 2]
groups:
  outer:
    cpus: 2
    groups:
      inner:
        memory_mib: 200
        nfs: {options: {retry: 2}}
        list: [3]
        migration: {post_copy: allow}
        hosts:
          a:
          b: {memory_mib: 300, migration: {post_copy: never}, vars: {up_to: 3, nfs: none}, address: 10.77.0.7}
hosts:
  c: {host: host2, init: /sbin/init, gateway: 10.77.0.1, up: ping}
",
    );
    let a = plan.clone_named("a").unwrap();
    assert_eq!((a.memory_mib, a.cpus, a.post_copy_allowed), (200, 2, true));
    assert_eq!(a.groups, ["outer", "inner"]);
    let json = serde_json::to_string(&a.variables()).unwrap();
    assert_eq!(
        json,
        r#"{"list":[3],"nfs":{"options":{"retry":2,"soft":true},"server":"a"}}"#
    );
    let b = plan.clone_named("b").unwrap();
    assert_eq!((b.memory_mib, b.post_copy_allowed), (300, false));
    assert_eq!(b.address.to_string(), "10.77.0.7");
    assert_eq!(b.variables()["nfs"], "none");
    assert_eq!(b.variables()["up_to"], 3);
    let c = plan.clone_named("c").unwrap();
    assert_eq!((c.memory_mib, c.cpus), (100, 1));
    assert_eq!(c.host.as_ref().unwrap().as_str(), "host2");
    assert_eq!(c.up_checks, [UpCheck::Ping]);
}

#[test]
fn complaints_word_for_word() {
    for (text, expected) in [
        (
            "memory_mb: 5\nhosts: {a: }\n",
            "herd.yaml:1:1: unknown key \"memory_mb\"; did you mean memory_mib? (a variable of that name goes under vars:)",
        ),
        (
            "hosts:\n  a: {adress: 10.77.0.3}\n",
            "herd.yaml:2:7: unknown key \"adress\"; did you mean address? (a variable of that name goes under vars:)",
        ),
        (
            "hosts:\n  ../etc:\n",
            "herd.yaml:2:3: \"../etc\" is no name for a host: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end",
        ),
        (
            "hosts:\n  localhost:\n",
            "herd.yaml:2:3: the name localhost means something else on every machine; choose another",
        ),
        (
            "hosts:\n  \"0[1-2]\":\n",
            "herd.yaml:2:3: the name 01 would be read as an address; begin it with a letter\nherd.yaml:2:3: the name 02 would be read as an address; begin it with a letter",
        ),
        (
            "name: ../../x\nhosts: {a: }\n",
            "herd.yaml:1:7: deployment name \"../../x\" is not fit: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end; write a fit one as name:",
        ),
        (
            "groups:\n  g: {hosts: {a: }}\n  h: {hosts: {a: }}\n",
            "herd.yaml:3:15: the host a is already at 2:15; a host stands in one group",
        ),
        (
            "hosts:\n  a: {address: 10.77.0.9}\n  b: {address: 10.77.0.9}\n",
            "herd.yaml:3:16: the address 10.77.0.9 of b is also that of a, at 2:16",
        ),
        (
            "hosts:\n  a: {address: 10.78.0.9}\n",
            "herd.yaml:2:16: address: 10.78.0.9 is not an address of the network 10.77.0.0/24",
        ),
        (
            "hosts:\n  a: {address: 10.77.0.256}\n",
            "herd.yaml:2:16: address: \"10.77.0.256\" is no IPv4 address",
        ),
        (
            "gateway: 10.77.0.1\nhosts:\n  a: {address: 10.77.0.1}\n",
            "herd.yaml:1:10: the gateway 10.77.0.1 is also the address of a",
        ),
        (
            "address: 10.77.0.9\nhosts: {a: }\n",
            "herd.yaml:1:1: address is of one host; write it below that host",
        ),
        (
            "hosts:\n  a[1-2]: {address: 10.77.0.9}\n",
            "herd.yaml:2:12: address cannot be the same for several hosts; name one host",
        ),
        (
            "hosts:\n  a: {network: 10.0.0.0/8}\n",
            "herd.yaml:2:7: network is of the whole deployment; write it at the top of the file",
        ),
        (
            "network: 10.77.0.0\nhosts: {a: }\n",
            "herd.yaml:1:10: network: \"10.77.0.0\" is no network; write it as 10.77.0.0/24",
        ),
        (
            "addresses: 10.77.0.5-10.77.0.6\nhosts: {\"a[1-3]\": }\n",
            "herd.yaml:1:12: 3 hosts need an address and 10.77.0.5-10.77.0.6 has not as many free; write larger addresses: or a larger network:",
        ),
        (
            "memory_mib: 1 GiB\nhosts: {a: }\n",
            "herd.yaml:1:13: memory_mib: \"1 GiB\" is no whole number; units belong to the key",
        ),
        (
            "memory_mib: 1\nhosts: {a: }\n",
            "herd.yaml:1:13: memory_mib: 1 is not within 64 to 4194304",
        ),
        (
            "sets: [../x]\nhosts: {a: }\n",
            "herd.yaml:1:8: sets: \"../x\" is no name: use 1 to 63 letters, digits, '-', '_', '.', not first '.' or '-'",
        ),
        (
            "init: sbin/init\nhosts: {a: }\n",
            "herd.yaml:1:7: init: \"sbin/init\" is no path of a program: write it from '/', of letters, digits and /._-+@",
        ),
        (
            "up: [smtp]\nhosts: {a: }\n",
            "herd.yaml:1:6: up: \"smtp\" is no check; use some of ssh, http, ping",
        ),
        (
            "migration: {postcopy: allow}\nhosts: {a: }\n",
            "herd.yaml:1:13: migration: unknown key \"postcopy\"; did you mean post_copy?",
        ),
        (
            "volumes: {}\nhosts: {a: }\n",
            "herd.yaml:1:1: volumes is reserved and not supported yet",
        ),
        (
            "hosts: [a]\n",
            "herd.yaml:1:1: no hosts; name at least one, as hosts: {\"clone[01-04]\": }\nherd.yaml:1:8: hosts is a mapping of names, each with a ':'; this is a list",
        ),
        (
            "hosts:\n  a[3-1]:\n  b:\n",
            "herd.yaml:2:3: the range 3-1 runs backwards",
        ),
        (
            "hosts:\n  a: &x {memory_mib: *x}\n",
            "herd.yaml:2:22: recursive references require weak recursion types",
        ),
        (
            "hosts:\n  a:\n  a:\n",
            "herd.yaml:3:3: duplicate mapping key: a",
        ),
        (
            "",
            "herd.yaml:1:1: no hosts; name at least one, as hosts: {\"clone[01-04]\": }",
        ),
        (
            "- a\n",
            "herd.yaml:1:1: a herd file is a mapping; this is a list",
        ),
    ] {
        assert_eq!(complaint(text), expected, "{text}");
    }
}

#[test]
fn many_complaints_are_cut() {
    let mut text = "hosts:\n".to_owned();
    for number in 0..50 {
        writeln!(text, "  A{number}:").unwrap();
    }
    let complaint = complaint(&text);
    assert_eq!(complaint.lines().count(), 20);
    assert!(complaint.ends_with("(and 30 more problems)"), "{complaint}");
}

#[test]
fn the_same_hosts_without_end_are_refused_before_each_is_complained_of() {
    let mut text = "groups:\n".to_owned();
    for number in 0..20_000 {
        writeln!(text, "  g{number}: {{hosts: {{\"c[1-8192]\": }}}}").unwrap();
    }
    let complaint = complaint(&text);
    assert!(
        complaint.contains("herd.yaml:3:16: the host c1 is already at 2:16"),
        "{complaint}"
    );
    assert!(
        complaint.ends_with("(and 8173 more problems)"),
        "{complaint}"
    );
}

#[test]
fn a_clone_that_is_there_keeps_its_address_when_others_come() {
    let range = |hosts: &str| format!("addresses: 10.77.0.10-10.77.0.13\nhosts: {{{hosts}}}\n");
    let before = plan(&range("c: , d: "));
    let known = before.addresses();
    let grown = range("a: , b: , c: , d: ");
    // By their names alone, somebody else would have one of theirs: the order of names decides.
    let by_names = plan(&grown).addresses();
    assert!(known.iter().any(|(name, at)| by_names[name] != *at));
    let kept = herd::parse_knowing("herd.yaml", &grown, "demo", &known).unwrap();
    let kept = kept.addresses();
    assert!(
        known.iter().all(|(name, at)| kept[name] == *at),
        "{kept:?} {known:?}"
    );
    let all: std::collections::BTreeSet<_> = kept.values().collect();
    assert_eq!(all.len(), 4);
    // One that the file no longer names is there still.
    let fewer = herd::parse_knowing("herd.yaml", &range("a: , b: , c: "), "demo", &known);
    let fewer = fewer.unwrap().addresses();
    assert!(fewer.values().all(|at| *at != known["d"]), "{fewer:?}");
    // What the file says comes first, and what it no longer draws from is not kept.
    for text in [
        range(&format!("a: {{address: {}}}, c: , d: ", known["c"])),
        "addresses: 10.77.0.20-10.77.0.23\nhosts: {c: , d: }\n".to_owned(),
    ] {
        let read = herd::parse_knowing("herd.yaml", &text, "demo", &known).unwrap();
        assert_ne!(read.addresses()["c"], known["c"], "{text}");
    }
}

/// Names with an optional own address.
fn some_hosts() -> impl Strategy<Value = BTreeMap<String, Option<u8>>> {
    proptest::collection::btree_map("[a-z][a-z0-9]{0,3}", proptest::option::of(1u8..100), 1..40)
}

fn herd_text(hosts: &[(&String, &Option<u8>)]) -> String {
    let mut used = std::collections::BTreeSet::new();
    let mut text = "hosts:\n".to_owned();
    for (name, own) in hosts {
        match own {
            Some(last) if used.insert(*last) => {
                writeln!(text, "  \"{name}\": {{address: 10.77.0.{last}}}")
            }
            _ => writeln!(text, "  \"{name}\":"),
        }
        .unwrap();
    }
    text
}

proptest! {
    #[test]
    fn every_clone_has_an_address_and_a_mac_of_its_own(hosts in some_hosts()) {
        let pairs: Vec<_> = hosts.iter().collect();
        let plan = plan(&herd_text(&pairs));
        let addresses: std::collections::BTreeSet<_> = plan.clones.iter().map(|c| c.address).collect();
        let macs: std::collections::BTreeSet<_> = plan.clones.iter().map(|c| &c.mac).collect();
        prop_assert_eq!(addresses.len(), hosts.len());
        prop_assert_eq!(macs.len(), hosts.len());
    }

    #[test]
    fn the_order_of_hosts_changes_nothing(hosts in proptest::collection::btree_set("[a-z][a-z0-9]{0,3}", 1..40), seed in any::<u64>()) {
        let none = None;
        let mut pairs: Vec<_> = hosts.iter().map(|name| (name, &none)).collect();
        let straight = plan(&herd_text(&pairs));
        pairs.sort_by_key(|(name, _)| name.bytes().fold(seed, |hash, b| hash.wrapping_mul(31).rotate_left(7) ^ u64::from(b)));
        prop_assert_eq!(plan(&herd_text(&pairs)), straight);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
        if let Err(error) = herd::parse("f", &text, "demo") {
            prop_assert!(!error.problems.is_empty());
            prop_assert!(error.problems.iter().all(|problem| problem.at.line >= 1), "{}", error);
        }
    }
}

#[test]
fn a_root_of_its_own_is_read_at_any_level_and_pointed_at_when_it_is_wrong() {
    let plan = plan(
        "root: erofs;estive;tmpfs:size=25%\nwords: [debug]\nhosts:\n  a:\n  b: {root: 'nfs:[fd00::1]:/srv;tmpfs', words+: single}\n",
    );
    let words = |number: usize| plan.clones[number].kernel_words();
    assert_eq!(words(0), ["root=erofs;estive;tmpfs:size=25%", "debug"]);
    assert_eq!(
        words(1),
        ["root=nfs:[fd00::1]:/srv;tmpfs", "debug", "single"]
    );
    assert_eq!(
        complaint("hosts:\n  a:\n    root: /dev/vda;tmpsf:size=1m\n"),
        "herd.yaml:3:11: root: no loader \"tmpsf\": there are block, tmpfs, erofs, estive, loop, virtiofs, 9p, nfs, url, livecd, luks, lvm2, md\n  /dev/vda;tmpsf:size=1m\n           ^"
    );
    for (words, what) in [
        ("root=/dev/vda", "written as the key root:"),
        ("init=/x", "written as the key init:"),
        ("'a b'", "a space"),
    ] {
        let complaint = complaint(&format!("words: {words}\nhosts: {{a: }}\n"));
        assert!(complaint.contains(what), "{complaint}");
    }
}

#[test]
fn shared_directories_are_joined_by_place_and_may_come_from_any_server() {
    let read = |text: &str| estive_layers::herd::parse("herd.yaml", text, "d");
    let herd = read(
        "shared: {/home: {}, /data: {from: \"nfs://10.0.0.1:2050/srv/data\"}}\nhosts:\n  a:\n  \
         b: {shared: {/home: none, /opt/tools: }}\n",
    )
    .unwrap();
    let places = |number: usize| -> Vec<(&str, Option<&str>)> {
        let shared = herd.clones[number].shared.iter();
        shared
            .map(|place| (place.at.as_str(), place.from.as_deref()))
            .collect()
    };
    let data = ("/data", Some("nfs:10.0.0.1:/srv/data:port=2050"));
    assert_eq!(places(0), [data, ("/home", None)]);
    assert_eq!(places(1), [data, ("/opt/tools", None)]);
    // The reference's is written by who knows its door.
    let words = herd.clones[0].kernel_words();
    assert_eq!(
        words,
        ["estive.shared=/data=nfs:10.0.0.1:/srv/data:port=2050"]
    );
    for (wrong, says) in [
        ("shared: /home", "mapping"),
        ("shared: {home: {}}", "absolute"),
        ("shared: {/proc: {}}", "belongs to the system"),
        ("shared: {/a: {}, /a/b: {}}", "lie in one another"),
        ("shared: {/a: {form: x}}", "unknown key"),
        ("shared: {/a: {from: \"nfs://server/x\"}}", "in numbers"),
        (
            "shared: {/a: {from: \"nfs://10.0.0.1\"}}",
            "nfs://ADDRESS/PATH",
        ),
        (
            "shared: {/a: {from: \"nfs://10.0.0.1:0/x\"}}",
            "nfs://ADDRESS/PATH",
        ),
        (
            "shared: {/a: {from: \"nfs://10.0.0.1/x:noacl\"}}",
            "nfs://ADDRESS/PATH",
        ),
        ("shared: {/a: yes}", "none"),
        ("words: estive.shared=/a=nfs:b:/c", "key shared"),
    ] {
        let error = read(&format!("{wrong}\nhosts: {{a: }}\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{wrong}: {error}");
    }
}

#[test]
fn a_stateful_clone_has_a_volume_and_a_line_that_names_it() {
    let read = |text: &str| estive_layers::herd::parse("herd.yaml", text, "d");
    let herd = read(
        "mode: stateful\nvolume: {size: 512M}\nhosts:\n  a:\n  b: {mode: stateless}\n  \
         c: {volume: {size: 2G}, root: erofs;estive;tmpfs;serial=estive-volume}\n",
    )
    .unwrap();
    let bytes: Vec<_> = herd.clones.iter().map(|clone| clone.volume_bytes).collect();
    assert_eq!(bytes, [Some(512 << 20), None, Some(2 << 30)]);
    assert_eq!(
        herd.clones[0].kernel_words(),
        ["root=erofs;estive;serial=estive-volume:fs=ext4"]
    );
    assert_eq!(herd.clones[1].kernel_words(), [""; 0]);
    assert_eq!(
        herd.clones[2].kernel_words(),
        ["root=erofs;estive;tmpfs;serial=estive-volume"]
    );
    for (wrong, says) in [
        ("mode: kept", "neither stateless nor stateful"),
        ("mode: stateful\nvolume: {size: 4}", "unit"),
        ("mode: stateful\nvolume: 4G", "mapping"),
        ("mode: stateful\nvolume: {sise: 4G}", "unknown key"),
        ("mode: stateful\nvolume: {size: 1M}", "32M"),
        ("mode: stateful\nroot: erofs;estive;tmpfs", "estive-volume"),
    ] {
        let error = read(&format!("{wrong}\nhosts: {{a: }}\n")).unwrap_err();
        assert!(error.to_string().contains(says), "{wrong}: {error}");
    }
}

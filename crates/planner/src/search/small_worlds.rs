//! Small worlds in which only a chain, or only a group that goes as one, gets anywhere; and what the plan for them is.

use estive_world::{Act, Indexed, Plan, World, text};

use crate::{asked, lint, plan};

/// The plan for a text's world and its only question; every state of it is within the rules.
fn planned(source: &str) -> (World, Plan) {
    let document = text::read(source).unwrap();
    let question = asked(&document).unwrap().remove(0).question;
    let plan = plan(&document.world, &question).unwrap();
    assert_eq!(lint(&document.world, &plan), []);
    (document.world, plan)
}

/// Where each domain is after the plan, in the order of domains.
fn ends(source: &str) -> String {
    let (world, plan) = planned(source);
    let mut hosts: Vec<_> = world.domains.iter().map(|domain| domain.host).collect();
    for step in &plan.steps {
        if let Act::Move { domain, to, .. } | Act::Place { domain, to } = step.act {
            hosts[domain.at()] = Some(to);
        }
    }
    let names = hosts
        .iter()
        .map(|host| host.map_or("-", |host| &world.hosts[host].name));
    names.collect::<Vec<_>>().join(" ")
}

/// `a` may only go to `two`, which is full; its guest only to `three`, which is full; its guest to `four`.
const ROW: &str = "
host one cpus=8c memory=8G
host two cpus=8c memory=8G
host three cpus=8c memory=8G
host four cpus=8c memory=8G
domain a on=one cpus=1c memory=6G
domain b on=two cpus=1c memory=6G
domain c on=three cpus=1c memory=6G
only a on=one,two
only b on=two,three
only c on=three,four
";

#[test]
fn a_guest_leaves_by_a_chain_of_three() {
    assert_eq!(
        ends(&format!("{ROW}ask objective=guests-out(one)")),
        "two three four"
    );
}

#[test]
fn a_chain_keeps_to_the_limit_of_moves() {
    let asked = format!("{ROW}ask objective=guests-out(one) moves=2");
    assert_eq!(ends(&asked), "one two three");
}

#[test]
fn a_chain_of_four_is_found_and_one_of_five_is_not() {
    let longer = |ends: usize| {
        let mut source = String::new();
        for host in 0..=ends {
            source += &format!("host h{host} cpus=8c memory=8G\n");
        }
        for domain in 0..ends {
            source += &format!("domain d{domain} on=h{domain} cpus=1c memory=6G\n");
        }
        for domain in 0..ends {
            source += &format!("only d{domain} on=h{domain},h{}\n", domain + 1);
        }
        source + "ask objective=guests-out(h0)"
    };
    assert_eq!(ends(&longer(4)), "h1 h2 h3 h4");
    assert_eq!(ends(&longer(5)), "h0 h1 h2 h3 h4");
}

#[test]
fn a_chain_mends_what_no_move_and_no_swap_can() {
    // The first host goes out of service; the only other that its guest may come to is full.
    let source = "
host one cpus=8c memory=8G maintenance
host two cpus=8c memory=8G
host three cpus=8c memory=8G
domain a on=one cpus=1c memory=6G
domain b on=two cpus=1c memory=6G
only a on=one,two
ask objective=balance
";
    assert_eq!(ends(source), "two three");
}

#[test]
fn who_must_be_apart_is_pushed_out_too() {
    // There is room, but b is in the way.
    let source = "
host one cpus=8c memory=32G
host two cpus=8c memory=32G
host three cpus=8c memory=32G
domain a on=one cpus=1c memory=2G
domain b on=two cpus=1c memory=2G
only a on=one,two
apart a b
ask objective=guests-out(one)
";
    let found = ends(source);
    assert!(
        found.starts_with("two ") && !found.ends_with("two"),
        "{found}"
    );
}

#[test]
fn three_change_places_in_a_ring() {
    // Each may only be on two hosts, so that no two of them can change places; the large one is on the small host.
    let source = "
host large cpus=8c memory=24G
host middle cpus=4c memory=24G
host small cpus=2c memory=24G
domain x on=large cpus=1c memory=8G uses-cpu=2c
domain y on=middle cpus=1c memory=8G uses-cpu=1c
domain z on=small cpus=1c memory=8G uses-cpu=1.9c
only x on=large,middle
only y on=middle,small
only z on=small,large
ask objective=balance
";
    let (_, plan) = planned(source);
    assert!(plan.report.after < plan.report.before);
}

const PAIR: &str = "
host one cpus=8c memory=16G
host two cpus=8c memory=16G
host three cpus=8c memory=16G
domain a on=one cpus=1c memory=5G uses-cpu=2c
domain b on=one cpus=1c memory=5G uses-cpu=2c
together a b
";

#[test]
fn a_group_leaves_a_host_that_is_to_be_emptied() {
    let found = ends(&format!("{PAIR}ask objective=guests-out(one)"));
    assert!(found == "two two" || found == "three three", "{found}");
}

#[test]
fn a_group_leaves_a_host_out_of_service() {
    let source = PAIR.replace("host one cpus=8c", "host one maintenance cpus=8c");
    let found = ends(&format!("{source}ask objective=balance"));
    assert!(found == "two two" || found == "three three", "{found}");
}

#[test]
fn a_group_goes_only_where_all_of_it_has_room() {
    let source = format!("{PAIR}domain c on=two cpus=1c memory=8G\nask objective=guests-out(one)");
    assert_eq!(ends(&source), "three three two");
}

#[test]
fn a_group_moves_whole_or_not_at_all_within_the_limit_of_moves() {
    let source = format!("{PAIR}ask objective=guests-out(one) moves=1");
    assert_eq!(ends(&source), "one one");
}

#[test]
fn a_group_with_one_that_is_pinned_stays() {
    let source = PAIR.replace("domain b on=one", "domain b pinned on=one");
    assert_eq!(
        ends(&format!("{source}ask objective=guests-out(one)")),
        "one one"
    );
}

#[test]
fn a_group_pushes_out_who_is_in_its_way() {
    let source = "
host one cpus=8c memory=16G
host two cpus=8c memory=16G
host three cpus=8c memory=16G
domain a on=one cpus=1c memory=5G
domain b on=one cpus=1c memory=5G
domain c on=two cpus=1c memory=8G
together a b
only a on=one,two
ask objective=guests-out(one)
";
    assert_eq!(ends(source), "two two three");
}

#[test]
fn a_group_is_moved_where_a_host_is_emptied_to_be_switched_off() {
    let source = "
host one cpus=8c memory=16G watts=100,120
host two cpus=8c memory=16G watts=100,120
domain a on=one cpus=1c memory=2G
domain b on=one cpus=1c memory=2G
domain c on=two cpus=1c memory=9G
together a b
ask objective=consolidate(spare=0%)
";
    let (world, plan) = planned(source);
    let off = plan.steps.iter().find_map(|step| match step.act {
        Act::SwitchOff { host } => Some(world.hosts[host].name.clone()),
        _ => None,
    });
    assert!(off.is_some(), "{:?}", plan.steps);
}

#[test]
fn a_group_of_a_site_goes_to_another_site_as_one() {
    let source = "
site here rate=1Gb/s
site there rate=1Gb/s
link here there rate=1Gb/s
host one site=here cpus=8c memory=16G
host two site=there cpus=8c memory=8G
host three site=there cpus=8c memory=8G
domain a on=one cpus=1c memory=6G
domain b on=one cpus=1c memory=6G
together a b in=site
ask objective=guests-out(one)
";
    let found = ends(source);
    assert!(found == "two three" || found == "three two", "{found}");
}

#[test]
fn a_plan_says_what_shorter_ones_would_reach() {
    let mut source = "host a cpus=8c memory=32G\nhost b cpus=8c memory=32G\n".to_owned();
    for domain in 0..8 {
        source += &format!("domain d{domain} on=a cpus=1c memory=1G uses-cpu=0.5c\n");
    }
    let (_, plan) = planned(&format!("{source}ask objective=balance"));
    assert_eq!(plan.steps.len(), 4);
    let told = &plan.report.alternatives;
    assert_eq!(
        told.iter().map(|one| one.moves).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let mut last = plan.report.before;
    for one in told {
        assert!(one.value < last && one.value > plan.report.after);
        assert!(one.bytes > 0 && one.bytes < plan.report.bytes);
        last = one.value;
    }
}

#[test]
fn a_plan_of_nothing_says_which_moves_came_nearest() {
    let source = "
host a cpus=8c memory=32G
host b cpus=8c memory=32G
domain large on=a cpus=1c memory=8G uses-cpu=2c
domain small on=a cpus=1c memory=8G uses-cpu=1c
ask objective=balance moves=0
";
    let (_, plan) = planned(source);
    assert_eq!(plan.steps, []);
    let told: Vec<&str> = (plan.report.alternatives.iter())
        .map(|one| &*one.what)
        .collect();
    assert_eq!(told, ["large to b", "small to b"]);
    assert!(plan.report.alternatives[0].value < plan.report.before);
}

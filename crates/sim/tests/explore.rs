//! The machine of `estive-moves`, explored.

use estive_sim::{Bounds, Report, Rules, World, explore};

fn say(name: &str, report: &Report, started: std::time::Instant) {
    println!(
        "{name}: {} states, {} transitions, {} rested from, depth {}, {} messages, cut {}, {:.1} s",
        report.states, report.transitions, report.rested, report.depth, report.messages, report.cut,
        started.elapsed().as_secs_f64()
    );
    if let Some(trace) = &report.broken {
        println!("{trace}");
    }
}

fn go(name: &str, running: bool, bounds: Bounds) {
    let started = std::time::Instant::now();
    let report = explore(&World::new(running, &bounds), &Rules::default(), &bounds);
    say(name, &report, started);
    assert!(report.broken.is_none());
}

#[test]
fn first() {
    go("first", true, Bounds::default());
}
#[test]
fn post() {
    go("post", true, Bounds { post_copy: true, ..Bounds::default() });
}
#[test]
fn two() {
    go("two", true, Bounds { grants: 2, crashes: [0, 0], deaths: 0, give_up: false, ..Bounds::default() });
}
#[test]
fn starts() {
    go("starts", false, Bounds { grants: 2, crashes: [1, 0], deaths: 0, give_up: false, starts: true, ..Bounds::default() });
}
#[test]
fn unclear() {
    go("unclear", true, Bounds { unclear: true, looks: true, ..Bounds::default() });
}
#[test]
fn two_crash() {
    go("two crash", true, Bounds { grants: 2, crashes: [1, 1], deaths: 0, give_up: false, switching: false, ..Bounds::default() });
}
#[test]
fn two_death() {
    go("two death", true, Bounds { grants: 2, crashes: [0, 0], deaths: 1, give_up: true, switching: false, ..Bounds::default() });
}
#[test]
fn starts_two() {
    go("starts two", true, Bounds { grants: 2, crashes: [1, 1], deaths: 1, give_up: false, starts: true, switching: false, ..Bounds::default() });
}
#[test]
fn post_unclear() {
    go("post unclear", true, Bounds { post_copy: true, unclear: true, looks: true, crashes: [1,1], deaths: 0, give_up: false, ..Bounds::default() });
}
#[test]
fn crashes_two() {
    go("crashes", true, Bounds { crashes: [3,3], deaths: 2, ..Bounds::default() });
}

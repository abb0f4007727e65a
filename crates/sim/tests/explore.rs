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

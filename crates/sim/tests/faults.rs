//! Kills at every named step, and random walks.

use estive_sim::{Rules, Scenario, pairs, table, walk};

#[test]
fn every_step_of_every_scenario_survives_every_kill() {
    let rules = Rules::default();
    for scenario in Scenario::ALL {
        println!("{scenario:?}:");
        for (number, step) in scenario.steps(&rules).unwrap().iter().enumerate() {
            println!("  {number:2} {}: {}", step.process, step.name);
        }
    }
    let tally = table(&rules).unwrap();
    println!("{tally}{} cases", tally.cases());
    assert!(
        tally.failures.is_empty(),
        "{} of {} cases failed:\n{}",
        tally.failures.len(),
        tally.cases(),
        tally
            .failures
            .iter()
            .take(5)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n\n")
    );
}

#[test]
fn every_pair_of_kills_in_a_move_is_survived() {
    for scenario in [Scenario::Move, Scenario::PostCopy] {
        let tally = pairs(&Rules::default(), scenario).unwrap();
        println!("{tally}{} cases", tally.cases());
        assert!(
            tally.failures.is_empty(),
            "{} of {} cases failed:\n{}",
            tally.failures.len(),
            tally.cases(),
            tally
                .failures
                .iter()
                .take(5)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n\n")
        );
    }
}

/// `ESTIVE_SEED=n` replays one walk and prints it; `ESTIVE_WALKS=n` walks more often than 10,000 times.
#[test]
fn random_walks_end_well() {
    const STEPS: usize = 150;
    let rules = Rules::default();
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|given| given.parse::<u64>().expect("a number"))
    };
    let walks = number("ESTIVE_WALKS").unwrap_or(10_000);
    if let Some(seed) = number("ESTIVE_SEED") {
        let walked = walk(seed, STEPS, &rules, true);
        println!("{}", walked.steps.join("\n"));
        assert!(walked.broken.is_none(), "seed {seed}: {:?}", walked.broken);
        return;
    }
    let first = 20_260_000;
    let (mut happened, mut run_on_b) = (0, 0);
    for seed in first..first + walks {
        let walked = walk(seed, STEPS, &rules, false);
        happened += walked.happened;
        run_on_b += usize::from(walked.runs_on == Some(estive_sim::Host::B));
        if let Some(violation) = walked.broken {
            panic!(
                "ESTIVE_SEED={seed} replays it: {:?}: {}",
                violation.broken, violation.words
            );
        }
    }
    println!(
        "seeds {first}..{}: {happened} steps, {run_on_b} ended on B",
        first + walks
    );
    assert!(
        run_on_b > 100,
        "the walks hardly ever moved anything: {run_on_b}"
    );
}

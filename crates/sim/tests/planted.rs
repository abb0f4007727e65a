//! Bugs planted in the rules, each of which the exploration must find. It is no proof of anything if it finds none.

use estive_moves::{
    Decision, Effect, Entry, Holding, HostView, Input, Ownership, Seen, decide, step,
};
use estive_sim::{Bounds, Broken, Host, Process, Rules, Trace, World, explore, table};

fn finds(name: &str, rules: Rules, only: Option<Broken>) -> Trace {
    let bounds = Bounds {
        only,
        // What is broken in the world itself is traced through what happens in it.
        liveness: only.is_none_or(|only| only == Broken::Stuck),
        ..Bounds::default()
    };
    let report = explore(&World::new(true, &bounds), &rules, &bounds);
    let trace = report
        .broken
        .unwrap_or_else(|| panic!("{name}: not found in {} states", report.states));
    println!("{name}, found after {} states:\n{trace}", report.states);
    trace
}

/// The source starts its processors again after it has released the domain.
fn resumes_after_release(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    match (entry.holding, input) {
        (Holding::Released(_), Input::Restarted) => vec![Effect::Resume],
        _ => step(entry, seen, input),
    }
}

#[test]
fn a_source_that_resumes_after_release_makes_it_run_twice() {
    let rules = Rules {
        step: resumes_after_release,
        ..Rules::default()
    };
    let trace = finds("resumes after release", rules, Some(Broken::Twice));
    assert_eq!(trace.violation.broken, Broken::Twice);
    // The trace is one that people can follow: the release, the crash, the restart, and both running.
    let words: Vec<&str> = trace
        .steps
        .iter()
        .map(|(words, _)| words.as_str())
        .collect();
    let at = |what: &str| {
        words
            .iter()
            .position(|words| words.contains(what))
            .unwrap_or_else(|| panic!("no step says {what:?}: {words:#?}"))
    };
    assert!(at("agent A: write released(2)") < at("agent A dies"));
    assert!(at("agent A dies") < at("agent A is started again"));
    let (_, last) = trace.steps.last().expect("a trace has steps");
    assert!(Host::BOTH.iter().all(|host| last.at(*host).life.runs()));

    // With every rule checked the first wrong step is found before it comes to that.
    let first = finds("resumes after release, first wrong step", rules, None);
    assert_eq!(first.violation.broken, Broken::RunsUnheld);
    assert!(first.steps.len() < trace.steps.len());
}

/// The commit leaves before the release is on disk.
fn commits_before_release(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let mut effects = step(entry, seen, input);
    if let [Effect::Persist(_), Effect::SendCommit(_)] = effects[..] {
        effects.swap(0, 1);
    }
    effects
}

#[test]
fn a_commit_that_leaves_before_the_release_is_on_disk_makes_it_run_twice() {
    let rules = Rules {
        step: commits_before_release,
        ..Rules::default()
    };
    let trace = finds("commit before release", rules, Some(Broken::Twice));
    assert_eq!(trace.violation.broken, Broken::Twice);
}

#[test]
fn a_destination_that_runs_by_itself_makes_it_run_twice() {
    let rules = Rules {
        runs_by_itself: true,
        ..Rules::default()
    };
    let trace = finds("runs by itself", rules, Some(Broken::Twice));
    assert_eq!(trace.violation.broken, Broken::Twice);
}

/// The manager ends a move by itself when somebody gives it up.
fn discards_unasked(record: &Ownership<Host>, source: HostView, destination: HostView) -> Decision {
    match &record.moving {
        Some(pending) if pending.give_up => Decision::Stay(pending.grant.generation),
        _ => decide(record, source, destination),
    }
}

#[test]
fn a_manager_that_discards_without_the_sources_word_loses_the_guest() {
    let rules = Rules {
        decide: discards_unasked,
        ..Rules::default()
    };
    let trace = finds("discards unasked", rules, Some(Broken::LostByRules));
    assert_eq!(trace.violation.broken, Broken::LostByRules);
}

/// An abort before the stream is answered, and forgotten.
fn forgets_aborts(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    match (entry.holding, input) {
        (Holding::Running, Input::Abort(_)) => vec![],
        _ => step(entry, seen, input),
    }
}

/// The manager takes the answer for the journal.
fn trusts_aborts(record: &Ownership<Host>, source: HostView, destination: HostView) -> Decision {
    match (decide(record, source, destination), source) {
        (Decision::Abort(generation), HostView::Says(entry, _))
            if entry.holding == Holding::Running =>
        {
            Decision::Stay(generation)
        }
        (decision, _) => decision,
    }
}

#[test]
fn an_abort_that_is_answered_but_not_written_down_is_found() {
    let rules = Rules {
        step: forgets_aborts,
        decide: trusts_aborts,
        ..Rules::default()
    };
    let trace = finds("floor not raised", rules, Some(Broken::Stuck));
    assert_eq!(trace.violation.broken, Broken::Stuck);
    assert!(
        trace
            .steps
            .iter()
            .any(|(words, _)| words.contains("write outgoing(2)")),
        "{trace}"
    );
}

/// Processors are started without the storage's word that older exports are gone.
fn no_fence(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let mut effects = step(entry, seen, input);
    effects.retain(|effect| !matches!(effect, Effect::Fence(_)));
    effects
}

#[test]
fn a_destination_that_does_not_fence_runs_while_the_source_can_write() {
    let rules = Rules {
        step: no_fence,
        ..Rules::default()
    };
    let trace = finds("no fence", rules, None);
    assert_eq!(trace.violation.broken, Broken::Unfenced);
}

/// Only a crash shows it: who comes back and finds it loaded starts it at once.
fn no_fence_after_a_restart(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let mut effects = step(entry, seen, input);
    if input == Input::Restarted {
        effects.retain(|effect| !matches!(effect, Effect::Fence(_)));
    }
    effects
}

#[test]
fn an_agent_that_comes_back_and_does_not_fence_is_found() {
    let rules = Rules {
        step: no_fence_after_a_restart,
        ..Rules::default()
    };
    let trace = finds("no fence after a restart", rules, None);
    assert_eq!(trace.violation.broken, Broken::Unfenced);
}

/// The destination fences as soon as it stands ready: the guest still runs on the source.
fn fences_at_prepare(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let mut effects = step(entry, seen, input);
    if let Input::Prepare(grant) = input
        && effects
            .iter()
            .any(|effect| matches!(effect, Effect::CreateIncoming(_)))
    {
        effects.push(Effect::Fence(grant.generation));
    }
    effects
}

#[test]
fn a_fence_before_the_release_cuts_the_guest_off() {
    let rules = Rules {
        step: fences_at_prepare,
        ..Rules::default()
    };
    let trace = finds("fence at prepare", rules, None);
    assert_eq!(trace.violation.broken, Broken::CutOff);
}

fn finds_when_made_anew(name: &str, rules: Rules) -> Trace {
    let bounds = Bounds {
        grants: 3,
        crashes: [1, 0],
        deaths: 0,
        starts: true,
        defines: true,
        give_up: false,
        switching: false,
        unclear: true,
        liveness: false,
        ..Bounds::default()
    };
    let report = explore(&World::new(true, &bounds), &rules, &bounds);
    let trace = report
        .broken
        .unwrap_or_else(|| panic!("{name}: not found in {} states", report.states));
    println!("{name}, found after {} states:\n{trace}", report.states);
    trace
}

/// What is written as stopped is taken to be gone: an agent that died between "stopped" and the kill has left it.
fn leaves_what_stands(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let mut effects = step(entry, seen, input);
    if matches!(input, Input::Define(_)) {
        effects.retain(|effect| *effect != Effect::Kill);
    }
    effects
}

#[test]
fn files_replaced_under_an_instance_that_was_left_are_found() {
    let rules = Rules {
        step: leaves_what_stands,
        ..Rules::default()
    };
    let trace = finds_when_made_anew("leaves what stands", rules);
    assert_eq!(trace.violation.broken, Broken::ReplacedUnderIt);
}

/// A stopped one takes whatever comes, also what was sent before it last ran.
fn takes_late_definitions(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    match (entry.holding, input) {
        (Holding::Stopped, Input::Define(generation)) => vec![
            Effect::Kill,
            Effect::Persist(Entry {
                generation,
                ..*entry
            }),
        ],
        _ => step(entry, seen, input),
    }
}

#[test]
fn a_definition_that_comes_late_and_is_taken_is_found() {
    let rules = Rules {
        step: takes_late_definitions,
        ..Rules::default()
    };
    let trace = finds_when_made_anew("takes late definitions", rules);
    assert_eq!(trace.violation.broken, Broken::WentBack);
}

/// A storage that does not answer is taken for one that has nothing to cut.
fn forgets_a_silent_storage(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    match input {
        Input::Restarted if entry.holding == Holding::Running => vec![],
        _ => step(entry, seen, input),
    }
}

#[test]
fn a_silent_storage_that_is_not_asked_again_leaves_it_halted() {
    let rules = Rules {
        step: forgets_a_silent_storage,
        ..Rules::default()
    };
    // Nobody crashes: it can only be the storage.
    let bounds = Bounds {
        starts: true,
        crashes: [0, 0],
        deaths: 0,
        only: Some(Broken::Stuck),
        ..Bounds::default()
    };
    let report = explore(&World::new(false, &bounds), &rules, &bounds);
    let trace = report.broken.expect("a start whose fence failed is found");
    assert_eq!(trace.violation.broken, Broken::Stuck);
}

fn finds_a_second_restore(name: &str, rules: Rules) {
    let bounds = Bounds {
        grants: 3,
        crashes: [1, 0],
        deaths: 0,
        moves: false,
        saves: true,
        starts: true,
        give_up: false,
        switching: false,
        liveness: false,
        only: Some(Broken::RestoredTwice),
        ..Bounds::default()
    };
    let report = explore(&World::new(true, &bounds), &rules, &bounds);
    let trace = report
        .broken
        .unwrap_or_else(|| panic!("{name}: not found in {} states", report.states));
    println!("{name}, found after {} states:\n{trace}", report.states);
}

/// What was saved is kept until the guest was seen to run.
fn runs_before_it_is_written(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let mut effects = step(entry, seen, input);
    let written = effects.iter().position(
        |effect| matches!(effect, Effect::Persist(entry) if entry.holding == Holding::Running),
    );
    if let (Some(at), Holding::Saved | Holding::Restoring) = (written, entry.holding)
        && effects.get(at + 1) == Some(&Effect::Resume)
    {
        effects.swap(at, at + 1);
    }
    effects
}

#[test]
fn processors_that_start_before_it_is_written_run_twice_from_what_was_saved() {
    let rules = Rules {
        step: runs_before_it_is_written,
        ..Rules::default()
    };
    finds_a_second_restore("runs before it is written", rules);
}

/// A start leaves what was saved for later.
fn starts_beside_what_was_saved(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    match (entry.holding, input) {
        (Holding::Saved, Input::Start(_)) => step(&entry.holding(Holding::Stopped), seen, input),
        (Holding::Stopped, Input::Restore(_)) => step(&entry.holding(Holding::Saved), seen, input),
        _ => step(entry, seen, input),
    }
}

#[test]
fn a_start_that_leaves_what_was_saved_for_later_is_found() {
    let rules = Rules {
        step: starts_beside_what_was_saved,
        ..Rules::default()
    };
    finds_a_second_restore("starts beside it", rules);
}

#[test]
fn a_grant_taken_back_after_it_is_written_is_left_by_a_manager_that_dies_between() {
    let rules = Rules {
        revokes_late: true,
        ..Rules::default()
    };
    let tally = table(&rules).unwrap();
    let left = tally
        .failures
        .iter()
        .filter(|failure| failure.contains("GrantLeft"));
    let (killed, others): (Vec<_>, Vec<_>) =
        left.partition(|failure| failure.contains(&format!("{} killed", Process::Manager)));
    assert!(
        !killed.is_empty() && others.is_empty(),
        "{killed:?} {others:?}"
    );
}

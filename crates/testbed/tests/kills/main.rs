//! Never twice: each process is killed at each named step of start, stop and migrate, on a real guest.
//!
//! A witness at the switch's ports hears the guest's numbered beats all the time. Nobody but the test restarts anything.
//! After each case the domain runs once or not at all, `estive show` says so, and the next `estive migrate` works.
//! Which cases there are stands in `cases`, how one is played in `field`.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod field;

use std::time::Instant;

use field::Field;

#[test]
fn whatever_is_killed_a_domain_never_runs_twice() {
    common::on_guests("inside_kills");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_kills() {
    // A part of them, when one is looked into.
    let wanted = std::env::var("ESTIVE_KILLS").unwrap_or_default();
    let all = cases::all();
    let chosen: Vec<_> = all
        .iter()
        .filter(|case| case.to_string().contains(&wanted))
        .collect();
    let mut field = Field::start().await;
    let mut failed = Vec::new();
    for (index, case) in chosen.iter().enumerate() {
        let began = Instant::now();
        let verdict = field.play(case).await;
        let said = match &verdict {
            Ok(()) => format!("so it is: {}", case.ends),
            Err(why) => format!("NOT SO: {why}"),
        };
        println!(
            "case {:>2} of {}, {:>4.1} s: {case}; {said}",
            index + 1,
            chosen.len(),
            began.elapsed().as_secs_f64()
        );
        if let Err(why) = verdict {
            failed.push(format!("{case}: {why}"));
            if let Err(why) = field.recover().await {
                failed.push(format!(
                    "the cases after that were not played, since it could not be put right: {why}"
                ));
                break;
            }
        }
    }
    if failed.is_empty() && wanted.is_empty() {
        field.assert_seen();
    }
    assert!(
        failed.is_empty(),
        "{} cases failed:\n  {}",
        failed.len(),
        failed.join("\n  ")
    );
    field.stop().await;
}

//! Fault points: named steps at which a test kills a process. Nothing happens unless `ESTIVE_FAULT` is set.
//!
//! `ESTIVE_FAULT=move.released:before` makes the process end itself by SIGKILL just before that step;
//! `ESTIVE_FAULT=move.released:after:2` just after its second passage. Kept in release builds on purpose: what is
//! tested is what runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Fault {
    point: String,
    after: bool,
    passage: u64,
    passed: AtomicU64,
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

fn parse(text: &str) -> Option<Fault> {
    let mut parts = text.split(':');
    let point = parts.next()?.to_owned();
    let after = match parts.next()? {
        "before" => false,
        "after" => true,
        _ => return None,
    };
    let passage = parts.next().map_or(Some(1), |count| count.parse().ok())?;
    Some(Fault {
        point,
        after,
        passage,
        passed: AtomicU64::new(0),
    })
}

fn reach(point: &str, after: bool) {
    let fault = FAULT.get_or_init(|| {
        std::env::var("ESTIVE_FAULT")
            .ok()
            .and_then(|text| parse(&text))
    });
    let Some(fault) = fault else { return };
    if fault.point == point
        && fault.after == after
        && fault.passed.fetch_add(1, Ordering::SeqCst) + 1 == fault.passage
    {
        eprintln!("fault point {point} reached: ending by SIGKILL");
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Call just before the named step is done.
pub fn before(point: &str) {
    reach(point, false);
}

/// Call just after the named step is done.
pub fn after(point: &str) {
    reach(point, true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_point_its_side_and_its_passage() {
        let fault = parse("move.released:after:2").unwrap();
        assert_eq!(
            (fault.point.as_str(), fault.after, fault.passage),
            ("move.released", true, 2)
        );
        assert!(!parse("move.released:before").unwrap().after);
        assert!(parse("move.released").is_none());
        assert!(parse("x:sometime").is_none());
    }
}

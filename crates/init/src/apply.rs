//! `estive-init apply`: lays a new layer over a clone that runs, through its merged root.
//!
//! The guest agent runs it, with the layer's archive on standard input; the report goes to standard
//! output. Every file is made aside and renamed; what the clone has made its own is left and said.
//! A push that is killed at any step is made good by the next one.
//!
//! The same rule is meant for clones with a state, by PID 1 at their start: current, recorded and
//! wanted are then the state's, the record's and the new layer's.

mod fault;
mod layer;
mod node;
mod own_agent;
mod plan;
mod record;
mod services;
mod tree;
mod write;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use estive_archive::LAYER_DISK_BYTES;
use estive_boot::push::{DRY_RUN_WORD, PushReport, WhyLeft};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::{Failure, Result, While, fail};
use layer::Layer;
use plan::{Act, How, Plan, Planner, UNIONS};
use record::Record;
use services::Due;
use tree::Tree;
use write::Writer;

/// The trees of a clone, and what to do with them. Others than its own are for tests.
struct Order {
    merged: PathBuf,
    layer: PathBuf,
    root: PathBuf,
    dry_run: bool,
}

/// The mode of the program; `arguments` follow its word.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    if arguments
        .next_if(|word| word == own_agent::LATER_WORD)
        .is_some()
    {
        return match own_agent::tell_later(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure(error)) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    match read_order(arguments).and_then(|order| apply(&order)) {
        Ok(report) => match writeln!(std::io::stdout(), "{}", report.to_json()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(Failure(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn read_order(mut arguments: impl Iterator<Item = OsString>) -> Result<Order> {
    let mut order = Order {
        merged: "/".into(),
        layer: "/.unions/layer".into(),
        root: "/.unions/root".into(),
        dry_run: false,
    };
    while let Some(word) = arguments.next() {
        let tree = match word.to_str() {
            Some(DRY_RUN_WORD) => {
                order.dry_run = true;
                continue;
            }
            Some("--merged") => &mut order.merged,
            Some("--layer") => &mut order.layer,
            Some("--root") => &mut order.root,
            _ => return fail(format!("{word:?} is not understood here")),
        };
        *tree = match arguments.next() {
            Some(path) => path.into(),
            None => return fail(format!("{word:?} needs a directory")),
        };
    }
    Ok(order)
}

fn apply(order: &Order) -> Result<PushReport> {
    let archive = read_archive()?;
    let layer = Layer::read(&archive)?;
    let unions = order.merged.join(UNIONS);
    let open = |path| Tree::open(path).map(|tree| tree.within_limits_of(&unions));
    let (merged, root) = (open(&order.merged)?, open(&order.root)?);
    let boot_layer = open(&order.layer)?;
    layer.check_over(&root)?;

    let lock = std::fs::File::open(&unions).doing(|| format!("opening {}", unions.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return fail("another push to this clone is under way"),
        Err(errno) => return fail(format!("locking {}: {errno}", unions.display())),
    }
    let record = Record::load(&unions, &boot_layer)?;
    let plan = Planner::new(&layer, &record, &root, &merged).plan();
    let mut due = record.due.clone();
    for act in &plan.acts {
        due.add(&act.path, &layer.services);
    }
    if order.dry_run {
        return Ok(foretell(plan, &due));
    }
    if plan.acts.is_empty() && due.is_empty() {
        let next = Record::new(plan.put);
        if next != record {
            next.keep(&unions)?;
        }
        return Ok(plan.report);
    }
    let writer = Writer::new(&merged, &root)?;
    let under_way = under_way(record, &plan.acts, due);
    under_way.keep(&unions)?;
    let Plan {
        acts,
        mut report,
        put,
    } = plan;
    let mut next = Record::new(put);
    for act in &acts {
        carry_out(act, &writer, &mut next, &mut report);
    }
    // Only what was changed is told; what a killed push had changed is told too.
    next.due = under_way.due;
    next.keep(&unions)?;
    if !next.due.is_empty() {
        fault::step();
        report.services = next.due.tell(&unions);
        next.due = Due::default();
        next.keep(&unions)?;
    }
    Ok(report)
}

fn read_archive() -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    std::io::stdin()
        .take(LAYER_DISK_BYTES + 1)
        .read_to_end(&mut archive)
        .doing(|| "reading the layer from standard input".into())?;
    match archive.len() as u64 > LAYER_DISK_BYTES {
        true => fail(format!("the layer has more than {LAYER_DISK_BYTES} bytes")),
        false => Ok(archive),
    }
}

/// The record of a push that has not come to its end: each path as it stands, and as this push may put it instead. A
/// push that was killed before may have put a third thing there, which is the one that stands.
fn under_way(record: Record, acts: &[Act], due: Due) -> Record {
    let mut under_way = Record { due, ..record };
    for act in acts {
        let (path, becomes) = (act.path.clone(), act.becomes.print());
        under_way.put.insert(path.clone(), act.stays.clone());
        under_way.intended.insert(path, becomes);
    }
    under_way
}

fn carry_out(act: &Act, writer: &Writer, next: &mut Record, report: &mut PushReport) {
    let put = match writer.act(act) {
        Ok(()) => {
            match act.how {
                How::Remove => report.add_removed(&act.path),
                _ => report.add_written(&act.path),
            }
            act.put.clone()
        }
        Err(Failure(reason)) => {
            report.add_left(&act.path, WhyLeft::Failed, &reason);
            Some(act.stays.clone())
        }
    };
    if let Some(put) = put {
        next.put.insert(act.path.clone(), put);
    }
}

fn foretell(plan: Plan, due: &Due) -> PushReport {
    let mut report = plan.report;
    for act in &plan.acts {
        match act.how {
            How::Remove => report.add_removed(&act.path),
            _ => report.add_written(&act.path),
        }
    }
    report.services = due.foretell();
    report
}

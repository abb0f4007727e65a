//! `md`: arrays of software RAID, put together by the reference's mdadm.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_boot::loaders::md::{Array, Options};
use estive_boot::md_scan::{Found, scan};
use estive_boot::programs::MDADM;

use super::{Context, Given};
use crate::console::{say, uptime_ms};
use crate::failure::{Result, While, fail};
use crate::programs::{Output, Run};

const BOUND_S: u64 = 60;
/// Between two looks for members that are not there yet.
const POLL: Duration = Duration::from_millis(200);

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    let found = wait_for_members(options, context)?;
    let mut devices = Vec::new();
    for (array, found) in options.arrays.iter().zip(&found) {
        devices.push(start(array, found, options.degraded, context)?);
    }
    Ok(match <[PathBuf; 1]>::try_from(devices) {
        Ok([device]) => Given::Device(device),
        Err(devices) => Given::Devices(devices),
    })
}

/// What the disks say of each array, when all have their members; else when they have been waited for.
fn wait_for_members(options: &Options, context: &Context) -> Result<Vec<Found>> {
    let deadline_ms = uptime_ms() + u64::from(context.line.wait_s) * 1000;
    loop {
        let output = mdadm(&["--examine", "--scan", "--verbose", "--config=partitions"])
            .doing(|| "looking for arrays on the disks".into())?;
        let all = scan(&output.stdout);
        let named = |array: &Array| all.iter().find(|found| found.is(array)).cloned();
        let found: Vec<Option<Found>> = options.arrays.iter().map(named).collect();
        let is_whole = |found: &Option<Found>| found.as_ref().is_some_and(Found::is_whole);
        let all_whole = found.iter().all(is_whole);
        if !all_whole && uptime_ms() < deadline_ms {
            std::thread::sleep(POLL);
            continue;
        }
        let missing = options
            .arrays
            .iter()
            .zip(&found)
            .find(|(_, found)| found.is_none());
        if let Some((array, _)) = missing {
            let names: Vec<String> = all.iter().map(Found::to_string).collect();
            let known = match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            };
            return fail(format!(
                "no disk says that it belongs to {} (arrays found: {known}): is the name that which mdadm --examine shows? {}= waits longer",
                array.node(),
                estive_boot::WAIT_WORD
            ));
        }
        return Ok(found.into_iter().flatten().collect());
    }
}

fn start(array: &Array, found: &Found, degraded: bool, context: &Context) -> Result<PathBuf> {
    // The kernel would call modprobe for the array's level, and there is none.
    context.modules.load_if_there(&[found.module()])?;
    let node = array.node();
    let uuid = format!("--uuid={}", found.uuid);
    let mut words = vec!["--assemble", "--config=none", &uuid];
    if degraded {
        words.push("--run");
    }
    if !context.wants_writing() {
        words.push("--readonly");
    }
    words.push(&node);
    words.extend(found.members.iter().map(String::as_str));
    let output = mdadm(&words).doing(|| format!("putting {node} together"))?;
    let name = fs::canonicalize(&node).ok();
    let state = |attribute: &str| {
        let name = name.as_deref().and_then(Path::file_name)?;
        let path = Path::new("/sys/class/block")
            .join(name)
            .join("md")
            .join(attribute);
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    };
    let runs =
        state("array_state").is_some_and(|state| !["inactive", "clear"].contains(&state.as_str()));
    if !runs {
        let hint = match found.is_whole() || degraded {
            true => String::new(),
            false => format!(
                "; {} of its {} disks are there: write degraded to start it without",
                found.members.len(),
                found.disks
            ),
        };
        return fail(format!(
            "{node} did not start: mdadm said ({}): {}{hint}",
            output.status,
            output.complaint()
        ));
    }
    if let Some(missing) = state("degraded").filter(|missing| missing != "0") {
        say(&format!(
            "{node} runs degraded: {missing} of its {} disks missing",
            found.disks
        ));
    }
    Ok(node.into())
}

fn mdadm(words: &[&str]) -> Result<Output> {
    let arguments: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    let run = Run {
        program: MDADM,
        arguments: &arguments,
        input: b"",
        bound_s: BOUND_S,
    };
    run.output()
}

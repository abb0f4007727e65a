//! What a herd file's clones are held against before anything is made. Pure.

use crate::records::DomainRecord;
use estive_api::Problem;
use estive_layers::{ClonePlan, UpCheck};
use estive_model::DeploymentName;

/// What counts as answering: the herd file's word, else what the template sets bring.
pub(crate) fn checks_of(clone: &ClonePlan, sets: &[String]) -> Vec<UpCheck> {
    if !clone.up_checks.is_empty() {
        return clone.up_checks.clone();
    }
    match sets {
        [] => vec![UpCheck::Ping],
        sets if sets.iter().any(|set| set == "web") => vec![UpCheck::Http, UpCheck::Ssh],
        _ => vec![UpCheck::Ssh],
    }
}

/// What the herd file adds to the clone's command line: `init:`, `root:`, `words:` and `shared:`. Of a plan that no reference has
/// been fitted to.
pub(crate) fn words_of(plan: &ClonePlan) -> Vec<String> {
    let init = plan.init.iter().map(|init| format!("init={init}"));
    let shared = plan.shared.iter().filter(|place| place.from.is_none());
    let shared = shared.map(|place| format!("shared={}", place.at));
    init.chain(plan.kernel_words()).chain(shared).collect()
}

/// A clone that is there already must be as the herd file says: `up` starts it, it does not make it anew.
pub(crate) fn check_same(
    deployment: &DeploymentName,
    plan: &ClonePlan,
    wanted_words: &[String],
    record: &DomainRecord,
) -> Result<(), Problem> {
    if record.deployment.as_ref() != Some(deployment) {
        return Err(Problem::impossible(format!(
            "there is a domain {} already, {}",
            plan.name,
            record.of_whom()
        ))
        .advice("give this herd's clones other names, or remove that one first"));
    }
    let address = plan.address.to_string();
    // Records of before do not say it.
    let words = record.words.as_deref().unwrap_or(wanted_words);
    let differences: Vec<String> = [
        (
            "memory_mib",
            record.memory_mib.to_string(),
            plan.memory_mib.to_string(),
        ),
        ("cpus", record.cpus.to_string(), plan.cpus.to_string()),
        ("address", record.address.clone(), address),
        (
            "reference",
            record.reference.clone(),
            plan.reference.clone(),
        ),
        ("init:, root: and words:", shown(words), shown(wanted_words)),
    ]
    .into_iter()
    .filter(|(_, is, wanted)| is != wanted)
    .map(|(key, is, wanted)| format!("{key} {is}, not {wanted}"))
    .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Problem::impossible(format!(
        "{} is up already and differs from the herd file: it has {}",
        plan.name,
        differences.join(", ")
    ))
    .advice(format!("estive down {deployment} first, then up again")))
}

fn shown(words: &[String]) -> String {
    match words {
        [] => "none".to_owned(),
        words => format!("\"{}\"", words.join(" ")),
    }
}

pub(crate) fn check_address<'a>(
    plan: &ClonePlan,
    mut known: impl Iterator<Item = &'a DomainRecord>,
) -> Result<(), Problem> {
    let address = plan.address.to_string();
    match known.find(|record| record.address == address) {
        Some(other) => Err(Problem::impossible(format!(
            "the address {address} of {} is that of {}, {}",
            plan.name,
            other.name,
            other.of_whom()
        ))
        .advice("write another address:, or other addresses: to draw from, into the herd file")),
        None => Ok(()),
    }
}

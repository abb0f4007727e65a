//! What a herd file's clones are held against before anything is made, and their layers. Pure.

use crate::records::DomainRecord;
use estive_api::{Problem, ProblemKind};
use estive_layers::{
    ClonePlan, DeploymentSecret, HerdPlan, HerdWarnings, Renderer, TemplateSet, UpCheck,
    check_variables,
};
use estive_model::{DeploymentName, DomainName};
use std::collections::BTreeMap;
use std::path::PathBuf;

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

/// One layer for each clone, in their order; and what may be a slip in the herd file.
pub(crate) fn render<'a>(
    plan: &HerdPlan,
    clones: impl Iterator<Item = (&'a ClonePlan, &'a Vec<String>)>,
    dirs: &[PathBuf],
    secret: &DeploymentSecret,
) -> Result<(Vec<Vec<u8>>, HerdWarnings), Problem> {
    let impossible = |error: estive_layers::LayerError| {
        Problem::from_error(ProblemKind::Impossible, &error)
            .advice("correct the herd file or its template sets")
    };
    let clones: Vec<_> = clones.collect();
    let mut found: BTreeMap<&Vec<String>, Vec<TemplateSet>> = BTreeMap::new();
    for (_, sets) in &clones {
        if !found.contains_key(sets) {
            found.insert(sets, TemplateSet::find_all(sets, dirs).map_err(impossible)?);
        }
    }
    let found = |sets: &Vec<String>| found.get(sets).map(Vec::as_slice).unwrap_or_default();
    let chosen: BTreeMap<&DomainName, &[TemplateSet]> = clones
        .iter()
        .map(|(clone, sets)| (&clone.name, found(sets)))
        .collect();
    let sets_of = |clone: &ClonePlan| chosen.get(&clone.name).copied().unwrap_or_default();
    let warnings = check_variables(plan, sets_of).map_err(impossible)?;
    let mut layers = Vec::new();
    for (clone, sets) in &clones {
        let renderer = Renderer::new(plan, found(sets), secret).map_err(impossible)?;
        layers.push(renderer.layer(clone).map_err(impossible)?.bytes);
    }
    Ok((layers, warnings))
}

/// A clone that is there already must be as the herd file says: `up` starts it, it does not make it anew.
pub(crate) fn check_same(
    deployment: &DeploymentName,
    plan: &ClonePlan,
    record: &DomainRecord,
) -> Result<(), Problem> {
    if record.deployment != *deployment {
        return Err(Problem::impossible(format!(
            "there is a domain {} already, of the deployment {}",
            plan.name, record.deployment
        ))
        .advice("give this herd's clones other names, or take that deployment down first"));
    }
    let address = plan.address.to_string();
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

pub(crate) fn check_address<'a>(
    plan: &ClonePlan,
    mut known: impl Iterator<Item = &'a DomainRecord>,
) -> Result<(), Problem> {
    let address = plan.address.to_string();
    match known.find(|record| record.address == address) {
        Some(other) => Err(Problem::impossible(format!(
            "the address {address} of {} is that of {} of the deployment {}",
            plan.name, other.name, other.deployment
        ))
        .advice("write another address:, or other addresses: to draw from, into the herd file")),
        None => Ok(()),
    }
}

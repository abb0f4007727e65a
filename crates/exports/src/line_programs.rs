//! Programs of the reference for the initial RAM file system of a line.

use std::path::Path;

use estive_boot::loaders::Needs;
use estive_boot::programs::{self, Programs};

use crate::ExportError;

/// Those that the line needs, with their libraries. `reference` is a root as a directory.
pub fn line_programs(reference: Option<&Path>, needs: &Needs) -> Result<Programs, ExportError> {
    let Some(first) = needs.programs.first() else {
        return Ok(Programs::default());
    };
    let Some(reference) = reference else {
        let names = needs.programs.iter().map(|wanted| wanted.program.name);
        return Err(ExportError::NoReference {
            asked_by: first.asked_by.clone(),
            programs: names.collect::<Vec<_>>().join(", "),
        });
    };
    programs::collect(reference, &needs.programs)
        .map_err(ExportError::boot("taking programs from the reference"))
}

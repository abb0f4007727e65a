//! How far a host's journal is believed about generations.

use estive_api::Problem;
use estive_model::{DomainName, Generation, HostName};

/// How far above all that was granted a host's floor may lie: far more than agents that are driven alone come to, and so
/// little that no single word of a host brings a clone to the end of the numbers, behind which there is no further start.
const STEP_MAX: u64 = 1 << 32;

/// The lowest generation that `host` takes no order of any more, as its journal says; refused where that cannot be.
pub(crate) fn believed(
    floor: Generation,
    granted: Generation,
    domain: &DomainName,
    host: &HostName,
) -> Result<Generation, Problem> {
    if floor.0.saturating_sub(granted.0) <= STEP_MAX {
        return Ok(floor);
    }
    Err(Problem::impossible(format!(
        "host {host} says that {domain} has come to generation {floor}, and {granted} is the highest that was ever granted: \
         nothing is granted on its word"
    ))
    .advice(format!(
        "see to that host: end its agent, and put the floor in journal/{domain}.json of its state directory right; or \
         choose another host"
    )))
}

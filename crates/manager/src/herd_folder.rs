//! The herd's folder as it comes over the wire: a tar archive from outside, read without ever being unpacked.

use estive_api::{Problem, ProblemKind};
use estive_layers::{HerdFolder, LayerError, MAX_HERD_FOLDER_BYTES};

/// The largest folder as it is sent, in bytes.
pub(crate) const MAX_BYTES: usize = MAX_HERD_FOLDER_BYTES + (1 << 20);

/// Reads the archive; works for a while.
pub(crate) fn read(archive: &[u8]) -> Result<HerdFolder, Problem> {
    HerdFolder::from_tar(archive).map_err(|error| {
        let problem = |kind| Problem::from_error(kind, &error);
        match &error {
            LayerError::NoHerd { .. } => {
                problem(ProblemKind::Impossible).advice("give the folder that holds herd.yaml")
            }
            LayerError::Set { .. } => {
                problem(ProblemKind::Impossible).advice("correct the herd's template sets")
            }
            _ => problem(ProblemKind::Invalid),
        }
    })
}

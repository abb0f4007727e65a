//! Communities of a matrix by the Leiden algorithm (Traag, Waltman and van Eck, Sci. Rep. 9, 2019), with a seed: beside the
//! paper's groups, where thresholds are hard to choose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leiden_rs::{GraphDataBuilder, Leiden, LeidenConfig, QualityType};

use crate::matrix::Matrix;

/// The library did not take the matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("communities cannot be found: {0}")]
pub struct Unfit(String);

/// Communities of two or more, in the order of their first members. The greater the resolution the smaller they are; 1 is
/// common.
///
/// # Errors
/// A resolution that is no number above 0, or more pairs than the library takes.
pub fn communities(
    matrix: &Matrix,
    resolution: f64,
    seed: u64,
) -> Result<Vec<BTreeSet<Arc<str>>>, Unfit> {
    if !(resolution.is_finite() && resolution > 0.0) {
        return Err(Unfit(format!("{resolution} is no resolution above 0")));
    }
    let unfit = |error: leiden_rs::LeidenError| Unfit(error.to_string());
    let mut builder = GraphDataBuilder::new(matrix.names().len());
    let mut any = false;
    for ((one, other), volume) in matrix.pairs() {
        builder
            .add_edge(one as usize, other as usize, volume)
            .map_err(unfit)?;
        any = true;
    }
    if !any {
        return Ok(Vec::new());
    }
    let config = LeidenConfig {
        resolution,
        seed: Some(seed),
        quality: QualityType::Modularity,
        ..LeidenConfig::default()
    };
    let graph = builder.build().map_err(unfit)?;
    let found = Leiden::new(config).run(&graph).map_err(unfit)?;
    let mut members: BTreeMap<usize, BTreeSet<Arc<str>>> = BTreeMap::new();
    for (node, community) in found.partition.iter() {
        let name = Arc::clone(&matrix.names()[node]);
        members.entry(community).or_default().insert(name);
    }
    let mut communities: Vec<BTreeSet<Arc<str>>> = (members.into_values())
        .filter(|members| members.len() > 1)
        .collect();
    communities.sort();
    Ok(communities)
}

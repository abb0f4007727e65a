//! The models: each says the most that a series will be over some windows ahead.

use augurs::ets::AutoETS;
use augurs::mstl::MSTLModel;
use augurs::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Shape;

/// How something is foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// It stays as it is.
    AsNow,
    /// Level and trend by exponential smoothing.
    Trend,
    /// The same, after what comes again every day was taken out.
    Season,
}

impl Method {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::AsNow => "as now",
            Self::Trend => "trend",
            Self::Season => "trend and days",
        }
    }
}

/// Methods that are tried, the simpler first.
pub(crate) const TRIED: [Method; 2] = [Method::Trend, Method::Season];

/// The most over the horizon after the end of a series; none where the method has too little to go by.
pub(crate) fn most(method: Method, series: &[f64], shape: Shape) -> Option<f64> {
    let ahead = match method {
        Method::AsNow => return series.last().copied(),
        Method::Trend => {
            let fitted = AutoETS::non_seasonal().fit(series).ok()?;
            fitted.predict(shape.horizon, None).ok()?
        }
        Method::Season => {
            if shape.day < 2 || series.len() < 2 * shape.day + 1 {
                return None;
            }
            let trend = AutoETS::non_seasonal().into_trend_model();
            let fitted = MSTLModel::new(vec![shape.day], trend).fit(series).ok()?;
            fitted.predict(shape.horizon, None).ok()?
        }
    };
    let most = ahead
        .point
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    most.is_finite().then_some(most)
}

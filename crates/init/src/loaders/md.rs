//! `md`.

use estive_boot::loaders::md::Options;

use super::{Context, Given};
use crate::failure::{Result, fail};

pub fn open(_: &Options, _: Option<Given>, _: &mut Context) -> Result<Given> {
    fail("md is not built into this estive-init")
}

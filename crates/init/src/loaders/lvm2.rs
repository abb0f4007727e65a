//! `lvm2`.

use estive_boot::loaders::lvm2::Options;

use super::{Context, Given};
use crate::failure::{Result, fail};

pub fn open(_: &Options, _: Option<Given>, _: &mut Context) -> Result<Given> {
    fail("lvm2 is not built into this estive-init")
}

//! `nfs`.

use estive_boot::loaders::nfs::Options;

use super::{Context, Given};
use crate::failure::{Result, fail};

pub fn open(_: &Options, _: Option<Given>, _: &mut Context) -> Result<Given> {
    fail("nfs is not built into this estive-init")
}

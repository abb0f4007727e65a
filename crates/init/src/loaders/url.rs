//! `url`.

use estive_boot::loaders::url::Options;

use super::{Context, Given};
use crate::failure::{Result, fail};

pub fn open(_: &Options, _: Option<Given>, _: &mut Context) -> Result<Given> {
    fail("url is not built into this estive-init")
}

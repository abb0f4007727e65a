//! `block`: a disk or a partition, waited for.

use estive_boot::loaders::block::Options;

use super::{Context, Given};
use crate::devices;
use crate::failure::Result;

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    devices::find(&options.which, context.line.wait_s).map(Given::Device)
}

//! `estive`: a clone's differentiation layer, settled over everything below it.

use estive_boot::loaders::estive::Options;

use super::{Context, Given};
use crate::console::uptime_ms;
use crate::failure::Result;
use crate::union::stack;
use crate::{devices, layer};

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    let device = devices::find(&options.which, context.line.wait_s)?;
    let place = context.place()?;
    let at = place.to_string_lossy();
    let began_ms = uptime_ms();
    let unpacked = layer::unpack(&device, &at)?;
    let unpacked_ms = uptime_ms();
    context
        .report
        .step("the layer is unpacked", began_ms, unpacked_ms);
    let below = stack::below_clones(context.layers)?;
    layer::settle(&unpacked, &at, &below.to_string_lossy())?;
    context
        .report
        .step("the layer settles over it", unpacked_ms, uptime_ms());
    Ok(Given::Directory(place))
}

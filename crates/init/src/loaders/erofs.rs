//! `erofs`: a sealed root.

use estive_boot::loaders::erofs::Options;
use rustix::mount::MountFlags;

use super::{Context, Given};
use crate::devices;
use crate::failure::Result;
use crate::root::{mount, read_further_ahead};

pub fn open(options: &Options, below: Option<Given>, context: &mut Context) -> Result<Given> {
    let device = match below {
        Some(below) => context.block_device(below)?,
        None => devices::find(&options.which, context.line.wait_s)?,
    };
    let place = context.place()?;
    mount(
        &device.to_string_lossy(),
        &place.to_string_lossy(),
        "erofs",
        MountFlags::RDONLY,
        "",
    )?;
    read_further_ahead(&place.to_string_lossy());
    Ok(Given::Directory(place))
}

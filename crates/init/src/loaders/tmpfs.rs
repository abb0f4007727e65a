//! `tmpfs`: memory.

use estive_boot::loaders::tmpfs::Options;
use rustix::mount::MountFlags;

use super::{Context, Given};
use crate::failure::Result;
use crate::root::mount;

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    let place = context.place()?;
    let mut words = format!("mode={:04o}", options.mode);
    if let Some(size) = &options.size {
        words += &format!(",size={size}");
    }
    mount(
        "tmpfs",
        &place.to_string_lossy(),
        "tmpfs",
        MountFlags::empty(),
        &words,
    )?;
    Ok(Given::Directory(place))
}

//! `virtiofs`: a directory that the machine shares with its guest.

use estive_boot::loaders::virtiofs::Options;
use rustix::mount::MountFlags;

use super::{Context, Given};
use crate::failure::Result;
use crate::root::mount;

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    let place = context.place()?;
    let flags = if context.wants_writing() {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    let at = place.to_string_lossy();
    mount(&options.tag, &at, "virtiofs", flags, "").map_err(|mut failure| {
        failure.0 += " (is it shared with -device vhost-user-fs-pci,tag=…?)";
        failure
    })?;
    Ok(Given::Directory(place))
}

//! `9p`: a directory that QEMU shares with its guest.

use estive_boot::loaders::p9::Options;
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
    let words = format!(
        "trans=virtio,version=9p2000.L,msize={},cache={}",
        options.msize_bytes, options.cache
    );
    let at = place.to_string_lossy();
    mount(&options.tag, &at, "9p", flags, &words).map_err(|mut failure| {
        failure.0 += " (is it shared with -device virtio-9p-pci,mount_tag=…?)";
        failure
    })?;
    Ok(Given::Directory(place))
}

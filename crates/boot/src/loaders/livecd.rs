//! `livecd`: the root inside a live CD.

use super::{Loader, Needs, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "livecd",
    help: "The root inside a live CD: its SquashFS, found in the ISO 9660 image to its right, or in the drive.",
    parameters: &[],
    is_source: true,
    takes: &[Shape::Directory],
    gives: Shape::Directories,
    example: "livecd+nfs:10.0.0.1:/images/live.iso",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {}

impl Options {
    pub(super) fn parse(_: &mut Taken) -> Parsed<Options> {
        Ok(Options {})
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("loop");
        needs.file_system(None);
    }
}

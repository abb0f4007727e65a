//! `erofs`: a sealed root, as `estive` makes it.

use super::block::Which;
use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::disk;
use crate::root_line::{PLACE_KEYS, Parsed};

pub const LOADER: Loader = Loader {
    name: "erofs",
    help: "A disk with an EROFS image: a root as `estive` seals it. Without a device, the root disk of a clone.",
    parameters: &[Parameter {
        name: "DEVICE",
        form: Form::Place {
            keys: &PLACE_KEYS,
            optional: true,
        },
        default: "serial=estive-root",
        help: "the disk, as for block",
    }],
    is_source: true,
    takes: &[Shape::Device],
    gives: Shape::Directory,
    example: "erofs:serial=estive-root",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub which: Which,
    /// Whether it was written, rather than what a clone has.
    pub is_given: bool,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let place = taken.place();
        let is_given = place.is_some();
        let which = place.map_or(Ok(Which::Serial(disk::ROOT.to_owned())), Which::parse)?;
        Ok(Options { which, is_given })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.file_system(Some("erofs"));
    }
}

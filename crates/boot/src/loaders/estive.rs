//! `estive`: a clone's differentiation layer.

use super::block::Which;
use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::disk;
use crate::root_line::{PLACE_KEYS, Parsed};

pub const LOADER: Loader = Loader {
    name: "estive",
    help: "A clone's differentiation layer, from its layer disk, made to fit everything to its left. \
           The clone's identity (name, address) is asked of the host.",
    parameters: &[Parameter {
        name: "DEVICE",
        form: Form::Place {
            keys: &PLACE_KEYS,
            optional: true,
        },
        default: "serial=estive-layer",
        help: "the layer disk, as for block",
    }],
    is_source: true,
    takes: &[],
    gives: Shape::Directory,
    example: "erofs;estive;tmpfs",
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
        let which = place.map_or(Ok(Which::Serial(disk::LAYER.to_owned())), Which::parse)?;
        Ok(Options { which, is_given })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.identity = true;
        needs.disks();
        // A clone has a disk of its kernel's modules too, whatever its root is.
        needs.if_there(&["erofs"]);
    }
}

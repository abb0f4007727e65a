//! `lvm2`: a logical volume.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "lvm2",
    help: "A logical volume, its group found on what stands to its right, or on any disk.",
    parameters: &[Parameter {
        name: "VOLUME",
        form: Form::Place {
            keys: &[],
            optional: false,
        },
        default: "",
        help: "/dev/GROUP/VOLUME",
    }],
    is_source: true,
    takes: &[Shape::Device],
    gives: Shape::Device,
    example: "lvm2+md:/dev/vg/volume:/dev/md0,/dev/md1",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub volume: String,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let volume = taken.needed()?.text;
        Ok(Options {
            volume: volume.text,
        })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("dm_mod");
        needs.file_system(None);
    }
}

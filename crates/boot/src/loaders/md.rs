//! `md`: software RAID.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "md",
    help: "Arrays of the kernel's software RAID, put together from the disks that say they belong to them.",
    parameters: &[Parameter {
        name: "ARRAYS",
        form: Form::Place {
            keys: &[],
            optional: false,
        },
        default: "",
        help: "/dev/md0, or several with commas between",
    }],
    is_source: true,
    takes: &[],
    gives: Shape::Device,
    example: "md:/dev/md0",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub arrays: Vec<String>,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let arrays = taken.needed()?.text;
        let arrays = arrays.text.split(',').map(str::to_owned).collect();
        Ok(Options { arrays })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("md_mod");
        needs.at_hand(&["raid0", "raid1", "raid10", "raid456"]);
        needs.file_system(None);
    }
}

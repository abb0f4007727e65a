//! `virtiofs`: a directory that the machine shares with its guest.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "virtiofs",
    help: "A directory of the physical machine, shared by virtiofsd (-device vhost-user-fs-pci,tag=TAG).",
    parameters: &[Parameter {
        name: "TAG",
        form: Form::Place {
            keys: &[],
            optional: false,
        },
        default: "",
        help: "the name it is shared by",
    }],
    is_source: true,
    takes: &[],
    gives: Shape::Directory,
    example: "virtiofs:root",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub tag: String,
}

/// Of the tag in a virtio file system device's configuration (Virtio 1.2, section 5.11.4).
const TAG_BYTES_MAX: usize = 36;

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let tag = taken.needed()?.text;
        match tag.text.len() <= TAG_BYTES_MAX {
            true => Ok(Options { tag: tag.text }),
            false => tag.wrong(format!("a tag has at most {TAG_BYTES_MAX} bytes")),
        }
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.module("virtiofs");
    }
}

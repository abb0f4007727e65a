//! `loop`: a file system in a file.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "loop",
    help: "A file with a file system in it (SquashFS, ext, ISO 9660, EROFS), on what stands to its right, or else in \
           the devices to its left. With a directory in its place, each file in it is a layer, in the order of \
           their names, the last one on top.",
    parameters: &[Parameter {
        name: "FILE",
        form: Form::Place {
            keys: &[],
            optional: true,
        },
        default: "what stands to its right gives",
        help: "path of the file, or of a directory of such",
    }],
    is_source: true,
    takes: &[Shape::Directory, Shape::Directories],
    gives: Shape::Directories,
    example: "loop+block:/images/root.squashfs:/dev/sda1",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Absolute, in the directory that it is looked for in.
    pub file: Option<String>,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let Some(place) = taken.place() else {
            return Ok(Options { file: None });
        };
        let text = place.text;
        let is_path = text.text.starts_with('/')
            && text.text[1..]
                .split('/')
                .all(|part| part != "." && part != "..");
        match is_path {
            true => Ok(Options {
                file: Some(text.text),
            }),
            false => text.wrong("a file is named by its whole path, without . and .."),
        }
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.module("loop");
        needs.file_system(None);
    }
}

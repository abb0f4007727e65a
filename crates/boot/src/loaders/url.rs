//! `url`: a file fetched by HTTP into memory.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "url",
    help: "A file fetched by HTTP into memory.",
    parameters: &[Parameter {
        name: "URL",
        form: Form::Place {
            keys: &[],
            optional: false,
        },
        default: "",
        help: "where it is, http://…",
    }],
    is_source: true,
    takes: &[],
    gives: Shape::File,
    example: "livecd+url:http://10.0.0.1/live.iso",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub url: String,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let url = taken.needed()?.text;
        Ok(Options { url: url.text })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.network = true;
    }
}

//! `luks`: an encrypted device.

use super::{Loader, Needs, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "luks",
    help: "An encrypted device (LUKS), opened with its key.",
    parameters: &[],
    is_source: false,
    takes: &[Shape::Device],
    gives: Shape::Device,
    example: "luks+block:/dev/sda2",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {}

impl Options {
    pub(super) fn parse(_: &mut Taken) -> Parsed<Options> {
        Ok(Options {})
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.module("dm_crypt");
    }
}

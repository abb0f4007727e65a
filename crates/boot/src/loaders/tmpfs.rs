//! `tmpfs`: memory.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "tmpfs",
    help: "Memory: what is written there is gone when the machine stops.",
    parameters: &[
        Parameter {
            name: "size",
            form: Form::Key("SIZE"),
            default: "50%",
            help: "at most so much: bytes with k, m or g, or a share of the memory such as 25%",
        },
        Parameter {
            name: "mode",
            form: Form::Key("MODE"),
            default: "0755",
            help: "octal mode of its top directory",
        },
    ],
    is_source: true,
    takes: &[],
    gives: Shape::Directory,
    example: "tmpfs:size=25%",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// As the kernel takes it.
    pub size: Option<String>,
    pub mode: u32,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let size = match taken.key("size") {
            Some(size) if !is_size(&size.text) => {
                return size.wrong("a size is a number with k, m, g or %, such as 200m or 25%");
            }
            size => size.map(|size| size.text),
        };
        let mode = match taken.key("mode") {
            Some(mode) => match u32::from_str_radix(&mode.text, 8) {
                Ok(bits) if bits <= 0o7777 && !mode.text.starts_with('+') => bits,
                _ => return mode.wrong("a mode is octal, such as 0755"),
            },
            None => 0o755,
        };
        Ok(Options { size, mode })
    }

    /// The kernel has it built in.
    pub(super) fn add_needs(&self, _: &mut Needs) {}
}

fn is_size(text: &str) -> bool {
    let number = text.strip_suffix(['k', 'm', 'g', 'K', 'M', 'G', '%']);
    let number = number.unwrap_or(text);
    let value = number.parse::<u64>().unwrap_or(0);
    let fits = if text.ends_with('%') {
        value <= 100
    } else {
        value < 1 << 33
    };
    number.bytes().all(|byte| byte.is_ascii_digit()) && value > 0 && fits
}

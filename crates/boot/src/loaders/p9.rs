//! `9p`: a directory that QEMU shares with its guest.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "9p",
    help: "A directory of the physical machine, shared by QEMU (-device virtio-9p-pci,mount_tag=TAG). Most kernels \
           for clouds do not have it.",
    parameters: &[
        Parameter {
            name: "TAG",
            form: Form::Place {
                keys: &[],
                optional: false,
            },
            default: "",
            help: "the name it is shared by",
        },
        Parameter {
            name: "cache",
            form: Form::Key("MODE"),
            default: "loose",
            help: "none, loose or mmap: whether what was read is kept",
        },
        Parameter {
            name: "msize",
            form: Form::Key("BYTES"),
            default: "524288",
            help: "the most one message carries",
        },
    ],
    is_source: true,
    takes: &[],
    gives: Shape::Directory,
    example: "9p:root",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub tag: String,
    pub cache: String,
    pub msize_bytes: u32,
}

const CACHES: [&str; 3] = ["none", "loose", "mmap"];

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let tag = taken.needed()?.text;
        if tag.text.contains(',') {
            return tag.wrong("a tag has no comma");
        }
        let cache = match taken.key("cache") {
            Some(cache) if !CACHES.contains(&cache.text.as_str()) => {
                return cache.wrong(format!("cache= is one of {}", CACHES.join(", ")));
            }
            cache => cache.map_or_else(|| "loose".to_owned(), |cache| cache.text),
        };
        let msize_bytes = match taken.key("msize") {
            Some(msize) => match msize.text.parse() {
                Ok(bytes) if (4096..=1 << 20).contains(&bytes) => bytes,
                _ => return msize.wrong("msize= is a number from 4096 to 1048576"),
            },
            None => 512 << 10,
        };
        Ok(Options {
            tag: tag.text,
            cache,
            msize_bytes,
        })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.module("9p");
        needs.module("9pnet_virtio");
    }
}

//! `nfs`: a directory of an NFS server.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::root_line::Parsed;

pub const LOADER: Loader = Loader {
    name: "nfs",
    help: "A directory that an NFS server exports.",
    parameters: &[
        Parameter {
            name: "SERVER",
            form: Form::Place {
                keys: &[],
                optional: false,
            },
            default: "",
            help: "its name or address",
        },
        Parameter {
            name: "EXPORT",
            form: Form::Place {
                keys: &[],
                optional: false,
            },
            default: "",
            help: "path of the directory there",
        },
    ],
    is_source: true,
    takes: &[],
    gives: Shape::Directory,
    example: "nfs:10.0.0.1:/",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub server: String,
    pub export: String,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let (server, export) = (taken.needed()?.text, taken.needed()?.text);
        Ok(Options {
            server: server.text,
            export: export.text,
        })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.network = true;
        needs.module("nfs");
        needs.if_there(&["nfsv3", "nfsv4"]);
    }
}

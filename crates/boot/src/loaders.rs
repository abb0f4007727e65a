//! What each device of `root=` means: loaders with their parameters, and what they need.
//!
//! A device is a chain `a+b+c`. The last stage is the source; each to its left works on what its
//! right neighbour gives. Options without a key are taken by the stages from left to right; `ro`,
//! `rw` and `fs=` are the device's own. Here is the half that PID 1, the manager, `estive` and tests
//! agree on; what a loader does is in `crates/init/src/loaders`.
//!
//! A new loader is a file here, one there, and a line in the table below.

pub mod block;
pub mod device;
pub mod erofs;
pub mod estive;
mod gone;
pub mod livecd;
pub mod loop_file;
pub mod luks;
pub mod lvm2;
pub mod md;
mod needs;
pub mod nfs;
pub mod p9;
mod page;
mod taken;
pub mod tmpfs;
pub mod url;
pub mod virtiofs;

use std::fmt;

pub use device::{Access, Device, Root};
pub use needs::Needs;
pub use page::{page, written};
pub use taken::{Place, Taken, Text};

use crate::root_line::Parsed;

/// What a stage gives to the one on its left, or at last to the union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A block device. Where a directory is wanted it is mounted.
    Device,
    /// A regular file. Where a device is wanted a loop device is put over it.
    File,
    Directory,
    /// Several, each a layer, or a single one.
    Directories,
}

impl Shape {
    /// Whether a stage that takes `self` can be given `given`.
    fn can_be(self, given: Shape) -> bool {
        match self {
            Shape::Device => matches!(given, Shape::Device | Shape::File),
            Shape::File => given == Shape::File,
            Shape::Directory => matches!(given, Shape::Directory | Shape::Device | Shape::File),
            Shape::Directories => true,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Shape::Device => "a device",
            Shape::File => "a file",
            Shape::Directory => "a directory",
            Shape::Directories => "directories",
        })
    }
}

/// How a parameter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By its place among the options that have no key. `keys` may be written before it, such as
    /// `UUID=`, and then say what it is.
    Place {
        keys: &'static [&'static str],
        optional: bool,
    },
    /// `name=VALUE`; the word for people.
    Key(&'static str),
    /// Likewise, with a value that may have two parts with `:` between: those that begin with one of
    /// `heads`, to which the option behind belongs.
    KeyOfParts {
        value: &'static str,
        heads: &'static [&'static str],
    },
    /// The name alone.
    Flag,
}

/// One parameter of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// The key or flag as written; of a place, a word for it in capitals.
    pub name: &'static str,
    pub form: Form,
    /// In words; empty where something must be given.
    pub default: &'static str,
    pub help: &'static str,
}

/// One loader, for the parser and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loader {
    pub name: &'static str,
    /// What it does, in one or two sentences.
    pub help: &'static str,
    pub parameters: &'static [Parameter],
    /// Whether it may stand at the right end of a chain.
    pub is_source: bool,
    /// What it works on when something stands to its right; empty if nothing may.
    pub takes: &'static [Shape],
    pub gives: Shape,
    /// A device as one would write it.
    pub example: &'static str,
}

impl Loader {
    /// As one line: `nfs:SERVER:EXPORT[:KEY=VALUE]`.
    pub fn usage(&self) -> String {
        let mut usage = self.name.to_owned();
        for Parameter { name, form, .. } in self.parameters {
            usage += &match form {
                Form::Place {
                    optional: false, ..
                } => format!(":{name}"),
                Form::Place { optional: true, .. } | Form::Flag => format!("[:{name}]"),
                Form::Key(value) | Form::KeyOfParts { value, .. } => format!("[:{name}={value}]"),
            };
        }
        usage
    }
}

/// What every device may have besides its loaders' own.
pub const COMMON: [Parameter; 3] = [
    Parameter {
        name: "ro",
        form: Form::Flag,
        default: "for all but the top device",
        help: "only read from it",
    },
    Parameter {
        name: "rw",
        form: Form::Flag,
        default: "for the top device, where it can be written",
        help: "the top device takes what is written; fails if it cannot",
    },
    Parameter {
        name: "fs",
        form: Form::Key("TYPE"),
        default: "recognised by its first blocks",
        help: "file system of the device, as the kernel names it",
    },
];

macro_rules! loaders {
    ($($variant:ident in $module:ident,)*) => {
        /// One stage of a device's chain, with its options.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Stage {
            $($variant($module::Options),)*
        }

        /// Every loader there is.
        pub const LOADERS: &[Loader] = &[$($module::LOADER,)*];

        impl Stage {
            pub fn loader(&self) -> &'static Loader {
                match self {
                    $(Stage::$variant(_) => &$module::LOADER,)*
                }
            }

            /// Adds what this stage needs.
            pub fn add_needs(&self, needs: &mut Needs) {
                match self {
                    $(Stage::$variant(options) => options.add_needs(needs),)*
                }
            }

            fn parse(loader: &Loader, taken: &mut Taken) -> Parsed<Option<Stage>> {
                $(if loader.name == $module::LOADER.name {
                    return $module::Options::parse(taken).map(|options| Some(Stage::$variant(options)));
                })*
                Ok(None)
            }
        }
    };
}

loaders! {
    Block in block,
    Tmpfs in tmpfs,
    Erofs in erofs,
    Estive in estive,
    Loop in loop_file,
    Virtiofs in virtiofs,
    P9 in p9,
    Nfs in nfs,
    Url in url,
    Livecd in livecd,
    Luks in luks,
    Lvm2 in lvm2,
    Md in md,
}

#[cfg(test)]
mod tests;

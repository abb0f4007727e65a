//! What can go wrong here, each with what to try.

#[cfg(feature = "builder")]
use std::path::PathBuf;

/// What can go wrong with a kernel, its modules, an identity or a command line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{field} of the identity is wrong: {reason}")]
    Identity { field: &'static str, reason: String },
    #[error(
        "the kernel has no module {name:?}{needed_by}: use a kernel that has it as a module or built in (see modules.dep and modules.builtin)"
    )]
    ModuleMissing { name: String, needed_by: String },
    #[error("line {line} of modules.dep is not understood: {text:?} (make it anew with `depmod`)")]
    ModulesDep { line: usize, text: String },
    #[error("modules.dep has more than {limit} lines, or one longer than 64 KiB")]
    ModulesDepSize { limit: usize },
    #[error("the kernel command line cannot carry {word:?}: {reason}")]
    CommandLine { word: String, reason: &'static str },
    #[cfg(feature = "builder")]
    #[error("{error}")]
    Line { error: crate::CommandLineError },
    #[cfg(feature = "builder")]
    #[error("reading {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[cfg(feature = "builder")]
    #[error("{path} cannot be decompressed")]
    Decompress {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[cfg(feature = "builder")]
    #[error("{path} has more than {limit_bytes} bytes: it is not what its name says")]
    TooLarge { path: PathBuf, limit_bytes: u64 },
    #[cfg(feature = "builder")]
    #[error(
        "no kernel with its modules in {root}: looked for boot/vmlinuz-RELEASE or vmlinuz-RELEASE with lib/modules/RELEASE/modules.dep{found}"
    )]
    NoKernel { root: PathBuf, found: String },
    #[cfg(feature = "builder")]
    #[error(
        "{asked_by} needs the program {program}, which {root} does not have: install it there (Debian's package {package})"
    )]
    ProgramMissing {
        program: &'static str,
        package: &'static str,
        /// The words that need it.
        asked_by: String,
        root: PathBuf,
    },
    #[cfg(feature = "builder")]
    #[error("{path} cannot go into the initramfs: {reason}")]
    ProgramUnfit { path: PathBuf, reason: String },
    #[cfg(feature = "builder")]
    #[error(
        "{needed_by} needs the library {name}, which the root does not have: install its package there anew"
    )]
    LibraryMissing { name: String, needed_by: PathBuf },
    #[cfg(feature = "builder")]
    #[error(
        "programs of the reference need two libraries called {name}: {one} and {other}; the initramfs has room for one"
    )]
    TwoLibraries {
        name: String,
        one: PathBuf,
        other: PathBuf,
    },
    #[cfg(feature = "builder")]
    #[error(
        "the programs taken from {root} with all they load are more than {limit_files} files or {limit_bytes} bytes: they are not the usual ones"
    )]
    ProgramsTooLarge {
        root: PathBuf,
        limit_bytes: u64,
        limit_files: usize,
    },
    #[cfg(feature = "builder")]
    #[error("building the initramfs")]
    Archive(#[from] estive_archive::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

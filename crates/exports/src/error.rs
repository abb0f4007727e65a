//! What can go wrong in sealing, each with what to try.

use std::io;
use std::path::PathBuf;

/// What can go wrong while sealing a root.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(
        "sealing the root {root}: there is no such directory; give the directory that holds the reference's root, or / for this system"
    )]
    MissingRoot { root: PathBuf },

    #[error("sealing the root {root}: nothing is in it; a root has at least a program to start")]
    EmptyRoot { root: PathBuf },

    #[error("making the disk of modules from {dir}: {what}")]
    Modules { dir: PathBuf, what: String },

    #[error(
        "{program} is not installed; install the package that holds it: apt-get install {package}"
    )]
    ProgramMissing {
        program: &'static str,
        package: &'static str,
    },

    #[error(
        "{pattern:?} {what}: write a path from the root, as /etc/ssh/*_key, ~/.netrc or /var/log/**"
    )]
    Pattern { pattern: String, what: &'static str },

    #[error(
        "{name:?} is no name for a reference: letters, digits, '.', '-' and '_', 1 to 64 of them, no digest"
    )]
    ReferenceName { name: String },

    #[error(
        "there is no reference named {name:?} in {dir}; `estive references ls` lists them, `estive seal --name` makes one"
    )]
    NoReferenceOfName { name: String, dir: PathBuf },

    #[error("{how_many} reference is meant by {word:?}; `estive references ls` lists them")]
    NoReferenceLike {
        word: String,
        how_many: &'static str,
    },

    #[error("{path} is damaged: {what}; seal the reference anew")]
    Record { path: PathBuf, what: String },

    #[error("{path}:{line}: {what}")]
    RuleLine {
        path: PathBuf,
        line: usize,
        what: String,
    },

    #[error(
        "sealing: {path} lies in more than {limit} directories; leave it out (--leave-out), or move it"
    )]
    TooDeep { path: PathBuf, limit: usize },

    #[error("sealing was stopped; nothing of it stays")]
    Stopped,

    #[error("{doing}: {path}")]
    Image {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: estive_erofs::Error,
    },

    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("the manifest of {path} cannot be made or read")]
    Manifest {
        path: PathBuf,
        #[source]
        source: estive_chunks::ManifestError,
    },

    #[error("{doing}")]
    Boot {
        doing: &'static str,
        #[source]
        source: estive_boot::Error,
    },

    #[error(
        "there is no kernel to boot clones with: an image alone does not show its own; name one"
    )]
    NoKernel,

    #[error(
        "{asked_by} of root= needs {programs} of the reference: name its root as a directory, a sealed image cannot give them"
    )]
    NoReference { asked_by: String, programs: String },

    #[error(
        "the kernel {release} cannot unpack such an initramfs ({option} is not set): choose another --compress"
    )]
    CannotUnpack {
        release: String,
        option: &'static str,
    },

    #[error(
        "{place}: the firmware that drivers ask for is more than {limit_mib} MiB (so far with {name} for {module}): choose drivers for fewer machines, or a reference with less firmware"
    )]
    TooMuchFirmware {
        place: PathBuf,
        name: String,
        module: String,
        limit_mib: u64,
    },

    #[error("{path} {what}: it stays as it is; give another place")]
    InTheWay { path: PathBuf, what: String },

    #[error("making the disk {out}: grub-mkrescue failed ({status}): {output}")]
    DiskFailed {
        out: PathBuf,
        status: String,
        output: String,
    },
}

impl ExportError {
    pub(crate) fn boot(doing: &'static str) -> impl FnOnce(estive_boot::Error) -> Self {
        move |source| Self::Boot { doing, source }
    }

    pub(crate) fn manifest(
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(estive_chunks::ManifestError) -> Self {
        let path = path.into();
        move |source| Self::Manifest { path, source }
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

//! What can go wrong with volumes.

use crate::seam::EXPORTS_MAX;
use estive_api::{Problem, ProblemKind};
use estive_model::{DeploymentName, DomainName, Generation};
use std::io;
use std::path::{Path, PathBuf};

/// Why something was not done; nothing was changed unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of that name.
    #[error("there is no volume {0}")]
    Missing(DomainName),
    /// It holds somebody else's state.
    #[error("the volume {name} belongs to the deployment {owner}")]
    OthersVolume {
        /// The volume.
        name: DomainName,
        /// Whose.
        owner: DeploymentName,
    },
    /// That generation has been fenced off.
    #[error(
        "generation {generation} of {name} may not use its volume any more: it is fenced at {fenced}"
    )]
    OldGeneration {
        /// The volume.
        name: DomainName,
        /// Asked for.
        generation: Generation,
        /// The lowest that is let in.
        fenced: Generation,
    },
    /// The manager has not named this host for this generation.
    #[error("generation {generation} of {name} was not granted to {client}")]
    NotGranted {
        /// The volume.
        name: DomainName,
        /// Asked for.
        generation: Generation,
        /// By whom.
        client: String,
    },
    /// Another host was named.
    #[error("generation {generation} of {name} was granted to {client} already")]
    Granted {
        /// The volume.
        name: DomainName,
        /// Asked for.
        generation: Generation,
        /// To whom.
        client: String,
    },
    /// A newer one was granted since.
    #[error("generation {generation} of {name} cannot be granted: {newer} was since")]
    OldGrant {
        /// The volume.
        name: DomainName,
        /// Asked for.
        generation: Generation,
        /// Known.
        newer: Generation,
    },
    /// Somebody has had it since.
    #[error("the volume {name} has gone on: generation {fenced} has had it since")]
    GoneOn {
        /// The volume.
        name: DomainName,
        /// Who had it last.
        fenced: Generation,
    },
    /// Somebody may be writing.
    #[error("the volume {name} is in use by generation {generation} on {client}")]
    InUse {
        /// The volume.
        name: DomainName,
        /// One that may use it.
        generation: Generation,
        /// Where.
        client: String,
    },
    /// Its generations were not given back.
    #[error("{name} has {EXPORTS_MAX} exports already, which nobody gave back")]
    TooMany {
        /// The volume.
        name: DomainName,
        /// Its size.
        size_mib: u64,
    },
    /// What was asked cannot be.
    #[error("{0}")]
    Impossible(String),
    /// The daemon did not do it (in time).
    #[error("the storage daemon of {name} could not {doing}: {detail}")]
    Daemon {
        /// The volume.
        name: DomainName,
        /// What was asked of it.
        doing: &'static str,
        /// Its words.
        detail: String,
    },
    /// The image is damaged.
    #[error("the image of {name} is damaged and is not served: {detail}")]
    Damaged {
        /// The volume.
        name: DomainName,
        /// What the check said.
        detail: String,
    },
    /// A program is missing or failed.
    #[error("{program} (package {package}) failed: {detail}")]
    Program {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
        /// What it said.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("could not {doing} {path}: {source}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl VolumeError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

impl From<VolumeError> for Problem {
    fn from(error: VolumeError) -> Self {
        if let VolumeError::TooMany { name, size_mib } = &error {
            return Self::from_error(ProblemKind::Impossible, &error).advice(format!(
                "estive stop {name}, then estive volume resize {name} {size_mib}M, which is its size and cuts them all \
                 off, then estive start {name}"
            ));
        }
        let (kind, advice) = match &error {
            VolumeError::Missing(_) => (ProblemKind::NotFound, "estive volume ls lists them"),
            VolumeError::OthersVolume { .. } => (
                ProblemKind::Impossible,
                "rename the clone, or remove that volume: estive volume rm",
            ),
            VolumeError::OldGeneration { .. } => (
                ProblemKind::Impossible,
                "it runs elsewhere, or has; start it anew",
            ),
            VolumeError::NotGranted { .. } => (
                ProblemKind::Refused,
                "the manager grants it when it starts or moves the clone: estive start, estive migrate",
            ),
            VolumeError::Granted { .. } | VolumeError::OldGrant { .. } => {
                (ProblemKind::Impossible, "start the clone anew")
            }
            VolumeError::GoneOn { .. } => (
                ProblemKind::Impossible,
                "what was saved does not fit it any more",
            ),
            VolumeError::InUse { .. } => (ProblemKind::Impossible, "stop the clone first"),
            VolumeError::Impossible(_) | VolumeError::TooMany { .. } => {
                (ProblemKind::Impossible, "")
            }
            VolumeError::Daemon { .. } => (
                ProblemKind::Failed,
                "see the file `log` in the volume's directory on the storage host",
            ),
            VolumeError::Damaged { .. } => (
                ProblemKind::Failed,
                "restore a snapshot, or repair it by qemu-img on the storage host",
            ),
            VolumeError::Program { .. } | VolumeError::Io { .. } => {
                (ProblemKind::Failed, "see to the storage host")
            }
        };
        let problem = Self::from_error(kind, &error);
        match advice {
            "" => problem,
            advice => problem.advice(advice),
        }
    }
}

//! The seam: what every keeper of volumes can do.

use crate::error::VolumeError;
use async_trait::async_trait;
use estive_api::wire::{
    ExportPlace, SnapshotName, VOLUME_BYTES_MAX, VOLUME_BYTES_MIN, VOLUME_STEP_BYTES, VolumeReport,
    VolumeWish,
};
use estive_model::{DomainName, Generation};

/// A keeper of volumes. What returns `Ok` is durable. Every order may be repeated.
#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    /// Makes the volume, empty, with a file system; or finds it, as it is, if it is the same owner's.
    async fn create(
        &self,
        name: &DomainName,
        wish: &VolumeWish,
    ) -> Result<VolumeReport, VolumeError>;

    /// All volumes, by name.
    async fn list(&self) -> Result<Vec<VolumeReport>, VolumeError>;

    /// One volume.
    async fn show(&self, name: &DomainName) -> Result<VolumeReport, VolumeError>;

    /// Names the host `client` as the one that may open a generation. Grants go up: one below the fence or below another
    /// grant is refused, and one that another host has. A newer one takes away older ones that nobody has open.
    async fn grant(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<VolumeReport, VolumeError>;

    /// Lets a generation in, from the host `client`, which must have been granted it. An older one than was fenced is
    /// refused.
    async fn export(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<ExportPlace, VolumeError>;

    /// Cuts one generation off: when it returns, none of its later writes reaches the volume. Its grant is gone, too.
    async fn withdraw(
        &self,
        name: &DomainName,
        generation: Generation,
        by: By<'_>,
    ) -> Result<(), VolumeError>;

    /// Cuts every generation below `generation` off, for good. A fence never goes down; a lower one changes nothing.
    async fn fence(
        &self,
        name: &DomainName,
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError>;

    /// The same, if the fence stands at one of `only_at`: nobody else has had the volume since.
    async fn fence_from(
        &self,
        name: &DomainName,
        only_at: &[Generation],
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError>;

    /// Makes it larger; never smaller. Refused while any export is open: nobody would see it.
    async fn resize(&self, name: &DomainName, size_bytes: u64)
    -> Result<VolumeReport, VolumeError>;

    /// Keeps its content of now, also while it is written to: what a crash at this moment would leave. One of that name
    /// that is there stays as it is, of then, and the report's note says so: the answer to an order may have been lost.
    async fn snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError>;

    /// Drops a snapshot.
    async fn drop_snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError>;

    /// Gives it the content of a snapshot, which stays. Refused while any export is open.
    async fn restore(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError>;

    /// Removes it with all snapshots. Refused while any export is open. `Ok` when there is none.
    async fn remove(&self, name: &DomainName) -> Result<(), VolumeError>;
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// The manager, or a person on the storage host.
    Keeper,
    /// An agent, by the host that its certificate names: it may do what it was granted.
    Host(&'a str),
}

/// Exports of one volume at most: a domain's generation, one to come, and what moves that were given up have left.
pub(crate) const EXPORTS_MAX: usize = 64;
/// Snapshots of one volume at most.
pub(crate) const SNAPSHOTS_MAX: usize = 32;

/// The answer to an order for a snapshot that is there.
pub(crate) fn had_already(mut report: VolumeReport, snapshot: &SnapshotName) -> VolumeReport {
    let already = format!("it had the snapshot {snapshot} already, which was left as it is");
    report.note = Some(match report.note {
        Some(note) => format!("{note}; {already}"),
        None => already,
    });
    report
}

/// A size that a volume may have.
pub(crate) fn check_size(size_bytes: u64) -> Result<(), VolumeError> {
    let fits = (VOLUME_BYTES_MIN..=VOLUME_BYTES_MAX).contains(&size_bytes)
        && size_bytes.is_multiple_of(VOLUME_STEP_BYTES);
    match fits {
        true => Ok(()),
        false => Err(VolumeError::Impossible(format!(
            "a volume of {size_bytes} bytes cannot be: from {} MiB to {} TiB, in whole MiB",
            VOLUME_BYTES_MIN >> 20,
            VOLUME_BYTES_MAX >> 40
        ))),
    }
}

/// A new size for one that has `now`.
pub(crate) fn check_growth(now: u64, size_bytes: u64) -> Result<(), VolumeError> {
    check_size(size_bytes)?;
    match size_bytes >= now {
        true => Ok(()),
        false => Err(VolumeError::Impossible(format!(
            "a volume is not made smaller: it has {} MiB",
            now >> 20
        ))),
    }
}

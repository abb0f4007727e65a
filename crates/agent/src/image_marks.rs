//! What an ordinary machine's images are like at a moment that counts: made, saved, restored.
//!
//! Nobody keeps the images of a saved machine as they were: they may lie where others see them. So it is written down what
//! they were like, and its memory is run from only beside images that nobody has written to since, and that its QEMU has
//! to itself by then: looked at before anything is made, and once more when they are locked.

use crate::definition;
use crate::domain::Domain;
use crate::images::Look;
use estive_api::Problem;
use estive_api::domain_xml::{Description, ImagesXml};
use estive_hypervisor::{FileId, Grip, InstanceState};
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Changes with every write to a file, and with another file in its place. The device's number does not count: it may be
/// another after a restart of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageMark {
    /// The path in the description.
    pub path: String,
    inode: u64,
    bytes: u64,
    /// Last written, seconds and nanoseconds since the epoch. Anybody can set it.
    written: (i64, i64),
    /// Last changed in any way. Nobody can set it.
    changed: (i64, i64),
}

impl ImageMark {
    pub(crate) fn of(path: &str, meta: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            inode: meta.ino(),
            bytes: meta.len(),
            written: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Domain {
    /// Its description, if it is an ordinary machine.
    pub(crate) fn images(&self) -> Result<Option<ImagesXml>, Problem> {
        match definition::read_xml(&self.agent.place(&self.name))? {
            Description::Images(xml) => Ok(Some(xml)),
            Description::Clone(_) => Ok(None),
        }
    }

    /// The QEMU that was just made has what lies at its paths, to itself; and no other host is about to run it.
    pub(crate) async fn has_its_images(&self, xml: &ImagesXml) -> Result<(), Problem> {
        for look in self.agent.look_at_images(xml).await? {
            let path = &look.disk.path;
            if self.grip(look.id).await? != Grip::Locked {
                return Err(Problem::impossible(format!(
                    "the QEMU of {} does not have what lies at {path} to itself: another file was put there meanwhile, or \
                     another QEMU has it",
                    self.name
                ))
                .advice("see who else uses the image, and start it again"));
            }
            if look.is_claimed && !look.disk.read_only {
                return Err(Problem::impossible(format!(
                    "{path} of {} is another domain's, which runs or is on its way from one host to another",
                    self.name
                ))
                .advice("end the other one first, on the host that has it"));
            }
        }
        Ok(())
    }

    /// What was looked at is what the QEMU that was just made has.
    pub(crate) async fn has_what_was_proven(&self, proven: &[FileId]) -> Result<(), Problem> {
        for id in proven {
            if self.grip(*id).await? == Grip::None {
                return Err(Problem::impossible(format!(
                    "a file of {} was replaced while it was prepared here",
                    self.name
                ))
                .advice("leave its files alone, and move it again"));
            }
        }
        Ok(())
    }

    async fn grip(&self, id: FileId) -> Result<Grip, Problem> {
        let grip = self.agent.hypervisor.grip(&self.name, id).await;
        grip.map_err(|error| self.failed("look at the files of", &error))
    }

    /// What cannot be told to be untouched later is not saved.
    pub(crate) async fn refuse_to_save_images(&self) -> Result<(), Problem> {
        let Ok(Some(xml)) = self.images() else {
            // No description, no domain: the answer to that is the order's own.
            return Ok(());
        };
        let looks = self.agent.look_at_images(&xml).await?;
        match looks.iter().find(|look| look.is_written_when_opened) {
            None => Ok(()),
            Some(look) => Err(Problem::impossible(format!(
                "{} cannot be saved: {} has bitmaps, or other things that QEMU writes anew whenever it opens the image, so that \
                 nobody could tell whether it was used meanwhile",
                self.name, look.disk.path
            ))
            .advice(
                "remove them while it is stopped (qemu-img info, qemu-img bitmap --remove), or stop it instead",
            )),
        }
    }

    /// What the images are like now that its QEMU has given them away; none of a clone.
    pub(crate) async fn marks(&self) -> Result<Vec<ImageMark>, Problem> {
        let Some(xml) = self.images()? else {
            return Ok(Vec::new());
        };
        let looks = self.agent.look_at_images(&xml).await?;
        for look in &looks {
            if self.grip(look.id).await? == Grip::None {
                return Err(Problem::impossible(format!(
                    "what lies at {} is not what {} has: it was replaced",
                    look.disk.path, self.name
                ))
                .advice("put the image back where it was"));
            }
        }
        Ok(looks.into_iter().map(|look| look.mark).collect())
    }

    /// Nobody has written to the images since it was saved; and its QEMU, once there is one, has them to itself.
    pub(crate) async fn are_as_saved(&self, xml: &ImagesXml) -> Result<(), Problem> {
        let saved = self.record.saved.as_ref();
        let saved = saved.map_or(&[][..], |saved| &saved.images);
        let changed = |look: &&Look| !saved.contains(&look.mark);
        let looks = self.agent.look_at_images(xml).await?;
        if let Some(look) = looks.iter().find(changed) {
            return Err(Problem::impossible(format!(
                "{} was written to, replaced or changed since {} was saved: its memory knows another disk",
                look.disk.path, self.name
            ))
            .advice(format!(
                "put the image back untouched, or give the memory up: estive save {} --drop, then start it",
                self.name
            )));
        }
        let state = self.agent.hypervisor.state(&self.name).await;
        match state.map_err(|error| self.failed("ask for", &error))? {
            InstanceState::Gone => Ok(()),
            _ => self.has_its_images(xml).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_write_is_seen_whatever_time_it_is_given() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk");
        fs::write(&path, "one").unwrap();
        let mark = || ImageMark::of("/disk", &fs::metadata(&path).unwrap());
        let before = mark();
        assert_eq!(before, mark());
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        // File systems count by their own ticks.
        while fs::metadata(&path).unwrap().modified().unwrap() == written {
            fs::write(&path, "two").unwrap();
        }
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(written).unwrap();
        assert_ne!(before, mark());
    }
}

//! A layer that is pushed to a domain: checked, and kept on disk beside the one before it.
//!
//! The journal names the file, so that the write of its record is the moment from which the layer is the domain's:
//! what a crash leaves before that is a file that nobody names. The instance that runs still has the former file
//! open, and has read it at its start.

use crate::journal::{Record, sync_directory};
use bytes::Bytes;
use estive_api::Problem;
use estive_api::domain_xml::LAYER_FILE;
use estive_archive::{Limits, Manifest, Reader};
use estive_model::{Digest, LAYER_DISK_BYTES};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const PREFIX: &str = "layer-";
const PARTIAL: &str = "layer-partial";

/// The archive, without padding.
#[derive(Debug, Clone)]
pub struct PushedLayer {
    /// Its bytes.
    pub bytes: Bytes,
    /// Of the bytes.
    pub digest: Digest,
}

impl PushedLayer {
    /// Refuses what no guest could read.
    pub fn check(bytes: Bytes) -> Result<Self, Problem> {
        let invalid = |reason: &dyn std::fmt::Display| {
            Problem::invalid(format!("the layer cannot be taken: {reason}"))
        };
        let mut reader = Reader::new(&bytes, Limits::default());
        Manifest::read_from(&mut reader).map_err(|error| invalid(&error))?;
        for member in &mut reader {
            member.map_err(|error| invalid(&error))?;
        }
        let end = reader.offset();
        if end as u64 > LAYER_DISK_BYTES {
            return Err(invalid(&format!(
                "it has {end} bytes, more than {LAYER_DISK_BYTES}"
            )));
        }
        let bytes = bytes.slice(..end);
        let hex: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let digest = Digest::new(format!("sha256:{hex}")).map_err(|error| invalid(&error))?;
        Ok(Self { bytes, digest })
    }

    /// Writes it to the domain's directory, whole and on disk. Blocks.
    pub fn keep(&self, place: &Path) -> io::Result<()> {
        let partial = place.join(PARTIAL);
        let mut file = fs::File::create(&partial)?;
        file.write_all(&self.bytes)?;
        file.set_len(LAYER_DISK_BYTES)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&partial, place.join(file_name(&self.digest)))?;
        sync_directory(place)
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{PREFIX}{}", digest.hex())
}

/// Where the domain's layer lies.
pub fn path(place: &Path, record: &Record) -> PathBuf {
    let pushed = record
        .pushed
        .as_ref()
        .map(|digest| place.join(file_name(digest)));
    // One that is not there was replaced by a definition just before a crash.
    pushed
        .filter(|path| path.is_file())
        .unwrap_or_else(|| place.join(LAYER_FILE))
}

/// Removes every layer but the domain's. What cannot be removed is with the next push.
pub fn remove_others(place: &Path, record: &Record) {
    let kept = path(place, record);
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_layer = name == LAYER_FILE || name.to_string_lossy().starts_with(PREFIX);
        if is_layer && entry.path() != kept {
            let _ = fs::remove_file(entry.path());
        }
    }
}

//! The manifest of a layer archive: what newc itself cannot say.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::service::check_services;
use crate::{Error, Kind, Reader, Result, Service, check_path};

/// The directory of the archive that speaks of it and is not unpacked into the layer.
pub const MANIFEST_DIRECTORY: &str = ".estive";
/// The first member of a layer archive.
pub const MANIFEST_PATH: &str = ".estive/manifest.json";
/// On a directory of a layer: nothing of the layers below is seen through it. Value `y`.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Name of an attribute to its bytes.
pub type Xattrs = BTreeMap<String, XattrValue>;

/// The bytes of an extended attribute; base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XattrValue(pub Vec<u8>);

/// Version 1 of the manifest. Paths are relative, as in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    #[serde(default)]
    pub xattrs: BTreeMap<String, Xattrs>,
    /// Directories that are here only because something lies in them: where the root has the same
    /// directory, its mode and owner are the root's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implied: Vec<String>,
    /// What to tell when a change of these files reaches the clone while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

impl Default for Manifest {
    fn default() -> Self {
        Manifest {
            version: 1,
            xattrs: BTreeMap::new(),
            implied: Vec::new(),
            services: Vec::new(),
        }
    }
}

impl Manifest {
    /// Takes the first member of a layer archive, which must be the manifest.
    pub fn read_from(reader: &mut Reader) -> Result<Manifest> {
        let member = reader.next().ok_or(Error::ManifestMissing)??;
        match member.kind {
            Kind::File(bytes) if member.path == MANIFEST_PATH => Manifest::parse(bytes),
            _ => Err(Error::ManifestMissing),
        }
    }

    /// From JSON, with every name checked.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let invalid = |reason: String| Error::ManifestInvalid { reason };
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if manifest.version != 1 {
            return Err(invalid(format!(
                "it has version {}, this init knows version 1",
                manifest.version
            )));
        }
        for path in manifest.xattrs.keys().chain(&manifest.implied) {
            check_path(path)?;
        }
        for name in manifest.xattrs.values().flat_map(BTreeMap::keys) {
            check_xattr_name(name)?;
        }
        check_services(&manifest.services)?;
        Ok(manifest)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::ManifestInvalid {
            reason: error.to_string(),
        })
    }
}

/// A name the kernel takes: `namespace.name`, at most 255 bytes (XATTR_NAME_MAX).
pub(crate) fn check_xattr_name(name: &str) -> Result<()> {
    let named = name
        .split_once('.')
        .is_some_and(|(namespace, rest)| !namespace.is_empty() && !rest.is_empty());
    if !named || name.len() > 255 || name.contains('\0') {
        return Err(Error::ManifestInvalid {
            reason: format!("{name:?} is not the name of an extended attribute"),
        });
    }
    Ok(())
}

impl Serialize for XattrValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for XattrValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map(XattrValue)
            .map_err(serde::de::Error::custom)
    }
}

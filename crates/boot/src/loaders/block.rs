//! `block`: a disk or a partition.

use std::fmt;

use super::{Form, Loader, Needs, Parameter, Place, Shape, Taken};
use crate::root_line::{PLACE_KEYS, Parsed};

pub const LOADER: Loader = Loader {
    name: "block",
    help: "A disk or a partition, waited for until it is there. Its file system is told by its first blocks \
           (ext2 to ext4, XFS, Btrfs, EROFS, SquashFS, ISO 9660, VFAT, F2FS), unless fs= says it.",
    parameters: &[Parameter {
        name: "DEVICE",
        form: Form::Place {
            keys: &PLACE_KEYS,
            optional: false,
        },
        default: "",
        help: "/dev/…, or UUID=, LABEL= of its file system, PARTUUID=, PARTLABEL= of its partition, serial= of its disk",
    }],
    is_source: true,
    takes: &[],
    gives: Shape::Device,
    example: "/dev/sda1",
};

/// How a device is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Below `/dev`, absolute.
    Path(String),
    /// Of the file system, as blkid(8) writes it; letters of any case.
    Uuid(String),
    Label(String),
    /// Of the partition: a UUID (GPT), or eight digits, `-`, and the number in two digits (MBR).
    PartUuid(String),
    PartLabel(String),
    /// Of the disk, as sysfs has it.
    Serial(String),
}

impl Which {
    /// From an option as it was written.
    pub fn parse(place: Place) -> Parsed<Which> {
        let Place { key, text } = place;
        // A path is what the kernel calls it; nothing may lead out of /dev.
        let is_device = |path: &str| {
            path.strip_prefix("/dev/").is_some_and(|name| {
                name.split('/')
                    .all(|part| !part.is_empty() && part != "." && part != "..")
            })
        };
        // There is no udev that would make these links; what they name is found without.
        let link = text.text.strip_prefix("/dev/disk/by-");
        if let (None, Some((kind, name))) = (&key, link.and_then(|link| link.split_once('/'))) {
            let name = name.to_owned();
            return match kind {
                "uuid" => Ok(Which::Uuid(name)),
                "label" => Ok(Which::Label(name)),
                "partuuid" => Ok(Which::PartUuid(name)),
                "partlabel" => Ok(Which::PartLabel(name)),
                _ => text.wrong("there is no such link this early: write UUID=, LABEL= or serial="),
            };
        }
        match key.as_deref() {
            None if is_device(&text.text) => Ok(Which::Path(text.text)),
            None => text.wrong(format!(
                "{:?} is no device: write /dev/…, or UUID=, LABEL=, PARTUUID=, PARTLABEL= or serial=",
                text.text
            )),
            Some("UUID") => Ok(Which::Uuid(text.text)),
            Some("LABEL") => Ok(Which::Label(text.text)),
            Some("PARTUUID") => Ok(Which::PartUuid(text.text)),
            Some("PARTLABEL") => Ok(Which::PartLabel(text.text)),
            Some("serial") => Ok(Which::Serial(text.text)),
            Some(other) => text.wrong(format!("a device cannot be written as {other}=")),
        }
    }
}

/// As it is written.
impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [uuid, label, part_uuid, part_label, serial] = PLACE_KEYS;
        match self {
            Which::Path(path) => f.write_str(path),
            Which::Uuid(value) => write!(f, "{uuid}={value}"),
            Which::Label(value) => write!(f, "{label}={value}"),
            Which::PartUuid(value) => write!(f, "{part_uuid}={value}"),
            Which::PartLabel(value) => write!(f, "{part_label}={value}"),
            Which::Serial(value) => write!(f, "{serial}={value}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub which: Which,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let which = Which::parse(taken.needed()?)?;
        Ok(Options { which })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.file_system(None);
    }
}

//! `livecd`: the root inside a live CD.

use super::block::Which;
use super::{Form, Loader, Needs, Parameter, Place, Shape, Taken};
use crate::root_line::{PLACE_KEYS, Parsed};

/// Where live systems keep their file systems, in the order they are looked for: Ubuntu's, Debian's, Fedora's.
pub const DIRECTORIES: [&str; 3] = ["casper", "live", "LiveOS"];

pub const LOADER: Loader = Loader {
    name: "livecd",
    help: "The root inside a live CD: the SquashFS or EROFS images in its casper/, live/ or LiveOS/, each a layer. \
           The CD is a device, or an ISO 9660 image that stands to its right.",
    parameters: &[
        Parameter {
            name: "CD",
            form: Form::Place {
                keys: &PLACE_KEYS,
                optional: true,
            },
            default: "the first live CD that is found; or what stands to the right gives",
            help: "the device; or, in the directory that stands to the right, the path of the image",
        },
        Parameter {
            name: "layers",
            form: Form::Key("PATH[,PATH]"),
            default: "all in casper/, live/ or LiveOS/, in the order of their names",
            help: "the images on the CD, bottom first",
        },
    ],
    is_source: true,
    takes: &[Shape::Directory],
    gives: Shape::Directories,
    example: "livecd+nfs:/debian.iso:10.0.0.1:/images",
};

/// More layers than overlayfs would join.
const LAYERS_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The option by its place, as a device.
    pub which: Option<Which>,
    /// Likewise, as a path below a directory.
    pub image: Option<String>,
    /// Paths on the CD, without the first `/`.
    pub layers: Vec<String>,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let (mut which, mut image) = (None, None);
        if let Some(place) = taken.place() {
            image = place
                .key
                .is_none()
                .then(|| beneath(&place.text.text))
                .flatten();
            let Place { key, text } = place.clone();
            which = match Which::parse(Place { key, text }) {
                Ok(which) => Some(which),
                Err(_) if image.is_some() => None,
                Err(wrong) => return Err(wrong),
            };
        }
        let mut layers = Vec::new();
        if let Some(text) = taken.key("layers") {
            for path in text.text.split(',') {
                match beneath(path) {
                    Some(path) if layers.len() < LAYERS_MAX => layers.push(path),
                    _ => {
                        return text.wrong(format!(
                            "{path:?} is no path on the CD, as casper/filesystem.squashfs; at most {LAYERS_MAX} of them"
                        ));
                    }
                }
            }
        }
        Ok(Options {
            which,
            image,
            layers,
        })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("loop");
        needs.file_system(None);
    }
}

/// A path without its first `/`, if it cannot lead upwards.
fn beneath(path: &str) -> Option<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/')
        .all(|part| !matches!(part, "" | "." | ".."))
        .then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Root, Stage};
    use super::*;

    fn options(text: &str) -> Options {
        let root = Root::parse(text).unwrap_or_else(|problem| panic!("{}", problem.pointed()));
        match &root.devices[0].stages[..] {
            [Stage::Livecd(options), ..] => options.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cd_is_named_by_device_or_by_path() {
        assert_eq!(options("livecd").which, None);
        let drive = options("livecd:/dev/sr0");
        assert_eq!(drive.which, Some(Which::Path("/dev/sr0".into())));
        let label = options("livecd:LABEL=Debian");
        assert_eq!(
            (label.which, label.image),
            (Some(Which::Label("Debian".into())), None)
        );
        let nfs = options("livecd+nfs:/isos/d.iso:10.0.0.1:/srv:ro");
        assert_eq!((nfs.which, nfs.image), (None, Some("isos/d.iso".into())));
        assert_eq!(options("livecd+nfs:10.0.0.1:/srv").image, None);
        let layers = options("livecd+url:http://h/x.iso:layers=/live/a.squashfs,b.img").layers;
        assert_eq!(layers, ["live/a.squashfs", "b.img"]);
        for bad in ["livecd:sr0/..", "livecd:layers=../x", "livecd:layers="] {
            assert!(Root::parse(bad).is_err(), "{bad}");
        }
    }
}

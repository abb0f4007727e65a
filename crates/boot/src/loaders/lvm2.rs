//! `lvm2`: a logical volume.

use super::{Form, Loader, Needs, Parameter, Shape, Taken, Text};
use crate::programs::LVM;
use crate::root_line::Parsed;

/// LVM's own limit for a device's name (NAME_LEN), with `-` between both.
const NAMES_BYTES_MAX: usize = 126;

pub const LOADER: Loader = Loader {
    name: "lvm2",
    help: "A logical volume, linear or striped, started by the reference's lvm: that volume alone, of no other group. \
           Its group is looked for on what stands to its right, or on every disk.",
    parameters: &[Parameter {
        name: "VOLUME",
        form: Form::Place {
            keys: &[],
            optional: false,
        },
        default: "",
        help: "/dev/GROUP/VOLUME, or /dev/mapper/GROUP-VOLUME",
    }],
    is_source: true,
    takes: &[Shape::Device],
    gives: Shape::Device,
    example: "lvm2+md:/dev/vg/volume:/dev/md0,/dev/md1",
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub group: String,
    pub volume: String,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let text = taken.needed()?.text;
        let (group, volume) = match names(&text) {
            Some(names) => names,
            None => return text.wrong("a volume is written /dev/GROUP/VOLUME"),
        };
        for name in [&group, &volume] {
            if !is_name(name) {
                return text.wrong(format!(
                    "LVM has no name {name:?}: letters, digits and + _ . - are in one, and it begins with none of - and ."
                ));
            }
        }
        match group.len() + volume.len() <= NAMES_BYTES_MAX {
            true => Ok(Options { group, volume }),
            false => text.wrong(format!(
                "group and volume together have more than LVM's {NAMES_BYTES_MAX} characters"
            )),
        }
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("dm_mod");
        needs.program(LVM);
        needs.file_system(None);
    }

    /// The name of its device in `/dev/mapper`, where each `-` of a name is doubled.
    pub fn mapper_name(&self) -> String {
        let doubled = |name: &str| name.replace('-', "--");
        format!("{}-{}", doubled(&self.group), doubled(&self.volume))
    }
}

fn names(text: &Text) -> Option<(String, String)> {
    let path = text.text.strip_prefix("/dev/").unwrap_or(&text.text);
    let Some(mapped) = path.strip_prefix("mapper/") else {
        let (group, volume) = path.split_once('/')?;
        return Some((group.to_owned(), volume.to_owned()));
    };
    // The one `-` that is not of a pair.
    let bytes = mapped.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'-' if bytes.get(at + 1) == Some(&b'-') => at += 2,
            b'-' => {
                let single = |name: &str| name.replace("--", "-");
                return Some((single(&mapped[..at]), single(&mapped[at + 1..])));
            }
            _ => at += 1,
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '.'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_written_in_two_ways() {
        let of = |text: &str| {
            let text = text.to_owned();
            names(&Text { text, at: 0 })
        };
        let pair = |group: &str, volume: &str| Some((group.to_owned(), volume.to_owned()));
        assert_eq!(of("/dev/vg/volume"), pair("vg", "volume"));
        assert_eq!(of("vg/volume"), pair("vg", "volume"));
        assert_eq!(of("/dev/mapper/a--b-c--d"), pair("a-b", "c-d"));
        assert_eq!(of("/dev/mapper/a--b"), None);
        assert_eq!(of("/dev/sda"), None);
        for wrong in ["", "-x", ".", "..", ".x", "a b", "a/b", "a\"b", "ü"] {
            assert!(!is_name(wrong), "{wrong}");
        }
        let (group, volume) = ("a-b".to_owned(), "c".to_owned());
        assert_eq!(Options { group, volume }.mapper_name(), "a--b-c");
    }
}

//! `md`: software RAID.

use super::{Form, Loader, Needs, Parameter, Shape, Taken};
use crate::programs::MDADM;
use crate::root_line::Parsed;

const ARRAYS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 32;

pub const LOADER: Loader = Loader {
    name: "md",
    help: "Arrays of the kernel's software RAID, put together by the reference's mdadm from the disks that say they \
           belong to them.",
    parameters: &[
        Parameter {
            name: "ARRAYS",
            form: Form::Place {
                keys: &["UUID"],
                optional: false,
            },
            default: "",
            help: "/dev/md0 or /dev/md/NAME, by the names that the disks have for them; or UUID= of the arrays, in \
                   brackets as mdadm writes it. Several with commas between",
        },
        Parameter {
            name: "degraded",
            form: Form::Flag,
            default: "an array starts only with the disks that it last ran with",
            help: "start an array with a disk missing",
        },
    ],
    is_source: true,
    takes: &[],
    gives: Shape::Device,
    example: "md:/dev/md0",
};

/// How an array is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Array {
    /// `/dev/md0` is `0`, `/dev/md/root` is `root`.
    Name(String),
    /// Four times eight hexadecimal digits, in lower case, `:` between.
    Uuid(String),
}

impl Array {
    /// The node to give it: mdadm chooses the number of a name that is none.
    pub fn node(&self) -> String {
        match self {
            Array::Name(name) if is_number(name) => format!("/dev/md{name}"),
            Array::Name(name) => format!("/dev/md/{name}"),
            // mdadm has no room for more of it.
            Array::Uuid(uuid) => format!("/dev/md/uuid-{}", uuid[..17].replace(':', "")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub arrays: Vec<Array>,
    /// Whether one with a disk missing is started.
    pub degraded: bool,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let degraded = taken.flag("degraded");
        let place = taken.needed()?;
        let is_uuid = place.key.is_some();
        let mut arrays = Vec::new();
        for word in place.text.text.split(',') {
            let array = match is_uuid {
                true => uuid(word).map(Array::Uuid),
                false => name(word).map(Array::Name),
            };
            match array {
                Some(array) if arrays.contains(&array) => {
                    return place.text.wrong(format!("{word} is written twice"));
                }
                Some(array) => arrays.push(array),
                None if is_uuid => {
                    return place.text.wrong(format!(
                        "{word:?} is no array's UUID: it has 32 hexadecimal digits, as in UUID=[01234567:89abcdef:01234567:89abcdef], or without the colons"
                    ));
                }
                None => {
                    return place.text.wrong(format!(
                        "{word:?} is no array: write /dev/md0 or /dev/md/NAME"
                    ));
                }
            }
        }
        match arrays.len() <= ARRAYS_MAX {
            true => Ok(Options { arrays, degraded }),
            false => place.text.wrong(format!("more than {ARRAYS_MAX} arrays")),
        }
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("md_mod");
        // Only that of the array's own level is loaded: raid456 tries its sums for a second first.
        needs.at_hand(&["linear", "raid0", "raid1", "raid10", "raid456"]);
        needs.program(MDADM);
        needs.file_system(None);
    }
}

fn name(word: &str) -> Option<String> {
    let name = match word.strip_prefix("/dev/md/") {
        Some(name) => name,
        None => word
            .strip_prefix("/dev/md")
            .filter(|number| is_number(number))?,
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && name.bytes().all(is_plain);
    is_name.then(|| name.to_owned())
}

/// A number of the kernel's: of at most six digits, and written in one way.
fn is_number(text: &str) -> bool {
    (1..=6).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

fn uuid(word: &str) -> Option<String> {
    let digits: String = word.chars().filter(|c| !":-.".contains(*c)).collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = digits.to_ascii_lowercase();
    is_uuid.then(|| {
        let parts = [0, 8, 16, 24].map(|start| &digits[start..start + 8]);
        parts.join(":")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_named_by_what_they_call_themselves() {
        assert_eq!(name("/dev/md0").as_deref(), Some("0"));
        assert_eq!(name("/dev/md/0").as_deref(), Some("0"));
        assert_eq!(name("/dev/md/root").as_deref(), Some("root"));
        for wrong in [
            "",
            "/dev/md",
            "/dev/md/",
            "/dev/mdroot",
            "/dev/sda",
            "md0",
            "/dev/md/a/b",
            "/dev/md/..",
            "/dev/md00",
        ] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert_eq!(Array::Name("0".into()).node(), "/dev/md0");
        assert_eq!(Array::Name("root".into()).node(), "/dev/md/root");
        let plain = "0123456789ABCDEF0123456789abcdef";
        let written = "01234567:89abcdef:01234567:89abcdef";
        assert_eq!(uuid(plain).as_deref(), Some(written));
        assert_eq!(uuid(written).as_deref(), Some(written));
        assert_eq!(uuid("0123"), None);
        let node = Array::Uuid(written.into()).node();
        assert_eq!(node, "/dev/md/uuid-0123456789abcdef");
    }
}

//! What a kernel module says of itself (`modinfo`): the firmware it asks for.

use object::{Object, ObjectSection};

/// Names of firmware files below `/lib/firmware`, as the module names them. Empty for what is no module, and for one
/// that says nothing.
pub fn firmware_of(module: &[u8]) -> Vec<String> {
    let Ok(file) = object::File::parse(module) else {
        return Vec::new();
    };
    let Some(Ok(info)) = file
        .section_by_name(".modinfo")
        .map(|section| section.data())
    else {
        return Vec::new();
    };
    let mut names: Vec<String> = firmware_in(info).collect();
    names.sort();
    names.dedup();
    names
}

/// Entries of `.modinfo` are `key=value`, each closed by NUL.
fn firmware_in(info: &[u8]) -> impl Iterator<Item = String> {
    info.split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("firmware="))
        .filter(|name| estive_archive::check_path(name).is_ok())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_stay_below_are_taken() {
        let info = b"license=GPL\0firmware=e100/a.bin\0firmware=../etc/shadow\0\0firmware=/b\0firmware=b\0";
        let names: Vec<String> = firmware_in(info).collect();
        assert_eq!(names, ["e100/a.bin", "b"]);
        assert!(firmware_of(b"no module").is_empty());
        assert!(firmware_of(b"\x7fELF\x02\x01\x01").is_empty());
    }
}

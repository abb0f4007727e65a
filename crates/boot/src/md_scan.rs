//! What `mdadm --examine --scan --verbose` says of the arrays that disks belong to (mdadm(8)).
//!
//! ```text
//! ARRAY /dev/md/0  level=raid1 metadata=1.2 num-devices=2 UUID=01234567:89abcdef:01234567:89abcdef name=host:0
//!    devices=/dev/vdb,/dev/vda
//! ```

use std::fmt;

use crate::loaders::md::Array;

/// More than a machine has: what follows is not read.
const ARRAYS_MAX: usize = 1024;

/// An array, as its members describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `0`, `root`: the name that it calls itself by, without the host that made it.
    pub name: Option<String>,
    /// As [`Array::Uuid`] has it.
    pub uuid: String,
    pub level: String,
    /// How many disks it has when it is whole.
    pub disks: usize,
    /// Those that are there.
    pub members: Vec<String>,
}

impl Found {
    pub fn is(&self, array: &Array) -> bool {
        match array {
            Array::Name(name) => self.name.as_ref() == Some(name),
            Array::Uuid(uuid) => self.uuid == *uuid,
        }
    }

    pub fn is_whole(&self) -> bool {
        self.members.len() >= self.disks
    }

    /// The kernel's module for its level.
    pub fn module(&self) -> &str {
        match self.level.as_str() {
            "raid4" | "raid5" | "raid6" => "raid456",
            level => level,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("without a name");
        let Found {
            uuid,
            level,
            disks,
            members,
            ..
        } = self;
        write!(
            f,
            "{name} ({level}, {} of {disks} disks, UUID={uuid})",
            members.len()
        )
    }
}

/// Every array with a UUID and a level; containers of disk controllers' own formats have none.
pub fn scan(text: &str) -> Vec<Found> {
    let mut arrays: Vec<Found> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().peekable();
        if words.next_if_eq(&"ARRAY").is_some() {
            is_open = arrays.len() < ARRAYS_MAX;
            if let Some(found) = array(words).filter(|_| is_open) {
                arrays.push(found);
            } else {
                is_open = false;
            }
            continue;
        }
        let Some(array) = arrays.last_mut().filter(|_| is_open) else {
            continue;
        };
        let members = words.filter_map(|word| word.strip_prefix("devices="));
        let members = members.flat_map(|list| list.split(','));
        let members = members.filter(|member| member.starts_with("/dev/"));
        array.members.extend(members.map(str::to_owned));
    }
    arrays
}

fn array<'a>(words: impl Iterator<Item = &'a str> + Clone) -> Option<Found> {
    let value = |key: &str| {
        let mut values = words
            .clone()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.next()
    };
    let path = words
        .clone()
        .next()
        .filter(|word| word.starts_with("/dev/"));
    // The name in the superblock, `HOST:NAME`; the oldest format has only a number, which the path shows.
    let name = match (value("name"), path) {
        (Some(name), _) => Some(name.rsplit(':').next().unwrap_or(name)),
        (None, Some(path)) => path
            .strip_prefix("/dev/md/")
            .or_else(|| path.strip_prefix("/dev/md")),
        (None, None) => None,
    };
    Some(Found {
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        uuid: value("UUID")?.to_ascii_lowercase(),
        level: value("level")?.to_owned(),
        disks: value("num-devices")?.parse().ok()?,
        members: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ARRAY /dev/md/0  level=raid1 metadata=1.2 num-devices=2 UUID=01234567:89ABCDEF:01234567:89abcdef name=maker:0
   devices=/dev/vdb,/dev/vda
ARRAY metadata=imsm UUID=aaaaaaaa:bbbbbbbb:cccccccc:dddddddd
   devices=/dev/sda
ARRAY /dev/md5 level=raid5 num-devices=3 UUID=11111111:22222222:33333333:44444444
   devices=/dev/vdc
ARRAY /dev/md/root level=raid0 metadata=1.2 spares=1 num-devices=2 UUID=5:6:7:8 name=root
";

    #[test]
    fn arrays_are_read_with_their_members() {
        let found = scan(TEXT);
        let shown: Vec<String> = found.iter().map(Found::to_string).collect();
        assert_eq!(
            shown,
            [
                "0 (raid1, 2 of 2 disks, UUID=01234567:89abcdef:01234567:89abcdef)",
                "5 (raid5, 1 of 3 disks, UUID=11111111:22222222:33333333:44444444)",
                "root (raid0, 0 of 2 disks, UUID=5:6:7:8)",
            ]
        );
        assert_eq!(found[0].members, ["/dev/vdb", "/dev/vda"]);
        assert_eq!((found[1].module(), found[2].module()), ("raid456", "raid0"));
        assert!(found[0].is_whole() && !found[1].is_whole());
        assert!(found[0].is(&Array::Name("0".into())));
        let uuid = "11111111:22222222:33333333:44444444";
        assert!(found[1].is(&Array::Uuid(uuid.into())));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(ARRAY|devices=|UUID=|level=|[a-z0-9:=/, \n]){0,40}") {
            scan(&text);
        }
    }
}

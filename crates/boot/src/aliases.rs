//! Which modules drive a device: `modules.alias`, asked with the device's own name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::modules::{canonical, lines};
use crate::{Result, glob};

/// Deeper than any tree of devices: a loop would not end.
const DEPTH_MAX: usize = 64;

/// `modules.alias` of one kernel, and what `modules.softdep` adds to it.
#[derive(Debug, Default, Clone)]
pub struct Aliases {
    /// By the bus that patterns begin with; those that begin with none of their own come under "".
    by_bus: BTreeMap<String, Vec<Alias>>,
    /// What a module asks to have before it, without needing it.
    before: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone)]
struct Alias {
    pattern: String,
    module: String,
}

impl Aliases {
    /// From the text of the two files. Lines of another kind are passed over.
    pub fn parse(modules_alias: &str, modules_softdep: &str) -> Result<Aliases> {
        let mut by_bus: BTreeMap<String, Vec<Alias>> = BTreeMap::new();
        for (_, line) in lines(modules_alias)? {
            let mut words = line.split_ascii_whitespace();
            let (Some("alias"), Some(pattern), Some(module)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            by_bus
                .entry(bus(pattern).to_owned())
                .or_default()
                .push(Alias {
                    pattern: pattern.to_owned(),
                    module: canonical(module),
                });
        }
        let mut before: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (_, line) in lines(modules_softdep)? {
            let mut words = line.split_ascii_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else {
                continue;
            };
            let wanted = words
                .skip_while(|word| *word != "pre:")
                .skip(1)
                .take_while(|word| *word != "post:")
                .map(canonical);
            before.entry(canonical(module)).or_default().extend(wanted);
        }
        Ok(Aliases { by_bus, before })
    }

    /// The modules for a device (its `MODALIAS`) or for what the kernel asks for (`mdio:…`, `fs-ext4`), each once, in
    /// the order of the file.
    pub fn modules_of(&self, name: &str) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for bus in [bus(name), ""] {
            for alias in self.by_bus.get(bus).into_iter().flatten() {
                if !found.contains(&alias.module.as_str()) && glob::matches(&alias.pattern, name) {
                    found.push(&alias.module);
                }
            }
            if bus.is_empty() {
                break;
            }
        }
        found
    }

    /// Whether devices choose this module by the names of their bus.
    pub fn drives_devices(&self, module: &str) -> bool {
        let module = canonical(module);
        let of_buses = self.by_bus.iter().filter(|(bus, _)| !bus.is_empty());
        of_buses
            .flat_map(|(_, list)| list)
            .any(|alias| alias.module == module)
    }

    /// What a module asks to have before it.
    pub fn before(&self, module: &str) -> impl Iterator<Item = &str> {
        let wanted = self.before.get(&canonical(module));
        wanted.into_iter().flatten().map(String::as_str)
    }

    /// Whether anything is known.
    pub fn is_empty(&self) -> bool {
        self.by_bus.is_empty()
    }

    /// The text of both files with only these modules.
    pub fn reduced(&self, modules: &BTreeSet<String>) -> (String, String) {
        let aliases = self
            .by_bus
            .values()
            .flatten()
            .filter(|alias| modules.contains(&alias.module))
            .map(|alias| format!("alias {} {}\n", alias.pattern, alias.module))
            .collect();
        let before = self
            .before
            .iter()
            .filter(|(module, _)| modules.contains(*module))
            .filter_map(|(module, wanted)| {
                let there: Vec<&str> = wanted
                    .iter()
                    .map(String::as_str)
                    .filter(|name| modules.contains(*name))
                    .collect();
                (!there.is_empty()).then(|| format!("softdep {module} pre: {}\n", there.join(" ")))
            })
            .collect();
        (aliases, before)
    }
}

/// What stands before the first colon, if a pattern leaves nothing open there.
fn bus(name: &str) -> &str {
    let Some((bus, _)) = name.split_once(':') else {
        return "";
    };
    // What has two spellings is looked for among all.
    match bus.contains(['*', '?', '[', '\\', '-', '_']) {
        true => "",
        false => bus,
    }
}

/// The names that drivers are chosen by, in the `uevent` file of a device.
pub fn names_of_device(uevent: &str) -> impl Iterator<Item = &str> {
    uevent
        .lines()
        .filter_map(|line| line.strip_prefix("MODALIAS="))
        .filter(|name| !name.is_empty())
}

/// The names of all devices at and below a directory of sysfs, outer ones first. Devices that are only software
/// (`/sys/devices/virtual`) are passed over.
pub fn names_below(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    collect(directory, DEPTH_MAX, &mut names);
    names
}

fn collect(directory: &Path, depth: usize, names: &mut Vec<String>) {
    if let Ok(uevent) = fs::read_to_string(directory.join("uevent")) {
        names.extend(names_of_device(&uevent).map(str::to_owned));
    }
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Links lead to other devices.
        let is_inner = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_inner && entry.file_name() != "virtual" {
            collect(&entry.path(), depth - 1, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias scsi:t-0x00* sd_mod
alias fs-ext4 ext4
alias ?ci:odd* odd-one
alias short
";
    const SOFTDEP: &str = "\
# Soft dependencies
softdep e1000 pre: phy-one gone post: after
softdep cifs gcm
";

    fn aliases() -> Aliases {
        Aliases::parse(ALIAS, SOFTDEP).unwrap()
    }

    #[test]
    fn a_device_finds_its_driver() {
        let aliases = aliases();
        let of = |name: &str| aliases.modules_of(name);
        assert_eq!(
            of("pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"),
            ["e1000"]
        );
        assert_eq!(
            of("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"),
            ["ahci"]
        );
        assert_eq!(of("pci:odd"), ["odd_one"]);
        assert_eq!(of("fs-ext4"), ["ext4"]);
        assert!(of("usb:v1").is_empty());
        assert_eq!(
            aliases.before("e1000").collect::<Vec<_>>(),
            ["phy_one", "gone"]
        );
        assert_eq!(aliases.before("cifs").count(), 0);
        assert!(aliases.drives_devices("sd-mod") && !aliases.drives_devices("ext4"));
    }

    #[test]
    fn reduced_to_what_is_taken() {
        let taken = ["e1000", "phy_one"].map(String::from).into();
        let (alias, softdep) = aliases().reduced(&taken);
        assert_eq!(alias, "alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n");
        assert_eq!(softdep, "softdep e1000 pre: phy_one\n");
    }

    #[test]
    fn names_stand_in_the_event_file() {
        let uevent = "DRIVER=x\nMODALIAS=mmc:block\nMODALIAS=\nMODALIAS=b\n";
        assert_eq!(
            names_of_device(uevent).collect::<Vec<_>>(),
            ["mmc:block", "b"]
        );
    }

    #[test]
    fn devices_are_found_in_sysfs() {
        let sysfs = tempfile::tempdir().unwrap();
        let device = |path: &str, uevent: &str| {
            let place = sysfs.path().join(path);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("uevent"), uevent).unwrap();
        };
        device("pci0/0:1", "MODALIAS=pci:bus\n");
        device("pci0/0:1/ata1/disk", "DRIVER=sd\nMODALIAS=scsi:t-0x00\n");
        device("virtual/tty", "MODALIAS=no\n");
        let place = sysfs.path().join("pci0/0:1/subsystem");
        std::os::unix::fs::symlink("..", place).unwrap();
        assert_eq!(names_below(sysfs.path()), ["pci:bus", "scsi:t-0x00"]);
    }

    proptest! {
        /// What is reduced answers as the whole does, as far as it goes.
        #[test]
        fn reduced_says_the_same(
            patterns in prop::collection::vec(("[a-c:*?]{1,6}", "[m-p]"), 0..20),
            name in "[a-c:]{1,6}",
            taken in prop::collection::btree_set("[m-p]", 0..4),
        ) {
            let text: String = patterns.iter().map(|(p, m)| format!("alias {p} {m}\n")).collect();
            let whole = Aliases::parse(&text, "").unwrap();
            let (reduced, softdep) = whole.reduced(&taken);
            let reduced = Aliases::parse(&reduced, &softdep).unwrap();
            let mut expected = whole.modules_of(&name);
            expected.retain(|module| taken.contains(*module));
            prop_assert_eq!(reduced.modules_of(&name), expected);
            // By pattern alone, whatever the bus.
            let mut plain: Vec<&str> = patterns
                .iter()
                .filter(|(pattern, _)| glob::matches(pattern, &name))
                .map(|(_, module)| module.as_str())
                .collect();
            plain.sort_unstable();
            plain.dedup();
            let mut found = whole.modules_of(&name);
            found.sort_unstable();
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[a-z :*\\[\n]{0,200}") {
            if let Ok(aliases) = Aliases::parse(&text, &text) {
                let _ = aliases.modules_of(&text);
            }
        }
    }
}

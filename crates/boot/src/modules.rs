//! Which kernel modules are needed, and in which order they are loaded.
//!
//! `modules.dep` says for each module file all the modules it needs, directly or not
//! (modules.dep(5)); `modules.builtin` names those that are part of the kernel.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, Result};

/// Loaded before the clone has its identity: buses, disks, file systems.
///
/// `erofs` needs the checksum crc32c through the kernel's crypto interface, which `modules.dep`
/// does not know; the kernel would call `modprobe` for it, and there is none. Which module has it
/// changed over time, and most kernels have it built in.
pub const BEFORE_IDENTITY: [&str; 9] = [
    "crc32c_generic",
    "crc32c_cryptoapi",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_rng",
    "virtio_net",
    "erofs",
    "overlay",
];
/// Loaded when the identity is asked for, as late as possible: a forked template then sees its own.
pub const FOR_IDENTITY: [&str; 1] = ["qemu_fw_cfg"];
/// Of the volume of a stateful clone: kernels that have it built in need no other initial RAM file system for it.
pub const IF_BUILT_IN: [&str; 1] = ["ext4"];
/// A kernel may be without these: the checksum is built in, the guest has less entropy, or it waits
/// on the identity port.
pub const OPTIONAL: [&str; 4] = [
    "crc32c_generic",
    "crc32c_cryptoapi",
    "virtio_rng",
    "qemu_fw_cfg",
];

const LINES_MAX: usize = 100_000;
const LINE_BYTES_MAX: usize = 64 << 10;

/// `modules.dep` and `modules.builtin` of one kernel.
#[derive(Debug, Default, Clone)]
pub struct ModulesDep {
    /// By name: the file, and the names of what it needs in the order of the file.
    modules: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl ModulesDep {
    /// From the text of the two files.
    pub fn parse(modules_dep: &str, modules_builtin: &str) -> Result<ModulesDep> {
        let mut modules = BTreeMap::new();
        for (index, line) in lines(modules_dep)? {
            let bad = || Error::ModulesDep {
                line: index + 1,
                text: line.chars().take(120).collect(),
            };
            let (file, needs) = line.split_once(':').ok_or_else(bad)?;
            let name = module_name(file).ok_or_else(bad)?;
            let needs = needs
                .split_ascii_whitespace()
                .map(|file| module_name(file).ok_or_else(bad))
                .collect::<Result<Vec<_>>>()?;
            modules.insert(name, (file.trim().to_owned(), needs));
        }
        let builtin = lines(modules_builtin)?
            .filter_map(|(_, line)| module_name(line))
            .collect();
        Ok(ModulesDep { modules, builtin })
    }

    /// The names of the modules to load for `wanted`, each after everything it needs. What is
    /// built in is left out; what does not exist is an error unless it is among `optional`.
    pub fn closure(&self, wanted: &[&str], optional: &[&str]) -> Result<Vec<String>> {
        let optional: BTreeSet<String> = optional.iter().map(|name| canonical(name)).collect();
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            let name = canonical(name);
            if !self.has(&name) && optional.contains(&name) {
                continue;
            }
            self.visit(&name, None, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    /// The file of a module, as `modules.dep` writes it.
    pub fn file(&self, name: &str) -> Option<&str> {
        let (file, _) = self.modules.get(&canonical(name))?;
        Some(file)
    }

    /// Every module by its name, and its file.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.modules.iter();
        files.map(|(name, (file, _))| (name.as_str(), file.as_str()))
    }

    /// Whether the kernel has it, as a module or built in.
    pub fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.modules.contains_key(&name) || self.builtin.contains(&name)
    }

    /// Whether it is part of the kernel itself.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.builtin.contains(&canonical(name))
    }

    /// The text of a `modules.dep` with only these modules, their files named `NAME.ko`, and of a
    /// `modules.builtin` with those of `wanted` that are built in.
    pub fn reduced(&self, closure: &[String], wanted: &[&str]) -> (String, String) {
        let mut dep = String::new();
        for name in closure {
            dep += &format!("{name}.ko:");
            for need in self.modules.get(name).iter().flat_map(|(_, needs)| needs) {
                if !self.builtin.contains(need) {
                    dep += &format!(" {need}.ko");
                }
            }
            dep.push('\n');
        }
        let builtin = wanted
            .iter()
            .map(|name| canonical(name))
            .filter(|name| self.builtin.contains(name))
            .map(|name| name + ".ko\n")
            .collect();
        (dep, builtin)
    }

    /// Depth first, so that what a module needs comes before it. A circle in the file ends at the
    /// module already being visited.
    fn visit(
        &self,
        name: &str,
        needed_by: Option<&str>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let (_, needs) = self.modules.get(name).ok_or_else(|| Error::ModuleMissing {
            name: name.to_owned(),
            needed_by: needed_by
                .map(|by| format!(", needed by {by:?}"))
                .unwrap_or_default(),
        })?;
        // depmod writes the nearest need first and the deepest last.
        for need in needs.iter().rev() {
            self.visit(need, Some(name), seen, order)?;
        }
        order.push(name.to_owned());
        Ok(())
    }
}

/// The kernel takes `-` and `_` in names for the same.
pub(crate) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of the module in a file: `kernel/fs/x-y.ko.xz` is `x_y`.
fn module_name(file: &str) -> Option<String> {
    let base = file.trim().rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|ending| base.strip_suffix(ending))?;
    (!stem.is_empty()).then(|| canonical(stem))
}

pub(crate) fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>> {
    let too_large = Error::ModulesDepSize { limit: LINES_MAX };
    if text.lines().count() > LINES_MAX || text.lines().any(|line| line.len() > LINE_BYTES_MAX) {
        return Err(too_large);
    }
    Ok(text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/a.ko.zst: kernel/b.ko
kernel/b.ko: kernel/a.ko
kernel/c.ko: kernel/gone.ko
";

    fn modules() -> ModulesDep {
        ModulesDep::parse(DEP, "kernel/fs/overlayfs/overlay.ko\n").unwrap()
    }

    #[test]
    fn needs_come_before_what_needs_them() {
        let order = modules()
            .closure(&["virtio-pci", "virtio_rng", "overlay"], &[])
            .unwrap();
        assert_eq!(
            order,
            [
                "virtio_ring",
                "virtio",
                "virtio_pci_modern_dev",
                "virtio_pci",
                "virtio_rng"
            ]
        );
    }

    #[test]
    fn what_is_missing_is_named_unless_optional() {
        let error = modules().closure(&["erofs"], &[]).unwrap_err().to_string();
        assert!(error.contains("\"erofs\""), "{error}");
        let error = modules().closure(&["c"], &["c"]).unwrap_err().to_string();
        assert!(error.contains("\"gone\", needed by \"c\""), "{error}");
        assert!(
            modules()
                .closure(&["erofs"], &["erofs"])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(modules().closure(&["a"], &[]).unwrap(), ["b", "a"]);
    }

    #[test]
    fn the_reduced_text_gives_the_same_closure() {
        let wanted = ["virtio_pci", "virtio-rng", "overlay"];
        let closure = modules().closure(&wanted, &[]).unwrap();
        let (dep, builtin) = modules().reduced(&closure, &wanted);
        let again = ModulesDep::parse(&dep, &builtin).unwrap();
        assert_eq!(again.closure(&wanted, &[]).unwrap(), closure);
        assert_eq!(again.file("virtio-rng"), Some("virtio_rng.ko"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[ab:./\n ko-]{0,200}") {
            if let Ok(modules) = ModulesDep::parse(&text, &text) {
                let _ = modules.closure(&["a", "b"], &["a"]);
            }
        }
    }
}

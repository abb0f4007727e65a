//! The initramfs of a clone: PID 1, the console, and the modules it loads.
//!
//! Not compressed: at 2.5 MB, gzip made no difference to the time of a boot that could be told from
//! noise (six of each under emulation, 4.0 s of CPU both), and one thing less can go wrong.

use std::collections::BTreeSet;

use estive_archive::{Kind, Limits, Member, Reader, Writer};

use crate::loaders::Needs;
use crate::modules::{BEFORE_IDENTITY, FOR_IDENTITY, IF_BUILT_IN, ModulesDep, OPTIONAL};
use crate::{KernelModules, Result};

const INIT: &str = "init";
const DEP: &str = "lib/modules/modules.dep";
const BUILTIN: &str = "lib/modules/modules.builtin";

/// A newc archive with `/init`, `/dev/console` and, under `/lib/modules`, the modules PID 1 needs
/// for a clone without `root=`: decompressed, `NAME.ko`, with a `modules.dep` and `modules.builtin`
/// reduced to them.
///
/// `init` is the static `estive-init`. The same input gives the same bytes.
pub fn build(init: &[u8], kernel: &impl KernelModules) -> Result<Vec<u8>> {
    let modules = kernel.modules_dep()?;
    let built_in = IF_BUILT_IN.into_iter();
    let wanted: Vec<&str> = BEFORE_IDENTITY
        .into_iter()
        .chain(FOR_IDENTITY)
        .chain(built_in.filter(|name| modules.is_built_in(name)))
        .collect();
    write(init, kernel, &modules, &wanted, &OPTIONAL, [])
}

/// Likewise for a line with these needs. `extras` are there besides, such as programs with their
/// libraries; directories on their way are made.
pub fn build_for<'a>(
    init: &[u8],
    kernel: &impl KernelModules,
    needs: &Needs,
    extras: impl IntoIterator<Item = Member<'a>>,
) -> Result<Vec<u8>> {
    let modules = kernel.modules_dep()?;
    let optional: Vec<&str> = needs
        .modules_if_there
        .iter()
        .chain(&needs.modules_at_hand)
        .map(String::as_str)
        .collect();
    let needed = needs.modules.iter().map(String::as_str);
    // What is needed is not made optional by being at hand too.
    let optional: Vec<&str> = optional
        .into_iter()
        .filter(|name| !needed.clone().any(|needed| needed == *name))
        .collect();
    let wanted: Vec<&str> = needed.chain(optional.iter().copied()).collect();
    write(init, kernel, &modules, &wanted, &optional, extras)
}

fn write<'a>(
    init: &[u8],
    kernel: &impl KernelModules,
    modules: &ModulesDep,
    wanted: &[&str],
    optional: &[&str],
    extras: impl IntoIterator<Item = Member<'a>>,
) -> Result<Vec<u8>> {
    let closure = modules.closure(wanted, optional)?;
    let (dep, builtin) = modules.reduced(&closure, wanted);

    let mut writer = Writer::new(Vec::new());
    for directory in ["dev", "lib", "lib/modules"] {
        writer.add(&Member::directory(directory, 0o755))?;
    }
    // Without it the kernel starts PID 1 with no standard streams at all.
    let console = Kind::CharacterDevice { major: 5, minor: 1 };
    writer.add(&Member::new("dev/console", 0o600, console))?;
    writer.add(&Member::file(INIT, 0o755, init))?;
    writer.add(&Member::file(DEP, 0o644, dep.as_bytes()))?;
    writer.add(&Member::file(BUILTIN, 0o644, builtin.as_bytes()))?;
    for name in &closure {
        // The closure only names modules that have a file.
        let file = modules.file(name).unwrap_or(name);
        let path = format!("lib/modules/{name}.ko");
        writer.add(&Member::file(&path, 0o644, &kernel.module(file)?))?;
    }
    let mut made = BTreeSet::from(["dev", "lib", "lib/modules"]);
    for extra in extras {
        for (end, _) in extra.path.match_indices('/') {
            if made.insert(&extra.path[..end]) {
                writer.add(&Member::directory(&extra.path[..end], 0o755))?;
            }
        }
        // Several may bring the same directory.
        if extra.kind != Kind::Directory || made.insert(extra.path) {
            writer.add(&extra)?;
        }
    }
    Ok(writer.finish()?)
}

/// What one that was made here has.
#[derive(Debug, Clone)]
pub struct Contents<'a> {
    /// `estive-init`.
    pub init: &'a [u8],
    /// Its modules, and those that it was made to know as built in.
    pub modules: ModulesDep,
}

/// `None`: it is none that was made here, or was packed since.
pub fn contents(archive: &[u8]) -> Option<Contents<'_>> {
    let (mut init, mut dep, mut builtin) = (None, None, None);
    for member in Reader::new(archive, Limits::default()) {
        let member = member.ok()?;
        let Kind::File(content) = member.kind else {
            continue;
        };
        match member.path {
            INIT => init = Some(content),
            DEP => dep = Some(content),
            BUILTIN => builtin = Some(content),
            _ => {}
        }
    }
    fn text(bytes: Option<&[u8]>) -> Option<&str> {
        std::str::from_utf8(bytes?).ok()
    }
    Some(Contents {
        init: init?,
        modules: ModulesDep::parse(text(dep)?, text(builtin)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;
    use std::path::PathBuf;

    /// A kernel with every module of `named` as a file, and these built in.
    struct Kernel {
        named: Vec<&'static str>,
        built_in: &'static str,
    }

    impl KernelModules for Kernel {
        fn file(&self, path: &str, _: u64) -> Result<Option<Vec<u8>>> {
            Ok(Some(match path {
                "modules.dep" => {
                    let lines = self.named.iter().map(|name| format!("kernel/{name}.ko:\n"));
                    lines.collect::<String>().into_bytes()
                }
                "modules.builtin" => self.built_in.into(),
                module => module.into(),
            }))
        }

        fn place(&self, path: &str) -> PathBuf {
            path.into()
        }
    }

    #[test]
    fn what_was_made_is_read_again_and_tells_which_lines_it_is_for() {
        let named: Vec<&str> = BEFORE_IDENTITY.into_iter().chain(FOR_IDENTITY).collect();
        let with_module = Kernel {
            named: named.iter().copied().chain(["ext4"]).collect(),
            built_in: "",
        };
        let built_in = Kernel {
            named,
            built_in: "kernel/fs/ext4/ext4.ko\n",
        };
        let line = |text| Root::parse(text).unwrap();
        let stateful = line("erofs;estive;serial=estive-volume:fs=ext4");
        for (kernel, is_met) in [(&with_module, false), (&built_in, true)] {
            let made = build(b"init", kernel).unwrap();
            let found = contents(&made).unwrap();
            assert_eq!(found.init, b"init");
            assert!(found.modules.has("virtio-blk"));
            // What clones do not need without a volume takes no room.
            assert_eq!(found.modules.file("ext4"), None);
            assert_eq!(stateful.is_met_by(&found.modules), is_met);
            assert!(line("erofs;estive;tmpfs:size=1g").is_met_by(&found.modules));
            for other in [
                "erofs;estive;serial=estive-volume",
                "erofs;estive;serial=estive-volume:fs=xfs",
                "erofs;estive;serial=other:fs=ext4",
                "erofs;estive;/dev/vdd:fs=ext4",
                "nfs:10.0.0.1:/;tmpfs",
            ] {
                assert!(!line(other).is_met_by(&found.modules), "{other}");
            }
        }
        let made = build_for(b"init", &with_module, &stateful.needs(), []).unwrap();
        assert!(contents(&made).unwrap().modules.file("ext4").is_some());
        for broken in [&b""[..], b"\x1f\x8b packed", &made[..made.len() / 2]] {
            assert!(contents(broken).is_none());
        }
    }
}

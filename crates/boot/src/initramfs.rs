//! The initramfs of a clone: PID 1, the console, and the modules it loads.
//!
//! Not compressed: at 2.5 MB, gzip made no difference to the time of a boot that could be told from
//! noise (six of each under emulation, 4.0 s of CPU both), and one thing less can go wrong.

use std::collections::BTreeSet;

use estive_archive::{Kind, Member, Writer};

use crate::loaders::Needs;
use crate::modules::{BEFORE_IDENTITY, FOR_IDENTITY, ModulesDep, OPTIONAL};
use crate::{KernelTree, Result};

/// Something that is in an initramfs besides PID 1 and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Without a leading `/`; the directories on its way are made.
    pub path: String,
    pub content: Content,
}

/// What an [`Extra`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// With its mode.
    File(u32, Vec<u8>),
    /// To this target.
    Symlink(String),
}

/// A newc archive with `/init`, `/dev/console` and, under `/lib/modules`, the modules PID 1 needs
/// for a clone without `root=`: decompressed, `NAME.ko`, with a `modules.dep` and `modules.builtin`
/// reduced to them.
///
/// `init` is the static `estive-init`. The same input gives the same bytes.
pub fn build(init: &[u8], kernel: &KernelTree) -> Result<Vec<u8>> {
    let wanted: Vec<&str> = BEFORE_IDENTITY.into_iter().chain(FOR_IDENTITY).collect();
    let modules = kernel.modules_dep()?;
    write(init, kernel, &modules, &wanted, &OPTIONAL, &[])
}

/// Likewise for a line with these needs, with programs and their libraries besides.
pub fn build_for(
    init: &[u8],
    kernel: &KernelTree,
    needs: &Needs,
    extras: &[Extra],
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

fn write(
    init: &[u8],
    kernel: &KernelTree,
    modules: &ModulesDep,
    wanted: &[&str],
    optional: &[&str],
    extras: &[Extra],
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
    writer.add(&Member::file("init", 0o755, init))?;
    writer.add(&Member::file(
        "lib/modules/modules.dep",
        0o644,
        dep.as_bytes(),
    ))?;
    writer.add(&Member::file(
        "lib/modules/modules.builtin",
        0o644,
        builtin.as_bytes(),
    ))?;
    for name in &closure {
        // The closure only names modules that have a file.
        let file = modules.file(name).unwrap_or(name);
        let path = format!("lib/modules/{name}.ko");
        writer.add(&Member::file(&path, 0o644, &kernel.module(file)?))?;
    }
    let mut made = BTreeSet::from(["dev", "lib", "lib/modules"]);
    for Extra { path, content } in extras {
        for (end, _) in path.match_indices('/') {
            if made.insert(&path[..end]) {
                writer.add(&Member::directory(&path[..end], 0o755))?;
            }
        }
        match content {
            Content::File(mode, bytes) => writer.add(&Member::file(path, *mode, bytes))?,
            Content::Symlink(target) => {
                writer.add(&Member::new(path, 0o777, Kind::Symlink(target)))?;
            }
        }
    }
    Ok(writer.finish()?)
}

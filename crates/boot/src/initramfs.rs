//! The initramfs of a clone: PID 1, the console, and the modules it loads.
//!
//! Not compressed: at 2.5 MB, gzip made no difference to the time of a boot that could be told from
//! noise (six of each under emulation, 4.0 s of CPU both), and one thing less can go wrong.

use std::collections::BTreeSet;

use estive_archive::{Kind, Member, Writer};

use crate::loaders::Needs;
use crate::modules::{BEFORE_IDENTITY, FOR_IDENTITY, ModulesDep, OPTIONAL};
use crate::{KernelTree, Result};

/// A newc archive with `/init`, `/dev/console` and, under `/lib/modules`, the modules PID 1 needs
/// for a clone without `root=`: decompressed, `NAME.ko`, with a `modules.dep` and `modules.builtin`
/// reduced to them.
///
/// `init` is the static `estive-init`. The same input gives the same bytes.
pub fn build(init: &[u8], kernel: &KernelTree) -> Result<Vec<u8>> {
    let wanted: Vec<&str> = BEFORE_IDENTITY.into_iter().chain(FOR_IDENTITY).collect();
    let modules = kernel.modules_dep()?;
    write(init, kernel, &modules, &wanted, &OPTIONAL, [])
}

/// Likewise for a line with these needs. `extras` are there besides, such as programs with their
/// libraries; directories on their way are made.
pub fn build_for<'a>(
    init: &[u8],
    kernel: &KernelTree,
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
    kernel: &KernelTree,
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

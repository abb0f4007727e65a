//! The initramfs of a clone: PID 1, the console, and the modules it loads.
//!
//! Not compressed: at 2.5 MB, gzip made no difference to the time of a boot that could be told from
//! noise (six of each under emulation, 4.0 s of CPU both), and one thing less can go wrong.

use estive_archive::{Kind, Member, Writer};

use crate::modules::{BEFORE_IDENTITY, FOR_IDENTITY, OPTIONAL};
use crate::{KernelTree, Result};

/// A newc archive with `/init`, `/dev/console` and, under `/lib/modules`, the modules PID 1 needs:
/// decompressed, `NAME.ko`, with a `modules.dep` and `modules.builtin` reduced to them.
///
/// `init` is the static `estive-init`. The same input gives the same bytes.
pub fn build(init: &[u8], kernel: &KernelTree) -> Result<Vec<u8>> {
    let wanted: Vec<&str> = BEFORE_IDENTITY.into_iter().chain(FOR_IDENTITY).collect();
    let modules = kernel.modules_dep()?;
    let closure = modules.closure(&wanted, &OPTIONAL)?;
    let (dep, builtin) = modules.reduced(&closure, &wanted);

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
    Ok(writer.finish()?)
}

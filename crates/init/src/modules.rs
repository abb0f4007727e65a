//! Loading kernel modules by the closure of the initramfs's own `modules.dep`.

use std::fs::{self, File};

use estive_boot::modules::{ModulesDep, OPTIONAL};
use rustix::io::Errno;
use rustix::system::finit_module;

use crate::console::say;
use crate::failure::{Result, While, fail};

const DIRECTORY: &str = "/lib/modules";

pub struct Modules(ModulesDep);

impl Modules {
    pub fn read() -> Result<Modules> {
        let read = |name: &str| {
            let path = format!("{DIRECTORY}/{name}");
            fs::read_to_string(&path)
                .doing(|| format!("reading {path} (build the initramfs with estive)"))
        };
        ModulesDep::parse(&read("modules.dep")?, &read("modules.builtin")?)
            .map(Modules)
            .doing(|| "the list of modules in the initramfs".into())
    }

    /// Loads these and all they need, each after what it needs.
    pub fn load(&self, wanted: &[&str]) -> Result<()> {
        let closure = self
            .0
            .closure(wanted, &OPTIONAL)
            .doing(|| "the modules of the initramfs".into())?;
        closure.iter().try_for_each(|name| load(name))
    }

    /// Likewise for those that the initramfs has. One whose device this machine lacks is no failure.
    pub fn load_if_there<T: AsRef<str>>(&self, wanted: &[T]) -> Result<()> {
        for name in wanted.iter().map(AsRef::as_ref) {
            if !self.0.has(name) {
                continue;
            }
            let closure = self
                .0
                .closure(&[name], &[])
                .doing(|| "the modules of the initramfs".into())?;
            if let Err(failure) = closure.iter().try_for_each(|name| load(name)) {
                say(&format!("without {name}: {}", failure.0));
            }
        }
        Ok(())
    }
}

fn load(name: &str) -> Result<()> {
    let path = format!("{DIRECTORY}/{name}.ko");
    let file = File::open(&path).doing(|| format!("opening {path}"))?;
    match finit_module(&file, c"", 0) {
        // Loaded already, for instance by an earlier closure.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // The module is fine but this machine has no such device (qemu_fw_cfg, virtio_rng).
        Err(Errno::NODEV) if OPTIONAL.contains(&name) => Ok(()),
        Err(errno) => fail(format!(
            "the kernel refuses the module {name} ({errno}): the initramfs must be built for this kernel, {}",
            kernel_release()
        )),
    }
}

/// As `uname -r` says it.
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

//! Loading kernel modules by the closure of the initramfs's own `modules.dep`.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use estive_boot::modules::{ModulesDep, OPTIONAL};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::system::finit_module;

use crate::console::say;
use crate::failure::{Result, While, fail};

pub const DIRECTORY: &str = "/lib/modules";

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

    /// Whether the initramfs has it.
    pub fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// A module after all it needs.
    pub fn closure(&self, name: &str) -> Result<Vec<String>> {
        let order = self.0.closure(&[name], &[]);
        order.doing(|| "the modules of the initramfs".into())
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
    match load_with(name, c"") {
        Ok(()) => Ok(()),
        // The module is fine but this machine has no such device (qemu_fw_cfg, virtio_rng).
        Err(Errno::NODEV) if OPTIONAL.contains(&name) => Ok(()),
        Err(errno) => fail(format!(
            "the kernel refuses the module {name} ({errno}): the initramfs must be built for this kernel, {}",
            kernel_release()
        )),
    }
}

/// Loads one module with its options. One that is loaded already, for instance by an earlier closure, is well.
pub fn load_with(name: &str, options: &CStr) -> rustix::io::Result<()> {
    // The kernel would read the whole file again before it says so.
    if Path::new("/sys/module").join(name).exists() {
        return Ok(());
    }
    let path = format!("{DIRECTORY}/{name}.ko");
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match finit_module(&file, options, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// As `uname -r` says it.
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

//! Drivers for the devices that are there: on machines that nobody knew when the initramfs was made.
//!
//! Each device says by which names its driver is chosen; `modules.alias` says which module that is. Devices that are
//! there already are asked once, those that come (behind a bus whose driver was loaded, or plugged in) are heard of from
//! the kernel. An initramfs without `modules.alias`, as every clone's, has none of this.
//!
//! While a driver starts, the kernel itself asks for more (the transceiver of a network card): it calls
//! `/sbin/modprobe`, which in such an initramfs is this program.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use estive_boot::aliases::{Aliases, names_below, names_of_device};
use estive_boot::module_options;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::failure::{Result, While};
use crate::modules::{DIRECTORY, Modules, load_with};

/// What the kernel calls when it wants a module.
pub const MODPROBE: &str = "modprobe";
const DEVICES: &str = "/sys/devices";
/// The kernel's own events, not those of udev.
const KERNEL_EVENTS: u32 = 1;
const EVENT_BYTES_MAX: usize = 8192;

/// One for the whole program: whoever waits for a device lets drivers come meanwhile.
static DRIVERS: Mutex<Option<Drivers>> = Mutex::new(None);

struct Drivers {
    modules: Modules,
    aliases: Aliases,
    line: String,
    events: OwnedFd,
    /// Names of devices that were asked for.
    asked: BTreeSet<String>,
}

/// What was begun.
pub struct Begun {
    aliases: Option<Aliases>,
    /// Devices that were there and say how they are driven.
    pub devices: usize,
}

impl Begun {
    /// Whether drivers are chosen by devices.
    pub fn is_there(&self) -> bool {
        self.aliases.is_some()
    }

    /// Those of `modules` that no device would ask for: drivers come with their devices, and not without.
    pub fn others<'a>(&self, modules: &'a [String]) -> Vec<&'a str> {
        let is_driver = |module: &str| {
            let aliases = self.aliases.as_ref();
            aliases.is_some_and(|aliases| aliases.drives_devices(module))
        };
        let modules = modules.iter().map(String::as_str);
        modules.filter(|module| !is_driver(module)).collect()
    }
}

/// Loads the drivers of the devices that are there, if the initramfs has any to choose from.
pub fn begin() -> Result<Begun> {
    let modules = Modules::read()?;
    let Some(aliases) = aliases()? else {
        return Ok(Begun {
            aliases: None,
            devices: 0,
        });
    };
    let known = aliases.clone();
    let events = listen().doing(|| "listening to the kernel's events".into())?;
    let mut drivers = Drivers {
        modules,
        aliases,
        line: command_line()?,
        events,
        asked: BTreeSet::new(),
    };
    drivers.look_at_all();
    drivers.hear();
    let devices = drivers.asked.len();
    *held() = Some(drivers);
    Ok(Begun {
        aliases: Some(known),
        devices,
    })
}

/// Loads the drivers of devices that came since.
pub fn go_on() {
    if let Some(drivers) = held().as_mut() {
        drivers.hear();
    }
}

/// `/sbin/modprobe -q -- NAME`, as the kernel calls it.
pub fn modprobe(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let names: Vec<String> = arguments
        .filter_map(|word| word.into_string().ok())
        .filter(|word| !word.starts_with('-'))
        .collect();
    match names.iter().try_for_each(|name| load_as_asked(name)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A module by its name, or by one that it goes by.
fn load_as_asked(name: &str) -> Result<()> {
    let (modules, line) = (Modules::read()?, command_line()?);
    let aliases = aliases()?.unwrap_or_default();
    if modules.has(name) {
        load_closure(&modules, &aliases, &line, name);
        return Ok(());
    }
    for module in aliases.modules_of(name) {
        if !module_options::is_unwanted(&line, module) {
            load_closure(&modules, &aliases, &line, module);
        }
    }
    Ok(())
}

impl Drivers {
    fn look_at_all(&mut self) {
        for name in names_below(Path::new(DEVICES)) {
            self.drive(&name);
        }
    }

    /// Takes every event that waits; loading a driver makes more of them.
    fn hear(&mut self) {
        let mut buffer = [0; EVENT_BYTES_MAX];
        loop {
            match recv(&self.events, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).replace('\0', "\n");
                    names_of_device(&text).for_each(|name| self.drive(name));
                }
                // More came than the kernel keeps for us.
                Err(Errno::NOBUFS) => self.look_at_all(),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Loads what drives a device of this name, once.
    fn drive(&mut self, name: &str) {
        if !self.asked.insert(name.to_owned()) {
            return;
        }
        for module in self.aliases.modules_of(name) {
            if !module_options::is_unwanted(&self.line, module) {
                load_closure(&self.modules, &self.aliases, &self.line, module);
            }
        }
    }
}

/// A module after all it needs and all it likes to have before it. What cannot be loaded is said and no more: another
/// device may be the one that is waited for.
fn load_closure(modules: &Modules, aliases: &Aliases, line: &str, name: &str) {
    let before = aliases.before(name).filter(|before| modules.has(before));
    for wanted in before.chain([name]) {
        let order = match modules.closure(wanted) {
            Ok(order) => order,
            Err(failure) => {
                eprintln!("estive-init: the driver {wanted}: {}", failure.0);
                continue;
            }
        };
        for module in order {
            let options = module_options::options_of(line, &module);
            // The line of the kernel has no NUL.
            let options = CString::new(options).unwrap_or_default();
            match load_with(&module, &options) {
                // There is no such device after all, or it has a driver already.
                Ok(()) | Err(Errno::NODEV | Errno::BUSY) => {}
                Err(errno) => {
                    eprintln!("estive-init: the kernel refuses the driver {module}: {errno}")
                }
            }
        }
    }
}

fn held() -> MutexGuard<'static, Option<Drivers>> {
    DRIVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the initramfs knows of drivers; nothing when it was made for one kind of machine.
fn aliases() -> Result<Option<Aliases>> {
    let read = |name: &str| fs::read_to_string(format!("{DIRECTORY}/{name}"));
    let Ok(text) = read("modules.alias") else {
        return Ok(None);
    };
    Aliases::parse(&text, &read("modules.softdep").unwrap_or_default())
        .map(Some)
        .doing(|| "the list of drivers in the initramfs".into())
}

fn command_line() -> Result<String> {
    fs::read_to_string("/proc/cmdline").doing(|| "reading /proc/cmdline".into())
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(KOBJECT_UEVENT),
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL_EVENTS))?;
    Ok(socket)
}

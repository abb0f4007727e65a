//! A line understood: each device's stages with their options, checked to fit together.

use std::fmt;

use super::block::Which;
use super::needs::{INTERFACES, Needs, of_any_line};
use super::taken::{Taken, deal};
use super::{LOADERS, Loader, Stage, gone};
use crate::disk::VOLUME;
use crate::modules::ModulesDep;
use crate::root_line::{DeviceText, Name, Parsed, Problem, RootLine, Wrong};
use crate::superblock::modules_of;

/// Whether a device is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    /// It must be writable.
    Writable,
    /// As its place says: written to where it is on top and can be.
    AsFits,
}

/// One device of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Left to right, at least one; the last is the source.
    pub stages: Vec<Stage>,
    pub access: Access,
    /// The file system to mount, where one is to be and it was said.
    pub fs: Option<String>,
    text: DeviceText,
}

impl Device {
    /// Whether it is one that each clone has, found by its usual name.
    fn is_of_clones(&self) -> bool {
        self.stages.iter().all(|stage| match stage {
            Stage::Tmpfs(_) => true,
            Stage::Erofs(options) => !options.is_given,
            Stage::Estive(options) => !options.is_given,
            _ => false,
        })
    }

    /// Whether it is a clone's volume, with a file system that is known and there.
    fn is_volume_met_by(&self, modules: &ModulesDep) -> bool {
        let [Stage::Block(options)] = &self.stages[..] else {
            return false;
        };
        let Some(fs) = &self.fs else {
            return false;
        };
        options.which == Which::Serial(VOLUME.to_owned())
            && modules_of(fs).iter().all(|module| modules.has(module))
    }

    /// What it needs, without what every line does.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for stage in &self.stages {
            stage.add_needs(&mut needs);
        }
        if let Some(fs) = &self.fs {
            needs.only_file_system(fs);
        }
        for wanted in &mut needs.programs {
            wanted.asked_by = self.to_string();
        }
        needs
    }
}

/// As it is written in a line.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// What `root=` says: devices, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub devices: Vec<Device>,
}

impl Root {
    /// From the text behind `root=`.
    pub fn parse(text: &str) -> Result<Root, Problem> {
        let line = RootLine::parse(text)?;
        Root::understand(line).map_err(|wrong| wrong.in_text(text))
    }

    fn understand(line: RootLine) -> Parsed<Root> {
        let top = line.devices.len().saturating_sub(1);
        let devices = line
            .devices
            .into_iter()
            .enumerate()
            .map(|(index, text)| {
                let at = text.at();
                let device = understand(text)?;
                if device.access == Access::Writable && index < top {
                    return Err(Wrong::new(
                        at,
                        "only the top device, the rightmost, can be rw: what is written goes there",
                    ));
                }
                Ok(device)
            })
            .collect::<Parsed<Vec<_>>>()?;
        Ok(Root { devices })
    }

    /// Whether the initramfs of clones without `root=` has all that it needs.
    pub fn is_of_clones(&self) -> bool {
        self.devices.iter().all(Device::is_of_clones)
    }

    /// Whether one that was made for clones without `root=`, with these modules, has: a kernel with the file system of a
    /// clone's volume built in needs no other.
    pub fn is_met_by(&self, modules: &ModulesDep) -> bool {
        let is_met = |device: &Device| device.is_of_clones() || device.is_volume_met_by(modules);
        self.devices.iter().all(is_met)
    }

    /// What must be in its initramfs.
    pub fn needs(&self) -> Needs {
        let mut needs = of_any_line();
        for device in &self.devices {
            needs.add(&device.needs());
        }
        if needs.identity {
            needs.if_there(&["qemu_fw_cfg"]);
        }
        if needs.identity || needs.network {
            needs.if_there(&INTERFACES);
        }
        needs
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let devices = self.devices.iter().map(|device| device.text.clone());
        RootLine {
            devices: devices.collect(),
        }
        .fmt(f)
    }
}

fn understand(text: DeviceText) -> Parsed<Device> {
    let chain = text.chain.iter().map(loader).collect::<Parsed<Vec<_>>>()?;
    fits(&text.chain, &chain)?;
    let mut dealt = deal(&text, &chain)?;
    let mut own = dealt.pop().unwrap_or_default();
    let stages = chain
        .iter()
        .zip(&mut dealt)
        .zip(&text.chain)
        .map(|((loader, taken), name)| {
            Stage::parse(loader, taken)?
                .ok_or_else(|| Wrong::new(name.at.0, "this loader is not in the table"))
        })
        .collect::<Parsed<Vec<_>>>()?;
    let access = access(&text, &mut own)?;
    let fs = match own.key("fs") {
        Some(fs) if !is_module_name(&fs.text) => {
            return fs.wrong("a file system's name has lower-case letters, digits and `_`");
        }
        fs => fs.map(|fs| fs.text),
    };
    Ok(Device {
        stages,
        access,
        fs,
        text,
    })
}

fn access(text: &DeviceText, own: &mut Taken) -> Parsed<Access> {
    match (own.flag("ro"), own.flag("rw")) {
        (true, true) => {
            let last = text.options.iter().rfind(|option| {
                option.key.is_none() && ["ro", "rw"].contains(&option.value.as_str())
            });
            let at = last.map_or(0, |option| option.at.0);
            Err(Wrong::new(at, "a device is ro or rw, not both"))
        }
        (true, false) => Ok(Access::ReadOnly),
        (false, true) => Ok(Access::Writable),
        (false, false) => Ok(Access::AsFits),
    }
}

fn is_module_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= 32 && text.bytes().all(is_plain)
}

fn loader(name: &Name) -> Parsed<&'static Loader> {
    if let Some(found) = LOADERS.iter().find(|loader| loader.name == name.text) {
        return Ok(found);
    }
    let message = gone::advice(&name.text).map_or_else(
        || {
            let known: Vec<&str> = LOADERS.iter().map(|loader| loader.name).collect();
            format!("no loader {:?}: there are {}", name.text, known.join(", "))
        },
        |advice| format!("`{}` {advice}", name.text),
    );
    Err(Wrong::new(name.at.0, message))
}

/// Whether each stage can work on what its right neighbour gives.
fn fits(names: &[Name], chain: &[&'static Loader]) -> Parsed<()> {
    for (index, (loader, name)) in chain.iter().zip(names).enumerate() {
        let wrong = |message: String| Err(Wrong::new(name.at.0, message));
        let takes: Vec<String> = loader.takes.iter().map(|shape| shape.to_string()).collect();
        match chain.get(index + 1) {
            None if !loader.is_source => {
                return wrong(format!(
                    "`{0}` works on {1}: write {0}+ and a loader that gives one, as in {2}",
                    loader.name,
                    takes.join(" or "),
                    loader.example
                ));
            }
            Some(right) if takes.is_empty() => {
                return wrong(format!(
                    "`{}` works on nothing else: `{}` cannot stand to its right",
                    loader.name, right.name
                ));
            }
            Some(right) if !loader.takes.iter().any(|shape| shape.can_be(right.gives)) => {
                return wrong(format!(
                    "`{}` works on {}, and `{}` gives {}",
                    loader.name,
                    takes.join(" or "),
                    right.name,
                    right.gives
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

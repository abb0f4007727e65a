//! `luks`: an encrypted device, opened by the reference's cryptsetup.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use estive_boot::loaders::luks::{Key, Options, USUAL_FW_CFG, USUAL_PORT};
use estive_boot::programs::CRYPTSETUP;
use estive_boot::superblock::{Kind, Recognised};

use super::{Context, Given};
use crate::console::say;
use crate::devices;
use crate::failure::{Failure, Result, While, fail};
use crate::key::{self, Secret};
use crate::programs::{Output, Run};

/// Argon2 is made to take seconds, on a machine ten times as fast as an emulated one.
const BOUND_S: u64 = 180;
const TRIES: u32 = 3;

/// What cryptsetup ends with when no key slot has the key, and when there is not enough memory to try (cryptsetup(8)).
const NO_KEY: i32 = 2;
const NO_MEMORY: i32 = 3;

pub fn open(options: &Options, below: Option<Given>, context: &mut Context) -> Result<Given> {
    let Some(below) = below else {
        return fail("luks stands on nothing: write luks+block:/dev/…");
    };
    let device = context.block_device(below)?;
    let uuid = uuid(&device)?;
    let read_only =
        !context.wants_writing() || (devices::is_read_only(&device) && !context.must_be_writable());
    let opening = Opening {
        name: format!("luks-{uuid}"),
        device,
        uuid,
        read_only,
    };
    match &options.key {
        Key::Port(name) => opening.with(&key::of_port(name)?, &format!("the port {name}")),
        Key::FwCfg(name) => {
            opening.with(&key::of_fw_cfg(name)?, &format!("the fw_cfg file {name}"))
        }
        Key::Ask => opening.with_a_persons(),
        Key::Usual => match (key::has_fw_cfg(USUAL_FW_CFG), key::has_port(USUAL_PORT)) {
            (true, _) => {
                let key = key::of_fw_cfg(USUAL_FW_CFG)?;
                opening.with(&key, &format!("the fw_cfg file {USUAL_FW_CFG}"))
            }
            (_, true) => opening.with(
                &key::of_port(USUAL_PORT)?,
                &format!("the port {USUAL_PORT}"),
            ),
            _ => opening.with_a_persons(),
        },
    }
}

/// The UUID in its header, after which the opened device is named.
fn uuid(device: &Path) -> Result<String> {
    let shown = device.display();
    let found = devices::recognise(device)?;
    match found {
        Some(Recognised {
            kind: Kind::Luks,
            uuid,
            ..
        }) => {
            let is_uuid = |text: &String| {
                text.len() >= 8
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            };
            uuid.filter(is_uuid).ok_or_else(|| {
                Failure(format!(
                    "the LUKS header of {shown} has no UUID: is it whole?"
                ))
            })
        }
        Some(other) => fail(format!("{shown} is not encrypted with LUKS, it is {other}")),
        None => fail(format!(
            "{shown} is not encrypted with LUKS: is it the right device?"
        )),
    }
}

struct Opening {
    device: PathBuf,
    uuid: String,
    name: String,
    read_only: bool,
}

impl Opening {
    fn with(&self, key: &Secret, from: &str) -> Result<Given> {
        if let Some(given) = self.try_key(key)? {
            return Ok(given);
        }
        let hint = match key.ends_in_newline() {
            true => {
                " (it ends in a new line, which is part of a key from there: write the file without)"
            }
            false => "",
        };
        fail(format!(
            "the key from {from} does not open {}{hint}: is it that of this device?",
            self.shown()
        ))
    }

    fn with_a_persons(&self) -> Result<Given> {
        for index in 1..=TRIES {
            let question = format!("key of {} (try {index} of {TRIES}): ", self.shown());
            if let Some(given) = self.try_key(&key::ask(&question)?)? {
                return Ok(given);
            }
            say("this key does not open it");
        }
        fail(format!(
            "none of {TRIES} keys opened {}: start again to try others",
            self.shown()
        ))
    }

    /// `None` when it is not the key.
    fn try_key(&self, key: &Secret) -> Result<Option<Given>> {
        if key.is_empty() {
            return Ok(None);
        }
        let mut arguments: Vec<&OsStr> = [
            "open",
            "--type=luks",
            "--batch-mode",
            "--disable-locks",
            "--key-file=-",
        ]
        .map(OsStr::new)
        .into();
        if self.read_only {
            arguments.push(OsStr::new("--readonly"));
        }
        arguments.extend([self.device.as_os_str(), OsStr::new(&self.name)]);
        let run = Run {
            program: CRYPTSETUP,
            arguments: &arguments,
            input: key.bytes(),
            bound_s: BOUND_S,
        };
        let output = run.output().doing(|| format!("opening {}", self.shown()))?;
        match output.status.code() {
            Some(0) => {}
            Some(NO_KEY) => return Ok(None),
            Some(NO_MEMORY) => return self.too_little_memory(&output),
            _ => {
                let doing = format!("opening {}", self.shown());
                output.succeeded(&doing, CRYPTSETUP)?;
            }
        }
        let opened = Path::new("/dev/mapper").join(&self.name);
        match opened.exists() {
            true => Ok(Some(Given::Device(opened))),
            false => fail(format!(
                "cryptsetup opened {}, and {} did not come",
                self.shown(),
                opened.display()
            )),
        }
    }

    fn too_little_memory<T>(&self, output: &Output) -> Result<T> {
        fail(format!(
            "there is not enough memory to try a key of {}: {}; give the machine more, or the device a key of less (cryptsetup luksConvertKey --pbkdf pbkdf2)",
            self.shown(),
            output.complaint()
        ))
    }

    fn shown(&self) -> String {
        format!("{} (LUKS, {})", self.device.display(), self.uuid)
    }
}

//! `luks`: an encrypted device (LUKS1 or LUKS2).

use super::{Form, Loader, Needs, Parameter, Shape, Taken, Text};
use crate::programs::CRYPTSETUP;
use crate::root_line::Parsed;

/// Where the key is looked for when the line does not say, in this order; then it is asked for.
pub const USUAL_FW_CFG: &str = "opt/org.estive/key";
pub const USUAL_PORT: &str = "org.estive.key";

/// QEMU's FW_CFG_MAX_FILE_PATH, without its NUL.
const FW_CFG_NAME_BYTES_MAX: usize = 55;
const PORT_NAME_BYTES_MAX: usize = 64;

pub const LOADER: Loader = Loader {
    name: "luks",
    help: "An encrypted device (LUKS1 or LUKS2), opened by the reference's cryptsetup. Its ciphers are those of AES, \
           as cryptsetup chooses them. The key is held in memory alone.",
    parameters: &[Parameter {
        name: "key",
        form: Form::KeyOfParts {
            value: "SOURCE",
            heads: &["serial", "fw_cfg"],
        },
        default: "fw_cfg:opt/org.estive/key, serial:org.estive.key, ask: the first that is there",
        help: "where its key comes from: serial:PORT, one line of a virtio-serial port; fw_cfg:FILE, all bytes of a \
               file of fw_cfg; ask, typed on the console, three times at most",
    }],
    is_source: false,
    takes: &[Shape::Device],
    gives: Shape::Device,
    example: "luks+block:/dev/sda2",
};

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The usual places, else a person.
    Usual,
    /// The next line of the virtio-serial port with this name.
    Port(String),
    /// All bytes of this file of fw_cfg.
    FwCfg(String),
    /// The console.
    Ask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub key: Key,
}

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let key = taken.key("key").map_or(Ok(Key::Usual), key)?;
        Ok(Options { key })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.disks();
        needs.module("dm_crypt");
        // What cryptsetup's defaults name, then and now, and how it asks the kernel for them. dm-crypt would call
        // modprobe, and there is none.
        needs.if_there(&[
            "aes_generic",
            "aesni_intel",
            "ecb",
            "xts",
            "cbc",
            "essiv",
            "sha256_generic",
            "algif_skcipher",
        ]);
        if matches!(self.key, Key::Usual | Key::FwCfg(_)) {
            needs.if_there(&["qemu_fw_cfg"]);
        }
        needs.program(CRYPTSETUP);
        needs.file_system(None);
    }
}

fn key(text: Text) -> Parsed<Key> {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_graphic());
    match text.text.split_once(':') {
        None if text.text == "ask" => Ok(Key::Ask),
        Some(("serial", name))
            if !name.is_empty()
                && name.len() <= PORT_NAME_BYTES_MAX
                && !name.contains('/')
                && is_plain(name) =>
        {
            Ok(Key::Port(name.to_owned()))
        }
        Some(("serial", _)) => text.wrong(format!(
            "a port's name has 1 to {PORT_NAME_BYTES_MAX} characters and no `/`, such as {USUAL_PORT}"
        )),
        Some(("fw_cfg", name)) if is_fw_cfg(name) && is_plain(name) => {
            Ok(Key::FwCfg(name.to_owned()))
        }
        Some(("fw_cfg", _)) => text.wrong(format!(
            "a file of fw_cfg that people make begins with opt/ and has at most {FW_CFG_NAME_BYTES_MAX} characters, such as {USUAL_FW_CFG}"
        )),
        _ => text.wrong("a key comes from serial:PORT, fw_cfg:FILE, or ask"),
    }
}

fn is_fw_cfg(name: &str) -> bool {
    let is_component = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.starts_with("opt/")
        && name.len() <= FW_CFG_NAME_BYTES_MAX
        && name.split('/').all(is_component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let parse = |value: &str| {
            let text = value.to_owned();
            key(Text { text, at: 0 })
        };
        assert_eq!(parse("ask"), Ok(Key::Ask));
        assert_eq!(parse("serial:a.b"), Ok(Key::Port("a.b".into())));
        assert_eq!(parse("fw_cfg:opt/k"), Ok(Key::FwCfg("opt/k".into())));
        for wrong in [
            "",
            "secret",
            "serial",
            "serial:",
            "serial:a/b",
            "fw_cfg:etc/k",
            "fw_cfg:opt/",
            "fw_cfg:opt/../x",
            "fw_cfg:opt/a b",
            "ask:me",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

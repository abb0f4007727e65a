//! Writing a line so that it is read as the same.

use std::fmt;

use super::lexer::value_bytes;
use super::{
    BLOCK, DeviceText, OptionText, RootLine, inside_brackets, is_balanced, is_place, key_of,
    scheme_bytes,
};

impl fmt::Display for RootLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, device) in self.devices.iter().enumerate() {
            if index > 0 {
                f.write_str(";")?;
            }
            write!(f, "{device}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DeviceText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let options: Vec<String> = self.options.iter().map(OptionText::to_string).collect();
        let names: Vec<&str> = self.chain.iter().map(|name| name.text.as_str()).collect();
        if names == [BLOCK] && options.first().is_some_and(|option| is_place(option)) {
            return f.write_str(&options.join(":"));
        }
        f.write_str(&names.join("+"))?;
        options.iter().try_for_each(|option| write!(f, ":{option}"))
    }
}

impl fmt::Display for OptionText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key}={}", quoted(&self.value, false)),
            None => f.write_str(&quoted(&self.value, true)),
        }
    }
}

/// A value as it stands in a line. `alone`: with no key before it.
fn quoted(value: &str, alone: bool) -> String {
    let mut text = match scheme_bytes(value) {
        // A URL is not unescaped; if it cannot stand as it is, its scheme is hidden.
        Some(_) if is_plain(value) && is_balanced(value) => value.to_owned(),
        Some(_) => escaped(value, 1),
        None => escaped(value, 0),
    };
    let looks_like_key = key_of(text.split([':', ';', '[']).next().unwrap_or_default()).is_some();
    // What follows may look like a part of it: `http` and then `//`, `http://a` and then `1`.
    let ends_here = value_bytes(&format!("{text}:1")).ok() == Some(text.len());
    let needs_brackets = !ends_here
        || inside_brackets(&text).is_some()
        || (alone && (text.is_empty() || text.starts_with("//") || looks_like_key));
    if needs_brackets {
        text = format!("[{text}]");
    }
    text
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && !is_changed(byte))
}

/// Whether the kernel, or a boot loader (GRUB, iPXE), may read it as another than itself.
fn is_changed(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'\\' | b'$')
}

/// With `%HH` for what cannot stand in a line, and for the first `at_least` bytes.
fn escaped(value: &str, at_least: usize) -> String {
    let brackets_are_plain = is_balanced(value);
    let mut text = String::new();
    for (at, byte) in value.bytes().enumerate() {
        let is_plain = at >= at_least
            && match byte {
                byte if is_changed(byte) => false,
                b'%' => at + 1 == value.len(),
                b'[' | b']' => brackets_are_plain,
                _ => byte.is_ascii_graphic(),
            };
        match is_plain {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

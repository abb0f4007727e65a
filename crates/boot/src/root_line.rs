//! The word `root=` as text: devices from the bottom up, each a chain of loaders with options.
//!
//! ```text
//! root    = device { ";" device } [ ";" ]
//! device  = chain { ":" option } | place { ":" option }
//! chain   = name { "+" name }                    lvm2+md: md is the source, lvm2 works on what it gives
//! place   = a device that begins with "/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=" or "serial=": short for
//!           block:place
//! name    = a lower-case letter or digit, then such, "_" and "-"
//! option  = value | key "=" value                key is a letter, then letters, digits and "_"
//! value   = printable ASCII without space and '"', up to the next ":" or ";"
//! ```
//!
//! In a value, nothing separates inside balanced `[ ]`; a value that is wholly one pair loses it:
//! `[fd00::1]` is an address, `[a:b;c]` the text `a:b;c`. `%HH` is the byte HH, for whatever else;
//! a `%` that ends the value stands for itself (`size=50%`). In a value that begins with
//! `SCHEME://`, the colon of `://` and a `:PORT` before the next `/` separate nothing, and `%` is
//! the URL's own.
//!
//! The grammar is that of "Virtual node grid" (Richard 2007), Listing 2.2, with what its own examples
//! need besides. Printing a value and reading it again gives the same value.

pub mod laws;
mod lexer;
mod printer;
mod problem;

pub(crate) use lexer::unescaped;
pub use problem::Problem;
pub(crate) use problem::{Parsed, Wrong};

/// No line has more devices. The kernel joins up to 500; each of ours is a mount.
pub const DEVICES_MAX: usize = 32;
/// Devices that begin so need not say `block:`.
pub const PLACE_KEYS: [&str; 5] = ["UUID", "LABEL", "PARTUUID", "PARTLABEL", "serial"];
/// The loader of those.
pub(crate) const BLOCK: &str = "block";

/// Where something stands in the text, in bytes from its beginning. Equal to any other: two lines
/// are the same when they say the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct At(pub usize);

impl PartialEq for At {
    fn eq(&self, _: &At) -> bool {
        true
    }
}

impl Eq for At {}

/// A line of devices, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootLine {
    pub devices: Vec<DeviceText>,
}

/// One device: names of loaders and their options, none of them understood yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceText {
    /// Left to right: the last one is the source.
    pub chain: Vec<Name>,
    pub options: Vec<OptionText>,
}

/// The name of a loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub at: At,
}

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionText {
    /// Of `key=value`.
    pub key: Option<String>,
    /// With nothing quoted.
    pub value: String,
    pub at: At,
}

impl RootLine {
    /// From the text behind `root=`.
    pub fn parse(text: &str) -> Result<RootLine, Problem> {
        lexer::line(text).map_err(|wrong| wrong.in_text(text))
    }
}

impl DeviceText {
    /// Where it begins.
    pub fn at(&self) -> usize {
        self.chain.first().map_or(0, |name| name.at.0)
    }
}

/// Whether the text begins with `key=`, and where its value begins.
fn key_of(text: &str) -> Option<(&str, usize)> {
    let (key, _) = text.split_once('=')?;
    let mut bytes = key.bytes();
    let is_key = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_key.then_some((key, key.len() + 1))
}

/// The bytes of `SCHEME://`, if the text begins so (RFC 3986, section 3.1; lower case only).
fn scheme_bytes(text: &str) -> Option<usize> {
    let (scheme, _) = text.split_once("://")?;
    let mut bytes = scheme.bytes();
    let is_scheme = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte)
        });
    is_scheme.then_some(scheme.len() + 3)
}

/// Whether a device of this text is short for `block:`.
fn is_place(text: &str) -> bool {
    text.starts_with('/') || key_of(text).is_some_and(|(key, _)| PLACE_KEYS.contains(&key))
}

/// Whether every `[` has its `]`.
fn is_balanced(text: &str) -> bool {
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 0 => return false,
            b']' => depth -= 1,
            _ => {}
        }
    }
    depth == 0
}

/// What is inside, when the text is wholly one pair of brackets.
fn inside_brackets(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    is_balanced(inside).then_some(inside)
}

#[cfg(test)]
mod tests;

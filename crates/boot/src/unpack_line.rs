//! The word `unpack=`: archives, or directories of archives, that lie in the root and are unpacked
//! over it into the clone's memory.
//!
//! ```text
//! unpack = path { ";" path } [ ";" ]
//! path   = an absolute path of the root; %HH is the byte HH, for a blank, a quote, ";" and "%"
//! ```

use std::fmt;

use crate::root_line::{Parsed, Problem, Wrong, unescaped};

/// The word's name.
pub const UNPACK_WORD: &str = "unpack";
const PATHS_MAX: usize = 64;
/// PATH_MAX of the kernel, without its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// What is unpacked, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackLine {
    /// Absolute, with nothing quoted.
    pub paths: Vec<String>,
}

impl UnpackLine {
    /// From the text behind `unpack=`.
    pub fn parse(text: &str) -> Result<UnpackLine, Problem> {
        parse(text).map_err(|wrong| wrong.in_text(text))
    }
}

fn parse(text: &str) -> Parsed<UnpackLine> {
    let mut paths = Vec::new();
    let mut at = 0;
    let text = text.strip_suffix(';').unwrap_or(text);
    for part in text.split(';') {
        if paths.len() == PATHS_MAX {
            return Err(Wrong::new(at, format!("more than {PATHS_MAX} paths")));
        }
        paths.push(path(part).map_err(|wrong| Wrong::new(at + wrong.at, wrong.message))?);
        at += part.len() + 1;
    }
    Ok(UnpackLine { paths })
}

fn path(part: &str) -> Parsed<String> {
    if part.is_empty() {
        return Err(Wrong::new(0, "a path is missing here"));
    }
    if let Some(at) = part.find(|character: char| !character.is_ascii_graphic() || character == '"')
    {
        return Err(Wrong::new(
            at,
            "a command line cannot carry this character: write %HH, the byte in hexadecimal",
        ));
    }
    let path = unescaped(part)?;
    match path {
        path if !path.starts_with('/') => {
            Err(Wrong::new(0, "expected a path that begins with `/`"))
        }
        path if path.len() > PATH_BYTES_MAX => Err(Wrong::new(
            0,
            format!("a path of more than {PATH_BYTES_MAX} bytes"),
        )),
        path => Ok(path),
    }
}

impl fmt::Display for UnpackLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, path) in self.paths.iter().enumerate() {
            if index > 0 {
                f.write_str(";")?;
            }
            for byte in path.bytes() {
                match byte {
                    b'"' | b';' | b'%' => write!(f, "%{byte:02X}")?,
                    byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(byte))?,
                    byte => write!(f, "%{byte:02X}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_separated_by_semicolons() {
        let line = UnpackLine::parse("/var/tmpfs-overlay;/srv/a%20b.deb;").unwrap();
        assert_eq!(line.paths, ["/var/tmpfs-overlay", "/srv/a b.deb"]);
        assert_eq!(line.to_string(), "/var/tmpfs-overlay;/srv/a%20b.deb");
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, at) in [
            ("", 0),
            (";", 0),
            ("/a;;/b", 3),
            ("/a;b", 3),
            ("/a;/b%2", 5),
            ("/a;/b%zz", 5),
            ("/a;/b%00", 5),
            ("/a\"", 2),
            ("/a b", 2),
        ] {
            let problem = UnpackLine::parse(text).unwrap_err();
            assert_eq!(problem.at, at, "{text:?}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(paths in proptest::collection::vec("/[ -~äß漢]{0,20}", 1..5)) {
            let line = UnpackLine { paths };
            prop_assert_eq!(UnpackLine::parse(&line.to_string()).unwrap(), line);
        }

        #[test]
        fn any_text_gives_a_line_or_a_place(text in "\\PC{0,40}") {
            match UnpackLine::parse(&text) {
                Ok(line) => prop_assert_eq!(UnpackLine::parse(&line.to_string()).unwrap(), line),
                Err(problem) => prop_assert!(problem.at <= text.len()),
            }
        }
    }
}

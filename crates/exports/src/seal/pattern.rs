//! Patterns of paths below a root: `/etc/ssh/ssh_host_*_key`.
//!
//! `*` and `?` stand within a name, `**` for any number of directories. `~/` at the start stands for `/root/` and
//! `/home/*/`. A `/` at the end means what is in the directory, which itself stays; `/**` at the end means the files
//! below at any depth, while the directories stay (a service may need its own under /var/log).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const NAMES_MAX: usize = 64;
const ANYS_MAX: usize = 3;

/// Which part of what a pattern names is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// It and all below it.
    Whole,
    /// What is in it.
    Inside,
    /// The files below it.
    Files,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    names: Vec<Vec<u8>>,
    scope: Scope,
}

/// How a path stands to a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// It is meant.
    Yes,
    /// It is not, something below may be.
    Below,
    No,
}

impl Pattern {
    /// The patterns of a text: two for `~/`.
    pub fn parse(text: &OsStr) -> Result<Vec<Self>, &'static str> {
        let bytes = text.as_bytes();
        if let Some(rest) = bytes.strip_prefix(b"~/") {
            return [b"/root/".as_slice(), b"/home/*/"]
                .into_iter()
                .map(|home| Self::absolute(&[home, rest].concat()))
                .collect();
        }
        Self::absolute(bytes).map(|pattern| vec![pattern])
    }

    fn absolute(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = bytes
            .strip_prefix(b"/")
            .ok_or("begins neither with / nor with ~/")?;
        let mut scope = Scope::Whole;
        if let Some(directory) = rest.strip_suffix(b"/**") {
            (rest, scope) = (directory, Scope::Files);
        } else if let Some(directory) = rest.strip_suffix(b"/") {
            (rest, scope) = (directory, Scope::Inside);
        }
        let names: Vec<Vec<u8>> = rest
            .split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect();
        if names.len() > NAMES_MAX {
            return Err("has more than 64 names");
        }
        // Each multiplies the ways to read a path.
        if names.iter().filter(|name| *name == b"**").count() > ANYS_MAX {
            return Err("has more than 3 times **");
        }
        if names
            .iter()
            .any(|name| name.is_empty() || name == b"." || name == b"..")
        {
            return Err("has an empty name, or one that is . or ..");
        }
        Ok(Self { names, scope })
    }

    /// Of exactly this path below the root; `inside`: what is in it.
    pub fn literal(path: &[u8], inside: bool) -> Self {
        let names = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        Self {
            names: names.map(escaped).collect(),
            scope: if inside { Scope::Inside } else { Scope::Whole },
        }
    }

    /// The name that every path it means begins with, when it is plain.
    pub fn first(&self) -> Option<&[u8]> {
        let first = self.names.first()?;
        (!first.iter().any(|byte| matches!(byte, b'*' | b'?' | b'\\'))).then_some(first)
    }

    /// How the path of these names stands to it.
    pub fn matches(&self, path: &[&[u8]], is_directory: bool) -> Match {
        match (above(&self.names, path), self.scope) {
            (Above::No, _) => Match::No,
            (Above::Short, _) => Match::Below,
            (Above::At, Scope::Whole) | (Above::Past, Scope::Whole | Scope::Inside) => Match::Yes,
            (Above::At, Scope::Inside | Scope::Files) => Match::Below,
            (Above::Past, Scope::Files) if is_directory => Match::Below,
            (Above::Past, Scope::Files) => Match::Yes,
        }
    }
}

fn escaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for byte in name {
        if matches!(byte, b'*' | b'?' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// Where a path ends, seen from the place that a pattern names.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Above {
    No,
    Short,
    At,
    Past,
}

/// The furthest of all ways to read the pattern.
fn above(names: &[Vec<u8>], path: &[&[u8]]) -> Above {
    let Some((name, names_left)) = names.split_first() else {
        return if path.is_empty() {
            Above::At
        } else {
            Above::Past
        };
    };
    let Some((first, path_left)) = path.split_first() else {
        return Above::Short;
    };
    if name == b"**" {
        return above(names_left, path).max(above(names, path_left));
    }
    if glob(name, first) {
        above(names_left, path_left)
    } else {
        Above::No
    }
}

/// Whether a name is meant by a pattern of `*`, `?` and `\` before what is meant literally.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: one byte further in the name.
    let mut retry = None;
    loop {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(b'?') if n < name.len() => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            Some(byte) if n < name.len() => {
                let (literal, length) = match (byte, pattern.get(p + 1)) {
                    (b'\\', Some(next)) => (next, 2),
                    _ => (byte, 1),
                };
                if *literal == name[n] {
                    (p, n) = (p + length, n + 1);
                    continue;
                }
            }
            None if n == name.len() => return true,
            _ => {}
        }
        match retry {
            Some((after, from)) if from < name.len() => {
                retry = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pattern: &str, path: &str, is_directory: bool) -> Match {
        let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        Pattern::parse(OsStr::new(pattern)).unwrap()[0].matches(&names, is_directory)
    }

    #[test]
    fn names_are_meant_as_written() {
        assert_eq!(one("/etc/ssh/*_key", "etc/ssh/host_key", false), Match::Yes);
        assert_eq!(
            one("/etc/ssh/*_key", "etc/ssh/host_key.pub", false),
            Match::No
        );
        assert_eq!(one("/etc/ssh/*_key", "etc/ssh", true), Match::Below);
        assert_eq!(one("/a", "a/b/c", false), Match::Yes);
        assert_eq!(one("/a.b", "aXb", false), Match::No);
        assert_eq!(one("/a?c*", "abcd", false), Match::Yes);
        assert_eq!(one("/*a*b*", "xxaxxab", false), Match::Yes);
        assert_eq!(one("/*a*b", "xxaxxbc", false), Match::No);
    }

    #[test]
    fn directories_stay_where_only_what_is_in_them_goes() {
        assert_eq!(one("/tmp/", "tmp", true), Match::Below);
        assert_eq!(one("/tmp/", "tmp/x", true), Match::Yes);
        assert_eq!(one("/var/log/**", "var/log/nginx", true), Match::Below);
        assert_eq!(
            one("/var/log/**", "var/log/nginx/access.log", false),
            Match::Yes
        );
        assert_eq!(one("/var/log/**", "var/log", true), Match::Below);
    }

    #[test]
    fn any_number_of_directories() {
        assert_eq!(one("/srv/**/.env", "srv/.env", false), Match::Yes);
        assert_eq!(one("/srv/**/.env", "srv/a/b/.env", false), Match::Yes);
        assert_eq!(one("/srv/**/.env", "srv/a/b", true), Match::Below);
        assert_eq!(one("/srv/**/.env", "etc/.env", false), Match::No);
    }

    #[test]
    fn homes_are_two_patterns() {
        let homes = Pattern::parse(OsStr::new("~/.netrc")).unwrap();
        let path: Vec<&[u8]> = vec![b"home", b"ann", b".netrc"];
        assert_eq!(homes[1].matches(&path, false), Match::Yes);
        assert!(Pattern::parse(OsStr::new("etc/x")).is_err());
        assert!(Pattern::parse(OsStr::new("/etc/../x")).is_err());
    }

    #[test]
    fn literal_names_are_no_patterns() {
        let star = Pattern::literal(b"a*b/c", true);
        let names: Vec<&[u8]> = vec![b"a*b", b"c", b"x"];
        assert_eq!(star.matches(&names, false), Match::Yes);
        let names: Vec<&[u8]> = vec![b"aXb", b"c", b"x"];
        assert_eq!(star.matches(&names, false), Match::No);
    }
}

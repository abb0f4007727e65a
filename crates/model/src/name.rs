//! Validated names. A value of these types is safe to use as one path component,
//! as a host name label and as one word of a command.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} {problem}")]
pub struct NameError {
    /// What was being named: "domain name", "digest", …
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// What is wrong with it and what is allowed.
    pub problem: &'static str,
}

fn refuse(what: &'static str, given: &str, problem: &'static str) -> NameError {
    NameError {
        what,
        given: given.chars().take(80).collect(),
        problem,
    }
}

/// RFC 1123 label: 1 to 63 of `a-z 0-9 -`, first and last not `-`.
fn label(what: &'static str, given: &str) -> Result<String, NameError> {
    let fits = !given.is_empty()
        && given.len() <= 63
        && given
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !given.starts_with('-')
        && !given.ends_with('-');
    if fits {
        Ok(given.to_owned())
    } else {
        Err(refuse(
            what,
            given,
            "is not fit: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end",
        ))
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `given`; see the type for what is allowed.
            pub fn new(given: impl AsRef<str>) -> Result<Self, NameError> {
                $check($what, given.as_ref()).map(Self)
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(given: &str) -> Result<Self, NameError> {
                Self::new(given)
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(given: String) -> Result<Self, NameError> {
                Self::new(given)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

named!(
    /// A domain (virtual machine), unique over the whole herd. RFC 1123 label.
    DomainName, "domain name", label
);
named!(
    /// A host that runs an agent. RFC 1123 label.
    HostName, "host name", label
);
named!(
    /// A deployment: a named group of domains made from one herd file. RFC 1123 label.
    DeploymentName, "deployment name", label
);
named!(
    /// One operation (a start, a move): chosen by who orders it, never used twice. RFC 1123 label.
    OperationId, "operation id", label
);
named!(
    /// The digest that names a file by its content: `sha256:` and 64 lower-case hex digits.
    Digest, "digest", digest
);

named!(
    /// A sealed reference, as `estive seal --name` names it: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first no '.' or '-',
    /// and not 64 hex digits, which name an image.
    ReferenceName, "name of a reference", reference
);

fn reference(what: &'static str, given: &str) -> Result<String, NameError> {
    let fits = (1..=64).contains(&given.len())
        && !given.starts_with(['.', '-'])
        && given
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    let is_hex = given.len() == 64 && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits && !is_hex {
        Ok(given.to_owned())
    } else {
        Err(refuse(
            what,
            given,
            "is not fit: use 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', the first no '.' or '-'",
        ))
    }
}

fn digest(what: &'static str, given: &str) -> Result<String, NameError> {
    let hex = given.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(given.to_owned())
    } else {
        Err(refuse(
            what,
            given,
            "is not 'sha256:' followed by 64 lower-case hex digits",
        ))
    }
}

impl Digest {
    /// The 64 hex digits, fit as a file name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

/// A domain's generation: raised at every grant, so that whoever holds an older one can be refused.
/// 0 means "none granted yet".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this. After the last there is none: it is the last again, which everybody refuses that has seen it,
    /// and never a small number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_a_name() {
        for bad in [
            "",
            "../etc",
            "a/b",
            "A",
            "-a",
            "a-",
            ".",
            "a.b",
            "a b",
            "ä",
            &"x".repeat(64),
        ] {
            assert!(DomainName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(DomainName::new("clone-01").unwrap().as_str(), "clone-01");
    }

    #[test]
    fn generations_do_not_begin_anew() {
        assert_eq!(Generation(0).next(), Generation(1));
        assert_eq!(Generation(u64::MAX).next(), Generation(u64::MAX));
    }

    #[test]
    fn a_reference_is_named_by_a_word_that_is_no_path_and_no_digest() {
        for good in ["web", "Web-2.1_a"] {
            assert!(ReferenceName::new(good).is_ok(), "{good}");
        }
        let hex = "0f".repeat(32);
        for bad in ["", ".web", "-x", "a/b", "a b", "ä", &hex, &"a".repeat(65)] {
            assert!(ReferenceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_checked_when_deserialised_too() {
        assert!(serde_json::from_str::<HostName>("\"../../x\"").is_err());
    }

    #[test]
    fn a_digest_needs_its_algorithm_and_length() {
        let hex = "a".repeat(64);
        assert!(Digest::new(&hex).is_err());
        assert_eq!(Digest::new(format!("sha256:{hex}")).unwrap().hex(), hex);
        assert!(Digest::new(format!("sha256:{}", "A".repeat(64))).is_err());
    }
}

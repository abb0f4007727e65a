//! Which services of a clone are to be told when one of its files was changed while it runs.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, check_path};

/// Limits of the list, which travels with every layer.
const SERVICES_MAX: usize = 256;
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;

/// Files of a clone, and the services to restart or reload when one of them was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Patterns of paths, without a leading `/`: `*` and `?` within a name, `**` for any number of
    /// directories.
    pub files: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reload: Vec<String>,
}

impl Service {
    /// Whether a change of this path concerns it.
    pub fn concerns(&self, path: &str) -> bool {
        self.files.iter().any(|pattern| matches_path(pattern, path))
    }

    /// Refuses what no service manager should ever be given.
    pub fn check(&self) -> Result<()> {
        for pattern in &self.files {
            check_path(pattern)?;
        }
        for name in self.restart.iter().chain(&self.reload) {
            check_service_name(name)?;
        }
        let count = self.files.len().max(self.restart.len() + self.reload.len());
        if count > NAMES_MAX {
            return Err(Error::Limit {
                what: "the number of files or names of one service".to_owned(),
                limit: NAMES_MAX as u64,
            });
        }
        Ok(())
    }
}

pub(crate) fn check_services(services: &[Service]) -> Result<()> {
    if services.len() > SERVICES_MAX {
        return Err(Error::Limit {
            what: "the number of services".to_owned(),
            limit: SERVICES_MAX as u64,
        });
    }
    services.iter().try_for_each(Service::check)
}

/// A name goes to a service manager as a word of its own: nothing that it could take for an option
/// or a path.
fn check_service_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@._:-".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= NAME_BYTES_MAX && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::ManifestInvalid {
        reason: format!(
            "{:?} is not the name of a service",
            name.chars().take(NAME_BYTES_MAX).collect::<String>()
        ),
    })
}

/// Whether a pattern names a path; both are relative.
fn matches_path(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    matches(
        &pattern,
        &path,
        |part| *part == "**",
        |part, name| matches_name(part, name),
    )
}

fn matches_name(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    matches(
        &pattern,
        &name,
        |c| *c == '*',
        |c, other| *c == '?' || c == other,
    )
}

/// Matches with wildcards that stand for any number: only the last of them is ever tried again, so
/// this takes at most pattern times text steps.
fn matches<P, T>(
    pattern: &[P],
    text: &[T],
    is_any: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(part) if is_any(part) => {
                again = Some((p, t));
                p += 1;
            }
            Some(part) if is_one(part, &text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match &mut again {
                Some((any, taken)) => {
                    *taken += 1;
                    (p, t) = (*any + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_paths() {
        for (pattern, path, expected) in [
            ("etc/nginx/**", "etc/nginx/sites/default", true),
            ("etc/nginx/**", "etc/nginx", true),
            ("etc/nginx/**", "etc/nginx2/x", false),
            ("**", "a/b", true),
            ("**/x.conf", "x.conf", true),
            ("**/x.conf", "a/b/x.conf", true),
            ("etc/**/a*/c?", "etc/1/2/ab/cd", true),
            ("etc/**/a*/c?", "etc/1/2/ab/c", false),
            ("etc/*.conf", "etc/a.conf", true),
            ("etc/*.conf", "etc/a/b.conf", false),
            ("etc/hosts", "etc/hosts", true),
            ("etc/hosts", "etc/host", false),
            ("etc/h*s*", "etc/hosts", true),
        ] {
            assert_eq!(matches_path(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = format!("{}/end", ["**"; 900].join("/"));
        let path = ["a"; 2000].join("/");
        assert!(!matches_path(&pattern, &path));
        assert!(!matches_name(&"*a".repeat(120), &"a".repeat(119)));
    }

    #[test]
    fn what_a_service_manager_could_misread_is_refused() {
        let named = |name: &str| Service {
            files: vec!["etc/x".into()],
            restart: vec![name.into()],
            reload: vec![],
        };
        for good in ["nginx", "postgresql@15-main", "a.service"] {
            assert!(named(good).check().is_ok(), "{good}");
        }
        for bad in ["", "-f", "a b", "../x", "a;b", "a/b", "ü"] {
            assert!(named(bad).check().is_err(), "{bad}");
        }
        let mut outside = named("nginx");
        outside.files = vec!["/etc/x".into()];
        assert!(outside.check().is_err());
    }
}

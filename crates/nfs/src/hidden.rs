//! Paths of a root that no client sees: `etc/ssh/ssh_host_*_key`, or `tmp/*` for all below a directory.
//!
//! Components are matched one by one; `*` stands for any part of one. Names are looked at when they are looked up: a
//! file that has another name too is seen by that.

/// Patterns relative to the root, without a slash at the beginning.
#[derive(Debug, Clone, Default)]
pub struct Hidden {
    patterns: Vec<Vec<Vec<u8>>>,
}

impl Hidden {
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Hidden {
        let components = |pattern: &str| {
            let pattern = pattern.trim_matches('/');
            pattern
                .split('/')
                .map(|part| part.as_bytes().to_vec())
                .collect()
        };
        Hidden {
            patterns: patterns.into_iter().map(components).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What the patterns that reach into this directory (absolute, `/` is the root) say of names in it.
    pub fn in_directory(&self, directory: &[u8]) -> Vec<&[u8]> {
        let components: Vec<&[u8]> = directory
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty())
            .collect();
        self.patterns
            .iter()
            .filter(|pattern| pattern.len() == components.len() + 1)
            .filter(|pattern| {
                std::iter::zip(&components, *pattern).all(|(name, part)| matches(part, name))
            })
            .filter_map(|pattern| pattern.last())
            .map(Vec::as_slice)
            .collect()
    }
}

/// Whether a component is meant by a part of a pattern.
pub fn matches(part: &[u8], name: &[u8]) -> bool {
    match part.iter().position(|&byte| byte == b'*') {
        None => part == name,
        Some(at) => {
            let (before, rest) = (&part[..at], &part[at + 1..]);
            name.starts_with(before) && (at..=name.len()).any(|from| matches(rest, &name[from..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hidden_where_their_pattern_reaches() {
        let hidden = Hidden::new(["etc/ssh/ssh_host_*_key", "tmp/*", "/etc/shadow"]);
        let is_hidden = |directory: &str, name: &str| {
            let parts = hidden.in_directory(directory.as_bytes());
            parts.iter().any(|part| matches(part, name.as_bytes()))
        };
        assert!(is_hidden("/etc/ssh", "ssh_host_rsa_key"));
        assert!(!is_hidden("/etc/ssh", "ssh_host_rsa_key.pub"));
        assert!(!is_hidden("/etc", "ssh"));
        assert!(is_hidden("/etc", "shadow"));
        assert!(is_hidden("/tmp", "anything"));
        assert!(!is_hidden("/", "tmp"));
        assert!(!is_hidden("/var/tmp", "x"));
    }
}

//! The keys of a herd file that Estive reads itself. Every other key is a variable.

/// Where a reserved key may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// Only at the top: of the deployment.
    Deployment,
    /// At the top, in a group or at a host; the later level wins.
    Any,
    /// Only at one host.
    Host,
    /// The frame: at the top and in groups.
    Frame,
}

/// Names, where they may stand, and what they hold.
pub(crate) const KEYS: [(&str, Stands, &str); 23] = [
    ("name", Stands::Deployment, "the deployment's name"),
    (
        "network",
        Stands::Deployment,
        "the clones' network, as 10.77.0.0/24",
    ),
    (
        "addresses",
        Stands::Deployment,
        "addresses to draw from, as 10.77.0.101-10.77.0.199",
    ),
    ("groups", Stands::Frame, "named groups of hosts"),
    (
        "hosts",
        Stands::Frame,
        "host names or ranges, with their own values",
    ),
    ("vars", Stands::Any, "variables, whatever their names"),
    ("memory_mib", Stands::Any, "memory in MiB"),
    ("cpus", Stands::Any, "processors"),
    (
        "reference",
        Stands::Any,
        "name of the reference whose root is shared",
    ),
    ("sets", Stands::Any, "template sets, the upper last"),
    ("gateway", Stands::Any, "address of the gateway"),
    (
        "init",
        Stands::Any,
        "path of the program to start in the root",
    ),
    (
        "root",
        Stands::Any,
        "devices of the root, as root= on the command line",
    ),
    (
        "words",
        Stands::Any,
        "words of the kernel's command line besides",
    ),
    ("migration", Stands::Any, "how clones may move"),
    ("host", Stands::Any, "the only host to run on"),
    (
        "ssh_authorized_keys",
        Stands::Any,
        "public keys that may log in as root",
    ),
    (
        "up",
        Stands::Any,
        "what counts as answering: ssh, http, ping",
    ),
    ("address", Stands::Host, "the host's own address"),
    (
        "mode",
        Stands::Any,
        "stateless, or stateful: what a clone writes is kept in a volume",
    ),
    (
        "shared",
        Stands::Any,
        "directories of servers that are written to, by where they are mounted",
    ),
    ("volume", Stands::Any, "size of a stateful clone's volume"),
    ("volumes", Stands::Any, "not yet read"),
];

/// Those that hold a list, so that `sets+` appends to it; one text alone is a list of one.
pub(crate) const LISTS: [&str; 4] = ["sets", "ssh_authorized_keys", "up", "words"];

/// Reserved for what comes, so that no herd file uses them as variables until then.
pub(crate) const NOT_YET: [&str; 1] = ["volumes"];

/// The reserved key that `key` looks like a slip of, if any. Short keys are compared more
/// strictly: `ip` is no slip of `up`.
pub(crate) fn meant(key: &str) -> Option<&'static str> {
    nearest(key, KEYS.iter().map(|(name, ..)| *name))
}

/// The nearest of `names` within what a slip of the finger makes: two edits, one for names under
/// six letters, none under four.
pub(crate) fn nearest<'a>(
    given: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long text is nobody's slip; and the distance takes time in both lengths.
    if given.len() > 64 {
        return None;
    }
    let folded = given.to_lowercase().replace('-', "_");
    let length = folded.chars().count();
    names
        .into_iter()
        .filter_map(|name| {
            let allowed = match length.min(name.len()) {
                0..4 => 0,
                4..6 => 1,
                _ => 2,
            };
            // So far apart they are at least, which is known at once.
            if length.abs_diff(name.chars().count()) > allowed {
                return None;
            }
            let distance = distance(&folded, name);
            (distance <= allowed).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Edits between two texts: insert, delete, replace, swap of neighbours (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../../../docs/herd-file.md");
        for (key, ..) in KEYS {
            assert!(page.contains(&format!("`{key}`")), "{key}");
        }
        for key in LISTS {
            assert!(page.contains(&format!("`{key}+`")), "{key}+");
        }
    }

    #[test]
    fn slips_are_seen() {
        for (slip, key) in [
            ("memory_mb", "memory_mib"),
            ("memroy_mib", "memory_mib"),
            ("cpu", ""),
            ("cpsu", "cpus"),
            ("refrence", "reference"),
            ("Memory-MiB", "memory_mib"),
            ("group", "groups"),
            ("migrations", "migration"),
        ] {
            assert_eq!(meant(slip).unwrap_or_default(), key, "{slip}");
        }
    }

    #[test]
    fn ordinary_variables_are_no_slips() {
        for name in [
            "server",
            "os_root_device",
            "ip",
            "id",
            "port",
            "page",
            "ntp",
            "title",
            "x",
        ] {
            // `port` is one letter from nothing reserved; `page`, `title` neither.
            assert_eq!(meant(name), None, "{name}");
        }
    }
}

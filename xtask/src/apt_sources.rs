//! The machine's own package sources, read so that every suite added or debootstrapped comes from the same mirrors.
//!
//! Both forms of sources.list(5) are read: deb822 stanzas (`*.sources`) and one line each (`*.list`).

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// One place packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub uris: Vec<String>,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// What `Signed-By` says: a path or a fingerprint; a key written out in the source itself has many lines.
    pub signed_by: Option<String>,
    /// `Trusted: yes`, where an owner's mirror is not signed.
    pub trusted: bool,
}

impl Source {
    pub fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|own| own == suite)
    }

    /// The same place, other suites.
    pub fn with_suites(&self, suites: &[String]) -> Source {
        Source {
            suites: suites.to_vec(),
            components: vec!["main".into()],
            ..self.clone()
        }
    }

    /// As a deb822 stanza.
    pub fn stanza(&self) -> String {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
            self.uris.join(" "),
            self.suites.join(" "),
            self.components.join(" ")
        );
        // Writing to a String cannot fail.
        if let Some(key) = &self.signed_by {
            let _ = writeln!(
                text,
                "Signed-By:{}{key}",
                if key.starts_with('\n') { "" } else { " " }
            );
        }
        if self.trusted {
            text.push_str("Trusted: yes\n");
        }
        text
    }
}

/// Every source of binary packages on this machine.
pub fn read() -> Result<Vec<Source>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = Path::new("/etc/apt/sources.list.d");
    let mut more: Vec<PathBuf> = std::fs::read_dir(parts)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    more.sort();
    files.extend(more);
    let mut sources = Vec::new();
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        match path.extension().and_then(|e| e.to_str()) {
            Some("sources") => sources.extend(stanzas(&text)),
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            _ => {}
        }
    }
    Ok(sources)
}

/// The source of Debian's own `suite` (its main archive), or an error that says what was looked for.
pub fn main_archive<'a>(sources: &'a [Source], suite: &str) -> Result<&'a Source> {
    let main =
        |source: &&Source| source.has_suite(suite) && source.components.iter().any(|c| c == "main");
    sources.iter().find(main).ok_or_else(|| {
        Failure::Unfit(format!(
            "no source of packages for Debian's '{suite}' main in /etc/apt: add one, then try again"
        ))
    })
}

/// The sources for another suite of the same archive: its packages and, where the machine has them, security fixes.
pub fn for_suite(sources: &[Source], own: &str, wanted: &str) -> Result<Vec<Source>> {
    let mut found = vec![main_archive(sources, own)?.with_suites(&[wanted.to_string()])];
    for kind in ["updates", "security"] {
        if let Some(source) = sources
            .iter()
            .find(|source| source.has_suite(&format!("{own}-{kind}")))
        {
            found.push(source.with_suites(&[format!("{wanted}-{kind}")]));
        }
    }
    Ok(found)
}

fn stanzas(text: &str) -> Vec<Source> {
    text.split("\n\n").filter_map(stanza).collect()
}

fn stanza(text: &str) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line.trim_end());
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name: &str| {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let enabled = !matches!(field("enabled"), Some("no" | "false" | "0"));
    let source = Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(String::from),
        trusted: matches!(field("trusted"), Some("yes" | "true" | "1")),
    };
    (enabled && words("types").iter().any(|kind| kind == "deb") && !source.uris.is_empty())
        .then_some(source)
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let option = |name: &str| {
        options
            .split_whitespace()
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
            .map(String::from)
    };
    let mut words = rest.split_whitespace().map(String::from);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by"),
        trusted: option("trusted").as_deref() == Some("yes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# http://elsewhere.example/debian\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n\n\
        Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n\
        Types: deb-src\nURIs: http://mirror.example/src\nSuites: bookworm\nComponents: main\n\n\
        Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n";

    #[test]
    fn stanzas_that_give_binary_packages_are_read() {
        let sources = stanzas(STANZAS);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].uris, ["http://mirror.example/debian"]);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(
            sources[0].signed_by.as_deref(),
            Some("/usr/share/keyrings/k.gpg")
        );
    }

    #[test]
    fn one_line_form_is_read_with_its_options() {
        let source = one_line(
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main # why",
        )
        .unwrap();
        assert_eq!(source.uris, ["http://mirror.example/debian"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(source.components, ["main"]);
        assert_eq!(
            one_line("deb-src http://mirror.example/debian bookworm main"),
            None
        );
        assert_eq!(
            one_line("# deb http://mirror.example/debian bookworm main"),
            None
        );
        assert_eq!(one_line("deb [broken http://mirror.example"), None);
    }

    #[test]
    fn another_suite_comes_from_the_machines_own_mirrors() {
        let found = for_suite(&stanzas(STANZAS), "bookworm", "trixie").unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].suites, ["trixie"]);
        assert_eq!(found[2].uris, ["http://mirror.example/security"]);
        assert_eq!(found[2].suites, ["trixie-security"]);
        assert!(for_suite(&[], "bookworm", "trixie").is_err());
    }

    #[test]
    fn a_stanza_survives_its_own_writing() {
        for source in stanzas(STANZAS) {
            assert_eq!(stanzas(&source.stanza()), [source]);
        }
        let inline = "Types: deb\nURIs: http://m.example\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n";
        let source = stanza(inline).unwrap();
        assert_eq!(stanza(&source.stanza()), Some(source));
    }
}

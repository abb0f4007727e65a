//! Licences of everything that is built in, for where cargo-deny is not installed.
//!
//! Reads the list of deny.toml, and SPDX expressions (SPDX specification 2.3, annex D) as crates spell them, with the
//! old `/` for OR.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::binaries;
use crate::failure::{Failure, Result, file};
use crate::machine;
use crate::progress::output;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for our own.
    source: Option<String>,
}

/// What is wrong with the licences and sources of dependencies, a line each; nothing wrong is an empty list.
pub fn problems() -> Result<Vec<String>> {
    let path = machine::repository().join("deny.toml");
    let text = std::fs::read_to_string(&path).map_err(file("reading", &path))?;
    let allowed = allowed(&text, &path)?;
    let mut metadata = binaries::cargo("metadata");
    metadata.args([
        "--format-version",
        "1",
        "--filter-platform",
        binaries::GUEST_TARGET,
    ]);
    let text = output("listing dependencies", &mut metadata)?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|source| Failure::Json {
        what: "cargo metadata".into(),
        source,
    })?;
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let named = format!("{} {}", package.name, package.version);
        match package.license.as_deref() {
            None => problems.push(format!("{named} states no licence")),
            Some(expression) if !permits(expression, &allowed) => {
                problems.push(format!(
                    "{named} is under {expression}, which deny.toml does not allow"
                ));
            }
            Some(_) => {}
        }
        if package
            .source
            .as_deref()
            .is_some_and(|source| !source.starts_with("registry+"))
        {
            problems.push(format!("{named} does not come from the registry"));
        }
    }
    Ok(problems)
}

/// The strings of `allow = [...]` in `[licenses]`.
fn allowed(deny: &str, path: &Path) -> Result<BTreeSet<String>> {
    let section = deny
        .split("\n[")
        .find(|section| section.starts_with("licenses]"));
    let list = section
        .and_then(|section| section.split_once("allow = [")?.1.split_once(']'))
        .map(|(list, _)| list);
    let list = list
        .ok_or_else(|| Failure::Unfit(format!("{} has no licenses.allow list", path.display())))?;
    let names: BTreeSet<String> = list
        .split('"')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect();
    match names.iter().find(|name| name.contains("GPL")) {
        Some(name) => Err(Failure::Unfit(format!(
            "{} allows {name}: nothing built in may be under it",
            path.display()
        ))),
        None => Ok(names),
    }
}

/// Whether an SPDX expression can be met with the licences allowed. An expression that cannot be read permits nothing.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut tokens = spaced.split_whitespace().peekable();
    let met = any(&mut tokens, allowed, 0);
    met == Some(true) && tokens.next().is_none()
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Real expressions have one level or two.
const DEEPEST: usize = 16;

fn any(tokens: &mut Tokens, allowed: &BTreeSet<String>, depth: usize) -> Option<bool> {
    let mut met = all(tokens, allowed, depth)?;
    while tokens.next_if_eq(&"OR").is_some() {
        met |= all(tokens, allowed, depth)?;
    }
    Some(met)
}

fn all(tokens: &mut Tokens, allowed: &BTreeSet<String>, depth: usize) -> Option<bool> {
    let mut met = one(tokens, allowed, depth)?;
    while tokens.next_if_eq(&"AND").is_some() {
        met &= one(tokens, allowed, depth)?;
    }
    Some(met)
}

fn one(tokens: &mut Tokens, allowed: &BTreeSet<String>, depth: usize) -> Option<bool> {
    match tokens.next()? {
        "(" if depth < DEEPEST => {
            let met = any(tokens, allowed, depth + 1)?;
            (tokens.next()? == ")").then_some(met)
        }
        "(" | ")" | "AND" | "OR" | "WITH" => None,
        name if tokens.next_if_eq(&"WITH").is_some() => {
            Some(allowed.contains(&format!("{name} WITH {}", tokens.next()?)))
        }
        name => Some(allowed.contains(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_as_spdx_says() {
        let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
            .map(String::from)
            .into();
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-2.0/MIT",
            "(GPL-3.0 OR MIT) AND ISC",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND LGPL-2.1",
            "Apache-2.0",
            "",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT ISC",
            "((MIT) OR",
        ] {
            assert!(!permits(bad, &allowed), "{bad}");
        }
        assert!(!permits(&"(".repeat(100_000), &allowed));
    }

    #[test]
    fn a_list_that_lets_gpl_in_is_refused() {
        let path = Path::new("deny.toml");
        let list =
            |names: &str| allowed(&format!("x\n[licenses]\nallow = [{names}]\n[bans]\n"), path);
        assert_eq!(list(r#""MIT", "ISC""#).unwrap().len(), 2);
        assert!(list(r#""MIT", "LGPL-2.1-or-later""#).is_err());
        assert!(allowed("[bans]", path).is_err());
    }
}

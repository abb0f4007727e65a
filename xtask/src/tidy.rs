//! `./x tidy`: the rules of the house that no compiler knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::binaries::cargo;
use crate::failure::{Failure, Result, file};
use crate::machine;
use crate::progress::output;
use crate::tidy_text;

/// Nothing that people write is longer.
const LARGEST_BYTES: u64 = 512 * 1024;

/// From here on a second subject is likely in the file.
const LONG_LINES: usize = 500;

/// What programs leave behind, by its ending.
const BUILD_OUTPUTS: &[&str] = &[
    "a", "cpio", "d", "deb", "elf", "erofs", "gz", "img", "iso", "ko", "o", "pyc", "qcow2", "rlib",
    "rmeta", "so", "xz", "zst",
];

/// Crates and their floors: each imports only from floors below its own. Side crates import any, and none imports them.
const FLOORS: &[(&str, Floor)] = &[
    ("estive-model", Floor::At(0)),
    ("estive-archive", Floor::At(0)),
    ("estive-beneath", Floor::At(0)),
    ("estive-loop-device", Floor::At(0)),
    ("estive-erofs", Floor::At(0)),
    ("estive-world", Floor::At(0)),
    ("estive-boot", Floor::At(1)),
    ("estive-chunks", Floor::At(1)),
    ("estive-moves", Floor::At(1)),
    ("estive-planner", Floor::At(1)),
    ("estive-forecast", Floor::At(1)),
    ("estive-statistics", Floor::At(1)),
    ("estive-layers", Floor::At(2)),
    ("estive-rehearsal", Floor::At(2)),
    ("estive-hypervisor", Floor::At(3)),
    ("estive-network", Floor::At(3)),
    ("estive-exports", Floor::At(3)),
    ("estive-files", Floor::At(3)),
    ("estive-nfs", Floor::At(3)),
    ("estive-store", Floor::At(3)),
    ("estive-sandbox", Floor::At(3)),
    ("estive-union", Floor::At(3)),
    ("estive-api", Floor::At(4)),
    ("estive-tryout", Floor::At(4)),
    ("estive-volumes", Floor::At(5)),
    ("estive-agent", Floor::At(5)),
    ("estive-cache", Floor::At(5)),
    ("estive-live", Floor::At(5)),
    ("estive-manager", Floor::At(5)),
    ("estive-beat", Floor::At(6)),
    ("estive-cli", Floor::At(6)),
    ("estive-init", Floor::At(6)),
    ("estive-rig", Floor::Side),
    ("estive-sim", Floor::Side),
    ("estive-testbed", Floor::Side),
    ("xtask", Floor::Side),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Floor {
    At(u8),
    Side,
}

/// Prints each fault as `path:line: what` and each warning likewise; fails when there is a fault.
pub fn tidy() -> Result<()> {
    let root = machine::repository();
    let mut faults = Vec::new();
    for path in tracked(&root)? {
        faults.extend(faults_of_file(&root, &path)?);
    }
    faults.extend(faults_of_floors(&metadata()?));
    faults.extend(faults_of_decisions(&root.join("docs/decisions")));
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::Unfit(format!("{} faults", faults.len())))
    }
}

/// Files that are in the repository, or would be with the next `git add`.
fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let list = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let text = output(
        "listing the repository's files",
        Command::new("git").arg("-C").arg(root).args(list),
    )?;
    let mut paths: Vec<PathBuf> = text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn faults_of_file(root: &Path, path: &Path) -> Result<Vec<String>> {
    let whole = root.join(path);
    // Deleted but still in the index, or a link: the file it leads to is looked at by itself.
    let Ok(metadata) = whole.symlink_metadata() else {
        return Ok(Vec::new());
    };
    if !metadata.is_file() {
        return Ok(Vec::new());
    }
    let shown = path.display();
    if metadata.len() > LARGEST_BYTES {
        return Ok(vec![format!(
            "{shown}: larger than {} KiB",
            LARGEST_BYTES / 1024
        )]);
    }
    if path
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|ending| BUILD_OUTPUTS.contains(&ending))
    {
        return Ok(vec![format!(
            "{shown}: a build output; only what people write is kept here"
        )]);
    }
    let bytes = std::fs::read(&whole).map_err(file("reading", &whole))?;
    let Ok(text) = String::from_utf8(bytes) else {
        let picture = path
            .extension()
            .is_some_and(|e| e == "png" || e == "ico" || e == "woff2");
        return Ok(if picture {
            Vec::new()
        } else {
            vec![format!("{shown}: neither text nor a picture")]
        });
    };
    let lines = text.lines().count();
    if lines > LONG_LINES && path.extension().is_some_and(|e| e == "rs") {
        eprintln!("{shown}: warning: {lines} lines; look for the second subject in it");
    }
    Ok(tidy_text::faults(path, &text)
        .into_iter()
        .map(|fault| format!("{shown}:{}: {}", fault.line, fault.what))
        .collect())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Null for an ordinary one, else `dev` or `build`.
    kind: Option<String>,
}

fn metadata() -> Result<Metadata> {
    let text = output(
        "reading the manifests",
        cargo("metadata").args(["--no-deps", "--format-version", "1"]),
    )?;
    serde_json::from_str(&text).map_err(|source| Failure::Json {
        what: "cargo metadata".into(),
        source,
    })
}

/// Imports against the floors. What only tests import is free.
fn faults_of_floors(metadata: &Metadata) -> Vec<String> {
    let floor = |name: &str| {
        FLOORS
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, floor)| *floor)
    };
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some(own) = floor(&package.name) else {
            faults.push(format!(
                "{}: a crate without a floor; give it one in xtask/src/tidy.rs",
                package.name
            ));
            continue;
        };
        let Floor::At(own) = own else { continue };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.kind.as_deref() != Some("dev"))
        {
            match floor(&dependency.name) {
                Some(Floor::At(below)) if below < own => {}
                None if !dependency.name.starts_with("estive-") => {}
                _ => faults.push(format!(
                    "{} imports {}, which is not below it",
                    package.name, dependency.name
                )),
            }
        }
    }
    faults
}

/// Records are `NNN-title.md`, numbered from 000 (the template) without gaps, and begin with their number.
fn faults_of_decisions(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut faults = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let title = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        if !name.starts_with(&format!("{number:03}-")) || !name.ends_with(".md") {
            faults.push(format!(
                "docs/decisions/{name}: should be {number:03}-title.md"
            ));
            break;
        }
        if !title.starts_with(&format!("# {number:03}. ")) {
            faults.push(format!(
                "docs/decisions/{name}:1: should begin with '# {number:03}. '"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Metadata {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency {
                name: name.to_string(),
                kind: kind.map(String::from),
            })
            .collect();
        Metadata {
            packages: vec![Package {
                name: name.into(),
                dependencies,
            }],
        }
    }

    #[test]
    fn only_floors_below_may_be_imported() {
        let faults =
            |name, dependencies: &[_]| faults_of_floors(&package(name, dependencies)).len();
        assert_eq!(
            faults("estive-layers", &[("estive-model", None), ("serde", None)]),
            0
        );
        assert_eq!(faults("estive-layers", &[("estive-boot", None)]), 0);
        assert_eq!(faults("estive-boot", &[("estive-layers", None)]), 1);
        assert_eq!(faults("estive-layers", &[("estive-agent", None)]), 1);
        assert_eq!(faults("estive-layers", &[("estive-sim", None)]), 1);
        assert_eq!(faults("estive-layers", &[("estive-sim", Some("dev"))]), 0);
        assert_eq!(faults("estive-sim", &[("estive-manager", None)]), 0);
        assert_eq!(faults("estive-new", &[]), 1);
        assert_eq!(faults("estive-layers", &[("estive-new", None)]), 1);
    }

    #[test]
    fn decisions_have_no_gaps() {
        let temporary = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(temporary.path().join(name), text).unwrap();
        write("000-template.md", "# 000. T\n");
        write("001-a.md", "# 001. A\n");
        assert!(faults_of_decisions(temporary.path()).is_empty());
        write("003-c.md", "# 003. C\n");
        assert_eq!(faults_of_decisions(temporary.path()).len(), 1);
        write("002-b.md", "no title\n");
        assert_eq!(faults_of_decisions(temporary.path()).len(), 1);
    }
}

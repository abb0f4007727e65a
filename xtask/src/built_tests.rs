//! The workspace's test programs: which there should be, and where cargo put them.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use crate::binaries::cargo;
use crate::failure::{Failure, Result, file};
use crate::progress::output;
use crate::suites::{Suite, What};

/// One built file of a crate's `tests/`.
pub struct BuiltTest {
    package: String,
    target: String,
    pub package_directory: PathBuf,
    pub executable: PathBuf,
}

pub struct BuiltTests(Vec<BuiltTest>);

impl BuiltTests {
    pub fn get(&self, package: &str, target: &str) -> Option<&BuiltTest> {
        self.0
            .iter()
            .find(|test| test.package == package && test.target == target)
    }
}

/// What `cargo metadata` says of our own crates.
#[derive(Deserialize)]
pub struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Target {
    fn is_test(&self) -> bool {
        self.kind.iter().any(|kind| kind == "test")
    }
}

impl Workspace {
    pub fn read() -> Result<Self> {
        let arguments = ["--no-deps", "--format-version", "1"];
        let text = output("listing the suites", cargo("metadata").args(arguments))?;
        serde_json::from_str(&text).map_err(|source| Failure::Json {
            what: "cargo metadata".into(),
            source,
        })
    }

    /// Every file of a `tests/` directory, as (package, target).
    pub fn test_targets(&self) -> Vec<(String, String)> {
        let targets = |package: &Package| -> Vec<(String, String)> {
            let tests = package.targets.iter().filter(|target| target.is_test());
            tests
                .map(|target| (package.name.clone(), target.name.clone()))
                .collect()
        };
        self.packages.iter().flat_map(targets).collect()
    }
}

/// Where cargo writes what it built, to be read when it is done.
pub struct Messages(tempfile::NamedTempFile);

/// The command that builds the tests of the suites, or of everything where the suites are many.
pub fn build(suites: &[Suite]) -> Result<(Command, Messages)> {
    let temporary = std::path::Path::new("a temporary file");
    let messages = tempfile::NamedTempFile::new().map_err(file("making", temporary))?;
    let writer = messages.reopen().map_err(file("opening", temporary))?;
    let mut command = cargo("test");
    command.args([
        "--no-run",
        "--no-fail-fast",
        "--message-format",
        "json-render-diagnostics",
    ]);
    match suites {
        [
            Suite {
                what: What::Target { package, target },
                ..
            },
        ] => {
            command.args(["-p", package, "--test", target]);
        }
        _ => {
            command.arg("--workspace");
        }
    }
    command.stdout(writer);
    Ok((command, Messages(messages)))
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

impl Messages {
    /// The tests that were built: fewer than there are, where some do not compile.
    pub fn read(self, workspace: &Workspace) -> Result<BuiltTests> {
        let text =
            std::fs::read_to_string(self.0.path()).map_err(file("reading", self.0.path()))?;
        Ok(BuiltTests(
            text.lines()
                .filter_map(|line| built(line, workspace))
                .collect(),
        ))
    }
}

/// A line of cargo's that tells of a built test, or nothing.
fn built(line: &str, workspace: &Workspace) -> Option<BuiltTest> {
    let message: Message = serde_json::from_str(line).ok()?;
    let target = message
        .target
        .filter(|target| message.reason == "compiler-artifact" && target.is_test())?;
    let manifest = message.manifest_path?;
    let package = workspace
        .packages
        .iter()
        .find(|package| package.manifest_path == manifest)?;
    Some(BuiltTest {
        package: package.name.clone(),
        target: target.name,
        package_directory: manifest.parent()?.to_path_buf(),
        executable: message.executable?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_our_own_crates_are_taken() {
        let text = r#"{"packages":[{"name":"a","manifest_path":"/r/a/Cargo.toml","targets":[]}]}"#;
        let workspace: Workspace = serde_json::from_str(text).unwrap();
        let line = |manifest: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{manifest}","executable":"/t/x","target":{{"name":"n","kind":["{kind}"]}}}}"#
            )
        };
        let test = built(&line("/r/a/Cargo.toml", "test"), &workspace).unwrap();
        assert_eq!((test.package.as_str(), test.target.as_str()), ("a", "n"));
        assert!(built(&line("/r/a/Cargo.toml", "lib"), &workspace).is_none());
        assert!(built(&line("/r/b/Cargo.toml", "test"), &workspace).is_none());
        assert!(built("Compiling", &workspace).is_none());
    }
}

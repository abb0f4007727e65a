//! Puts the template sets of `sets/` into the library: a list of paths, modes and contents.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn main() {
    let manifest_dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out_dir = std::env::var("OUT_DIR").expect("cargo sets it");
    let sets = Path::new(&manifest_dir).join("../../sets");
    let mut code = "pub(crate) static SETS: &[(&str, &[(&str, Embedded)])] = &[\n".to_owned();
    for set in sorted(&sets) {
        if !set.is_dir() {
            continue;
        }
        let name = set
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a set's name is plain");
        writeln!(code, "({name:?}, &[").expect("to a string");
        list(&set, "", &mut code);
        code.push_str("]),\n");
    }
    code.push_str("];\n");
    fs::write(Path::new(&out_dir).join("sets.rs"), code).expect("writing the list of sets");
}

fn list(dir: &Path, prefix: &str, code: &mut String) {
    // Also directories: a file that comes or goes changes its directory's time.
    println!("cargo::rerun-if-changed={}", dir.display());
    for path in sorted(dir) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("names in sets are plain");
        let inner = format!("{prefix}{name}");
        let meta = fs::symlink_metadata(&path).expect("looking at a file of a set");
        if meta.is_dir() {
            list(&path, &format!("{inner}/"), code);
            continue;
        }
        let entry = if meta.is_symlink() {
            let target = fs::read_link(&path).expect("reading a link of a set");
            format!(
                "Embedded::Symlink({:?})",
                target.to_str().expect("links in sets are plain")
            )
        } else {
            println!("cargo::rerun-if-changed={}", path.display());
            let path = path.canonicalize().expect("finding a file of a set");
            let executable = meta.permissions().mode() & 0o100 != 0;
            format!("Embedded::File({executable}, include_bytes!({path:?}))")
        };
        writeln!(code, "({inner:?}, {entry}),").expect("to a string");
    }
}

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(dir).unwrap_or_else(|error| panic!("reading {}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

//! What tests with real machines share: what `./x test` gives them, programs that must succeed, static programs for
//! guests, a machine for one line of `root=`. All of it panics, with what to do, where a test cannot go on.

pub mod machine;

use estive_boot::KernelTree;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A path that `./x test` gives in an environment variable.
pub fn from_environment(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) => value.into(),
        None => panic!(
            "{name} is not set: this test needs what `./x test` makes first; run it with `./x test SUITE`"
        ),
    }
}

/// Runs a program to its end; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The kernel that clones have.
pub fn kernel() -> &'static KernelTree {
    static KERNEL: OnceLock<KernelTree> = OnceLock::new();
    KERNEL.get_or_init(|| {
        KernelTree::find(&from_environment("ESTIVE_KERNEL_TREE"))
            .unwrap_or_else(|error| panic!("the kernel's tree: {error}"))
    })
}

/// A static program from one file of Rust without crates, by the compiler alone; named after its source.
pub fn compiled(source: &Path, directory: &Path) -> PathBuf {
    let name = source.file_stem().unwrap_or_default();
    let out = directory.join(name);
    run(
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition", "2024", "-O", "--crate-name"])
            .arg(name)
            .args(["-C", "target-feature=+crt-static"])
            .args(["-C", "relocation-model=static", "-C", "panic=abort"])
            .arg(source)
            .arg("-o")
            .arg(&out),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_guests_is_made_by_the_compiler_alone() {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("greeter.rs");
        std::fs::write(&source, "fn main() { println!(\"hello\"); }").unwrap();
        let program = compiled(&source, home.path());
        assert_eq!(run(&mut Command::new(program)), "hello\n");
    }
}

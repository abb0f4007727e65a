//! What holds for every text: tried by properties, by the fuzz target `fuzz/fuzz_targets/root_line.rs`, and over its
//! corpus in every run of the tests.

use super::RootLine;
use crate::CommandLine;
use crate::loaders::Root;

/// Panics when something does not hold for a text, whatever it is.
pub fn hold(bytes: &[u8]) {
    // Files of the corpus end as all our files do.
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match RootLine::parse(text) {
        Ok(line) => {
            let printed = line.to_string();
            assert_eq!(RootLine::parse(&printed).as_ref(), Ok(&line), "{printed:?}");
        }
        Err(problem) => {
            assert!(problem.at <= text.len() && text.is_char_boundary(problem.at));
            assert_eq!(problem.pointed().lines().count(), 3, "{problem:?}");
        }
    }
    match Root::parse(text) {
        Ok(root) => {
            let printed = root.to_string();
            assert_eq!(Root::parse(&printed).as_ref(), Ok(&root), "{printed:?}");
            assert!(
                root.needs()
                    .modules
                    .iter()
                    .any(|module| module == "overlay")
            );
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
    // Words of the command line besides, none of which is of `root=`.
    let _ = CommandLine::parse(text);
}

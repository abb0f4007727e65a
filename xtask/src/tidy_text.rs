//! What a line of a file may hold.
//!
//! Words that are not allowed are written here in two halves, so that this file may hold them.

use std::path::Path;

pub struct Fault {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// Hosts of package registries and mirrors: which ones a machine uses is told by its own configuration.
const REGISTRIES: &[&str] = &[
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("snapshot.", "debian.org"),
    concat!("ftp.", "debian.org"),
    concat!("crates", ".io"),
    concat!("static.", "rust-lang.org"),
    concat!("sh.", "rustup.rs"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("npm", "js.org"),
    concat!("proxy.", "golang.org"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/tmp/", "w/"),
    concat!("/root/", ".c"),
];

/// What source code does not hold, with what to do instead.
const UNFINISHED: &[(&str, &str)] = &[
    (
        concat!("todo", "!"),
        "finish it, or return an error that says so",
    ),
    (concat!("FIX", "ME"), "fix it, or file an issue"),
    (
        concat!("#[ign", "ore"),
        "a test that does not run states nothing",
    ),
    (concat!("allow(dead", "_code)"), "remove what nobody uses"),
];

/// The one way in which a test may be left out: another test starts it, inside namespaces it has made.
const RUN_BY_ANOTHER: &str = concat!("#[ign", "ore = \"runs inside ");

/// How far above an unsafe block its reason may begin.
const REASON_LINES: usize = 8;

/// Everything that is wrong with a text file.
pub fn faults(path: &Path, text: &str) -> Vec<Fault> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    // Others' words, kept to the letter; what a registry wrote; what a test printed.
    if name == "LICENSE" || name == "Cargo.lock" {
        return Vec::new();
    }
    let snapshot = name.ends_with(".snap");
    // Files of template sets are written in the ways of the programs that read them.
    let carried = path.starts_with("sets");
    let rust = name.ends_with(".rs");
    let lines: Vec<&str> = text.split('\n').collect();
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: String| {
        faults.push(Fault {
            line: line + 1,
            what,
        })
    };
    if rust && !text.starts_with("//! ") {
        fault(
            0,
            "should begin with a line '//! ' that says what the file is about".into(),
        );
    }
    if !text.is_empty() && !text.ends_with('\n') {
        fault(lines.len() - 1, "no newline at the end".into());
    }
    for (number, line) in lines.iter().enumerate() {
        if line.ends_with('\r') {
            fault(number, "a carriage return".into());
        } else if !snapshot && line.ends_with([' ', '\t']) {
            fault(number, "white space at the end".into());
        }
        if !snapshot && !carried && line.contains('\t') {
            fault(number, "a tab".into());
        }
        for host in REGISTRIES.iter().filter(|host| line.contains(**host)) {
            fault(
                number,
                format!("names {host}: which mirror is used is the machine's to say"),
            );
        }
        for path in MACHINE_PATHS
            .iter()
            .filter(|path| begins_a_path(line, path))
        {
            fault(number, format!("names {path}..., a path of one machine"));
        }
        if rust {
            let unfinished = |word: &str| line.contains(word) && !line.contains(RUN_BY_ANOTHER);
            for (word, instead) in UNFINISHED.iter().filter(|(word, _)| unfinished(word)) {
                fault(number, format!("'{word}': {instead}"));
            }
            if is_unsafe(line) && !has_reason(&lines, number) {
                fault(
                    number,
                    "unsafe without a '// SAFETY:' line above that says why it is sound".into(),
                );
            }
        }
    }
    faults
}

/// Whether `path` stands in the line as the beginning of an absolute path, not inside a longer one.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}$)*".contains(c))
    })
}

/// Whether a line of Rust opens something unsafe; a word in a comment or a string does not.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"]
        .iter()
        .any(|opening| {
            code.find(opening).is_some_and(|at| {
                let before = &code[..at];
                before.matches('"').count().is_multiple_of(2)
                    && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
}

fn has_reason(lines: &[&str], number: usize) -> bool {
    lines[number.saturating_sub(REASON_LINES)..=number]
        .iter()
        .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, text: &str) -> usize {
        faults(Path::new(name), text).len()
    }

    #[test]
    fn white_space_is_ours() {
        assert_eq!(count("a.md", "good\n"), 0);
        assert_eq!(count("a.md", "bad \n"), 1);
        assert_eq!(count("a.md", "bad\r\n"), 1);
        assert_eq!(count("a.md", "a\tb\n"), 1);
        assert_eq!(count("a.md", "no end"), 1);
        assert_eq!(count("a.snap", "printed \n"), 0);
        assert_eq!(count("sets/web/etc/default", "a\tb\n"), 0);
    }

    #[test]
    fn a_source_says_what_it_is_about() {
        assert_eq!(count("a.rs", "//! A thing.\n"), 0);
        assert_eq!(count("a.rs", "fn main() {}\n"), 1);
    }

    #[test]
    fn machines_and_mirrors_are_not_named() {
        assert_eq!(count("a.md", concat!("from crates", ".io\n")), 1);
        assert_eq!(count("a.md", concat!("see /wo", "rk/main\n")), 1);
        assert_eq!(count("a.md", "upper/work/index and $dir/work/x\n"), 0);
    }

    #[test]
    fn unsafe_needs_its_reason() {
        assert_eq!(count("a.rs", "//! A.\nlet x = unsafe { y };\n"), 1);
        assert_eq!(
            count(
                "a.rs",
                "//! A.\n// SAFETY: y is ours.\nlet x = unsafe { y };\n"
            ),
            0
        );
        assert_eq!(
            count(
                "a.rs",
                "//! A.\nlet x = \"unsafe { y }\"; // unsafe { z }\n"
            ),
            0
        );
    }

    #[test]
    fn nothing_is_left_unfinished() {
        assert_eq!(count("a.rs", concat!("//! A.\ntodo", "!()\n")), 1);
        assert_eq!(count("a.rs", concat!("//! A.\n#[ign", "ore]\n")), 1);
        let inside = concat!(
            "//! A.\n#[ign",
            "ore = \"runs inside the namespace of another\"]\n"
        );
        assert_eq!(count("a.rs", inside), 0);
        assert_eq!(count("a.md", concat!("todo", "! is not allowed\n")), 0);
    }
}

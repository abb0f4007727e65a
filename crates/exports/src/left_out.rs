//! What a sealed root leaves out, as patterns for `mkfs.erofs --exclude-regex`.
//!
//! mkfs.erofs matches its patterns (POSIX extended, unanchored) against paths relative to the root
//! without a leading slash. A pattern that matches a directory hides all below it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::ExportError;

/// Private host keys identify the reference: a clone that had them could pass for it.
const HOST_KEYS: &str = "^etc/ssh/ssh_host_.*_key$";

/// Of a running system only: filled by the kernel or by whatever runs now, never part of a root.
const RUNNING_SYSTEM_CONTENTS: [&str; 6] = ["proc", "sys", "dev", "run", "tmp", "var/tmp"];

/// Estive's own state on this machine: it may hold the private authority's key.
const OWN_STATE: &str = "var/lib/estive";

/// Patterns for sealing `root` (canonical) into `out_dir` (canonical).
pub(crate) fn patterns(
    root: &Path,
    out_dir: &Path,
    more: &[PathBuf],
) -> Result<BTreeSet<OsString>, ExportError> {
    let mut patterns = BTreeSet::from([OsString::from(HOST_KEYS)]);
    if root == Path::new("/") {
        for dir in RUNNING_SYSTEM_CONTENTS {
            patterns.insert(contents_of(Path::new(dir)));
        }
        patterns.insert(contents_of(Path::new(OWN_STATE)));
        // Absent without swap support: then there is no swap file to leave out either.
        let swaps = fs::read("/proc/swaps").unwrap_or_default();
        for file in swap_files(&swaps) {
            if let Ok(below) = file.strip_prefix(root) {
                patterns.insert(exactly(below));
            }
        }
    }
    for path in std::iter::once(out_dir).chain(more.iter().map(PathBuf::as_path)) {
        if let Some(below) = below(root, path) {
            patterns.insert(contents_of(below));
        }
    }
    let mountinfo = fs::read("/proc/self/mountinfo").map_err(ExportError::io(
        "reading the mounts from",
        "/proc/self/mountinfo",
    ))?;
    for mount in mountpoints(&mountinfo) {
        let Some(below) = below(root, &mount) else {
            continue;
        };
        // A directory stays as the empty place to mount on; a file mounted over another (a
        // container's /etc/resolv.conf, a secret) belongs to this machine and goes whole.
        match fs::symlink_metadata(&mount) {
            Ok(meta) if meta.is_dir() => patterns.insert(contents_of(below)),
            _ => patterns.insert(exactly(below)),
        };
    }
    Ok(patterns)
}

fn below<'a>(root: &Path, path: &'a Path) -> Option<&'a Path> {
    path.strip_prefix(root)
        .ok()
        .filter(|rest| !rest.as_os_str().is_empty())
}

fn contents_of(dir: &Path) -> OsString {
    let mut pattern = b"^".to_vec();
    pattern.extend(escaped(dir.as_os_str().as_bytes()));
    pattern.push(b'/');
    OsString::from_vec(pattern)
}

fn exactly(path: &Path) -> OsString {
    let mut pattern = b"^".to_vec();
    pattern.extend(escaped(path.as_os_str().as_bytes()));
    pattern.push(b'$');
    OsString::from_vec(pattern)
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if b".[]{}()*+?^$|\\".contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

/// Mount points of a mountinfo text (proc(5), field 5).
fn mountpoints(mountinfo: &[u8]) -> Vec<PathBuf> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(unescape_octal)
        .collect()
}

/// Swap files of a /proc/swaps text: first a heading, then name and type.
fn swap_files(swaps: &[u8]) -> Vec<PathBuf> {
    swaps
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut fields = line
                .split(|byte| byte.is_ascii_whitespace())
                .filter(|field| !field.is_empty());
            let name = fields.next()?;
            (fields.next()? == b"file").then(|| unescape_octal(name))
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash in names as `\ooo`.
fn unescape_octal(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = tail
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_names_with_spaces_are_read() {
        let text = b"36 35 98:0 / /mnt/a\\040b\\134c rw - ext4 /dev/x rw\n\n";
        assert_eq!(mountpoints(text), [PathBuf::from("/mnt/a b\\c")]);
    }

    #[test]
    fn only_swap_files_count_not_partitions() {
        let text = b"Filename\tType\tSize\tUsed\tPriority\n/swap.img  file\t1\t0\t-2\n/dev/sda2  partition 1 0 -3\n";
        assert_eq!(swap_files(text), [PathBuf::from("/swap.img")]);
    }

    #[test]
    fn names_are_literal_in_patterns() {
        assert_eq!(contents_of(Path::new("a.b+c")), "^a\\.b\\+c/");
        assert_eq!(exactly(Path::new("a(1)")), "^a\\(1\\)$");
    }

    #[test]
    fn the_running_system_leaves_out_what_only_runs() {
        let all = patterns(Path::new("/"), Path::new("/var/cache/estive"), &[]).unwrap();
        for expected in ["^proc/", "^sys/", "^dev/", "^run/", "^tmp/", HOST_KEYS] {
            assert!(all.contains(&OsString::from(expected)), "{expected}");
        }
        assert!(all.contains(&OsString::from("^var/cache/estive/")));
    }

    #[test]
    fn another_root_keeps_its_own_tmp() {
        let root = Path::new("/srv/no-such-root");
        let all = patterns(root, Path::new("/var/cache/estive"), &[]).unwrap();
        assert_eq!(all.len(), 1);
    }
}

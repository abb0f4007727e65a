//! What the rules would leave out of a root, without reading a file of it.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use estive_beneath::Errno;
use rustix::fs::{AtFlags, FileType, OFlags, statat};
use serde::Serialize;

use super::capture::open_name;
use super::round::{join, names_of};
use super::rules::{Action, Rules, Verdict, shown};
use super::{canonical_root, open_root};
use crate::ExportError;

/// Paths that are told for each rule; beyond, they are counted.
const TOLD_MAX: usize = 100;

/// A rule and what it means of a root.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    pub action: Action,
    pub pattern: String,
    pub reason: String,
    /// A directory that goes with all in it counts once.
    pub names: u64,
    /// Of files that go by themselves.
    pub bytes: u64,
    /// The first of the paths.
    pub paths: Vec<String>,
}

/// Every rule with what it means of `root`.
pub fn preview(root: &Path, rules: &Rules) -> Result<Vec<Effect>, ExportError> {
    let mut effects: Vec<Effect> = rules
        .rules()
        .iter()
        .map(|rule| Effect {
            action: rule.action,
            pattern: rule.pattern.clone(),
            reason: rule.reason.clone(),
            names: 0,
            bytes: 0,
            paths: Vec::new(),
        })
        .collect();
    let top = open_root(&canonical_root(root)?)?;
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let failed = |path: &[u8], errno: Errno| {
            ExportError::io("reading, below the root,", shown(path))(errno.into())
        };
        let Some(directory) = open_below(&top, &path, rules) else {
            continue;
        };
        let (names, _) = names_of(&directory).map_err(|errno| failed(&path, errno))?;
        for name in names {
            let below = join(&path, name.to_bytes());
            // What goes meanwhile is not there.
            let Ok(stat) = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let parts: Vec<&[u8]> = below.split(|byte| *byte == b'/').collect();
            let verdict = rules.verdict(&parts, kind.is_dir());
            if let Verdict::LeftOut(rule) | Verdict::Emptied(rule) = verdict {
                let effect = &mut effects[rule];
                effect.names += 1;
                if kind.is_file() {
                    effect.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                if effect.paths.len() < TOLD_MAX {
                    effect.paths.push(shown(&below));
                }
            } else if kind.is_dir() {
                pending.push(below);
            }
        }
    }
    Ok(effects)
}

/// A directory by its path below the root; none where another volume lies, or when it has gone.
fn open_below(top: &OwnedFd, path: &[u8], rules: &Rules) -> Option<OwnedFd> {
    if path.is_empty() {
        return rustix::io::dup(top).ok();
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = CString::new(path).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open_name(top, &name, flags, rules.is_asked_for(&parts)).ok()
}

//! What a script left, read when every process of it is gone. Nothing it made is trusted: names, kinds, modes, targets
//! and sizes are checked, and each refusal names its path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use crate::limits::shown_bytes;
use crate::request::{OutputNode, ScriptOutput, ScriptRequest};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The set-user-id and set-group-id bits.
const SETS_ID: u32 = 0o6000;

/// Reads the whole output, in the order of its names.
pub(crate) fn collect(output: &OwnedFd, request: &ScriptRequest) -> Result<ScriptOutput, String> {
    let mut collector = Collector {
        request,
        nodes: BTreeMap::new(),
        first_names: BTreeMap::new(),
        bytes: 0,
    };
    collector.below(output, "", 1)?;
    Ok(ScriptOutput {
        nodes: collector.nodes,
    })
}

struct Collector<'a> {
    request: &'a ScriptRequest,
    nodes: BTreeMap<String, OutputNode>,
    /// Of files with several, by inode.
    first_names: BTreeMap<u64, String>,
    bytes: u64,
}

impl Collector<'_> {
    fn below(&mut self, directory: &OwnedFd, prefix: &str, depth: usize) -> Result<(), String> {
        let limits = &self.request.limits;
        if depth > limits.output_depth {
            return Err(format!(
                "left directories deeper than {} levels",
                limits.output_depth
            ));
        }
        let reading = |error: Errno| format!("reading its output /{prefix}: {error}");
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let name = name
                .to_str()
                .map_err(|_| format!("left the name {name:?} in /{prefix}, which is not UTF-8"))?;
            names.push(name.to_owned());
            if (self.nodes.len() + names.len()) as u64 > limits.output_files {
                return Err(format!("left more than {} files", limits.output_files));
            }
        }
        // So that of a file with several names always the same comes first.
        names.sort();
        for name in names {
            let path = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            estive_archive::check_path(&path)
                .map_err(|error| format!("left a bad name: {error}"))?;
            let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| format!("looking at its output /{path}: {error}"))?;
            self.take(directory, &name, path, &stat, depth)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        directory: &OwnedFd,
        name: &str,
        path: String,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), String> {
        let mode = stat.st_mode & 0o7777;
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => self.symlink(directory, name, &path)?,
            FileType::RegularFile => {
                self.check_mode(&path, mode)?;
                self.file(directory, name, &path, stat)?
            }
            FileType::Directory => {
                self.check_mode(&path, mode)?;
                let inner = open(directory, name, OFlags::DIRECTORY)
                    .map_err(|error| format!("opening its output /{path}: {error}"))?;
                self.nodes
                    .insert(path.clone(), OutputNode::Directory { mode });
                return self.below(&inner, &path, depth + 1);
            }
            kind => {
                return Err(format!(
                    "left {} at /{path}; only files, directories and links are taken (to hide a name of the root, \
                     leave a file .wh.NAME)",
                    named(kind)
                ));
            }
        };
        self.nodes.insert(path, node);
        Ok(())
    }

    fn check_mode(&self, path: &str, mode: u32) -> Result<(), String> {
        if mode & SETS_ID == 0 || self.request.modes_given.contains(path) {
            return Ok(());
        }
        Err(format!(
            "left /{path} with the mode {mode:04o}: who runs it would become its owner; if it must be so, write its \
             mode under files: in the set's set.yaml"
        ))
    }

    fn symlink(&self, directory: &OwnedFd, name: &str, path: &str) -> Result<OutputNode, String> {
        let target = readlinkat(directory, name, Vec::new())
            .map_err(|error| format!("reading its link /{path}: {error}"))?;
        let target = target
            .into_string()
            .map_err(|_| format!("left the link /{path}, whose target is not UTF-8"))?;
        if leads_out(path, &target) {
            return Err(format!(
                "left the link /{path} to {target:?}, which leads out of the clone's root"
            ));
        }
        Ok(OutputNode::Symlink { target })
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &str,
        path: &str,
        stat: &Stat,
    ) -> Result<OutputNode, String> {
        if stat.st_nlink > 1 {
            if let Some(target) = self.first_names.get(&stat.st_ino) {
                return Ok(OutputNode::HardLink {
                    target: target.clone(),
                });
            }
            self.first_names.insert(stat.st_ino, path.to_owned());
        }
        let reading = |error: std::io::Error| format!("reading its output /{path}: {error}");
        let file =
            open(directory, name, OFlags::NONBLOCK).map_err(|error| reading(error.into()))?;
        let opened = fstat(&file).map_err(|error| reading(error.into()))?;
        let most = self.request.limits.output_bytes;
        let too_much = || format!("left more than {} of files", shown_bytes(most));
        let left = most - self.bytes;
        if opened.st_size.cast_unsigned() > left {
            return Err(too_much());
        }
        let mut bytes = Vec::new();
        File::from(file)
            .take(left + 1)
            .read_to_end(&mut bytes)
            .map_err(reading)?;
        if bytes.len() as u64 > left {
            return Err(too_much());
        }
        self.bytes += bytes.len() as u64;
        Ok(OutputNode::File {
            mode: stat.st_mode & 0o7777,
            bytes,
        })
    }
}

fn open(directory: &OwnedFd, name: &str, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    openat2(directory, name, flags, Mode::empty(), BENEATH)
}

fn named(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something unknown",
    }
}

/// Does a link at `path` climb above the root? An absolute target begins at the clone's own root.
fn leads_out(path: &str, target: &str) -> bool {
    let mut depth = if target.starts_with('/') {
        0
    } else {
        path.matches('/').count()
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_not_climb_above_the_root() {
        for (path, target, out) in [
            ("a", "b", false),
            ("a", "../b", true),
            ("d/a", "../b", false),
            ("d/a", "../../b", true),
            ("d/a", "x/../../..", true),
            ("d/a", "x/../../b", false),
            ("a", "/etc/hosts", false),
            ("d/e/a", "/../etc/shadow", true),
            ("a", "/x/../y", false),
        ] {
            assert_eq!(leads_out(path, target), out, "{path} -> {target}");
        }
    }
}

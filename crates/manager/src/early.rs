//! Initial RAM file systems for clones with a `root:` of their own: the reference's where that has all the line needs,
//! else made here, once for each content, and sent to agents as the reference's files are.

use crate::reference::{Reference, SharedFile, digest_of};
use estive_api::Problem;
use estive_boot::{KernelTree, Root, initramfs, programs};
use estive_layers::ClonePlan;
use estive_model::Digest;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// The file to start this clone with; blocks while one is made.
pub(crate) fn initramfs(
    clone: &ClonePlan,
    reference: &Reference,
    state: &Path,
) -> Result<SharedFile, Problem> {
    let Some(line) = &clone.root else {
        return Ok(reference.initramfs.clone());
    };
    let wrong = |what: String| Problem::impossible(format!("root: of {}: {what}", clone.name));
    // It was read with the herd file.
    let root = Root::parse(line).map_err(|problem| wrong(problem.to_string()))?;
    if root.is_of_clones() {
        return Ok(reference.initramfs.clone());
    }
    let Some(early) = &reference.early else {
        return Err(wrong(format!(
            "{line} needs more than the reference's initial RAM file system has"
        ))
        .advice(
            "write early: {init: …, kernel_tree: …} at the reference in the manager's configuration",
        ));
    };
    let needs = root.needs();
    let programs = match (&needs.programs[..], &reference.tree) {
        ([], _) => programs::Programs::default(),
        (wanted, Some(tree)) if tree.is_dir() => {
            programs::collect(tree, wanted).map_err(|error| wrong(chain(&error)))?
        }
        (wanted, _) => {
            let (asked_by, program) = (&wanted[0].asked_by, wanted[0].program.name);
            return Err(wrong(format!(
                "{asked_by} needs the program {program} of the reference, of which this manager has no directory"
            ))
            .advice(
                "write tree: with the directory that the image was sealed from, at the reference in the manager's configuration",
            ));
        }
    };
    let make = || -> Result<Vec<u8>, String> {
        let init = std::fs::read(&early.init)
            .map_err(|error| format!("reading {}: {error}", early.init.display()))?;
        let kernel = KernelTree::find(&early.kernel_tree).map_err(|error| chain(&error))?;
        initramfs::build_for(&init, &kernel, &needs, programs.members())
            .map_err(|error| chain(&error))
    };
    let bytes = make().map_err(wrong)?;
    keep(state, &bytes)
        .map_err(|error| Problem::failed(format!("keeping an initial RAM file system: {error}")))
}

/// A file that was made before, by its digest.
pub(crate) async fn made(state: &Path, digest: &Digest) -> Option<SharedFile> {
    let path = place(state, digest);
    let is_there = tokio::fs::try_exists(&path).await.unwrap_or(false);
    let digest = digest.clone();
    is_there.then_some(SharedFile { path, digest })
}

fn place(state: &Path, digest: &Digest) -> PathBuf {
    state.join("initramfs").join(digest.hex())
}

/// Under its digest, whole or not at all.
fn keep(state: &Path, bytes: &[u8]) -> std::io::Result<SharedFile> {
    let digest = digest_of(Sha256::new_with_prefix(bytes))?;
    let path = place(state, &digest);
    if !path.exists() {
        let directory = state.join("initramfs");
        std::fs::create_dir_all(&directory)?;
        let aside = tempfile::NamedTempFile::new_in(&directory)?;
        std::fs::write(aside.path(), bytes)?;
        aside.as_file().sync_all()?;
        aside.persist(&path).map_err(|error| error.error)?;
    }
    Ok(SharedFile { path, digest })
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_kept_once_and_found_by_its_digest() {
        let state = tempfile::tempdir().unwrap();
        let kept = keep(state.path(), b"abc").unwrap();
        assert_eq!(kept.path, keep(state.path(), b"abc").unwrap().path);
        let found = made(state.path(), &kept.digest).await.unwrap();
        assert_eq!(&found.read().await.unwrap()[..], b"abc");
        let other = keep(state.path(), b"abd").unwrap().digest;
        std::fs::remove_file(place(state.path(), &other)).unwrap();
        assert!(made(state.path(), &other).await.is_none());
    }
}

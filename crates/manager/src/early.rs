//! Initial RAM file systems for clones with a `root:` of their own: the reference's where that has all the line needs,
//! else made here, once for each content, and sent to agents as the reference's files are.

use crate::agents::chain;
use crate::kernel_modules::ImageModules;
use crate::manager::Manager;
use crate::records::DomainRecord;
use crate::reference::{Reference, SharedFile, digest_of};
use estive_api::Problem;
use estive_boot::kernel::{RELEASE_HEAD_BYTES, release_of};
use estive_boot::{KernelModules, KernelTree, Root, SharedDirectory, initramfs, programs};
use estive_layers::{ClonePlan, SEALED_ROOT};
use estive_model::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Of the state directory.
const DIRECTORY: &str = "initramfs";

/// What was made for one herd: most of its clones have the same line.
#[derive(Default)]
pub(crate) struct Made(BTreeMap<(String, String, bool), SharedFile>);

impl Made {
    /// The file to start this clone with; blocks while one is made.
    pub fn initramfs(
        &mut self,
        clone: &ClonePlan,
        reference: &Reference,
        state: &Path,
    ) -> Result<SharedFile, Problem> {
        let shares = !clone.shared.is_empty();
        let line = match clone.root_line() {
            Some(line) => line,
            None if shares => SEALED_ROOT,
            None => return Ok(reference.initramfs.clone()),
        };
        let key = (clone.reference.clone(), line.to_owned(), shares);
        if let Some(made) = self.0.get(&key) {
            return Ok(made.clone());
        }
        let of = if shares { "root: and shared:" } else { "root:" };
        let wrong = |what: String| Problem::impossible(format!("{of} of {}: {what}", clone.name));
        let made = for_line(line, shares, reference, state, wrong)?;
        self.0.insert(key, made.clone());
        Ok(made)
    }
}

fn for_line(
    line: &str,
    shares: bool,
    reference: &Reference,
    state: &Path,
    wrong: impl Fn(String) -> Problem,
) -> Result<SharedFile, Problem> {
    // It was read with the herd file.
    let root = Root::parse(line).map_err(|problem| wrong(problem.to_string()))?;
    if root.is_of_clones() && !shares {
        return Ok(reference.initramfs.clone());
    }
    let common = reference.initramfs.bytes()?;
    let common = initramfs::contents(&common);
    let is_met = |common: &initramfs::Contents<'_>| root.is_met_by(&common.modules);
    if !shares && common.as_ref().is_some_and(is_met) {
        return Ok(reference.initramfs.clone());
    }
    let mut needs = root.needs();
    if shares {
        SharedDirectory::add_needs(&mut needs);
    }
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
    let (init, modules) = match (&reference.early, common) {
        (Some(early), _) => {
            let init = std::fs::read(&early.init)
                .map_err(|error| wrong(format!("reading {}: {error}", early.init.display())))?;
            let kernel = kernel_of(&reference.kernel, &early.kernel_tree)
                .map_err(|(what, advice)| wrong(what).advice(advice))?;
            (init, Modules::Tree(kernel))
        }
        (None, common) => {
            let found = common.map(|common| common.init.to_owned()).ok_or_else(|| {
                let path = reference.initramfs.path.display();
                format!("{path} is no initial RAM file system as estive makes them")
            });
            found
                .and_then(|init| Ok((init, modules_of(reference)?)))
                .map_err(|why| {
                    let lacks = "needs more than the reference's initial RAM file system has";
                    wrong(format!("{line} {lacks}: {why}")).advice(
                        "write early: {init: …, kernel_tree: …} at the reference in the manager's configuration",
                    )
                })?
        }
    };
    let bytes = initramfs::build_for(&init, &modules, &needs, programs.members())
        .map_err(|error| wrong(chain(&error)))?;
    keep(state, &bytes)
        .map_err(|error| Problem::failed(format!("keeping an initial RAM file system: {error}")))
}

/// Where modules are taken from.
enum Modules {
    Tree(KernelTree),
    Image(ImageModules),
}

impl KernelModules for Modules {
    fn file(&self, path: &str, limit_bytes: u64) -> estive_boot::Result<Option<Vec<u8>>> {
        match self {
            Self::Tree(tree) => tree.file(path, limit_bytes),
            Self::Image(image) => image.file(path, limit_bytes),
        }
    }

    fn place(&self, path: &str) -> PathBuf {
        match self {
            Self::Tree(tree) => tree.place(path),
            Self::Image(image) => image.place(path),
        }
    }
}

/// Those of the kernel that clones start, of what the reference is made of: its disk of modules, else its root, as far
/// as this machine has it. The error says in words where they were looked for.
fn modules_of(reference: &Reference) -> Result<Modules, String> {
    let kernel = &reference.kernel.path;
    let mut head = Vec::new();
    File::open(kernel)
        .and_then(|file| file.take(RELEASE_HEAD_BYTES).read_to_end(&mut head))
        .map_err(|error| format!("reading {}: {error}", kernel.display()))?;
    let release = release_of(&head)
        .ok_or_else(|| format!("{} does not say which kernel it is", kernel.display()))?;
    let mut looked = Vec::new();
    for place in [Some(&reference.modules.path), reference.tree.as_ref()] {
        let Some(place) = place else {
            looked.push("its root, which this manager has no copy of (tree:)".to_owned());
            continue;
        };
        let found = match place.is_dir() {
            true => Ok(KernelTree::of_release(place, kernel, &release).map(Modules::Tree)),
            false => ImageModules::find(place, &release).map(|found| found.map(Modules::Image)),
        };
        match found {
            Ok(Some(modules)) => return Ok(modules),
            Ok(None) => looked.push(place.display().to_string()),
            Err(error) => looked.push(chain(&error)),
        }
    }
    let looked = looked.join("; ");
    Err(format!(
        "modules of the kernel {release} were not found: {looked}"
    ))
}

/// The tree's kernel, whose modules are taken: it must be the one that clones start, which takes no others.
pub(crate) fn kernel_of(
    starts: &SharedFile,
    tree: &Path,
) -> Result<KernelTree, (String, &'static str)> {
    let advice = "give kernel: and early: {kernel_tree: …} of the reference the same kernel";
    let kernel = KernelTree::find(tree).map_err(|error| (chain(&error), advice))?;
    let shown = kernel.vmlinuz.display();
    let found = SharedFile::load(&kernel.vmlinuz)
        .map_err(|error| (format!("reading {shown}: {error}"), advice))?;
    if found.digest != starts.digest {
        let starts = starts.path.display();
        return Err((
            format!("clones start the kernel {starts}, and {shown} with its modules is another"),
            advice,
        ));
    }
    Ok(kernel)
}

/// A file that was made before, by its digest.
pub(crate) async fn made(state: &Path, digest: &Digest) -> Option<SharedFile> {
    let path = place(state, digest);
    let is_there = tokio::fs::try_exists(&path).await.unwrap_or(false);
    let digest = digest.clone();
    is_there.then_some(SharedFile { path, digest })
}

fn place(state: &Path, digest: &Digest) -> PathBuf {
    state.join(DIRECTORY).join(digest.hex())
}

/// Under its digest, whole or not at all.
fn keep(state: &Path, bytes: &[u8]) -> std::io::Result<SharedFile> {
    let digest = digest_of(Sha256::new_with_prefix(bytes))?;
    let path = place(state, &digest);
    // One that was damaged is made anew.
    if !SharedFile::load(&path).is_ok_and(|kept| kept.digest == digest) {
        let directory = state.join(DIRECTORY);
        std::fs::create_dir_all(&directory)?;
        let aside = tempfile::NamedTempFile::new_in(&directory)?;
        std::fs::write(aside.path(), bytes)?;
        aside.as_file().sync_all()?;
        aside.persist(&path).map_err(|error| error.error)?;
    }
    Ok(SharedFile { path, digest })
}

impl Manager {
    /// Removes those that nothing needs any more: no clone's record names them, nor does the configuration. While an
    /// `up` is under way nothing is, since what that makes is not recorded yet: it comes here at its end.
    pub async fn forget_initramfs(&self) {
        let Ok(_alone) = self.making_initramfs.try_write() else {
            return;
        };
        let Ok(records) = self.records.domains().await else {
            return;
        };
        let mut needed = BTreeSet::new();
        for record in &records {
            match &record.made_of {
                Some(made_of) => needed.insert(place(&self.state, &made_of.initramfs)),
                // It cannot be told.
                None if may_have_its_own(record) => return,
                None => false,
            };
        }
        needed.extend(self.references.initramfs_paths());
        let directory = self.state.join(DIRECTORY);
        let removed = tokio::task::spawn_blocking(move || remove_others(&directory, &needed));
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(%error, "initial RAM file systems that nothing needs could not be removed");
        }
    }
}

/// What of `root:` was recorded before what a clone is made of was.
fn may_have_its_own(record: &DomainRecord) -> bool {
    let words = record.words.as_ref();
    words.is_none_or(|words| words.iter().any(|word| word.starts_with("root=")))
}

/// All files there but these, also what a manager that was killed has left half made.
fn remove_others(directory: &Path, needed: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if !needed.contains(&path) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
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
        // A damaged one is whole again.
        std::fs::write(&found.path, b"ab").unwrap();
        keep(state.path(), b"abc").unwrap();
        assert_eq!(&found.read().await.unwrap()[..], b"abc");
        let other = keep(state.path(), b"abd").unwrap().digest;
        std::fs::remove_file(place(state.path(), &other)).unwrap();
        assert!(made(state.path(), &other).await.is_none());
    }

    #[test]
    fn what_is_needed_stays() {
        let state = tempfile::tempdir().unwrap();
        let kept = keep(state.path(), b"abc").unwrap().path;
        let other = keep(state.path(), b"abd").unwrap().path;
        let directory = state.path().join(DIRECTORY);
        for _ in 0..2 {
            remove_others(&directory, &[kept.clone()].into()).unwrap();
            assert_eq!((kept.exists(), other.exists()), (true, false));
        }
        remove_others(&state.path().join("none"), &BTreeSet::new()).unwrap();
    }

    #[test]
    fn modules_of_another_kernel_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        std::fs::create_dir_all(path("tree/boot")).unwrap();
        std::fs::create_dir_all(path("tree/lib/modules/6.1")).unwrap();
        std::fs::write(path("tree/lib/modules/6.1/modules.dep"), "").unwrap();
        std::fs::write(path("tree/boot/vmlinuz-6.1"), "kernel").unwrap();
        std::fs::write(path("same"), "kernel").unwrap();
        std::fs::write(path("other"), "another").unwrap();
        let kernel = |name: &str| SharedFile::load(&path(name)).unwrap();
        let found = kernel_of(&kernel("same"), &path("tree")).unwrap();
        assert_eq!(found.release, "6.1");
        let (error, _) = kernel_of(&kernel("other"), &path("tree")).unwrap_err();
        assert!(error.contains("is another"), "{error}");
    }

    const RELEASE: &str = "6.1.0-1-amd64";
    const STATEFUL: &str = "erofs;estive;serial=estive-volume:fs=ext4";

    /// A kernel of [`RELEASE`] with these modules as files, below `root`.
    fn kernel(root: &Path, modules: &[&str]) {
        let directory = root.join("usr/lib/modules").join(RELEASE);
        std::fs::create_dir_all(directory.join("kernel")).unwrap();
        let mut dep = String::new();
        for module in modules {
            dep += &format!("kernel/{module}.ko:\n");
            std::fs::write(directory.join(format!("kernel/{module}.ko")), module).unwrap();
        }
        std::fs::write(directory.join("modules.dep"), dep).unwrap();
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x300 + RELEASE.len()].copy_from_slice(RELEASE.as_bytes());
        std::fs::create_dir_all(root.join("boot")).unwrap();
        std::fs::write(root.join("boot").join(format!("vmlinuz-{RELEASE}")), image).unwrap();
    }

    #[test]
    fn what_the_common_file_lacks_is_found_in_what_the_reference_is_made_of() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let base = estive_boot::modules::BEFORE_IDENTITY;
        let base: Vec<&str> = base.into_iter().chain(["ext4", "nfs"]).collect();
        kernel(&path("root"), &base);
        // As the disk of modules is made, which has nothing where the root has its own.
        let modules = |from: Option<&Path>, name: &str| {
            let made = estive_exports::modules::image(from, &path(name)).unwrap();
            made.path
        };
        let disk = modules(Some(&path("root/usr/lib/modules")), "disk");
        let nothing = modules(None, "nothing");
        let sealed = estive_exports::seal(&path("root"), &path("sealed")).unwrap();
        let tree = KernelTree::find(&path("root")).unwrap();
        let common = initramfs::build(b"estive-init", &tree).unwrap();
        std::fs::write(path("common"), common).unwrap();
        std::fs::write(path("packed"), b"\x1f\x8b").unwrap();
        let reference = |initramfs: &str, modules: &Path, tree_at: Option<&Path>| Reference {
            name: "default".into(),
            root: None,
            route: None,
            kernel: SharedFile::load(&tree.vmlinuz).unwrap(),
            initramfs: SharedFile::load(&path(initramfs)).unwrap(),
            modules: SharedFile::load(modules).unwrap(),
            early: None,
            tree: tree_at.map(Path::to_owned),
            sets: Vec::new(),
        };
        let made = |reference: &Reference, line| {
            for_line(line, false, reference, &path("state"), Problem::impossible)
        };
        let mut digests = BTreeSet::new();
        for (modules, tree_at) in [
            (&disk, None),
            (&nothing, Some(&path("root"))),
            (&nothing, Some(&sealed.path)),
        ] {
            let reference = reference("common", modules, tree_at.map(PathBuf::as_path));
            for (line, module) in [(STATEFUL, "ext4"), ("nfs:10.0.0.1:/:ro;tmpfs", "nfs")] {
                let file = made(&reference, line).unwrap();
                let bytes = file.bytes().unwrap();
                let contents = initramfs::contents(&bytes).unwrap();
                assert_eq!(contents.init, b"estive-init");
                assert!(contents.modules.file(module).is_some(), "{line}");
                digests.insert(file.digest);
            }
            let as_clones_are = made(&reference, "erofs;estive;tmpfs").unwrap();
            assert_eq!(as_clones_are.digest, reference.initramfs.digest);
        }
        // Wherever they were found, they make the same.
        assert_eq!(digests.len(), 2);
        for (initramfs, modules, tree_at, said) in [
            ("common", &nothing, None, "no copy of"),
            ("common", &nothing, Some(&nothing), RELEASE),
            ("packed", &disk, None, "as estive makes them"),
        ] {
            let tree_at = tree_at.map(PathBuf::as_path);
            let refused = made(&reference(initramfs, modules, tree_at), STATEFUL).unwrap_err();
            assert!(refused.error.contains(said), "{refused}");
            assert!(refused.to_string().contains("early:"), "{refused}");
        }
    }
}

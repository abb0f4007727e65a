//! References: what clones are made from, with the digest of every file that hosts share.

use crate::config::{EarlyConfig, ReferenceConfig};
use bytes::Bytes;
use estive_api::Problem;
use estive_api::domain_xml::{LiveSource, RootSource};
use estive_layers::ClonePlan;
use estive_model::Digest;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the name of a root begins that is not sealed.
pub(crate) const LIVE_ROOT: &str = "live ";

/// One reference as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// By which its clones know it.
    pub name: String,
    /// Its sealed root; none where clones read its root as it is now.
    pub root: Option<RootSource>,
    /// Where its clones mount from by their hosts' doors.
    pub route: Option<LiveSource>,
    pub kernel: SharedFile,
    pub initramfs: SharedFile,
    pub modules: SharedFile,
    /// What more initial RAM file systems are made from.
    pub early: Option<EarlyConfig>,
    /// Where scripts of template sets run.
    pub tree: Option<PathBuf>,
    pub sets: Vec<String>,
}

/// A file that travels to a host once and is named by its digest.
#[derive(Debug, Clone)]
pub(crate) struct SharedFile {
    pub path: PathBuf,
    pub digest: Digest,
}

impl Reference {
    /// `root` is its sealed one, if it has one.
    pub fn new(
        name: &str,
        config: &ReferenceConfig,
        files: Files,
        root: Option<RootSource>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            root,
            route: config.route().map(|route| route.source(name)),
            kernel: files.kernel,
            initramfs: files.initramfs,
            modules: files.modules,
            early: config.early.clone(),
            tree: config.tree.clone(),
            sets: config.sets.clone(),
        }
    }

    /// What its root is called: another name is another root. A live one stays the same, whatever changes in it.
    pub fn root_name(&self) -> String {
        match &self.root {
            Some(root) => root.name.to_string(),
            None => format!("{LIVE_ROOT}{}", self.name),
        }
    }

    /// What it means for a clone that is made of it: a live root, and the reference's shared directories, are mounted
    /// from the door of the clone's host.
    pub fn fit(&self, clone: &mut ClonePlan) -> Result<(), Problem> {
        if let (None, Some(route)) = (&self.root, &self.route) {
            clone.put_on(&mounted(route, "/", LIVE_OPTIONS));
        }
        for place in &mut clone.shared {
            if place.from.is_none() {
                let route = self.route.as_ref().ok_or_else(|| {
                    Problem::impossible(format!(
                        "{} is to share {} with others, and its reference {:?} offers nothing to share",
                        clone.name, place.at, self.name
                    ))
                    .advice(
                        "write shares: {origins: …, door: …} at the reference in the manager's configuration, or \
                         {from: nfs://ADDRESS/PATH} in the herd file",
                    )
                })?;
                place.from = Some(mounted(route, &place.at, ""));
            }
        }
        Ok(())
    }

    /// By what a clone mounts from its host's door, if it does.
    pub fn route_of(&self, clone: &ClonePlan) -> Option<&LiveSource> {
        let route = self.route.as_ref()?;
        let door = format!("nfs:{}:", route.door.ip());
        clone
            .kernel_words()
            .iter()
            .any(|word| word.contains(&door))
            .then_some(route)
    }
}

/// What boots a reference's clones, each file digested as it was when it was seen last.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub kernel: SharedFile,
    pub initramfs: SharedFile,
    pub modules: SharedFile,
    seen: [Seen; 3],
}

/// What tells that a file is another, or was written to: device, inode, size, times of change.
type Seen = (u64, u64, u64, [(i64, i64); 2]);

/// What could not be read, where, and why.
type Unread = (&'static str, PathBuf, io::Error);

impl Files {
    /// Reads and digests them; blocks.
    pub fn load(config: &ReferenceConfig) -> Result<Self, Unread> {
        Self::load_anew(config, None)
    }

    /// The same; those that are as they were are not read again.
    pub fn load_anew(config: &ReferenceConfig, before: Option<&Self>) -> Result<Self, Unread> {
        let load = |number: usize, part: &'static str, path: &Path| {
            let unread = |error| (part, path.to_owned(), error);
            // Looked at before it is read: what is written meanwhile is seen the next time.
            let seen = seen(path).map_err(unread)?;
            if let Some(before) = before
                && before.seen[number] == seen
            {
                return Ok((before.parts()[number].1.clone(), seen));
            }
            Ok((SharedFile::load(path).map_err(unread)?, seen))
        };
        let kernel = load(0, "kernel", &config.kernel)?;
        let initramfs = load(1, "initramfs", &config.initramfs)?;
        let modules = load(2, "modules", &config.modules)?;
        Ok(Self {
            seen: [kernel.1, initramfs.1, modules.1],
            kernel: kernel.0,
            initramfs: initramfs.0,
            modules: modules.0,
        })
    }

    fn parts(&self) -> [(&'static str, &SharedFile); 3] {
        [
            ("kernel", &self.kernel),
            ("initramfs", &self.initramfs),
            ("modules", &self.modules),
        ]
    }

    pub fn file(&self, digest: &Digest) -> Option<&SharedFile> {
        let mut files = self.parts().into_iter().map(|(_, file)| file);
        files.find(|file| file.digest == *digest)
    }

    /// Those whose content is another.
    pub fn others(&self, now: &Self) -> Vec<&'static str> {
        let pairs = self.parts().into_iter().zip(now.parts());
        let others = pairs.filter(|((_, is), (_, now))| is.digest != now.digest);
        others.map(|((part, _), _)| part).collect()
    }
}

fn seen(path: &Path) -> io::Result<Seen> {
    let meta = std::fs::metadata(path)?;
    let times = [
        (meta.mtime(), meta.mtime_nsec()),
        (meta.ctime(), meta.ctime_nsec()),
    ];
    Ok((meta.dev(), meta.ino(), meta.len(), times))
}

/// How a live root is mounted.
const LIVE_OPTIONS: &str = ":ro:follow";

/// A device of `root=`. Its server has no rpcbind; what the clone's kernel knows of a file it believes for a second.
fn mounted(route: &LiveSource, export: &str, options: &str) -> String {
    let (address, port) = (route.door.ip(), route.door.port());
    format!("nfs:{address}:{export}:vers=3:port={port}:mountport={port}:actimeo=1{options}")
}

impl SharedFile {
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        let digest = digest_of(hash)?;
        Ok(Self {
            path: path.to_owned(),
            digest,
        })
    }

    /// The content, checked to be still the same.
    pub async fn read(&self) -> Result<Bytes, Problem> {
        let bytes = tokio::fs::read(&self.path).await;
        self.checked(bytes)
    }

    /// Likewise; blocks.
    pub fn bytes(&self) -> Result<Bytes, Problem> {
        self.checked(std::fs::read(&self.path))
    }

    fn checked(&self, read: io::Result<Vec<u8>>) -> Result<Bytes, Problem> {
        let bytes = read.map_err(|error| {
            Problem::failed(format!(
                "could not read {} of the reference: {error}",
                self.path.display()
            ))
        })?;
        let is = digest_of(Sha256::new_with_prefix(&bytes))
            .map_err(|error| Problem::failed(error.to_string()))?;
        if is != self.digest {
            return Err(Problem::failed(format!(
                "{} has changed since it was read",
                self.path.display()
            ))
            .advice("try again: references are read anew at each up"));
        }
        Ok(Bytes::from(bytes))
    }
}

pub(crate) fn digest_of(hash: Sha256) -> io::Result<Digest> {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Digest::new(text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_line_of_live_clones_is_documented_as_it_is() {
        let route = LiveSource {
            reference: "demo".to_owned(),
            door: "10.77.0.9:2049".parse().unwrap(),
            origins: vec![],
        };
        let line = format!("    {};estive;tmpfs\n", mounted(&route, "/", LIVE_OPTIONS));
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/live.md");
        assert!(
            std::fs::read_to_string(page).unwrap().contains(&line),
            "{line}"
        );
    }

    #[tokio::test]
    async fn a_file_is_named_by_its_content_and_a_change_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kernel");
        std::fs::write(&path, "abc").unwrap();
        let file = SharedFile::load(&path).unwrap();
        // FIPS 180-2, appendix B.1
        assert_eq!(
            file.digest.hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(&file.read().await.unwrap()[..], b"abc");
        std::fs::write(&path, "abd").unwrap();
        assert!(file.read().await.unwrap_err().error.contains("changed"));
        assert!(SharedFile::load(home.path()).is_err());
    }
}

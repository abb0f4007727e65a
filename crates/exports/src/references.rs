//! The references that a directory of images holds: which images there are, which have a name, what a name was sealed
//! from, and who uses them.
//!
//! `NAME.reference` says what NAME is made from, and how; `NAME.erofs` and `NAME.manifest` are links to the image of now.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::ExportError;
use crate::seal::{
    Asked, SNAPSHOT_SHARE_PERCENT, SealOptions, Sealed, Stop, manifest_path, put_file,
    read_manifest, seal_with,
};

const RECORD_BYTES_MAX: u64 = 4 << 20;
/// How a user that is a process of this machine is told.
pub const PROCESS: &str = "process ";
const RECORD: &str = "reference";

/// What a named reference is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    /// The root, absolute.
    pub root: PathBuf,
    #[serde(default)]
    pub rules: Vec<Asked>,
    #[serde(default)]
    pub keep_times: bool,
    #[serde(default)]
    pub no_snapshot: bool,
    /// See [`SealOptions::snapshot_share_percent`].
    #[serde(default = "usual_share_percent")]
    pub snapshot_share_percent: u8,
    /// The image of now.
    pub digest: String,
    /// The one before.
    #[serde(default)]
    pub before: Option<String>,
}

fn usual_share_percent() -> u8 {
    SNAPSHOT_SHARE_PERCENT
}

/// A sealed image of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reference {
    pub digest: String,
    /// Those that stand for it now.
    pub names: Vec<String>,
    pub size_bytes: u64,
    /// Seconds since 1970.
    pub sealed_at_s: u64,
    pub signed: bool,
    pub path: PathBuf,
    pub used_by: Vec<String>,
}

/// Whether a word may name a reference: it becomes a file's name.
pub fn check_name(name: &str) -> Result<(), ExportError> {
    match estive_model::ReferenceName::new(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(ExportError::ReferenceName {
            name: name.to_owned(),
        }),
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn record_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.{RECORD}"))
}

/// Reads what a name is made from.
///
/// # Errors
/// There is none of that name, or what says so is damaged.
pub fn read(dir: &Path, name: &str) -> Result<Record, ExportError> {
    check_name(name)?;
    let path = record_path(dir, name);
    let mut bytes = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ExportError::NoReferenceOfName {
                name: name.to_owned(),
                dir: dir.to_owned(),
            });
        }
        other => other,
    }
    .and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes))
    .map_err(ExportError::io("reading", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| ExportError::Record {
        path,
        what: error.to_string(),
    })
}

/// Lets a name stand for an image from now on: whoever looks the name up finds the old one or the new one, whole.
pub fn write(dir: &Path, record: &Record) -> Result<(), ExportError> {
    check_name(&record.name)?;
    let hex = record.digest.trim_start_matches("sha256:");
    // The manifest first: who has the image's name finds what it is checked by.
    for ending in ["manifest", "erofs"] {
        let link = dir.join(format!("{}.{ending}", record.name));
        let making = dir.join(format!(".{}.{ending}.new", record.name));
        let _ = fs::remove_file(&making);
        symlink(format!("{hex}.{ending}"), &making)
            .and_then(|()| fs::rename(&making, &link))
            .map_err(ExportError::io("naming", &link))?;
    }
    let text = serde_json::to_vec_pretty(record).map_err(|error| ExportError::Record {
        path: record_path(dir, &record.name),
        what: error.to_string(),
    })?;
    put_file(dir, &record_path(dir, &record.name), &text)
}

impl Record {
    /// How it is sealed.
    pub fn options(&self) -> SealOptions {
        SealOptions {
            rules: self.rules.clone(),
            keep_times: self.keep_times,
            no_snapshot: self.no_snapshot,
            snapshot_share_percent: self.snapshot_share_percent,
            ..SealOptions::default()
        }
    }

    /// Seals it again, as it was sealed; the name stands for the old image until [`write`].
    pub fn seal(&self, dir: &Path, stop: &Stop) -> Result<Sealed, ExportError> {
        let options = SealOptions {
            stop: stop.clone(),
            ..self.options()
        };
        seal_with(&self.root, dir, &options)
    }
}

/// The images of a directory, the newest first, with the names that stand for them and the processes that have them open.
pub fn list(dir: &Path) -> Result<Vec<Reference>, ExportError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(ExportError::io("reading the directory", dir))?,
    };
    let mut recorded = BTreeMap::new();
    let mut linked = BTreeMap::new();
    let mut references = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending == Some(RECORD)
            && let Ok(record) = read(dir, stem)
        {
            recorded.insert(record.name, record.digest);
        }
        if ending == Some("manifest")
            && let Some(hex) = linked_to(&path)
        {
            linked.insert(stem.to_owned(), format!("sha256:{hex}"));
        }
        if ending != Some("erofs") || !is_hex(stem) {
            continue;
        }
        // One that is removed meanwhile is not there.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let sealed = meta
            .modified()
            .ok()
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let signed = read_manifest(&manifest_path(&path))
            .is_ok_and(|manifest| !manifest.signature.is_empty());
        references.push(Reference {
            digest: format!("sha256:{stem}"),
            names: Vec::new(),
            size_bytes: meta.len(),
            sealed_at_s: sealed.map_or(0, |time| time.as_secs()),
            signed,
            used_by: processes((meta.dev(), meta.ino())),
            path,
        });
    }
    // What the links say counts: they are changed first, and the record may be behind.
    recorded.append(&mut linked);
    for reference in &mut references {
        let mine = recorded
            .iter()
            .filter(|(_, digest)| **digest == reference.digest);
        reference.names = mine.map(|(name, _)| name.clone()).collect();
        reference.names.sort();
    }
    references.sort_by(|a, b| (b.sealed_at_s, &a.digest).cmp(&(a.sealed_at_s, &b.digest)));
    Ok(references)
}

/// The one that a word means: a name, a digest, or how a digest begins (8 digits or more).
pub fn find<'a>(references: &'a [Reference], word: &str) -> Result<&'a Reference, ExportError> {
    let hex = word.strip_prefix("sha256:").unwrap_or(word);
    let found: Vec<&Reference> = references
        .iter()
        .filter(|reference| {
            reference.names.iter().any(|name| name == word)
                || (hex.len() >= 8 && reference.digest["sha256:".len()..].starts_with(hex))
        })
        .collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(ExportError::NoReferenceLike {
            word: word.to_owned(),
            how_many: "no",
        }),
        _ => Err(ExportError::NoReferenceLike {
            word: word.to_owned(),
            how_many: "more than one",
        }),
    }
}

/// The image that a name's link stands for.
fn linked_to(link: &Path) -> Option<String> {
    let to = fs::read_link(link).ok()?;
    let hex = to.file_stem()?.to_str()?;
    is_hex(hex).then(|| hex.to_owned())
}

/// Removes an image, its manifest, and the names that stand for it still. Nobody is asked whether it is used.
pub fn remove(dir: &Path, reference: &Reference) -> Result<(), ExportError> {
    let hex = &reference.digest["sha256:".len()..];
    for name in &reference.names {
        // Resealed meanwhile, a name stands for another.
        for ending in ["erofs", "manifest"] {
            let link = dir.join(format!("{name}.{ending}"));
            if linked_to(&link).is_some_and(|to| to == hex) {
                remove_file(&link)?;
            }
        }
        if read(dir, name).is_ok_and(|record| record.digest == reference.digest) {
            remove_file(&record_path(dir, name))?;
        }
    }
    // The image first: one never lies there without its manifest.
    remove_file(&reference.path)?;
    remove_file(&manifest_path(&reference.path))
}

fn remove_file(path: &Path) -> Result<(), ExportError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(ExportError::io("removing", path)),
    }
}

/// The processes of this machine that have a file open, as far as one may see.
fn processes(file: (u64, u64)) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fd"));
        let has = descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| {
                fs::metadata(descriptor.path()).is_ok_and(|meta| (meta.dev(), meta.ino()) == file)
            });
        if has && pid != std::process::id() {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{PROCESS}{pid} ({})", program.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_and_nothing_else() {
        for good in ["web", "web-2.1_a"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let digits = "0".repeat(64);
        for bad in [
            "",
            ".web",
            "-x",
            "a/b",
            "a b",
            "ä",
            &digits,
            &"a".repeat(65),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_stands_for_one_image_and_goes_with_it() {
        let home = tempfile::tempdir().unwrap();
        let (root, dir) = (home.path().join("root"), home.path().join("images"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), "1").unwrap();
        let sealed = seal_with(&root, &dir, &SealOptions::default()).unwrap();
        let mut record = Record {
            name: "web".into(),
            root: root.clone(),
            rules: Vec::new(),
            keep_times: false,
            no_snapshot: false,
            snapshot_share_percent: SNAPSHOT_SHARE_PERCENT,
            digest: sealed.digest.clone(),
            before: None,
        };
        write(&dir, &record).unwrap();
        fs::write(root.join("a"), "2").unwrap();
        let again = read(&dir, "web")
            .unwrap()
            .seal(&dir, &Stop::default())
            .unwrap();
        record.before = Some(std::mem::replace(&mut record.digest, again.digest.clone()));
        let before = list(&dir).unwrap();
        let before = find(&before, "web").unwrap();
        // As far as a reseal comes that is cut off: the links are of the new one, the record is of the old.
        let behind = fs::read(record_path(&dir, "web")).unwrap();
        write(&dir, &record).unwrap();
        let renewed = fs::read(record_path(&dir, "web")).unwrap();
        fs::write(record_path(&dir, "web"), behind).unwrap();
        let seen = list(&dir).unwrap();
        assert_eq!(find(&seen, "web").unwrap().digest, again.digest);
        fs::write(record_path(&dir, "web"), renewed).unwrap();
        // One who chose the old one before the reseal does not take the new one's name with it.
        let (image, manifest) = (fs::read(&before.path), manifest_path(&before.path));
        let checked_by = fs::read(&manifest).unwrap();
        remove(&dir, before).unwrap();
        assert!(!before.path.exists());
        fs::write(&before.path, image.unwrap()).unwrap();
        fs::write(&manifest, checked_by).unwrap();
        assert_eq!(read(&dir, "web").unwrap(), record);
        assert_eq!(
            fs::read(dir.join("web.erofs")).unwrap(),
            fs::read(&again.path).unwrap()
        );
        let references = list(&dir).unwrap();
        assert_eq!(references.len(), 2);
        let new = find(&references, "web").unwrap();
        assert_eq!(new.digest, again.digest);
        let old = find(&references, &sealed.digest[..20]).unwrap();
        assert!(old.names.is_empty() && old.used_by.is_empty());
        assert!(find(&references, "nothing").is_err());
        remove(&dir, new).unwrap();
        remove(&dir, old).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn who_has_an_image_open_is_seen() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let file = File::create(&path).unwrap();
        let meta = file.metadata().unwrap();
        let key = (meta.dev(), meta.ino());
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .stdin(file)
            .spawn()
            .unwrap();
        let used = processes(key);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(used.len(), 1, "{used:?}");
        assert!(used[0].starts_with("process "), "{used:?}");
    }
}

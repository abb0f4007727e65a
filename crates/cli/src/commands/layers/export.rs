//! `estive layers export`: each clone's layer as a directory tree, as the paper kept them.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::local::Local;
use crate::output::{self, Output, table};
use clap::Args;
use estive_model::DomainName;
use estive_union::{Rights, unpack};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Says which trees of the directory are ours, and which layer each is.
const LIST: &str = ".estive-export.json";
/// What is being made, and is not in its place yet.
const ASIDE: &str = ".estive-new-";

#[derive(Debug, Args)]
pub struct Export {
    /// Where to write the trees, each called by its clone.
    directory: PathBuf,
    /// Only these clones.
    #[arg(long = "clone", value_name = "CLONE")]
    clones: Vec<DomainName>,
    #[command(flatten)]
    local: Local,
    /// The root that scripts of sets see: a directory, or a sealed image.
    #[arg(long, value_name = "DIR|IMAGE")]
    root: Option<PathBuf>,
}

/// A tree that was written or is as it was.
#[derive(Debug, Serialize)]
struct Exported {
    clone: String,
    layer: String,
    path: PathBuf,
    written: bool,
}

impl Export {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let layers = self.local.build(self.root.as_deref(), false)?;
        let wanted: Vec<DomainName> = match self.clones.as_slice() {
            [] => layers
                .built
                .iter()
                .map(|built| built.clone.clone())
                .collect(),
            some => some.to_vec(),
        };
        fs::create_dir_all(&self.directory).map_err(|error| {
            Failure::failed(format!("making {}: {error}", self.directory.display()))
        })?;
        let directory = self.directory.canonicalize().map_err(failed)?;
        let _one = only_export(&directory)?;
        remove_leftovers(&directory)?;
        let mut list = List::read(&directory)?;
        let mut done = Vec::new();
        for clone in &wanted {
            let layer = layers.layer(clone)?;
            let written = list.write(clone.as_str(), layer.digest.as_str(), &layer.bytes)?;
            done.push(Exported {
                clone: clone.to_string(),
                layer: layer.digest.to_string(),
                path: directory.join(clone.as_str()),
                written,
            });
        }
        match global.output {
            Output::Json => output::json(&done)?,
            Output::Table => output::print(&render(&done))?,
        }
        Ok(0)
    }
}

fn render(done: &[Exported]) -> String {
    let rows: Vec<Vec<String>> = done
        .iter()
        .map(|tree| {
            let what = if tree.written { "written" } else { "as it was" };
            vec![
                tree.clone.clone(),
                what.to_owned(),
                tree.path.display().to_string(),
            ]
        })
        .collect();
    table(&["clone", "", "tree"], &rows)
}

/// Keeps a directory to one export at a time: two would each forget the other's trees. Held as long as it is open.
fn only_export(directory: &Path) -> Result<fs::File, Failure> {
    let open = fs::File::open(directory).map_err(failed)?;
    match open.try_lock() {
        Ok(()) => Ok(open),
        Err(fs::TryLockError::WouldBlock) => Err(Failure::impossible(format!(
            "another export to {} is under way",
            directory.display()
        ))
        .advice("wait until that is over, or export to another directory")),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Removes what exports that were killed have left: there are host keys in it. Whoever calls is the only export to the
/// directory.
fn remove_leftovers(directory: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with(ASIDE) {
            continue;
        }
        let path = entry.path();
        let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.map_err(|error| {
            Failure::failed(format!(
                "removing {}, left by an export that was killed: {error}",
                path.display()
            ))
        })?;
    }
    Ok(())
}

/// The trees that were exported to a directory.
struct List {
    directory: PathBuf,
    layers: BTreeMap<String, String>,
}

impl List {
    fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(LIST);
        let layers = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|_| {
                Failure::impossible(format!("{} is not understood", path.display()))
                    .advice("export to another directory")
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        Ok(Self {
            directory: directory.to_owned(),
            layers,
        })
    }

    /// Writes a tree aside and puts it in its place; says whether that was needed.
    fn write(&mut self, clone: &str, digest: &str, archive: &[u8]) -> Result<bool, Failure> {
        let place = self.directory.join(clone);
        let is_there = place.symlink_metadata().is_ok();
        match self.layers.get(clone) {
            Some(known) if is_there && known == digest => return Ok(false),
            None if is_there => {
                return Err(Failure::impossible(format!(
                    "{} is there already and was not exported by estive",
                    place.display()
                ))
                .advice("remove it, or export to another directory"));
            }
            _ => {}
        }
        let aside = tempfile::Builder::new()
            .prefix(ASIDE)
            .tempdir_in(&self.directory)
            .map_err(failed)?;
        let tree = aside.path().join(clone);
        fs::create_dir(&tree).map_err(failed)?;
        let rights = match geteuid().is_root() {
            true => Rights::Root,
            false => Rights::Mine,
        };
        let opened = fs::File::open(&tree).map_err(failed)?.into();
        unpack(archive, &opened, rights).map_err(|error| {
            let failure = failed(error);
            match rights {
                Rights::Root => failure,
                Rights::Mine => failure.advice("as root: devices and some attributes need it"),
            }
        })?;
        // The list first: a tree of ours is never taken for somebody else's.
        self.layers.insert(clone.to_owned(), String::new());
        self.save()?;
        let flags = match is_there {
            true => RenameFlags::EXCHANGE,
            false => RenameFlags::NOREPLACE,
        };
        renameat_with(CWD, &tree, CWD, &place, flags).map_err(|error| {
            Failure::failed(format!("putting {} in its place: {error}", place.display()))
        })?;
        self.layers.insert(clone.to_owned(), digest.to_owned());
        self.save()?;
        // What was there before goes with it.
        aside.close().map_err(failed)?;
        Ok(true)
    }

    fn save(&self) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&self.layers).map_err(failed)?;
        let mut aside = tempfile::Builder::new()
            .prefix(ASIDE)
            .tempfile_in(&self.directory)
            .map_err(failed)?;
        std::io::Write::write_all(&mut aside, &text).map_err(failed)?;
        aside.as_file().sync_all().map_err(failed)?;
        aside.persist(self.directory.join(LIST)).map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_archive::LayerArchive;

    fn archive(text: &str) -> Vec<u8> {
        let mut layer = LayerArchive::new();
        layer.file("etc/a", 0o644, 0, 0, text).unwrap();
        layer.finish().unwrap()
    }

    #[test]
    fn what_a_killed_export_left_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let live = only_export(place.path()).unwrap();
        fs::create_dir_all(place.path().join(".estive-new-aB3/a/etc/ssh")).unwrap();
        fs::write(place.path().join(".estive-new-aB3/a/etc/ssh/key"), "key").unwrap();
        fs::write(place.path().join(".estive-new-x"), "{").unwrap();
        fs::create_dir(place.path().join(".new-mine")).unwrap();
        // Of an export that lives: nobody else comes so far as to remove anything.
        assert!(only_export(place.path()).is_err());
        drop(live);
        let _one = only_export(place.path()).unwrap();
        remove_leftovers(place.path()).unwrap();
        let names = fs::read_dir(place.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [".new-mine"]);
    }

    #[test]
    fn only_trees_of_ours_are_replaced() {
        let place = tempfile::tempdir().unwrap();
        let write = |clone: &str, digest: &str, text: &str| {
            List::read(place.path())
                .unwrap()
                .write(clone, digest, &archive(text))
        };
        assert!(write("a", "1", "one").unwrap());
        assert!(!write("a", "1", "never read").unwrap());
        let content = || fs::read_to_string(place.path().join("a/etc/a")).unwrap();
        assert_eq!(content(), "one");
        assert!(write("a", "2", "two").unwrap());
        assert_eq!(content(), "two");
        fs::create_dir(place.path().join("b")).unwrap();
        let failure = write("b", "1", "").unwrap_err();
        assert!(
            failure.message.contains("was not exported by estive"),
            "{}",
            failure.message
        );
        std::os::unix::fs::symlink("/etc", place.path().join("c")).unwrap();
        assert!(write("c", "1", "").is_err());
        let mut names: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [LIST, "a", "b", "c"]);
    }
}

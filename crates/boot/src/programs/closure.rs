//! A program of a root with every file that its dynamic linker will load, found as that linker finds them (ld.so(8)).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use estive_archive::Member;
use rustix::fs::FileType;

use super::elf::{self, Elf, Unfit};
use super::{DIRECTORY, LIBRARY_PATH, Wanted, library_path};
use crate::inside::Inside;
use crate::{Error, Result};

/// Where a root has its programs, as root's PATH has them.
const PROGRAM_DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Libraries that are opened by name while a program runs, so that no dynamic section tells: program, library.
///
/// - glibc opens `libgcc_s` when a thread ends itself (`pthread_exit`), as those do in which cryptsetup's libargon2
///   tries a key; without it the process is aborted.
///
/// `lvm` opens nothing for plain volumes, and `mdadm` nothing at all.
const OPENED_LATER: [(&str, &str); 1] = [("cryptsetup", "libgcc_s.so.1")];

const FILE_BYTES_MAX: u64 = 64 << 20;
const TOTAL_BYTES_MAX: u64 = 256 << 20;
const FILES_MAX: usize = 512;

/// Programs with what they load, ready for an initramfs.
#[derive(Debug, Default)]
pub struct Programs {
    /// By path, without the first `/`.
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory,
    File(Vec<u8>),
    Link(String),
}

impl Programs {
    /// Directories, files and links, each after its directory. Those that other members have too are among them.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.entries.iter().map(|(path, entry)| match entry {
            Entry::Directory => Member::directory(path, 0o755),
            Entry::File(bytes) => Member::file(path, 0o755, bytes),
            Entry::Link(target) => Member::symlink(path, target),
        })
    }

    /// What they take of the clone's memory until it has switched root.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.entries.values().map(|entry| match entry {
            Entry::File(bytes) => bytes.len() as u64,
            Entry::Directory | Entry::Link(_) => 0,
        });
        sizes.sum()
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            self.entries
                .entry(path[..end].to_owned())
                .or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

/// Takes these programs from `root`, a directory that holds the reference's root.
///
/// Fails when one is not there, naming its package; when what is there is no program for this machine, or a script;
/// and when a library is not there.
pub fn collect(root: &Path, wanted: &[Wanted]) -> Result<Programs> {
    let mut closure = Closure::open(root)?;
    wanted
        .iter()
        .try_for_each(|wanted| closure.add_program(wanted))?;
    Ok(closure.finish())
}

struct Closure {
    root: PathBuf,
    inside: Inside,
    programs: Programs,
    /// The directories where libraries are looked for, and the places among them where one was found.
    search: Vec<String>,
    used: BTreeSet<usize>,
    /// What was read: by path, and which path a file had first.
    read: BTreeMap<String, Rc<Elf>>,
    first_path: BTreeMap<(u64, u64), String>,
    /// Libraries by their name: those of the search, and those that a program or library has for itself.
    common: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
    total_bytes: u64,
}

/// A file that is loaded, with where its needs are looked for first.
struct Object {
    path: String,
    elf: Rc<Elf>,
    /// Directories of its `DT_RPATH`, then of those that led to it.
    rpath: Vec<String>,
}

impl Closure {
    fn open(root: &Path) -> Result<Closure> {
        let inside = Inside::open(root)?;
        Ok(Closure {
            root: root.to_owned(),
            search: library_path::directories(&inside)?,
            inside,
            programs: Programs::default(),
            used: BTreeSet::new(),
            read: BTreeMap::new(),
            first_path: BTreeMap::new(),
            common: BTreeMap::new(),
            own: BTreeMap::new(),
            total_bytes: 0,
        })
    }

    fn add_program(&mut self, wanted: &Wanted) -> Result<()> {
        let name = wanted.program.name;
        let found = PROGRAM_DIRECTORIES
            .iter()
            .filter_map(|directory| self.inside.find(&format!("{directory}/{name}")))
            .find(|found| found.kind == FileType::RegularFile);
        // The linker's $ORIGIN is where the program really lies, so it lies there in the initramfs too.
        let path = found.and_then(|found| self.inside.own_path(&found));
        let Some(path) = path else {
            return Err(Error::ProgramMissing {
                program: name,
                package: wanted.program.package,
                asked_by: wanted.asked_by.clone(),
                root: self.root.clone(),
            });
        };
        let path = format!("/{path}");
        let elf = self
            .load(&path)?
            .map_err(|unfit| self.unfit(&path, unfit))?;
        let mut loaded = BTreeSet::new();
        if let Some(interpreter) = &elf.interpreter {
            let interpreter = clean(interpreter).ok_or_else(|| {
                let reason = format!("its interpreter is {interpreter:?}, no absolute path");
                self.unfit(&path, Unfit::Broken(reason))
            })?;
            if self.inside.find(&interpreter).is_none() {
                return Err(self.missing(&interpreter, &path));
            }
            let linker = self
                .load(&interpreter)?
                .map_err(|unfit| self.unfit(&interpreter, unfit))?;
            loaded.extend(file_name(&interpreter).map(str::to_owned));
            loaded.extend(linker.soname.clone());
        }
        let program = self.object(path.clone(), elf, &[]);
        let later = OPENED_LATER.iter().filter(|(by, _)| *by == name);
        let mut queue = VecDeque::new();
        for (_, library) in later {
            // A root whose C library is another one has it not, and needs it not.
            queue.extend(self.look_for(library, &program)?);
            loaded.insert((*library).to_owned());
        }
        queue.push_front(program);
        self.follow(queue, loaded)?;
        let link = format!("{DIRECTORY}/{name}");
        self.programs.add(&link[1..], Entry::Link(path));
        Ok(())
    }

    /// Breadth first, as the linker loads: a name that was loaded is not looked for again.
    fn follow(&mut self, mut queue: VecDeque<Object>, mut loaded: BTreeSet<String>) -> Result<()> {
        while let Some(object) = queue.pop_front() {
            for name in &object.elf.needed {
                if !loaded.insert(name.clone()) {
                    continue;
                }
                let library = self
                    .look_for(name, &object)?
                    .ok_or_else(|| self.missing(name, &object.path))?;
                loaded.extend(library.elf.soname.clone());
                queue.push_back(library);
            }
        }
        Ok(())
    }

    fn look_for(&mut self, name: &str, by: &Object) -> Result<Option<Object>> {
        if name.contains('/') {
            let path = expand(name, &by.path).and_then(|path| clean(&path));
            let path = path.ok_or_else(|| self.missing(name, &by.path))?;
            let elf = self.load_if_there(&path)?;
            return Ok(elf.map(|elf| self.object(path, elf, &by.rpath)));
        }
        let own: Vec<String> = match &by.elf.runpath {
            None => by.rpath.clone(),
            Some(runpath) => expanded(runpath, &by.path),
        };
        for directory in own {
            let Some(path) = clean(&format!("{directory}/{name}")) else {
                continue;
            };
            if let Some(elf) = self.load_if_there(&path)? {
                self.own.insert(name.to_owned(), path.clone());
                self.check_name(name)?;
                return Ok(Some(self.object(path, elf, &by.rpath)));
            }
        }
        for index in 0..self.search.len() {
            let path = format!("{}/{name}", self.search[index].trim_end_matches('/'));
            if let Some(elf) = self.load_if_there(&path)? {
                self.used.insert(index);
                self.common.insert(name.to_owned(), path.clone());
                self.check_name(name)?;
                return Ok(Some(self.object(path, elf, &by.rpath)));
            }
        }
        Ok(None)
    }

    /// In the initramfs a path in the environment leads to the common libraries, which comes before `DT_RUNPATH`: two
    /// libraries of one name would be taken for each other there.
    fn check_name(&self, name: &str) -> Result<()> {
        match (self.common.get(name), self.own.get(name)) {
            (Some(common), Some(own)) if self.identity(common) != self.identity(own) => {
                Err(Error::TwoLibraries {
                    name: name.to_owned(),
                    one: self.root.join(&common[1..]),
                    other: self.root.join(&own[1..]),
                })
            }
            _ => Ok(()),
        }
    }

    fn identity(&self, path: &str) -> Option<(u64, u64)> {
        self.inside.find(path).map(|found| found.identity)
    }

    fn object(&self, path: String, elf: Rc<Elf>, above: &[String]) -> Object {
        let mut rpath = match elf.runpath {
            // It makes the older word of the same file void.
            Some(_) => Vec::new(),
            None => expanded(&elf.rpath, &path),
        };
        rpath.extend_from_slice(above);
        Object { path, elf, rpath }
    }

    /// `None` when nothing is there, or a file for another machine: the linker looks on.
    fn load_if_there(&mut self, path: &str) -> Result<Option<Rc<Elf>>> {
        let found = self.inside.find(path);
        if found.is_none_or(|found| found.kind != FileType::RegularFile) {
            return Ok(None);
        }
        match self.load(path)? {
            Ok(elf) => Ok(Some(elf)),
            Err(Unfit::OtherMachine) => Ok(None),
            Err(unfit) => Err(self.unfit(path, unfit)),
        }
    }

    /// Reads a file and takes it in if it can be loaded.
    fn load(&mut self, path: &str) -> Result<std::result::Result<Rc<Elf>, Unfit>> {
        if let Some(elf) = self.read.get(path) {
            return Ok(Ok(elf.clone()));
        }
        let bytes = self.inside.read(path, FILE_BYTES_MAX)?;
        let elf = match elf::parse(&bytes) {
            Ok(elf) => Rc::new(elf),
            Err(unfit) => return Ok(Err(unfit)),
        };
        let identity = self.identity(path);
        let first = identity.and_then(|identity| self.first_path.get(&identity).cloned());
        let entry = match first {
            Some(first) => Entry::Link(first),
            None => {
                self.total_bytes += bytes.len() as u64;
                Entry::File(bytes)
            }
        };
        if self.total_bytes > TOTAL_BYTES_MAX || self.read.len() >= FILES_MAX {
            return Err(Error::ProgramsTooLarge {
                root: self.root.clone(),
                limit_bytes: TOTAL_BYTES_MAX,
                limit_files: FILES_MAX,
            });
        }
        if let (Entry::File(_), Some(identity)) = (&entry, identity) {
            self.first_path.insert(identity, path.to_owned());
        }
        self.programs.add(&path[1..], entry);
        self.read.insert(path.to_owned(), elf.clone());
        Ok(Ok(elf))
    }

    fn finish(mut self) -> Programs {
        if !self.programs.entries.is_empty() {
            let used: Vec<&str> = self
                .used
                .iter()
                .map(|index| self.search[*index].as_str())
                .collect();
            let list = used.join(":").into_bytes();
            self.programs.add(&LIBRARY_PATH[1..], Entry::File(list));
        }
        self.programs
    }

    fn missing(&self, name: &str, needed_by: &str) -> Error {
        Error::LibraryMissing {
            name: name.to_owned(),
            needed_by: self.root.join(needed_by.trim_start_matches('/')),
        }
    }

    fn unfit(&self, path: &str, unfit: Unfit) -> Error {
        Error::ProgramUnfit {
            path: self.root.join(path.trim_start_matches('/')),
            reason: unfit.reason(),
        }
    }
}

fn expanded(directories: &[String], of: &str) -> Vec<String> {
    let directories = directories.iter().filter(|directory| !directory.is_empty());
    directories
        .filter_map(|directory| expand(directory, of))
        .collect()
}

/// With `$ORIGIN`, the directory of the file that has the path. Others of the linker's words name directories for some
/// builds of a library; the plain one is elsewhere.
fn expand(text: &str, of: &str) -> Option<String> {
    let origin = of.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let expanded = text.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    (!expanded.contains('$')).then_some(expanded)
}

/// An absolute path without `.`, `..` and doubled `/`: as the initramfs has it, where no directory is a link.
fn clean(path: &str) -> Option<String> {
    let mut components: Vec<&str> = Vec::new();
    for component in path.strip_prefix('/')?.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            component => components.push(component),
        }
    }
    Some(format!("/{}", components.join("/")))
}

fn file_name(path: &str) -> Option<&str> {
    path.rsplit('/').next()
}

#[cfg(test)]
mod tests;

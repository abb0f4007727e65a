//! The devices of `root=`: each a chain of stages, opened from its right end.
//!
//! The other half of each loader, its options and what it needs, is `estive_boot::loaders`.

mod block;
mod erofs;
mod estive;
mod livecd;
mod loop_file;
mod luks;
mod lvm2;
mod md;
pub mod nfs;
mod p9;
mod tmpfs;
mod url;
mod virtiofs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use estive_boot::CommandLine;
use estive_boot::loaders::{Access, Device, Stage};
use estive_boot::superblock::{self, Recognised};
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind, mount_move};

use crate::console::{Report, say, uptime_ms};
use crate::failure::{Failure, Result, While, fail};
use crate::modules::Modules;
use crate::network::Network;
use crate::root::{BEFORE, UNDER, mount};
use crate::{devices, grown, loop_device};

/// What a stage gives to the one on its left, or at last to the union.
#[derive(Debug)]
pub enum Given {
    Device(PathBuf),
    /// Several, of which only a stage that joins them can make one.
    Devices(Vec<PathBuf>),
    /// Opened, and where it was found.
    #[allow(dead_code, reason = "given by loaders of files")]
    File(File, PathBuf),
    Directory(PathBuf),
    /// Each a layer, bottom first.
    Directories(Vec<PathBuf>),
}

/// One tree of the union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// A mount point of its own, `/u/N`.
    pub directory: PathBuf,
    /// Whether its own tree is seen; not of memory, which holds only what is written.
    pub is_seen: bool,
    /// Where `upper` and `work` are made, if what is written goes there.
    pub upper: Option<PathBuf>,
    /// Whether this is a clone's differentiation layer.
    pub is_clones: bool,
}

/// What was opened so far, bottom first.
#[derive(Debug, Default)]
pub struct Layers {
    pub all: Vec<Layer>,
}

impl Layers {
    pub fn add(&mut self, opened: Vec<Layer>) {
        self.all.extend(opened);
    }

    /// Whether what is written to the union is still there at the next boot. False where nothing can be.
    pub fn outlive_the_boot(&self) -> bool {
        let upper = self.all.last().and_then(|top| top.upper.as_ref());
        let layer = self.all.last().map(|top| &top.directory);
        // The upper's own directory may be yet to be made.
        let place = upper.map(|upper| match upper.exists() {
            true => Some(upper),
            false => layer,
        });
        let kind = place.flatten().map(statfs);
        kind.is_some_and(|kind| kind.is_ok_and(|kind| kind.f_type != MEMORY))
    }
}

/// What stages work with.
pub struct Context<'a> {
    pub modules: &'a Modules,
    pub line: &'a CommandLine,
    pub report: &'a mut Report,
    /// The device that is being opened.
    pub device: &'a Device,
    /// Whether it is the rightmost one, which takes what is written.
    pub is_top: bool,
    /// Whether it is the only one: then it is the root itself.
    pub is_alone: bool,
    /// What stands to its left.
    pub layers: &'a Layers,
    /// How this machine is on the network, if a device of the line needs it.
    pub network: Option<&'a Network>,
    /// Set by a loader whose directory takes what is written in another place than `.estive` of
    /// itself: there `upper` and `work` are made.
    pub upper: Option<PathBuf>,
    /// Set by a loader that gives several directories: they are layers, and none is written to.
    pub reads_only: bool,
    pub(crate) places: usize,
    pub(crate) index: usize,
}

const SEVERAL_DEVICES: &str =
    "several devices stand where one is wanted: write one, or join them with lvm2+";

impl<'a> Context<'a> {
    /// The network, for a loader that has said that it needs it.
    pub fn network(&self) -> Result<&'a Network> {
        self.network.map_or_else(
            || fail("the network is off: say ip=dhcp, or ip= with an address"),
            Ok,
        )
    }

    /// Whether the device is to be written to, where it can.
    pub fn wants_writing(&self) -> bool {
        match self.device.access {
            _ if self.reads_only => false,
            Access::ReadOnly => false,
            Access::Writable => true,
            Access::AsFits => self.is_top,
        }
    }

    /// Whether it is a failure when it cannot.
    pub fn must_be_writable(&self) -> bool {
        self.device.access == Access::Writable
    }

    /// A fresh directory for a mount of this device.
    pub fn place(&mut self) -> Result<PathBuf> {
        let place = PathBuf::from(format!("{UNDER}/{}-{}", self.index, self.places));
        self.places += 1;
        fs::create_dir_all(&place).doing(|| format!("making {}", place.display()))?;
        Ok(place)
    }

    /// What was given, as a directory: a device or a file is mounted.
    pub fn directory(&mut self, given: Given) -> Result<PathBuf> {
        match given {
            Given::Directory(directory) => Ok(directory),
            Given::Device(device) => self.mount_device(&device),
            Given::File(file, path) => self.mount_file(&file, &path),
            Given::Directories(mut directories) if directories.len() == 1 => {
                Ok(directories.remove(0))
            }
            Given::Directories(_) => fail("several directories stand where one is wanted"),
            Given::Devices(_) => fail(SEVERAL_DEVICES),
        }
    }

    /// What was given, as one block device or several.
    pub fn block_devices(&mut self, given: Given) -> Result<Vec<PathBuf>> {
        match given {
            Given::Devices(devices) => Ok(devices),
            other => self.block_device(other).map(|device| vec![device]),
        }
    }

    /// What was given, as a block device: over a file, a loop device.
    pub fn block_device(&mut self, given: Given) -> Result<PathBuf> {
        match given {
            Given::Device(device) => Ok(device),
            Given::File(file, path) => {
                let read_only = !self.wants_writing();
                loop_device::attach(&file, &path, read_only)
            }
            Given::Devices(_) => fail(SEVERAL_DEVICES),
            Given::Directory(_) | Given::Directories(_) => {
                fail("a directory stands where a device is wanted")
            }
        }
    }

    /// Mounts the file system of a device.
    pub fn mount_device(&mut self, device: &Path) -> Result<PathBuf> {
        let began_ms = uptime_ms();
        let kind = self.file_system(device)?;
        // Some are part of the kernel, and what is none is told by mount itself.
        self.modules.load_if_there(&superblock::modules_of(&kind))?;
        let place = self.place()?;
        let mut read_only = !self.wants_writing() || superblock::is_read_only(&kind);
        read_only |= !self.must_be_writable() && devices::is_read_only(device);
        match read_only {
            true => mount_unchanged(device, &place, &kind)?,
            false => mount(
                &device.to_string_lossy(),
                &place.to_string_lossy(),
                &kind,
                MountFlags::empty(),
                "",
            )?,
        }
        if !read_only && kind == "ext4" && grown::is_volume(device) {
            grown::fill(device, &place)?;
        }
        let what = format!("{} is mounted as {kind}", device.display());
        self.report.step(&what, began_ms, uptime_ms());
        Ok(place)
    }

    /// Mounts the file system in a file.
    pub fn mount_file(&mut self, file: &File, path: &Path) -> Result<PathBuf> {
        let read_only = !self.wants_writing();
        let device = loop_device::attach(file, path, read_only)?;
        self.mount_device(&device).map_err(|mut failure| {
            failure.0 = format!("{}: {}", path.display(), failure.0);
            failure
        })
    }

    /// The name of a device's file system, as the kernel has it.
    fn file_system(&self, device: &Path) -> Result<String> {
        if let Some(fs) = &self.device.fs {
            return Ok(fs.clone());
        }
        let shown = device.display();
        match devices::recognise(device)? {
            Some(Recognised { kind, .. }) => match kind.file_system() {
                Some(fs) => Ok(fs.to_owned()),
                None => fail(format!("{shown} holds {kind}: {}", kind.advice())),
            },
            None => fail(format!(
                "the file system of {shown} is not recognised: name it with fs=TYPE"
            )),
        }
    }
}

/// Mounts what is only read, and sees to it that nothing is written: the kernel replays a journal even then, on a disk that
/// another machine may be writing to.
fn mount_unchanged(device: &Path, place: &Path, kind: &str) -> Result<()> {
    let shown = device.display();
    let only_read = MountFlags::RDONLY;
    let (source, target) = (device.to_string_lossy(), place.to_string_lossy());
    let Some(without_replay) = superblock::without_replay(kind) else {
        return mount(&source, &target, kind, only_read, "");
    };
    // One that the kernel itself may not write to tells whether its journal is to be replayed. Afterwards it may, where
    // somebody mounts it anew to mend something.
    let was_read_only = devices::is_read_only(device);
    if was_read_only || devices::set_read_only(device, true) {
        let mounted = rustix::mount::mount(device, place, kind, only_read, c"");
        if !was_read_only {
            devices::set_read_only(device, false);
        }
        match mounted {
            Err(errno) if needs_replay(errno, kind) => say(&format!(
                "{shown} was not left clean, and is only read: its journal is not replayed, and what was written last may be missing or half there (boot it once as the top device with rw, or run fsck on it)"
            )),
            done => return done.doing(|| format!("mounting {shown} at {target} as {kind}")),
        }
    }
    mount(&source, &target, kind, only_read, without_replay)
}

/// Whether a mount failed since the journal could not be replayed: Btrfs has an error of its own for it.
fn needs_replay(errno: Errno, kind: &str) -> bool {
    errno == Errno::ROFS || (errno == Errno::IO && kind == "btrfs")
}

/// Opens the device of this context, and makes layers of what it gives.
pub fn open_device(context: &mut Context) -> Result<Vec<Layer>> {
    let device = context.device;
    let mut given = None;
    let last = device.stages.len().saturating_sub(1);
    for (index, stage) in device.stages.iter().enumerate().rev() {
        let name = stage.loader().name;
        let began_ms = uptime_ms();
        given = Some(
            open(stage, given, context).map_err(|failure| match index < last {
                true => Failure(format!("{name}: {}", failure.0)),
                false => failure,
            })?,
        );
        let what = match index == 0 {
            true => device.to_string(),
            false => format!("{name} of {device}"),
        };
        context.report.step(&what, began_ms, uptime_ms());
    }
    let directories = match given {
        Some(Given::Directories(directories)) => directories,
        Some(other) => vec![context.directory(other)?],
        None => Vec::new(),
    };
    context.reads_only |= directories.len() > 1;
    let mut layers = Vec::new();
    for directory in directories {
        let number = context.layers.all.len() + layers.len();
        layers.push(layer(directory, number, context)?);
    }
    match layers.is_empty() {
        true => fail("it has nothing to mount"),
        false => Ok(layers),
    }
}

fn open(stage: &Stage, below: Option<Given>, context: &mut Context) -> Result<Given> {
    match stage {
        Stage::Block(options) => block::open(options, below, context),
        Stage::Tmpfs(options) => tmpfs::open(options, below, context),
        Stage::Erofs(options) => erofs::open(options, below, context),
        Stage::Estive(options) => estive::open(options, below, context),
        Stage::Loop(options) => loop_file::open(options, below, context),
        Stage::Virtiofs(options) => virtiofs::open(options, below, context),
        Stage::P9(options) => p9::open(options, below, context),
        Stage::Nfs(options) => nfs::open(options, below, context),
        Stage::Url(options) => url::open(options, below, context),
        Stage::Livecd(options) => livecd::open(options, below, context),
        Stage::Luks(options) => luks::open(options, below, context),
        Stage::Lvm2(options) => lvm2::open(options, below, context),
        Stage::Md(options) => md::open(options, below, context),
    }
}

/// A directory as the layer with this number.
fn layer(directory: PathBuf, number: usize, context: &mut Context) -> Result<Layer> {
    let place = PathBuf::from(format!("{BEFORE}/{number}"));
    let shown = place.display();
    fs::create_dir_all(&place).doing(|| format!("making {shown}"))?;
    // A directory inside what was mounted cannot be moved.
    mount_move(&directory, &place)
        .or_else(|_| mount_bind(&directory, &place))
        .doing(|| format!("mounting {} at {shown}", directory.display()))?;
    let kind = statfs(&place)
        .doing(|| format!("looking at {shown}"))?
        .f_type;
    if kind == NAMES_WITHOUT_CASE && !context.is_alone {
        return fail(
            "the kernel cannot join VFAT to anything: put an image on it, and write loop+block:/IMAGE:DEVICE",
        );
    }
    let status = statvfs(&place).doing(|| format!("looking at {shown}"))?;
    let is_writable = context.wants_writing() && !status.f_flag.contains(StatVfsMountFlags::RDONLY);
    if context.must_be_writable() && !is_writable {
        return fail("it cannot be written: leave out rw, or put tmpfs over it");
    }
    let is_clones = matches!(context.device.stages.first(), Some(Stage::Estive(_)));
    let is_memory = matches!(context.device.stages.first(), Some(Stage::Tmpfs(_)));
    let upper = match context.upper.take() {
        Some(upper) => Some(upper),
        None if is_memory => Some(place.clone()),
        None => Some(place.join(OWN_DIRECTORY)),
    };
    Ok(Layer {
        is_seen: !is_memory && (!is_writable || context.is_alone || holds_files(&place)?),
        upper: upper.filter(|_| is_writable),
        directory: place,
        is_clones,
    })
}

/// TMPFS_MAGIC of statfs(2).
const MEMORY: rustix::fs::FsWord = 0x0102_1994;
/// MSDOS_SUPER_MAGIC: overlayfs refuses names that are the same in capitals.
const NAMES_WITHOUT_CASE: rustix::fs::FsWord = 0x4d44;

/// Where a layer with files of its own takes what is written.
pub const OWN_DIRECTORY: &str = ".estive";

/// Whether there is anything that somebody put there.
fn holds_files(directory: &Path) -> Result<bool> {
    let reading = || format!("reading {}", directory.display());
    for entry in fs::read_dir(directory).doing(reading)? {
        let name = entry.doing(reading)?.file_name();
        if name != OWN_DIRECTORY && name != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

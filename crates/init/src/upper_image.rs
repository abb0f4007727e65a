//! A place to write on an NFS server: a file system in one file there, since overlayfs refuses to write to NFS.
//!
//! ```text
//! EXPORT/.estive/upper.img      ext4, sparse; made by the root's own mkfs.ext4 when it is not there
//! EXPORT/.estive/upper.img.new  while it is made; never holds anything of value
//! EXPORT/.estive/owner          who has it, in words
//! EXPORT/.estive/lock           with NFS 3: who has it, for certain
//! ```
//!
//! Two machines that write to one file system destroy it. With NFS 4 the image is locked at the server: the loop device
//! over it holds the lock as long as it lives, and the server drops it when the machine has gone. With NFS 3, whose
//! locks need more daemons than an early userspace has, a file that only one can make names the machine that may; the
//! same machine may come again, and another one only when somebody has removed the file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, fsync, mkdirat, openat2,
    renameat, statat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};
use rustix::process::{chdir, chroot};

use crate::console::{say, uptime_ms};
use crate::failure::{Result, While, fail};
use crate::loaders::{Context, OWN_DIRECTORY};
use crate::loop_device;
use crate::network::Network;
use crate::root::{mount, open_directory};
use crate::union::stack;

const IMAGE: &str = "upper.img";
const MAKING: &str = "upper.img.new";
const OWNER: &str = "owner";
const LOCK: &str = "lock";
const OWNER_BYTES_MAX: u64 = 512;
const RETRY: Duration = Duration::from_millis(500);
/// Where a root has its programs for file systems.
const MKFS: [&str; 4] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
    "/bin/mkfs.ext4",
];

/// How one machine at a time is seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    OfServer,
    ByName,
}

/// The mounted image of the NFS directory `place`. `None` where the server lets nothing be written, and nobody said that
/// it must.
pub fn open(
    place: &Path,
    size_bytes: u64,
    lock: Lock,
    network: &Network,
    context: &mut Context,
) -> Result<Option<PathBuf>> {
    let directory = match own_directory(place) {
        Ok(directory) => directory,
        Err(errno) if context.must_be_writable() => {
            return fail(format!(
                "the NFS server lets nothing be written ({errno}): export it rw and no_root_squash, or put tmpfs over it"
            ));
        }
        Err(_) => return Ok(None),
    };
    let home = Home {
        directory,
        owner: network.owner(),
        patience_ms: u64::from(context.line.wait_s) * 1000,
        shown: place.join(OWN_DIRECTORY),
    };
    if lock == Lock::ByName {
        home.lock_by_name()?;
    }
    let (image, is_new) = home.image(lock)?;
    home.write(OWNER, &home.owner)?;
    if is_new {
        let began_ms = uptime_ms();
        image
            .set_len(size_bytes)
            .doing(|| format!("making {IMAGE} on the NFS server"))?;
        let device = loop_device::attach(&image, &home.shown.join(MAKING), false)?;
        make_file_system(&device, context)?;
        // The mount below needs the same device; it is kept.
        fsync(&image).doing(|| format!("making {IMAGE} on the NFS server"))?;
        renameat(&home.directory, MAKING, &home.directory, IMAGE)
            .doing(|| format!("making {IMAGE} on the NFS server"))?;
        context
            .report
            .step("upper.img is made on the server", began_ms, uptime_ms());
        return mount_image(&device, context).map(Some);
    }
    let device = loop_device::attach(&image, &home.shown.join(IMAGE), false)?;
    mount_image(&device, context).map(Some)
}

fn mount_image(device: &Path, context: &mut Context) -> Result<PathBuf> {
    let place = context.place()?;
    // Inode tables that are holes read as zeros: writing them would only fill the server.
    mount(
        &device.to_string_lossy(),
        &place.to_string_lossy(),
        "ext4",
        MountFlags::NOATIME,
        "noinit_itable",
    )
    .map_err(|mut failure| {
        failure.0 += &format!(
            " (the image {OWN_DIRECTORY}/{IMAGE} on the NFS server: repair it there with e2fsck, or move it away to begin anew)"
        );
        failure
    })?;
    Ok(place)
}

/// `.estive` of the export.
fn own_directory(place: &Path) -> rustix::io::Result<OwnedFd> {
    let top = open_directory(&place.to_string_lossy()).map_err(|_| Errno::IO)?;
    match mkdirat(&top, OWN_DIRECTORY, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(&top, OWN_DIRECTORY, flags, Mode::empty(), beneath)
}

/// `.estive`, and who wants it.
struct Home {
    directory: OwnedFd,
    owner: String,
    patience_ms: u64,
    shown: PathBuf,
}

impl Home {
    /// The image, ours alone, and whether a file system is yet to be made in it.
    fn image(&self, lock: Lock) -> Result<(File, bool)> {
        let doing = || format!("opening {OWN_DIRECTORY}/{IMAGE} on the NFS server");
        loop {
            let (file, name) = match self.open(IMAGE, OFlags::RDWR) {
                Ok(file) => (file, IMAGE),
                Err(Errno::NOENT) => {
                    let file = self
                        .open(MAKING, OFlags::RDWR | OFlags::CREATE)
                        .doing(doing)?;
                    (file, MAKING)
                }
                Err(errno) => return Err(errno).doing(doing),
            };
            if lock == Lock::OfServer {
                self.lock_at_server(&file)?;
            }
            // Whoever had the lock before us may have made the one we opened the real one.
            let ours = fstat(&file).doing(doing)?;
            let named = statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
            if named.is_ok_and(|named| named.st_ino == ours.st_ino) {
                let is_new = name == MAKING;
                if is_new {
                    // Left by a machine that went while it was made.
                    file.set_len(0).doing(doing)?;
                }
                return Ok((file, is_new));
            }
        }
    }

    fn lock_at_server(&self, file: &File) -> Result<()> {
        let deadline_ms = uptime_ms() + self.patience_ms;
        let mut is_said = false;
        loop {
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if uptime_ms() < deadline_ms => {
                    if !std::mem::replace(&mut is_said, true) {
                        say(&format!(
                            "{IMAGE} is in use by {}: waiting",
                            self.present_owner()
                        ));
                    }
                    std::thread::sleep(RETRY);
                }
                Err(Errno::WOULDBLOCK) => {
                    return fail(format!(
                        "{OWN_DIRECTORY}/{IMAGE} on the NFS server is in use by {}: stop that machine (the server notices within some two minutes when it is gone), or give this one a directory of its own",
                        self.present_owner()
                    ));
                }
                Err(errno) => {
                    return Err(errno)
                        .doing(|| format!("locking {OWN_DIRECTORY}/{IMAGE} at the NFS server"));
                }
            }
        }
    }

    fn lock_by_name(&self) -> Result<()> {
        match self.open(LOCK, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL) {
            Ok(file) => write_all(file, &self.owner, LOCK),
            Err(Errno::EXIST) if self.read(LOCK) == self.owner => Ok(()),
            Err(Errno::EXIST) => fail(format!(
                "{OWN_DIRECTORY}/{IMAGE} on the NFS server belongs to {}: if that machine is gone for good, remove {OWN_DIRECTORY}/{LOCK} there; else give this one a directory of its own, or use vers=4.2",
                shown(&self.read(LOCK))
            )),
            Err(errno) => {
                Err(errno).doing(|| format!("making {OWN_DIRECTORY}/{LOCK} on the NFS server"))
            }
        }
    }

    fn present_owner(&self) -> String {
        shown(&self.read(OWNER))
    }

    fn read(&self, name: &str) -> String {
        let mut text = String::new();
        if let Ok(file) = self.open(name, OFlags::RDONLY) {
            // What cannot be read is nobody's name.
            let _ = file.take(OWNER_BYTES_MAX).read_to_string(&mut text);
        }
        text.trim_end().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = self
            .open(name, flags)
            .doing(|| format!("writing {OWN_DIRECTORY}/{name} on the NFS server"))?;
        write_all(file, text, name)
    }

    fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<File> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mode = Mode::RUSR | Mode::WUSR;
        let mode = match flags.contains(OFlags::CREATE) {
            true => mode,
            false => Mode::empty(),
        };
        openat2(
            &self.directory,
            name,
            flags | OFlags::CLOEXEC,
            mode,
            beneath,
        )
        .map(File::from)
    }
}

fn write_all(mut file: File, text: &str, name: &str) -> Result<()> {
    let doing = || format!("writing {OWN_DIRECTORY}/{name} on the NFS server");
    file.write_all(text.as_bytes()).doing(doing)?;
    file.write_all(b"\n").doing(doing)?;
    file.sync_all().doing(doing)
}

/// For people: what a server holds may hold anything.
fn shown(owner: &str) -> String {
    match owner.is_empty() {
        true => "another machine".to_owned(),
        false => owner
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect(),
    }
}

/// Runs the root's own mkfs.ext4 in the root as it is below us.
fn make_file_system(device: &Path, context: &mut Context) -> Result<()> {
    let root = context.place()?;
    stack::join_read_only(context.layers, &root)?;
    let made = run_mkfs(&root, device);
    unmount(&root, UnmountFlags::DETACH).doing(|| format!("unmounting {}", root.display()))?;
    made
}

fn run_mkfs(root: &Path, device: &Path) -> Result<()> {
    let advice = "install e2fsprogs in it, or make .estive/upper.img on the server: truncate -s 8G upper.img; mkfs.ext4 upper.img";
    let present =
        |path: &&&str| fs::symlink_metadata(root.join(path.trim_start_matches('/'))).is_ok();
    let Some(mkfs) = MKFS.iter().find(present) else {
        return fail(format!(
            "the root has no mkfs.ext4, which makes the place to write on the NFS server: {advice}"
        ));
    };
    let dev = root.join("dev");
    mount_bind("/dev", &dev)
        .doing(|| "giving the devices to mkfs.ext4 of the root (has the root a /dev?)".into())?;
    let mut command = Command::new(mkfs);
    command
        .args(["-q", "-F", "-m", "0", "-L", "estive-upper", "-E"])
        .arg("lazy_itable_init=1,lazy_journal_init=1,nodiscard")
        .arg(device)
        .env_clear()
        .stdin(Stdio::null());
    let inside = root.to_owned();
    // SAFETY: between fork and exec only the two system calls are made, with a path that was allocated before.
    unsafe {
        command.pre_exec(move || {
            chroot(&inside)?;
            chdir("/")?;
            Ok(())
        });
    }
    let output = command.output();
    unmount(&dev, UnmountFlags::DETACH).doing(|| "taking the devices back".into())?;
    let output = output.doing(|| format!("running {mkfs} of the root"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said
        .trim()
        .chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    fail(format!(
        "{mkfs} of the root failed ({}): {said}: {advice}",
        output.status
    ))
}

//! Putting this program where the running system finds it.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::mount_bind;

use crate::failure::{Result, While};
use crate::union::{directory_in, mount_run, of_descriptor};

/// This program, as the kernel knows it.
const OWN_IMAGE: &str = "/proc/self/exe";
/// A directory that systemd makes its root when all else has ended, and in it what it then runs.
const EXIT_DIRECTORY: &str = "run/initramfs";

/// Mounts `/run` of the union, puts this program there as `/run/initramfs/shutdown`, and makes the
/// same file reachable as [`estive_boot::push::PROGRAM`].
///
/// It is a copy in memory, and the only one: that of the initramfs goes with the initramfs. A mount would not
/// do, since systemd takes the directory without what is mounted in it.
pub fn place(union: &OwnedFd) -> Result<()> {
    mount_run(union)?;
    let directory = directory_in(union, EXIT_DIRECTORY, 0o755)?;
    let what = || format!("putting this program to /{EXIT_DIRECTORY}/{}", super::WORD);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let program: File = openat(&directory, super::WORD, flags, Mode::RWXU)
        .doing(what)?
        .into();
    let mut own = File::open(OWN_IMAGE).doing(what)?;
    io::copy(&mut own, &mut &program).doing(what)?;
    program
        .set_permissions(Permissions::from_mode(0o755))
        .doing(what)?;

    let kept = estive_boot::push::PROGRAM;
    let what = || format!("keeping this program as {kept}");
    let path = kept.trim_start_matches('/');
    let open = |flags, mode| openat2(union, path, flags, mode, ResolveFlags::IN_ROOT);
    // A root that is not written to has the file already.
    let place = open(OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .or_else(|_| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            open(flags, Mode::RWXU)
        })
        .doing(what)?;
    mount_bind(of_descriptor(&program.into()), of_descriptor(&place)).doing(what)
}

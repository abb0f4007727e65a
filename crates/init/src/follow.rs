//! `follow`: a union over a root that changes on its server.
//!
//! overlayfs keeps the names it has looked up. Of a name that is replaced or goes on the server, its own file system
//! says so when it is asked, and overlayfs answers ESTALE from then on; a name that was not there, it never asks about
//! again (`fs/overlayfs/super.c`, `ovl_revalidate_real`; `Documentation/filesystems/overlayfs.rst`, "Changes to
//! underlying filesystems"). Reconfiguring a file system makes it forget all names that nobody has open
//! (`shrink_dcache_sb` in `reconfigure_super`), and nothing else: data and the server's own names stay.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use estive_boot::Root;
use estive_boot::loaders::Stage;
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

use crate::failure::{Result, While};

/// What the program is told to be this.
pub const WORD: &str = "follow";
/// How long a name may be remembered, besides what the network file system remembers itself.
const EVERY: Duration = Duration::from_millis(250);
const PROGRAM: &str = "/.unions/estive";

pub fn is_asked_for(root: &Root) -> bool {
    let mut stages = root.devices.iter().flat_map(|device| &device.stages);
    stages.any(|stage| matches!(stage, Stage::Nfs(options) if options.follow))
}

/// Starts it in the union, which is the root by now. It ends as any process does at a shutdown.
pub fn begin() -> Result<()> {
    Command::new(PROGRAM)
        .arg(WORD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .doing(|| format!("starting {PROGRAM} {WORD}"))
}

pub fn main() -> ExitCode {
    loop {
        if let Err(errno) = forget_names() {
            eprintln!("estive-init: error: making the root look names up anew: {errno}");
            return ExitCode::FAILURE;
        }
        std::thread::sleep(EVERY);
    }
}

/// No option and no flag is named, so none changes.
fn forget_names() -> rustix::io::Result<()> {
    let root = fspick(CWD, "/", FsPickFlags::FSPICK_CLOEXEC)?;
    fsconfig_reconfigure(&root)
}

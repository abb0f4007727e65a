//! `follow`: a union over a root that changes on its server.
//!
//! overlayfs keeps the names it has looked up. Of a name that is replaced or goes on the server, its own file system
//! says so when it is asked, and overlayfs answers ESTALE from then on; a name that was not there, it never asks about
//! again (`fs/overlayfs/super.c`, `ovl_revalidate_real`; `Documentation/filesystems/overlayfs.rst`, "Changes to
//! underlying filesystems"). Below it, the network file system believes names as long as it believes its directories
//! (`actimeo`). Reconfiguring a file system makes it forget all names that nobody has open (`shrink_dcache_sb` in
//! `reconfigure_super`), and nothing else: attributes and data stay.
//!
//! So both forget, the union first, since its names hold those below. What is looked up in between is held by the union
//! and stays for the network file system: both do it twice.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use estive_boot::Root;
use estive_boot::loaders::Stage;
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

use crate::failure::{Result, While};

/// What the program is told to be this.
pub const WORD: &str = "follow";
/// How long a name may be remembered.
const EVERY: Duration = Duration::from_millis(500);
const PROGRAM: &str = "/.unions/estive";
const LAYERS: &str = "/.unions/";

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
    let layers = match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => network_layers(&mounts),
        Err(error) => {
            eprintln!("estive-init: error: reading which layers are of the network: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        for _ in 0..2 {
            if let Err(errno) = forget_names("/") {
                eprintln!("estive-init: error: making the root look names up anew: {errno}");
                return ExitCode::FAILURE;
            }
            for layer in &layers {
                // Its names are forgotten before anything can fail; then the server is asked, which may be away.
                let _ = forget_names(layer);
            }
        }
        std::thread::sleep(EVERY);
    }
}

/// Where the layers of network file systems are reachable, each file system once (proc_pid_mountinfo(5)).
fn network_layers(mounts: &str) -> Vec<String> {
    let mut known = BTreeSet::new();
    let layers = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, place) = (fields.next()?, fields.nth(1)?);
        let is_network = source.starts_with("nfs ") || source.starts_with("nfs4 ");
        (is_network && place.starts_with(LAYERS) && known.insert(device)).then(|| place.to_owned())
    });
    layers.collect()
}

/// No option and no flag is named, so none changes.
fn forget_names(place: &str) -> rustix::io::Result<()> {
    let mounted = fspick(CWD, place, FsPickFlags::FSPICK_CLOEXEC)?;
    fsconfig_reconfigure(&mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_the_network_are_found_once() {
        let mounts = "\
21 1 0:19 / / rw - overlay overlay rw,lowerdir=a:b
22 21 0:20 / /.unions/0 ro,relatime - nfs 10.77.0.9:/ ro,vers=3
23 21 0:20 / /.unions/root ro,relatime shared:3 - nfs 10.77.0.9:/ ro,vers=3
24 21 0:21 / /.unions/1 rw - tmpfs tmpfs rw
25 21 0:22 / /.unions/2 ro - nfs4 10.77.0.8:/ ro
26 21 0:23 / /home rw - nfs 10.77.0.9:/home rw,vers=3
";
        assert_eq!(network_layers(mounts), ["/.unions/0", "/.unions/2"]);
    }
}

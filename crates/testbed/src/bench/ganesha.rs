//! The peer of a live root: NFS-Ganesha at the storage place, serving the same tree, from whose programs a root has them.

use std::ffi::OsString;
use std::time::Duration;

use super::BenchConfig;
use super::bare::problem;
use super::mode::Mode;
use crate::Error;
use crate::bed::Bed;
use crate::part::{Part, Recipe};
use crate::topology::STORAGE_ADDRESS;

pub(super) const NFS_PORT: u16 = 2049;
pub(super) const MOUNT_PORT: u16 = 20048;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(super) struct Ganesha {
    _part: Part,
}

/// Serves the tree of the benchmark, where that is asked for, with the programs in mounts of their own.
pub(super) async fn serve(
    bed: &Bed,
    config: &BenchConfig,
    modes: &[Mode],
) -> Result<Option<Ganesha>, Error> {
    if !modes.contains(&Mode::Ganesha) {
        return Ok(None);
    }
    let programs = config.ganesha_root.as_deref();
    let programs = programs.ok_or_else(|| problem("the root with NFS-Ganesha is missing"))?;
    let tree = &config.tree;
    let shared = bed.config().directory.join("ganesha");
    std::fs::create_dir_all(shared.join("root"))
        .map_err(Error::system(format!("making {}", shared.display())))?;
    let config = format!(
        "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {NFS_PORT}; MNT_Port = {MOUNT_PORT}; Enable_NLM = false;\n\
         Enable_RQUOTA = false; mount_path_pseudo = true; }}\n\
         EXPORT {{ Export_Id = 1; Path = /mnt/root; Pseudo = /; Access_Type = RO; SecType = sys;\n\
         Squash = No_Root_Squash; Protocols = 3; Transports = TCP; FSAL {{ Name = VFS; }} }}\n"
    );
    std::fs::write(shared.join("ganesha.conf"), config)
        .map_err(Error::system("writing Ganesha's configuration"))?;
    let storage = &bed.topology().storage;
    // Both in one set of mounts: rpcbind's socket is below /run.
    let script = format!(
        "set -e; mount --make-rprivate /; mount --bind {shared} {root}/mnt; mount --bind {tree} {root}/mnt/root\n\
         mount -t tmpfs tmpfs {root}/run; mount -t proc proc {root}/proc; mkdir {root}/run/rpcbind {root}/run/ganesha\n\
         chroot {root} rpcbind -w -h {STORAGE_ADDRESS}\n\
         exec chroot {root} ganesha.nfsd -F -f /mnt/ganesha.conf -L /mnt/ganesha.log -p /run/ganesha/pid -N NIV_EVENT",
        shared = shared.display(),
        root = programs.display(),
        tree = tree.display(),
    );
    let argv = ["unshare", "--mount", "sh", "-c", &script];
    let recipe = Recipe {
        name: "NFS-Ganesha".to_owned(),
        namespace: storage.clone(),
        argv: argv.map(OsString::from).to_vec(),
        log: bed.config().directory.join("log/ganesha.log"),
    };
    let mut part = Part::new(recipe);
    part.start(&[])?;
    let log = shared.join("ganesha.log");
    let serving = || async {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        match said.contains("NFS SERVER INITIALIZED") {
            true => Ok(()),
            false => Err(format!("it is not ready: {said}")),
        }
    };
    part.wait_until(PATIENCE, serving).await?;
    Ok(Some(Ganesha { _part: part }))
}

//! `estive.shared=`: directories of servers, mounted over the root before it becomes that; outside the union, so that what
//! is written there is seen by all who share it.

use std::os::fd::OwnedFd;
use std::path::Path;

use estive_boot::CommandLine;
use estive_boot::SharedDirectory;
use estive_boot::loaders::Needs;

use crate::failure::{Failure, Result};
use crate::loaders::nfs;
use crate::modules::Modules;
use crate::network::Network;
use crate::union::{directory_in, of_descriptor};

/// Of a clone with its usual root, whose modules are none of these.
pub fn load_modules(line: &CommandLine, modules: &Modules) -> Result<()> {
    if line.shared.is_empty() {
        return Ok(());
    }
    let mut needs = Needs::default();
    SharedDirectory::add_needs(&mut needs);
    let wanted: Vec<&str> = needs.modules.iter().map(String::as_str).collect();
    modules.load(&wanted)?;
    modules.load_if_there(&needs.modules_if_there)
}

/// Mounts all that the line names; their places are made where the root has none.
pub fn mount(line: &CommandLine, network: Option<&Network>, union: &OwnedFd) -> Result<()> {
    let network =
        network.ok_or_else(|| Failure("estive.shared= needs the network, and ip=off".into()))?;
    let patience_ms = u64::from(line.wait_s) * 1000;
    for shared in &line.shared {
        let mount = || {
            let place = directory_in(union, shared.at.trim_start_matches('/'), 0o755)?;
            let path = of_descriptor(&place);
            nfs::mount_shared(shared, Path::new(&path), network, patience_ms)
        };
        mount().map_err(|Failure(reason)| {
            Failure(format!("{} of estive.shared=: {reason}", shared.at))
        })?;
    }
    Ok(())
}

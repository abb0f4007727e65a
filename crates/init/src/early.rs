//! Following `root=`: every device opened from the bottom up, and joined.

use estive_boot::loaders::{Needs, Root};
use estive_boot::{CommandLine, Identity, Phase, SharedDirectory};
use rustix::mount::MountFlags;

use crate::console::{Report, uptime_ms};
use crate::failure::{Failure, Result};
use crate::loaders::{self, Context, Layers};
use crate::modules::Modules;
use crate::network::Network;
use crate::root::{UNDER, UNION, mount, open_directory};
use crate::union::stack;
use crate::{coldplug, identity, network};

/// Makes the union that the line asks for.
pub fn prepare(
    root: &Root,
    line: &CommandLine,
    modules: &Modules,
    report: &mut Report,
) -> Result<Option<Network>> {
    let mut needs = root.needs();
    if !line.shared.is_empty() {
        SharedDirectory::add_needs(&mut needs);
    }
    let began_ms = uptime_ms();
    let drivers = coldplug::begin()?;
    if drivers.is_there() {
        let what = format!("drivers of {} devices", drivers.devices);
        report.step(&what, began_ms, uptime_ms());
    }
    modules.load_if_there(&drivers.others(&needs.modules_if_there))?;
    report.open_port();
    let wanted: Vec<&str> = needs.modules.iter().map(String::as_str).collect();
    modules.load(&wanted)?;
    report.done(Phase::Modules);

    let identity = learn_identity(&needs, report)?;
    let mut network = None;
    if needs.network {
        report.begin(Phase::Network);
        network = Some(network::before_root(line, identity.as_ref())?);
        report.done(Phase::Network);
    }

    report.begin(Phase::Root);
    mount("tmpfs", UNDER, "tmpfs", MountFlags::empty(), "mode=0700")?;
    let mut layers = Layers::default();
    let last = root.devices.len().saturating_sub(1);
    for (index, device) in root.devices.iter().enumerate() {
        let mut context = Context {
            modules,
            line,
            report,
            device,
            is_top: index == last,
            is_alone: last == 0,
            layers: &layers,
            network: network.as_ref(),
            upper: None,
            reads_only: false,
            places: 0,
            index,
        };
        let opened = loaders::open_device(&mut context)
            .map_err(|Failure(reason)| Failure(format!("{device} of root=: {reason}")))?;
        layers.add(opened);
    }
    report.done(Phase::Root);

    // Where its places still are.
    let outlives = layers.outlive_the_boot();
    report.begin(Phase::Union);
    let began_ms = uptime_ms();
    stack::join(&layers, line.over_any)?;
    let what = format!("{} layers are joined", layers.all.len());
    report.step(&what, began_ms, uptime_ms());
    report.done(Phase::Union);

    if let Some(network) = &network {
        network.keep(&open_directory(UNION)?, outlives);
    }
    if let Some(identity) = identity.filter(|_| !needs.network) {
        report.begin(Phase::Network);
        network = Some(network::configure(&identity)?);
        report.done(Phase::Network);
    }
    Ok(network)
}

/// Who this clone is, if a device asks for it.
fn learn_identity(needs: &Needs, report: &mut Report) -> Result<Option<Identity>> {
    if !needs.identity {
        return Ok(None);
    }
    report.begin(Phase::Identity);
    let identity = identity::read()?;
    identity::reseed(&identity)?;
    report.done(Phase::Identity);
    Ok(Some(identity))
}

//! A clone as it is without `root=`: sealed root, layer and memory, each on its own device.

use estive_boot::modules::{BEFORE_IDENTITY, FOR_IDENTITY};
use estive_boot::{CommandLine, Phase};

use crate::console::{Report, uptime_ms};
use crate::failure::Result;
use crate::modules::Modules;
use crate::network::Network;
use crate::{identity, layer, network, root, shared, union};

/// Makes the union, and the network of the clone.
pub fn prepare(line: &CommandLine, modules: &Modules, report: &mut Report) -> Result<Network> {
    modules.load(&BEFORE_IDENTITY)?;
    shared::load_modules(line, modules)?;
    report.open_port();
    report.done(Phase::Modules);

    report.begin(Phase::Identity);
    modules.load(&FOR_IDENTITY)?;
    let identity = identity::read()?;
    identity::reseed(&identity)?;
    report.done(Phase::Identity);

    report.begin(Phase::Layer);
    let unpacked = layer::unpack_disk()?;
    report.done(Phase::Layer);

    report.begin(Phase::Root);
    let began_ms = uptime_ms();
    root::mount_root()?;
    let mounted_ms = uptime_ms();
    report.step("the sealed root is mounted", began_ms, mounted_ms);
    layer::settle_over_root(&unpacked)?;
    report.step("the layer settles over it", mounted_ms, uptime_ms());
    report.done(Phase::Root);

    report.begin(Phase::Union);
    union::join()?;
    report.done(Phase::Union);

    report.begin(Phase::Network);
    let network = network::configure(&identity)?;
    report.done(Phase::Network);
    Ok(network)
}

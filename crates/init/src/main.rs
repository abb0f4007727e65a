//! PID 1 of a clone's early userspace: joins root, layer and memory, and runs the clone's own init.
//!
//! It is the only program in the initramfs. It loads modules, learns who this clone is, unpacks its
//! layer, joins sealed root, layer and memory by overlayfs, sets the network, and switches root;
//! each phase is reported on the report port and on the console. If something is missing it says
//! what and what to try, on both, and stops there: the machine stays as it is to be looked at.
//!
//! It is linked statically, since nothing but it is there when it runs:
//!
//! ```text
//! RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
//!   cargo build -p estive-init --profile init --target x86_64-unknown-linux-gnu --target-dir target/init
//! ```
//!
//! Invariant: nothing here is needed after the switch. What a running clone needs is in its root.
//!
//! The program stays reachable there, as `/.unions/estive`: with the word `apply` it lays a new
//! layer over the running clone, when somebody asks for that.

mod apply;
mod console;
mod devices;
mod failure;
mod identity;
mod layer;
mod modules;
mod network;
mod root;
mod switch;
mod union;

use std::process::ExitCode;
use std::time::Duration;

use estive_boot::Phase;
use estive_boot::push::APPLY_WORD;

use console::{Report, uptime_ms};
use failure::Result;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        let mut arguments = std::env::args_os().skip(1);
        if arguments.next().is_some_and(|word| word == APPLY_WORD) {
            return apply::main(arguments);
        }
        eprintln!(
            "estive-init is the first program of a clone's kernel: give it as /init in an initramfs"
        );
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|panic| {
        // The kernel would panic after us and say nothing of the cause.
        eprintln!("estive-init: error: this is a bug: {panic}");
        stop()
    }));
    let mut report = Report::new();
    let Err(failure) = boot(&mut report);
    report.failed(&failure);
    stop()
}

/// Runs every phase in order; returns only when one fails.
fn boot(report: &mut Report) -> Result<std::convert::Infallible> {
    root::mount_kernel_file_systems()?;
    console::reopen()?;
    report.done(Phase::Init);

    report.begin(Phase::Modules);
    let modules = modules::Modules::read()?;
    modules.load(&estive_boot::modules::BEFORE_IDENTITY)?;
    report.open_port();
    report.done(Phase::Modules);

    report.begin(Phase::Identity);
    modules.load(&estive_boot::modules::FOR_IDENTITY)?;
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
    network::configure(&identity)?;
    report.done(Phase::Network);

    report.begin(Phase::Switch);
    switch::switch(report)
}

fn stop() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

//! PID 1 of a clone's early userspace: joins root, layer and memory, and runs the clone's own init.
//!
//! It is the only program in the initramfs. It loads modules, learns who this clone is, unpacks its
//! layer, joins sealed root, layer and memory by overlayfs, sets the network, and switches root; or
//! it follows `root=`, for clones and other machines that say of what their root is made. Each
//! phase is reported on the report port and on the console. If something is missing it says
//! what and what to try, on both, and stops there: the machine stays as it is to be looked at.
//!
//! It is linked statically, since nothing but it is there when it runs:
//!
//! ```text
//! RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
//!   cargo build -p estive-init --profile init --target x86_64-unknown-linux-gnu --target-dir target/init
//! ```
//!
//! On machines that nobody knew when the initramfs was made it is the kernel's `modprobe` too.
//!
//! Invariant: nothing here is needed after the switch. What a running clone needs is in its root.
//!
//! The program stays reachable there, as `/.unions/estive`: with the word `apply` it lays a new
//! layer over the running clone, when somebody asks for that; with `shutdown` it makes everything
//! read-only. As `/run/initramfs/shutdown` it is what systemd runs last: it takes the root apart.

mod apply;
mod clone;
mod coldplug;
mod command_line;
mod console;
mod devices;
mod early;
mod failure;
mod follow;
mod grown;
mod http;
mod identity;
mod key;
mod layer;
mod loaders;
mod loop_device;
mod modules;
mod network;
mod programs;
mod rescue;
mod root;
mod shared;
mod shutdown;
mod switch;
mod union;
mod unpack;
mod upper_image;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use estive_boot::push::APPLY_WORD;
use estive_boot::{CommandLine, Phase};

use console::Report;
use failure::Result;
use network::Network;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    if std::process::id() != 1 {
        if name.is_some_and(|name| Path::new(&name).ends_with(coldplug::MODPROBE)) {
            return coldplug::modprobe(arguments);
        }
        return asked_for(arguments);
    }
    std::panic::set_hook(Box::new(|panic| {
        // The kernel would panic after us and say nothing of the cause.
        eprintln!("estive-init: error: this is a bug: {panic}");
        stop()
    }));
    if shutdown::is_called_by(name.as_deref()) {
        shutdown::as_init(arguments);
    }
    let mut report = Report::new();
    if let Err(failure) = start() {
        report.failed(&failure);
        stop();
    }
    loop {
        let Err(failure) = match switch::has_happened() {
            false => boot(&mut report),
            true => command_line::read().and_then(|line| switch::run_init(&line)),
        };
        report.failed(&failure);
        if !rescue::is_asked_for() || !rescue::after_failure() {
            stop();
        }
    }
}

/// What somebody in the running system asks for.
fn asked_for(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match arguments.next() {
        Some(word) if word == APPLY_WORD => apply::main(arguments),
        Some(word) if word == follow::WORD => follow::main(),
        Some(word) if word == shutdown::WORD => shutdown::in_running(arguments),
        _ => {
            eprintln!(
                "estive-init is the first program of a clone's kernel: give it as /init in an initramfs"
            );
            ExitCode::FAILURE
        }
    }
}

/// What everything else needs to be seen.
fn start() -> Result<()> {
    root::mount_kernel_file_systems()?;
    console::reopen()
}

/// Runs every phase in order; returns only when one fails.
fn boot(report: &mut Report) -> Result<std::convert::Infallible> {
    report.done(Phase::Init);

    report.begin(Phase::Modules);
    let line = command_line::read();
    let modules = modules::Modules::read()?;
    let line = match line {
        Ok(line) => line,
        Err(failure) => {
            modules.load_if_there(&estive_boot::modules::BEFORE_IDENTITY)?;
            return Err(failure);
        }
    };
    let network = match &line.root {
        None => Some(clone::prepare(&line, &modules, report)?),
        Some(root) => early::prepare(root, &line, &modules, report)?,
    };

    report.begin(Phase::Union);
    finish(&line, network.as_ref(), report)?;

    report.begin(Phase::Switch);
    if rescue::is_asked_for() {
        rescue::shell();
    }
    switch::switch(&line, report)
}

/// What is done to any union.
fn finish(line: &CommandLine, network: Option<&Network>, report: &mut Report) -> Result<()> {
    let union = root::open_directory(root::UNION)?;
    if let Some(archives) = &line.unpack {
        let began_ms = console::uptime_ms();
        unpack::unpack(archives, &union)?;
        report.step("archives are unpacked", began_ms, console::uptime_ms());
    }
    if !line.shared.is_empty() {
        let began_ms = console::uptime_ms();
        shared::mount(line, network, &union)?;
        report.step(
            "shared directories are mounted",
            began_ms,
            console::uptime_ms(),
        );
    }
    shutdown::place(&union)
}

fn stop() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

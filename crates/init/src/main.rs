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
//! layer over the running clone, when somebody asks for that.

mod apply;
mod clone;
mod coldplug;
mod command_line;
mod console;
mod devices;
mod early;
mod failure;
mod http;
mod identity;
mod key;
mod layer;
mod loaders;
mod loop_device;
mod modules;
mod network;
mod programs;
mod root;
mod switch;
mod union;
mod upper_image;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use estive_boot::Phase;
use estive_boot::push::APPLY_WORD;

use console::Report;
use failure::Result;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        let mut arguments = std::env::args_os();
        let own_name = arguments.next();
        if own_name.is_some_and(|name| Path::new(&name).ends_with(coldplug::MODPROBE)) {
            return coldplug::modprobe(arguments);
        }
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
    let line = command_line::read();
    let modules = modules::Modules::read()?;
    let line = match line {
        Ok(line) => line,
        Err(failure) => {
            modules.load_if_there(&estive_boot::modules::BEFORE_IDENTITY)?;
            return Err(failure);
        }
    };
    match &line.root {
        None => clone::prepare(&modules, report)?,
        Some(root) => early::prepare(root, &line, &modules, report)?,
    }

    report.begin(Phase::Switch);
    switch::switch(&line, report)
}

fn stop() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

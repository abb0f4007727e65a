//! `estive`: the one binary. Commands for people, and the daemons (`agent`, `manager`, `storage`).
//!
//! The tree of commands is the tree of files under `commands/`. No logic lives here: a command asks a service and
//! shows the answer.
#![allow(
    clippy::disallowed_methods,
    reason = "a command line shows elapsed time to a person; nothing is decided by it"
)]

mod arguments;
mod clones;
mod commands;
mod connection;
mod failure;
mod foreseeing;
mod local;
mod local_shop;
mod marked_file;
mod opened_root;
mod output;
mod plan_words;
mod question;
mod size;
mod terminal;
mod traces;
mod world_file;

use arguments::Arguments;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread: this process may have been started as a sandbox.
    if let Some(code) = estive_sandbox::hidden_command() {
        return code;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Asked for wrongly: impossible as asked. Help and version are done.
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("estive: could not start its runtime: {error}");
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(commands::run(arguments));
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code.code())
        }
    }
}

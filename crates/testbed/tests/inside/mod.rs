//! Running a part of a test inside an outer namespace.

use std::path::Path;

use estive_testbed::Outer;

pub const TOOL: &str = env!("CARGO_BIN_EXE_estive-bed");

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// This test binary again, inside an outer namespace, running the one ignored test `name`.
pub fn inside(name: &str) -> i32 {
    let own = std::env::current_exe().unwrap();
    let argv = [
        own.as_os_str(),
        name.as_ref(),
        "--exact".as_ref(),
        "--ignored".as_ref(),
        "--nocapture".as_ref(),
    ];
    Outer::new(argv).through(Path::new(TOOL)).run().unwrap()
}

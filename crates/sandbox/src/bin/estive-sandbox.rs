//! The sandbox's hidden command alone, so that its tests need not build all of `estive`.

use std::process::ExitCode;

fn main() -> ExitCode {
    estive_sandbox::hidden_command().unwrap_or_else(|| {
        eprintln!("this program is started by the tests of estive-sandbox");
        ExitCode::from(2)
    })
}

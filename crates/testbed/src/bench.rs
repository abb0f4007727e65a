//! `./x bench NAME`: ratios measured in one run, ours against a peer or a limit on the same machine at the same time.
//!
//! Each ends with one line `RESULT {…}` and appends it to a file. Source of the definitions: the project's measures page.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::bed::BedConfig;

/// Runs one benchmark; gives the exit code.
pub async fn run(
    name: &str,
    _bed: BedConfig,
    _herd: &Path,
    _results: &Path,
    _runs: Option<u32>,
) -> Result<i32, Error> {
    eprintln!("there is no benchmark called {name:?}; there are: boot, migrate, downtime, lost");
    Ok(2)
}

/// Prints the last line and appends it to the file of results.
pub fn conclude(result: &Value, results: &Path) -> Result<(), Error> {
    println!("RESULT {result}");
    let doing = || Error::system(format!("appending to {}", results.display()));
    if let Some(folder) = results.parent() {
        std::fs::create_dir_all(folder).map_err(doing())?;
    }
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(results)
        .map_err(doing())?;
    writeln!(file, "{result}").map_err(doing())
}

//! The daemon that shares a directory with a guest by virtiofs: only the tests of that loader run it.

use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::binaries::cargo;
use crate::cache::Cache;
use crate::failure::Result;
use crate::progress::Step;

/// Debian has it from 13 on, here.
const PACKAGED: &str = "/usr/libexec/virtiofsd";
/// Built where there is no package.
const VERSION: &str = "1.13.2";

/// Finds, installs or builds it.
pub fn prepare(cache: &Cache, apt: &mut Apt, suite: &str) -> Result<PathBuf> {
    if suite != "bookworm" {
        apt.install_virtiofsd()?;
    }
    if Path::new(PACKAGED).exists() {
        return Ok(PACKAGED.into());
    }
    let place = cache.program(&format!("virtiofsd-{VERSION}"));
    if !place.exists() {
        apt.install_for_virtiofsd()?;
        cache.make_whole(&place, |making| {
            let step = Step::begin("building virtiofsd");
            let mut command = cargo("install");
            command.args(["--version", VERSION, "virtiofsd", "--root"]);
            step.run(command.arg(making))?;
            step.done(VERSION);
            Ok(())
        })?;
    }
    Ok(place.join("bin/virtiofsd"))
}

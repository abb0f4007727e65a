//! `./x demo`: prepares this machine, builds a release, and shows a herd on it.

use std::path::PathBuf;

use crate::binaries::{self, Profile};
use crate::failure::{Failure, Result};
use crate::setup;

pub struct Options {
    /// Another root than the one in the cache.
    pub reference: Option<PathBuf>,
    /// Leave everything up at the end.
    pub keep: bool,
    /// How many live migrations.
    pub moves: u32,
}

pub fn demo(options: &Options) -> Result<()> {
    if let Some(root) = options.reference.as_ref().filter(|root| !root.is_dir()) {
        return Err(Failure::Unfit(format!(
            "--reference {}: no such directory",
            root.display()
        )));
    }
    let prepared = setup::setup()?;
    let programs = binaries::guest_programs()?;
    let estive = binaries::estive(Profile::Release)?;
    prepared.print();
    println!("estive     {}", estive.display());
    println!("programs   {}", programs.display());
    println!(
        "asked for  {} moves{}",
        options.moves,
        if options.keep { ", kept up" } else { "" }
    );
    Err(Failure::NotBuilt("the demo itself"))
}

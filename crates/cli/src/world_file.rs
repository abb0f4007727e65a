//! A world for a command: from a file, or as the manager sees it now.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::{Failure, chain};
use clap::Args;
use estive_api::Client;
use estive_world::text::Document;
use estive_world::{DomainIx, HostIx, Indexed, World, WorldError, text};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of a world may be so large.
const FILE_BYTES: u64 = 256 << 20;

/// Where a world comes from.
#[derive(Debug, Args)]
pub struct WorldFile {
    /// A world as text; without it, the herd as the manager sees it now
    #[arg(long, value_name = "FILE")]
    pub world: Option<PathBuf>,
}

impl WorldFile {
    /// Its text.
    pub async fn text(&self, global: &Global) -> Result<String, Failure> {
        match &self.world {
            Some(path) => read(path),
            None => live(&manager(global)?).await,
        }
    }

    /// Reads a text that [`WorldFile::text`] gave.
    pub fn document<'t>(&self, text: &'t str) -> Result<Document<'t>, Failure> {
        let place = self.world.as_deref().unwrap_or(Path::new("the manager"));
        text::read(text).map_err(|fault| unreadable(place, &fault))
    }
}

/// The herd as the manager sees it, as text.
pub async fn live(manager: &Client) -> Result<String, Failure> {
    let limit = usize::try_from(FILE_BYTES).unwrap_or(usize::MAX);
    let bytes = manager.get_bytes("/world", limit, PATIENCE).await?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Failure::failed("the manager's world is no text"))
}

/// A file of text with a bound on its size.
pub fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |error: &dyn std::error::Error| {
        Failure::failed(format!("{}: {}", path.display(), chain(error)))
    };
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut bytes = Vec::new();
    (file.take(FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Failure::failed(format!(
            "{}: more than {} MiB",
            path.display(),
            FILE_BYTES >> 20
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::failed(format!("{}: it is no text (UTF-8)", path.display())))
}

/// A fault in a file, said where it is: `file:line:column: what`, and what to do.
pub fn unreadable(path: &Path, fault: &WorldError) -> Failure {
    match fault {
        WorldError::Text {
            line,
            column,
            what,
            advice,
        } => Failure::failed(format!("{}:{line}:{column}: {what}", path.display())).advice(advice),
        WorldError::Form { what, advice } => {
            Failure::failed(format!("{}: {what}", path.display())).advice(advice)
        }
    }
}

/// A host by its name.
pub fn host(world: &World, name: &str) -> Result<HostIx, Failure> {
    let found = world.hosts.iter().position(|host| host.name == name);
    found.map(HostIx::of).ok_or_else(|| {
        Failure::impossible(format!("no host {name} in this world; it has {}", {
            let names: Vec<&str> = world.hosts.iter().map(|host| &*host.name).take(8).collect();
            names.join(" ")
        }))
        .advice("estive hosts, or the lines `host` of the file")
    })
}

/// A domain by its name.
pub fn domain(world: &World, name: &str) -> Result<DomainIx, Failure> {
    let found = world.domains.iter().position(|domain| domain.name == name);
    found.map(DomainIx::of).ok_or_else(|| {
        Failure::impossible(format!("no domain {name} in this world"))
            .advice("estive ls, or the lines `domain` of the file")
    })
}

//! `estive world check`: whether a world can be read, and what is in it.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Output, table};
use crate::world_file::{read, unreadable};
use clap::Args;
use estive_planner::asked;
use estive_world::text;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Check {
    /// The world
    file: PathBuf,
}

/// What is in a world, for programs.
#[derive(Debug, Serialize)]
struct Contents {
    sites: usize,
    links: usize,
    hosts: usize,
    users: usize,
    deployments: usize,
    volumes: usize,
    domains: usize,
    talks: usize,
    operations: usize,
    relations: usize,
    questions: usize,
    /// SHA-256 of its canonical text.
    digest: String,
    /// SHA-256 over where its domains are.
    placement: String,
    /// The file is as it would be written.
    canonical: bool,
}

impl Check {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let text = read(&self.file)?;
        let document = text::read(&text).map_err(|fault| unreadable(&self.file, &fault))?;
        let questions = asked(&document).map_err(|fault| unreadable(&self.file, &fault))?;
        let world = &document.world;
        let contents = Contents {
            sites: world.sites.len(),
            links: world.links.len(),
            hosts: world.hosts.len(),
            users: world.users.len(),
            deployments: world.deployments.len(),
            volumes: world.volumes.len(),
            domains: world.domains.len(),
            talks: world.talks.len(),
            operations: world.operations.len(),
            relations: world.rules.relations.len(),
            questions: questions.len(),
            digest: world.digest(),
            placement: world.placement_digest(),
            canonical: world.to_text() == text,
        };
        match global.output {
            Output::Json => output::json(&contents)?,
            Output::Table => output::print(&render(&contents))?,
        }
        Ok(0)
    }
}

fn render(contents: &Contents) -> String {
    let rows: Vec<Vec<String>> = [
        ("sites", contents.sites),
        ("links", contents.links),
        ("hosts", contents.hosts),
        ("users", contents.users),
        ("deployments", contents.deployments),
        ("volumes", contents.volumes),
        ("domains", contents.domains),
        ("talks", contents.talks),
        ("under way", contents.operations),
        ("rules between domains", contents.relations),
        ("questions", contents.questions),
    ]
    .iter()
    .filter(|(_, count)| *count > 0)
    .map(|(what, count)| vec![(*what).to_owned(), count.to_string()])
    .collect();
    format!(
        "{}digest {}\nplacement {}\n",
        table(&["what", "count"], &rows),
        contents.digest,
        contents.placement
    )
}

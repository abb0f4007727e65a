//! `estive sets show`: one template set, what it is for, reads, tells and makes.

use super::Place;
use crate::arguments::Global;
use crate::failure::Failure;
use crate::local::unfit;
use crate::output::{self, Output, table};
use clap::Args;
use estive_layers::{SetVariable, TemplateSet};
use serde_json::json;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct Show {
    /// The set.
    name: String,
    #[command(flatten)]
    place: Place,
}

impl Show {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let own = self.place.own()?;
        let sets = TemplateSet::find_all(std::slice::from_ref(&self.name), &own).map_err(unfit)?;
        let from = self.place.of(&self.name, &own);
        for set in &sets {
            match global.output {
                Output::Json => output::json(&document(set, &from)?)?,
                Output::Table => output::print(&render(set, &from)?)?,
            }
        }
        Ok(0)
    }
}

fn document(set: &TemplateSet, from: &str) -> Result<serde_json::Value, Failure> {
    let variables: Vec<_> = set
        .variables()
        .map(|(name, variable)| {
            json!({
                "name": name,
                "type": variable.kind.to_string(),
                "default": variable.default(),
                "required": variable.required(),
                "help": variable.help,
            })
        })
        .collect();
    Ok(json!({
        "name": set.name(),
        "help": set.help(),
        "from": from,
        "variables": variables,
        "undeclared": undeclared(set)?,
        "services": set.services(),
        "files": set.files(),
    }))
}

/// Variables that its templates read and its set.yaml does not declare.
fn undeclared(set: &TemplateSet) -> Result<Vec<String>, Failure> {
    let mut names = set.reads().map_err(unfit)?;
    for (declared, _) in set.variables() {
        names.remove(declared);
    }
    Ok(names.into_iter().collect())
}

fn render(set: &TemplateSet, from: &str) -> Result<String, Failure> {
    let mut text = format!("{}: {}\n({from})\n", set.name(), set.help());
    let mut part = |headings: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{}", table(headings, &rows));
        }
    };
    let mut variables: Vec<Vec<String>> = set
        .variables()
        .map(|(name, variable)| {
            vec![
                name.to_owned(),
                variable.kind.to_string(),
                default(variable),
                variable.help.clone(),
            ]
        })
        .collect();
    variables.extend(undeclared(set)?.into_iter().map(|name| {
        let help = "not declared; a template reads it".to_owned();
        vec![name, "any".to_owned(), String::new(), help]
    }));
    part(&["variable", "type", "default", "help"], variables);
    let services = set.services().iter().flat_map(|service| {
        let restart = service.restart.iter().map(|name| (name, "restarted"));
        let reload = service.reload.iter().map(|name| (name, "reloaded"));
        restart.chain(reload).map(|(name, how)| {
            let files = service.files.join(" ");
            vec![name.clone(), how.to_owned(), files]
        })
    });
    part(&["service", "is", "when these change"], services.collect());
    let files = set.files().into_iter();
    let files = files.map(|file| vec![file.path, file.what]);
    part(&["file", "is"], files.collect());
    Ok(text)
}

fn default(variable: &SetVariable) -> String {
    match variable.default() {
        Some(value) => value.to_string(),
        None if variable.required() => "(required)".to_owned(),
        None => "(may be undefined)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_shown_whole() {
        let dir = tempfile::tempdir().unwrap();
        let settings = "help: A page.
variables:
  greeting: {type: text, default: \"hi \", help: said first}
  key: {type: text}
  page: {type: mapping, optional: true}
services:
  - {files: [etc/nginx/**, srv/*], restart: [nginx], reload: [other]}
files: {etc/page: {mode: \"0600\"}}
";
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("set.yaml"), settings).unwrap();
        std::fs::write(dir.path().join("etc/page.j2"), "{{ colour }}").unwrap();
        let set = TemplateSet::load("own", dir.path()).unwrap();
        assert_eq!(
            render(&set, "sets/own").unwrap(),
            "own: A page.
(sets/own)

VARIABLE  TYPE     DEFAULT             HELP
greeting  text     \"hi \"               said first
key       text     (required)
page      mapping  (may be undefined)
colour    any                          not declared; a template reads it

SERVICE  IS         WHEN THESE CHANGE
nginx    restarted  etc/nginx/** srv/*
other    reloaded   etc/nginx/** srv/*

FILE       IS
/etc/page  rendered, mode 0600
"
        );
        let json = document(&set, "sets/own").unwrap();
        assert_eq!(json["variables"][1]["required"], true);
        assert_eq!(json["undeclared"], json!(["colour"]));
        assert_eq!(json["services"][0]["reload"], json!(["other"]));
        assert_eq!(json["files"][0]["path"], "/etc/page");
    }
}

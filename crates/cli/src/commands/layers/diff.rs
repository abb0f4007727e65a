//! `estive layers diff`: a clone's layer held against a root.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::local::Local;
use crate::opened_root::OpenedRoot;
use crate::output::{self, Output, table};
use clap::Args;
use estive_model::DomainName;
use estive_union::{Difference, Look, Verdict, compare};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Diff {
    /// The clone, by its name in the herd file.
    clone: DomainName,
    #[command(flatten)]
    local: Local,
    /// The root: a directory (/ for this system), or a sealed image.
    #[arg(long, value_name = "DIR|IMAGE")]
    root: PathBuf,
    /// Show also what is the same in both.
    #[arg(long)]
    all: bool,
}

/// A row, for programs.
#[derive(Debug, PartialEq, Serialize)]
struct Row<'a> {
    path: &'a str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<Side<'a>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Side<'a> {
    what: &'a str,
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
}

impl Diff {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let layers = self.local.build(Some(&self.root), false)?;
        let layer = layers.layer(&self.clone)?;
        let found = OpenedRoot::open(&self.root)?.compare(&layer.bytes)?;
        let shown: Vec<&Difference> = found
            .iter()
            .filter(|found| self.all || found.verdict != Verdict::Same)
            .collect();
        match global.output {
            Output::Json => {
                output::json(&shown.iter().map(|found| row(found)).collect::<Vec<_>>())?
            }
            Output::Table => {
                output::print(&render(&shown))?;
                eprintln!("{}", summary(&found));
            }
        }
        let clash = found.iter().find(|found| found.verdict == Verdict::Clash);
        match clash {
            Some(clash) => Err(Failure::impossible(format!(
                "{} cannot start on this root: its layer has files in {}, which is {} there",
                self.clone,
                clash.path,
                clash
                    .root
                    .as_ref()
                    .map_or("something else", |root| &root.what)
            ))
            .advice("put them where the link points, or hide it with a .wh. mark first")),
            None => Ok(0),
        }
    }
}

impl OpenedRoot {
    fn compare(&self, archive: &[u8]) -> Result<Vec<Difference>, Failure> {
        compare(archive, self.tree()).map_err(crate::failure::failed)
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Added => "added",
        Verdict::Changed => "changed",
        Verdict::Same => "same",
        Verdict::Hidden => "hidden",
        Verdict::Clash => "clash",
    }
}

fn row(found: &Difference) -> Row<'_> {
    fn side(look: &Look) -> Side<'_> {
        Side {
            what: &look.what,
            mode: format!("{:04o}", look.mode),
            uid: look.uid,
            gid: look.gid,
            size_bytes: look.size_bytes,
        }
    }
    Row {
        path: &found.path,
        verdict: word(found.verdict),
        layer: found.layer.as_ref().map(side),
        root: found.root.as_ref().map(side),
    }
}

fn render(found: &[&Difference]) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|found| {
            vec![
                word(found.verdict).to_owned(),
                format!("/{}", found.path),
                words(found),
            ]
        })
        .collect();
    table(&["", "path", "what"], &rows)
}

/// What it is; of a change, only what differs.
fn words(found: &Difference) -> String {
    match (&found.layer, &found.root) {
        (Some(layer), Some(root)) if found.verdict == Verdict::Changed => changes(layer, root),
        (Some(look), _) | (None, Some(look)) => whole(look),
        (None, None) => String::new(),
    }
}

fn whole(look: &Look) -> String {
    let mut words = vec![look.what.clone()];
    if !look.what.starts_with("link") && look.mode != 0 {
        words.push(format!("{:04o}", look.mode));
    }
    if (look.uid, look.gid) != (0, 0) {
        words.push(format!("{}:{}", look.uid, look.gid));
    }
    words.extend(look.size_bytes.map(|size| format!("{size} bytes")));
    words.join(", ")
}

fn changes(layer: &Look, root: &Look) -> String {
    let mut words = Vec::new();
    if layer.what != root.what {
        words.push(format!("{}, was {}", layer.what, root.what));
    }
    if layer.mode != root.mode && !layer.what.starts_with("link") {
        words.push(format!("mode {:04o}, was {:04o}", layer.mode, root.mode));
    }
    if (layer.uid, layer.gid) != (root.uid, root.gid) {
        words.push(format!(
            "owner {}:{}, was {}:{}",
            layer.uid, layer.gid, root.uid, root.gid
        ));
    }
    match (layer.size_bytes, root.size_bytes) {
        (Some(is), Some(was)) if is != was => words.push(format!("{is} bytes, was {was}")),
        (Some(is), None) => words.push(format!("{is} bytes")),
        _ if words.is_empty() && layer.size_bytes.is_some() => words.push("content".to_owned()),
        _ if words.is_empty() => words.push("attributes".to_owned()),
        _ => {}
    }
    words.join("; ")
}

fn summary(found: &[Difference]) -> String {
    let count = |verdict| {
        found
            .iter()
            .filter(|found| found.verdict == verdict)
            .count()
    };
    format!(
        "{} added, {} changed, {} the same, {} hidden",
        count(Verdict::Added),
        count(Verdict::Changed),
        count(Verdict::Same),
        count(Verdict::Hidden)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(what: &str, mode: u32, size_bytes: Option<u64>) -> Look {
        Look {
            what: what.to_owned(),
            mode,
            uid: 0,
            gid: 0,
            size_bytes,
        }
    }

    #[test]
    fn a_change_says_what_differs() {
        let found = |path: &str, verdict, layer, root| Difference {
            path: path.to_owned(),
            verdict,
            layer,
            root,
        };
        let file = |mode, size| Some(look("file", mode, Some(size)));
        let found = [
            found("etc/a", Verdict::Added, file(0o600, 3), None),
            found("etc/b", Verdict::Changed, file(0o600, 3), file(0o644, 4)),
            found("etc/c", Verdict::Changed, file(0o644, 3), file(0o644, 3)),
            found(
                "etc/d",
                Verdict::Hidden,
                None,
                Some(look("directory", 0o755, None)),
            ),
            found(
                "etc/e",
                Verdict::Changed,
                Some(look("link to /x", 0o777, None)),
                file(0o644, 1),
            ),
        ];
        assert_eq!(
            render(&found.iter().collect::<Vec<_>>()),
            "         PATH    WHAT\n\
             added    /etc/a  file, 0600, 3 bytes\n\
             changed  /etc/b  mode 0600, was 0644; 3 bytes, was 4\n\
             changed  /etc/c  content\n\
             hidden   /etc/d  directory, 0755\n\
             changed  /etc/e  link to /x, was file\n"
        );
        assert_eq!(summary(&found), "1 added, 3 changed, 0 the same, 1 hidden");
        let json = serde_json::to_value(row(&found[1])).unwrap();
        assert_eq!(json["root"]["mode"], "0644");
        assert_eq!(json["verdict"], "changed");
    }
}

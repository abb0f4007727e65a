//! `estive which`: where a file of a clone comes from, down to the line of a template.

use crate::arguments::Global;
use crate::failure::{Failure, chain};
use crate::local::{Local, LocalLayers, unfit};
use crate::output::{self, Output};
use clap::Args;
use estive_layers::{FileKind, FileOrigin, FileSource, NodeKind, Renderer, Whence};
use estive_model::DomainName;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Which {
    /// The clone, by its name in the herd file.
    clone: DomainName,
    /// A path of the clone; with :LINE, one line of it.
    #[arg(value_name = "PATH[:LINE]")]
    path: String,
    /// A line of the file.
    #[arg(long, value_name = "N")]
    line: Option<usize>,
    #[command(flatten)]
    local: Local,
    /// The root that scripts of sets see: a directory, or a sealed image.
    #[arg(long, value_name = "DIR|IMAGE")]
    root: Option<PathBuf>,
}

/// The answer, for programs.
#[derive(Debug, Serialize)]
struct Answer {
    clone: String,
    /// With a leading slash.
    path: String,
    /// Digest of the clone's layer.
    layer: String,
    /// Who decides what is seen there.
    seen: Seen,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<FileKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<FileSource>,
    /// Where the source lies: in the herd's folder, or in what ships with Estive.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    /// The set ships with Estive.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ships: bool,
    /// The path that hides what the root has.
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_by: Option<String>,
    /// What lower sets have at the same path, the lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    covers: Vec<FileSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The template's line for it, when it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    template_line: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Seen {
    Layer,
    /// A directory that layer and root have together.
    Joined,
    Root,
    Hidden,
}

impl Which {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let (path, line) = self.path_and_line()?;
        let layers = self.local.build(self.root.as_deref(), false)?;
        layers.herd.clone_named(&self.clone)?;
        let answer = self.answer(&path, line, &layers)?;
        match global.output {
            Output::Json => output::json(&answer)?,
            Output::Table => output::print(&words(&answer))?,
        }
        Ok(0)
    }

    /// The path without its slash, and the line that is asked for.
    fn path_and_line(&self) -> Result<(String, Option<usize>), Failure> {
        let (path, line) = match self.path.rsplit_once(':') {
            Some((path, number)) if self.line.is_none() && number.parse::<usize>().is_ok() => {
                (path, number.parse().ok())
            }
            _ => (self.path.as_str(), self.line),
        };
        let names: Vec<&str> = path
            .split('/')
            .filter(|name| !matches!(*name, "" | "."))
            .collect();
        let path = names.join("/");
        estive_archive::check_path(&path)
            .map_err(|error| Failure::impossible(error.to_string()))?;
        Ok((path, line))
    }

    fn answer(
        &self,
        path: &str,
        line: Option<usize>,
        layers: &LocalLayers,
    ) -> Result<Answer, Failure> {
        let (digest, origins) = layers.origins(&self.clone)?;
        let mut answer = Answer {
            clone: self.clone.to_string(),
            path: format!("/{path}"),
            layer: digest.to_string(),
            seen: Seen::Root,
            kind: None,
            source: None,
            place: None,
            ships: false,
            hidden_by: None,
            covers: Vec::new(),
            line,
            template_line: None,
        };
        match origins.whence(path) {
            Whence::Layer(FileOrigin {
                kind,
                source,
                covers,
            }) => {
                answer.seen = Seen::Layer;
                answer.kind = Some(*kind);
                answer.covers.clone_from(covers);
                answer.say_source(source, layers);
                if let (Some(line), FileSource::Template { .. }) = (line, source) {
                    answer.template_line = self.template_line(path, line, layers)?;
                }
            }
            Whence::Joined => answer.seen = Seen::Joined,
            Whence::Root => {}
            Whence::Hidden { by, source } => {
                answer.seen = Seen::Hidden;
                answer.hidden_by = Some(format!("/{by}"));
                answer.say_source(source, layers);
            }
        }
        Ok(answer)
    }

    fn template_line(
        &self,
        path: &str,
        line: usize,
        layers: &LocalLayers,
    ) -> Result<Option<usize>, Failure> {
        let renderer = Renderer::new(&layers.request).map_err(unfit)?;
        let clone = self.clone.as_str();
        let tree = renderer.tree(clone).map_err(unfit)?;
        if let Some(NodeKind::File { bytes, .. }) = tree.get(path).map(|node| &node.kind) {
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
            if line == 0 || line > lines {
                return Err(Failure::impossible(format!(
                    "/{path} of {clone} has {lines} lines, and no line {line}"
                )));
            }
        }
        renderer
            .template_line(clone, path, line)
            .map_err(|error| Failure::impossible(chain(&error)))
    }
}

impl Answer {
    fn say_source(&mut self, source: &FileSource, layers: &LocalLayers) {
        self.source = Some(source.clone());
        let (set, path) = match source {
            FileSource::Common => return,
            FileSource::Template { set, path } | FileSource::Copy { set, path } => {
                (set, path.clone())
            }
            FileSource::Script { set, script, .. } => (set, format!(".scripts/{script}")),
        };
        // An opaque mark that is an attribute says so after the path.
        let path = path.split(" (").next().unwrap_or(&path);
        let place = PathBuf::from("sets").join(set).join(path);
        self.ships = !layers.herd.sets.contains_key(set);
        let place = match self.ships {
            true => place,
            false => layers.folder.join(place),
        };
        self.place = Some(place.display().to_string());
    }
}

fn words(answer: &Answer) -> String {
    let mut lines = vec![format!("{} of {}", answer.path, answer.clone)];
    let mut say = |what: &str, text: String| lines.push(format!("  {what:<9}{text}"));
    match (answer.seen, &answer.source) {
        (Seen::Layer, Some(source)) => {
            let kind = answer.kind.map(|kind| kind.to_string()).unwrap_or_default();
            say("is a", format!("{kind} of the layer {}", answer.layer));
            say("from", source.to_string());
        }
        (Seen::Hidden, Some(source)) => {
            let by = answer.hidden_by.as_deref().unwrap_or_default();
            say(
                "is",
                format!("hidden, whatever the root has there, by {by}"),
            );
            say("from", source.to_string());
            say("layer", answer.layer.clone());
        }
        (Seen::Joined, _) => {
            say("is a", format!("directory of the layer {}", answer.layer));
            say(
                "from",
                "the root, if it has it: mode and owner are the root's".to_owned(),
            );
        }
        _ => {
            say("is", "not in the layer".to_owned());
            say("from", "the root, if it has it".to_owned());
            say("layer", answer.layer.clone());
        }
    }
    if let Some(place) = &answer.place {
        let line = match (answer.template_line, answer.line) {
            (Some(line), _) => format!(":{line}"),
            (None, Some(_)) => " (the line cannot be told)".to_owned(),
            (None, None) => String::new(),
        };
        let ships = if answer.ships {
            ", which ships with Estive"
        } else {
            ""
        };
        say("at", format!("{place}{line}{ships}"));
    }
    for covered in answer.covers.iter().rev() {
        say("covers", covered.to_string());
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_words() {
        let source = FileSource::Template {
            set: "web".to_owned(),
            path: "etc/motd.j2".to_owned(),
        };
        let answer = Answer {
            clone: "clone03".to_owned(),
            path: "/etc/motd".to_owned(),
            layer: "sha256:1".to_owned(),
            seen: Seen::Layer,
            kind: Some(FileKind::File),
            source: Some(source),
            place: Some("sets/web/etc/motd.j2".to_owned()),
            ships: true,
            hidden_by: None,
            covers: vec![FileSource::Common],
            line: Some(3),
            template_line: Some(7),
        };
        assert_eq!(
            words(&answer),
            "/etc/motd of clone03\n  is a     file of the layer sha256:1\n  from     set web, template etc/motd.j2\n  \
             at       sets/web/etc/motd.j2:7, which ships with Estive\n  covers   Estive, for every clone\n"
        );
    }
}

//! `estive vars`: every value of a clone, who wrote it and where, and what it overrode.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::local::Local;
use crate::output::{self, Output, table};
use clap::Args;
use estive_layers::{EarlierValue, Source, TracedValue};
use estive_model::DomainName;
use serde_json::Value as Json;

/// Longer values are cut in the table; JSON has them whole.
const SHOWN_CHARS: usize = 48;

#[derive(Debug, Args)]
pub struct Vars {
    /// The clone, by its name in the herd file.
    clone: DomainName,
    #[command(flatten)]
    local: Local,
}

impl Vars {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let herd = self.local.herd()?;
        let chosen = herd.chosen_sets()?;
        let clone = herd.clone_named(&self.clone)?;
        let values = clone.traced_values(chosen.of(clone));
        match global.output {
            Output::Json => output::json(&values)?,
            Output::Table => output::print(&render(&values))?,
        }
        if clone.sets.is_empty() {
            eprintln!(
                "estive: note: the herd file chooses no sets for {}; with estive up it has those of its reference, {}",
                clone.name, clone.reference
            );
        }
        // The values are shown also when they do not suffice: they help to see why.
        herd.check_variables()?;
        Ok(0)
    }
}

fn render(values: &[TracedValue]) -> String {
    let rows: Vec<Vec<String>> = values
        .iter()
        .map(|value| {
            let earlier: Vec<String> = value.earlier.iter().map(earlier).collect();
            vec![
                value.name.clone(),
                shown(&value.value),
                value.source.level().to_string(),
                place(&value.source),
                earlier.join("; "),
            ]
        })
        .collect();
    table(&["variable", "value", "level", "place", "overrode"], &rows)
}

fn earlier(earlier: &EarlierValue) -> String {
    let how = if earlier.kept { "appended to " } else { "" };
    format!("{how}{} ({})", shown(&earlier.value), earlier.source)
}

fn place(source: &Source) -> String {
    source
        .place()
        .map_or_else(|| "-".to_owned(), |(file, at)| format!("{file}:{at}"))
}

fn shown(value: &Json) -> String {
    let text = match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_wrote_what_and_over_what() {
        let text = "title: all\nlist: [1]\nhosts:\n  a: {title: \"\\e[31mred\", list+: [2]}\n";
        let plan = estive_layers::herd::parse("herd.yaml", text, "demo").unwrap();
        assert_eq!(
            render(&plan.clones[0].traced_values(&[])),
            "VARIABLE    VALUE          LEVEL     PLACE           OVERRODE\n\
             address     10.77.0.158    drawn     -\n\
             cpus        1              built in  -\n\
             list        [1,2]          host a    herd.yaml:4:34  appended to [1] (globals, herd.yaml:2:7)\n\
             memory_mib  384            built in  -\n\
             reference   default        built in  -\n\
             title       \\u{1b}[31mred  host a    herd.yaml:4:14  all (globals, herd.yaml:1:8)\n"
        );
        assert_eq!(shown(&Json::from("x".repeat(100))), "x".repeat(48) + "…");
    }
}

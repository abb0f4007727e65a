//! `estive root show`: one loader.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::Args;
use estive_boot::loaders::{COMMON, LOADERS, Parameter, written};
use serde_json::json;

#[derive(Debug, Args)]
pub struct Show {
    /// Its name.
    loader: String,
}

impl Show {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let found = LOADERS.iter().find(|loader| loader.name == self.loader);
        let Some(loader) = found else {
            return Err(
                Failure::impossible(format!("there is no loader {:?}", self.loader))
                    .advice("estive root lists them"),
            );
        };
        let parameters = || loader.parameters.iter().chain(&COMMON);
        match global.output {
            Output::Json => {
                let rows = parameters().map(|parameter| {
                    json!({
                        "name": parameter.name,
                        "written": written(parameter),
                        "default": default(parameter),
                        "help": parameter.help,
                    })
                });
                output::json(&json!({
                    "name": loader.name,
                    "written": loader.usage(),
                    "help": loader.help,
                    "example": loader.example,
                    "parameters": rows.collect::<Vec<_>>(),
                }))?;
            }
            Output::Table => {
                let rows: Vec<Vec<String>> = parameters()
                    .map(|parameter| {
                        vec![
                            written(parameter),
                            default(parameter).unwrap_or("must be given").to_owned(),
                            parameter.help.to_owned(),
                        ]
                    })
                    .collect();
                output::print(&format!(
                    "{}\n\n{}\n\n{}\nexample: root={}\n",
                    loader.usage(),
                    loader.help,
                    table(&["option", "default", "what"], &rows),
                    loader.example
                ))?;
            }
        }
        Ok(0)
    }
}

fn default(parameter: &Parameter) -> Option<&'static str> {
    Some(parameter.default).filter(|default| !default.is_empty())
}

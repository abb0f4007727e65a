//! The loaders for people, written from their table.

use super::{COMMON, Form, LOADERS, Parameter};

/// Markdown: a part for each loader, then what every device may have. Part of `docs/root-line.md`.
pub fn page() -> String {
    let mut page = String::new();
    for loader in LOADERS {
        page += &format!("### {}\n\n", loader.name);
        page += &format!("`{}`\n\n{}\n\n", loader.usage(), loader.help);
        if !loader.parameters.is_empty() {
            page += &table(loader.parameters);
        }
        let takes: Vec<String> = loader.takes.iter().map(|shape| shape.to_string()).collect();
        let gives = match takes.is_empty() {
            true => format!("Gives {}.", loader.gives),
            false => format!(
                "Works on {}{}. Gives {}.",
                takes.join(" or "),
                if loader.is_source {
                    ", or stands alone"
                } else {
                    ""
                },
                loader.gives
            ),
        };
        page += &format!("{gives} Example: `{}`\n\n", loader.example);
    }
    page += "### Every device\n\n";
    page += &table(&COMMON);
    page
}

fn table(parameters: &[Parameter]) -> String {
    let mut table = String::from("| option | default | what |\n|---|---|---|\n");
    for parameter in parameters {
        let written = written(parameter);
        let default = match parameter.default {
            "" => "must be given",
            default => default,
        };
        table += &format!("| `{written}` | {default} | {} |\n", parameter.help);
    }
    table + "\n"
}

/// The parameter as it stands in a line.
pub fn written(parameter: &Parameter) -> String {
    match parameter.form {
        Form::Place { .. } | Form::Flag => parameter.name.to_owned(),
        Form::Key(value) | Form::KeyOfParts { value, .. } => format!("{}={value}", parameter.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has the table word for word. `ESTIVE_WRITE_DOCS=1 cargo test -p estive-boot page` writes it there.
    #[test]
    fn the_page_on_lines_tells_every_loader_and_parameter() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/root-line.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- loaders -->\n\n", "<!-- end of loaders -->\n");
        let (before, rest) = text.split_once(begin).unwrap();
        let (shown, after) = rest.split_once(end).unwrap();
        if std::env::var_os("ESTIVE_WRITE_DOCS").is_some() {
            let text = format!("{before}{begin}{}{end}{after}", page());
            std::fs::write(path, text).unwrap();
            return;
        }
        assert_eq!(shown, page(), "write it with ESTIVE_WRITE_DOCS=1");
    }
}

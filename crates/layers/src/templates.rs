//! The template language: its environment, its limits, and what is said when a template fails.

use std::fmt::Write as _;
use std::io;

use estive_archive::SharedBytes;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use crate::error::LayerError;

/// Steps that one template may take: a loop over thousands of clones, not one without end.
const TEMPLATE_FUEL: u64 = 2_000_000;

/// Output of one template.
const MAX_RENDERED_BYTES: usize = 4 << 20;

/// Names that templates know besides the herd file's variables, which cannot be called so.
pub(crate) const TEMPLATE_NAMES: [&str; 4] = ["clone", "clones", "deployment", "secrets"];

pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // It would print everything that the template could know, keys too.
    environment.remove_global("debug");
    // Configuration files mean what they say; only pages are escaped.
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") || name.ends_with(".html.j2") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    syntax
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment
}

/// What the environment calls the template at this path of a set.
pub(crate) fn template_name(set: &str, path: &str) -> String {
    format!("{set}/{path}")
}

/// Adds a template; `name` as [`template_name`] gives it.
pub(crate) fn add(
    environment: &mut Environment<'static>,
    name: &str,
    source: &str,
) -> Result<(), LayerError> {
    environment
        .add_template_owned(name.to_owned(), source.to_owned())
        .map_err(|error| template_error(&error, name, "any clone"))
}

/// Renders a template within the limits; `clone` is for messages.
pub(crate) fn render(
    environment: &Environment<'static>,
    name: &str,
    clone: &str,
    context: &Value,
) -> Result<SharedBytes, LayerError> {
    let mut output = Limited(Vec::new());
    let wrong = |error| template_error(&error, name, clone);
    let template = environment.get_template(name).map_err(wrong)?;
    template
        .render_captured_to(context, &mut output)
        .map_err(wrong)?;
    Ok(output.0.into())
}

pub(crate) fn template_error(error: &minijinja::Error, name: &str, clone: &str) -> LayerError {
    let mut what = error.kind().to_string();
    if let Some(detail) = error.detail() {
        let _ = write!(what, ": {detail}");
    }
    LayerError::Template {
        template: error.name().unwrap_or(name).to_owned(),
        line: error.line().unwrap_or(1),
        clone: clone.to_owned(),
        what,
    }
}

/// Takes no more than a template may give.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            let message = format!("more than {MAX_RENDERED_BYTES} bytes of output");
            return Err(io::Error::other(message));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

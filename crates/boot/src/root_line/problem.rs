//! What is wrong with a line, and at which character.

use std::fmt;

/// What is wrong, and where; the text is not at hand yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub at: usize,
    pub message: String,
}

pub type Parsed<T> = Result<T, Wrong>;

impl Wrong {
    pub fn new(at: usize, message: impl Into<String>) -> Wrong {
        Wrong {
            at,
            message: message.into(),
        }
    }

    pub fn in_text(self, text: &str) -> Problem {
        Problem {
            text: text.to_owned(),
            at: self.at.min(text.len()),
            message: self.message,
        }
    }
}

/// What is wrong with a line: one sentence when shown, [`Problem::pointed`] with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What stands behind `root=`.
    pub text: String,
    /// The byte of `text` at which it is wrong; its length for what is missing at the end.
    pub at: usize,
    /// What is wrong there, and what to write.
    pub message: String,
}

impl Problem {
    /// Three lines: the text, a caret under the character, and the message.
    pub fn pointed(&self) -> String {
        let before = self.text.get(..self.at).unwrap_or(&self.text);
        // A tab or a character of another width would move the caret; no line that is right has one.
        let shown: String = self.text.chars().map(visible).collect();
        let column = before.chars().count();
        format!("{shown}\n{:column$}^\n{}", "", self.message)
    }
}

fn visible(character: char) -> char {
    match character {
        ' '..='~' => character,
        _ => '?',
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Problem { at, message, .. } = self;
        let rest = self.text.get(*at..).unwrap_or_default();
        let near: String = rest.chars().take(20).map(visible).collect();
        let dots = if rest.chars().nth(20).is_some() {
            "…"
        } else {
            ""
        };
        match near.is_empty() {
            true => write!(f, "{message} (at its end)"),
            false => write!(f, "{message} (character {}: {near}{dots})", at + 1),
        }
    }
}

impl std::error::Error for Problem {}

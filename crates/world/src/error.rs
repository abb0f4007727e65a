//! What can be wrong with a world that came from outside.

/// A world, or a file in another form, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// A text that is not of the form it should be.
    #[error("line {line}, column {column}: {what}; {advice}")]
    Text {
        /// Line, from 1.
        line: u32,
        /// Character of the line, from 1.
        column: u32,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
    /// A world that cannot be written in another form.
    #[error("{what}; {advice}")]
    Form {
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
}

impl WorldError {
    /// A fault at a place of a text.
    pub fn text(
        line: u32,
        column: u32,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Text {
            line,
            column,
            what: what.into(),
            advice: advice.into(),
        }
    }
}

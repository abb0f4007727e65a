//! A line of text: its word, what stands bare, and its keys with their values, each with its place.

use std::borrow::Cow;

use super::limits;
use crate::WorldError;

/// What is written between two spaces, or after a `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// As it stands, with its quotes.
    pub raw: &'a str,
    /// Its line, from 1.
    pub line: u32,
    /// Its first character, from 1.
    pub column: u32,
}

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// What the line is about: its first word.
    pub word: Value<'a>,
    /// What stands without a `=`: names first, then words that are said or not.
    pub bare: Vec<Value<'a>>,
    /// Keys and their values, in the order of the line, each key once.
    pub keys: Vec<(Value<'a>, Value<'a>)>,
}

impl<'a> Value<'a> {
    /// A fault here.
    pub fn fault(&self, what: impl Into<String>, advice: impl Into<String>) -> WorldError {
        WorldError::text(self.line, self.column, what, advice)
    }

    /// The whole text, without the quotes around it.
    ///
    /// # Errors
    /// If something stands before or behind the quotes.
    pub fn one(&self) -> Result<Cow<'a, str>, WorldError> {
        if self.raw.contains('"') {
            return self.unquoted();
        }
        Ok(Cow::Borrowed(self.raw))
    }

    /// A name: anything in quotes, or a word of letters, digits and `. _ - + / : @ % ( ) *`.
    ///
    /// # Errors
    /// If it is empty, too long, or has something else in it without quotes.
    pub fn name(&self) -> Result<Cow<'a, str>, WorldError> {
        let name = self.one()?;
        if name.is_empty() {
            return Err(self.fault("a name is empty", "write a name"));
        }
        if name.len() > limits::NAME_BYTES {
            return Err(self.fault(
                format!("a name of {} bytes", name.len()),
                format!("names have at most {}", limits::NAME_BYTES),
            ));
        }
        if !self.raw.starts_with('"')
            && let Some(other) = name.chars().find(|character| !is_plain(*character))
        {
            return Err(self.fault(
                format!("`{other}` in the name `{name}`"),
                format!("write \"{name}\" if it is meant so"),
            ));
        }
        Ok(name)
    }

    /// The elements of a list: what stands between commas outside quotes.
    ///
    /// # Errors
    /// If there are too many.
    pub fn list(&self) -> Result<Vec<Value<'a>>, WorldError> {
        let mut elements = Vec::new();
        let mut quoted = false;
        let mut escaped = false;
        let (mut start, mut start_column) = (0, self.column);
        let mut push = |raw: &'a str, column| {
            if elements.len() == limits::LIST {
                return Err(self.fault(
                    "a list is too long",
                    format!("lists have at most {} elements", limits::LIST),
                ));
            }
            elements.push(Value {
                raw,
                line: self.line,
                column,
            });
            Ok(())
        };
        for (column, (at, character)) in (self.column..).zip(self.raw.char_indices()) {
            match character {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ',' if !quoted => {
                    push(&self.raw[start..at], start_column)?;
                    (start, start_column) = (at + 1, column + 1);
                }
                _ => {}
            }
        }
        push(&self.raw[start..], start_column)?;
        Ok(elements)
    }

    fn unquoted(&self) -> Result<Cow<'a, str>, WorldError> {
        let astray = || {
            self.fault(
                format!("a quote stands within {}", self.raw),
                "quotes go around the whole, with \\\" for a quote inside",
            )
        };
        let inside = self
            .raw
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(astray)?;
        if !inside.contains(['\\', '"']) {
            return Ok(Cow::Borrowed(inside));
        }
        let mut text = String::with_capacity(inside.len());
        let mut characters = inside.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => return Err(astray()),
                '\\' => match characters.next() {
                    Some(next @ ('"' | '\\')) => text.push(next),
                    _ => {
                        return Err(self.fault(
                            format!("\\ before something else than \" or \\ in {}", self.raw),
                            "write \\\\ for one \\",
                        ));
                    }
                },
                other => text.push(other),
            }
        }
        Ok(Cow::Owned(text))
    }
}

/// What a name may have in it without quotes.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "._-+/:@%()*".contains(character)
}

/// A name as it is written, in quotes if it has to be.
pub fn quoted(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.chars().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for character in name.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
    Cow::Owned(text)
}

/// Reads a line; none: it is empty or only a comment.
pub fn line(text: &str, number: u32) -> Result<Option<Line<'_>>, WorldError> {
    let here = |column, what: String, advice: &str| WorldError::text(number, column, what, advice);
    if text.len() > limits::LINE_BYTES {
        return Err(here(
            1,
            format!("a line of {} bytes", text.len()),
            "lines have at most 1 MiB",
        ));
    }
    let mut items: Vec<(Value<'_>, Option<usize>)> = Vec::new();
    // Where the item under way begins: byte, column, and the byte of its first `=` outside quotes.
    let mut open: Option<(usize, u32, Option<usize>)> = None;
    let mut quote: Option<u32> = None;
    let mut escaped = false;
    let mut end = text.len();
    for (column, (at, character)) in (1..).zip(text.char_indices()) {
        if character.is_control() && character != '\t' {
            return Err(here(
                column,
                format!("the control character {character:?}"),
                "take it out",
            ));
        }
        if quote.is_some() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quote = None,
                _ => {}
            }
            continue;
        }
        match character {
            ' ' | '\t' => {
                if let Some((from, first, equals)) = open.take() {
                    push(&mut items, &text[from..at], number, first, equals)?;
                }
            }
            '#' if open.is_none() => {
                end = at;
                break;
            }
            _ => {
                let item = open.get_or_insert((at, column, None));
                match character {
                    '"' => quote = Some(column),
                    '=' if item.2.is_none() => item.2 = Some(at - item.0),
                    _ => {}
                }
            }
        }
    }
    if let Some(column) = quote {
        return Err(here(
            column,
            "a quote that does not end".to_owned(),
            "write the second \" on the same line",
        ));
    }
    if let Some((from, first, equals)) = open {
        push(&mut items, &text[from..end], number, first, equals)?;
    }
    let mut items = items.into_iter();
    let Some((word, equals)) = items.next() else {
        return Ok(None);
    };
    if equals.is_some() {
        return Err(word.fault(
            format!("a line begins with {}", word.raw),
            "begin it with what it is about: host, domain, site …",
        ));
    }
    let mut line = Line {
        word,
        bare: Vec::new(),
        keys: Vec::new(),
    };
    for (item, equals) in items {
        let Some(equals) = equals else {
            if !line.keys.is_empty() && item.raw.starts_with('"') {
                return Err(item.fault(
                    format!("{} stands alone behind keys", item.raw),
                    "names stand first on a line",
                ));
            }
            line.bare.push(item);
            continue;
        };
        let key = Value {
            raw: &item.raw[..equals],
            ..item
        };
        let before = u32::try_from(key.raw.chars().count()).unwrap_or(u32::MAX);
        let value = Value {
            raw: &item.raw[equals + 1..],
            column: item.column.saturating_add(before).saturating_add(1),
            ..item
        };
        if value.raw.is_empty() {
            return Err(value.fault(
                format!("nothing behind {}=", key.raw),
                "write a value, or leave the key out",
            ));
        }
        if line.keys.iter().any(|(other, _)| other.raw == key.raw) {
            return Err(key.fault(
                format!("{} is said twice on one line", key.raw),
                "leave one out",
            ));
        }
        if line.keys.len() == limits::KEYS {
            return Err(key.fault("too many keys on one line", "leave some out"));
        }
        line.keys.push((key, value));
    }
    Ok(Some(line))
}

fn push<'a>(
    items: &mut Vec<(Value<'a>, Option<usize>)>,
    raw: &'a str,
    line: u32,
    column: u32,
    equals: Option<usize>,
) -> Result<(), WorldError> {
    let value = Value { raw, line, column };
    if items.len() > limits::LIST {
        return Err(value.fault("too many words on one line", "make it two lines"));
    }
    items.push((value, equals));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_word_its_names_and_its_keys_each_with_its_place() {
        let line = line("host \"a b\"  up on=x,\"y,z\" # rest", 7)
            .unwrap()
            .unwrap();
        assert_eq!(line.word.raw, "host");
        assert_eq!(line.bare[0].name().unwrap(), "a b");
        assert_eq!((line.bare[1].raw, line.bare[1].column), ("up", 13));
        let list = line.keys[0].1.list().unwrap();
        assert_eq!(list[1].name().unwrap(), "y,z");
        assert_eq!((list[1].line, list[1].column), (7, 21));
    }

    #[test]
    fn nothing_and_comments_are_no_line() {
        for text in ["", "  \t", "# host a", "   # x"] {
            assert_eq!(line(text, 1), Ok(None));
        }
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        for (text, column) in [
            ("host \"a", 6),
            ("host a b=1 b=2", 12),
            ("host a b=", 10),
            ("a=b", 1),
            ("host \u{7}", 6),
        ] {
            match line(text, 3) {
                Err(WorldError::Text {
                    line: 3, column: c, ..
                }) => assert_eq!(c, column, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_name_in_quotes_is_any_text() {
        for name in ["a b", "a\"b", "a\\b", "a,b", "é", "ask=me", "#"] {
            let text = format!("host {}", quoted(name));
            let line = line(&text, 1).unwrap().unwrap();
            assert_eq!(line.bare[0].name().unwrap(), name);
        }
    }
}

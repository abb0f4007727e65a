//! Reading a line: where names and options end, and what their quoting stands for.

use super::{
    At, BLOCK, DEVICES_MAX, DeviceText, Name, OptionText, Parsed, RootLine, Wrong, inside_brackets,
    is_place, key_of, scheme_bytes,
};

pub(super) fn line(text: &str) -> Parsed<RootLine> {
    if let Some((at, character)) = text
        .char_indices()
        .find(|(_, character)| !character.is_ascii_graphic() || *character == '"')
    {
        let mut utf8 = [0; 4];
        let escaped: String = character
            .encode_utf8(&mut utf8)
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        return Err(Wrong::new(
            at,
            format!("a command line cannot carry {character:?}: write {escaped}"),
        ));
    }
    let mut lexer = Lexer { text, at: 0 };
    let mut devices = Vec::new();
    while !lexer.rest().is_empty() {
        if devices.len() == DEVICES_MAX {
            let message = format!("more than {DEVICES_MAX} devices");
            return Err(Wrong::new(lexer.at, message));
        }
        devices.push(lexer.device()?);
        if !lexer.take(';') && !lexer.rest().is_empty() {
            return Err(lexer.wrong("expected `:` and an option, `;` and a device, or the end"));
        }
    }
    match devices.is_empty() {
        true => Err(Wrong::new(
            0,
            "no device: write one, such as /dev/vda or nfs:10.0.0.1:/",
        )),
        false => Ok(RootLine { devices }),
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, message: impl Into<String>) -> Wrong {
        Wrong::new(self.at, message)
    }

    fn take(&mut self, character: char) -> bool {
        let found = self.rest().starts_with(character);
        self.at += usize::from(found);
        found
    }

    fn device(&mut self) -> Parsed<DeviceText> {
        if self.rest().starts_with(';') {
            return Err(self.wrong("a device is missing before this `;`"));
        }
        let mut options = Vec::new();
        let chain = match is_place(self.rest()) {
            true => {
                let name = Name {
                    text: BLOCK.to_owned(),
                    at: At(self.at),
                };
                options.push(self.option()?);
                vec![name]
            }
            false => self.chain()?,
        };
        while self.take(':') {
            options.push(self.option()?);
        }
        Ok(DeviceText { chain, options })
    }

    fn chain(&mut self) -> Parsed<Vec<Name>> {
        let mut chain = Vec::new();
        loop {
            chain.push(self.name()?);
            if !self.take('+') {
                return Ok(chain);
            }
        }
    }

    fn name(&mut self) -> Parsed<Name> {
        let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let length = self
            .rest()
            .bytes()
            .take_while(|byte| is_first(*byte) || b"_-".contains(byte))
            .count();
        let text = &self.rest()[..length];
        if !text.bytes().next().is_some_and(is_first) {
            return Err(self.wrong(
                "expected the name of a loader (lower-case letters and digits), or a device that begins with `/`, UUID= or LABEL=",
            ));
        }
        let name = Name {
            text: text.to_owned(),
            at: At(self.at),
        };
        self.at += length;
        Ok(name)
    }

    fn option(&mut self) -> Parsed<OptionText> {
        let at = At(self.at);
        let raw_end = self
            .rest()
            .find([':', ';', '['])
            .unwrap_or(self.rest().len());
        let key = key_of(&self.rest()[..raw_end]).map(|(key, value)| {
            self.at += value;
            key.to_owned()
        });
        let value = self.value()?;
        if key.is_none() && self.at == at.0 {
            return Err(self.wrong("an option is missing here (write [] for one that is empty)"));
        }
        Ok(OptionText { key, value, at })
    }

    fn value(&mut self) -> Parsed<String> {
        let start = self.at;
        self.at += value_bytes(self.rest()).map_err(|wrong| shifted(wrong, start))?;
        let raw = &self.text[start..self.at];
        let (inside, offset) = match inside_brackets(raw) {
            Some(inside) => (inside, start + 1),
            None => (raw, start),
        };
        if scheme_bytes(inside).is_some() {
            return Ok(inside.to_owned());
        }
        unescaped(inside).map_err(|wrong| shifted(wrong, offset))
    }
}

fn shifted(wrong: Wrong, by: usize) -> Wrong {
    Wrong {
        at: wrong.at + by,
        ..wrong
    }
}

/// How many bytes of the text are the value that it begins with, brackets and all.
pub(super) fn value_bytes(text: &str) -> Parsed<usize> {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    let mut at = scheme_bytes(text).unwrap_or(0);
    // Of the part of a URL that names the server, at most one port.
    let mut port_may_come = at > 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' => open.push(at),
            b']' if open.pop().is_none() => {
                return Err(Wrong::new(
                    at,
                    "`]` without its `[`: write %5D for a single one",
                ));
            }
            b':' if open.is_empty() => {
                let port = port_may_come.then(|| port_bytes(&text[at..])).flatten();
                port_may_come = false;
                match port {
                    Some(port) => at += port - 1,
                    None => break,
                }
            }
            b';' if open.is_empty() => break,
            b'/' | b'?' | b'#' if open.is_empty() => port_may_come = false,
            _ => {}
        }
        at += 1;
    }
    match open.first() {
        Some(at) => Err(Wrong::new(
            *at,
            "`[` without its `]`: write %5B for a single one",
        )),
        None => Ok(at),
    }
}

/// The bytes of `:PORT`, if that is what the text begins with.
fn port_bytes(text: &str) -> Option<usize> {
    let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count();
    let ends = matches!(
        text.as_bytes().get(1 + digits),
        None | Some(b'/' | b':' | b';' | b'?' | b'#')
    );
    ((1..=5).contains(&digits) && ends).then_some(1 + digits)
}

/// The text that `%HH` stand for; a `%` at its end stands for itself.
pub(crate) fn unescaped(text: &str) -> Parsed<String> {
    let bytes = text.as_bytes();
    let mut value = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let mut first_escape = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte != b'%' || at + 1 == bytes.len() {
            value.push(*byte);
            at += 1;
            continue;
        }
        let digit = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err(Wrong::new(
                at,
                "`%` without two hexadecimal digits: write %25 for the character itself",
            ));
        };
        let escaped = (high << 4 | low) as u8;
        if escaped.is_ascii_control() {
            return Err(Wrong::new(at, "a control character names nothing"));
        }
        if !escaped.is_ascii() && first_escape == 0 {
            first_escape = at;
        }
        value.push(escaped);
        at += 3;
    }
    let value = String::from_utf8(value)
        .map_err(|_| Wrong::new(first_escape, "these escapes are not UTF-8 together"))?;
    match value.chars().any(char::is_control) {
        true => Err(Wrong::new(
            first_escape,
            "a control character names nothing",
        )),
        false => Ok(value),
    }
}

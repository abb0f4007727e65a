//! What a program printed, as part of one line of ours.

/// Of what was printed, this much is shown.
const SHOWN_CHARS: usize = 1000;

/// The last lines, joined by `; `, without anything that would move a terminal's cursor.
pub(crate) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.chars()
                .map(|character| {
                    if character.is_control() {
                        ' '
                    } else {
                        character
                    }
                })
                .collect::<String>()
        })
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let joined = lines.join("; ");
    let count = joined.chars().count();
    if count <= SHOWN_CHARS {
        return joined;
    }
    let last: String = joined.chars().skip(count - SHOWN_CHARS).collect();
    format!("…{last}")
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(
            one_line(b"\n a\tb\n\x1b[31mred\r\n\n\xff"),
            "a b; [31mred; \u{fffd}"
        );
        let long = one_line("é".repeat(5000).as_bytes());
        assert_eq!(long.chars().count(), SHOWN_CHARS + 1);
        assert!(long.starts_with('…'));
    }
}

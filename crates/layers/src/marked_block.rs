//! One block in a file that belongs to somebody else, between two lines that name its owner:
//!
//! ```text
//! # estive begin first-herd
//! 10.77.0.148 clone01
//! # estive end first-herd
//! ```
//!
//! Whatever stands outside is kept byte for byte.

const BEGIN: &[u8] = b"# estive begin ";
const END: &[u8] = b"# estive end ";

/// Why a file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BlockError {
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

/// Puts the block of this name into the text: in place of the one that is there, else at the end.
/// `body` is whole lines. A last line without its newline gets one, so that the block begins a line.
pub fn put_block(text: &[u8], name: &str, body: &str) -> Result<Vec<u8>, BlockError> {
    let mut block = [BEGIN, name.as_bytes(), b"\n", body.as_bytes()].concat();
    if !body.is_empty() && !body.ends_with('\n') {
        block.push(b'\n');
    }
    block.extend([END, name.as_bytes(), b"\n"].concat());
    Ok(match find(text, name)? {
        Some((start, end)) => [&text[..start], &block, &text[end..]].concat(),
        None if text.is_empty() || text.ends_with(b"\n") => [text, &block].concat(),
        None => [text, b"\n", &block].concat(),
    })
}

/// Takes the block of this name away, if there is one.
pub fn remove_block(text: &[u8], name: &str) -> Result<Vec<u8>, BlockError> {
    Ok(match find(text, name)? {
        Some((start, end)) => [&text[..start], &text[end..]].concat(),
        None => text.to_vec(),
    })
}

/// Where the block begins and ends, its two lines included.
fn find(text: &[u8], name: &str) -> Result<Option<(usize, usize)>, BlockError> {
    let wrong = |line, what: String| Err(BlockError { line, what });
    let mut open: Option<(usize, usize)> = None;
    let mut found = None;
    let mut start = 0;
    for (index, bytes) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (line, end) = (index + 1, start + bytes.len());
        let bytes = bytes.trim_ascii_end();
        let begins = bytes.strip_prefix(BEGIN);
        let ends = bytes.strip_prefix(END);
        let ours = begins.or(ends) == Some(name.as_bytes());
        match (open, begins.is_some()) {
            _ if begins.is_none() && ends.is_none() => {}
            (Some((first, _)), true) => {
                return wrong(
                    line,
                    format!("a block begins within that of {name}, which begins in line {first}"),
                );
            }
            (Some((first, _)), false) if !ours => {
                return wrong(
                    line,
                    format!(
                        "another block ends within that of {name}, which begins in line {first}"
                    ),
                );
            }
            (Some((_, from)), false) => {
                found = Some((from, end));
                open = None;
            }
            (None, _) if !ours => {}
            (None, _) if found.is_some() => {
                return wrong(line, format!("there is a block of {name} above already"));
            }
            (None, true) => open = Some((line, start)),
            (None, false) => {
                return wrong(line, format!("the block of {name} ends and never began"));
            }
        }
        start = end;
    }
    match open {
        Some((line, _)) => wrong(line, format!("the block of {name} begins and never ends")),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(text: &str, name: &str, body: &str) -> String {
        String::from_utf8(put_block(text.as_bytes(), name, body).unwrap()).unwrap()
    }

    #[test]
    fn a_block_is_put_changed_in_place_and_taken_away() {
        let one = put("127.0.0.1 localhost", "h", "10.0.0.1\ta\n");
        assert_eq!(
            one,
            "127.0.0.1 localhost\n# estive begin h\n10.0.0.1\ta\n# estive end h\n"
        );
        let two = put(&format!("{one}# mine\n"), "h", "10.0.0.2\tb");
        assert_eq!(
            two,
            "127.0.0.1 localhost\n# estive begin h\n10.0.0.2\tb\n# estive end h\n# mine\n"
        );
        let gone = remove_block(two.as_bytes(), "h").unwrap();
        assert_eq!(gone, b"127.0.0.1 localhost\n# mine\n");
        assert_eq!(put("", "h", ""), "# estive begin h\n# estive end h\n");
        // A name that begins like ours is not ours; a file with the other line ends is read.
        let other = "# estive begin h2\r\nx\r\n# estive end h2\r\n";
        assert_eq!(
            put(other, "h", ""),
            format!("{other}# estive begin h\n# estive end h\n")
        );
        assert_eq!(remove_block(other.as_bytes(), "h2").unwrap(), b"");
    }

    #[test]
    fn a_broken_pair_is_refused_with_its_line() {
        for (text, expected) in [
            (
                "a\n# estive begin h\nb\n",
                "line 2: the block of h begins and never ends",
            ),
            (
                "a\nb\n# estive end h",
                "line 3: the block of h ends and never began",
            ),
            (
                "# estive end h\n# estive begin h\n",
                "line 1: the block of h ends and never began",
            ),
            (
                "# estive begin h\n# estive begin h\n# estive end h\n",
                "line 2: a block begins within that of h, which begins in line 1",
            ),
            (
                "# estive begin h\n# estive begin x\n# estive end h\n",
                "line 2: a block begins within that of h, which begins in line 1",
            ),
            (
                "# estive begin h\n# estive end x\n# estive end h\n",
                "line 2: another block ends within that of h, which begins in line 1",
            ),
            (
                "# estive begin h\n# estive end h\n\n# estive begin h\n# estive end h\n",
                "line 4: there is a block of h above already",
            ),
            (
                "# estive begin h\n# estive end h\n# estive end h\n",
                "line 3: there is a block of h above already",
            ),
        ] {
            let refused = put_block(text.as_bytes(), "h", "x\n").unwrap_err();
            assert_eq!(refused.to_string(), expected, "{text}");
            assert_eq!(remove_block(text.as_bytes(), "h"), Err(refused), "{text}");
        }
    }

    /// Any bytes, some of them lines that look much like ours.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            Just(b"\n".to_vec()),
            Just(b"# estive begin hh\n".to_vec()),
            Just(b"# estive end hh\n".to_vec()),
            Just(b"#estive begin h\n".to_vec()),
            Just(b"\r\n \n".to_vec()),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn whole_lines(mut text: Vec<u8>) -> Vec<u8> {
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text
    }

    proptest! {
        #[test]
        fn what_stands_outside_is_kept(before in text(), after in text(), body in "([a-z .]{0,9}\n){0,3}") {
            let before = whole_lines(before);
            let with = |body: &str| {
                let block = put_block(b"", "h", body).unwrap();
                [&before[..], &block, &after].concat()
            };
            prop_assert_eq!(put_block(&with("old\n"), "h", &body).unwrap(), with(&body));
            prop_assert_eq!(put_block(&with(&body), "h", &body).unwrap(), with(&body));
            prop_assert_eq!(remove_block(&with(&body), "h").unwrap(), [&before[..], &after].concat());
        }

        #[test]
        fn what_was_put_can_be_taken_away(before in text(), body in "([a-z .]{0,9}\n){0,3}") {
            let put = put_block(&before, "h", &body).unwrap();
            prop_assert_eq!(remove_block(&put, "h").unwrap(), whole_lines(before));
        }

        #[test]
        fn blocks_of_two_names_do_not_meet(before in text()) {
            let before = whole_lines(before);
            let both = put_block(&put_block(&before, "h", "1\n").unwrap(), "g", "2\n").unwrap();
            let one = remove_block(&both, "h").unwrap();
            prop_assert_eq!(one, put_block(&before, "g", "2\n").unwrap());
        }
    }
}

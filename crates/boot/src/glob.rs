//! Patterns of `modules.alias`: as fnmatch(3) takes them, which is what kmod asks.

/// Whether the whole of `text` is as `pattern` says: `*`, `?`, `[set]`, `[!set]` with ranges, and `\` before what is
/// meant as it stands. `-` and `_` are the same outside of a set, as in names of modules. A `[` that nothing closes
/// stands for itself.
///
/// Takes at most the product of both lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where to go on when what follows the last star does not fit: behind the star, and one byte further in the text.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        let fits = match text.get(read) {
            Some(&byte) => step(&pattern[at..], byte),
            None if at == pattern.len() => return true,
            // What is left of the pattern wants more than there is, and a longer star leaves still less.
            None => return false,
        };
        match (fits, star) {
            (Some(length), _) => {
                at += length;
                read += 1;
            }
            (None, Some((behind, from))) => {
                at = behind;
                read = from + 1;
                star = Some((behind, read));
            }
            (None, None) => return false,
        }
    }
}

/// How long the first part of the pattern is, if it takes this byte.
fn step(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match set(pattern, byte) {
            Some((length, takes)) => takes.then_some(length),
            None => (byte == b'[').then_some(1),
        },
        b'\\' if pattern.len() > 1 => (same(pattern[1], byte)).then_some(2),
        own => same(own, byte).then_some(1),
    }
}

/// The length of the set that begins here and whether it takes this byte; `None` when nothing closes it.
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = 1 + usize::from(negated);
    let mut at = first;
    let mut takes = false;
    loop {
        let mut low = *pattern.get(at)?;
        // A bracket that comes first is one of the set.
        if low == b']' && at > first {
            return Some((at + 1, takes != negated));
        }
        if low == b'\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        at += 1;
        match (pattern.get(at), pattern.get(at + 1)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                takes |= (low..=high).contains(&byte);
                at += 2;
            }
            _ => takes |= low == byte,
        }
    }
}

fn same(one: u8, other: u8) -> bool {
    let plain = |byte| if byte == b'-' { b'_' } else { byte };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_devices_are_taken() {
        for (pattern, text) in [
            (
                "pci:v00008086d0000100Esv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
            ),
            (
                "usb:v0525pA4A5d031[0-9]*dc*dsc*dp*ic*isc*ip*in*",
                "usb:v0525pA4A5d0314dc00dsc00dp00ic08isc06ip50in00",
            ),
            ("scsi:t-0x00*", "scsi:t-0x00"),
            ("platform:a-b", "platform:a_b"),
            ("*", ""),
            ("a[", "a["),
            (r"a\*", "a*"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("scsi:t-0x00*", "scsi:t-0x05"),
            ("usb:d031[!0-9]", "usb:d0315"),
            (r"a\*", "ab"),
            ("", "a"),
            ("a*b", "ac"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_end() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1999)));
    }

    /// Parts of patterns that every fnmatch(3) takes alike.
    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[ab:0]",
            2 => Just("*".to_owned()),
            1 => Just("?".to_owned()),
            1 => "\\[!?[ab:0-3]{1,3}\\]",
            1 => Just("[a-b]".to_owned()),
            1 => Just("[!0-2]".to_owned()),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn it_is_what_fnmatch_says(pattern in pattern(), text in "[ab:0-3]{0,8}") {
            let c = |text: &str| std::ffi::CString::new(text).unwrap();
            let (c_pattern, c_text) = (c(&pattern), c(&text));
            // SAFETY: both are C strings that live until after the call.
            let said = unsafe { libc::fnmatch(c_pattern.as_ptr(), c_text.as_ptr(), 0) };
            prop_assert_eq!(matches(&pattern, &text), said == 0);
        }

        #[test]
        fn a_name_is_its_own_pattern(text in "[a-z0-9:_-]{0,30}") {
            prop_assert!(matches(&text, &text));
            let (begins, ends) = (format!("{text}*"), format!("*{text}"));
            prop_assert!(matches(&begins, &text) && matches(&ends, &text));
        }

        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]!^\\\\-]{0,30}", text in "[a*\\[\\]-]{0,30}") {
            let _ = matches(&pattern, &text);
        }
    }
}

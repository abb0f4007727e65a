//! Host ranges: `clone[01-04]` stands for clone01 to clone04, `r[1-2]n[1,3-5]` for eight hosts.

use crate::problem::shown;

/// No herd file names more clones than this.
pub(crate) const MAX_CLONES: usize = 16_384;

/// No longer name is a host's; what a range would make is refused before it is made.
const MAX_NAME_BYTES: usize = 63;

/// The names a key of `hosts:` stands for, in order. Without brackets: the key itself.
/// The width of a range's first number is kept (`01`, `02`).
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    if pattern.chars().any(char::is_control) {
        return Err(format!("{} is no name for a host", shown(pattern)));
    }
    let too_long = |length: usize| match length > MAX_NAME_BYTES {
        true => Err(format!(
            "{} makes names of more than {MAX_NAME_BYTES} characters, which no host has",
            shown(pattern)
        )),
        false => Ok(()),
    };
    let mut names = vec![String::new()];
    let mut longest = 0;
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, tail) = after
            .split_once(']')
            .ok_or_else(|| "a '[' without its ']'; a range is written clone[01-04]".to_owned())?;
        let numbers = numbers(inside)?;
        if names.len().saturating_mul(numbers.len()) > MAX_CLONES {
            return Err(too_many());
        }
        longest += before.len() + numbers.iter().map(String::len).max().unwrap_or(0);
        too_long(longest)?;
        names = names
            .iter()
            .flat_map(|name| {
                numbers
                    .iter()
                    .map(move |number| format!("{name}{before}{number}"))
            })
            .collect();
        rest = tail;
    }
    if rest.contains(']') {
        return Err("a ']' without its '['; a range is written clone[01-04]".to_owned());
    }
    if longest > 0 {
        too_long(longest + rest.len())?;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

pub(crate) fn too_many() -> String {
    format!("more than {MAX_CLONES} hosts, which is the limit of one herd file")
}

fn numbers(inside: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for part in inside.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (number(first)?, number(last)?);
        if high < low {
            return Err(format!("the range {part} runs backwards"));
        }
        if (high - low) as usize >= MAX_CLONES || all.len() >= MAX_CLONES {
            return Err(too_many());
        }
        let width = first.trim().len();
        all.extend((low..=high).map(|value| format!("{value:0width$}")));
    }
    Ok(all)
}

fn number(text: &str) -> Result<u32, String> {
    let digits = text.trim();
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!(
            "{} in a range is no number; a range is written clone[01-04]",
            shown(digits)
        ));
    }
    digits.parse().map_err(|_| format!("{digits} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_expand_and_keep_their_width() {
        assert_eq!(expand("web").unwrap(), ["web"]);
        assert_eq!(expand("c[08-10]").unwrap(), ["c08", "c09", "c10"]);
        assert_eq!(
            expand("r[1-2]n[1,3-4]x").unwrap(),
            ["r1n1x", "r1n3x", "r1n4x", "r2n1x", "r2n3x", "r2n4x"]
        );
    }

    #[test]
    fn names_that_no_host_has_are_refused_before_they_take_memory() {
        let long = "a".repeat(900_000);
        for bad in [
            format!("{long}[1-16384]"),
            format!("c[1-16384]{long}"),
            format!("[0-1]{}", "[0]".repeat(300_000)),
        ] {
            let refused = expand(&bad).unwrap_err();
            assert!(refused.contains("more than 63 characters"), "{refused}");
        }
        let fits = format!("{}[08-10]", "a".repeat(61));
        assert_eq!(expand(&fits).unwrap()[2].len(), 63);
    }

    #[test]
    fn bad_ranges_are_refused_before_they_take_memory() {
        for bad in [
            "c[",
            "c]",
            "c[]",
            "c[a-b]",
            "c[2-1]",
            "c[0-999999999]",
            "c[-5]",
            "c[0-9999][0-9999]",
            "c[1-99999999999]",
            "c[1\n-2]",
        ] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }
}

//! The kernel command line of a clone: the same for all, so that warm templates can be shared.

use crate::{Error, Result};

/// The word that names the program to run in the union, in place of the usual ones.
pub const INIT_WORD: &str = "estive.init";

/// What every clone has. The kernel's tests of its own software ciphers take a tenth of the time to `init` under
/// emulation and say nothing about a clone that the reference's boot did not (Kata Containers leaves them out too).
const COMMON: &str = "console=ttyS0 quiet net.ifnames=0 cryptomgr.notests";

/// COMMAND_LINE_SIZE of the kernel on x86, without its NUL.
const BYTES_MAX: usize = 2047;

/// The command line: the words every clone has, then `estive.init=` if `init` is given, then the
/// words of the user. Fails on a word that the kernel would split or misread.
pub fn command_line<'a>(
    init: Option<&str>,
    extra: impl IntoIterator<Item = &'a str>,
) -> Result<String> {
    let mut line = String::from(COMMON);
    if let Some(init) = init {
        if !init.starts_with('/') {
            return Err(Error::CommandLine {
                word: init.to_owned(),
                reason: "the program to run as init must be an absolute path",
            });
        }
        append(&mut line, &format!("{INIT_WORD}={init}"))?;
    }
    for word in extra {
        append(&mut line, word)?;
    }
    Ok(line)
}

/// The value of `name=value` in a command line; the last one counts, as for the kernel itself.
pub fn word_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .next_back()
}

/// Words with one space between them, each as the kernel reads it.
#[cfg(feature = "builder")]
pub(crate) fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut line = String::new();
    for word in words {
        append(&mut line, word)?;
    }
    Ok(line)
}

pub(crate) fn refuse<T>(word: &str, reason: &'static str) -> Result<T> {
    Err(Error::CommandLine {
        word: word.to_owned(),
        reason,
    })
}

fn append(line: &mut String, word: &str) -> Result<()> {
    let refuse = |reason| refuse(word, reason);
    if word.is_empty() {
        return refuse("it is empty");
    }
    if !word
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"')
    {
        return refuse("it has a space, a quote or a character that is not plain ASCII");
    }
    if word == "--" {
        return refuse("it would end the kernel's own words");
    }
    if line.len() + 1 + word.len() > BYTES_MAX {
        return refuse("the line would be longer than the kernel's 2047 bytes");
    }
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(word);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_and_found_again() {
        let line = command_line(Some("/bin/first"), ["debug", "estive.x=1"]).unwrap();
        assert_eq!(
            line,
            "console=ttyS0 quiet net.ifnames=0 cryptomgr.notests estive.init=/bin/first debug estive.x=1"
        );
        assert_eq!(word_of(&line, INIT_WORD), Some("/bin/first"));
        assert_eq!(word_of(&line, "estive"), None);
        assert_eq!(word_of("a=1 a=2", "a"), Some("2"));
    }

    #[test]
    fn a_word_cannot_become_two() {
        for bad in ["a b", "a\tb", "a\"b", "", "--", "ü", "a\n"] {
            assert!(command_line(None, [bad]).is_err(), "{bad:?}");
        }
        assert!(command_line(Some("sbin/init"), []).is_err());
        assert!(command_line(None, ["x".repeat(2048).as_str()]).is_err());
    }
}

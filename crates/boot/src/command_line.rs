//! The kernel command line of a clone: the same for all, so that warm templates can be shared. And
//! what PID 1 of the early userspace reads from any.

use crate::ip_line::{IP_WORD, IpLine};
use crate::loaders::Root;
use crate::root_line::Problem;
use crate::shared_line::{SHARED_MAX, SHARED_WORD, SharedDirectory};
use crate::unpack_line::{UNPACK_WORD, UnpackLine};
use crate::{Error, Result};

/// The word that names the program to run in the union, in place of the usual ones.
pub const INIT_WORD: &str = "estive.init";
/// Likewise, as every kernel has it; the other one counts if both are there.
const PLAIN_INIT_WORD: &str = "init";
/// The devices that make up the root.
pub const ROOT_WORD: &str = "root";
/// How long devices are waited for.
pub const WAIT_WORD: &str = "estive.wait";
/// What a top device lies over: see [`OVER_ANY`].
pub const OVER_WORD: &str = "estive.over";
/// What was written on the top device may lie over other layers than those it was made over.
pub const OVER_ANY: &str = "any";
/// A physical disk may take that long to come up; what is there is taken at once.
const WAIT_S: u32 = 30;
const WAIT_S_MAX: u32 = 3600;

/// What every clone has. The kernel's tests of its own software ciphers take a tenth of the time to `init` under
/// emulation and say nothing about a clone that the reference's boot did not (Kata Containers leaves them out too).
/// Under emulation on a machine that has no time for it, the kernel's test of its timer fails, and the kernel panics ("IO-APIC +
/// timer doesn't work", seen); under KVM the kernel leaves that test out by itself.
const COMMON: &str = "console=ttyS0 quiet net.ifnames=0 cryptomgr.notests no_timer_check";

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

/// What PID 1 is told on the command line, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
    /// The devices of the root; `None` for a clone's usual ones.
    pub root: Option<Root>,
    /// How the network is set.
    pub ip: Option<IpLine>,
    /// The program to run in the root, absolute.
    pub init: Option<String>,
    /// How long a device is waited for, in seconds.
    pub wait_s: u32,
    /// Archives of the root that are unpacked over it.
    pub unpack: Option<UnpackLine>,
    /// Directories of servers, mounted over the root.
    pub shared: Vec<SharedDirectory>,
    /// Whether what was written may lie over other layers than those it was made over.
    pub over_any: bool,
}

impl CommandLine {
    /// From the text of `/proc/cmdline`.
    pub fn parse(text: &str) -> std::result::Result<CommandLine, CommandLineError> {
        let init = word_of(text, INIT_WORD).or_else(|| word_of(text, PLAIN_INIT_WORD));
        let refuse = |word: &str, value: &str, reason| CommandLineError::Word {
            word: format!("{word}={value}"),
            reason,
        };
        if let Some(init) = init
            && !init.starts_with('/')
        {
            return Err(refuse(
                INIT_WORD,
                init,
                "the program to run as init must be an absolute path",
            ));
        }
        let wait_s = match word_of(text, WAIT_WORD) {
            Some(wait) => match wait.parse() {
                Ok(wait_s) if wait_s <= WAIT_S_MAX => wait_s,
                _ => {
                    return Err(refuse(
                        WAIT_WORD,
                        wait,
                        "it is a number of seconds, at most 3600",
                    ));
                }
            },
            None => WAIT_S,
        };
        let over_any = match word_of(text, OVER_WORD) {
            None => false,
            Some(OVER_ANY) => true,
            Some(other) => {
                return Err(refuse(OVER_WORD, other, "it can only be estive.over=any"));
            }
        };
        let shared = words_of(text, SHARED_WORD).map(SharedDirectory::parse);
        let shared: Vec<SharedDirectory> = shared
            .take(SHARED_MAX + 1)
            .collect::<std::result::Result<_, _>>()
            .map_err(CommandLineError::Shared)?;
        if shared.len() > SHARED_MAX {
            return Err(CommandLineError::Shared(format!(
                "more than {SHARED_MAX} directories"
            )));
        }
        Ok(CommandLine {
            shared,
            text: text.to_owned(),
            over_any,
            root: word_of(text, ROOT_WORD)
                .map(Root::parse)
                .transpose()
                .map_err(CommandLineError::Root)?,
            ip: word_of(text, IP_WORD)
                .map(IpLine::parse)
                .transpose()
                .map_err(CommandLineError::Ip)?,
            init: init.map(str::to_owned),
            wait_s,
            unpack: word_of(text, UNPACK_WORD)
                .map(UnpackLine::parse)
                .transpose()
                .map_err(CommandLineError::Unpack)?,
        })
    }

    /// The value of `name=value`.
    pub fn word(&self, name: &str) -> Option<&str> {
        word_of(&self.text, name)
    }

    /// Whether the word stands there alone.
    pub fn has(&self, word: &str) -> bool {
        self.text
            .split_ascii_whitespace()
            .any(|found| found == word)
    }
}

/// Why a command line cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    #[error("{word} on the command line: {reason}")]
    Word { word: String, reason: &'static str },
    #[error("{ROOT_WORD}= on the command line: {0}")]
    Root(Problem),
    #[error("{IP_WORD}= on the command line: {0}")]
    Ip(Problem),
    #[error("{UNPACK_WORD}= on the command line: {0}")]
    Unpack(Problem),
    #[error("{SHARED_WORD}= on the command line: {0}")]
    Shared(String),
}

impl CommandLineError {
    /// The word whose value is wrong at one of its characters, and where.
    pub fn pointed(&self) -> Option<(&'static str, &Problem)> {
        match self {
            CommandLineError::Word { .. } | CommandLineError::Shared(_) => None,
            CommandLineError::Root(problem) => Some((ROOT_WORD, problem)),
            CommandLineError::Ip(problem) => Some((IP_WORD, problem)),
            CommandLineError::Unpack(problem) => Some((UNPACK_WORD, problem)),
        }
    }
}

/// The value of `name=value` in a command line; the last one counts, as for the kernel itself.
pub fn word_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    words_of(line, name).next_back()
}

fn words_of<'a>(line: &'a str, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    line.split_ascii_whitespace()
        .filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
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
            "console=ttyS0 quiet net.ifnames=0 cryptomgr.notests no_timer_check estive.init=/bin/first debug estive.x=1"
        );
        assert_eq!(word_of(&line, INIT_WORD), Some("/bin/first"));
        assert_eq!(word_of(&line, "estive"), None);
        assert_eq!(word_of("a=1 a=2", "a"), Some("2"));
    }

    #[test]
    fn what_pid_1_is_told_is_read() {
        let read = |text: &str| CommandLine::parse(text).map_err(|error| error.to_string());
        let none = read("quiet estive.init=/bin/x init=/bin/y rescue a=1").unwrap();
        assert_eq!((none.root.is_none(), none.wait_s), (true, 30));
        assert_eq!(none.init.as_deref(), Some("/bin/x"));
        assert_eq!((none.word("a"), none.has("rescue")), (Some("1"), true));
        let line = read("root=/dev/vda;tmpfs estive.wait=2 init=/bin/y").unwrap();
        assert_eq!(line.root.unwrap().devices.len(), 2);
        assert_eq!((line.init.as_deref(), line.wait_s), (Some("/bin/y"), 2));
        let shared = read("estive.shared=/a=nfs:s:/b estive.shared=/c=nfs:s:/d:ro")
            .unwrap()
            .shared;
        assert_eq!(shared.len(), 2);
        assert!(!line.over_any && read("estive.over=any").unwrap().over_any);
        for (text, words) in [
            ("root=", "no device"),
            ("root=nfs:a:/b;nsf:x", "character 10"),
            ("ip=10.0.0.2", "netmask"),
            ("init=bin/y", "absolute"),
            ("estive.wait=soon", "number of seconds"),
            ("estive.wait=9999", "at most 3600"),
            ("estive.shared=/a", "write /PLACE="),
            ("estive.over=all", "only be estive.over=any"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
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

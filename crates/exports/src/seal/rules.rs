//! What of a root a clone must not see: the rules that come with Estive, those of this machine (mounts, swap), and those
//! that are asked for. What is asked wins over what comes along, and keeping over leaving out.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::builtin;
use super::mounts::{mounts, swap_files};
use super::pattern::{Match, Pattern};
use crate::ExportError;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a rule does with what its pattern means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    LeaveOut,
    /// The file stays, with nothing in it.
    Empty,
    Keep,
}

/// A rule that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub action: Action,
    /// As `docs/references.md` tells; names that are not UTF-8 cannot be asked for.
    pub pattern: String,
}

/// How much a rule counts, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    BuiltIn,
    Asked,
    /// Nobody can ask for it: the kernel's own file systems, the images themselves.
    Forced,
}

/// One rule as it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub action: Action,
    /// What it was written as.
    pub pattern: String,
    pub reason: String,
    weight: Weight,
}

/// What becomes of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stays,
    /// By the rule of this number.
    LeftOut(usize),
    Emptied(usize),
    /// A directory that would be left out, and that something which is kept lies below.
    Passage,
}

#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    patterns: Vec<(Pattern, usize)>,
    /// Patterns by the plain name they begin with, and those that begin with any.
    by_first: HashMap<Vec<u8>, Vec<usize>>,
    anywhere: Vec<usize>,
    /// Paths below the root where other volumes are.
    mounts: HashSet<Vec<u8>>,
}

impl Rules {
    /// The rules for sealing `root`, with directories `outside` it, of images and of what else is no part of it; all
    /// canonical.
    ///
    /// # Errors
    /// A pattern of `asked` that is none, by its text.
    pub(crate) fn new(
        root: &Path,
        outside: &[PathBuf],
        asked: &[Asked],
    ) -> Result<Self, ExportError> {
        let mut rules = Self {
            rules: Vec::new(),
            patterns: Vec::new(),
            by_first: HashMap::new(),
            anywhere: Vec::new(),
            mounts: HashSet::new(),
        };
        let lists = [
            (Action::LeaveOut, builtin::LEFT_OUT),
            (Action::Empty, builtin::EMPTIED),
            (Action::Keep, builtin::KEPT),
        ];
        for (action, list) in lists {
            for (pattern, reason) in list {
                rules.add(action, pattern, reason, Weight::BuiltIn)?;
            }
        }
        if root == Path::new("/") {
            for (pattern, reason) in builtin::RUNNING {
                rules.add(Action::LeaveOut, pattern, reason, Weight::BuiltIn)?;
            }
            // Absent without swap support: then there is no swap file to leave out either.
            let swaps = fs::read("/proc/swaps").unwrap_or_default();
            for file in swap_files(&swaps) {
                rules.add_place(root, &file, false, "swap", Weight::Forced);
            }
        }
        for place in outside {
            rules.add_place(root, place, true, "no part of the root", Weight::Forced);
        }
        rules.add_mounts(root)?;
        for rule in asked {
            rules.add(rule.action, &rule.pattern, "asked for", Weight::Asked)?;
        }
        Ok(rules)
    }

    fn add_mounts(&mut self, root: &Path) -> Result<(), ExportError> {
        let place = "/proc/self/mountinfo";
        let mountinfo =
            fs::read(place).map_err(ExportError::io("reading the mounts from", place))?;
        for mount in mounts(&mountinfo) {
            // A directory stays as the empty place to mount on; a file mounted over another (a container's
            // /etc/resolv.conf, a secret) belongs to this machine and goes whole.
            let inside = fs::symlink_metadata(&mount.place).is_ok_and(|meta| meta.is_dir());
            let reason = format!("another volume ({})", mount.file_system);
            let weight = if mount.of_the_kernel {
                Weight::Forced
            } else {
                Weight::BuiltIn
            };
            self.add_place(root, &mount.place, inside, &reason, weight);
            if let Ok(below) = mount.place.strip_prefix(root) {
                self.mounts.insert(below.as_os_str().as_bytes().to_vec());
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        action: Action,
        pattern: &str,
        reason: &str,
        weight: Weight,
    ) -> Result<(), ExportError> {
        let parsed = Pattern::parse(pattern.as_ref()).map_err(|what| ExportError::Pattern {
            pattern: pattern.to_owned(),
            what,
        })?;
        for one in parsed {
            self.push(one, self.rules.len());
        }
        self.rules.push(Rule {
            action,
            pattern: pattern.to_owned(),
            reason: reason.to_owned(),
            weight,
        });
        Ok(())
    }

    fn add_place(&mut self, root: &Path, place: &Path, inside: bool, reason: &str, weight: Weight) {
        let Ok(below) = place.strip_prefix(root) else {
            return;
        };
        if below.as_os_str().is_empty() {
            return;
        }
        let bytes = below.as_os_str().as_bytes();
        self.push(Pattern::literal(bytes, inside), self.rules.len());
        let end = if inside { "/" } else { "" };
        self.rules.push(Rule {
            action: Action::LeaveOut,
            pattern: format!("/{}{end}", below.display()),
            reason: reason.to_owned(),
            weight,
        });
    }

    fn push(&mut self, pattern: Pattern, rule: usize) {
        let index = self.patterns.len();
        match pattern.first() {
            Some(first) => self.by_first.entry(first.to_vec()).or_default().push(index),
            None => self.anywhere.push(index),
        }
        self.patterns.push((pattern, rule));
    }

    /// Whether what is at this path was asked to be kept, or may lie on the way to something that was: there, and only
    /// there, other volumes are entered.
    pub(crate) fn is_asked_for(&self, path: &[&[u8]]) -> bool {
        let asked = self.patterns.iter().rev();
        // Those that were asked for were added last.
        asked
            .take_while(|(_, rule)| self.rules[*rule].weight == Weight::Asked)
            .any(|(pattern, rule)| {
                self.rules[*rule].action == Action::Keep && pattern.matches(path, true) != Match::No
            })
    }

    /// Whether something is mounted on this path.
    pub(crate) fn is_mount(&self, path: &[u8]) -> bool {
        self.mounts.contains(path)
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What becomes of the path of these names below the root; not of the root itself.
    pub(crate) fn verdict(&self, path: &[&[u8]], is_directory: bool) -> Verdict {
        let first = path.first().copied().unwrap_or_default();
        let here = self.by_first.get(first).into_iter().flatten();
        let mut verdict = Verdict::Stays;
        let mut weight = None;
        let mut passage = false;
        for index in here.chain(&self.anywhere) {
            let (pattern, number) = &self.patterns[*index];
            let rule = &self.rules[*number];
            let meant = pattern.matches(path, is_directory);
            // A passage even where a stronger rule leaves out: what is below is judged by itself.
            passage |= rule.action == Action::Keep && is_directory && meant == Match::Below;
            if meant != Match::Yes || (rule.action == Action::Empty && is_directory) {
                continue;
            }
            let this = (rule.weight, rule.action == Action::Keep);
            if weight.is_none_or(|weight| this > weight) {
                weight = Some(this);
                verdict = match rule.action {
                    Action::LeaveOut => Verdict::LeftOut(*number),
                    Action::Empty => Verdict::Emptied(*number),
                    Action::Keep => Verdict::Stays,
                };
            }
        }
        let forced = weight.is_some_and(|(weight, _)| weight == Weight::Forced);
        match verdict {
            Verdict::LeftOut(_) if passage && !forced => Verdict::Passage,
            other => other,
        }
    }
}

/// Reads rules from a file: lines `leave-out PATTERN`, `empty PATTERN`, `keep PATTERN`; `#` begins a comment.
///
/// # Errors
/// The file cannot be read, or a line is none of these, by its number.
pub fn read_rules(path: &Path) -> Result<Vec<Asked>, ExportError> {
    let length = fs::metadata(path)
        .map_err(ExportError::io("reading the rules", path))?
        .len();
    let wrong = |line: usize, what: &str| ExportError::RuleLine {
        path: path.to_owned(),
        line,
        what: what.to_owned(),
    };
    if length > FILE_BYTES_MAX {
        return Err(wrong(1, "the file is larger than 1 MiB"));
    }
    let text = fs::read_to_string(path).map_err(ExportError::io("reading the rules", path))?;
    let mut rules = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, pattern) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let action = match word {
            "leave-out" => Action::LeaveOut,
            "empty" => Action::Empty,
            "keep" => Action::Keep,
            _ => {
                return Err(wrong(
                    number,
                    "write leave-out, empty or keep, and a pattern",
                ));
            }
        };
        let pattern = pattern.trim().to_owned();
        Pattern::parse(pattern.as_ref())
            .map_err(|what| wrong(number, &format!("the pattern {what}")))?;
        rules.push(Asked { action, pattern });
    }
    Ok(rules)
}

/// A path below the root, `/` between its names, as it is shown: from the root, with `/` before.
pub(crate) fn shown(path: &[u8]) -> String {
    PathBuf::from(OsString::from_vec([b"/", path].concat()))
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(root: &str, asked: &[(Action, &str)]) -> Rules {
        let asked: Vec<Asked> = asked
            .iter()
            .map(|(action, pattern)| Asked {
                action: *action,
                pattern: (*pattern).to_owned(),
            })
            .collect();
        Rules::new(Path::new(root), &[PathBuf::from("/srv/images")], &asked).unwrap()
    }

    fn verdict(rules: &Rules, path: &str, is_directory: bool) -> &'static str {
        let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        match rules.verdict(&names, is_directory) {
            Verdict::Stays => "stays",
            Verdict::LeftOut(_) => "out",
            Verdict::Emptied(_) => "emptied",
            Verdict::Passage => "passage",
        }
    }

    #[test]
    fn every_rule_that_comes_along_is_a_pattern() {
        let rules = rules("/", &[]);
        assert!(rules.rules().len() > 100);
        assert!(rules.rules().iter().all(|rule| !rule.reason.is_empty()));
    }

    #[test]
    fn what_identifies_or_opens_doors_stays_out_of_every_root() {
        for root in ["/", "/srv/no-such-root"] {
            let rules = rules(root, &[]);
            for path in [
                "etc/ssh/ssh_host_ed25519_key",
                "root/.ssh/id_ed25519",
                "home/ann/.aws/credentials",
                "home/ann/.bash_history",
                "etc/wireguard/wg0.conf",
                "var/lib/systemd/random-seed",
                "var/log/nginx/access.log",
                "var/cache/apt/archives/x.deb",
                "etc/krb5.keytab",
                "root/.cache/x",
            ] {
                assert_eq!(verdict(&rules, path, false), "out", "{path}");
            }
            for path in [
                "etc/ssh/ssh_host_ed25519_key.pub",
                "root/.ssh/id_ed25519.pub",
                "root/.ssh/authorized_keys",
                "etc/ssl/private/ssl-cert-snakeoil.key",
                "etc/shadow",
                "home/ann/notes",
            ] {
                assert_eq!(verdict(&rules, path, false), "stays", "{path}");
            }
            assert_eq!(verdict(&rules, "etc/machine-id", false), "emptied");
            assert_eq!(verdict(&rules, "var/log/nginx", true), "stays");
            assert_eq!(verdict(&rules, "var/log/journal/0123", true), "out");
        }
    }

    #[test]
    fn the_running_system_leaves_out_what_only_runs() {
        let running = rules("/", &[]);
        for path in ["proc/1", "sys/x", "dev/null", "run/x", "tmp/x", "var/tmp/x"] {
            assert_eq!(verdict(&running, path, false), "out", "{path}");
        }
        assert_eq!(verdict(&running, "tmp", true), "stays");
        assert_eq!(verdict(&running, "srv/images/x.erofs", false), "out");
        let another = rules("/srv/no-such-root", &[]);
        assert_eq!(verdict(&another, "tmp/x", false), "stays");
    }

    #[test]
    fn what_is_asked_wins_and_keeping_over_leaving_out() {
        let asked = rules(
            "/",
            &[
                (Action::LeaveOut, "/etc/ssl/private/ssl-cert-snakeoil.key"),
                (Action::Keep, "/tmp/wanted/file"),
                (Action::Keep, "/var/log/keep.log"),
                (Action::LeaveOut, "/opt/big"),
                (Action::Keep, "/opt/big/one"),
                (Action::Keep, "/srv/images/mine"),
                (Action::Empty, "/etc/secret"),
            ],
        );
        let path = "etc/ssl/private/ssl-cert-snakeoil.key";
        assert_eq!(verdict(&asked, path, false), "out");
        assert_eq!(verdict(&asked, "tmp/wanted", true), "passage");
        assert_eq!(verdict(&asked, "tmp/wanted/file", false), "stays");
        assert_eq!(verdict(&asked, "tmp/wanted/other", false), "out");
        assert_eq!(verdict(&asked, "var/log/keep.log", false), "stays");
        assert_eq!(verdict(&asked, "opt/big", true), "passage");
        assert_eq!(verdict(&asked, "opt/big/one/below", false), "stays");
        assert_eq!(verdict(&asked, "opt/big/two", false), "out");
        assert_eq!(verdict(&asked, "srv/images/mine", false), "out");
        assert_eq!(verdict(&asked, "etc/secret", false), "emptied");
    }

    #[test]
    fn a_file_of_rules_says_where_it_is_wrong() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("rules");
        fs::write(&path, "# ours\nleave-out /opt/big\nkeep ~/.netrc\n").unwrap();
        let rules = read_rules(&path).unwrap();
        assert_eq!(rules[1].action, Action::Keep);
        for (text, line) in [("\nkeep etc", 2), ("drop /x", 1), ("keep", 1)] {
            fs::write(&path, text).unwrap();
            let error = read_rules(&path).unwrap_err().to_string();
            assert!(error.contains(&format!(":{line}:")), "{error}");
        }
    }
}

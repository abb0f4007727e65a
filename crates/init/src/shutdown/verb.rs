//! What becomes of the machine when everything is written.

use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use super::flush::flush;
use crate::console::say;

/// The words that systemd gives, and `reboot(8)` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    PowerOff,
    Reboot,
    Halt,
    Kexec,
}

impl Verb {
    pub const WORDS: &str = "poweroff|reboot|halt|kexec";

    pub fn of(word: &str) -> Option<Verb> {
        match word {
            "poweroff" => Some(Verb::PowerOff),
            "reboot" => Some(Verb::Reboot),
            "halt" => Some(Verb::Halt),
            "kexec" => Some(Verb::Kexec),
            _ => None,
        }
    }

    /// Writes what is left in memory, and does it.
    pub fn carry_out(self) -> ! {
        flush();
        let commands: &[RebootCommand] = match self {
            Verb::PowerOff => &[RebootCommand::PowerOff, RebootCommand::Halt],
            Verb::Reboot => &[RebootCommand::Restart],
            Verb::Halt => &[RebootCommand::Halt],
            // With no kernel loaded the firmware starts one.
            Verb::Kexec => &[RebootCommand::Kexec, RebootCommand::Restart],
        };
        for command in commands {
            if let Err(errno) = reboot(*command) {
                say(&format!("shutdown: {command:?}: {errno}"));
            }
        }
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_understood() {
        for word in Verb::WORDS.split('|') {
            assert!(Verb::of(word).is_some(), "{word}");
        }
        assert_eq!(Verb::of("exit"), None);
    }
}

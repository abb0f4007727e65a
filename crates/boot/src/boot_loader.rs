//! What boot loaders read to start a machine: iPXE's script, PXELINUX's and GRUB's configuration.
//!
//! Each has a language of its own, and the kernel's command line has to come through it as it is: `;` ends a command for
//! GRUB, `${` begins a setting for iPXE, and GRUB writes a backslash before backslashes and quotes. [`machine_line`]
//! refuses what one of them would change; everything of `root=` can be written without (`%27` for `'`).

use crate::command_line::{join, refuse};
use crate::{CommandLine, Error, INIT_WORD, Result};

/// What machines have that Estive does not start itself. The last console is the one that `/dev/console` is: on a
/// machine with a screen that is where a person looks; the kernel writes on both.
const COMMON: [&str; 2] = ["quiet", "cryptomgr.notests"];
const SCREEN_CONSOLES: [&str; 2] = ["console=ttyS0", "console=tty0"];
const SERIAL_CONSOLE: [&str; 1] = ["console=ttyS0"];

/// What the kernel takes, without what boot loaders put before it (`BOOT_IMAGE=/boot/vmlinuz initrd=initramfs`).
const BYTES_MAX: usize = 1983;

/// The files of a start directory and of a disk, beside their boot loader's own.
pub const KERNEL: &str = "vmlinuz";
pub const INITRAMFS: &str = "initramfs";

/// The command line of a machine: consoles unless `words` name one, `root=` and `words`. Fails on a word that the kernel
/// or a boot loader would read as another.
pub fn machine_line(root: &str, words: &[&str], has_screen: bool) -> Result<String> {
    let consoles: &[&str] = match (words.iter().any(|w| w.starts_with("console=")), has_screen) {
        (true, _) => &[],
        (false, true) => &SCREEN_CONSOLES,
        (false, false) => &SERIAL_CONSOLE,
    };
    let root = format!("root={root}");
    let all: Vec<&str> = consoles
        .iter()
        .chain(&COMMON)
        .copied()
        .chain([root.as_str()])
        .chain(words.iter().copied())
        .collect();
    for word in &all {
        if word.contains(['\'', '\\']) {
            return refuse(
                word,
                "GRUB changes quotes and backslashes: write %27 or %5C in root=",
            );
        }
        if word.contains("${") {
            return refuse(
                word,
                "iPXE reads \"${\" as a setting: write %24 for $ in root=",
            );
        }
        if word.starts_with('#') {
            return refuse(word, "iPXE reads it as a comment");
        }
        if matches!(*word, ";" | "&&" | "||") {
            return refuse(word, "iPXE and GRUB read it as the end of a command");
        }
        let init = format!("{INIT_WORD}=");
        if word
            .strip_prefix(&init)
            .is_some_and(|path| !path.starts_with('/'))
        {
            return refuse(word, "the program to run as init must be an absolute path");
        }
    }
    if let Some(word) = words.iter().find(|word| word.starts_with("root=")) {
        return refuse(word, "the root line is written as --root");
    }
    let line = join(all)?;
    // What the machine would stop at is said here.
    CommandLine::parse(&line).map_err(|error| Error::Line { error })?;
    if line.len() > BYTES_MAX {
        return refuse(
            &line,
            "with what boot loaders add it would be longer than the kernel takes",
        );
    }
    Ok(line)
}

/// iPXE: `boot.ipxe`. Names are relative to where the script came from. UEFI's kernel is told the initramfs by name.
pub fn ipxe(line: &str) -> String {
    format!(
        "#!ipxe\n# Made by `estive image`.\nkernel {KERNEL} initrd={INITRAMFS} {line}\ninitrd {INITRAMFS}\nboot\n"
    )
}

/// PXELINUX: `pxelinux.cfg/default`.
pub fn pxelinux(line: &str) -> String {
    format!(
        "# Made by `estive image`.\nDEFAULT estive\nPROMPT 0\nLABEL estive\n  KERNEL {KERNEL}\n  INITRD {INITRAMFS}\n  APPEND {line}\n"
    )
}

/// GRUB: `boot/grub/grub.cfg`, with the files in the directory `/boot`. Each word in single quotes, within which GRUB
/// reads nothing. Video first: under UEFI the kernel has no other screen than the one that GRUB leaves it.
pub fn grub(line: &str) -> String {
    let words: Vec<String> = line
        .split_ascii_whitespace()
        .map(|word| format!("'{word}'"))
        .collect();
    format!(
        "# Made by `estive image`.\nset timeout=0\ninsmod all_video\nset gfxpayload=keep\nlinux /boot/{KERNEL} {}\ninitrd /boot/{INITRAMFS}\nboot\n",
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOT: &str = "nfs:10.0.0.1:/:ro;tmpfs:rw";

    #[test]
    fn one_line_in_three_languages() {
        let line = machine_line(ROOT, &["ip=dhcp"], true).unwrap();
        assert_eq!(
            line,
            "console=ttyS0 console=tty0 quiet cryptomgr.notests root=nfs:10.0.0.1:/:ro;tmpfs:rw ip=dhcp"
        );
        assert!(ipxe(&line).contains(&format!("\nkernel vmlinuz initrd=initramfs {line}\n")));
        assert!(pxelinux(&line).contains(&format!("\n  APPEND {line}\n")));
        assert!(grub(&line).contains("'root=nfs:10.0.0.1:/:ro;tmpfs:rw' 'ip=dhcp'\n"));
        let line = machine_line(ROOT, &["console=ttyS1,115200"], true).unwrap();
        assert!(line.starts_with("quiet "), "{line}");
    }

    #[test]
    fn what_a_boot_loader_changes_is_refused() {
        for word in [
            "a'b",
            "a\\b",
            "x=${mac}",
            "#x",
            ";",
            "&&",
            "a b",
            "",
            "estive.init=sh",
        ] {
            assert!(machine_line(ROOT, &[word], false).is_err(), "{word:?}");
        }
        assert!(machine_line("block:/dev/a'", &[], false).is_err());
    }

    /// What GRUB's shell makes of words in single quotes.
    fn grub_words(text: &str) -> Vec<String> {
        let linux = text.lines().find_map(|line| line.strip_prefix("linux "));
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for character in linux.unwrap().chars() {
            match character {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                other => word.push(other),
            }
        }
        words.push(word);
        words.split_off(1)
    }

    proptest! {
        #[test]
        fn a_line_comes_through(words in prop::collection::vec("[!-~]{1,12}", 0..6)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let Ok(line) = machine_line(ROOT, &words, false) {
                prop_assert_eq!(grub_words(&grub(&line)).join(" "), line.clone());
                for text in [ipxe(&line), pxelinux(&line), grub(&line)] {
                    let end = words.last().copied().unwrap_or("tmpfs:rw");
                    prop_assert!(text.contains(end));
                }
            }
        }
    }
}

//! What this machine has mounted and swaps to, as /proc tells it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// File systems that hold nothing but what the kernel shows.
const OF_THE_KERNEL: &[&[u8]] = &[
    b"proc",
    b"sysfs",
    b"devtmpfs",
    b"devpts",
    b"mqueue",
    b"hugetlbfs",
    b"cgroup",
    b"cgroup2",
    b"securityfs",
    b"debugfs",
    b"tracefs",
    b"pstore",
    b"efivarfs",
    b"bpf",
    b"configfs",
    b"fusectl",
    b"binfmt_misc",
    b"autofs",
    b"rpc_pipefs",
    b"nsfs",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub id: u64,
    /// What of the file system is seen at the place.
    pub root: PathBuf,
    pub place: PathBuf,
    pub file_system: String,
    /// Nothing of it can be part of a root.
    pub of_the_kernel: bool,
}

/// Mounts of a mountinfo text (proc(5)): the number is field 1, the root field 4, the place field 5, the type follows a
/// lone `-`.
pub(crate) fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
            let root = fields.nth(2)?;
            let place = fields.next()?;
            let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
            Some(Mount {
                id,
                root: unescape_octal(root),
                place: unescape_octal(place),
                file_system: String::from_utf8_lossy(kind).into_owned(),
                of_the_kernel: OF_THE_KERNEL.contains(&kind),
            })
        })
        .collect()
}

/// Swap files of a /proc/swaps text: first a heading, then name and type.
pub(crate) fn swap_files(swaps: &[u8]) -> Vec<PathBuf> {
    swaps
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut fields = line
                .split(|byte| byte.is_ascii_whitespace())
                .filter(|field| !field.is_empty());
            let name = fields.next()?;
            (fields.next()? == b"file").then(|| unescape_octal(name))
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash in names as `\ooo`.
fn unescape_octal(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = tail
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn mount_names_with_spaces_are_read() {
        let text = b"36 35 98:0 / /mnt/a\\040b\\134c rw shared:1 - ext4 /dev/x rw\n37 35 0:4 / /proc rw - proc proc rw\n\n";
        let read = mounts(text);
        assert_eq!(read[0].place, Path::new("/mnt/a b\\c"));
        assert_eq!(read[0].file_system, "ext4");
        assert!(!read[0].of_the_kernel && read[1].of_the_kernel);
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn only_swap_files_count_not_partitions() {
        let text = b"Filename\tType\tSize\tUsed\tPriority\n/swap.img  file\t1\t0\t-2\n/dev/sda2  partition 1 0 -3\n";
        assert_eq!(swap_files(text), [PathBuf::from("/swap.img")]);
    }
}

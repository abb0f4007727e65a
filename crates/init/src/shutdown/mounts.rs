//! What is mounted, as `/proc/self/mountinfo` tells it (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// File systems of the kernel's own, or in memory: nothing of theirs is to be written.
const WITHOUT_DISK: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Later ones have a larger one, mostly; they are used again.
    pub id: u64,
    pub point: PathBuf,
    pub kind: String,
    pub source: String,
    pub is_read_only: bool,
}

impl Mount {
    /// Whether a disk or a server has to hear of it. The union itself has not: its layers have.
    pub fn is_on_disk(&self) -> bool {
        !WITHOUT_DISK.contains(&self.kind.as_str())
    }
}

/// All that this process can see, in the order of the kernel: what was mounted first comes first.
pub fn read() -> Vec<Mount> {
    parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default())
}

pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// Those at or below a path, those that lie on others first.
pub fn at_or_below(mounts: &[Mount], top: &Path) -> Vec<Mount> {
    let found = mounts.iter().filter(|mount| mount.point.starts_with(top));
    let mut found: Vec<Mount> = found.cloned().collect();
    // Deepest first; of one depth, and of those on one point, the last one first.
    found.reverse();
    found.sort_by_key(|mount| std::cmp::Reverse(mount.point.components().count()));
    found
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let id = text(fields.next()?).parse().ok()?;
    let point = fields.nth(3)?;
    let options = fields.next()?;
    // Optional fields end with a dash.
    fields.find(|field| *field == b"-")?;
    let kind = text(fields.next()?);
    let source = text(&unescaped(fields.next()?));
    let of_file_system = fields.next().unwrap_or_default();
    let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|one| one == b"ro");
    Some(Mount {
        id,
        point: PathBuf::from(OsString::from_vec(unescaped(point))),
        kind,
        source,
        is_read_only: is_read_only(options) || is_read_only(of_file_system),
    })
}

/// Blanks, newlines and backslashes are written as `\ooo`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match (*first, tail.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                text.push(byte);
                rest = &tail[3..];
            }
            (byte, _) => {
                text.push(byte);
                rest = tail;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
22 1 0:21 / /oldroot rw,relatime - overlay overlay rw,lowerdir=/u/1
23 22 254:16 / /oldroot/.unions/1 rw,relatime shared:1 - ext4 /dev/vdb rw
24 22 0:5 / /oldroot/dev rw - devtmpfs devtmpfs rw
25 24 0:6 / /oldroot/dev/pts rw - devpts devpts rw
26 22 254:0 / /oldroot/mnt/a\\040b ro,nosuid master:2 propagate_from:1 - ext4 /dev/a\\134b rw
27 1 0:30 / / rw - tmpfs tmpfs rw
garbage
28 26 254:32 / /oldroot/mnt/a\\040b rw - xfs /dev/vdc ro
";

    #[test]
    fn lines_are_read_and_ordered() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 7);
        let order: Vec<(u64, bool)> = at_or_below(&mounts, Path::new("/oldroot"))
            .iter()
            .map(|mount| (mount.id, mount.is_on_disk()))
            .collect();
        let expected = [
            (28, true),
            (26, true),
            (25, false),
            (23, true),
            (24, false),
            (22, false),
        ];
        assert_eq!(order, expected);
        assert_eq!(mounts[4].point, Path::new("/oldroot/mnt/a b"));
        assert_eq!(mounts[4].source, "/dev/a\\b");
        let read_only: Vec<bool> = mounts.iter().map(|mount| mount.is_read_only).collect();
        assert_eq!(read_only, [false, false, false, false, true, false, true]);
        assert!(at_or_below(&mounts, Path::new("/old")).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..500)) {
            parse(&bytes);
        }
    }
}

//! What a device holds, told by its first blocks: file systems to mount, and what must be opened first.
//!
//! The places and magic numbers are those of each format's own description in the kernel's
//! `Documentation/filesystems` and headers; UUIDs and labels are written as blkid(8) writes them.

use std::fmt;

/// How much of a device is looked at; Btrfs begins behind 64 KiB.
pub const HEAD_BYTES: u64 = 72 << 10;

/// What a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext,
    Xfs,
    Btrfs,
    Erofs,
    Squashfs,
    Iso9660,
    Vfat,
    F2fs,
    Luks,
    LvmVolume,
    RaidMember,
    Swap,
}

impl Kind {
    /// The name to mount it by; `None` for what is no file system.
    pub fn file_system(self) -> Option<&'static str> {
        match self {
            // The driver of ext4 has the older ones too.
            Kind::Ext => Some("ext4"),
            Kind::Xfs => Some("xfs"),
            Kind::Btrfs => Some("btrfs"),
            Kind::Erofs => Some("erofs"),
            Kind::Squashfs => Some("squashfs"),
            Kind::Iso9660 => Some("iso9660"),
            Kind::Vfat => Some("vfat"),
            Kind::F2fs => Some("f2fs"),
            Kind::Luks | Kind::LvmVolume | Kind::RaidMember | Kind::Swap => None,
        }
    }

    /// What to write for what is no file system.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::Luks => "write luks+block:DEVICE",
            Kind::LvmVolume => "write lvm2:/dev/GROUP/VOLUME",
            Kind::RaidMember => "write md:/dev/md0, or fs=TYPE if that array is no more",
            _ => "there is nothing to mount in it",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Kind::Luks => "an encrypted device (LUKS)",
            Kind::LvmVolume => "part of a volume group (LVM)",
            Kind::RaidMember => "part of an array (RAID)",
            Kind::Swap => "swap space",
            other => other.file_system().unwrap_or_default(),
        })
    }
}

/// A device's content, with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    pub kind: Kind,
    pub uuid: Option<String>,
    pub label: Option<String>,
}

/// For a list of devices: what it is, and its names.
impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        let clean = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).collect() };
        if let Some(uuid) = &self.uuid {
            write!(f, " UUID={uuid}")?;
        }
        match &self.label {
            Some(label) => write!(f, " LABEL={}", clean(label)),
            None => Ok(()),
        }
    }
}

/// Whether the kernel can only read such file systems.
pub fn is_read_only(file_system: &str) -> bool {
    ["erofs", "squashfs", "iso9660", "cramfs", "romfs"].contains(&file_system)
}

/// What keeps the kernel from replaying the journal of one that it mounts read-only; `None` for those without a journal.
pub fn without_replay(file_system: &str) -> Option<&'static str> {
    match file_system {
        "ext3" | "ext4" => Some("noload"),
        "xfs" | "f2fs" => Some("norecovery"),
        "btrfs" => Some("rescue=nologreplay"),
        _ => None,
    }
}

/// The modules to load before one is mounted, where they are not part of the kernel.
pub fn modules_of(file_system: &str) -> Vec<&str> {
    match file_system {
        "iso9660" => vec!["isofs", "nls_utf8"],
        "ext2" | "ext3" => vec!["ext4"],
        "vfat" => vec!["vfat", "nls_cp437", "nls_ascii", "nls_utf8"],
        other => vec![other],
    }
}

/// From the first [`HEAD_BYTES`] of a device, or all of a smaller one.
pub fn recognise(head: &[u8]) -> Option<Recognised> {
    let head = Head(head);
    RECOGNISERS.iter().find_map(|recognise| recognise(head))
}

/// Those that hold others come first; those with the weakest signs last.
const RECOGNISERS: [fn(Head) -> Option<Recognised>; 12] = [
    luks, lvm, raid, swap, xfs, btrfs, ext, erofs, f2fs, squashfs, iso9660, vfat,
];

#[derive(Clone, Copy)]
struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    fn at(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }

    fn has(self, at: usize, magic: &[u8]) -> Option<()> {
        (self.at(at, magic.len())? == magic).then_some(())
    }

    /// Sixteen bytes as a UUID; none if they are all zero.
    fn uuid(self, at: usize) -> Option<String> {
        let bytes: [u8; 16] = self.at(at, 16)?.try_into().ok()?;
        (bytes != [0; 16]).then(|| uuid_text(bytes))
    }

    /// Text up to its end or a zero byte; none if it is empty.
    fn text(self, at: usize, length: usize) -> Option<String> {
        let bytes = self.at(at, length)?;
        let bytes = bytes.split(|byte| *byte == 0).next()?;
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Sixteen bytes, most significant first, in the usual groups.
pub(crate) fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

fn found(kind: Kind, uuid: Option<String>, label: Option<String>) -> Option<Recognised> {
    Some(Recognised { kind, uuid, label })
}

fn luks(head: Head) -> Option<Recognised> {
    head.has(0, b"LUKS\xba\xbe")?;
    let label = match head.at(6, 2)? {
        [0, 2] => head.text(24, 48),
        _ => None,
    };
    found(Kind::Luks, head.text(168, 40), label)
}

fn lvm(head: Head) -> Option<Recognised> {
    // In one of the first four sectors.
    let sector = (0..4).map(|sector| sector * 512).find(|at| {
        head.has(*at, b"LABELONE").is_some() && head.has(at + 24, b"LVM2 001").is_some()
    })?;
    found(Kind::LvmVolume, head.text(sector + 32, 32), None)
}

fn raid(head: Head) -> Option<Recognised> {
    // Version 1.2, then 1.1; the others stand at the end of a device: see `md_end`.
    let at = [4096, 0]
        .into_iter()
        .find(|at| head.has(*at, &0xa92b_4efc_u32.to_le_bytes()).is_some())?;
    found(Kind::RaidMember, head.uuid(at + 16), head.text(at + 32, 32))
}

fn swap(head: Head) -> Option<Recognised> {
    head.has(4086, b"SWAPSPACE2")?;
    found(Kind::Swap, head.uuid(1036), head.text(1052, 16))
}

fn xfs(head: Head) -> Option<Recognised> {
    head.has(0, b"XFSB")?;
    found(Kind::Xfs, head.uuid(32), head.text(108, 12))
}

fn btrfs(head: Head) -> Option<Recognised> {
    head.has(0x10040, b"_BHRfS_M")?;
    found(Kind::Btrfs, head.uuid(0x10020), head.text(0x1012b, 256))
}

fn ext(head: Head) -> Option<Recognised> {
    head.has(0x438, &[0x53, 0xef])?;
    found(Kind::Ext, head.uuid(0x468), head.text(0x478, 16))
}

fn erofs(head: Head) -> Option<Recognised> {
    head.has(1024, &0xe0f5_e1e2_u32.to_le_bytes())?;
    found(Kind::Erofs, head.uuid(1024 + 48), head.text(1024 + 64, 16))
}

fn f2fs(head: Head) -> Option<Recognised> {
    head.has(1024, &0xf2f5_2010_u32.to_le_bytes())?;
    let units: Vec<u16> = head
        .at(1024 + 124, 1024)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let label = String::from_utf16_lossy(&units);
    found(
        Kind::F2fs,
        head.uuid(1024 + 108),
        (!label.is_empty()).then_some(label),
    )
}

fn squashfs(head: Head) -> Option<Recognised> {
    head.has(0, b"hsqs")?;
    // Its major version; older ones are not read by Linux any more.
    head.has(28, &[4, 0])?;
    found(Kind::Squashfs, None, None)
}

fn iso9660(head: Head) -> Option<Recognised> {
    let volume = 0x8000;
    head.has(volume, b"\x01CD001")?;
    // It has no UUID: the time of its last change, or else of its making, stands for one.
    let time = [830, 813]
        .into_iter()
        .filter_map(|at| head.at(volume + at, 16))
        .find(|digits| {
            digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0')
        })
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let uuid = time.map(|time| {
        let pairs = [0, 4, 6, 8, 10, 12, 14, 16];
        let parts: Vec<&str> = pairs
            .windows(2)
            .map(|pair| &time[pair[0]..pair[1]])
            .collect();
        parts.join("-")
    });
    found(Kind::Iso9660, uuid, head.text(volume + 40, 32))
}

fn vfat(head: Head) -> Option<Recognised> {
    head.has(510, &[0x55, 0xaa])?;
    // Where the serial number is; the label behind it.
    let serial_at = if head.has(82, b"FAT32   ").is_some() {
        67
    } else {
        let is_small = [b"FAT16   ", b"FAT12   "].iter();
        is_small
            .clone()
            .any(|magic| head.has(54, &magic[..]).is_some())
            .then_some(39)?
    };
    let serial: [u8; 4] = head.at(serial_at, 4)?.try_into().ok()?;
    let serial = u32::from_le_bytes(serial);
    let uuid = format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
    let label = head
        .text(serial_at + 4, 11)
        .filter(|label| label != "NO NAME");
    found(Kind::Vfat, Some(uuid), label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    const UUID: &str = "0a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9";

    /// The head of an image made by a command; `None` where the program is not installed.
    fn made(size_bytes: u64, command: &str, directory: &Path) -> Option<Vec<u8>> {
        let image = directory.join("image");
        let tree = directory.join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        let _ = std::fs::remove_file(&image);
        if size_bytes > 0 {
            let file = std::fs::File::create(&image).unwrap();
            file.set_len(size_bytes).unwrap();
        }
        let command = command
            .replace("IMAGE", &image.to_string_lossy())
            .replace("TREE", &tree.to_string_lossy());
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output();
        let output = match output {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            other => other.unwrap(),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        let mut head = std::fs::read(&image).unwrap();
        head.truncate(HEAD_BYTES as usize);
        Some(head)
    }

    #[test]
    fn what_their_own_programs_make_is_recognised() {
        let directory = tempfile::tempdir().unwrap();
        let mut tried = 0;
        for (size_bytes, command, kind, uuid, label) in [
            (
                8 << 20,
                format!("mkfs.ext4 -q -U {UUID} -L name IMAGE"),
                Kind::Ext,
                Some(UUID),
                Some("name"),
            ),
            (
                0,
                format!("mkfs.erofs -U {UUID} IMAGE TREE"),
                Kind::Erofs,
                Some(UUID),
                None,
            ),
            (
                320 << 20,
                format!("mkfs.xfs -q -m uuid={UUID} -L name IMAGE"),
                Kind::Xfs,
                Some(UUID),
                Some("name"),
            ),
            (
                128 << 20,
                format!("mkfs.btrfs -q -U {UUID} -L name IMAGE"),
                Kind::Btrfs,
                Some(UUID),
                Some("name"),
            ),
            (
                4 << 20,
                "mkfs.vfat -i 12345678 -n NAME IMAGE".to_owned(),
                Kind::Vfat,
                Some("1234-5678"),
                Some("NAME"),
            ),
            (
                0,
                "mksquashfs TREE IMAGE -quiet -no-progress".to_owned(),
                Kind::Squashfs,
                None,
                None,
            ),
            (
                1 << 20,
                format!("mkswap -q -U {UUID} -L name IMAGE"),
                Kind::Swap,
                Some(UUID),
                Some("name"),
            ),
        ] {
            let Some(head) = made(size_bytes, &command, directory.path()) else {
                continue;
            };
            tried += 1;
            let found = recognise(&head).unwrap_or_else(|| panic!("{command}"));
            assert_eq!(found.kind, kind, "{command}");
            assert_eq!(found.uuid.as_deref(), uuid, "{command}");
            assert_eq!(found.label.as_deref(), label, "{command}");
        }
        // mkfs.ext4 and mkswap are on every machine that can build this.
        assert!(tried >= 2);
    }

    #[test]
    fn what_is_not_made_here_is_told_by_its_description() {
        let mut head = vec![0; HEAD_BYTES as usize];
        assert_eq!(recognise(&head), None);
        head[0x8000..0x8006].copy_from_slice(b"\x01CD001");
        head[0x8028..0x802c].copy_from_slice(b"DISC");
        head[0x8000 + 813..0x8000 + 829].copy_from_slice(b"2024010203040506");
        let disc = recognise(&head).unwrap();
        assert_eq!(
            (disc.kind, disc.uuid.as_deref(), disc.label.as_deref()),
            (Kind::Iso9660, Some("2024-01-02-03-04-05-06"), Some("DISC"))
        );
        head[512..520].copy_from_slice(b"LABELONE");
        head[536..544].copy_from_slice(b"LVM2 001");
        assert_eq!(recognise(&head).unwrap().kind, Kind::LvmVolume);
        head[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        head[168..173].copy_from_slice(b"ab-cd");
        let luks = recognise(&head).unwrap();
        assert_eq!(
            (luks.kind, luks.uuid.as_deref()),
            (Kind::Luks, Some("ab-cd"))
        );
        assert_eq!(luks.kind.file_system(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_device_is_looked_at(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000), at in 0..10_usize) {
            let mut head = bytes;
            for (magic_at, magic) in [(0, &b"XFSB"[..]), (0x438, &[0x53, 0xef]), (510, &[0x55, 0xaa]), (0, b"hsqs"), (512, b"LABELONE")] {
                if at.is_multiple_of(2) && head.len() > magic_at + magic.len() {
                    head[magic_at..magic_at + magic.len()].copy_from_slice(magic);
                }
            }
            let _ = recognise(&head).map(|found| found.to_string());
        }
    }
}

//! Members of arrays that say so at their end: metadata 0.90 and 1.0 of the kernel's RAID.
//!
//! What stands at the beginning of such a disk is that of the array: half of a mirror looks like a disk of its own, and
//! one that is written to alone is a mirror no more. The places are those of `drivers/md/md.c` (`super_90_load`,
//! `super_1_load`) and of `linux/raid/md_p.h`.

use crate::superblock::{Kind, Recognised, uuid_text};

/// How much of a device's end is looked at.
pub const TAIL_BYTES: u64 = 128 << 10;

const MAGIC: u32 = 0xa92b_4efc;
/// Of metadata 0.90, which stands at a multiple of it.
const RESERVED_BYTES: u64 = 64 << 10;
const SECTOR_BYTES: u64 = 512;

/// A device that belongs to an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub found: Recognised,
    /// Where it says so, from the start of the device.
    pub at_byte: u64,
    /// Whether it names its own place. One of 0.90 at the end of the last partition stands at the end of the disk too.
    pub is_certain: bool,
}

/// From the last [`TAIL_BYTES`] of a device of this size, or all of a smaller one.
pub fn member(tail: &[u8], size_bytes: u64) -> Option<Member> {
    let tail = Tail {
        begin: size_bytes.checked_sub(tail.len() as u64)?,
        bytes: tail,
    };
    version_1_0(&tail, size_bytes).or_else(|| version_0_90(&tail, size_bytes))
}

fn version_1_0(tail: &Tail, size_bytes: u64) -> Option<Member> {
    let sectors = size_bytes / SECTOR_BYTES;
    let sector = sectors.checked_sub(16)? & !7;
    let at_byte = sector * SECTOR_BYTES;
    let word = |at: u64| tail.u32(at_byte + at);
    let own_place = u64::from(word(144)?) | u64::from(word(148)?) << 32;
    let is_one = word(0)? == MAGIC && word(4)? == 1 && own_place == sector;
    is_one.then_some(())?;
    let name = tail.at(at_byte + 32, 32)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some(Member {
        found: Recognised {
            kind: Kind::RaidMember,
            uuid: Some(uuid_text(tail.at(at_byte + 16, 16)?.try_into().ok()?)),
            label: (!name.is_empty()).then_some(name),
        },
        at_byte,
        is_certain: true,
    })
}

fn version_0_90(tail: &Tail, size_bytes: u64) -> Option<Member> {
    let at_byte = (size_bytes & !(RESERVED_BYTES - 1)).checked_sub(RESERVED_BYTES)?;
    let word = |index: u64| tail.u32(at_byte + index * 4);
    let is_one = word(0)? == MAGIC && word(1)? == 0 && word(2)? >= 90;
    is_one.then_some(())?;
    let mut uuid = [0; 16];
    for (bytes, index) in uuid.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        bytes.copy_from_slice(&word(index)?.to_be_bytes());
    }
    Some(Member {
        found: Recognised {
            kind: Kind::RaidMember,
            uuid: Some(uuid_text(uuid)),
            label: None,
        },
        at_byte,
        is_certain: false,
    })
}

/// The end of a device, and where it begins.
struct Tail<'a> {
    begin: u64,
    bytes: &'a [u8],
}

impl Tail<'_> {
    fn at(&self, at: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.begin)?).ok()?;
        self.bytes.get(from..from.checked_add(length)?)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.at(at, 4)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE_BYTES: u64 = (16 << 20) + 4096 + 512;

    /// What a device ends with, with these 32-bit words at a byte of it.
    fn tail(size_bytes: u64, at_byte: u64, words: &[(u64, u32)]) -> Vec<u8> {
        let mut tail = vec![0; TAIL_BYTES as usize];
        let begin = size_bytes - TAIL_BYTES;
        for (index, word) in words {
            let at = (at_byte + index * 4 - begin) as usize;
            tail[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        tail
    }

    #[test]
    fn both_kinds_are_found_in_their_places_alone() {
        let at_byte = SIZE_BYTES - 8192 - 512;
        let sector = (at_byte / 512) as u32;
        let words = [(0, MAGIC), (1, 1), (4, 0x0403_0201), (36, sector)];
        let found = member(&tail(SIZE_BYTES, at_byte, &words), SIZE_BYTES).unwrap();
        assert_eq!((found.at_byte, found.is_certain), (at_byte, true));
        let uuid = found.found.uuid.unwrap();
        assert!(uuid.starts_with("01020304-0000"), "{uuid}");
        // That of the last partition, which ends with the disk: it names a place of the partition.
        let words = [(0, MAGIC), (1, 1), (36, sector - 2048)];
        assert_eq!(member(&tail(SIZE_BYTES, at_byte, &words), SIZE_BYTES), None);

        let at_byte = (16 << 20) - (64 << 10);
        let words = [(0, MAGIC), (2, 90), (5, 0x0102_0304), (13, 0x0506_0708)];
        let found = member(&tail(SIZE_BYTES, at_byte, &words), SIZE_BYTES).unwrap();
        assert_eq!((found.at_byte, found.is_certain), (at_byte, false));
        let uuid = found.found.uuid.unwrap();
        assert!(uuid.starts_with("01020304-0506-0708-"), "{uuid}");
        assert_eq!(
            member(&tail(SIZE_BYTES, at_byte + 4096, &words), SIZE_BYTES),
            None
        );
    }

    proptest::proptest! {
        #[test]
        fn any_end_is_looked_at(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000), more in 0..200_000_u64) {
            let size_bytes = bytes.len() as u64 + more;
            let _ = member(&bytes, size_bytes);
        }
    }
}

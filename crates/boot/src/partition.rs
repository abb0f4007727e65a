//! The names of partitions, from the table on their disk: GPT (UEFI 2.10, section 5.3) and MBR.

use crate::superblock::uuid_text;

const ENTRIES_MAX: u32 = 1024;
const ENTRY_BYTES: std::ops::RangeInclusive<u32> = 128..=4096;
const SIGNATURE: &[u8] = b"EFI PART";
/// Of an MBR that only says: there is a GPT.
const PROTECTIVE: u8 = 0xee;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As `PARTUUID=` has it: a UUID, or of an MBR the disk's eight digits, `-` and the number.
    pub uuid: String,
    pub label: Option<String>,
}

impl Partition {
    /// The partition with this number, from 1. `read` reads the disk at a byte; `block_bytes` is
    /// the size of its logical blocks. `None` if the disk has no table, or not that partition.
    pub fn find<E>(
        number: u32,
        block_bytes: u64,
        read: impl Fn(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Partition>, E> {
        let mut first = [0; 512];
        read(0, &mut first)?;
        if first[510..] != [0x55, 0xaa] {
            return Ok(None);
        }
        let is_gpt = (0..4).any(|entry| first[446 + 16 * entry + 4] == PROTECTIVE);
        if is_gpt {
            return find_gpt(number, block_bytes, read);
        }
        let disk = u32_at(&first, 440);
        Ok((disk != 0).then(|| Partition {
            uuid: format!("{disk:08x}-{number:02x}"),
            label: None,
        }))
    }
}

fn find_gpt<E>(
    number: u32,
    block_bytes: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Option<Partition>, E> {
    let mut header = [0; 92];
    read(block_bytes, &mut header)?;
    let entries = u64::from_le_bytes(header[72..80].try_into().unwrap_or_default());
    let (count, entry_bytes) = (u32_at(&header, 80), u32_at(&header, 84));
    let is_there = &header[..8] == SIGNATURE
        && (1..=count.min(ENTRIES_MAX)).contains(&number)
        && ENTRY_BYTES.contains(&entry_bytes);
    let before = u64::from(number.saturating_sub(1)) * u64::from(entry_bytes);
    let at = entries
        .checked_mul(block_bytes)
        .and_then(|at| at.checked_add(before));
    let Some(at) = at.filter(|_| is_there) else {
        return Ok(None);
    };
    let mut entry = [0; 128];
    read(at, &mut entry)?;
    let mut uuid: [u8; 16] = entry[16..32].try_into().unwrap_or_default();
    if uuid == [0; 16] {
        return Ok(None);
    }
    // The first three fields are little-endian.
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    let units: Vec<u16> = entry[56..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let label = String::from_utf16_lossy(&units);
    Ok(Some(Partition {
        uuid: uuid_text(uuid),
        label: (!label.is_empty()).then_some(label),
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes
        .get(at..at + 4)
        .and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(disk: &[u8], number: u32) -> Option<Partition> {
        Partition::find(number, 512, |at, bytes: &mut [u8]| {
            let at = at as usize;
            let part = disk.get(at..at + bytes.len()).ok_or("beyond the end")?;
            bytes.copy_from_slice(part);
            Ok::<(), &str>(())
        })
        .ok()?
    }

    fn gpt() -> Vec<u8> {
        let mut disk = vec![0; 8192];
        disk[446 + 4] = PROTECTIVE;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[512..520].copy_from_slice(SIGNATURE);
        disk[512 + 72] = 2;
        disk[512 + 80] = 4;
        disk[512 + 84] = 128;
        let entry = 1024 + 128;
        for index in 0..16 {
            disk[entry + 16 + index] = index as u8 + 1;
        }
        for (index, unit) in "root".encode_utf16().enumerate() {
            disk[entry + 56 + 2 * index] = unit as u8;
        }
        disk
    }

    #[test]
    fn a_partition_has_the_names_that_blkid_shows() {
        assert_eq!(
            found(&gpt(), 2),
            Some(Partition {
                uuid: "04030201-0605-0807-090a-0b0c0d0e0f10".into(),
                label: Some("root".into())
            })
        );
        assert_eq!(found(&gpt(), 0), None);
        assert_eq!(found(&gpt(), 1), None);
        assert_eq!(found(&gpt(), 5), None);
        let mut mbr = vec![0; 512];
        mbr[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(found(&mbr, 1).unwrap().uuid, "12345678-01");
        assert_eq!(found(&[0; 512], 1), None);
    }

    proptest::proptest! {
        #[test]
        fn any_table_is_looked_at(changes in proptest::collection::vec((500..1200_usize, proptest::prelude::any::<u8>()), 0..40), number in 0..200_u32) {
            let mut disk = gpt();
            for (at, byte) in changes {
                disk[at] = byte;
            }
            let _ = found(&disk, number);
        }
    }
}

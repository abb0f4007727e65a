//! Extended attributes: behind the inode, and (in images of other makers) shared ones in an area of their own.

use std::collections::BTreeMap;

use crate::error::{Error, Result, malformed};
use crate::layout::u16_at;

/// Attributes by their whole name, `user.comment`.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Header before an inode's attributes.
pub(crate) const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4;

/// Prefixes by their number (`EROFS_XATTR_INDEX_…`); the two of POSIX lists are whole names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
];

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // A list's name is its prefix; another's goes on behind it.
        (rest.is_empty() == matches!(index, 2 | 3)).then_some((*index, rest))
    })
}

/// Whether the format has a place for an attribute of this name: `system.nfs4_acl` has none.
pub(crate) fn fits(name: &[u8], value: &[u8]) -> bool {
    split(name).is_some_and(|(_, rest)| rest.len() <= 255) && value.len() <= usize::from(u16::MAX)
}

/// The bytes behind an inode; none without attributes. `None` when they pass what an inode may have.
pub(crate) fn encode(xattrs: &Xattrs) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    for (name, value) in xattrs {
        let Some((index, rest)) = split(name).filter(|_| fits(name, value)) else {
            continue;
        };
        bytes.push(u8::try_from(rest.len()).ok()?);
        bytes.push(index);
        bytes.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    if bytes.len() == HEADER_BYTES {
        return Some(Vec::new());
    }
    count(bytes.len()).map(|_| bytes)
}

/// Whether beside attributes of these bytes there is room for the end of a file.
pub(crate) fn leaves_room(xattrs: &Xattrs) -> bool {
    let bytes: usize = xattrs
        .iter()
        .map(|(name, value)| ENTRY_BYTES + name.len() + value.len() + 4)
        .sum();
    bytes <= 2048
}

/// `i_xattr_icount` of attributes of so many bytes.
pub(crate) fn count(length: usize) -> Option<u16> {
    match length {
        0 => Some(0),
        _ => u16::try_from((length - HEADER_BYTES) / 4 + 1).ok(),
    }
}

/// Bytes of attributes with this `i_xattr_icount`.
pub(crate) fn length(count: u16) -> usize {
    match usize::from(count) {
        0 => 0,
        count => HEADER_BYTES + 4 * (count - 1),
    }
}

/// Where each shared attribute is, in units of 4 bytes of the shared area, and where the inline ones begin.
pub(crate) fn shared(bytes: &[u8]) -> Result<(Vec<u32>, usize)> {
    let shared = usize::from(bytes[4]);
    let start = HEADER_BYTES + 4 * shared;
    let list = bytes
        .get(HEADER_BYTES..start)
        .ok_or_else(|| malformed("more shared attributes than there is room for"))?;
    let places = list
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    Ok((places.collect(), start))
}

/// One attribute at the start of `bytes`, and the length of its entry.
pub(crate) fn decode_one(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize)> {
    let head = bytes
        .get(..ENTRY_BYTES)
        .ok_or_else(|| malformed("an attribute that passes its place"))?;
    let (name_bytes, index, value_bytes) =
        (usize::from(head[0]), head[1], usize::from(u16_at(head, 2)));
    let prefix = PREFIXES
        .iter()
        .find(|(known, _)| *known == index)
        .map(|(_, prefix)| *prefix)
        .ok_or(Error::Unsupported {
            what: "an attribute of an unknown kind",
        })?;
    let end = ENTRY_BYTES + name_bytes + value_bytes;
    let body = bytes
        .get(ENTRY_BYTES..end)
        .ok_or_else(|| malformed("an attribute that passes its place"))?;
    let (rest, value) = body.split_at(name_bytes);
    Ok((
        [prefix, rest].concat(),
        value.to_vec(),
        end.next_multiple_of(4),
    ))
}

/// The largest entry there can be.
pub(crate) const ENTRY_BYTES_MAX: usize = ENTRY_BYTES + 255 + u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let xattrs: Xattrs = [
            (b"user.a".to_vec(), b"1".to_vec()),
            (b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]),
            (b"security.capability".to_vec(), vec![1; 20]),
        ]
        .into();
        let bytes = encode(&xattrs).unwrap();
        assert_eq!(length(count(bytes.len()).unwrap()), bytes.len());
        let (places, mut at) = shared(&bytes).unwrap();
        assert!(places.is_empty());
        let mut read = Xattrs::new();
        while at < bytes.len() {
            let (name, value, entry) = decode_one(&bytes[at..]).unwrap();
            read.insert(name, value);
            at += entry;
        }
        assert_eq!(read, xattrs);
    }

    #[test]
    fn a_name_without_a_place_is_known() {
        assert!(!fits(b"system.nfs4_acl", b""));
        assert!(!fits(b"user.", b""));
        assert!(!fits(b"system.posix_acl_access_", b""));
        assert!(fits(b"user.x", b""));
    }
}

//! Members of a tar stream, with all that their extra headers say.
//!
//! Headers are those of POSIX pax and of GNU tar. Records of a pax header are read here and not by
//! the library: it ends a record at a newline, and attributes may hold one.

use std::fmt;
use std::io::{self, Read};

use tar::{Archive, EntryType};

/// Where pax keeps extended attributes.
pub const TAR_XATTR_PREFIX: &str = "SCHILY.xattr.";
/// All records of one member; also a name or a link target of GNU's.
const EXTRA_BYTES_MAX: u64 = 8 << 20;
const SHOWN_CHARS: usize = 80;

/// One member.
pub struct TarMember<'a, R: Read> {
    /// Plain names with `/` between them; empty for the folder itself.
    pub path: String,
    /// The target of links, as it stands there.
    pub link: String,
    pub kind: EntryType,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970; 0 where the header has no number.
    pub mtime_s: u64,
    pub xattrs: Vec<(String, Vec<u8>)>,
    pub device: (u32, u32),
    pub size_bytes: u64,
    pub content: tar::Entry<'a, R>,
}

/// What is wrong with a member, or with the whole stream where the path is `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarFault {
    pub path: String,
    /// Goes on after the path: "is a link whose target is not UTF-8".
    pub what: String,
}

impl fmt::Display for TarFault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.as_str() {
            "." => write!(f, "it {}", self.what),
            path => write!(f, "{path:?} in it {}", self.what),
        }
    }
}

impl std::error::Error for TarFault {}

/// Calls `member` for each file, directory, link and device of a stream, in its order. No path may
/// have more than `path_bytes_max` bytes.
pub fn read_tar<R: Read, E: From<TarFault>>(
    stream: R,
    path_bytes_max: usize,
    mut member: impl FnMut(TarMember<'_, R>) -> Result<(), E>,
) -> Result<(), E> {
    let broken = |error: io::Error| TarFault {
        path: ".".to_owned(),
        what: format!("is not a whole tar archive: {error}"),
    };
    let mut archive = Archive::new(stream);
    let mut extra = Extra::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        match entry.header().entry_type() {
            EntryType::XHeader => {
                let bytes = limited(&mut entry).map_err(broken)?;
                let not_pax = || broken(io::Error::other("a pax header is not understood"));
                extra.pax = records(&bytes).ok_or_else(not_pax)?;
            }
            EntryType::GNULongName => extra.path = Some(limited(&mut entry).map_err(broken)?),
            EntryType::GNULongLink => extra.link = Some(limited(&mut entry).map_err(broken)?),
            // Of the whole archive: comments and times, which we do not take.
            EntryType::XGlobalHeader => {}
            _ => {
                let taken = std::mem::take(&mut extra);
                member(taken.member(entry, path_bytes_max)?)?;
            }
        }
    }
    Ok(())
}

/// What stands before a member's own header.
#[derive(Default)]
struct Extra {
    pax: Vec<(String, Vec<u8>)>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extra {
    fn member<R: Read>(
        self,
        entry: tar::Entry<'_, R>,
        path_bytes_max: usize,
    ) -> Result<TarMember<'_, R>, TarFault> {
        let header = entry.header().clone();
        let records = self.pax;
        let record = |key: &str| {
            let found = records.iter().rev().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_slice())
        };
        let until_nul = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            bytes[..end.unwrap_or(bytes.len())].to_vec()
        };
        let raw_path = match (record("path"), &self.path) {
            (Some(path), _) => path.to_vec(),
            (None, Some(path)) => until_nul(path),
            (None, None) => header.path_bytes().to_vec(),
        };
        let raw_link = match (record("linkpath"), &self.link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => until_nul(link),
            (None, None) => header
                .link_name_bytes()
                .map(|link| link.to_vec())
                .unwrap_or_default(),
        };
        let shown: String = String::from_utf8_lossy(&raw_path)
            .chars()
            .take(SHOWN_CHARS)
            .collect();
        let wrong = |what: &str| TarFault {
            path: shown.clone(),
            what: what.to_owned(),
        };
        let path = plain_path(&raw_path, path_bytes_max)
            .ok_or_else(|| wrong("is no plain path within its folder"))?;
        let Ok(link) = String::from_utf8(raw_link) else {
            return Err(wrong("is a link whose target is not UTF-8"));
        };
        let number = |key: &str, own: io::Result<u64>| -> Result<u32, TarFault> {
            let given = match record(key) {
                Some(text) => std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok()),
                None => own.ok(),
            };
            // All ones means "leave it" to chown(2).
            let fits = given.filter(|id| *id < u64::from(u32::MAX));
            fits.and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| wrong("has an owner that is no number"))
        };
        let mode = header
            .mode()
            .map_err(|_| wrong("has a mode that is no number"))?;
        let uid = number("uid", id(&header.as_old().uid, header.uid()))?;
        let gid = number("gid", id(&header.as_old().gid, header.gid()))?;
        let size_bytes = header
            .entry_size()
            .map_err(|_| wrong("has a size that is no number"))?;
        let odd = records
            .iter()
            .any(|(key, _)| key == "size" || key.starts_with("GNU.sparse."));
        if odd {
            return Err(wrong("is a sparse or enormous file; make it a plain one"));
        }
        let xattrs = records
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix(TAR_XATTR_PREFIX)?;
                Some((name.to_owned(), value.clone()))
            })
            .collect();
        let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
        Ok(TarMember {
            path,
            link,
            kind: header.entry_type(),
            mode: mode & 0o7777,
            uid,
            gid,
            mtime_s: header.mtime().unwrap_or(0),
            xattrs,
            device: (device(header.device_major()), device(header.device_minor())),
            size_bytes,
            content: entry,
        })
    }
}

/// Who writes a header by hand may leave root's number out.
fn id(field: &[u8], parsed: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    parsed
}

fn limited(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(EXTRA_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > EXTRA_BYTES_MAX {
        return Err(io::Error::other("a header with more than 8 MiB"));
    }
    Ok(bytes)
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`, where the length counts all of it (POSIX
/// pax, "Extended Header"). `None` when one is not so.
fn records(mut bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let key = String::from_utf8(record[..equals].to_vec()).ok()?;
        records.push((key, record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// The path of a member with only plain names; empty for the folder itself. `None` for one that
/// leads elsewhere, is longer than `bytes_max`, or is not UTF-8.
pub fn plain_path(path: &[u8], bytes_max: usize) -> Option<String> {
    if path.len() > bytes_max || path.first() == Some(&b'/') {
        return None;
    }
    let text = std::str::from_utf8(path).ok()?;
    let mut plain = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return None,
            name if name.contains('\0') => return None,
            name => plain.push(name),
        }
    }
    Some(plain.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_anything() {
        let text = b"24 SCHILY.xattr.user.x=\n27 SCHILY.xattr.user.y=\n\0=\n12 path=a\nb\n";
        assert_eq!(
            records(b"9 path=a\n").unwrap(),
            [("path".to_owned(), b"a".to_vec())]
        );
        let found = records(text).unwrap();
        assert_eq!(found[1].1, b"\n\0=");
        assert_eq!(found[2], ("path".to_owned(), b"a\nb".to_vec()));
        for broken in [
            &b"9 path=a"[..],
            b"8 path=a\n",
            b"99 path=a\n",
            b"x",
            b"5 a=\n\n",
            b"0 a=b\n",
        ] {
            assert_eq!(records(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_plain_paths_are_taken() {
        for bad in ["/a", "..", "a/../b", "a/..", "\0"] {
            assert_eq!(plain_path(bad.as_bytes(), 1000), None, "{bad:?}");
        }
        assert_eq!(plain_path(&[b'a', 0xff], 1000), None);
        assert_eq!(plain_path(b"ab", 1), None);
        assert_eq!(
            plain_path("./a//b/".as_bytes(), 1000).as_deref(),
            Some("a/b")
        );
        assert_eq!(plain_path(b"./", 1000).as_deref(), Some(""));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
            let _ = read_tar(&bytes[..], 1000, |_| Ok::<(), TarFault>(()));
        }
    }
}

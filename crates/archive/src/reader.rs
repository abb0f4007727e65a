//! The reader of newc archives: over a byte slice, with limits, and trusting nothing.

use crate::member::{S_IFMT, TRAILER};
use crate::{Error, Kind, Member, Result, check_path};

/// Digits before the name: the magic and thirteen numbers.
const HEADER_BYTES: usize = 110;

/// How much one archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub members: u64,
    pub file_bytes: u64,
    /// The contents of all members together.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            members: 65_536,
            file_bytes: 256 << 20,
            total_bytes: 1 << 30,
        }
    }
}

/// Gives the members of one archive in their order; ends at its trailer, or after the first error.
///
/// An archive without a trailer is an [`Error::Truncated`]: a caller that has read only a part may
/// then read more and begin again.
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    limits: Limits,
    members: u64,
    total_bytes: u64,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], limits: Limits) -> Self {
        Reader {
            bytes,
            offset: 0,
            limits,
            members: 0,
            total_bytes: 0,
            ended: false,
        }
    }

    /// Bytes read so far; after the trailer, the size of the archive.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The archive that follows this one, past its zero padding; `None` when nothing follows or
    /// this one has not been read to its end.
    pub fn next_archive(&self) -> Option<Reader<'a>> {
        if !self.ended {
            return None;
        }
        let rest = &self.bytes[self.offset..];
        let start = rest.iter().position(|byte| *byte != 0)?;
        Some(Reader::new(&rest[start..], self.limits))
    }

    fn read_member(&mut self) -> Result<Option<Member<'a>>> {
        let start = self.offset;
        let header = self.take(HEADER_BYTES, "a header")?;
        if &header[..6] != b"070701" {
            return Err(Error::Magic { offset: start });
        }
        let number = |index: usize, field| {
            let at = 6 + index * 8;
            parse_hex(&header[at..at + 8]).ok_or(Error::Number {
                field,
                offset: start,
            })
        };
        let inode = number(0, "inode")?;
        let mode = number(1, "mode")?;
        let uid = number(2, "uid")?;
        let gid = number(3, "gid")?;
        let links = number(4, "link count")?;
        let mtime_s = number(5, "mtime")?;
        let content_bytes = number(6, "file size")? as usize;
        let device = (number(9, "device major")?, number(10, "device minor")?);
        let name_bytes = number(11, "name size")? as usize;

        let name = self.take_name(name_bytes)?;
        self.align("the padding of a name")?;
        if name == TRAILER {
            return Ok(None);
        }
        check_path(name)?;
        self.count(name, content_bytes as u64)?;
        let content = self.take(content_bytes, "the content of a member")?;
        self.align("the padding of a member")?;
        Ok(Some(Member {
            path: name,
            kind: Kind::from_header(name, mode & S_IFMT, content, device)?,
            mode: mode & 0o7777,
            uid,
            gid,
            mtime_s,
            inode,
            links,
        }))
    }

    fn take_name(&mut self, name_bytes: usize) -> Result<&'a str> {
        let refuse = |why| Error::Name {
            name: String::new(),
            why,
        };
        if name_bytes == 0 || name_bytes > crate::member::PATH_BYTES_MAX + 1 {
            return Err(refuse("is empty or longer than 4095 bytes"));
        }
        let bytes = self.take(name_bytes, "a name")?;
        let (last, name) = bytes
            .split_last()
            .ok_or_else(|| refuse("is empty or longer than 4095 bytes"))?;
        if *last != 0 {
            return Err(refuse("does not end with a NUL"));
        }
        std::str::from_utf8(name).map_err(|_| Error::Name {
            name: String::from_utf8_lossy(name).into_owned(),
            why: "is not UTF-8",
        })
    }

    fn count(&mut self, name: &str, content_bytes: u64) -> Result<()> {
        let limit = |what, limit| Err(Error::Limit { what, limit });
        self.members += 1;
        self.total_bytes += content_bytes;
        if self.members > self.limits.members {
            return limit("the number of members".to_owned(), self.limits.members);
        }
        if content_bytes > self.limits.file_bytes {
            return limit(format!("the size of {name:?}"), self.limits.file_bytes);
        }
        if self.total_bytes > self.limits.total_bytes {
            return limit(
                "the size of the content".to_owned(),
                self.limits.total_bytes,
            );
        }
        Ok(())
    }

    fn take(&mut self, count: usize, part: &'static str) -> Result<&'a [u8]> {
        let end = self.offset.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.offset..end));
        let taken = taken.ok_or(Error::Truncated {
            part,
            offset: self.offset,
        })?;
        self.offset += count;
        Ok(taken)
    }

    fn align(&mut self, part: &'static str) -> Result<()> {
        let missing = self.offset.next_multiple_of(4) - self.offset;
        self.take(missing, part).map(drop)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Member<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let member = self.read_member().transpose();
        self.ended = !matches!(member, Some(Ok(_)));
        member
    }
}

/// Eight hexadecimal digits; unlike `from_str_radix`, no sign.
fn parse_hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| {
        Some(value << 4 | (*digit as char).to_digit(16)?)
    })
}

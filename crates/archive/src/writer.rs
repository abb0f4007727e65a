//! The writer of newc archives: the same members always give the same bytes.

use std::io::Write;

use crate::member::{TRAILER, check_target};
use crate::{Error, Kind, Member, Result, check_path};

/// Writes members one after another; [`Writer::finish`] ends the archive.
///
/// The end is aligned to four bytes, so archives may follow each other in one stream, as the
/// kernel accepts for an initramfs.
pub struct Writer<W: Write> {
    out: W,
    next_inode: u32,
    size_bytes: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Self {
        Writer {
            out,
            next_inode: 1,
            size_bytes: 0,
        }
    }

    /// Goes on after archive members that were written elsewhere, whose inode numbers end before
    /// `next_inode`.
    pub(crate) fn after(out: W, next_inode: u32) -> Self {
        Writer {
            out,
            next_inode,
            size_bytes: 0,
        }
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// An inode number not given out before, for members that are one file (see [`Member::inode`]).
    pub fn fresh_inode(&mut self) -> u32 {
        let inode = self.next_inode;
        self.next_inode = self.next_inode.wrapping_add(1).max(1);
        inode
    }

    /// Adds one member. Fails on a name that no reader would take, or when the output fails.
    pub fn add(&mut self, member: &Member) -> Result<()> {
        check_path(member.path)?;
        if let Kind::Symlink(target) = member.kind {
            check_target(member.path, target)?;
        }
        let inode = match member.inode {
            0 => self.fresh_inode(),
            given => given,
        };
        let links = match member.kind {
            Kind::Directory => member.links.max(2),
            _ => member.links.max(1),
        };
        let mode = member.kind.file_type() | (member.mode & 0o7777);
        let fields = [inode, mode, member.uid, member.gid, links, member.mtime_s];
        self.write_member(
            member.path,
            fields,
            member.kind.device(),
            member.kind.content(),
        )
    }

    /// Ends the archive and gives the output back.
    pub fn finish(mut self) -> Result<W> {
        self.write_member(TRAILER, [0, 0, 0, 0, 1, 0], (0, 0), &[])?;
        self.out.flush().map_err(Error::Write)?;
        Ok(self.out)
    }

    /// The output without an end of the archive: another writer goes on after it.
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    fn write_member(
        &mut self,
        name: &str,
        [inode, mode, uid, gid, links, mtime_s]: [u32; 6],
        (major, minor): (u32, u32),
        content: &[u8],
    ) -> Result<()> {
        let content_bytes = u32::try_from(content.len()).map_err(|_| Error::Limit {
            what: format!("the content of {name:?}"),
            limit: u64::from(u32::MAX),
        })?;
        // No longer than 4095 bytes: see check_path.
        let name_bytes = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let mut header = [b'0'; 6 + 13 * 8];
        header[..6].copy_from_slice(b"070701");
        let numbers = [
            inode,
            mode,
            uid,
            gid,
            links,
            mtime_s,
            content_bytes,
            0,
            0,
            major,
            minor,
            name_bytes,
            0,
        ];
        for (digits, number) in header[6..].chunks_exact_mut(8).zip(numbers) {
            write_hex(digits, number);
        }
        self.write(&header)?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.align()?;
        self.write(content)?;
        self.align()
    }

    fn align(&mut self) -> Result<()> {
        let missing = self.size_bytes.next_multiple_of(4) - self.size_bytes;
        self.write(&[0; 3][..missing as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::Write)?;
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Eight hexadecimal digits; `format!` takes ten times as long, and a herd has many members.
fn write_hex(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_eight_digits() {
        for number in [0, 9, 0xa, 0xdead_beef, 0x0001_0000, u32::MAX] {
            let mut digits = [0; 8];
            write_hex(&mut digits, number);
            assert_eq!(std::str::from_utf8(&digits), Ok(&*format!("{number:08X}")));
        }
    }
}

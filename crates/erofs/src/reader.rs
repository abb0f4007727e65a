//! Reading an image that anybody may have made: each place is checked against the image, each count against a limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::directory;
use crate::error::{Error, Result, malformed};
use crate::inode::{self, Data, Inode, Kind};
use crate::layout::{
    BLOCK, BLOCK_BYTES, COMPACT_BYTES, EXTENDED_BYTES, FILE_BYTES_MAX, HOLE, LINK_BYTES_MAX,
    SLOT_BYTES, u32_at,
};
use crate::superblock::Superblock;
use crate::xattr::{self, Xattrs};

/// A directory of more bytes is refused: some four million names.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// What an image is read from.
pub trait ReadAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn size_bytes(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| self.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// What a stretch of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Zeros that are written nowhere.
    Hole { length: u64 },
    /// Bytes of the image.
    Data { at: u64, length: u64 },
}

impl Extent {
    pub fn length(self) -> u64 {
        match self {
            Self::Hole { length } | Self::Data { length, .. } => length,
        }
    }
}

/// An image that is read.
#[derive(Debug)]
pub struct Image<R> {
    source: R,
    size_bytes: u64,
    superblock: Superblock,
}

impl<R: ReadAt> Image<R> {
    /// Looks at the superblock alone.
    ///
    /// # Errors
    /// It is no image, or one in a form that is not read here.
    pub fn open(source: R) -> Result<Self> {
        let size_bytes = source.size_bytes()?;
        let mut block = [0; BLOCK];
        if size_bytes < BLOCK_BYTES {
            return Err(malformed("it is shorter than a block"));
        }
        source.read_exact_at(&mut block, 0)?;
        let superblock = Superblock::decode(&block)?;
        if u64::from(superblock.blocks) * BLOCK_BYTES > size_bytes {
            return Err(malformed(format!(
                "it says that it has {} blocks, and has {size_bytes} bytes",
                superblock.blocks
            )));
        }
        Ok(Self {
            source,
            size_bytes,
            superblock,
        })
    }

    /// Bytes of the image.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many inodes it says it has. Nothing holds it to that.
    pub fn claimed_inodes(&self) -> u64 {
        self.superblock.inodes
    }

    pub fn root(&self) -> Result<Inode> {
        let root = self.inode(u64::from(self.superblock.root_nid))?;
        if root.kind != Kind::Directory {
            return Err(malformed("its root is no directory"));
        }
        Ok(root)
    }

    fn place(&self, nid: u64) -> Result<u64> {
        let start = u64::from(self.superblock.meta_block) * BLOCK_BYTES;
        nid.checked_mul(SLOT_BYTES)
            .and_then(|offset| offset.checked_add(start))
            .filter(|place| *place < self.size_bytes)
            .ok_or_else(|| malformed(format!("inode {nid} would be outside")))
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size_bytes) {
            return Err(malformed(format!("something at {at} that is not there")));
        }
        Ok(self.source.read_exact_at(buffer, at)?)
    }

    pub fn inode(&self, nid: u64) -> Result<Inode> {
        let place = self.place(nid)?;
        let mut bytes = [0; EXTENDED_BYTES];
        self.read(&mut bytes[..COMPACT_BYTES], place)?;
        let length = inode::length(&bytes);
        self.read(&mut bytes[..length], place)?;
        let epoch = (self.superblock.build_time_s, self.superblock.build_time_ns);
        let inode = Inode::decode(nid, &bytes, epoch)?;
        if inode.size_bytes > FILE_BYTES_MAX {
            return Err(Error::Limit {
                of: "bytes of a file",
                limit: FILE_BYTES_MAX,
            });
        }
        Ok(inode)
    }

    /// Where what stands behind inode and attributes begins.
    fn behind(&self, inode: &Inode) -> Result<u64> {
        let xattrs = xattr::length(inode.xattr_count);
        Ok(self.place(inode.nid)? + (inode.bytes + xattrs) as u64)
    }

    /// What a file, link or directory is at `offset`, to the end of the stretch. `offset` lies before its end.
    pub fn extent(&self, inode: &Inode, offset: u64) -> Result<Extent> {
        let size = inode.size_bytes;
        debug_assert!(offset < size);
        let extent = match inode.data {
            Data::Plain { block } => Extent::Data {
                at: u64::from(block) * BLOCK_BYTES + offset,
                length: size - offset,
            },
            Data::Inline { block } => {
                let whole = size / BLOCK_BYTES * BLOCK_BYTES;
                if offset < whole {
                    Extent::Data {
                        at: u64::from(block) * BLOCK_BYTES + offset,
                        length: whole - offset,
                    }
                } else {
                    Extent::Data {
                        at: self.behind(inode)? + (offset - whole),
                        length: size - offset,
                    }
                }
            }
            Data::Chunks { bits, indexes } => self.chunk(inode, offset, bits, indexes)?,
        };
        if let Extent::Data { at, length } = extent
            && at
                .checked_add(length)
                .is_none_or(|end| end > self.size_bytes)
        {
            return Err(malformed(format!(
                "inode {} has data that is not there",
                inode.nid
            )));
        }
        Ok(extent)
    }

    fn chunk(&self, inode: &Inode, offset: u64, bits: u8, indexes: bool) -> Result<Extent> {
        let index = offset >> bits;
        let start = index << bits;
        let end = (start + (1 << bits)).min(inode.size_bytes);
        let unit = if indexes { 8 } else { 4 };
        let table = self.behind(inode)?.next_multiple_of(unit);
        let mut entry = [0; 8];
        self.read(&mut entry[..unit as usize], table + index * unit)?;
        let block = if indexes {
            if entry[2..4] != [0, 0] {
                return Err(Error::Unsupported {
                    what: "it is on several devices",
                });
            }
            u32_at(&entry, 4)
        } else {
            u32_at(&entry, 0)
        };
        let length = end - offset;
        if block == HOLE {
            return Ok(Extent::Hole { length });
        }
        Ok(Extent::Data {
            at: u64::from(block) * BLOCK_BYTES + (offset - start),
            length,
        })
    }

    /// Fills `buffer` with a file's bytes from `offset`; gives how many there are.
    pub fn read_at(&self, inode: &Inode, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = inode.size_bytes.saturating_sub(offset);
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < wanted {
            let extent = self.extent(inode, offset + done as u64)?;
            let length = usize::try_from(extent.length()).unwrap_or(usize::MAX);
            let count = length.min(wanted - done);
            let part = &mut buffer[done..done + count];
            match extent {
                Extent::Hole { .. } => part.fill(0),
                Extent::Data { at, .. } => self.read(part, at)?,
            }
            done += count;
        }
        Ok(done)
    }

    /// Where a symbolic link leads.
    pub fn link(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.kind != Kind::Link || inode.size_bytes > LINK_BYTES_MAX {
            return Err(malformed(format!("inode {} is no link", inode.nid)));
        }
        let mut target = vec![0; inode.size_bytes as usize];
        self.read_at(inode, &mut target, 0)?;
        Ok(target)
    }

    /// What a directory names, without `.` and `..`, in the order of names: the numbers of inodes.
    pub fn list(&self, inode: &Inode) -> Result<BTreeMap<Vec<u8>, u64>> {
        if inode.kind != Kind::Directory {
            return Err(malformed(format!("inode {} is no directory", inode.nid)));
        }
        if inode.size_bytes > DIRECTORY_BYTES_MAX {
            return Err(Error::Limit {
                of: "bytes of a directory",
                limit: DIRECTORY_BYTES_MAX,
            });
        }
        let mut names = BTreeMap::new();
        let mut block = vec![0; BLOCK];
        let mut offset = 0;
        while offset < inode.size_bytes {
            let count = self.read_at(inode, &mut block, offset)?;
            for (name, nid) in directory::decode(&block[..count])? {
                if name == b"." || name == b".." {
                    continue;
                }
                if names.insert(name.to_vec(), nid).is_some() {
                    return Err(malformed("a directory with one name twice"));
                }
            }
            offset += count as u64;
        }
        Ok(names)
    }

    /// The extended attributes of an inode.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs> {
        let length = xattr::length(inode.xattr_count);
        let mut found = Xattrs::new();
        if length == 0 {
            return Ok(found);
        }
        let mut bytes = vec![0; length];
        self.read(&mut bytes, self.place(inode.nid)? + inode.bytes as u64)?;
        let (places, mut at) = xattr::shared(&bytes)?;
        let area = u64::from(self.superblock.xattr_block) * BLOCK_BYTES;
        for place in places {
            let place = area + u64::from(place) * 4;
            let left = self.size_bytes.saturating_sub(place);
            let count = left.min(xattr::ENTRY_BYTES_MAX as u64) as usize;
            let mut entry = vec![0; count];
            self.read(&mut entry, place)?;
            let (name, value, _) = xattr::decode_one(&entry)?;
            found.insert(name, value);
        }
        while at < bytes.len() {
            // mkfs.erofs may leave room behind the last.
            if bytes[at..].iter().all(|byte| *byte == 0) {
                break;
            }
            let (name, value, entry) = xattr::decode_one(&bytes[at..])?;
            found.insert(name, value);
            at += entry;
        }
        Ok(found)
    }
}

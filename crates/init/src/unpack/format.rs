//! What an archive is, by its first bytes.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Tar,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Deb,
}

/// Where the mark of POSIX and GNU tar stands.
const TAR_MARK: std::ops::Range<usize> = 257..262;

impl Format {
    /// `None` when it is nothing that is unpacked.
    pub fn of(head: &[u8]) -> Option<Format> {
        match head {
            [0x1f, 0x8b, ..] => Some(Format::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Format::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Format::Xz),
            // Its own frame, or one to be passed over (RFC 8878, section 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Some(Format::Zstd)
            }
            _ if head.starts_with(super::deb::MARK) => Some(Format::Deb),
            _ if head.get(TAR_MARK) == Some(b"ustar") => Some(Format::Tar),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_first_bytes() {
        let mut tar = [0; 512];
        tar[TAR_MARK].copy_from_slice(b"ustar");
        assert_eq!(Format::of(&tar), Some(Format::Tar));
        assert_eq!(Format::of(&tar[..200]), None);
        for (head, format) in [
            (&b"\x1f\x8b\x08"[..], Some(Format::Gzip)),
            (b"BZh91AY", Some(Format::Bzip2)),
            (b"BZhX", None),
            (b"\xfd7zXZ\0\0", Some(Format::Xz)),
            (b"\x28\xb5\x2f\xfd$", Some(Format::Zstd)),
            (b"\x51\x2a\x4d\x18", Some(Format::Zstd)),
            (b"!<arch>\ndebian-binary", Some(Format::Deb)),
            (b"PK\x03\x04", None),
            (b"", None),
            (&[0; 1024], None),
        ] {
            assert_eq!(Format::of(head), format, "{head:?}");
        }
    }
}

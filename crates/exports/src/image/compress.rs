//! Packing an initramfs so that the kernel unpacks it.

use std::io::Write;

use estive_boot::KernelTree;

use crate::ExportError;

/// 47 MiB of drivers become 10 in two seconds; level 15 takes three times as long for the same.
const ZSTD_LEVEL: i32 = 9;
const XZ_LEVEL: u32 = 6;

/// How an initramfs is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Zstd,
    Xz,
    None,
}

impl Compression {
    pub fn pack(self, archive: Vec<u8>) -> Result<Vec<u8>, ExportError> {
        let packed = match self {
            Compression::None => Ok(archive),
            Compression::Zstd => zstd::stream::encode_all(&archive[..], ZSTD_LEVEL),
            Compression::Xz => xz(&archive),
        };
        packed.map_err(ExportError::io("packing", "the initial RAM file system"))
    }

    /// Fails when the kernel says of itself that it cannot unpack this; one that says nothing of itself is believed to.
    pub fn is_known_to(self, kernel: &KernelTree) -> Result<(), ExportError> {
        let option = match self {
            Compression::None => return Ok(()),
            Compression::Zstd => "CONFIG_RD_ZSTD",
            Compression::Xz => "CONFIG_RD_XZ",
        };
        let place = kernel
            .vmlinuz
            .with_file_name(format!("config-{}", kernel.release));
        let lacks = std::fs::read_to_string(place).is_ok_and(|text| {
            let with = format!("{option}=y");
            text.contains("CONFIG_") && !text.lines().any(|line| line == with)
        });
        match lacks {
            true => Err(ExportError::CannotUnpack {
                release: kernel.release.clone(),
                option,
            }),
            false => Ok(()),
        }
    }
}

/// With the checksum that the kernel knows.
fn xz(archive: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = xz2::stream::Stream::new_easy_encoder(XZ_LEVEL, xz2::stream::Check::Crc32)?;
    let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(archive)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;

    #[test]
    fn packed_and_unpacked_again() {
        let archive = b"070701".repeat(1000);
        let pack = |compression: Compression| compression.pack(archive.clone()).unwrap();
        assert_eq!(pack(Compression::None), archive);
        assert_eq!(
            zstd::decode_all(&pack(Compression::Zstd)[..]).unwrap(),
            archive
        );
        let mut unpacked = Vec::new();
        xz2::read::XzDecoder::new(&pack(Compression::Xz)[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, archive);
    }

    #[test]
    fn a_kernel_says_what_it_unpacks() {
        let place = tempfile::tempdir().unwrap();
        let kernel = KernelTree {
            release: "6.1".into(),
            vmlinuz: place.path().join("vmlinuz-6.1"),
            modules: place.path().to_owned(),
        };
        let configure = |text: &str| fs::write(place.path().join("config-6.1"), text).unwrap();
        assert!(Compression::Zstd.is_known_to(&kernel).is_ok());
        configure("CONFIG_RD_XZ=y\n# CONFIG_RD_ZSTD is not set\n");
        assert!(Compression::Xz.is_known_to(&kernel).is_ok());
        assert!(Compression::None.is_known_to(&kernel).is_ok());
        let said = Compression::Zstd
            .is_known_to(&kernel)
            .unwrap_err()
            .to_string();
        assert!(said.contains("--compress"), "{said}");
    }
}

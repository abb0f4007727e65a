//! What a layer is known by from one boot to the next: the identity of its file system, or where it is served.

use std::io::Read;
use std::path::Path;

use estive_boot::superblock;
use sha2::{Digest, Sha256};

use crate::devices;
use crate::loaders::Layer;
use crate::shutdown::mounts::{self, Mount};

/// Of a digest: enough to tell images apart.
const DIGEST_BYTES: usize = 16;

/// The layers that are seen, bottom first.
pub fn identities(layers: &[Layer]) -> Vec<String> {
    let mounts = mounts::read();
    let seen = layers.iter().filter(|layer| layer.is_seen);
    seen.map(|layer| match layer.is_clones {
        // Its content is the herd's, and changes with it.
        true => "the layer of a clone".to_owned(),
        false => identity(&layer.directory, &mounts),
    })
    .collect()
}

fn identity(directory: &Path, mounts: &[Mount]) -> String {
    // The last one covers those before.
    let mount = mounts.iter().rfind(|mount| mount.point == directory);
    let Some(Mount { kind, source, .. }) = mount else {
        return "unknown".to_owned();
    };
    if !source.starts_with("/dev/") {
        let kind = if kind == "nfs4" { "nfs" } else { kind };
        return format!("{kind} {source}");
    }
    of_device(Path::new(source), kind)
}

/// Images are made with one UUID or none, and never change: they are known by their beginning, which tells what is in
/// them and where.
fn of_device(node: &Path, kind: &str) -> String {
    let mut text = kind.to_owned();
    let found = devices::recognise(node).ok().flatten();
    if let Some(uuid) = found.and_then(|found| found.uuid) {
        text += &format!(" UUID={uuid}");
    }
    if superblock::is_read_only(kind)
        && let Some(digest) = digest(node)
    {
        text += &format!(" sha256={digest}");
    }
    text
}

fn digest(node: &Path) -> Option<String> {
    let mut head = Vec::new();
    let file = std::fs::File::open(node).ok()?;
    file.take(superblock::HEAD_BYTES)
        .read_to_end(&mut head)
        .ok()?;
    let digest = Sha256::digest(&head);
    let bytes = digest.iter().take(DIGEST_BYTES);
    Some(bytes.map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_known_by_its_file_system_or_where_it_is_served() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let mut bytes = vec![0; 8192];
        bytes[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        bytes[1024 + 48] = 1;
        std::fs::write(&image, &bytes).unwrap();
        let one = of_device(&image, "erofs");
        assert!(one.starts_with("erofs UUID=01000000-"), "{one}");
        bytes[4096] = 1;
        std::fs::write(&image, &bytes).unwrap();
        assert_ne!(of_device(&image, "erofs"), one);
        // What is written to is the same after it.
        let text = of_device(&image, "ext4");
        assert!(!text.contains("sha256"), "{text}");

        let mounts = mounts::parse(
            b"1 1 0:1 / /u/0 ro - nfs4 10.0.0.1:/srv ro\n2 1 0:2 / /u/1 ro - virtiofs tag ro\n",
        );
        assert_eq!(identity(Path::new("/u/0"), &mounts), "nfs 10.0.0.1:/srv");
        assert_eq!(identity(Path::new("/u/1"), &mounts), "virtiofs tag");
    }
}

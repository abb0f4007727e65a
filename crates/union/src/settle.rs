//! Settling an unpacked layer over a root, so that the union of the two is what the layer means.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use estive_archive::{Manifest, OPAQUE_XATTR};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, XattrFlags, chmodat, chownat, lsetxattr};
use rustix::fs::{Stat, unlinkat};
use rustix::io::Errno;

use crate::error::{Result, UnionError, While};
use crate::unpack::Unpacked;

/// Gives the implied directories of the layer the attributes of the same directory in the root,
/// and takes away whiteouts that hide nothing.
///
/// The upper of two joined directories is the one whose attributes are seen. And overlayfs lists a
/// directory that only one layer has as it is: a whiteout in it would show as a name that is not
/// there.
pub fn settle(unpacked: &Unpacked, layer: &OwnedFd, root: &OwnedFd) -> Result<()> {
    for path in &unpacked.manifest.implied {
        if !is_hidden(&unpacked.manifest, parent(path)) {
            take_attributes(path, layer, root)?;
        }
    }
    let mut by_directory: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in &unpacked.whiteouts {
        by_directory.entry(parent(path)).or_default().push(path);
    }
    for (directory, whiteouts) in by_directory {
        let of_layer_alone = is_hidden(&unpacked.manifest, directory)
            || estive_beneath::open_directory(root, or_top(directory)).is_err();
        for path in whiteouts.into_iter().filter(|_| of_layer_alone) {
            let (above, name) = opened(layer, path)?;
            unlinkat(&above, name, AtFlags::empty())
                .doing(|| format!("removing the whiteout {path}, which hides nothing"))?;
        }
    }
    Ok(())
}

/// Empty for names at the top.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn or_top(directory: &str) -> &str {
    if directory.is_empty() { "." } else { directory }
}

/// Whether the layer hides what the root has in this directory.
pub(crate) fn is_hidden(manifest: &Manifest, directory: &str) -> bool {
    let ends = directory.match_indices('/').map(|(end, _)| end);
    ends.chain([directory.len()]).any(|end| {
        let xattrs = manifest.xattrs.get(&directory[..end]);
        xattrs.is_some_and(|xattrs| xattrs.contains_key(OPAQUE_XATTR))
    })
}

fn take_attributes(path: &str, layer: &OwnedFd, root: &OwnedFd) -> Result<()> {
    let Ok((below, name)) = estive_beneath::open_parent(root, path) else {
        return Ok(());
    };
    let Ok(status) = estive_beneath::status(&below, name) else {
        return Ok(());
    };
    let (what, advice) = match estive_beneath::kind(&status) {
        FileType::Directory => return copy_attributes(path, layer, &below, name, &status),
        FileType::Symlink => ("a symbolic link", ": put them where the link points"),
        _ => ("not a directory", ""),
    };
    Err(UnionError::Clash {
        path: path.to_owned(),
        what,
        advice,
    })
}

fn copy_attributes(
    path: &str,
    layer: &OwnedFd,
    below: &OwnedFd,
    name: &str,
    status: &Stat,
) -> Result<()> {
    let (above, name_above) = opened(layer, path)?;
    let attributes = || format!("giving {path} of the layer the owner it has in the root");
    let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(&above, name_above, Some(uid), Some(gid), no_follow)
        .and_then(|()| {
            let mode = Mode::from_raw_mode(status.st_mode);
            chmodat(&above, name_above, mode, AtFlags::empty())
        })
        .doing(attributes)?;
    let found = estive_beneath::xattrs(below, name, |attribute| {
        !attribute.starts_with("trusted.overlay.")
    })
    .doing(|| format!("reading the attributes of {path} in the root"))?;
    let inside = estive_beneath::path_of(&above, name_above);
    for (attribute, value) in found {
        match lsetxattr(&inside, &attribute, &value, XattrFlags::empty()) {
            // A tmpfs before Linux 6.6 has no user.*, and what nobody asked for is no failure.
            Err(Errno::NOTSUP) => {}
            other => other.doing(|| format!("giving {path} of the layer its {attribute}"))?,
        }
    }
    Ok(())
}

fn opened<'p>(layer: &OwnedFd, path: &'p str) -> Result<(OwnedFd, &'p str)> {
    estive_beneath::open_parent(layer, path)
        .doing(|| format!("opening the place of {path} in the layer"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use estive_archive::LayerArchive;

    use super::*;
    use crate::{Rights, unpack};

    fn opened(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    fn unpacked_into(tree: &Path, layer: LayerArchive) -> Unpacked {
        unpack(&layer.finish().unwrap(), &opened(tree), Rights::Mine).unwrap()
    }

    #[test]
    fn implied_directories_take_after_the_root() {
        let mut layer = LayerArchive::new();
        layer.file("private/file", 0o644, 0, 0, "").unwrap();
        layer.file("new/file", 0o644, 0, 0, "").unwrap();
        layer.dir("own", 0o711, 0, 0).unwrap();
        let (tree, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["private", "own"] {
            fs::create_dir(root.path().join(name)).unwrap();
            let mode = fs::Permissions::from_mode(0o2710);
            fs::set_permissions(root.path().join(name), mode).unwrap();
        }
        let unpacked = unpacked_into(tree.path(), layer);
        settle(&unpacked, &opened(tree.path()), &opened(root.path())).unwrap();
        let mode = |name: &str| tree.path().join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!(
            (mode("private"), mode("new"), mode("own")),
            (0o2710, 0o755, 0o711)
        );

        // A layer's directory over a link of the root would hide all that the link leads to.
        fs::remove_dir(root.path().join("private")).unwrap();
        std::os::unix::fs::symlink("own", root.path().join("private")).unwrap();
        let taken = settle(&unpacked, &opened(tree.path()), &opened(root.path()));
        let error = taken.unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }

    #[test]
    fn a_whiteout_stays_where_it_hides_something_or_may() {
        let mut layer = LayerArchive::new();
        for path in ["etc/a", "etc/b", "new/a", "opaque/in/a", "top"] {
            layer.whiteout(path).unwrap();
        }
        layer.opaque("opaque").unwrap();
        let (tree, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["etc", "opaque/in"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        fs::write(root.path().join("etc/a"), "").unwrap();
        let unpacked = unpacked_into(tree.path(), layer);
        settle(&unpacked, &opened(tree.path()), &opened(root.path())).unwrap();
        let left = unpacked.whiteouts.iter();
        let left: Vec<_> = left
            .filter(|path| tree.path().join(path).symlink_metadata().is_ok())
            .collect();
        assert_eq!(left, ["etc/a", "etc/b", "top"]);
    }
}

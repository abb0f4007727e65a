//! A directory that machines start from over the network: kernel, initramfs, command line, and what PXELINUX and iPXE
//! read. Whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use estive_boot::boot_loader::{self, INITRAMFS, KERNEL};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use super::{Start, WrittenFile};
use crate::ExportError;

/// Says that a directory is ours, and what is in it.
const LIST: &str = "estive-image.json";
const SUMS: &str = "SHA256SUMS";
const COMMAND_LINE: &str = "cmdline";
const IPXE: &str = "boot.ipxe";
const PXELINUX: &str = "pxelinux.cfg/default";
/// Everything that such a directory may hold.
const OURS: [&str; 8] = [
    KERNEL,
    INITRAMFS,
    COMMAND_LINE,
    IPXE,
    "pxelinux.cfg",
    PXELINUX,
    SUMS,
    LIST,
];

/// Writes `out`; a directory that was made so before is replaced in one step, one of other content is refused.
pub fn write(start: &Start, out: &Path) -> Result<Vec<WrittenFile>, ExportError> {
    let replaces = is_replaceable(out)?;
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(ExportError::io("making", parent))?;
    let aside = tempfile::Builder::new()
        .prefix(".estive-image-")
        .tempdir_in(parent)
        .map_err(ExportError::io("making a directory in", parent))?;
    let new = aside.path().join("new");
    let written = fill(start, &new)?;
    let flags = match replaces {
        true => RenameFlags::EXCHANGE,
        false => RenameFlags::NOREPLACE,
    };
    renameat_with(CWD, &new, CWD, out, flags)
        .map_err(io::Error::from)
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(ExportError::io("putting in its place", out))?;
    // What was there before goes with it.
    aside
        .close()
        .map_err(ExportError::io("removing what was in", out))?;
    Ok(written)
}

/// Whether something is there that may be replaced: an empty directory, or one of ours and nothing else in it. Anything
/// else is an error.
pub fn is_replaceable(out: &Path) -> Result<bool, ExportError> {
    let refuse = |what: String| {
        Err(ExportError::InTheWay {
            path: out.to_owned(),
            what,
        })
    };
    let status = match out.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(ExportError::io("looking at", out))?,
    };
    if !status.is_dir() {
        return refuse("is there and is no directory".into());
    }
    let names = names_in(out, "")?;
    if !names.is_empty() && !names.iter().any(|name| name == LIST) {
        return refuse("holds something else".into());
    }
    match names.iter().find(|name| !OURS.contains(&name.as_str())) {
        Some(stranger) => refuse(format!("holds {stranger:?}, which is not of estive image")),
        None => Ok(true),
    }
}

/// Everything in a directory, and in its directories.
fn names_in(out: &Path, inside: &str) -> Result<Vec<String>, ExportError> {
    let directory = out.join(inside);
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(ExportError::io("reading", &directory))? {
        let entry = entry.map_err(ExportError::io("reading", &directory))?;
        let name = format!("{inside}{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && names.len() < OURS.len() {
            names.extend(names_in(out, &format!("{name}/"))?);
        }
        names.push(name);
    }
    Ok(names)
}

fn fill(start: &Start, new: &Path) -> Result<Vec<WrittenFile>, ExportError> {
    let below = new.join("pxelinux.cfg");
    fs::create_dir_all(&below).map_err(ExportError::io("making", &below))?;
    let kernel = fs::read(&start.kernel).map_err(ExportError::io("reading", &start.kernel))?;
    let line = &start.command_line;
    let mut written = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| {
        put(&new.join(name), bytes)?;
        written.push(WrittenFile {
            name: name.to_owned(),
            size_bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        });
        Ok(())
    };
    add(KERNEL, &kernel)?;
    add(INITRAMFS, &start.initramfs)?;
    add(COMMAND_LINE, format!("{line}\n").as_bytes())?;
    add(IPXE, boot_loader::ipxe(line).as_bytes())?;
    add(PXELINUX, boot_loader::pxelinux(line).as_bytes())?;
    let list = serde_json::json!({
        "version": 1, "command_line": line, "files": &written, "contents": &start.contents,
    });
    put(&new.join(LIST), format!("{list:#}\n").as_bytes())?;
    let sums: String = written
        .iter()
        .map(|file| format!("{}  {}\n", file.sha256, file.name))
        .collect();
    put(&new.join(SUMS), sums.as_bytes())?;
    for directory in [&below, &new.to_path_buf()] {
        // Whoever serves it reads it, whatever our own mask is.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(ExportError::io("writing", directory))?;
    }
    Ok(written)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    };
    write().map_err(ExportError::io("writing", path))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Contents;

    fn start(directory: &Path) -> Start {
        let kernel = directory.join("vmlinuz-6.1");
        fs::write(&kernel, "kernel").unwrap();
        Start {
            kernel,
            initramfs: b"initramfs".to_vec(),
            command_line: "quiet root=tmpfs".into(),
            contents: Contents::default(),
        }
    }

    fn names(place: &Path) -> Vec<String> {
        let mut names = names_in(place, "").unwrap();
        names.sort();
        names
    }

    #[test]
    fn written_whole_and_replaced_whole() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("a/out");
        let mut start = start(place.path());
        let written = write(&start, &out).unwrap();
        assert_eq!(written.len(), 5);
        let mut ours = OURS.map(String::from);
        ours.sort();
        assert_eq!(names(&out), ours);
        let sums = fs::read_to_string(out.join(SUMS)).unwrap();
        assert!(sums.contains(&format!("{}  vmlinuz\n", hex(&Sha256::digest(b"kernel")))));

        start.command_line = "quiet root=other".into();
        write(&start, &out).unwrap();
        assert_eq!(
            fs::read_to_string(out.join("cmdline")).unwrap(),
            "quiet root=other\n"
        );
        start.kernel = place.path().join("gone");
        assert!(write(&start, &out).is_err());
        assert_eq!(names(&out), ours);
        // Nothing is left beside it.
        assert_eq!(names(&place.path().join("a")).len(), 1 + ours.len());
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let place = tempfile::tempdir().unwrap();
        let start = start(place.path());
        let refused = |out: &Path| {
            let error = write(&start, out).unwrap_err();
            assert!(matches!(error, ExportError::InTheWay { .. }), "{error}");
        };
        refused(&place.path().join("vmlinuz-6.1"));
        let out = place.path().join("out");
        fs::create_dir(&out).unwrap();
        write(&start, &out).unwrap();
        fs::write(out.join("pxelinux.cfg/01-mine"), "").unwrap();
        refused(&out);
        fs::remove_file(out.join("pxelinux.cfg/01-mine")).unwrap();
        fs::remove_file(out.join(LIST)).unwrap();
        refused(&out);
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&out, &link).unwrap();
        refused(&link);
    }
}

//! Ordinary machines on this host: which image files they may have, and whether another host sees the very same files.
//!
//! A move asks that the destination has the source's own file, not one like it. The source's agent locks one byte of each
//! file, far behind its end and chosen at random, and says which in the domain's archive; the destination asks whether
//! that byte is locked in what lies at the same path there. Nothing is written, and what cannot tell (a copy, another
//! file system, storage without locks) says no.

use crate::agent::{Agent, lock};
use estive_api::Problem;
use estive_api::domain_xml::{HOST_BRIDGE, ImagesXml};
use estive_beneath as beneath;
use estive_model::{DomainName, ImageDisk, ImageFile, ImageKernel, ImageSpec, Interface};
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Name of the proofs in a domain's archive.
pub const PROOFS_FILE: &str = "images.json";
/// Bytes that QEMU locks of an image that it has open (`block/file-posix.c`, `RAW_LOCK_PERM_BASE` and
/// `RAW_LOCK_SHARED_BASE`, 64 each).
const QEMUS_BYTES: (i64, i64) = (100, 164);
/// Behind the end of every image, and within what file systems and NFS take.
const NONCE_FROM: i64 = 1 << 50;

/// Which byte of a file the source has locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProof {
    /// The path in the description.
    pub path: String,
    /// From the file's start, in bytes.
    pub lock_offset: i64,
}

/// The locks that this host's agent holds for others to see, by domain.
#[derive(Debug, Default)]
pub struct Proofs(Mutex<BTreeMap<DomainName, Vec<(ImageProof, File)>>>);

impl Proofs {
    /// Locks a byte of every file of a domain that runs here, if it is not done yet. Blocks.
    pub fn give(&self, allowed: &[PathBuf], xml: &ImagesXml) -> Result<Vec<ImageProof>, Problem> {
        let mut all = lock(&self.0);
        if let Some(held) = all.get(&xml.name) {
            return Ok(held.iter().map(|(proof, _)| proof.clone()).collect());
        }
        let failed = |path: &str, error: io::Error| {
            Problem::failed(format!(
                "whether others see {path} of {} cannot be shown: {error}",
                xml.name
            ))
        };
        let mut held = Vec::new();
        for path in xml.paths() {
            let file = open(&find(allowed, path)?)?;
            // Another file may stand there by now, which QEMU does not have.
            let is_disk = xml.disks.iter().any(|disk| disk.path == path);
            if is_disk && !is_locked(&file, QEMUS_BYTES).map_err(|error| failed(path, error))? {
                return Ok(Vec::new());
            }
            let mut random = [0; 8];
            rand::rngs::OsRng
                .try_fill_bytes(&mut random)
                .map_err(|error| failed(path, io::Error::other(error)))?;
            let lock_offset = NONCE_FROM + (i64::from_ne_bytes(random) & (NONCE_FROM - 1));
            lock_byte(&file, lock_offset).map_err(|error| failed(path, error))?;
            let path = path.to_owned();
            held.push((ImageProof { path, lock_offset }, file));
        }
        let proofs = held.iter().map(|(proof, _)| proof.clone()).collect();
        all.insert(xml.name.clone(), held);
        Ok(proofs)
    }

    /// Gives the locks back.
    pub fn end(&self, domain: &DomainName) {
        lock(&self.0).remove(domain);
    }
}

impl Agent {
    /// Refuses a description whose files may not be had here, or are not here. Blocks.
    pub(crate) fn check_images(&self, xml: &ImagesXml) -> Result<(), Problem> {
        if let Some(interface) = &xml.interface
            && interface.bridge != HOST_BRIDGE
            && interface.bridge != self.config.bridge
        {
            return Err(Problem::impossible(format!(
                "{} wants the bridge {}, and domains of this host are joined to {}",
                xml.name, interface.bridge, self.config.bridge
            ))
            .advice(format!("write bridge='{HOST_BRIDGE}' for the host's own")));
        }
        for path in xml.paths() {
            open(&find(&self.config.images, path)?)?;
        }
        Ok(())
    }

    /// Refuses to take a domain in whose files are not the ones that its source has. Blocks.
    pub(crate) fn prove_images(
        &self,
        xml: &ImagesXml,
        proofs: &[ImageProof],
    ) -> Result<(), Problem> {
        let refused = |path: &str, why: &str| {
            Problem::impossible(format!(
                "{} cannot be moved to {}: {why} {path}",
                xml.name, self.config.name
            ))
            .advice(
                "put the image on storage that both hosts mount at this path, with locks that both see (NFS 4, or 3 without \
                 nolock), or its data into a volume; or stop the domain and define it there",
            )
        };
        for path in xml.paths() {
            let Some(proof) = proofs.iter().find(|proof| proof.path == path) else {
                return Err(refused(
                    path,
                    "its source does not show that it has it open now:",
                ));
            };
            if proof.lock_offset < NONCE_FROM {
                return Err(refused(path, "its source shows nothing that counts of"));
            }
            let file = open(&find(&self.config.images, path)?)?;
            match is_locked(&file, (proof.lock_offset, 1)) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(refused(
                        path,
                        "what lies there is not, or cannot be told to be, the file that its source has at",
                    ));
                }
                Err(error) => {
                    return Err(refused(path, &format!("locks cannot be seen ({error}) of")));
                }
            }
        }
        Ok(())
    }
}

/// The hypervisor's view of an ordinary machine.
pub fn spec(
    xml: &ImagesXml,
    allowed: &[PathBuf],
    bridge: &str,
    tap: String,
) -> Result<ImageSpec, Problem> {
    let file = |path: &String| find(allowed, path);
    let kernel = match &xml.kernel {
        Some(boot) => Some(ImageKernel {
            kernel: file(&boot.kernel)?,
            initrd: boot.initrd.as_ref().map(file).transpose()?,
            command_line: boot.command_line.clone(),
        }),
        None => None,
    };
    let disk = |disk: &estive_api::domain_xml::ImageDiskXml| {
        Ok(ImageDisk {
            file: file(&disk.path)?,
            format: disk.format,
            read_only: disk.read_only,
            discard: disk.discard,
            serial: disk.serial.clone(),
        })
    };
    Ok(ImageSpec {
        name: xml.name.clone(),
        uuid: xml.uuid.clone(),
        memory_mib: xml.memory_mib,
        cpus: xml.cpus,
        kernel,
        disks: xml.disks.iter().map(disk).collect::<Result<_, Problem>>()?,
        interface: xml.interface.as_ref().map(|interface| Interface {
            mac: interface.mac.clone(),
            bridge: bridge.to_owned(),
            tap,
        }),
    })
}

/// The allowed directory that a path lies beneath, the longest of them.
fn find(allowed: &[PathBuf], path: &str) -> Result<ImageFile, Problem> {
    let beneath = allowed.iter().filter_map(|top| {
        let rest = Path::new(path).strip_prefix(top).ok()?.to_str()?;
        (!rest.is_empty()).then_some((top, rest))
    });
    match beneath.min_by_key(|(_, rest)| rest.len()) {
        Some((top, rest)) => Ok(ImageFile {
            top: top.clone(),
            path: rest.to_owned(),
        }),
        None => Err(Problem::refused(format!(
            "{path} is beneath no directory that this host allows images in"
        ))
        .advice(
            "write the directory into images: of the agent's configuration and restart the agent",
        )),
    }
}

/// Through no link; a plain file.
fn open(image: &ImageFile) -> Result<File, Problem> {
    let top = beneath::open_top(&image.top);
    let file = top
        .and_then(|top| beneath::open_file(top, &image.path))
        .map_err(io::Error::from)
        .map(File::from);
    let failed = |why: String| {
        Problem::impossible(format!("{image} cannot be had on this host: {why}")).advice(
            "is it there, a plain file, through no link and on the file system of its directory in images:?",
        )
    };
    let file = file.map_err(|error| failed(error.to_string()))?;
    match file.metadata().map(|meta| meta.is_file()) {
        Ok(true) => Ok(file),
        Ok(false) => Err(failed("it is not a plain file".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn whole(kind: libc::c_int, (start, length): (i64, i64)) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Of this open file, for as long as it is open (`F_OFD_SETLK`).
fn lock_byte(file: &File, offset: i64) -> io::Result<()> {
    let wanted = whole(libc::F_RDLCK, (offset, 1));
    // SAFETY: the descriptor is open and the structure outlives the call, which only reads it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether anybody else has a lock there, shared or not (`F_OFD_GETLK`).
fn is_locked(file: &File, range: (i64, i64)) -> io::Result<bool> {
    let mut asked = whole(libc::F_WRLCK, range);
    // SAFETY: the descriptor is open and the structure outlives the call, which writes within it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) } {
        0 => Ok(i32::from(asked.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_locked_byte_is_seen_in_the_same_file_and_in_no_copy() {
        let home = tempfile::tempdir().unwrap();
        let (path, copy) = (home.path().join("disk"), home.path().join("copy"));
        fs::write(&path, "x").unwrap();
        fs::copy(&path, &copy).unwrap();
        let held = File::open(&path).unwrap();
        lock_byte(&held, NONCE_FROM + 77).unwrap();
        let other = File::open(&path).unwrap();
        let at = |file: &File, offset: i64| is_locked(file, (offset, 1)).unwrap();
        assert!(at(&other, NONCE_FROM + 77));
        assert!(!at(&other, NONCE_FROM + 78));
        assert!(!at(&File::open(&copy).unwrap(), NONCE_FROM + 77));
        drop(held);
        assert!(!at(&other, NONCE_FROM + 77));
    }

    #[test]
    fn only_what_lies_beneath_an_allowed_directory_is_found() {
        let allowed = [PathBuf::from("/srv/images"), "/srv/images/a".into()];
        let found = find(&allowed, "/srv/images/a/disk").unwrap();
        assert_eq!(
            (found.top.to_str(), found.path.as_str()),
            (Some("/srv/images/a"), "disk")
        );
        for path in ["/srv/imagesx/disk", "/srv/images", "/etc/shadow"] {
            let error = find(&allowed, path).unwrap_err();
            assert!(error.error.contains("allows images in"), "{error}");
        }
        assert!(find(&[], "/srv/images/a").is_err());
    }
}

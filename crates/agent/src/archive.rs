//! A domain's archive: taken apart into a directory, and put together again. What comes in is hostile.

use crate::files::Files;
use crate::image_locks::{ImageProof, PROOFS_FILE};
use crate::journal::sync_directory;
use estive_api::Problem;
use estive_api::domain_xml::{CONFIG_FILE, Description, IDENTITY_FILE, LAYER_FILE};
use estive_api::wire::{MAX_ARCHIVE_BYTES, MissingFiles};
use estive_boot::identity::IDENTITY_BYTES_MAX;
use estive_model::{Digest, DomainName, LAYER_DISK_BYTES};
use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use tar::EntryType;

const MAX_CONFIG_BYTES: u64 = 64 * 1024;
/// Headers that some programs add for times and owners; passed over unread.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;
const MAX_MEMBERS: usize = 64;

/// A domain's files, checked, in a directory that vanishes unless it is put in place.
#[derive(Debug)]
pub struct Staged {
    directory: tempfile::TempDir,
    /// Its description.
    pub xml: Description,
    /// Size of the layer's archive; the file itself is padded to [`LAYER_DISK_BYTES`].
    pub layer_bytes: u64,
    /// What its source shows of its images.
    pub proofs: Vec<ImageProof>,
}

impl Staged {
    /// Takes an archive (tar, plain or in gzip or bzip2) apart beneath `temporary`; shared files go to `files`.
    ///
    /// An ordinary machine needs no more than its description, which may come by itself and in no archive.
    ///
    /// Refused: members other than `config.xml`, `layer`, `identity.json` and `files/<hex>`, links and devices,
    /// anything too large, a description that is not understood, another domain's name. Files that the description
    /// names and that are neither here nor in the archive: a problem with [`MissingFiles`] in its details.
    pub fn unpack(
        archive: impl Read,
        name: &DomainName,
        temporary: &Path,
        files: &Files,
    ) -> Result<Self, Problem> {
        let failed =
            |error: io::Error| Problem::failed(format!("could not unpack {name}: {error}"));
        let directory = tempfile::Builder::new()
            .prefix("domain-")
            .tempdir_in(temporary)
            .map_err(failed)?;
        let mut archive = BufReader::new(archive);
        let members = match archive.fill_buf().map_err(failed)?.starts_with(b"<") {
            true => Members::description(archive, directory.path())?,
            false => unpack_members(archive, directory.path(), files)?,
        };
        let config = fs::read_to_string(directory.path().join(CONFIG_FILE))
            .map_err(|error| bad(format!("{CONFIG_FILE}: {error}")))?;
        let xml = Description::parse(&config).map_err(|error| {
            Problem::invalid(error.to_string())
                .details(serde_json::json!({"line": error.line, "column": error.column}))
        })?;
        if xml.name() != name {
            return Err(bad(format!(
                "{CONFIG_FILE} describes {}, not {name}",
                xml.name()
            )));
        }
        match &xml {
            Description::Clone(xml) => {
                members.need([LAYER_FILE, IDENTITY_FILE])?;
                let identity = fs::read(directory.path().join(IDENTITY_FILE))
                    .map_err(|error| bad(format!("{IDENTITY_FILE}: {error}")))?;
                crate::definition::complete_identity(&identity, xml)?;
            }
            Description::Images(_) => members.need_no([LAYER_FILE, IDENTITY_FILE])?,
        }
        let missing: Vec<Digest> = xml
            .digests()
            .into_iter()
            .filter(|digest| !files.has(digest))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(Problem::impossible(format!(
                "{} of the files that {name} names are not on this host",
                missing.len()
            ))
            .advice("send them along as files/<hex>, or put them by their digest first")
            .details(MissingFiles { missing }));
        }
        sync_directory(directory.path()).map_err(failed)?;
        Ok(Self {
            directory,
            xml,
            layer_bytes: members.layer_bytes,
            proofs: members.proofs,
        })
    }

    /// Puts the files in their place, replacing what an ended hold left there.
    pub fn install(self, place: &Path) -> io::Result<()> {
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        let from = self.directory.keep();
        fs::rename(&from, place).inspect_err(|_| {
            let _ = fs::remove_dir_all(&from);
        })?;
        sync_directory(place.parent().unwrap_or(Path::new(".")))
    }
}

fn bad(reason: impl std::fmt::Display) -> Problem {
    Problem::invalid(format!("the domain's archive cannot be taken: {reason}"))
}

/// What was found in an archive.
#[derive(Default)]
struct Members {
    seen: HashSet<String>,
    layer_bytes: u64,
    proofs: Vec<ImageProof>,
}

impl Members {
    /// A description that came by itself.
    fn description(from: impl Read, directory: &Path) -> Result<Self, Problem> {
        let mut text = Vec::new();
        from.take(MAX_CONFIG_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(bad)?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(bad(format!(
                "the description has more than {MAX_CONFIG_BYTES} bytes"
            )));
        }
        let target = directory.join(CONFIG_FILE);
        store(&mut &text[..], text.len() as u64, &target, None).map_err(bad)?;
        Ok(Self {
            seen: HashSet::from([CONFIG_FILE.to_owned()]),
            ..Self::default()
        })
    }

    fn need<const N: usize>(&self, names: [&str; N]) -> Result<(), Problem> {
        match names.into_iter().find(|name| !self.seen.contains(*name)) {
            Some(name) => Err(bad(format!("it lacks {name}"))),
            None => Ok(()),
        }
    }

    /// An ordinary machine has nothing that a clone has.
    fn need_no<const N: usize>(&self, names: [&str; N]) -> Result<(), Problem> {
        match names.into_iter().find(|name| self.seen.contains(*name)) {
            Some(name) => Err(bad(format!(
                "it has {name}, and a domain with image files reads none"
            ))),
            None => Ok(()),
        }
    }
}

fn unpack_members(
    archive: impl BufRead,
    directory: &Path,
    files: &Files,
) -> Result<Members, Problem> {
    let failed =
        |error: io::Error| Problem::failed(format!("could not store the domain's files: {error}"));
    let (mut layer_bytes, mut proofs) = (0, Vec::new());
    let mut seen = HashSet::new();
    let plain = decompressed(archive).map_err(bad)?;
    // Raw: nothing is done for us, neither long names read into memory nor sparse files laid out.
    let mut archive = tar::Archive::new(plain.take(2 * MAX_ARCHIVE_BYTES));
    for member in archive.entries().map_err(bad)?.raw(true) {
        let mut member = member.map_err(bad)?;
        let path = member.path_bytes().into_owned();
        let path = std::str::from_utf8(&path).map_err(|_| bad("a member's name is not UTF-8"))?;
        let path = path.strip_prefix("./").unwrap_or(path);
        if seen.len() >= MAX_MEMBERS {
            return Err(bad(format!("it has more than {MAX_MEMBERS} members")));
        }
        match member.header().entry_type() {
            EntryType::XHeader | EntryType::XGlobalHeader
                if member.size() <= MAX_EXTENSION_BYTES =>
            {
                seen.insert(format!("header {}", seen.len()));
                continue;
            }
            EntryType::Directory if matches!(path, "" | "." | "files" | "files/") => continue,
            EntryType::Regular => {}
            _ => {
                return Err(bad(format!(
                    "{:?} is not a plain file",
                    path.chars().take(80).collect::<String>()
                )));
            }
        }
        if !seen.insert(path.to_owned()) {
            return Err(bad(format!("{path:?} comes twice")));
        }
        let size = member.size();
        let limited = |limit: u64| match size {
            size if size <= limit => Ok(()),
            size => Err(bad(format!("{path:?} has {size} bytes, more than {limit}"))),
        };
        let target = directory.join(path.rsplit('/').next().unwrap_or(path));
        match path {
            CONFIG_FILE => {
                limited(MAX_CONFIG_BYTES)?;
                store(&mut member, size, &target, None).map_err(bad)?;
            }
            IDENTITY_FILE => {
                limited(IDENTITY_BYTES_MAX as u64)?;
                store(&mut member, size, &target, None).map_err(bad)?;
            }
            PROOFS_FILE => {
                limited(MAX_CONFIG_BYTES)?;
                proofs = serde_json::from_reader((&mut member).take(size))
                    .map_err(|error| bad(format!("{PROOFS_FILE}: {error}")))?;
            }
            LAYER_FILE => {
                limited(LAYER_DISK_BYTES)?;
                store(&mut member, size, &target, Some(LAYER_DISK_BYTES)).map_err(bad)?;
                layer_bytes = size;
            }
            _ => {
                let digest = path
                    .strip_prefix("files/")
                    .and_then(|hex| Digest::new(format!("sha256:{hex}")).ok())
                    .ok_or_else(|| {
                        bad(format!(
                            "{:?} is none of {CONFIG_FILE}, {LAYER_FILE}, {IDENTITY_FILE} and files/<hex>",
                            path.chars().take(80).collect::<String>()
                        ))
                    })?;
                limited(MAX_ARCHIVE_BYTES)?;
                let taken = files.take(&digest, &mut member, MAX_ARCHIVE_BYTES);
                taken.map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge => {
                        bad(format!("{path}: {error}"))
                    }
                    _ => failed(error),
                })?;
            }
        }
    }
    let members = Members {
        seen,
        layer_bytes,
        proofs,
    };
    members.need([CONFIG_FILE])?;
    Ok(members)
}

/// Writes a member's `size` bytes, sparse up to `padded`.
fn store(from: &mut impl Read, size: u64, target: &Path, padded: Option<u64>) -> io::Result<()> {
    let mut file = fs::File::create_new(target)?;
    let copied = io::copy(&mut from.take(size), &mut file)?;
    if copied != size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it ends within a member",
        ));
    }
    if let Some(padded) = padded {
        file.set_len(padded)?;
    }
    file.sync_all()
}

/// By the first bytes: gzip (RFC 1952), bzip2, or as it is.
fn decompressed<'a>(mut archive: impl io::BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = archive.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(archive))
    } else if start.starts_with(b"BZh") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(archive))
    } else {
        Box::new(archive)
    })
}

/// Writes a domain's archive, with the first bytes of this layer; with `files`, the shared ones too.
pub fn pack(
    to: impl Write,
    place: &Path,
    (layer, layer_bytes): (&Path, u64),
    files: Option<(&Files, &Description)>,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    let mut add = |name: &str, path: &Path, size: Option<u64>| -> io::Result<()> {
        let file = fs::File::open(path)?;
        let size = match size {
            Some(size) => size,
            None => file.metadata()?.len(),
        };
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(0);
        archive.append_data(&mut header, name, file.take(size))
    };
    add(CONFIG_FILE, &place.join(CONFIG_FILE), None)?;
    add(LAYER_FILE, layer, Some(layer_bytes))?;
    add(IDENTITY_FILE, &place.join(IDENTITY_FILE), None)?;
    if let Some((files, xml)) = files {
        for digest in xml.digests() {
            add(
                &format!("files/{}", digest.hex()),
                &files.path(digest),
                None,
            )?;
        }
    }
    archive.into_inner()?.flush()
}

/// Writes the archive of an ordinary machine: its description, and what shows which files it has.
pub fn pack_images(to: impl Write, place: &Path, proofs: &[ImageProof]) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    let mut add = |name: &str, content: &[u8]| -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        archive.append_data(&mut header, name, content)
    };
    add(CONFIG_FILE, &fs::read(place.join(CONFIG_FILE))?)?;
    if !proofs.is_empty() {
        add(PROOFS_FILE, &serde_json::to_vec(proofs)?)?;
    }
    archive.into_inner()?.flush()
}

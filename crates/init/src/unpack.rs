//! `unpack=`: archives of the root, unpacked over it into the clone's memory: software that a
//! stateless clone has besides.
//!
//! An archive is told by its first bytes. What is wrong with one stops the boot: half of a program
//! is worse than none.

mod deb;
mod format;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use estive_boot::unpack_line::UnpackLine;
use estive_union::{DirectoriesThere, Over, OverLimits, Rights};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatvfs, openat2, statfs};
use rustix::io::Errno;

use crate::console::say;
use crate::failure::{Failure, Result, While, fail};
use crate::root::UNION;
use format::Format;

/// statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
/// Archives in one directory.
const ARCHIVES_MAX: usize = 4096;
/// Files of all archives together.
const NAMES_MAX: u64 = 500_000;
/// What the clone's init needs at least of the memory that is free now.
const RESERVE_BYTES: u64 = 24 << 20;

/// Unpacks what the line names over the union, whose uppermost layer must be memory.
pub fn unpack(line: &UnpackLine, union: &OwnedFd) -> Result<()> {
    if !is_top_memory() {
        return fail(
            "unpack= unpacks into memory, and the uppermost layer is none: end root= with `;tmpfs`",
        );
    }
    let limits = OverLimits {
        bytes: free_bytes(union)?,
        names: NAMES_MAX,
    };
    let mut over = Over::new(union, Rights::Root, limits);
    for path in &line.paths {
        let there = open(union, path)?;
        match kind(&there, path)? {
            FileType::RegularFile => one(path, there, &mut over)?,
            FileType::Directory => {
                for name in names(&there, path)? {
                    let path = format!("{}/{name}", path.trim_end_matches('/'));
                    let there = open(union, &path)?;
                    match kind(&there, &path)? {
                        FileType::RegularFile => one(&path, there, &mut over)?,
                        _ => return fail(format!("unpack={path}: {NOT_ONE}")),
                    }
                }
            }
            _ => return fail(format!("unpack={path}: {NOT_ONE}")),
        }
    }
    Ok(())
}

const NOT_ONE: &str = "it is no archive: tar, tar.gz, tar.bz2, tar.xz, tar.zst and .deb are, and a directory may hold nothing else (names that begin with a dot are passed over)";

/// A path of the union as its own programs will see it.
fn open(union: &OwnedFd, path: &str) -> Result<OwnedFd> {
    // Waits for nobody, whatever it is.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(union, path, flags, Mode::empty(), resolve).map_err(|errno| {
        Failure(match errno {
            Errno::NOENT => format!("unpack={path}: there is no such file in the root"),
            errno => format!("unpack={path}: opening it: {errno}"),
        })
    })
}

fn kind(there: &OwnedFd, path: &str) -> Result<FileType> {
    let status = fstat(there).doing(|| format!("unpack={path}: looking at it"))?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

/// What a directory holds, in the order of its names.
fn names(directory: &OwnedFd, path: &str) -> Result<Vec<String>> {
    let listed = estive_beneath::names(directory, ARCHIVES_MAX)
        .doing(|| format!("unpack={path}: listing it"))?;
    let Some(listed) = listed else {
        return fail(format!(
            "unpack={path}: it has more than {ARCHIVES_MAX} files"
        ));
    };
    let mut names = Vec::new();
    for name in listed {
        match name.into_string() {
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => names.push(name),
            Err(name) => return fail(format!("unpack={path}: the name {name:?} is not UTF-8")),
        }
    }
    Ok(names)
}

fn one(path: &str, file: OwnedFd, over: &mut Over) -> Result<()> {
    let failed = |failure: Failure| Failure(format!("unpack={path}: {}", failure.0));
    let mut file = BufReader::with_capacity(64 << 10, File::from(file));
    let format = head(&mut file).map_err(failed)?;
    let names = match format {
        Some(Format::Deb) => deb::unpack(file, over),
        Some(format) => stream(format, file)
            .and_then(|stream| Ok(over.unpack(stream, DirectoriesThere::Change)?)),
        None => fail(NOT_ONE),
    };
    let names = names.map_err(failed)?;
    say(&format!("unpacked {path}: {names} files"));
    Ok(())
}

/// What a stream is, by its first bytes, which stay to be read.
fn head(stream: &mut impl BufRead) -> Result<Option<Format>> {
    let bytes = stream.fill_buf().doing(|| "reading it".into())?;
    Ok(Format::of(bytes))
}

/// The tar stream inside a compressed one.
fn stream<'s>(format: Format, stream: impl BufRead + 's) -> Result<Box<dyn Read + 's>> {
    Ok(match format {
        Format::Tar => Box::new(stream),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        Format::Xz => {
            let limit_bytes = available_bytes()? / 2;
            let decoder =
                xz2::stream::Stream::new_stream_decoder(limit_bytes, xz2::stream::CONCATENATED)
                    .doing(|| "decompressing it".into())?;
            Box::new(xz2::bufread::XzDecoder::new_stream(stream, decoder))
        }
        Format::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(stream).doing(|| "decompressing it".into())?,
        ),
        Format::Deb => return fail("a package inside of a package is not unpacked"),
    })
}

/// Whether what is written to the union stays in memory.
fn is_top_memory() -> bool {
    let unions = format!("{UNION}/.unions");
    let names = fs::read_dir(&unions).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let top = names.filter_map(|name| name.parse::<u32>().ok()).max();
    // Of a clone without `root=` it has a name of its own.
    let top = top.map_or_else(|| "memory".to_owned(), |number| number.to_string());
    statfs(format!("{unions}/{top}")).is_ok_and(|status| status.f_type == TMPFS_MAGIC)
}

/// How much fits into the clone's memory: its uppermost layer says what it may take, the kernel what
/// there is.
fn free_bytes(union: &OwnedFd) -> Result<u64> {
    let status = fstatvfs(union).doing(|| "asking how much memory is free".into())?;
    let of_layer = status.f_bavail.saturating_mul(status.f_frsize);
    let of_machine = available_bytes()?.saturating_sub(RESERVE_BYTES);
    // A tmpfs without a limit says nothing.
    Ok(match status.f_blocks {
        0 => of_machine,
        _ => of_layer.min(of_machine),
    })
}

/// MemAvailable of proc_meminfo(5).
fn available_bytes() -> Result<u64> {
    let text =
        fs::read_to_string("/proc/meminfo").doing(|| "asking how much memory is free".into())?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    match kib {
        Some(kib) => Ok(kib << 10),
        None => fail("the kernel does not say how much memory is free"),
    }
}

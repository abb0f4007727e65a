//! A Debian package: its files are unpacked, its scripts are named and not run (deb(5)).
//!
//! The outer archive is read here: a package has three members with short names, and the libraries
//! that know all that `ar` ever was read names of any length into memory.

use std::io::{self, BufRead, BufReader, Read};

use estive_archive::{TarFault, TarMember, read_tar};
use estive_union::{DirectoriesThere, Over};

use super::{head, stream};
use crate::console::say;
use crate::failure::{Failure, Result, While, fail};

pub const MARK: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// What dpkg would run when it unpacks and configures; `config` is debconf's.
const SCRIPTS: [&str; 3] = ["preinst", "postinst", "config"];
/// Of the list of control files.
const CONTROL_BYTES_MAX: u64 = 64 << 20;

/// Unpacks the files of a package; says how many there were.
pub fn unpack(mut file: impl BufRead, over: &mut Over) -> Result<u64> {
    skip(&mut file, MARK.len() as u64)?;
    let mut is_package = false;
    while let Some((name, size_bytes)) = header(&mut file)? {
        let mut content = (&mut file).take(size_bytes);
        match name.split_once('.').map_or(name.as_str(), |(stem, _)| stem) {
            "debian-binary" => {
                let mut version = [0; 2];
                content.read_exact(&mut version).doing(cut_short)?;
                if version != *b"2." {
                    return fail("it is a package of another form than 2.0");
                }
                is_package = true;
            }
            _ if !is_package => return fail("it is an ar archive, but no Debian package"),
            "control" => scripts(&mut content)?,
            "data" => {
                let mut content = BufReader::new(content);
                let Some(format) = head(&mut content)? else {
                    return fail(format!(
                        "its {name} is neither tar, gz, bz2, xz nor zst: repack it with dpkg-deb -Zxz"
                    ));
                };
                let files = stream(format, content)?;
                return Ok(over.unpack(files, DirectoriesThere::Stay)?);
            }
            _ => {}
        }
        let rest = content.limit();
        skip(&mut file, rest + size_bytes % 2)?;
    }
    fail("it is cut short: it has no files (data.tar)")
}

fn cut_short() -> String {
    "it is cut short".to_owned()
}

/// The next member's name and size; `None` at the end.
fn header(file: &mut impl BufRead) -> Result<Option<(String, u64)>> {
    if file.fill_buf().doing(cut_short)?.is_empty() {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).doing(cut_short)?;
    match parse_header(&header) {
        Some(found) => Ok(Some(found)),
        None => fail("it has a header that ar(5) does not know"),
    }
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(header).ok()?;
    // A slash ends the name in the System V form.
    let name = text.get(..16)?.trim_end().trim_end_matches('/');
    let size_bytes = text.get(48..58)?.trim_end().parse().ok()?;
    let is_whole = text.ends_with("`\n") && !name.is_empty();
    is_whole.then(|| (name.to_owned(), size_bytes))
}

fn skip(file: &mut impl Read, bytes: u64) -> Result<()> {
    let skipped = io::copy(&mut file.take(bytes), &mut io::sink()).doing(cut_short)?;
    match skipped == bytes {
        true => Ok(()),
        false => fail(cut_short()),
    }
}

/// Says which scripts of the package are not run.
fn scripts(content: &mut impl Read) -> Result<()> {
    let mut content = BufReader::new(content);
    let Some(format) = head(&mut content)? else {
        return fail("its control.tar is neither tar, gz, bz2, xz nor zst");
    };
    let mut found = Vec::new();
    let mut note = |member: TarMember<_>| {
        if SCRIPTS.contains(&member.path.as_str()) {
            found.push(member.path);
        }
        Ok::<(), TarFault>(())
    };
    let stream = stream(format, content)?.take(CONTROL_BYTES_MAX);
    read_tar(stream, 4095, &mut note)
        .map_err(|fault| Failure(format!("its control.tar: {fault}")))?;
    if !found.is_empty() {
        say(&format!(
            "the next package has scripts that are not run here: {}",
            found.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, size: &str, end: &str) -> [u8; HEADER_BYTES] {
        let text = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}{end}",
            0, 0, 0, 100644
        );
        text.as_bytes().try_into().unwrap()
    }

    #[test]
    fn headers_are_read() {
        let read = |name, size, end| parse_header(&line(name, size, end));
        let found = Some(("data.tar.xz".to_owned(), 12));
        assert_eq!(read("data.tar.xz", "12", "`\n"), found);
        assert_eq!(read("data.tar.xz/", "12", "`\n"), found);
        for (name, size, end) in [
            ("a", "-1", "`\n"),
            ("a", "", "`\n"),
            ("", "1", "`\n"),
            ("a", "1", "xx"),
        ] {
            assert_eq!(read(name, size, end), None, "{name} {size}");
        }
    }
}

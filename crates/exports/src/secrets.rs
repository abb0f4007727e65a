//! What in a sealed image looks like a secret: private keys, tokens of known forms, assignments to names that speak of
//! secrets. Told are place and kind, never the secret.
//!
//! It is a warning, no proof: what is compressed, encoded or in a data base is not seen, and what packages bring
//! (/usr but /usr/local, the lists of package managers) is not looked at.

mod line;

use std::fs::File;
use std::path::Path;

use estive_erofs::{Image, Kind, Limits, Visit};
use serde::Serialize;

use crate::ExportError;
use crate::seal::shown;

/// Of each file its beginning is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of all files together.
const BYTES_MAX: u64 = 512 << 20;
/// Findings that are told; beyond, they are counted.
const TOLD_MAX: usize = 500;
/// Findings that are told of one file.
const OF_A_FILE_MAX: usize = 5;

/// Directories of packages and of what is derived.
const PASSED: &[&[u8]] = &[
    b"boot",
    b"bin",
    b"sbin",
    b"lib",
    b"lib32",
    b"lib64",
    b"etc/ssl/certs",
    b"etc/ca-certificates",
    b"etc/pki/ca-trust",
    b"var/lib/dpkg",
    b"var/lib/rpm",
    b"var/lib/pacman",
    b"var/cache",
];

/// Something that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// From the root.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    pub kind: &'static str,
}

/// What a scan has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scan {
    pub findings: Vec<Finding>,
    /// All of them, also those that are not named.
    pub count: u64,
    pub files: u64,
    pub bytes: u64,
    /// Files of which only the beginning, or nothing, was read: they or all together are too long.
    pub cut_short: u64,
}

/// Looks through an image.
///
/// # Errors
/// The file cannot be read, or is no sound image.
pub fn scan(image: &Path) -> Result<Scan, ExportError> {
    let file = File::open(image).map_err(ExportError::io("reading the image", image))?;
    let wrong = |source| ExportError::Image {
        doing: "looking for secrets in",
        path: image.to_owned(),
        source,
    };
    let image = Image::open(file).map_err(wrong)?;
    let mut scan = Scan::default();
    let mut buffer = vec![0; FILE_BYTES_MAX as usize];
    image
        .walk(Limits::default(), &mut |entry| {
            let path = entry.path.as_slice();
            if entry.inode.kind == Kind::Directory {
                let of_packages = PASSED.contains(&path)
                    || (path.starts_with(b"usr/")
                        && path != b"usr/local"
                        && !path.starts_with(b"usr/local/"));
                return Ok(if of_packages {
                    Visit::Past
                } else {
                    Visit::Below
                });
            }
            if entry.inode.kind != Kind::File || entry.inode.size_bytes == 0 {
                return Ok(Visit::Past);
            }
            if scan.bytes >= BYTES_MAX {
                scan.cut_short += 1;
                return Ok(Visit::Past);
            }
            let count = image.read_at(&entry.inode, &mut buffer, 0)?;
            scan.files += 1;
            scan.bytes += count as u64;
            scan.cut_short += u64::from(entry.inode.size_bytes > count as u64);
            let mut of_file = 0;
            for (line, kind) in in_file(path, &buffer[..count]) {
                scan.count += 1;
                of_file += 1;
                if of_file <= OF_A_FILE_MAX && scan.findings.len() < TOLD_MAX {
                    scan.findings.push(Finding {
                        path: shown(path),
                        line,
                        kind,
                    });
                }
            }
            Ok(Visit::Past)
        })
        .map_err(wrong)?;
    Ok(scan)
}

/// Lines with what they hold.
fn in_file<'a>(
    path: &[u8],
    bytes: &'a [u8],
) -> impl Iterator<Item = (usize, &'static str)> + use<'a> {
    let start = &bytes[..bytes.len().min(4096)];
    let text = if start.contains(&0) { &[] } else { bytes };
    // Their hashes are what these files are for.
    let hashes_belong = matches!(
        path,
        b"etc/shadow" | b"etc/shadow-" | b"etc/gshadow" | b"etc/gshadow-"
    );
    let mut lines = (1..).zip(text.split(|byte| *byte == b'\n')).peekable();
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            let next = lines.peek().map(|(_, line)| *line);
            if let Some(kind) = line::kind(line, next, hashes_belong) {
                return Some((number, kind));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        in_file(path.as_bytes(), text.as_bytes()).collect()
    }

    #[test]
    fn secrets_are_seen_by_their_form() {
        let key = format!(
            "# mine\n-----BEGIN OPENSSH {} KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\n",
            "PRIVATE"
        );
        assert_eq!(kinds("opt/x", &key), [(2, "private key")]);
        let token = format!("url = x\nghp_{}\n", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        assert_eq!(kinds("root/notes", &token), [(2, "token of GitHub")]);
        let cases = [
            ("DB_PASSWORD=Tr0ub4dor&3x", "password"),
            ("api_key: \"9f8e7d6c5b4a39281706f5e4d3c2b1a0\"", "secret"),
            (
                "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
                "secret",
            ),
            (
                "remote = https://ann:s3cr3tw0rd@example.org/x.git",
                "password in an address",
            ),
            (
                "root:$6$abcdefgh$0123456789abcdefghijklmnopqrstuvwxyz0123456789:1",
                "password hash",
            ),
        ];
        for (line, kind) in cases {
            assert_eq!(kinds("srv/app/.env", line), [(1, kind)], "{line}");
        }
    }

    #[test]
    fn what_only_speaks_of_secrets_is_none() {
        let quiet = [
            "PASSWORD=",
            "password = changeme",
            "password: ${DB_PASSWORD}",
            "# password=Tr0ub4dor&3 is what we do not write",
            "token = <your token here>",
            "secret_file = /etc/app/secret.key",
            "PasswordAuthentication no",
            "password requisite pam_deny.so",
            "tokens: aaaaaaaaaaaaaaaaaaaaaaaa",
            "-----BEGIN CERTIFICATE-----",
            "passwd: files systemd",
            "grep -q '-----BEGIN RSA PRIVATE KEY-----' \"$1\"",
        ];
        for line in quiet {
            assert_eq!(kinds("etc/app.conf", line), [], "{line}");
        }
        assert_eq!(kinds("bin/x", "\0password=Tr0ub4dor&3"), []);
        let hash = "root:$6$abcdefgh$0123456789abcdefghijklmnopqrstuvwxyz0123456789:1";
        assert_eq!(kinds("etc/shadow", hash), []);
    }
}

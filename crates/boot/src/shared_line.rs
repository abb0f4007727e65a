//! The words `estive.shared=`: directories of servers that the running system writes to, mounted over its root, outside
//! the union.
//!
//! ```text
//! estive.shared = place "=" device      device: as in root=, of the loader nfs alone
//! place         = an absolute path of the root, of letters, digits and ._-+@
//! ```

use crate::loaders::{Access, Needs, Root, Stage, nfs};

/// The word's name; there may be several.
pub const SHARED_WORD: &str = "estive.shared";
/// One line has that many.
pub const SHARED_MAX: usize = 16;
const PLACE_BYTES_MAX: usize = 255;
/// What init and the kernel have there would be lost.
const TAKEN: [&str; 6] = ["/dev", "/proc", "/sys", "/run", "/.unions", "/.estive"];

/// A directory of a server, and where it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDirectory {
    /// Absolute.
    pub at: String,
    pub from: nfs::Options,
    pub is_read_only: bool,
}

impl SharedDirectory {
    /// From the text behind `estive.shared=`.
    pub fn parse(text: &str) -> Result<SharedDirectory, String> {
        let (at, device) = text
            .split_once('=')
            .ok_or("write /PLACE=nfs:SERVER:EXPORT")?;
        check_place(at)?;
        let root = Root::parse(device).map_err(|problem| problem.to_string())?;
        match &root.devices[..] {
            [device] => match &device.stages[..] {
                [Stage::Nfs(options)] => Ok(SharedDirectory {
                    at: at.to_owned(),
                    from: options.clone(),
                    is_read_only: device.access == Access::ReadOnly,
                }),
                _ => {
                    Err("only a directory of an NFS server can be shared: nfs:SERVER:EXPORT".into())
                }
            },
            _ => Err("it is one directory of one server".into()),
        }
    }

    /// Adds what mounting one needs.
    pub fn add_needs(needs: &mut Needs) {
        needs.network = true;
        needs.module("nfs");
        needs.if_there(&["nfsv3", "nfsv4"]);
    }
}

/// Whether a directory may be mounted there.
pub fn check_place(at: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-+@".contains(c);
    let fits = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(fits);
    let parts = at.strip_prefix('/').map(|rest| rest.split('/'));
    if at.len() > PLACE_BYTES_MAX || !parts.is_some_and(|mut parts| parts.all(fits)) {
        return Err(format!(
            "{at:?} is no place to mount a directory: write an absolute path of letters, digits and ._-+@"
        ));
    }
    if TAKEN.iter().any(|taken| is_within(at, taken)) {
        return Err(format!("{at} belongs to the system; mount it elsewhere"));
    }
    Ok(())
}

/// Whether one path is the other, or lies in it.
pub fn is_within(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_and_what_is_wrong_is_said() {
        let text = "/srv/home=nfs:10.77.0.9:/home:vers=3:port=2049:mountport=2049:actimeo=1";
        let shared = SharedDirectory::parse(text).unwrap();
        assert_eq!(
            (shared.at.as_str(), shared.is_read_only),
            ("/srv/home", false)
        );
        assert_eq!(shared.from.export, "/home");
        assert!(
            SharedDirectory::parse("/a=nfs:a:/b:ro")
                .unwrap()
                .is_read_only
        );
        for (wrong, says) in [
            ("/home", "write /PLACE="),
            ("home=nfs:a:/b", "absolute"),
            ("/=nfs:a:/b", "absolute"),
            ("/a/../b=nfs:a:/b", "absolute"),
            ("/a//b=nfs:a:/b", "absolute"),
            ("/a,b=nfs:a:/b", "absolute"),
            ("/proc/x=nfs:a:/b", "belongs"),
            ("/run=nfs:a:/b", "belongs"),
            ("/home=/dev/sda", "only a directory"),
            ("/home=loop+nfs:/x:a:/b", "only a directory"),
            ("/home=nfs:a:/b;nfs:a:/c", "one directory"),
            ("/home=nfs:a", "EXPORT"),
        ] {
            let said = SharedDirectory::parse(wrong).unwrap_err();
            assert!(said.contains(says), "{wrong}: {said}");
        }
        check_place("/running").unwrap();
    }
}

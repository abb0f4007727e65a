//! Who asks, and acting as that user: the kernel then makes all checks, with lists and groups.
//!
//! The identity of file system calls belongs to a thread on Linux (credentials(7), setfsuid(2)); setting it takes away
//! the rights of root over files, and setting it back returns them. The right to what a file system keeps for root
//! (CAP_SYS_RESOURCE) is not among those, and goes separately, as in the kernel's own server.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::status::{Fault, Status};

/// Groups besides the first that AUTH_SYS carries (RFC 5531, appendix A).
pub const MOST_GROUPS: usize = 16;
/// Who nobody in particular is.
pub const NOBODY: u32 = 65534;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Caller {
    /// This server itself.
    pub fn root() -> Caller {
        Caller {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }

    pub fn nobody() -> Caller {
        Caller {
            uid: NOBODY,
            gid: NOBODY,
            groups: Vec::new(),
        }
    }

    /// Root of a client is nobody here, and so is its group.
    pub fn squashed(mut self) -> Caller {
        let squash = |id: &mut u32| {
            if *id == 0 {
                *id = NOBODY;
            }
        };
        squash(&mut self.uid);
        squash(&mut self.gid);
        self.groups.iter_mut().for_each(squash);
        self
    }

    /// Does this with the rights of the caller. What it starts must not outlive it.
    pub fn act<T>(&self, done: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        if self.uid == 0 && self.gid == 0 {
            return done();
        }
        // Set back also when `done` panics: the thread serves others afterwards.
        let _own = Own::leave(self).map_err(|_| Status::ServerFault)?;
        done()
    }
}

/// The identity of this thread to return to.
struct Own {
    groups: Vec<u32>,
    gid: u32,
    rights: CapabilitySets,
}

impl Own {
    fn leave(caller: &Caller) -> Result<Own, Errno> {
        let groups = rustix::process::getgroups()?;
        let own = Own {
            groups: groups.iter().map(|group| group.as_raw()).collect(),
            gid: rustix::process::getegid().as_raw(),
            rights: capabilities(None)?,
        };
        set_groups(&caller.groups)?;
        set_fs(libc::SYS_setfsgid, caller.gid)?;
        set_fs(libc::SYS_setfsuid, caller.uid)?;
        if caller.uid != 0 {
            let mut rights = capabilities(None)?;
            rights.effective.remove(CapabilitySet::SYS_RESOURCE);
            set_capabilities(None, rights)?;
        }
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let back = set_fs(libc::SYS_setfsuid, 0)
            .and_then(|()| set_fs(libc::SYS_setfsgid, self.gid))
            .and_then(|()| set_groups(&self.groups))
            .and_then(|()| set_capabilities(None, self.rights));
        if back.is_err() {
            // A thread that serves the next caller as this one would be worse than none.
            std::process::abort();
        }
    }
}

/// Of this thread alone: the C library's function sets it for all.
fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many ids as are there.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    match result {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// setfsuid and setfsgid never fail, they tell what was: the second call asks whether the first did it.
fn set_fs(call: libc::c_long, id: u32) -> Result<(), Errno> {
    // SAFETY: numbers alone; all ones is no identity and changes nothing.
    let now = unsafe {
        libc::syscall(call, id);
        libc::syscall(call, u32::MAX)
    };
    match u32::try_from(now) == Ok(id) {
        true => Ok(()),
        false => Err(Errno::PERM),
    }
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_caller_has_its_rights_and_the_thread_is_root_again() {
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("closed");
        std::fs::write(&closed, "x").unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let caller = Caller {
            uid: 1000,
            gid: 1000,
            groups: vec![7, 8],
        };
        let error = caller.act(|| std::fs::read(&closed).map_err(|_| Status::Acces.into()));
        assert_eq!(error, Err(Fault::Status(Status::Acces)));
        assert_eq!(std::fs::read(&closed).unwrap(), b"x");
        let caught = std::panic::catch_unwind(|| caller.act::<()>(|| panic!("on purpose")));
        assert!(caught.is_err());
        assert_eq!(std::fs::read(&closed).unwrap(), b"x");
    }

    #[test]
    fn what_a_file_system_keeps_for_root_is_for_no_caller() {
        let rights = || capabilities(None).map_err(Fault::from);
        let own = rights().unwrap();
        let user = Caller::root().squashed();
        let less = user.act(rights).unwrap();
        let for_root = CapabilitySet::SYS_RESOURCE | CapabilitySet::CHOWN | CapabilitySet::FOWNER;
        assert!(!less.effective.intersects(for_root), "{less:?}");
        assert_eq!(rights().unwrap(), own);
    }

    #[test]
    fn root_is_squashed_in_every_place() {
        let root = Caller {
            uid: 0,
            gid: 0,
            groups: vec![0, 5],
        };
        let nobody = root.squashed();
        assert_eq!((nobody.uid, nobody.gid), (NOBODY, NOBODY));
        assert_eq!(nobody.groups, [NOBODY, 5]);
    }
}

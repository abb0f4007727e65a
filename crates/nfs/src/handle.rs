//! File handles: what the file system itself calls a file, signed.
//!
//! A handle of the kernel (open_by_handle_at(2)) names an inode and its generation, so it outlives this server, and
//! opens anything on the file system. The signature says that this server gave it out, for this export of this directory:
//! it does so only for what it reached beneath the export's root.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::io::Errno;
use sha2::Sha256;

use crate::caller::last_errno;
use crate::error::NfsError;
use crate::status::Status;

/// RFC 1813, section 2.4.
pub const MOST_BYTES: usize = 64;
const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 16;
const HEAD_BYTES: usize = 2 + SIGNATURE_BYTES;
/// What is left for the kernel's. ext4 uses 8, tmpfs 12, XFS up to 24, Btrfs up to 40.
const KERNEL_BYTES: usize = MOST_BYTES - HEAD_BYTES;
const KEY_BYTES: usize = 32;

/// What signs the handles of all exports of a server. It lies in the server's state: who has it can open all files.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key")
    }
}

impl Key {
    pub fn fresh() -> Key {
        let mut key = [0; KEY_BYTES];
        OsRng
            .try_fill_bytes(&mut key)
            .expect("the kernel has random bytes");
        Key(key)
    }

    /// The key in this file, made at the first time.
    pub fn kept(path: &Path) -> Result<Key, NfsError> {
        match fs::read(path) {
            Ok(bytes) => {
                let size = bytes.len();
                return bytes.try_into().map(Key).map_err(|_| NfsError::Key {
                    path: path.into(),
                    size,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(NfsError::io("reading the key", path)(error)),
        }
        let key = Key::fresh();
        let aside = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| file.write_all(&key.0).and_then(|()| file.sync_all()));
        // A link, so that of two servers that start together one key stands.
        let linked = written.and_then(|()| fs::hard_link(&aside, path));
        let _ = fs::remove_file(&aside);
        match linked {
            // Handles are given out from now on: the key's name must not be lost with the power.
            Ok(()) => match fs::File::open(parent_of(path)).and_then(|parent| parent.sync_all()) {
                Ok(()) => Ok(key),
                Err(error) => Err(NfsError::io("writing the key", path)(error)),
            },
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Key::kept(path),
            Err(error) => Err(NfsError::io("writing the key", path)(error)),
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes and reads the handles of one export.
pub struct Signer {
    mac: Hmac<Sha256>,
}

impl Signer {
    /// Of an export by this name of the directory that `root` is. Several exports of one server are called `/`: handles
    /// of one directory open nothing for clients of another, and nothing when the name is given to another directory.
    pub fn new(key: &Key, export: &str, root: impl AsFd) -> Result<Signer, Errno> {
        KernelHandle::of(root).map(|root| Signer::of(key, export, &root))
    }

    fn of(key: &Key, export: &str, root: &KernelHandle) -> Signer {
        let mac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("takes any length");
        let of_export = mac(&key.0)
            .chain_update((export.len() as u64).to_be_bytes())
            .chain_update(export)
            .chain_update([root.kind])
            .chain_update(root.name())
            .finalize()
            .into_bytes();
        Signer {
            mac: mac(&of_export),
        }
    }

    fn signature(&self, kind: u8, name: &[u8]) -> Hmac<Sha256> {
        self.mac
            .clone()
            .chain_update([VERSION, kind])
            .chain_update(name)
    }

    fn seal(&self, kernel: &KernelHandle) -> Vec<u8> {
        let name = kernel.name();
        let signature = self.signature(kernel.kind, name).finalize().into_bytes();
        let mut handle = Vec::with_capacity(HEAD_BYTES + name.len());
        handle.extend([VERSION, kernel.kind]);
        handle.extend(&signature[..SIGNATURE_BYTES]);
        handle.extend(name);
        handle
    }

    fn unseal(&self, handle: &[u8]) -> Result<KernelHandle, Status> {
        let (head, name) = handle
            .split_at_checked(HEAD_BYTES)
            .ok_or(Status::BadHandle)?;
        if head[0] != VERSION || name.is_empty() || name.len() > KERNEL_BYTES {
            return Err(Status::BadHandle);
        }
        self.signature(head[1], name)
            .verify_truncated_left(&head[2..])
            // Of an export that is gone, or whose key is.
            .map_err(|_| Status::Stale)?;
        Ok(KernelHandle::new(head[1], name))
    }

    /// Whether this server gave the handle out for this export.
    pub fn is_ours(&self, handle: &[u8]) -> bool {
        self.unseal(handle).is_ok()
    }

    /// The handle of what is open.
    pub fn handle_of(&self, file: impl AsFd) -> Result<Vec<u8>, Errno> {
        KernelHandle::of(file).map(|kernel| self.seal(&kernel))
    }

    /// What a handle names, opened as a place (`O_PATH`).
    pub fn open(&self, anchor: impl AsFd, handle: &[u8]) -> Result<OwnedFd, Status> {
        self.unseal(handle)?
            .open(anchor)
            .map_err(|errno| match errno {
                Errno::STALE | Errno::NOENT => Status::Stale,
                other => other.into(),
            })
    }
}

/// `struct file_handle`.
#[repr(C)]
pub(crate) struct KernelHandle {
    size: u32,
    type_: i32,
    bytes: [u8; KERNEL_BYTES],
    kind: u8,
}

impl KernelHandle {
    fn new(kind: u8, name: &[u8]) -> KernelHandle {
        let mut bytes = [0; KERNEL_BYTES];
        bytes[..name.len()].copy_from_slice(name);
        KernelHandle {
            size: u32::try_from(name.len()).expect("at most KERNEL_BYTES"),
            type_: kind.into(),
            bytes,
            kind,
        }
    }

    fn name(&self) -> &[u8] {
        &self.bytes[..self.size as usize]
    }

    pub(crate) fn of(file: impl AsFd) -> Result<KernelHandle, Errno> {
        let mut handle = KernelHandle::new(0, &[0; KERNEL_BYTES]);
        let mut mount: libc::c_int = 0;
        // SAFETY: `handle` begins as the kernel's struct does, with room for `size` bytes behind its two numbers.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                file.as_fd().as_raw_fd(),
                c"".as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        if result != 0 {
            return Err(last_errno());
        }
        // The kernel's kinds are below 256; 255 and 0 mean that there is none.
        handle.kind = u8::try_from(handle.type_).map_err(|_| Errno::OPNOTSUPP)?;
        Ok(handle)
    }

    pub(crate) fn open(&self, anchor: impl AsFd) -> Result<OwnedFd, Errno> {
        // SAFETY: as above; the kernel reads `size` bytes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                anchor.as_fd().as_raw_fd(),
                &raw const *self,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        match i32::try_from(result) {
            // SAFETY: a descriptor that nobody else has.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(last_errno()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_what_was_signed_for_the_export_is_a_handle(
            name in prop::collection::vec(any::<u8>(), 1..KERNEL_BYTES),
            kind in any::<u8>(),
            flip in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let key = Key::fresh();
            let (root, elsewhere) = (KernelHandle::new(1, &[2]), KernelHandle::new(1, &[3]));
            let (home, other) = (Signer::of(&key, "/home", &root), Signer::of(&key, "/other", &root));
            let moved = Signer::of(&key, "/home", &elsewhere);
            let handle = home.seal(&KernelHandle::new(kind, &name));
            prop_assert!(handle.len() <= MOST_BYTES);
            prop_assert_eq!(home.unseal(&handle).map(|kernel| kernel.name().to_vec()), Ok(name));
            prop_assert!(other.unseal(&handle).is_err());
            prop_assert!(moved.unseal(&handle).is_err());
            let mut forged = handle.clone();
            forged[flip.index(handle.len())] ^= 1u8 << bit;
            prop_assert!(home.unseal(&forged).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let root = KernelHandle::new(1, &[2]);
            prop_assert!(Signer::of(&Key::fresh(), "/", &root).unseal(&bytes).is_err());
        }
    }

    #[test]
    fn a_key_is_kept_and_a_torn_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let first = Key::kept(&path).unwrap();
        assert_eq!(Key::kept(&path).unwrap().0, first.0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(&path, "short").unwrap();
        assert!(matches!(
            Key::kept(&path),
            Err(NfsError::Key { size: 5, .. })
        ));
    }
}

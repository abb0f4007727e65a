//! A file as a block device (loop(4)), for as long as it is mounted. Needs root of the machine itself.
//!
//! Invariant: no program is run, and what is put over a file goes away by itself.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::ioctl;

const LOOP_CTL_GET_FREE: ioctl::Opcode = 0x4c82;
const LOOP_CONFIGURE: ioctl::Opcode = 0x4c0a;
const READ_ONLY: u32 = 1;
/// It goes away with the last mount of it.
const AUTOCLEAR: u32 = 4;
/// Another process may take the one that was free.
const TRIES: usize = 32;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`, of Linux 5.8 and later.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    descriptor: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232);
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// A loop device over a file, with its path; `path` is what losetup(8) shows of the file, cut at 63 bytes. It is free again
/// when the descriptor is closed and nothing of it is mounted.
///
/// Fails where the kernel has no loop devices, without the right to them, and when others take each free one first.
pub fn attach(file: &File, path: &Path, read_only: bool) -> io::Result<(File, PathBuf)> {
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let config = config(file, path, read_only);
    for _ in 0..TRIES {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns the number of a device.
        let number = unsafe { ioctl::ioctl(&control, GetFree) }?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        let node = File::options().read(true).write(!read_only).open(&device)?;
        // SAFETY: LOOP_CONFIGURE reads a loop_config, whose layout and size are asserted above.
        let call = unsafe { ioctl::Setter::<LOOP_CONFIGURE, LoopConfig>::new(config) };
        // SAFETY: as above; nothing is written back.
        match unsafe { ioctl::ioctl(&node, call) } {
            Ok(()) => return Ok((node, device)),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::other(
        "every free loop device was taken by others",
    ))
}

fn config(file: &File, path: &Path, read_only: bool) -> LoopConfig {
    let mut file_name = [0; 64];
    let name = path.as_os_str().as_encoded_bytes();
    let length = name.len().min(63);
    file_name[..length].copy_from_slice(&name[..length]);
    let flags = match read_only {
        true => AUTOCLEAR | READ_ONLY,
        false => AUTOCLEAR,
    };
    LoopConfig {
        descriptor: file.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    }
}

/// `LOOP_CTL_GET_FREE`, whose answer is its return value.
struct GetFree;

// SAFETY: the call takes no argument, writes nothing, and its result is a number.
unsafe impl ioctl::Ioctl for GetFree {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> ioctl::Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    // SAFETY: the pointer is not looked at.
    unsafe fn output_from_ptr(
        output: ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

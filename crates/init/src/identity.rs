//! Learning who this clone is, and making its random numbers its own.

use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use estive_boot::identity::IDENTITY_BYTES_MAX;
use estive_boot::{IDENTITY_FW_CFG, Identity, port};
use rustix::ioctl;

use crate::console::say;
use crate::devices;
use crate::failure::{Result, While, fail};

/// A read from the port ends at once while the host is not connected.
const POLL: Duration = Duration::from_millis(10);

/// The identity from fw_cfg or, if there is none, the next line of the identity port: waited for
/// without end, since a frozen template has none until it is woken.
pub fn read() -> Result<Identity> {
    let path = format!("/sys/firmware/qemu_fw_cfg/by_name/{IDENTITY_FW_CFG}/raw");
    let (bytes, from) = match fs::read(&path) {
        Ok(bytes) if !bytes.trim_ascii().is_empty() => (bytes, "fw_cfg"),
        _ => (read_port()?, "the identity port"),
    };
    Identity::parse(bytes.trim_ascii()).doing(|| format!("the identity from {from}"))
}

fn read_port() -> Result<Vec<u8>> {
    let path = match devices::port(port::IDENTITY) {
        Ok(path) => path,
        Err(failure) => {
            return fail(format!(
                "no identity: the fw_cfg file {IDENTITY_FW_CFG} is absent or empty, and {}",
                failure.0
            ));
        }
    };
    say("waiting for the identity");
    let mut port = File::open(&path).doing(|| format!("opening {}", path.display()))?;
    let mut line = Vec::new();
    let mut chunk = [0; IDENTITY_BYTES_MAX];
    loop {
        match port
            .read(&mut chunk)
            .doing(|| "reading the identity port".into())?
        {
            0 => std::thread::sleep(POLL),
            count => line.extend_from_slice(&chunk[..count]),
        }
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > IDENTITY_BYTES_MAX {
            return fail(format!(
                "the identity port gave more than {IDENTITY_BYTES_MAX} bytes without an end of line"
            ));
        }
    }
}

/// `struct rand_pool_info` of `linux/random.h`, for 64 bytes.
#[repr(C)]
struct RandomPoolInfo {
    entropy_bits: i32,
    size_bytes: i32,
    bytes: [u8; 64],
}

/// `_IOW('R', 0x03, int[2])`: adds bytes and their entropy to the pool.
const RNDADDENTROPY: ioctl::Opcode = ioctl::opcode::write::<[i32; 2]>(b'R', 0x03);
/// `_IO('R', 0x07)`: makes the generator take a new key from the pool now.
const RNDRESEEDCRNG: ioctl::Opcode = ioctl::opcode::none(b'R', 0x07);

/// Gives the kernel this clone's own random bytes, before anything draws a number: two clones
/// woken from one template would otherwise draw the same.
pub fn reseed(identity: &Identity) -> Result<()> {
    let random = File::options()
        .write(true)
        .open("/dev/urandom")
        .doing(|| "opening /dev/urandom".into())?;
    let info = RandomPoolInfo {
        entropy_bits: 512,
        size_bytes: 64,
        bytes: identity.seed.0,
    };
    // SAFETY: RNDADDENTROPY reads a rand_pool_info, which RandomPoolInfo is in layout and size:
    // two ints and as many bytes as the second says.
    let add = unsafe { ioctl::Setter::<RNDADDENTROPY, RandomPoolInfo>::new(info) };
    // SAFETY: as above; the kernel writes nothing back.
    unsafe { ioctl::ioctl(&random, add) }.doing(|| "adding the seed to /dev/urandom".into())?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    let reseed = unsafe { ioctl::NoArg::<RNDRESEEDCRNG>::new() };
    // SAFETY: as above.
    unsafe { ioctl::ioctl(&random, reseed) }.doing(|| "reseeding /dev/urandom".into())
}

//! `url`: a file fetched into memory, its digest checked before anything looks into it.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use estive_boot::loaders::url::Options;
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};

use super::{Context, Given};
use crate::console::say;
use crate::failure::{Result, While, fail};
use crate::http::{Taker, fetch};

/// What the root, its programs and the kernel itself are left of the memory, at least.
const SPARE_BYTES: u64 = 64 << 20;
/// Where the size is not said, word is given each time so much has come.
const WORD_BYTES: u64 = 32 << 20;
const MIB: u64 = 1 << 20;

pub fn open(options: &Options, _: Option<Given>, context: &mut Context) -> Result<Given> {
    let name = options.url.to_string();
    let file = memfd_create("estive-url", MemfdFlags::CLOEXEC)
        .doing(|| format!("room in memory for {name}"))?;
    let mut coming = Coming {
        name: name.clone(),
        file: File::from(file),
        digest: Sha256::new(),
        limit_bytes: available_bytes()?.saturating_sub(SPARE_BYTES),
        size_bytes: None,
        come_bytes: 0,
        next_word_bytes: WORD_BYTES,
    };
    let network = context.network()?;
    let patience_ms = u64::from(context.line.wait_s) * 1000;
    say(&format!("fetching {name}"));
    let resolve = |host: &str| network.resolve(host);
    fetch(&options.url, resolve, patience_ms, &mut coming)?;
    let came = coming.digest.finalize();
    match options.sha256 {
        Some(wanted) if came[..] != wanted => {
            return fail(format!(
                "{name} is not what was asked for: its sha256 is {}, and {} was given: fetch it by hand and compare",
                hex(&came),
                hex(&wanted)
            ));
        }
        Some(_) => {}
        None => say(&format!(
            "nothing proves what came; give sha256={} if it is right",
            hex(&came)
        )),
    }
    Ok(Given::File(coming.file, PathBuf::from(name)))
}

/// A file that is coming in.
struct Coming {
    name: String,
    file: File,
    digest: Sha256,
    limit_bytes: u64,
    size_bytes: Option<u64>,
    come_bytes: u64,
    next_word_bytes: u64,
}

impl Coming {
    fn too_large<T>(&self, is: &str) -> Result<T> {
        fail(format!(
            "{} {is}, and the memory has room for {} MiB: give the machine more, or use livecd+nfs",
            self.name,
            self.limit_bytes / MIB
        ))
    }
}

impl Taker for Coming {
    fn begin(&mut self, size_bytes: Option<u64>) -> Result<()> {
        self.size_bytes = size_bytes;
        let Some(size_bytes) = size_bytes else {
            return Ok(());
        };
        if size_bytes > self.limit_bytes {
            return self.too_large(&format!("has {} MiB", size_bytes.div_ceil(MIB)));
        }
        // A tenth at a time.
        self.next_word_bytes = size_bytes.div_ceil(10).max(1);
        Ok(())
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.come_bytes += piece.len() as u64;
        if self.come_bytes > self.limit_bytes {
            return self.too_large("is larger than its server said");
        }
        self.digest.update(piece);
        self.file
            .write_all(piece)
            .doing(|| format!("keeping {} in memory", self.name))?;
        if self.come_bytes >= self.next_word_bytes {
            let come_mib = self.come_bytes / MIB;
            match self.size_bytes {
                Some(size_bytes) => {
                    say(&format!(
                        "{come_mib} of {} MiB ({} %)",
                        size_bytes.div_ceil(MIB),
                        self.come_bytes * 100 / size_bytes.max(1)
                    ));
                    self.next_word_bytes += size_bytes.div_ceil(10).max(1);
                }
                None => {
                    say(&format!("{come_mib} MiB"));
                    self.next_word_bytes += WORD_BYTES;
                }
            }
        }
        Ok(())
    }
}

/// What can be filled without anything being thrown out, as the kernel reckons it.
fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").doing(|| "reading /proc/meminfo".into())?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or_else(
        || fail("/proc/meminfo does not say how much memory is available"),
        |kib| Ok(kib * 1024),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

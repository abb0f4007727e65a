//! Exports that are offered together, and the answer to one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::io::Errno;

use crate::caller::Caller;
use crate::error::NfsError;
use crate::export::{Access, Export, ExportConfig};
use crate::handle::{Key, MOST_BYTES};
use crate::procedures;
use crate::quota::Held;
use crate::replies::Replies;
use crate::rpc::{self, Accepted, Call};
use crate::status::{Fault, Status};
use crate::turns::Turns;
use crate::xdr::Reader;
use crate::{acl, mount};

/// What is served. Blocks while it answers: a call is some system calls.
pub struct Service {
    exports: Vec<Arc<Export>>,
    replies: Replies,
    /// Another at each start, and when data could not be put on disk: what was written and not committed may be lost,
    /// and clients write it again.
    write_verifier: AtomicU64,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(&self.exports).finish()
    }
}

impl Service {
    pub fn open(exports: Vec<ExportConfig>, key: &Key) -> Result<Service, NfsError> {
        let mut open: Vec<Arc<Export>> = Vec::new();
        for config in exports {
            if open.iter().any(|export| export.name() == config.name) {
                return Err(NfsError::Twice(config.name));
            }
            open.push(Arc::new(Export::open(config, key)?));
        }
        let mut write_verifier = [0; 8];
        OsRng
            .try_fill_bytes(&mut write_verifier)
            .expect("the kernel has random bytes");
        Ok(Service {
            exports: open,
            replies: Replies::default(),
            write_verifier: AtomicU64::new(u64::from_ne_bytes(write_verifier)),
        })
    }

    pub(crate) fn write_verifier(&self) -> [u8; 8] {
        self.write_verifier.load(Ordering::SeqCst).to_be_bytes()
    }

    /// What syncing came to. The kernel tells of lost data once: who asks for the same file afterwards is told that all is
    /// well, and must see by the verifier that it is not.
    pub(crate) fn lasting(&self, synced: Result<(), Errno>) -> Result<(), Fault> {
        if synced.is_err() {
            self.write_verifier.fetch_add(1, Ordering::SeqCst);
        }
        Ok(synced?)
    }

    pub(crate) fn exports(&self) -> impl Iterator<Item = &Export> {
        self.exports.iter().map(AsRef::as_ref)
    }

    /// What the export of this name holds, if it is written to.
    pub fn held(&self, export: &str) -> Option<Held> {
        let export = self.exports().find(|open| open.name() == export)?;
        export.usage.as_ref().map(crate::quota::Usage::held)
    }

    /// The export that a handle at the beginning of the arguments is of.
    pub(crate) fn export_of(&self, handle: &[u8]) -> Result<&Export, Fault> {
        self.exports()
            .find(|export| export.owns(handle))
            .ok_or(Status::Stale.into())
    }

    /// The reply to a record; `None` to what is no call. `peer` tells clients apart whose calls have the same numbers.
    pub fn answer(&self, peer: &str, record: &[u8]) -> Option<Vec<u8>> {
        let call = match Call::read(record) {
            Ok(call) => call,
            Err(denied) => return rpc::denial(&denied),
        };
        let is_repeatable = match call.program {
            procedures::PROGRAM => procedures::is_repeatable(call.procedure),
            acl::PROGRAM => call.procedure != ACL_SET,
            _ => true,
        };
        let writes = self
            .exports
            .iter()
            .any(|open| open.config.access != Access::ReadOnly);
        Some(match is_repeatable || !writes {
            true => self.reply(call),
            false => self.replies.once(peer, record, || self.reply(call)),
        })
    }

    /// The turns of the export that a call is about. `None`: it is about none, and answering it waits for nothing.
    pub(crate) fn turns_for(&self, record: &[u8]) -> Option<Arc<Turns>> {
        let call = Call::read(record).ok()?;
        let export = match (call.program, call.procedure) {
            (procedures::PROGRAM | acl::PROGRAM, 1..) => {
                self.export_of_arguments(&call.arguments).ok()
            }
            (mount::PROGRAM, mount::MNT) => {
                let mut ahead = call.arguments;
                mount::export_of(self, &mut ahead).ok().flatten()
            }
            _ => None,
        };
        export.map(|export| Arc::clone(&export.turns))
    }

    /// The reply to a call that cannot be answered now: its client asks again later.
    pub(crate) fn come_again(&self, record: &[u8]) -> Option<Vec<u8>> {
        let call = Call::read(record).ok()?;
        let mut writer = rpc::success(call.xid);
        let began = writer.len();
        let (status, failure_words) = match call.program {
            procedures::PROGRAM => (Status::Jukebox, procedures::failure_words(call.procedure)),
            acl::PROGRAM => (Status::Jukebox, ACL_FAILURE_WORDS),
            // `mountstat3` has no such thing.
            _ => (Status::ServerFault, 0),
        };
        procedures::finish(Err(status.into()), began, failure_words, &mut writer).ok()?;
        Some(writer.into_bytes())
    }

    fn reply(&self, mut call: Call<'_>) -> Vec<u8> {
        let mut writer = rpc::success(call.xid);
        let (xid, version) = (call.xid, call.version);
        let wrong = |only: u32| (version != only).then_some(Accepted::ProgramVersion { only });
        let result = match call.program {
            procedures::PROGRAM => wrong(procedures::VERSION)
                .map_or_else(|| procedures::answer(self, &mut call, &mut writer), Err),
            mount::PROGRAM => wrong(mount::VERSION)
                .map_or_else(|| mount::answer(self, &mut call, &mut writer), Err),
            acl::PROGRAM => {
                wrong(acl::VERSION).map_or_else(|| self.acl(&mut call, &mut writer), Err)
            }
            _ => Err(Accepted::NoProgram),
        };
        match result {
            Ok(()) => writer.into_bytes(),
            Err(why) => rpc::failure(xid, why),
        }
    }

    fn acl(&self, call: &mut Call<'_>, writer: &mut crate::xdr::Writer) -> Result<(), Accepted> {
        let began = writer.len();
        let result = match call.procedure {
            0 => return Ok(()),
            ACL_GET => self
                .export_of_arguments(&call.arguments)
                .and_then(|export| acl::get(export, &mut call.arguments, writer)),
            ACL_SET => self
                .export_of_arguments(&call.arguments)
                .and_then(|export| {
                    let caller = export.caller(call.caller.clone().unwrap_or_else(Caller::nobody));
                    acl::set(export, &caller, &mut call.arguments, writer)
                }),
            _ => return Err(Accepted::NoProcedure),
        };
        procedures::finish(result, began, ACL_FAILURE_WORDS, writer)
    }

    fn export_of_arguments(&self, arguments: &Reader<'_>) -> Result<&Export, Fault> {
        let mut ahead = *arguments;
        self.export_of(ahead.opaque(MOST_BYTES)?)
    }
}

const ACL_GET: u32 = 1;
const ACL_SET: u32 = 2;
const ACL_FAILURE_WORDS: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_put_on_disk_is_written_again() {
        let service = Service::open(Vec::new(), &Key::fresh()).unwrap();
        let before = service.write_verifier();
        service.lasting(Ok(())).unwrap();
        assert_eq!(service.write_verifier(), before);
        assert!(service.lasting(Err(Errno::IO)).is_err());
        assert_ne!(service.write_verifier(), before);
    }
}

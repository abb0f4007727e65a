//! The procedures of NFS version 3 (RFC 1813, section 3.3).

mod change;
mod directory;
mod look;
mod make;
mod names;

use crate::caller::Caller;
use crate::export::Export;
use crate::handle;
use crate::rpc::{Accepted, Call, MOST_DATA_BYTES};
use crate::service::Service;
use crate::status::Fault;
use crate::xdr::{Reader, Writer};

pub const PROGRAM: u32 = 100_003;
pub const VERSION: u32 = 3;

/// Longer names are answered as too long, longer still are no message.
const MOST_NAME_BYTES: usize = 4096;

/// A call as a procedure sees it: its export is that of the first handle.
struct Asked<'a> {
    service: &'a Service,
    export: &'a Export,
    caller: Caller,
    /// The first handle.
    handle: &'a [u8],
}

type Procedure = fn(&Asked<'_>, &mut Reader<'_>, &mut Writer) -> Result<(), Fault>;

/// Procedures by number, and how many words of "no attributes" stand in their failures.
const PROCEDURES: [(Procedure, usize); 21] = [
    (look::getattr, 0),
    (change::setattr, 2),
    (look::lookup, 1),
    (look::access, 1),
    (look::readlink, 1),
    (look::read, 1),
    (change::write, 2),
    (make::create, 2),
    (make::mkdir, 2),
    (make::symlink, 2),
    (make::mknod, 2),
    (names::remove, 2),
    (names::rmdir, 2),
    (names::rename, 4),
    (names::link, 3),
    (directory::readdir, 1),
    (directory::readdirplus, 1),
    (look::fsstat, 1),
    (look::fsinfo, 1),
    (look::pathconf, 1),
    (change::commit, 2),
];

/// What an answer that brings no data takes at most, in bytes: access control lists are the longest.
const SHORT_BYTES: usize = 64 << 10;

/// What the answer to a call takes at most, in bytes. For whoever passes calls on, too.
#[must_use]
pub fn answer_bytes_at_most(record: &[u8]) -> usize {
    let data = || -> Option<usize> {
        let mut call = Call::read(record).ok()?;
        match (call.program, call.procedure) {
            (PROGRAM, READ) => {
                call.arguments.opaque(handle::MOST_BYTES).ok()?;
                call.arguments.u64().ok()?;
                Some(call.arguments.u32().ok()?.min(MOST_DATA_BYTES) as usize)
            }
            (PROGRAM, READDIR | READDIRPLUS) => Some(directory::MOST_REPLY_BYTES),
            _ => None,
        }
    };
    SHORT_BYTES + data().unwrap_or(0)
}

/// The numbers of those whose answers are long.
const READ: u32 = 6;
const READDIR: u32 = 16;
const READDIRPLUS: u32 = 17;

/// Whether doing it twice is as doing it once.
pub fn is_repeatable(procedure: u32) -> bool {
    !matches!(procedure, 2 | 8..=15)
}

/// Of a procedure that there is.
pub fn failure_words(number: u32) -> usize {
    let procedure = PROCEDURES.get((number as usize).wrapping_sub(1));
    procedure.map_or(0, |(_, words)| *words)
}

pub fn answer(service: &Service, call: &mut Call<'_>, writer: &mut Writer) -> Result<(), Accepted> {
    let Some(number) = (call.procedure as usize).checked_sub(1) else {
        return Ok(());
    };
    let (procedure, failure_words) = PROCEDURES.get(number).ok_or(Accepted::NoProcedure)?;
    let began = writer.len();
    let caller = call.caller.take().unwrap_or_else(Caller::nobody);
    let arguments = &mut call.arguments;
    let result = arguments
        .opaque(handle::MOST_BYTES)
        .map_err(Fault::from)
        .and_then(|handle| {
            let export = service.export_of(handle)?;
            let asked = Asked {
                service,
                export,
                caller: export.caller(caller),
                handle,
            };
            procedure(&asked, arguments, writer)
        });
    finish(result, began, *failure_words, writer)
}

/// A failure stands in place of whatever was written.
pub fn finish(
    result: Result<(), Fault>,
    began: usize,
    failure_words: usize,
    writer: &mut Writer,
) -> Result<(), Accepted> {
    match result {
        Ok(()) => Ok(()),
        Err(Fault::Garbage) => Err(Accepted::Garbage),
        Err(Fault::Status(status)) => {
            writer.truncate(began);
            writer.u32(status as u32);
            (0..failure_words).for_each(|_| writer.u32(0));
            Ok(())
        }
    }
}

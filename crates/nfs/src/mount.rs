//! The MOUNT protocol, version 3 (RFC 1813, appendix I): the name of an export becomes the handle of its root.

use crate::caller::Caller;
use crate::export::Export;
use crate::rpc::{Accepted, Call};
use crate::service::Service;
use crate::status::{Fault, Status};
use crate::xdr::{Garbage, Reader, Writer};

pub const PROGRAM: u32 = 100_005;
pub const VERSION: u32 = 3;
/// MNTPATHLEN.
pub const PATH_BYTES: usize = 1024;
pub const MNT: u32 = 1;
const AUTH_SYS: u32 = 1;

pub(crate) fn answer(
    service: &Service,
    call: &mut Call<'_>,
    writer: &mut Writer,
) -> Result<(), Accepted> {
    match call.procedure {
        // NULL; UMNT and UMNTALL: who has mounted is not kept.
        0 | 3 | 4 => Ok(()),
        MNT => mount(service, call, writer).map_err(|_| Accepted::Garbage),
        // DUMP: an empty list.
        2 => {
            writer.bool(false);
            Ok(())
        }
        5 => {
            for export in service.exports() {
                writer.bool(true);
                writer.opaque(export.name().as_bytes());
                writer.bool(false);
            }
            writer.bool(false);
            Ok(())
        }
        _ => Err(Accepted::NoProcedure),
    }
}

/// What MNT asks for, if it is there.
pub(crate) fn export_of<'a>(
    service: &'a Service,
    arguments: &mut Reader<'_>,
) -> Result<Option<&'a Export>, Garbage> {
    let path = arguments.opaque(PATH_BYTES)?;
    // `server:/home/` is written too.
    let slashes = path.iter().rev().take_while(|byte| **byte == b'/').count();
    let name = match &path[..path.len() - slashes] {
        b"" => b"/",
        name => name,
    };
    let mut exports = service.exports();
    Ok(exports.find(|export| export.name().as_bytes() == name))
}

fn mount(service: &Service, call: &mut Call<'_>, writer: &mut Writer) -> Result<(), Fault> {
    let found = export_of(service, &mut call.arguments)?
        .ok_or(Fault::Status(Status::NoEnt))
        .and_then(|export| {
            let root = export.root()?;
            let caller = call.caller.clone().unwrap_or_else(Caller::nobody);
            tracing::debug!(export = export.name(), uid = caller.uid, "mounted");
            export.handle_of(&root)
        });
    match found {
        Ok(handle) => {
            writer.u32(0);
            writer.opaque(&handle);
            writer.u32(1);
            writer.u32(AUTH_SYS);
        }
        // The numbers of `mountstat3` are those of `nfsstat3`.
        Err(Fault::Status(status)) => writer.u32(status as u32),
        Err(Fault::Garbage) => writer.u32(Status::ServerFault as u32),
    }
    Ok(())
}

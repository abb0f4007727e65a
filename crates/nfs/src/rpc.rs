//! ONC RPC (RFC 5531): calls, who makes them, and the heads of replies.

use crate::caller::{Caller, MOST_GROUPS};
use crate::xdr::{Garbage, Reader, Writer};

/// The most data in one READ or WRITE.
pub const MOST_DATA_BYTES: u32 = 1 << 20;
const VERSION: u32 = 2;
const MOST_AUTH_BYTES: usize = 400;
const MOST_MACHINE_BYTES: usize = 255;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;

/// A call, up to its arguments.
#[derive(Debug)]
pub struct Call<'a> {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    /// `None` without AUTH_SYS.
    pub caller: Option<Caller>,
    pub arguments: Reader<'a>,
}

/// Why a message is no call that could be answered by a program.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// Not a call at all: nothing can be said to that.
    Nonsense,
    Version {
        xid: u32,
    },
    Credentials {
        xid: u32,
    },
}

impl From<Garbage> for Denied {
    fn from(_: Garbage) -> Denied {
        Denied::Nonsense
    }
}

impl<'a> Call<'a> {
    pub fn read(record: &'a [u8]) -> Result<Call<'a>, Denied> {
        let mut reader = Reader::new(record);
        let xid = reader.u32()?;
        if reader.u32()? != 0 {
            return Err(Denied::Nonsense);
        }
        if reader.u32()? != VERSION {
            return Err(Denied::Version { xid });
        }
        let [program, version, procedure] = [reader.u32()?, reader.u32()?, reader.u32()?];
        let (flavor, body) = (reader.u32()?, reader.opaque(MOST_AUTH_BYTES)?);
        let caller = match flavor {
            AUTH_NONE => None,
            AUTH_SYS => Some(auth_sys(body).map_err(|Garbage| Denied::Credentials { xid })?),
            _ => return Err(Denied::Credentials { xid }),
        };
        // The verifier of either is empty.
        reader.u32()?;
        reader.opaque(MOST_AUTH_BYTES)?;
        Ok(Call {
            xid,
            program,
            version,
            procedure,
            caller,
            arguments: reader,
        })
    }
}

fn auth_sys(body: &[u8]) -> Result<Caller, Garbage> {
    let mut reader = Reader::new(body);
    reader.u32()?;
    reader.opaque(MOST_MACHINE_BYTES)?;
    let (uid, gid) = (reader.u32()?, reader.u32()?);
    let count = usize::try_from(reader.u32()?).map_err(|_| Garbage)?;
    if count > MOST_GROUPS {
        return Err(Garbage);
    }
    let groups = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    Ok(Caller { uid, gid, groups })
}

/// `accept_stat`, other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    NoProgram,
    ProgramVersion { only: u32 },
    NoProcedure,
    Garbage,
}

/// The head of a reply, the result follows.
pub fn success(xid: u32) -> Writer {
    let mut writer = Writer::default();
    for word in [xid, 1, 0, AUTH_NONE, 0, 0] {
        writer.u32(word);
    }
    writer
}

pub fn failure(xid: u32, why: Accepted) -> Vec<u8> {
    let mut writer = Writer::default();
    for word in [xid, 1, 0, AUTH_NONE, 0] {
        writer.u32(word);
    }
    match why {
        Accepted::NoProgram => writer.u32(1),
        Accepted::ProgramVersion { only } => {
            [2, only, only].iter().for_each(|word| writer.u32(*word))
        }
        Accepted::NoProcedure => writer.u32(3),
        Accepted::Garbage => writer.u32(4),
    }
    writer.into_bytes()
}

/// The reply to what was denied, if there is one.
pub fn denial(denied: &Denied) -> Option<Vec<u8>> {
    let mut writer = Writer::default();
    let words: &[u32] = match denied {
        Denied::Nonsense => return None,
        Denied::Version { xid } => &[*xid, 1, 1, 0, VERSION, VERSION],
        // AUTH_BADCRED
        Denied::Credentials { xid } => &[*xid, 1, 1, 1, 1],
    };
    words.iter().for_each(|word| writer.u32(*word));
    Some(writer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_message_is_read_or_denied(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Err(denied) = Call::read(&bytes) {
                denial(&denied);
            }
        }
    }

    #[test]
    fn more_groups_than_there_are_is_no_identity() {
        let mut body = Writer::default();
        for word in [0, 0, 5, 5, 17] {
            body.u32(word);
        }
        (0..17).for_each(|group| body.u32(group));
        assert_eq!(auth_sys(&body.into_bytes()), Err(Garbage));
    }
}

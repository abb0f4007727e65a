//! ONC RPC over a byte stream (RFC 5531): calls, who makes them, the heads of replies, and records of fragments.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::caller::{Caller, MOST_GROUPS};
use crate::xdr::{Garbage, Reader, Writer};

/// The most data in one READ or WRITE.
pub const MOST_DATA_BYTES: u32 = 1 << 20;
/// A call with that, its credentials and its head.
const MOST_RECORD_BYTES: usize = MOST_DATA_BYTES as usize + (64 << 10);
/// Nobody needs more parts; a stream of empty ones would have no end.
const MOST_FRAGMENTS: usize = 1024;
const LAST: u32 = 1 << 31;

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

/// The head of a record in one part.
pub fn fragment_head(size: usize) -> [u8; 4] {
    let size = u32::try_from(size).expect("replies are bounded");
    (size | LAST).to_be_bytes()
}

/// Reads the rest of a record whose first fragment has this head.
pub async fn read_record(
    stream: &mut (impl AsyncRead + Unpin),
    head: [u8; 4],
) -> std::io::Result<Vec<u8>> {
    let mut head = u32::from_be_bytes(head);
    let mut record = Vec::new();
    for _ in 0..MOST_FRAGMENTS {
        let size = (head & !LAST) as usize;
        if record.len() + size > MOST_RECORD_BYTES {
            return Err(std::io::Error::other("a record that is too long"));
        }
        let read = (&mut *stream)
            .take(size as u64)
            .read_to_end(&mut record)
            .await?;
        if read < size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if head & LAST != 0 {
            return Ok(record);
        }
        head = stream.read_u32().await?;
    }
    Err(std::io::Error::other("a record of too many fragments"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut stream = bytes;
            let mut head = [0; 4];
            stream.read_exact(&mut head).await?;
            read_record(&mut stream, head).await
        })
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_denied(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Err(denied) = Call::read(&bytes) {
                denial(&denied);
            }
        }

        #[test]
        fn a_record_is_the_same_in_any_parts(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..9)) {
            let mut bytes = Vec::new();
            for (number, part) in parts.iter().enumerate() {
                let last = if number + 1 == parts.len() { LAST } else { 0 };
                bytes.extend((u32::try_from(part.len()).unwrap() | last).to_be_bytes());
                bytes.extend(part);
            }
            prop_assert_eq!(records(&bytes).unwrap(), parts.concat());
            prop_assert!(records(&bytes[..bytes.len() - 1]).is_err() || parts.last().unwrap().is_empty());
        }
    }

    #[test]
    fn records_without_measure_are_refused() {
        assert!(records(&[0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(records(&[0; 4 * (MOST_FRAGMENTS + 2)]).is_err());
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

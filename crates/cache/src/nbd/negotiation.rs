//! The beginning of a connection: which root, and in which form replies go (doc/proto.md, "Fixed newstyle negotiation").

use std::io;
use std::sync::Arc;

use estive_model::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::said;
use super::transmission::{LARGEST_READ_BYTES, MAX_ROOTS_LISTED};
use crate::roots::Root;
use crate::{Cache, ReadError};

const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
const REP_ERR_INVALID: u32 = (1 << 31) + 3;
const REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
const REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const HAS_FLAGS: u16 = 1;
const READ_ONLY: u16 = 1 << 1;
const SEND_FLUSH: u16 = 1 << 2;
const SEND_DF: u16 = 1 << 7;
const CAN_MULTI_CONN: u16 = 1 << 8;

/// The longest data of an option that is read; a name has at most 4096 bytes.
const MAX_OPTION_BYTES: u32 = 8 << 10;
/// Data up to this is passed over and refused; more ends the connection.
const MAX_PASSED_BYTES: u32 = 1 << 20;
/// Options of one connection.
const MAX_OPTIONS: u32 = 64;
const PREFERRED_BLOCK_BYTES: u32 = 4096;

/// What a client and we agreed on.
pub(super) struct Agreed {
    pub root: Arc<Root>,
    pub structured: bool,
}

/// `None`: the client went away, as it may.
pub(super) async fn negotiate(
    cache: &Arc<Cache>,
    stream: &mut UnixStream,
) -> io::Result<Option<Agreed>> {
    stream.write_all(GREETING).await?;
    stream
        .write_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)
        .await?;
    let client_flags = stream.read_u32().await?;
    if client_flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(wrong("flags that do not exist"));
    }
    let no_zeroes = client_flags & u32::from(FLAG_NO_ZEROES) != 0;
    let mut structured = false;
    for _ in 0..MAX_OPTIONS {
        if stream.read_u64().await? != OPTION_MAGIC {
            return Err(wrong("no option where one is due"));
        }
        let option = stream.read_u32().await?;
        let length = stream.read_u32().await?;
        if length > MAX_OPTION_BYTES {
            if length > MAX_PASSED_BYTES || option == OPT_EXPORT_NAME {
                return Err(wrong("an option that is too long"));
            }
            pass_over(stream, length.into()).await?;
            refuse(stream, option, REP_ERR_TOO_BIG, "the option is too long").await?;
            continue;
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        match option {
            OPT_ABORT => {
                // The client may be gone already.
                let _ = reply(stream, option, REP_ACK, &[]).await;
                return Ok(None);
            }
            OPT_EXPORT_NAME => {
                // This option knows no refusal but the end.
                let root = root_named(cache, &data)
                    .await
                    .map_err(|error| io::Error::other(error.to_string()))?;
                let mut head = export_head(&root, structured).to_vec();
                if !no_zeroes {
                    head.resize(head.len() + 124, 0);
                }
                stream.write_all(&head).await?;
                return Ok(Some(Agreed { root, structured }));
            }
            OPT_LIST if data.is_empty() => list(cache, stream).await?,
            OPT_LIST => refuse(stream, option, REP_ERR_INVALID, "it takes no data").await?,
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                structured = true;
                reply(stream, option, REP_ACK, &[]).await?;
            }
            OPT_STRUCTURED_REPLY => {
                refuse(stream, option, REP_ERR_INVALID, "it takes no data").await?;
            }
            OPT_INFO | OPT_GO => {
                let Some(name) = name_of_info(&data) else {
                    refuse(stream, option, REP_ERR_INVALID, "it cannot be read").await?;
                    continue;
                };
                match root_named(cache, name).await {
                    Ok(root) => {
                        inform(stream, option, &root, structured).await?;
                        if option == OPT_GO {
                            return Ok(Some(Agreed { root, structured }));
                        }
                    }
                    Err(error) => {
                        let said = error.to_string();
                        refuse(stream, option, REP_ERR_UNKNOWN, &said).await?;
                    }
                }
            }
            // TLS is for networks; here the kernel says who is at the other end. Block status would tell only that
            // everything is there.
            _ => refuse(stream, option, REP_ERR_UNSUP, "it is not understood here").await?,
        }
    }
    Err(wrong("options without end"))
}

async fn root_named(cache: &Arc<Cache>, name: &[u8]) -> Result<Arc<Root>, ReadError> {
    let hex = String::from_utf8_lossy(&name[..name.len().min(80)]);
    let hex = hex.strip_prefix("sha256:").unwrap_or(&hex);
    let digest = Digest::new(format!("sha256:{hex}")).map_err(|_| ReadError::NotHad {
        what: "the root".to_owned(),
        reasons: "its name is not 64 lower-case hex digits".to_owned(),
    })?;
    cache.root(&digest).await
}

/// The export's name in the data of INFO and GO; which information is wished for does not matter.
fn name_of_info(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    (rest.len() == 2 * usize::from(u16::from_be_bytes(*count))).then_some(name)
}

/// Size and flags.
fn export_head(root: &Root, structured: bool) -> [u8; 10] {
    let mut flags = HAS_FLAGS | READ_ONLY | SEND_FLUSH | CAN_MULTI_CONN;
    if structured {
        flags |= SEND_DF;
    }
    let mut head = [0; 10];
    head[..8].copy_from_slice(&root.manifest.size_bytes().to_be_bytes());
    head[8..].copy_from_slice(&flags.to_be_bytes());
    head
}

async fn inform(
    stream: &mut UnixStream,
    option: u32,
    root: &Root,
    structured: bool,
) -> io::Result<()> {
    let export = [
        &INFO_EXPORT.to_be_bytes()[..],
        &export_head(root, structured),
    ]
    .concat();
    reply(stream, option, REP_INFO, &export).await?;
    let blocks = [1, PREFERRED_BLOCK_BYTES, LARGEST_READ_BYTES].map(u32::to_be_bytes);
    let blocks = [&INFO_BLOCK_SIZE.to_be_bytes()[..], blocks.as_flattened()].concat();
    reply(stream, option, REP_INFO, &blocks).await?;
    reply(stream, option, REP_ACK, &[]).await
}

async fn list(cache: &Arc<Cache>, stream: &mut UnixStream) -> io::Result<()> {
    for name in cache.names(MAX_ROOTS_LISTED).await {
        let hex = name.hex().as_bytes();
        let data = [&(hex.len() as u32).to_be_bytes()[..], hex].concat();
        reply(stream, OPT_LIST, REP_SERVER, &data).await?;
    }
    reply(stream, OPT_LIST, REP_ACK, &[]).await
}

async fn refuse(stream: &mut UnixStream, option: u32, kind: u32, why: &str) -> io::Result<()> {
    reply(stream, option, kind, said(why)).await
}

async fn reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(20 + data.len());
    message.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    stream.write_all(&message).await
}

async fn pass_over(stream: &mut UnixStream, bytes: u64) -> io::Result<()> {
    let passed = tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await?;
    match passed == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the client sent {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_only_from_data_that_is_whole() {
        assert_eq!(name_of_info(b"\0\0\0\x02ab\0\0"), Some(&b"ab"[..]));
        assert_eq!(name_of_info(b"\0\0\0\0\0\x01\0\x03"), Some(&b""[..]));
        for wrong in [
            &b""[..],
            b"\0\0\0\x02ab",
            b"\0\0\0\x02ab\0",
            b"\0\0\0\x02ab\0\x01",
            b"\0\0\0\x02ab\0\0\0",
            b"\xff\xff\xff\xffab\0\0",
        ] {
            assert_eq!(name_of_info(wrong), None, "{wrong:?}");
        }
    }
}

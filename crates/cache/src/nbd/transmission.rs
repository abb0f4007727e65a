//! The rest of a connection: requests, many at once, and their replies in whatever order they are ready
//! (doc/proto.md, "Transmission").

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::negotiation::Agreed;
use super::{errno, said};
use crate::Cache;
use crate::roots::Root;

/// The longest read, as QEMU has it.
pub(super) const LARGEST_READ_BYTES: u32 = 32 << 20;
pub(super) const MAX_ROOTS_LISTED: usize = 1024;

/// Requests of one connection under way at once; QEMU sends at most 16.
const REQUESTS_AT_ONCE: usize = 32;
/// Bytes of one connection under way at once, in KiB: one largest read, and some.
const KIB_AT_ONCE: usize = 48 << 10;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_TRIM: u16 = 4;
const CMD_WRITE_ZEROES: u16 = 6;

/// "Do not fragment": our replies never are.
const FLAG_DF: u16 = 1 << 2;

const REPLY_DONE: u16 = 1;
const REPLY_NONE: u16 = 0;
const REPLY_OFFSET_DATA: u16 = 1;
const REPLY_ERROR: u16 = (1 << 15) + 1;

struct Request {
    flags: u16,
    kind: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

struct Reply {
    head: Bytes,
    data: Vec<Bytes>,
}

/// A reply and its part of what may be under way, given back once it is written.
type Due = (Reply, Held);
type Held = Vec<Option<OwnedSemaphorePermit>>;

pub(super) async fn transmit(
    cache: &Arc<Cache>,
    stream: UnixStream,
    agreed: Agreed,
) -> io::Result<()> {
    let (reading, writing) = stream.into_split();
    let (replies, to_write) = mpsc::channel(REQUESTS_AT_ONCE);
    // Ends with this connection, whatever ends it.
    let writer = AbortOnDropHandle::new(tokio::spawn(write_replies(writing, to_write)));
    let requests = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
    let memory = Arc::new(Semaphore::new(KIB_AT_ONCE));
    let mut reading = BufReader::new(reading);
    let mut work = tokio::task::JoinSet::new();
    let ended = loop {
        let Some(request) = read_request(&mut reading).await? else {
            // It has not said goodbye: it is not there any more, and what it asked for may take a minute.
            return Ok(());
        };
        while work.try_join_next().is_some() {}
        let refusal = match request.kind {
            CMD_DISC => break Ok(()),
            CMD_READ => refusal(&request, agreed.root.manifest.size_bytes()),
            CMD_WRITE => {
                if request.length > LARGEST_READ_BYTES {
                    break Err(io::Error::other("a write that is too long"));
                }
                let mut payload = (&mut reading).take(request.length.into());
                tokio::io::copy(&mut payload, &mut tokio::io::sink()).await?;
                Some((errno::EPERM, "this is a read-only root"))
            }
            CMD_TRIM | CMD_WRITE_ZEROES => Some((errno::EPERM, "this is a read-only root")),
            // Nothing is ever written: all of it is on disk.
            CMD_FLUSH if request.length == 0 && request.offset == 0 && request.flags == 0 => None,
            CMD_FLUSH => Some((errno::EINVAL, "a flush that names bytes")),
            _ => Some((errno::EINVAL, "it is not understood here")),
        };
        // Never closed; a client with too much under way is not read from until some of it is done.
        let mut held: Held = vec![requests.clone().acquire_owned().await.ok()];
        if request.kind == CMD_READ && refusal.is_none() {
            let kib = request.length.div_ceil(1024);
            held.push(memory.clone().acquire_many_owned(kib).await.ok());
        }
        let (cache, root) = (cache.clone(), agreed.root.clone());
        let (structured, replies) = (agreed.structured, replies.clone());
        work.spawn(async move {
            let reply = match refusal {
                Some((number, why)) => failure(&request, structured, number, why),
                None if request.kind == CMD_FLUSH => done(&request, structured),
                None => read(&cache, &root, &request, structured).await,
            };
            // The writer is gone only when the client is.
            let _ = replies.send((reply, held)).await;
        });
        if writer.is_finished() {
            break Err(io::ErrorKind::BrokenPipe.into());
        }
    };
    // "The server must wait for in-flight requests" (CMD_DISC).
    while work.join_next().await.is_some() {}
    drop(replies);
    let _ = writer.await;
    ended
}

/// Why a read is not even tried.
fn refusal(request: &Request, size_bytes: u64) -> Option<(u32, &'static str)> {
    let end = request.offset.checked_add(request.length.into());
    if request.flags & !FLAG_DF != 0 {
        Some((errno::EINVAL, "flags that do not exist for a read"))
    } else if request.length == 0 {
        Some((errno::EINVAL, "a read of nothing"))
    } else if request.length > LARGEST_READ_BYTES {
        Some((errno::EOVERFLOW, "a read of more than 32 MiB"))
    } else if end.is_none_or(|end| end > size_bytes) {
        Some((errno::EINVAL, "a read beyond the end"))
    } else {
        None
    }
}

async fn read(cache: &Arc<Cache>, root: &Arc<Root>, request: &Request, structured: bool) -> Reply {
    match cache.read(root, request.offset, request.length).await {
        Ok(data) if structured => {
            let mut head = structured_head(request, REPLY_OFFSET_DATA, 8 + request.length);
            head.put_u64(request.offset);
            Reply {
                head: head.freeze(),
                data,
            }
        }
        Ok(data) => Reply {
            head: simple_head(request, 0),
            data,
        },
        Err(crate::ReadError::Ending) => {
            failure(request, structured, errno::ESHUTDOWN, "the cache is ending")
        }
        Err(error) => failure(request, structured, errno::EIO, &error.to_string()),
    }
}

fn done(request: &Request, structured: bool) -> Reply {
    let head = match structured {
        true => structured_head(request, REPLY_NONE, 0).freeze(),
        false => simple_head(request, 0),
    };
    Reply { head, data: vec![] }
}

fn failure(request: &Request, structured: bool, number: u32, why: &str) -> Reply {
    let head = if structured {
        let why = said(why);
        let mut head = structured_head(request, REPLY_ERROR, 6 + why.len() as u32);
        head.put_u32(number);
        head.put_u16(why.len() as u16);
        head.put_slice(why);
        head.freeze()
    } else {
        simple_head(request, number)
    };
    Reply { head, data: vec![] }
}

fn simple_head(request: &Request, number: u32) -> Bytes {
    let mut head = BytesMut::with_capacity(16);
    head.put_u32(SIMPLE_MAGIC);
    head.put_u32(number);
    head.put_u64(request.cookie);
    head.freeze()
}

fn structured_head(request: &Request, kind: u16, length: u32) -> BytesMut {
    let mut head = BytesMut::with_capacity(28);
    head.put_u32(STRUCTURED_MAGIC);
    head.put_u16(REPLY_DONE);
    head.put_u16(kind);
    head.put_u64(request.cookie);
    head.put_u32(length);
    head
}

/// `None` at the end of the stream, between two requests.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let magic = match stream.read_u32().await {
        Ok(magic) => magic,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if magic != REQUEST_MAGIC {
        return Err(io::Error::other("no request where one is due"));
    }
    Ok(Some(Request {
        flags: stream.read_u16().await?,
        kind: stream.read_u16().await?,
        cookie: stream.read_u64().await?,
        offset: stream.read_u64().await?,
        length: stream.read_u32().await?,
    }))
}

async fn write_replies(
    mut stream: impl AsyncWrite + Unpin,
    mut replies: mpsc::Receiver<Due>,
) -> io::Result<()> {
    while let Some((reply, held)) = replies.recv().await {
        // Head and data in one piece: QEMU wakes up for each.
        let pieces: Vec<&[u8]> = std::iter::once(&reply.head)
            .chain(&reply.data)
            .map(AsRef::as_ref)
            .collect();
        write_all_vectored(&mut stream, &pieces).await?;
        drop(held);
    }
    stream.flush().await
}

async fn write_all_vectored(
    stream: &mut (impl AsyncWrite + Unpin),
    pieces: &[&[u8]],
) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match stream.write_vectored(left).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut left, written),
        }
    }
    Ok(())
}

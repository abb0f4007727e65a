//! Records of RPC on a byte stream, each in one fragment or in some (RFC 5531, section 11).

use std::io::IoSlice;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::rpc::MOST_DATA_BYTES;

/// A call with that, its credentials and its head.
const MOST_RECORD_BYTES: usize = MOST_DATA_BYTES as usize + (64 << 10);
/// Nobody needs more parts; a stream of empty ones would have no end.
const MOST_FRAGMENTS: usize = 1024;
const LAST: u32 = 1 << 31;

/// Memory that is set aside before the bytes are there: what is common, and not what a sender says.
const USUAL_BYTES: usize = 128 << 10;

/// The head of a record in one part.
fn head(size: usize) -> [u8; 4] {
    let size = u32::try_from(size).expect("replies are bounded");
    (size | LAST).to_be_bytes()
}

/// Writes a record in one part: head and body in one piece where the stream can, for each piece costs a system call, a
/// record of TLS, and the other side a wakeup.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> std::io::Result<()> {
    let head = head(body.len());
    let mut written = 0;
    while written < head.len() {
        let both = [IoSlice::new(&head[written..]), IoSlice::new(body)];
        match stream.write_vectored(&both).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            more => written += more,
        }
    }
    stream.write_all(&body[written - head.len()..]).await?;
    stream.flush().await
}

/// The next record; `None` where the stream ends between two.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    if let Err(error) = stream.read_exact(&mut head).await {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        };
    }
    read_rest(stream, head).await.map(Some)
}

/// What a record that begins so may take, in bytes.
#[must_use]
pub fn bytes_at_most(head: [u8; 4]) -> usize {
    let head = u32::from_be_bytes(head);
    match head & LAST != 0 {
        true => ((head & !LAST) as usize).min(MOST_RECORD_BYTES),
        false => MOST_RECORD_BYTES,
    }
}

/// Reads the rest of a record whose first fragment has this head.
pub async fn read_rest(
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
        record.reserve(size.min(USUAL_BYTES));
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
    use std::pin::Pin;
    use std::task::{Context, Poll};

    fn records(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut stream = bytes;
            let mut head = [0; 4];
            stream.read_exact(&mut head).await?;
            read_rest(&mut stream, head).await
        })
    }

    proptest! {
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

    /// Takes a few bytes at a time, in one piece or in several.
    struct Slow {
        taken: Vec<u8>,
        most: usize,
        is_vectored: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<std::io::Result<usize>> {
            let some = if self.is_vectored { pieces.len() } else { 1 };
            let bytes: Vec<u8> = pieces[..some]
                .iter()
                .flat_map(|piece| piece.to_vec())
                .collect();
            let size = bytes.len().min(self.most);
            self.taken.extend(&bytes[..size]);
            Poll::Ready(Ok(size))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_record_is_written_whole_however_little_is_taken_at_a_time() {
        let body: Vec<u8> = (0..50).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for (most, is_vectored) in (1..60).flat_map(|most| [(most, false), (most, true)]) {
            let taken = Vec::new();
            let mut slow = Slow {
                taken,
                most,
                is_vectored,
            };
            runtime.block_on(write(&mut slow, &body)).unwrap();
            assert_eq!(records(&slow.taken).unwrap(), body, "{most} {is_vectored}");
        }
    }

    #[test]
    fn records_without_measure_are_refused() {
        assert!(records(&[0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(records(&[0; 4 * (MOST_FRAGMENTS + 2)]).is_err());
    }
}

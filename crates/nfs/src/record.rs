//! Records of RPC on a byte stream, each in one fragment or in some (RFC 5531, section 11).

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::rpc::MOST_DATA_BYTES;

/// A call with that, its credentials and its head.
const MOST_RECORD_BYTES: usize = MOST_DATA_BYTES as usize + (64 << 10);
/// Nobody needs more parts; a stream of empty ones would have no end.
const MOST_FRAGMENTS: usize = 1024;
const LAST: u32 = 1 << 31;

/// The head of a record in one part.
pub fn head(size: usize) -> [u8; 4] {
    let size = u32::try_from(size).expect("replies are bounded");
    (size | LAST).to_be_bytes()
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

    #[test]
    fn records_without_measure_are_refused() {
        assert!(records(&[0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(records(&[0; 4 * (MOST_FRAGMENTS + 2)]).is_err());
    }
}

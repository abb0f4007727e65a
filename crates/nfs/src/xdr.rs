//! XDR (RFC 4506), of what NFS uses: read from a message without copying, written to a reply.
//!
//! The types of `nfs3_types` are not used here: they reserve memory by a length that the sender
//! states, before it has sent as much.

/// A message that is not what its procedure takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage;

pub type Result<T> = std::result::Result<T, Garbage>;

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(size).ok_or(Garbage)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    /// Opaque bytes of a size known to both, a multiple of four.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        const { assert!(N.is_multiple_of(4)) };
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many were taken"))
    }

    /// Opaque bytes or text, `most` at the most.
    pub fn opaque(&mut self, most: usize) -> Result<&'a [u8]> {
        let size = usize::try_from(self.u32()?).map_err(|_| Garbage)?;
        if size > most {
            return Err(Garbage);
        }
        let bytes = self.take(size)?;
        self.take(padding(size))?;
        Ok(bytes)
    }

    /// What follows is absent, or read so.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.bool()? {
            true => read(self).map(Some),
            false => Ok(None),
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn padding(size: usize) -> usize {
    size.wrapping_neg() & 3
}

/// A reply as it grows.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// Opaque bytes of a size known to both, a multiple of four.
    pub fn fixed(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len().is_multiple_of(4));
        self.bytes.extend(bytes);
    }

    pub fn opaque(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("replies are bounded"));
        self.bytes.extend(bytes);
        self.pad(bytes.len());
    }

    fn pad(&mut self, size: usize) {
        self.bytes.extend(&[0; 3][..padding(size)]);
    }

    /// Opaque bytes that `fill` puts into a buffer of `most` zeros, telling how many.
    pub fn filled<E>(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> std::result::Result<usize, E>,
    ) -> std::result::Result<usize, E> {
        let length_at = self.bytes.len();
        self.u32(0);
        let data_at = self.bytes.len();
        self.bytes.resize(data_at + most, 0);
        let size = fill(&mut self.bytes[data_at..])?.min(most);
        self.bytes.truncate(data_at + size);
        self.set_u32(length_at, u32::try_from(size).expect("replies are bounded"));
        self.pad(size);
        Ok(size)
    }

    /// Writes over what stands there.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Back to what it was at that length.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number in any::<u32>(), long in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..70)) {
            let mut writer = Writer::default();
            writer.u32(number);
            writer.opaque(&text);
            writer.u64(long);
            let filled = writer.filled(80, |buffer| {
                buffer[..text.len()].copy_from_slice(&text);
                Ok::<_, ()>(text.len())
            });
            prop_assert_eq!(filled, Ok(text.len()));
            let bytes = writer.into_bytes();
            prop_assert!(bytes.len().is_multiple_of(4));
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.u32(), Ok(number));
            prop_assert_eq!(reader.opaque(70), Ok(&text[..]));
            prop_assert_eq!(reader.u64(), Ok(long));
            prop_assert_eq!(reader.opaque(70), Ok(&text[..]));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn lengths_that_lie_are_garbage() {
        assert_eq!(Reader::new(&[255; 8]).opaque(usize::MAX), Err(Garbage));
        assert_eq!(
            Reader::new(&[0, 0, 0, 5, 1, 2, 3, 4]).opaque(9),
            Err(Garbage)
        );
        assert_eq!(
            Reader::new(&[0, 0, 0, 5, 1, 2, 3, 4, 5]).opaque(9),
            Err(Garbage)
        );
        assert_eq!(Reader::new(&[0, 0, 0, 2]).bool(), Err(Garbage));
    }
}

//! CRC-32C as the kernel keeps it of a superblock: begun with all ones, not inverted at the end.

const POLYNOMIAL: u32 = 0x82f6_3b78;

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(!super::crc32c(b"123456789"), 0xe306_9283);
    }
}

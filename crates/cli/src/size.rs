//! Sizes on command lines.

/// `16G`, `512M`, `64K` or bytes.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is no size; write 16G, 512M or a number of bytes"))
}

/// For calls of clones of live references, all together.
pub fn live_memory_bytes(text: &str) -> Result<u64, String> {
    let least = estive_live::Memory::LEAST_BYTES;
    match size_bytes(text)? {
        bytes if bytes < least => Err(format!("{} MiB at least", least >> 20)),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_what_is_none_is_refused() {
        assert_eq!(size_bytes("16G"), Ok(16 << 30));
        assert_eq!(size_bytes("77"), Ok(77));
        for wrong in ["", "G", "1g", "1.5G", "-1", "99999999999T", "1GiB"] {
            assert!(size_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(live_memory_bytes("16M"), Ok(16 << 20));
        assert!(live_memory_bytes("15M").unwrap_err().contains("16 MiB"));
    }
}

//! The UUID of a clone's domain, drawn from its names.

use estive_model::{DeploymentName, DomainName};
use sha2::{Digest as _, Sha256};

/// The same clone of the same deployment always has the same UUID (version 8 of RFC 9562: our own
/// hash), in the usual 8-4-4-4-12 form.
pub fn domain_uuid(deployment: &DeploymentName, clone: &DomainName) -> String {
    let hash = Sha256::digest(format!("estive domain {deployment}/{clone}"));
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_uuid_and_stays_the_same() {
        let of = |deployment: &str, clone: &str| {
            domain_uuid(
                &DeploymentName::new(deployment).unwrap(),
                &DomainName::new(clone).unwrap(),
            )
        };
        let uuid = of("herd", "clone01");
        assert_eq!(uuid, of("herd", "clone01"));
        assert_ne!(uuid, of("herd", "clone02"));
        assert_ne!(uuid, of("other", "clone01"));
        assert_eq!(uuid.len(), 36);
        assert_eq!((&uuid[14..15], &uuid[8..9]), ("8", "-"));
    }
}

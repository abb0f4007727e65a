//! Secrets of a clone, derived from the deployment's one secret, so that a layer made twice is the
//! same twice, and a clone keeps its host key through every rebuild.
//!
//! HKDF-SHA256 (RFC 5869): the deployment's secret is the key material, purpose and clone's name
//! are the info. The seed of a clone's random numbers is not among them: it must be new each time.

use std::fmt;

use hkdf::Hkdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

const SALT: &[u8] = b"estive clone secrets v1";

/// The secret of one deployment: 32 random bytes, kept by the manager (mode 0600).
#[derive(Clone, PartialEq, Eq)]
pub struct DeploymentSecret([u8; 32]);

impl DeploymentSecret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(bytes))
    }

    /// As 64 hex digits, for keeping.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The machine-id of the clone of this name, 32 hex digits.
    pub(crate) fn machine_id(&self, name: &str) -> String {
        let mut id = [0; 16];
        self.derive("machine-id", name, &mut id);
        // Shaped as a random UUID (version 4, RFC 9562), as systemd's own are (machine-id(5)).
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        hex(&id)
    }

    /// What belongs to the clone of this name.
    pub fn of_clone(&self, name: &str) -> CloneSecrets {
        let comment = format!("root@{name}");
        let (ssh_host_key, ssh_host_key_public) =
            self.key_pair("ssh-host-key-ed25519", name, &comment);
        CloneSecrets {
            machine_id: self.machine_id(name),
            ssh_host_key,
            ssh_host_key_public,
        }
    }

    /// What all clones of the deployment share, and nobody else has.
    pub fn of_cluster(&self) -> ClusterSecrets {
        let (key, key_public) = self.key_pair("ssh-cluster-key-ed25519", "", "estive-cluster");
        ClusterSecrets { key, key_public }
    }

    /// An ed25519 pair in OpenSSH's forms, without the last newline.
    fn key_pair(&self, purpose: &str, name: &str, comment: &str) -> (String, String) {
        let mut seed = [0; 32];
        self.derive(purpose, name, &mut seed);
        let key = PrivateKey::new(
            KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)),
            comment,
        )
        .expect("a key made from a seed is not encrypted, the one thing refused here");
        let private = key
            .to_openssh(LineEnding::LF)
            .expect("an ed25519 key has an OpenSSH form");
        let public = key
            .public_key()
            .to_openssh()
            .expect("an ed25519 key has an OpenSSH form");
        (private.trim_end().to_owned(), public)
    }

    fn derive(&self, purpose: &str, name: &str, out: &mut [u8]) {
        // Purposes hold no NUL and clone names neither, so that no two infos are alike.
        let info: [&[u8]; 3] = [purpose.as_bytes(), &[0], name.as_bytes()];
        Hkdf::<Sha256>::new(Some(SALT), &self.0)
            .expand_multi_info(&info, out)
            .expect("HKDF gives up to 255 hashes, and this is at most one");
    }
}

/// As hex digits: for the process that renders, and no other.
impl Serialize for DeploymentSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for DeploymentSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("64 hex digits are wanted"))
    }
}

impl fmt::Debug for DeploymentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeploymentSecret(…)")
    }
}

/// What only this clone has.
#[derive(Clone, PartialEq, Eq)]
pub struct CloneSecrets {
    /// 32 hex digits.
    pub machine_id: String,
    /// OpenSSH's private key format, ed25519, without the last newline.
    pub ssh_host_key: String,
    /// `ssh-ed25519 AAAA… root@NAME`
    pub ssh_host_key_public: String,
}

impl fmt::Debug for CloneSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloneSecrets")
            .field("ssh_host_key_public", &self.ssh_host_key_public)
            .finish_non_exhaustive()
    }
}

/// What lets the clones of a deployment into one another.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecrets {
    /// OpenSSH's private key format, ed25519, without the last newline.
    pub key: String,
    /// `ssh-ed25519 AAAA… estive-cluster`
    pub key_public: String,
}

impl fmt::Debug for ClusterSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSecrets")
            .field("key_public", &self.key_public)
            .finish_non_exhaustive()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_the_same_for_the_same_name_and_no_other() {
        let secret = DeploymentSecret::new([7; 32]);
        let one = secret.of_clone("clone01");
        assert_eq!(one, secret.of_clone("clone01"));
        let others = [
            secret.of_clone("clone02"),
            DeploymentSecret::new([8; 32]).of_clone("clone01"),
        ];
        for other in others {
            assert_ne!(one.machine_id, other.machine_id);
            assert_ne!(one.ssh_host_key_public, other.ssh_host_key_public);
        }
        // Golden: known_hosts files and journals of running herds rely on it.
        assert_eq!(one.machine_id, "fe9dcdd925994a26ac3005ed2161d273");
        assert_eq!(
            one.ssh_host_key_public,
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINbkKqQw0LJ8t2faIKs2BIRtmZVLtoVwoIyrYiGnXI0I root@clone01"
        );
    }

    #[test]
    fn the_host_key_reads_back_as_a_pair() {
        let secrets = DeploymentSecret::new([1; 32]).of_clone("a");
        let private = PrivateKey::from_openssh(&secrets.ssh_host_key).unwrap();
        assert_eq!(
            private.public_key().to_openssh().unwrap(),
            secrets.ssh_host_key_public
        );
        assert_eq!(private.comment(), "root@a");
    }

    #[test]
    fn the_cluster_has_a_key_that_is_no_clones() {
        let secret = DeploymentSecret::new([1; 32]);
        let cluster = secret.of_cluster();
        let private = PrivateKey::from_openssh(&cluster.key).unwrap();
        let public = private.public_key().to_openssh().unwrap();
        assert_eq!(public, cluster.key_public);
        assert_eq!(secret.of_cluster(), cluster);
        let other = DeploymentSecret::new([2; 32]).of_cluster();
        assert_ne!(other.key_public, cluster.key_public);
        // A clone's name is never empty; even so, its key would be another one.
        let key = |text: &str| text.split(' ').nth(1).map(str::to_owned);
        let clone = secret.of_clone("").ssh_host_key_public;
        assert_ne!(key(&clone), key(&cluster.key_public));
        assert!(!format!("{cluster:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_secret_is_kept_as_hex_and_never_shown() {
        let secret = DeploymentSecret::new([0xa5; 32]);
        assert_eq!(
            DeploymentSecret::from_hex(&secret.to_hex()),
            Some(secret.clone())
        );
        assert_eq!(DeploymentSecret::from_hex("a5"), None);
        assert_eq!(DeploymentSecret::from_hex(&"é".repeat(32)), None);
        assert!(!format!("{secret:?}{:?}", secret.of_clone("a")).contains("a5a5"));
        assert!(!format!("{:?}", secret.of_clone("a")).contains("OPENSSH"));
    }
}

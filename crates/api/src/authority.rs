//! The private certificate authority and what it issues.
//!
//! Keys are ECDSA P-256 in PKCS#8. The authority lives in one directory: `ca-cert.pem` and `ca-key.pem`. What it
//! issues is one directory for each holder, with the file names that QEMU's `tls-creds-x509` looks for
//! (docs/system/tls.rst of QEMU), so that rustls and GnuTLS read the same files.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_chunks::{Manifest, SignedManifest};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SigningKey as _,
};
use rustix::fs::{CWD, RenameFlags};
use time::OffsetDateTime;

use crate::error::Error;
use crate::identity::{Role, check_name, identity_uri};
use crate::issued::{IssuedCertificate, hexadecimal};
use crate::revocation::LIST;

pub(crate) const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
pub(crate) const SERVER_CERT: &str = "server-cert.pem";
pub(crate) const SERVER_KEY: &str = "server-key.pem";
const CLIENT_CERT: &str = "client-cert.pem";
const CLIENT_KEY: &str = "client-key.pem";
const ISSUED_FILES: [&str; 6] = [
    CA_CERT,
    SERVER_CERT,
    SERVER_KEY,
    CLIENT_CERT,
    CLIENT_KEY,
    LIST,
];

const AUTHORITY_LIFETIME: time::Duration = time::Duration::days(3650);
/// Certificates begin this long before they are issued, for hosts whose clocks are behind.
pub(crate) const BACKDATED: time::Duration = time::Duration::days(1);

/// A private certificate authority, loaded with its key.
pub struct Authority {
    directory: PathBuf,
    certificate_pem: String,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A key and its certificate, fresh from the authority.
pub struct Issued {
    authority_pem: String,
    certificate_pem: String,
    key_pem: String,
    /// Of revoked certificates, as it is now.
    list_pem: Option<String>,
}

impl Authority {
    /// Loads the authority of a directory, or makes one (valid ten years) when the directory is absent or empty.
    ///
    /// The directory is 0700 and appears whole or not at all; of two that make it at the same time one wins and
    /// both load that one. Errors: [`Error::AuthorityDamaged`] for a directory that holds something else or less.
    pub fn open_or_create(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        if !is_absent_or_empty(directory)? {
            return Self::open(directory);
        }
        let (key_pem, certificate_pem) = make_authority()?;
        let parent = parent_of(directory);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(Error::file("make the directory", parent))?;
        let partial = write_beside(
            directory,
            &[
                (CA_KEY, &key_pem, 0o600),
                (CA_CERT, &certificate_pem, 0o644),
            ],
        )?;
        match fs::rename(partial.path(), directory) {
            Ok(()) => {
                // It is no longer where the guard would look for it.
                let _ = partial.keep();
                sync_directory(parent)?;
            }
            // Somebody else made one in the meantime: theirs is as good, once everyone uses it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            Err(error) => return Err(Error::file("put the new authority at", directory)(error)),
        }
        Self::open(directory)
    }

    /// Loads the authority of a directory. Errors: [`Error::AuthorityDamaged`] when there is none, or not all of it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        let damaged = |reason: String| Error::AuthorityDamaged {
            directory: directory.to_owned(),
            reason,
        };
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => damaged(format!("it has no {name}")),
                io::ErrorKind::InvalidData => damaged(format!("{name} is not text")),
                _ => Error::file("read", &path)(error),
            })
        };
        let certificate_pem = read(CA_CERT)?;
        let key = KeyPair::from_pem(&read(CA_KEY)?)
            .map_err(|error| damaged(format!("{CA_KEY}: {error}")))?;

        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
            .map_err(|error| damaged(format!("{CA_CERT}: {error}")))?;
        let parsed = pem
            .parse_x509()
            .map_err(|error| damaged(format!("{CA_CERT}: {error}")))?;
        if !parsed.is_ca() {
            return Err(damaged(format!(
                "{CA_CERT} is not an authority's certificate"
            )));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(damaged(format!("{CA_KEY} does not belong to {CA_CERT}")));
        }
        let not_after = parsed.validity().not_after.to_datetime();
        if not_after <= OffsetDateTime::now_utc() {
            return Err(damaged(format!("{CA_CERT} ended at {not_after}")));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|error| damaged(format!("{CA_CERT}: {error}")))?;
        Ok(Self {
            directory: directory.to_owned(),
            certificate_pem,
            not_after,
            issuer,
        })
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(crate) fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Where the authority lives.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its certificate, which everyone needs and everyone may see.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs the manifest of a sealed root (ECDSA P-256 with SHA-256, in DER);
    /// [`AuthorityKey::vouches_for`](crate::credentials::AuthorityKey::vouches_for) checks it.
    pub fn sign_root(&self, manifest: Manifest) -> Result<SignedManifest, Error> {
        let signature = self
            .issuer
            .key()
            .sign(&SignedManifest::signing_payload(&manifest))
            .map_err(|source| Error::Certificate {
                what: "a signature",
                source,
            })?;
        Ok(SignedManifest {
            manifest,
            signature,
        })
    }

    /// Makes a key and a certificate for `role`/`name`, valid from a day ago until `lifetime` from now (never
    /// longer than the authority itself).
    ///
    /// The identity is in it twice: common name `role:name`, and URI `estive://role/name` (the one that is read).
    /// It also names `addresses` and `localhost`, where a client may expect to find the holder serving. A user's
    /// certificate opens doors only: it is not valid for a server.
    pub fn issue(
        &self,
        role: Role,
        name: &str,
        addresses: &[IpAddr],
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        // Certificates are about the calendar that all parties share, not about time that passes in here.
        self.issue_at(role, name, addresses, lifetime, OffsetDateTime::now_utc())
    }

    pub(crate) fn issue_at(
        &self,
        role: Role,
        name: &str,
        addresses: &[IpAddr],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, Error> {
        check_name(name)?;
        let failed = |what| move |source| Error::Certificate { what, source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("a key"))?;
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = time::Duration::try_from(lifetime)
            .ok()
            .and_then(|lifetime| now.checked_add(lifetime))
            .map_or(self.not_after, |end| end.min(self.not_after));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{role}:{name}"));
        let uri = Ia5String::try_from(identity_uri(role, name))
            .map_err(failed("the identity of a certificate"))?;
        let localhost =
            Ia5String::try_from("localhost").map_err(failed("the names of a certificate"))?;
        params.subject_alt_names = vec![SanType::URI(uri), SanType::DnsName(localhost)];
        params
            .subject_alt_names
            .extend(addresses.iter().map(|&address| SanType::IpAddress(address)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role != Role::User {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.custom_extensions = vec![digital_signature_only()];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed("a certificate"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der())
            .map_err(|_| failed("a certificate")(rcgen::Error::CouldNotParseCertificate))?;
        self.note_issued(&IssuedCertificate {
            serial: hexadecimal(parsed.raw_serial()),
            role,
            name: name.to_owned(),
            not_after_s: parsed.validity().not_after.timestamp(),
        })?;
        Ok(Issued {
            list_pem: self.list_pem()?,
            authority_pem: self.certificate_pem.clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

impl Issued {
    /// Writes `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-cert.pem` and `client-key.pem` (the same
    /// key for both uses; keys 0600, directory 0700), and `ca-crl.pem` where something was revoked. The directory changes whole: one that holds older
    /// credentials is replaced in one step, one that holds anything else is left alone with an error.
    pub fn write_to(&self, directory: impl AsRef<Path>) -> Result<(), Error> {
        let directory = directory.as_ref();
        let replaces = !is_absent_or_empty(directory)?;
        if replaces {
            for entry in
                fs::read_dir(directory).map_err(Error::file("read the directory", directory))?
            {
                let name = entry
                    .map_err(Error::file("read the directory", directory))?
                    .file_name();
                if !ISSUED_FILES.iter().any(|file| *file == name) {
                    return Err(Error::BadCredentials {
                        path: directory.to_owned(),
                        reason: format!(
                            "it holds {name:?}, which is no credentials' file, and will not be replaced"
                        ),
                    });
                }
            }
        }
        let parent = parent_of(directory);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(Error::file("make the directory", parent))?;
        let mut files: Vec<(&str, &str, u32)> = vec![
            (CA_CERT, &self.authority_pem, 0o644),
            (SERVER_CERT, &self.certificate_pem, 0o644),
            (SERVER_KEY, &self.key_pem, 0o600),
            (CLIENT_CERT, &self.certificate_pem, 0o644),
            (CLIENT_KEY, &self.key_pem, 0o600),
        ];
        files.extend(self.list_pem.iter().map(|pem| (LIST, pem.as_str(), 0o644)));
        let partial = write_beside(directory, &files)?;
        // Exchanging leaves the old ones under the temporary name, whose guard then removes them.
        let flags = if replaces {
            RenameFlags::EXCHANGE
        } else {
            RenameFlags::empty()
        };
        rustix::fs::renameat_with(CWD, partial.path(), CWD, directory, flags)
            .map_err(|errno| Error::file("put the new credentials at", directory)(errno.into()))?;
        if !replaces {
            let _ = partial.keep();
        }
        sync_directory(parent)
    }

    /// The certificate alone, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
}

/// `keyUsage: digitalSignature`, not critical. rcgen writes it critical, and QEMU (seen: 10.0) refuses a critical
/// one without keyEncipherment, which an elliptic curve key must not have (RFC 8813 section 3).
fn digital_signature_only() -> CustomExtension {
    // BIT STRING of one octet, 7 bits unused, bit 0 set (RFC 5280 section 4.2.1.3).
    CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![0x03, 0x02, 0x07, 0x80])
}

/// A new authority: its key and its certificate.
fn make_authority() -> Result<(String, String), Error> {
    let failed = |source| Error::Certificate {
        what: "a certificate authority",
        source,
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + AUTHORITY_LIFETIME;
    params.distinguished_name = rcgen::DistinguishedName::new();
    // Two authorities must not share a name, or a stranger's certificate reads as a forged one.
    let mark: String = key
        .public_key_raw()
        .iter()
        .rev()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Estive authority {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((key.serialize_pem(), certificate.pem()))
}

fn is_absent_or_empty(directory: &Path) -> Result<bool, Error> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::file("read the directory", directory)(error)),
    }
}

fn parent_of(directory: &Path) -> &Path {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes files (name, content, mode) into a new 0700 directory beside `directory`, all of it on disk on return.
/// The guard removes it again unless it was moved into place.
fn write_beside(directory: &Path, files: &[(&str, &str, u32)]) -> Result<tempfile::TempDir, Error> {
    let parent = parent_of(directory);
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(Error::file("make a directory in", parent))?;
    for (name, content, mode) in files {
        let path = partial.path().join(name);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(content.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .map_err(Error::file("write", &path))?;
    }
    sync_directory(partial.path())?;
    Ok(partial)
}

/// Replaces a file whole; the caller syncs the directory.
pub(crate) fn write_file_beside(directory: &Path, name: &str, content: &str) -> Result<(), Error> {
    let path = directory.join(name);
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".partial-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(directory)?;
        file.write_all(content.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(Error::file("write", &path))
}

pub(crate) fn sync_directory(directory: &Path) -> Result<(), Error> {
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("write out the directory", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("a/authority");
        let first = Authority::open_or_create(&directory).unwrap();
        let second = Authority::open_or_create(&directory).unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(CA_KEY)), 0o600);
        let beside: Vec<_> = fs::read_dir(home.path().join("a"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(beside, ["authority"], "nothing half-made is left beside it");
    }

    #[test]
    fn made_by_many_at_once_it_is_one() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("authority");
        let pems: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        Authority::open_or_create(&directory)
                            .unwrap()
                            .certificate_pem()
                            .to_owned()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(pems.iter().all(|pem| *pem == pems[0]));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_told_and_never_repaired() {
        let home = tempfile::tempdir().unwrap();
        let other = home.path().join("other");
        Authority::open_or_create(&other).unwrap();
        type Damage<'a> = &'a dyn Fn(&Path);
        let cases: [(&str, Damage); 4] = [
            ("it has no ca-key.pem", &|d| {
                fs::remove_file(d.join(CA_KEY)).unwrap()
            }),
            ("it has no ca-cert.pem", &|d| {
                fs::remove_file(d.join(CA_CERT)).unwrap()
            }),
            ("ca-cert.pem", &|d| {
                fs::write(d.join(CA_CERT), "-----BEGIN CERTIFICATE-----\nAA").unwrap()
            }),
            ("does not belong to", &|d| {
                assert!(fs::copy(other.join(CA_KEY), d.join(CA_KEY)).unwrap() > 0)
            }),
        ];
        for (number, (expected, damage)) in cases.iter().enumerate() {
            let directory = home.path().join(number.to_string());
            Authority::open_or_create(&directory).unwrap();
            damage(&directory);
            let error = Authority::open_or_create(&directory)
                .err()
                .expect("damage goes unnoticed")
                .to_string();
            assert!(
                error.contains(expected) && error.contains("is damaged"),
                "{error}"
            );
        }
    }

    #[test]
    fn credentials_are_replaced_whole_and_nothing_else_is() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("authority")).unwrap();
        let directory = home.path().join("tls");
        let issue = |name| authority.issue(Role::Agent, name, &[], DAY).unwrap();
        issue("a").write_to(&directory).unwrap();
        let second = issue("b");
        second.write_to(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(SERVER_KEY)), 0o600);
        assert_eq!(mode(&directory.join(CLIENT_KEY)), 0o600);
        assert_eq!(
            fs::read_to_string(directory.join(SERVER_CERT)).unwrap(),
            second.certificate_pem()
        );
        assert_eq!(
            fs::read_dir(home.path()).unwrap().count(),
            2,
            "the old ones are gone"
        );

        fs::write(directory.join("diary.txt"), "dear").unwrap();
        assert!(issue("c").write_to(&directory).is_err());
        assert_eq!(
            fs::read_to_string(directory.join(SERVER_CERT)).unwrap(),
            second.certificate_pem()
        );
    }

    #[test]
    fn a_root_is_vouched_for_by_its_own_authority_only_and_only_unchanged() {
        let home = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let authority = Authority::open_or_create(home.path().join(name)).unwrap();
            let directory = home.path().join(format!("{name}-agent"));
            let issued = authority.issue(Role::Agent, "a", &[], DAY).unwrap();
            issued.write_to(&directory).unwrap();
            let credentials = crate::Credentials::load(&directory).unwrap();
            (authority, credentials.authority().clone())
        };
        let ((authority, key), (_, other_key)) = (of("one"), of("two"));
        let root = |bytes: &[u8]| Manifest::read(&mut &*bytes).unwrap();
        let signed = authority.sign_root(root(b"root")).unwrap();
        assert!(key.vouches_for(&signed));
        assert!(!other_key.vouches_for(&signed));
        assert!(!key.vouches_for(&SignedManifest::unsigned(root(b"root"))));
        let other_root = SignedManifest {
            manifest: root(b"r00t"),
            ..signed.clone()
        };
        assert!(!key.vouches_for(&other_root));
        for at in 0..signed.signature.len() {
            let mut changed = signed.clone();
            changed.signature[at] ^= 1;
            assert!(!key.vouches_for(&changed), "byte {at}");
        }
    }

    #[test]
    fn names_that_could_mislead_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("authority")).unwrap();
        for name in ["", "../x", "a/b", "a b", "-a", "a:b", "ä", &"x".repeat(57)] {
            assert!(
                authority.issue(Role::User, name, &[], DAY).is_err(),
                "{name:?} was taken"
            );
        }
    }
}

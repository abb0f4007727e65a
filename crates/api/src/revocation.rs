//! The authority's list of revoked certificates, as it lies beside the credentials of whoever checks: looked for anew at each
//! connection, and at each request on one that is open. So a list that is put there counts at once, and nothing is
//! started again for it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::credentials::AuthorityKey;
use crate::error::Error;

/// Its name in the authority's directory and beside credentials; QEMU looks for it there too.
pub(crate) const LIST: &str = "ca-crl.pem";
/// Many thousands of certificates.
const MOST_BYTES: u64 = 4 << 20;
/// How soon a stream that was begun as something else ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a list says, once it is known to be the authority's.
pub(crate) struct RevokedList {
    der: CertificateRevocationListDer<'static>,
    /// Grows with each.
    pub number: u64,
    /// Serials, without leading zeros, and when each was revoked, seconds since the epoch.
    pub revoked: Vec<(Vec<u8>, i64)>,
}

impl RevokedList {
    /// The error says what is wrong with it.
    pub fn read(pem: &[u8], authority: &AuthorityKey) -> Result<Self, String> {
        let der = CertificateRevocationListDer::from_pem_slice(pem)
            .map_err(|error| format!("it is no list of revoked certificates: {error}"))?;
        let (_, list) = CertificateRevocationList::from_der(&der)
            .map_err(|error| format!("it does not parse: {error}"))?;
        let signed: &[u8] = list.tbs_cert_list.as_ref();
        if !authority.has_signed(signed, &list.signature_value.data) {
            return Err("our authority has not signed it".to_owned());
        }
        let number: Option<u64> = list.crl_number().and_then(|number| number.try_into().ok());
        let number = number.ok_or("it has no number")?;
        let revoked = list
            .iter_revoked_certificates()
            .map(|revoked| {
                let serial = without_zeros(revoked.raw_serial()).to_vec();
                (serial, revoked.revocation_date.timestamp())
            })
            .collect();
        Ok(Self {
            der: der.clone(),
            number,
            revoked,
        })
    }
}

/// A number's bytes, as few as there can be.
pub(crate) fn without_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// Who is let in, and to whom we speak: of our authority, and not revoked.
pub(crate) struct Revocation {
    path: PathBuf,
    authority: AuthorityKey,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// Without any list, for all else than certificates.
    plain: Verifiers,
    known: Mutex<Known>,
}

struct Known {
    seen: Option<Seen>,
    number: u64,
    verifiers: Verifiers,
    /// How many lists there were.
    lists: u64,
}

#[derive(Clone)]
struct Verifiers {
    client: Arc<dyn ClientCertVerifier>,
    server: Arc<dyn ServerCertVerifier>,
}

/// What tells that a file is another: device, inode, size, times of change.
type Seen = (u64, u64, u64, [(i64, i64); 2]);

fn seen(path: &Path) -> io::Result<Option<Seen>> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some((
            file.dev(),
            file.ino(),
            file.size(),
            [
                (file.mtime(), file.mtime_nsec()),
                (file.ctime(), file.ctime_nsec()),
            ],
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Revocation {
    /// Of credentials in `directory`. Errors: [`Error::BadCredentials`] for a list that cannot be used.
    pub fn open(
        directory: &Path,
        authority: AuthorityKey,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, Error> {
        let path = directory.join(LIST);
        let bad = |reason: String| Error::BadCredentials {
            path: path.clone(),
            reason,
        };
        let plain = verifiers(&roots, &provider, None).map_err(&bad)?;
        let revocation = Self {
            known: Mutex::new(Known {
                seen: None,
                number: 0,
                verifiers: plain.clone(),
                lists: 0,
            }),
            path: path.clone(),
            authority,
            roots,
            provider,
            plain,
        };
        let now = seen(&path).map_err(|error| bad(error.to_string()))?;
        if now.is_some() {
            let (number, verifiers) = revocation.read().map_err(bad)?;
            let mut known = revocation.known();
            *known = Known {
                seen: now,
                number,
                verifiers,
                lists: 1,
            };
        }
        Ok(Arc::new(revocation))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<(u64, Verifiers), String> {
        let size = fs::metadata(&self.path).map_err(|error| error.to_string())?;
        if size.len() > MOST_BYTES {
            return Err("it is too long".to_owned());
        }
        let pem = fs::read(&self.path).map_err(|error| error.to_string())?;
        let list = RevokedList::read(&pem, &self.authority)?;
        let verifiers = verifiers(&self.roots, &self.provider, Some(list.der))?;
        Ok((list.number, verifiers))
    }

    /// By the list of now. One that is gone, damaged, or older than what is known takes nothing back.
    fn now(&self) -> (Verifiers, u64) {
        let mut known = self.known();
        let now = seen(&self.path);
        if let Ok(now) = now
            && now != known.seen
        {
            known.seen = now;
            let path = self.path.display();
            match (now, self.read()) {
                (None, _) => {
                    tracing::warn!(%path, "the list of revoked certificates is gone; what it said still counts")
                }
                (Some(_), Ok((number, _))) if number < known.number => {
                    tracing::warn!(%path, number, known = known.number, "an older list of revoked certificates changes nothing");
                }
                (Some(_), Ok((number, verifiers))) => {
                    tracing::info!(%path, number, "another list of revoked certificates counts");
                    known.number = number;
                    known.verifiers = verifiers;
                    known.lists += 1;
                }
                (Some(_), Err(reason)) => {
                    tracing::error!(%path, %reason, "the list of revoked certificates cannot be used; what the last one said counts");
                }
            }
        }
        (known.verifiers.clone(), known.lists)
    }

    /// Of the list that counts; 0 where there is none.
    pub fn number(&self) -> u64 {
        self.now();
        self.known().number
    }
}

fn verifiers(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    list: Option<CertificateRevocationListDer<'static>>,
) -> Result<Verifiers, String> {
    let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .with_crls(list.clone())
        .only_check_end_entity_revocation()
        .build();
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .with_crls(list)
        .only_check_end_entity_revocation()
        .build();
    Ok(Verifiers {
        client: client.map_err(|error| error.to_string())?,
        server: server.map_err(|error| error.to_string())?,
    })
}

impl fmt::Debug for Revocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Revocation({})", self.path.display())
    }
}

impl ClientCertVerifier for Revocation {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.plain.client.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let (verifiers, _) = self.now();
        verifiers
            .client
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.plain.client.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.plain.client.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.plain.client.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Revocation {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (verifiers, _) = self.now();
        verifiers.server.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.plain.server.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.plain.server.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.plain.server.supported_verify_schemes()
    }
}

/// Whether who is at the other end of an open connection is still to be spoken with.
#[derive(Debug, Clone)]
pub(crate) struct Standing(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    revocation: Arc<Revocation>,
    certificate: CertificateDer<'static>,
    /// The list by which it was looked at last.
    by: AtomicU64,
}

impl Standing {
    /// Of a process of this machine.
    pub fn local() -> Self {
        Self(None)
    }

    /// Of somebody who was just let in.
    pub fn of(revocation: Arc<Revocation>, certificate: CertificateDer<'static>) -> Self {
        Self(Some(Arc::new(Held {
            revocation,
            certificate,
            // A list that came meanwhile is looked at.
            by: AtomicU64::new(u64::MAX),
        })))
    }

    pub fn is_revoked(&self) -> bool {
        let Some(held) = &self.0 else {
            return false;
        };
        let (verifiers, lists) = held.revocation.now();
        if held.by.load(Ordering::Relaxed) == lists {
            return false;
        }
        let looked = verifiers
            .client
            .verify_client_cert(&held.certificate, &[], UnixTime::now());
        // A certificate that has ended meanwhile was good when it was shown.
        let revoked = matches!(
            looked,
            Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
        );
        if !revoked {
            held.by.store(lists, Ordering::Relaxed);
        }
        revoked
    }

    /// Ends when it is revoked.
    pub async fn until_revoked(&self) {
        if self.0.is_none() {
            return std::future::pending().await;
        }
        while !self.is_revoked() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

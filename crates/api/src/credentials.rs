//! What a process shows to others and checks others against, read from a directory that
//! [`Issued::write_to`](crate::authority::Issued::write_to) wrote.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use estive_chunks::SignedManifest;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::{CA_CERT, SERVER_CERT, SERVER_KEY};
use crate::error::Error;
use crate::identity::{Peer, Role, read_identity};
use crate::revocation::Revocation;

/// A certificate, its key and the authority both ends must come from; cheap to clone. TLS 1.3 only, always by ring.
#[derive(Clone)]
pub struct Credentials {
    directory: PathBuf,
    role: Role,
    name: String,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    authority: AuthorityKey,
    revocation: Arc<Revocation>,
}

/// The authority's public key: says whether the authority signed a root. Cheap to clone.
#[derive(Clone)]
pub struct AuthorityKey(Arc<[u8]>);

impl Credentials {
    /// Reads `ca-cert.pem`, `server-cert.pem` and `server-key.pem`. Errors: [`Error::BadCredentials`] naming the
    /// file, [`Error::Tls`] when the files do not fit together.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        let authority = one_certificate(&directory.join(CA_CERT))?;
        let certificate_path = directory.join(SERVER_CERT);
        let certificate = one_certificate(&certificate_path)?;
        let key_path = directory.join(SERVER_KEY);
        let key =
            PrivateKeyDer::from_pem_file(&key_path).map_err(|error| Error::BadCredentials {
                path: key_path,
                reason: error.to_string(),
            })?;
        let (role, name) = read_identity(&certificate).map_err(|reason| Error::BadCredentials {
            path: certificate_path,
            reason,
        })?;

        let tls = |error: Box<dyn std::error::Error + Send + Sync>| Error::Tls {
            path: directory.to_owned(),
            source: error,
        };
        let provider = Arc::new(ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let authority_key =
            AuthorityKey::of(&authority).map_err(|reason| Error::BadCredentials {
                path: directory.join(CA_CERT),
                reason,
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|error| tls(error.into()))?;
        let revocation = Revocation::open(
            directory,
            authority_key.clone(),
            Arc::new(roots),
            provider.clone(),
        )?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| tls(error.into()))?
            .with_client_cert_verifier(revocation.clone())
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .map_err(|error| tls(error.into()))?;
        // A resumed session would not look at the certificate's dates again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| tls(error.into()))?
            .dangerous()
            // Those of the library, with the list of now.
            .with_custom_certificate_verifier(revocation.clone())
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|error| tls(error.into()))?;
        client.resumption = Resumption::disabled();
        Ok(Self {
            directory: directory.to_owned(),
            role,
            name,
            server: Arc::new(server),
            client: Arc::new(client),
            authority: authority_key,
            revocation,
        })
    }

    /// The key of the authority that our certificate comes from.
    pub fn authority(&self) -> &AuthorityKey {
        &self.authority
    }

    /// Who is not to be spoken with any more.
    pub(crate) fn revocation(&self) -> &Arc<Revocation> {
        &self.revocation
    }

    /// The number of the list of revoked certificates that counts; 0 where there is none.
    pub fn revocation_number(&self) -> u64 {
        self.revocation.number()
    }

    /// The directory they came from; QEMU's `tls-creds-x509,dir=` takes it as it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The role in our own certificate.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name in our own certificate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For serving: shows our certificate, and demands one of the same authority from every client.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For connecting: shows our certificate, and demands one of the same authority for the address called.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }
}

impl AuthorityKey {
    pub(crate) fn of(certificate: &[u8]) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| format!("it does not parse: {error}"))?;
        let key = &parsed.public_key().subject_public_key.data;
        Ok(Self(key.as_ref().into()))
    }

    /// Whether [`Authority::sign_root`](crate::authority::Authority::sign_root) of this authority signed this manifest.
    pub fn vouches_for(&self, signed: &SignedManifest) -> bool {
        let message = SignedManifest::signing_payload(&signed.manifest);
        self.has_signed(&message, &signed.signature)
    }

    /// Whether it has signed this (ECDSA P-256 with SHA-256, in DER).
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        ring::default_provider()
            .signature_verification_algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| {
                algorithm
                    .verify_signature(&self.0, message, signature)
                    .is_ok()
            })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credentials({}:{} from {})",
            self.role,
            self.name,
            self.directory.display()
        )
    }
}

/// Who a verified TLS client is, and by which certificate. The error says why that, though ours, names nobody.
pub(crate) fn certified_peer(
    connection: &rustls::ServerConnection,
) -> Result<(Peer, CertificateDer<'static>), String> {
    let certificate = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or("it showed no certificate")?;
    let (role, name) = read_identity(certificate)?;
    let peer = Peer::Certified { role, name };
    Ok((peer, certificate.clone().into_owned()))
}

fn one_certificate(path: &Path) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_file(path).map_err(|error| Error::BadCredentials {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

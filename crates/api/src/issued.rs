//! What an authority has issued and what it has revoked: a line for each certificate beside its key, and the signed list.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::authority::{Authority, BACKDATED, CA_CERT, sync_directory, write_file_beside};
use crate::credentials::AuthorityKey;
use crate::error::Error;
use crate::identity::Role;
use crate::revocation::{LIST, RevokedList, without_zeros};

const ISSUED: &str = "issued.jsonl";
/// Hexadecimal digits without which something is no serial: ours have 40.
const FEWEST_DIGITS: usize = 16;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// Hexadecimal, as other tools show it.
    pub serial: String,
    pub role: Role,
    pub name: String,
    /// Seconds since the epoch.
    pub not_after_s: i64,
}

/// A certificate that is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokedCertificate {
    pub serial: String,
    /// As far as it is known whose it was.
    #[serde(flatten)]
    pub issued: Option<IssuedHolder>,
    /// Seconds since the epoch.
    pub revoked_s: i64,
}

/// Whose a certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IssuedHolder {
    pub role: Role,
    pub name: String,
}

pub(crate) fn hexadecimal(serial: &[u8]) -> String {
    let digits = without_zeros(serial).iter();
    digits.map(|byte| format!("{byte:02x}")).collect()
}

fn serial(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_start_matches("0x").replace(':', "");
    if text.len() < FEWEST_DIGITS || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.map(|bytes| without_zeros(&bytes).to_vec())
}

impl Authority {
    /// Before it is given out: what nobody knows of cannot be revoked by name.
    pub(crate) fn note_issued(&self, certificate: &IssuedCertificate) -> Result<(), Error> {
        let path = self.directory().join(ISSUED);
        let write = || -> io::Result<()> {
            let mut line = serde_json::to_string(certificate)?;
            line.push('\n');
            // What was cut off must not take this one with it.
            if fs::read(&path).is_ok_and(|text| text.last().is_some_and(|last| *last != b'\n')) {
                line.insert(0, '\n');
            }
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        write().map_err(Error::file("write", &path))
    }

    /// What it has issued since it keeps account of that, the oldest first.
    pub fn issued(&self) -> Result<Vec<IssuedCertificate>, Error> {
        let path = self.directory().join(ISSUED);
        match fs::read_to_string(&path) {
            // Half a line is of one that was never given out.
            Ok(text) => Ok(text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    fn list(&self) -> Result<Option<RevokedList>, Error> {
        let path = self.directory().join(LIST);
        let pem = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::file("read", &path))?,
        };
        let damaged = |reason: String| Error::AuthorityDamaged {
            directory: self.directory().to_owned(),
            reason: format!("{LIST}: {reason}"),
        };
        let key = self.key().map_err(&damaged)?;
        RevokedList::read(&pem, &key).map(Some).map_err(damaged)
    }

    fn key(&self) -> Result<AuthorityKey, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(self.certificate_pem().as_bytes())
            .map_err(|error| error.to_string())?;
        AuthorityKey::of(&pem.contents)
    }

    /// The signed list as it is; `None` before anything was revoked.
    pub(crate) fn list_pem(&self) -> Result<Option<String>, Error> {
        let path = self.directory().join(LIST);
        match fs::read_to_string(&path) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    /// What is revoked.
    pub fn revoked(&self) -> Result<Vec<RevokedCertificate>, Error> {
        let list = self.list()?;
        let revoked = list.map_or(Vec::new(), |list| list.revoked);
        self.shown(revoked)
    }

    fn shown(&self, revoked: Vec<(Vec<u8>, i64)>) -> Result<Vec<RevokedCertificate>, Error> {
        let issued = self.issued()?;
        let shown = |(serial, revoked_s): (Vec<u8>, i64)| {
            let serial = hexadecimal(&serial);
            let found = issued.iter().find(|issued| issued.serial == serial);
            RevokedCertificate {
                issued: found.map(|issued| IssuedHolder {
                    role: issued.role,
                    name: issued.name.clone(),
                }),
                serial,
                revoked_s,
            }
        };
        Ok(revoked.into_iter().map(shown).collect())
    }

    /// Revokes every certificate of these names (`h1`, `agent:h1`) or serials, and signs the list anew; gives those that
    /// were not revoked before. Errors: [`Error::NotIssued`], and then nothing is revoked.
    pub fn revoke(&self, which: &[String]) -> Result<Vec<RevokedCertificate>, Error> {
        // Two at once must not each forget the other's.
        let directory = fs::File::open(self.directory())
            .and_then(|directory| directory.lock().map(|()| directory))
            .map_err(Error::file("lock the directory", self.directory()))?;
        let issued = self.issued()?;
        let mut serials: Vec<Vec<u8>> = Vec::new();
        for word in which {
            let is_its = |issued: &&IssuedCertificate| {
                issued.name == *word || format!("{}:{}", issued.role, issued.name) == *word
            };
            let of_name = issued.iter().filter(is_its);
            let mut found: Vec<_> = of_name.filter_map(|one| serial(&one.serial)).collect();
            if found.is_empty() {
                let Some(serial) = serial(word) else {
                    return Err(Error::NotIssued(word.clone()));
                };
                found.push(serial);
            }
            serials.extend(found);
        }
        let before = self.list()?;
        let number = before.as_ref().map_or(0, |list| list.number) + 1;
        let mut all = before.map_or(Vec::new(), |list| list.revoked);
        let now = OffsetDateTime::now_utc();
        let mut new = Vec::new();
        for serial in serials {
            if !all.iter().any(|(known, _)| *known == serial) {
                all.push((serial.clone(), now.unix_timestamp()));
                new.push((serial, now.unix_timestamp()));
            }
        }
        let revoked_certs = all
            .into_iter()
            .map(|(serial, revoked_s)| RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: OffsetDateTime::from_unix_timestamp(revoked_s).unwrap_or(now),
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            });
        let list = CertificateRevocationListParams {
            // For hosts whose clocks are behind.
            this_update: now - BACKDATED,
            // It counts until there is another: programs that read it must not find that it has ended.
            next_update: self.not_after(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(self.issuer()).and_then(|list| list.pem());
        let pem = signed.map_err(|source| Error::Certificate {
            what: "the list of revoked certificates",
            source,
        })?;
        put(self.directory(), &pem)?;
        drop(directory);
        self.shown(new)
    }

    /// Puts the list into a directory of credentials; who uses them sees it at once.
    pub fn put_list(&self, credentials: &Path) -> Result<(), Error> {
        let path = credentials.join(CA_CERT);
        let theirs = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        if theirs != self.certificate_pem() {
            return Err(Error::BadCredentials {
                path,
                reason: "they are another authority's".to_owned(),
            });
        }
        match self.list_pem()? {
            Some(pem) => put(credentials, &pem),
            None => Ok(()),
        }
    }
}

/// Whole, or not at all.
fn put(directory: &Path, pem: &str) -> Result<(), Error> {
    write_file_beside(directory, LIST, pem)?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn names_and_serials_are_revoked_once_and_what_is_neither_revokes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
        for (role, name) in [
            (Role::Agent, "h1"),
            (Role::Agent, "h1"),
            (Role::User, "h1"),
            (Role::Agent, "h2"),
        ] {
            authority.issue(role, name, &[], DAY).unwrap();
        }
        let issued = authority.issued().unwrap();
        assert_eq!(issued.len(), 4);
        assert!(authority.revoked().unwrap().is_empty());
        let words = |words: &[&str]| -> Vec<String> {
            words.iter().map(|word| (*word).to_owned()).collect()
        };
        for wrong in [
            "h3",
            "agent:h3",
            "",
            "12345678",
            "agent:",
            "zz00zz00zz00zz00",
        ] {
            let refused = authority.revoke(&words(&["h2", wrong]));
            assert!(matches!(refused, Err(Error::NotIssued(_))), "{wrong}");
        }
        assert!(authority.revoked().unwrap().is_empty());
        let revoked = authority.revoke(&words(&["agent:h1"])).unwrap();
        assert_eq!(revoked.len(), 2);
        assert!(revoked.iter().all(|one| {
            let holder = one.issued.as_ref().unwrap();
            (holder.role, holder.name.as_str()) == (Role::Agent, "h1")
        }));
        let unknown = "00:ab:cd:ef:01:23:45:67:89";
        let more = authority.revoke(&words(&["h1", &issued[3].serial, unknown]));
        assert_eq!(more.unwrap().len(), 3, "the two of before are not new");
        // A certificate of the same name is another. Half a line, of a process that was killed, hides none.
        let path = authority.directory().join(ISSUED);
        let cut = fs::read_to_string(&path).unwrap() + "{\"serial\":\"12";
        fs::write(&path, cut).unwrap();
        authority.issue(Role::Agent, "h1", &[], DAY).unwrap();
        assert_eq!(authority.issued().unwrap().len(), 5);
        let all = Authority::open(authority.directory()).unwrap().revoked();
        let serials: Vec<String> = all.unwrap().into_iter().map(|one| one.serial).collect();
        let mut expected: Vec<String> = issued.iter().map(|one| one.serial.clone()).collect();
        expected.push("abcdef0123456789".to_owned());
        assert_eq!(serials.len(), 5);
        assert!(expected.iter().all(|serial| serials.contains(serial)));
        // Nobody else's list counts.
        let other = Authority::open_or_create(home.path().join("other")).unwrap();
        fs::copy(
            authority.directory().join(LIST),
            other.directory().join(LIST),
        )
        .unwrap();
        assert!(other.revoke(&words(&["abcdef0123456789"])).is_err());
        let mut pem = fs::read_to_string(authority.directory().join(LIST)).unwrap();
        pem.truncate(pem.len() / 2);
        fs::write(authority.directory().join(LIST), pem).unwrap();
        assert!(authority.revoke(&words(&["h2"])).is_err());
    }
}

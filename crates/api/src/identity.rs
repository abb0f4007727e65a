//! Who somebody is: a role and a name in a certificate, or a process of this machine.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;

use crate::error::{Error, Problem};

/// What the holder of a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Agent,
    User,
    Storage,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Manager, Self::Agent, Self::User, Self::Storage];

    /// `manager`, `agent`, `user` or `storage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Agent => "agent",
            Self::User => "user",
            Self::Storage => "storage",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Error::BadRole(text.to_owned()))
    }
}

/// Who is at the other end of a connection. Every request carries it as an extension:
/// `Extension(peer): Extension<Peer>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Came through the unix socket, as root or as the user this service runs as.
    Local { uid: u32 },
    /// Came by TLS with a certificate of our authority.
    Certified { role: Role, name: String },
}

impl Peer {
    /// Its role; none for a local peer.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Local { .. } => None,
            Self::Certified { role, .. } => Some(*role),
        }
    }

    /// Refuses a peer that has none of `roles`. A local peer may do everything: it could read our keys anyway.
    pub fn require(&self, roles: &[Role]) -> Result<(), Problem> {
        match self.role() {
            Some(role) if !roles.contains(&role) => {
                let wanted: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
                Err(Problem::refused(format!(
                    "{self} has no right to do this; it is for: {}",
                    wanted.join(", ")
                )))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Peer {
    /// `agent:h1` or `local:0` (the uid).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid } => write!(f, "local:{uid}"),
            Self::Certified { role, name } => write!(f, "{role}:{name}"),
        }
    }
}

/// Names go into a common name of at most 64 characters (RFC 5280 appendix A, ub-common-name) after the longest
/// role, and into a URI where they must need no quoting.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=56).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
    {
        Ok(())
    } else {
        Err(Error::BadName {
            name: name.chars().take(80).collect(),
        })
    }
}

pub(crate) fn identity_uri(role: Role, name: &str) -> String {
    format!("estive://{role}/{name}")
}

/// The role and name in a certificate: its one URI `estive://role/name`. The error says what is wrong with it.
pub(crate) fn read_identity(certificate: &CertificateDer<'_>) -> Result<(Role, String), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("it does not parse: {error}"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| format!("its names do not parse: {error}"))?;
    let mut found = None;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        let GeneralName::URI(uri) = name else {
            continue;
        };
        let Some(identity) = uri.strip_prefix("estive://") else {
            continue;
        };
        if found.is_some() {
            return Err("it carries more than one identity".to_owned());
        }
        let (role, name) = identity
            .split_once('/')
            .ok_or_else(|| format!("{uri:?} is no identity"))?;
        check_name(name).map_err(|error| error.to_string())?;
        found = Some((
            role.parse::<Role>().map_err(|error| error.to_string())?,
            name.to_owned(),
        ));
    }
    found.ok_or_else(|| "it carries no identity estive://role/name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_the_role() {
        let agent = Peer::Certified {
            role: Role::Agent,
            name: "h1".into(),
        };
        assert!(agent.require(&[Role::Manager, Role::Agent]).is_ok());
        let problem = agent.require(&[Role::Manager]).unwrap_err();
        assert!(problem.error.contains("agent:h1"), "{problem}");
        assert!(Peer::Local { uid: 0 }.require(&[Role::Manager]).is_ok());
    }
}

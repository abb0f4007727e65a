//! `estive host-key`: a clone's SSH host key, as a line of known_hosts.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::wire::HostKey;
use estive_model::DomainName;

#[derive(Debug, Args)]
pub struct Key {
    /// The domain.
    domain: DomainName,
}

impl Key {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let path = format!("/domain/{}/host-key", self.domain);
        let key: HostKey = manager(global)?.get_json(&path, PATIENCE).await?;
        match global.output {
            Output::Json => output::json(&key)?,
            Output::Table => output::print(&line(&self.domain, &key))?,
        }
        Ok(0)
    }
}

/// The name by which ssh looks the key up.
pub fn alias(domain: &DomainName) -> String {
    format!("estive-{domain}")
}

fn line(domain: &DomainName, key: &HostKey) -> String {
    format!("{} {}\n", alias(domain), key.public_key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_line_of_known_hosts() {
        let key = HostKey {
            public_key: "ssh-ed25519 AAAAC3 clone01\n".to_owned(),
        };
        let domain = DomainName::new("clone01").unwrap();
        assert_eq!(
            line(&domain, &key),
            "estive-clone01 ssh-ed25519 AAAAC3 clone01\n"
        );
    }
}

//! `estive ssh`: log in to a domain, through its host.

use super::host_key::alias;
use crate::arguments::Global;
use crate::failure::{Failure, failed};
use clap::Args;
use estive_model::DomainName;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(Debug, Args)]
pub struct Ssh {
    /// The domain.
    domain: DomainName,
    /// User to log in as.
    #[arg(long, short, default_value = "root")]
    user: String,
    /// Private key to log in with.
    #[arg(long, short, value_name = "FILE", env = "ESTIVE_SSH_KEY")]
    identity: Option<std::path::PathBuf>,
    /// What to run there; a shell without it.
    #[arg(last = true)]
    command: Vec<String>,
}

impl Ssh {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        if self.user.starts_with('-') || self.user.is_empty() {
            return Err(Failure::impossible(format!(
                "{:?} is not a user's name",
                self.user
            )));
        }
        let estive = std::env::current_exe().map_err(failed)?;
        let mut us = vec![quoted(&estive.to_string_lossy())];
        match &global.agent {
            Some(url) => us.extend(["--agent".to_owned(), quoted(url)]),
            None => us.extend(["--manager".to_owned(), quoted(&global.manager)]),
        }
        if let Some(directory) = &global.credentials {
            us.extend([
                "--credentials".to_owned(),
                quoted(&directory.to_string_lossy()),
            ]);
        }
        let us = us.join(" ").replace('%', "%%");
        let mut ssh = Command::new("ssh");
        ssh.arg("-o")
            .arg(format!("ProxyCommand={us} proxy {} 22", self.domain));
        ssh.arg("-o")
            .arg(format!("HostKeyAlias={}", alias(&self.domain)));
        ssh.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ]);
        if global.agent.is_none() {
            // The key is derived from the deployment's secret: the manager knows it, nobody need trust on first use.
            ssh.arg("-o")
                .arg(format!("KnownHostsCommand={us} host-key {}", self.domain));
            ssh.args([
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "HostKeyAlgorithms=ssh-ed25519",
            ]);
        } else {
            eprintln!("estive: one agent alone knows no host keys: this one is not checked");
            ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
        }
        if let Some(identity) = &self.identity {
            ssh.arg("-i").arg(identity);
        }
        ssh.args(["-l", &self.user, "--", self.domain.as_str()])
            .args(&self.command);
        let error = ssh.exec();
        Err(Failure::failed(format!("could not run ssh: {error}")).advice("install openssh-client"))
    }
}

/// One word for the shell that runs a ProxyCommand.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_quote_in_a_path_stays_a_quote() {
        assert_eq!(super::quoted("a'b c"), r"'a'\''b c'");
    }
}

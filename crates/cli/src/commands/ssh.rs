//! `estive ssh`: log in to a domain, through its host.

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
        let mut proxy = vec![quoted(&estive.to_string_lossy())];
        match &global.agent {
            Some(url) => proxy.extend(["--agent".to_owned(), quoted(url)]),
            None => proxy.extend(["--manager".to_owned(), quoted(&global.manager)]),
        }
        if let Some(directory) = &global.credentials {
            proxy.extend([
                "--credentials".to_owned(),
                quoted(&directory.to_string_lossy()),
            ]);
        }
        proxy.extend(["proxy".to_owned(), self.domain.to_string(), "22".to_owned()]);
        let mut ssh = Command::new("ssh");
        ssh.arg("-o").arg(format!(
            "ProxyCommand={}",
            proxy.join(" ").replace('%', "%%")
        ));
        // A clone's host key is derived from the deployment's secret: the same name brings the same key back.
        ssh.args(["-o", "StrictHostKeyChecking=accept-new"]);
        ssh.args(["-o", &format!("HostKeyAlias=estive-{}", self.domain)]);
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

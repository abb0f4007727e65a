//! Runs iproute2's `ip`, in this network namespace or in a named one; and `bridge` and `nft` in this one.

use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Error;

const LIMIT: Duration = Duration::from_secs(30);

/// `ip`, optionally with `-n NAMESPACE`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ip {
    namespace: Option<String>,
}

impl Ip {
    /// `ip` that acts inside the named namespace; the name was checked by [`crate::namespace::Namespace`].
    pub(crate) fn within(namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
        }
    }

    fn command(&self, arguments: &[&str]) -> (Command, String) {
        let mut all = Vec::with_capacity(arguments.len() + 2);
        if let Some(namespace) = &self.namespace {
            all.extend(["-n", namespace]);
        }
        all.extend(arguments);
        let shown = format!("ip {}", all.join(" "));
        let mut command = Command::new("ip");
        command.args(&all).kill_on_drop(true);
        (command, shown)
    }

    /// Runs one command and gives its standard output.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let (command, shown) = self.command(arguments);
        finish(command, shown, None).await
    }

    /// Runs several commands in one process; the first that fails ends it and is named in the error.
    pub(crate) async fn batch(&self, lines: &[String]) -> Result<(), Error> {
        let (command, shown) = self.command(&["-batch", "-"]);
        let text = lines.join("\n") + "\n";
        finish(command, shown, Some(&text))
            .await
            .map(drop)
            .map_err(|error| name_the_line(error, lines))
    }

    /// Runs one command that prints JSON (`-j` is added) and reads it. `None`: there is no such link.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        arguments: &[&str],
    ) -> Result<Option<Vec<T>>, Error> {
        let mut all = vec!["-j"];
        all.extend(arguments);
        let (command, shown) = self.command(&all);
        let printed = match finish(command, shown.clone(), None).await {
            Err(Error::Refused { stderr, .. }) if stderr.contains("does not exist") => {
                return Ok(None);
            }
            other => other?,
        };
        if printed.trim_ascii().is_empty() {
            return Ok(Some(Vec::new()));
        }
        serde_json::from_slice(&printed)
            .map(Some)
            .map_err(|source| Error::Json {
                command: shown,
                source,
            })
    }
}

/// `ip -batch` says "Command failed -:2": puts that line's text in its place.
fn name_the_line(error: Error, lines: &[String]) -> Error {
    let Error::Refused {
        command,
        status,
        stderr,
    } = error
    else {
        return error;
    };
    let failed = stderr
        .split("Command failed -:")
        .nth(1)
        .and_then(|rest| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse::<usize>()
                .ok()
        })
        .and_then(|number| lines.get(number.checked_sub(1)?));
    match failed {
        Some(line) => Error::Refused {
            command: command.replace("-batch -", line),
            status,
            stderr: stderr
                .split("Command failed")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        },
        None => Error::Refused {
            command,
            status,
            stderr,
        },
    }
}

/// `bridge` of iproute2, for what `ip` has no word for.
pub(crate) async fn bridge_table(arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("bridge");
    command.args(arguments).kill_on_drop(true);
    let shown = format!("bridge {}", arguments.join(" "));
    finish(command, shown, None).await.map(drop)
}

/// Has `nft` of nftables do all that a text says, or nothing.
pub(crate) async fn nft(text: &str) -> Result<(), Error> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).kill_on_drop(true);
    let done = finish(command, "nft -f -".to_owned(), Some(text)).await;
    done.map(drop).map_err(|error| match error {
        Error::Start { source, .. } => Error::Start {
            program: "nft".to_owned(),
            package: "nftables",
            source,
        },
        error => error,
    })
}

/// Starts `command`, feeds it `input`, waits for its end within [`LIMIT`].
async fn finish(
    mut command: Command,
    shown: String,
    input: Option<&str>,
) -> Result<Vec<u8>, Error> {
    command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Start {
        program: "ip".to_owned(),
        package: "iproute2",
        source,
    })?;
    let feeding = child.stdin.take().zip(input);
    let whole = async {
        if let Some((mut stdin, input)) = feeding {
            // An early end of `ip` shows as a broken pipe here; what it says on stderr tells more.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(LIMIT, whole)
        .await
        .map_err(|_| Error::TooSlow {
            command: shown.clone(),
            limit_s: LIMIT.as_secs(),
        })?
        .map_err(|source| Error::Run {
            command: shown.clone(),
            source,
        })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Refused {
            command: shown,
            status: output.status,
            stderr,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_batch_names_its_line() {
        let lines = [
            "link show lo".to_owned(),
            "link show no-such-link".to_owned(),
        ];
        let message = Ip::default().batch(&lines).await.unwrap_err().to_string();
        assert!(message.contains("ip link show no-such-link"), "{message}");
        assert!(!message.contains("Command failed"), "{message}");
    }

    #[tokio::test]
    async fn a_link_that_is_not_there_is_none() {
        let found = Ip::default()
            .json::<serde_json::Value>(&["link", "show", "dev", "nosuchlink"])
            .await
            .unwrap();
        assert!(found.is_none());
    }
}

//! `migrate`: a live migration of a 256 MiB clone, from the command to the destination running, start of QEMU included.
//! The peer: two QEMUs with the same command lines, driven by bare QMP with the same parameters, same start and end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_model::DomainName;
use serde_json::{Value, json};

use super::bare::{Bare, problem};
use super::{BenchConfig, compared};
use crate::Error;
use crate::bed::{Bed, host_name};
use crate::instant::now_us;
use crate::topology::{HOST_BRIDGE, host_address};

const HERD: &str = "name: bench\nnetwork: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 256\n\
    sets: [base-debian, web]\nup: [ping]\ngroups:\n  all:\n    hosts:\n      clone01:\n";
const FIRST_PORT: u16 = 50_000;

pub(super) async fn measure(bed: &Bed, config: &BenchConfig) -> Result<Value, Error> {
    let runs = config.runs.unwrap_or(9);
    let herd = bed.config().directory.join("bench-herd");
    let doing = || Error::system(format!("writing {}", herd.display()));
    std::fs::create_dir_all(&herd).map_err(doing())?;
    std::fs::write(herd.join("herd.yaml"), HERD).map_err(doing())?;
    bed.estive_json(&["up", &herd.display().to_string(), "--name", "bench"])
        .await?;
    let clone = DomainName::new("clone01").map_err(|error| problem(&error.to_string()))?;
    // Its services have come up and it idles; then there is a bare twin of it, likewise.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let line = with_own_layer(
        command_line(bed, &clone)?,
        &bed.config().directory.join("twin-layer"),
    )?;
    let mut twin = Twin::start(bed, &line).await?;
    tokio::time::sleep(Duration::from_secs(30)).await;

    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for number in 0..runs {
        let to = host_name(if number % 2 == 0 { 2 } else { 1 });
        let before_us = now_us();
        let done = bed
            .estive_json(&["migrate", clone.as_str(), "--to", &to])
            .await?;
        let ours_ms = since_ms(before_us);
        let peer_ms = twin.migrate(bed, &line, number).await?;
        let inside = done.get("whole_ms").and_then(Value::as_u64).unwrap_or(0);
        println!(
            "run {number:>2}: ours {ours_ms:.0} ms ({inside} ms of it in the manager), bare QMP {peer_ms:.0} ms"
        );
        ours.push(ours_ms);
        peer.push(peer_ms);
    }
    twin.end().await;
    Ok(compared(
        "migrate",
        &ours,
        &peer,
        json!({ "goal": 1.2, "memory_mib": 256 }),
    ))
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of one migration")]
fn since_ms(before_us: u64) -> f64 {
    now_us().saturating_sub(before_us) as f64 / 1000.0
}

/// The command line of the clone's own QEMU, which is on some host.
fn command_line(bed: &Bed, clone: &DomainName) -> Result<Vec<String>, Error> {
    let pid = (1..=bed.config().hosts)
        .find_map(|host| bed.qemu_pid(clone, host))
        .ok_or_else(|| problem("the clone has no QEMU on any host"))?;
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline"))
        .map_err(Error::system("reading the clone's command line"))?;
    Ok(bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .filter(|word| !word.is_empty())
        .collect())
}

/// The clone's layer goes with the clone: the twin reads a copy.
fn with_own_layer(line: Vec<String>, copy: &Path) -> Result<Vec<String>, Error> {
    let layer = line
        .iter()
        .find(|word| word.contains("node-name=layer,"))
        .and_then(|word| word.split("file.filename=").nth(1))
        .and_then(|rest| rest.split(',').next())
        .ok_or_else(|| problem("the clone's command line has no layer"))?
        .to_owned();
    std::fs::copy(&layer, copy).map_err(Error::system(format!("copying {layer}")))?;
    let copy = copy.display().to_string();
    Ok(line
        .iter()
        .map(|word| word.replace(&layer, &copy))
        .collect())
}

/// A bare copy of the clone: same devices, own files, tap and identity.
struct Twin {
    running: Bare,
    host: u8,
}

impl Twin {
    async fn start(bed: &Bed, line: &[String]) -> Result<Self, Error> {
        let mut running = bare(bed, line, 1, 0, false).await?;
        running.connect().await?;
        running.execute("cont", json!({})).await?;
        Ok(Self { running, host: 1 })
    }

    /// From nothing at the destination to its processors running there.
    async fn migrate(&mut self, bed: &Bed, line: &[String], number: u32) -> Result<f64, Error> {
        let host = if self.host == 1 { 2 } else { 1 };
        let before_us = now_us();
        let mut next = bare(bed, line, host, number + 1, true).await?;
        next.connect().await?;
        let port = FIRST_PORT + u16::try_from(number).unwrap_or(0);
        let address = host_address(host).to_string();
        let capabilities = json!({ "capabilities": [
            { "capability": "events", "state": true },
            { "capability": "return-path", "state": true },
            { "capability": "auto-converge", "state": true },
        ]});
        let common = json!({ "max-bandwidth": 1u64 << 30, "downtime-limit": 50 });
        let tls = bed.config().migration_tls;
        let with = |creds: &str| {
            let mut all = common.clone();
            if tls {
                all["tls-creds"] = creds.into();
                all["tls-hostname"] = address.clone().into();
            }
            all
        };
        next.execute("migrate-set-capabilities", capabilities.clone())
            .await?;
        next.execute("migrate-set-parameters", with("tls-server"))
            .await?;
        let uri = json!({ "uri": format!("tcp:{address}:{port}") });
        next.execute("migrate-incoming", uri.clone()).await?;
        self.running
            .execute("migrate-set-capabilities", capabilities)
            .await?;
        self.running
            .execute("migrate-set-parameters", with("tls-client"))
            .await?;
        self.running.execute("migrate", uri).await?;
        loop {
            let info = self.running.execute("query-migrate", json!({})).await?;
            match info.get("status").and_then(Value::as_str) {
                Some("completed") => break,
                Some("failed" | "cancelled") => return Err(problem(&info.to_string())),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        while next.status().await? == "inmigrate" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        next.execute("cont", json!({})).await?;
        let took_ms = since_ms(before_us);
        std::mem::replace(&mut self.running, next).end().await;
        self.host = host;
        Ok(took_ms)
    }

    async fn end(self) {
        self.running.end().await;
    }
}

/// A bare QEMU like the clone's on `host`, in a directory of its own.
async fn bare(
    bed: &Bed,
    line: &[String],
    host: u8,
    number: u32,
    incoming: bool,
) -> Result<Bare, Error> {
    let namespace = &bed.topology().hosts[usize::from(host - 1)];
    let pid_file = line
        .iter()
        .position(|word| word == "-pidfile")
        .and_then(|at| line.get(at + 1))
        .ok_or_else(|| problem("the clone's command line has no -pidfile"))?;
    let theirs = Path::new(pid_file).parent().unwrap_or(Path::new("/"));
    let ours: PathBuf = bed.config().directory.join(format!("bare{number}"));
    let doing = || Error::system(format!("making {}", ours.display()));
    std::fs::create_dir_all(&ours).map_err(doing())?;
    // The agent has taken the clone's identity away again; the twin has one of its own.
    let identity = json!({
        "version": 1, "name": "twin", "hostname": "twin", "mac": "52:54:00:00:00:ba",
        "address": "10.77.0.250/24", "gateway": null, "seed": "5a".repeat(64),
    });
    std::fs::write(ours.join("identity.json"), identity.to_string()).map_err(doing())?;
    let tap = format!("bare{number}");
    namespace
        .tap(&tap, HOST_BRIDGE)
        .await
        .map_err(Error::network(format!("making the tap {tap}")))?;
    let (theirs, ours_text) = (theirs.display().to_string(), ours.display().to_string());
    let mut argv: Vec<String> = line
        .iter()
        .map(|word| retapped(&word.replace(&theirs, &ours_text), &tap))
        .filter(|word| word != "defer" && word != "-incoming")
        .collect();
    if incoming {
        argv.extend(["-incoming".to_owned(), "defer".to_owned()]);
    }
    // The agents' credentials of that host, for the stream.
    let credentials = bed.config().directory.join("credentials");
    for other in 1..=bed.config().hosts {
        let from = credentials.join(host_name(other)).display().to_string();
        let to = credentials.join(host_name(host)).display().to_string();
        if other != host {
            for word in &mut argv {
                *word = word.replace(&format!("{from},"), &format!("{to},"));
                if word.ends_with(&from) {
                    *word = word.replace(&from, &to);
                }
            }
        }
    }
    Bare::start(&argv, namespace, &ours)
}

/// The word with another tap, and the twin's MAC, so that clone and twin do not answer to one.
fn retapped(word: &str, tap: &str) -> String {
    let fields = word.split(',').map(|field| {
        if field.starts_with("ifname=") {
            format!("ifname={tap}")
        } else if field.starts_with("mac=") {
            "mac=52:54:00:00:00:ba".to_owned()
        } else {
            field.to_owned()
        }
    });
    fields.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_twin_has_its_own_tap_and_mac() {
        let word = "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:65,romfile=";
        assert_eq!(
            super::retapped(word, "bare1"),
            "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:ba,romfile="
        );
        assert_eq!(
            super::retapped("tap,id=n0,ifname=t1,script=no", "b"),
            "tap,id=n0,ifname=b,script=no"
        );
    }
}

//! The reference: a minimal Debian root with what the demo and the tests want to see running, and its sealed image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::apt_sources::{self, Source};
use crate::cache::Cache;
use crate::failure::{Failure, Result, file};
use crate::progress::{Step, output};

/// What a clone of the reference has beyond Debian's smallest root.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "systemd",
    "udev",
    "dbus",
    "iproute2",
    "iputils-ping",
    "openssh-server",
    "nginx-light",
    "dbench",
    "iperf3",
    "procps",
    "kmod",
    "netbase",
    "ca-certificates",
    "qemu-guest-agent",
];

/// Units that a clone has no use for, or that make its boot wait: it lives in memory, has one disk that is read-only,
/// its network is set before systemd starts, and there is no screen.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-firstboot.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-timesyncd.service",
    "iperf3.service",
];

/// Runs when all packages are in, with the root as `$1`. What makes a system itself (host keys, machine-id, its name)
/// goes away: each clone brings its own by its layer.
const FINISH: &str = r#"set -eu
root=$1
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
rm -f "$root"/etc/machine-id "$root"/var/lib/dbus/machine-id "$root"/etc/hostname
mkdir -p "$root"/var/lib/dbus "$root"/etc/ssh/sshd_config.d "$root"/etc/systemd/journald.conf.d
ln -s /etc/machine-id "$root"/var/lib/dbus/machine-id
# '*' and not '!': no password opens it, and a key still does where sshd runs without PAM.
chroot "$root" usermod -p '*' root
printf '%s\n' 'PermitRootLogin prohibit-password' 'PasswordAuthentication no' 'UseDNS no' \
  > "$root"/etc/ssh/sshd_config.d/estive.conf
printf '%s\n' '[Journal]' 'Storage=volatile' 'RuntimeMaxUse=16M' > "$root"/etc/systemd/journald.conf.d/estive.conf
printf '%s\n' '127.0.0.1 localhost' '::1 localhost' > "$root"/etc/hosts
: > "$root"/etc/fstab
: > "$root"/etc/resolv.conf
rm -rf "$root"/var/log/journal "$root"/var/lib/apt/lists "$root"/var/cache/apt "$root"/usr/share/doc "$root"/usr/share/man
mkdir -p "$root"/var/lib/apt/lists/partial "$root"/var/cache/apt/archives/partial
# Newer than /usr: systemd does not rebuild its databases at each first boot.
touch "$root"/etc/.updated "$root"/var/.updated
"#;

/// A root made here and the image of it.
pub struct Reference {
    pub root: PathBuf,
    pub sealed: PathBuf,
}

/// The reference in the cache, made the first time. `suite` is the machine's own Debian suite.
pub fn prepare(cache: &Cache, suite: &str) -> Result<Reference> {
    let wanted = std::env::var("ESTIVE_SUITE")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| suite.to_string());
    if !wanted
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(Failure::Unfit(format!(
            "ESTIVE_SUITE={wanted:?} is not the name of a Debian suite, such as trixie"
        )));
    }
    let key = format!("{wanted}-{}", &digest()[..16]);
    let root = cache.reference(&key);
    if !root.exists() {
        let sources = apt_sources::for_suite(&apt_sources::read()?, suite, &wanted)?;
        let step = Step::begin(format!(
            "making the reference, a minimal root of Debian {wanted}"
        ));
        cache.make_whole(&root, |making| {
            debootstrap(&step, &wanted, &sources, making)
        })?;
        step.done(&root.display().to_string());
    }
    let sealed = sealed(&root, &cache.sealed(&key))?;
    Ok(Reference { root, sealed })
}

/// Of everything that decides what the root holds, but for the packages' versions.
fn digest() -> String {
    let mut hash = Sha256::new();
    for text in PACKAGES.iter().chain(MASKED).chain([&FINISH]) {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn debootstrap(step: &Step, suite: &str, sources: &[Source], making: &Path) -> Result<()> {
    let place = "a temporary file of package sources";
    let mut list = tempfile::Builder::new()
        .suffix(".sources")
        .tempfile()
        .map_err(file("making", Path::new(place)))?;
    let stanzas = sources
        .iter()
        .map(Source::stanza)
        .collect::<Vec<_>>()
        .join("\n");
    std::io::Write::write_all(&mut list, stanzas.as_bytes())
        .map_err(file("writing", list.path()))?;
    let mask = MASKED.iter().fold(
        "mkdir -p \"$1\"/etc/systemd/system".to_string(),
        |hook, unit| format!("{hook}; ln -sf /dev/null \"$1\"/etc/systemd/system/{unit}"),
    );
    // With us dies unshare, with it the first process of its namespace, and with that one every process and mount in it.
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.arg("mmdebstrap");
    command.args([
        "--variant=minbase",
        "--mode=root",
        "--aptopt=APT::Sandbox::User \"root\"",
    ]);
    command.args(proxies()?.iter().map(|option| format!("--aptopt={option}")));
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command
        .arg(format!("--customize-hook={mask}"))
        .arg(format!("--customize-hook={FINISH}"));
    command.arg(suite).arg(making).arg(list.path());
    step.run(&mut command).map(|_| ())
}

/// The machine's own way to its mirrors, which mmdebstrap does not take over by itself.
fn proxies() -> Result<Vec<String>> {
    let dumped = output(
        "reading apt's configuration",
        Command::new("apt-config").arg("dump"),
    )?;
    Ok(dumped
        .lines()
        .filter(|line| line.starts_with("Acquire::http") && line.contains("::Proxy \""))
        .map(String::from)
        .collect())
}

/// What `sealed.json` says beside an image.
#[derive(Serialize, Deserialize)]
struct Record {
    digest: String,
    file: String,
    size_bytes: u64,
}

/// The image of a root in `directory`, made when it is not there yet.
fn sealed(root: &Path, directory: &Path) -> Result<PathBuf> {
    let place = directory.join("sealed.json");
    let known = fs::read(&place)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    if let Some(record) = known {
        let path = directory.join(&record.file);
        if path
            .metadata()
            .is_ok_and(|metadata| metadata.len() == record.size_bytes)
        {
            return Ok(path);
        }
    }
    let step = Step::begin("sealing the reference");
    let sealed = estive_exports::seal(root, directory).map_err(|source| Failure::Seal {
        root: root.to_path_buf(),
        source: Box::new(source),
    })?;
    let record = Record {
        digest: sealed.digest.clone(),
        file: sealed
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        size_bytes: sealed.size_bytes,
    };
    let text = serde_json::to_vec_pretty(&record).map_err(|source| Failure::Json {
        what: "the seal".into(),
        source,
    })?;
    let half = directory.join("sealed.json.new");
    fs::write(&half, text).map_err(file("writing", &half))?;
    fs::rename(&half, &place).map_err(file("putting in place", &place))?;
    step.done(&format!(
        "{}, {} MiB",
        &sealed.digest,
        sealed.size_bytes >> 20
    ));
    Ok(sealed.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_suite_can_be_a_path() {
        assert_eq!(digest().len(), 64);
        assert!(
            PACKAGES
                .iter()
                .chain(MASKED)
                .all(|name| !name.contains(['\'', '"', ' ', '/']))
        );
    }
}

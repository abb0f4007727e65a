//! What the booted system finds of the network: `/run/estive/net` and `/run/estive/resolv.conf`, to which
//! `/etc/resolv.conf` leads where the root has none.
//!
//! A lease is of one boot. On an upper that outlives it nothing of it is written, and no link to it made: a boot without
//! a lease would find a link to nothing. What an earlier version wrote there is ours to replace.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, openat2, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Network;
use super::interface::netmask;
use crate::console::say;
use crate::failure::{Failure, Result, While};
use crate::union::{directory_in, mount_run};

/// Below the union; a tmpfs is at `run`, so that the booted system keeps it and no layer does.
const DIRECTORY: &str = "run/estive";
const FILE: &str = "net";
const RESOLV_CONF: &str = "resolv.conf";
/// What `/etc/resolv.conf` leads to.
const TARGET: &str = "/run/estive/resolv.conf";
/// Until it has its name.
const MAKING: &str = ".estive-resolv.conf";
/// The first line of ours.
const OURS: &str = "# Written by estive-init from ip= or its lease.\n";

impl Network {
    /// Leaves word in the union. A root where nothing can be written still boots: it is said on the console.
    ///
    /// `outlives`: what is written there is still there at the next boot.
    pub fn keep(&self, union: &OwnedFd, outlives: bool) {
        for kept in [
            self.keep_in_run(union),
            self.keep_resolv_conf(union, outlives),
        ] {
            if let Err(Failure(error)) = kept {
                say(&format!("the booted system is not told: {error}"));
            }
        }
    }

    fn keep_in_run(&self, union: &OwnedFd) -> Result<()> {
        mount_run(union)?;
        let directory = directory_in(union, DIRECTORY, 0o755)?;
        write(&directory, FILE, &self.to_variables())?;
        match self.dns.is_empty() {
            true => Ok(()),
            false => write(&directory, RESOLV_CONF, &self.to_resolv_conf()),
        }
    }

    fn keep_resolv_conf(&self, union: &OwnedFd, outlives: bool) -> Result<()> {
        let etc = directory_in(union, "etc", 0o755)?;
        let doing = || "looking at /etc/resolv.conf in the root".to_owned();
        let present = match statat(&etc, RESOLV_CONF, AtFlags::SYMLINK_NOFOLLOW) {
            // One that points to what a service makes later is the root's own too.
            Ok(_) if !is_ours(&etc) => Present::Foreign,
            Ok(_) => Present::Ours,
            Err(Errno::NOENT) => Present::Absent,
            Err(errno) => return Err(errno).doing(doing),
        };
        match (present, outlives) {
            (Present::Foreign, _) => Ok(()),
            (Present::Absent, _) if self.dns.is_empty() => Ok(()),
            (Present::Absent, true) => {
                say(&format!(
                    "/etc/resolv.conf is left out, since what is written outlives the lease: link it to {TARGET} in the root"
                ));
                Ok(())
            }
            (Present::Absent, false) | (Present::Ours, _) => link(&etc),
        }
    }

    /// One `NAME=value` a line, named as klibc's `ipconfig` names them where it has a name; every value is an address, a
    /// number or checked text, in single quotes where it may hold a space.
    fn to_variables(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                let _ = writeln!(text, "{name}={value}");
            }
        };
        add("DEVICE", self.device.clone());
        add(
            "PROTO",
            match self.lease {
                Some(_) => "dhcp".into(),
                None => "static".into(),
            },
        );
        let shown = |address: Option<IpAddr>| address.map(|it| it.to_string()).unwrap_or_default();
        match self.address {
            IpAddr::V4(address) => {
                add("IPV4ADDR", address.to_string());
                add("IPV4NETMASK", netmask(self.prefix).to_string());
                add("IPV4GATEWAY", shown(self.gateway));
                for (index, server) in self.dns.iter().enumerate() {
                    add(&format!("IPV4DNS{index}"), server.to_string());
                }
            }
            IpAddr::V6(address) => {
                add("IPV6ADDR", address.to_string());
                add("IPV6PREFIX", self.prefix.to_string());
                add("IPV6GATEWAY", shown(self.gateway));
                for (index, server) in self.dns.iter().enumerate() {
                    add(&format!("IPV6DNS{index}"), server.to_string());
                }
            }
        }
        add("HOSTNAME", self.hostname.clone().unwrap_or_default());
        add(
            "DNSDOMAIN",
            self.domains.first().cloned().unwrap_or_default(),
        );
        add("DOMAINSEARCH", quoted(&self.domains.join(" ")));
        add("ROOTSERVER", shown(self.server));
        add(
            "MTU",
            self.mtu_bytes
                .map(|mtu_bytes| mtu_bytes.to_string())
                .unwrap_or_default(),
        );
        if let Some(lease) = &self.lease {
            let number = |number: Option<u32>| number.map(|it| it.to_string()).unwrap_or_default();
            add("DHCPSERVER", shown(lease.server.map(IpAddr::V4)));
            add("DHCPLEASETIME", number(lease.lease_s));
            add(
                "ROOTPATH",
                quoted(lease.root_path.as_deref().unwrap_or_default()),
            );
            add(
                "filename",
                quoted(lease.boot_file.as_deref().unwrap_or_default()),
            );
        }
        text
    }

    fn to_resolv_conf(&self) -> String {
        let mut text = OURS.to_owned();
        if !self.domains.is_empty() {
            let _ = writeln!(text, "search {}", self.domains.join(" "));
        }
        // resolv.conf(5) has room for three.
        for server in self.dns.iter().take(3) {
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }
}

/// For a shell: in single quotes, those inside taken out of them.
fn quoted(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Present {
    Absent,
    Ours,
    Foreign,
}

/// Whether `/etc/resolv.conf` is a file that an early userspace has written.
fn is_ours(etc: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut begin = Vec::new();
    openat2(etc, RESOLV_CONF, flags, Mode::empty(), beneath)
        .map(|file| File::from(file).take(OURS.len() as u64))
        .is_ok_and(|mut file| file.read_to_end(&mut begin).is_ok())
        && begin == OURS.as_bytes()
}

/// In place of what is there, if anything is.
fn link(etc: &OwnedFd) -> Result<()> {
    let doing = || format!("linking /etc/resolv.conf to {TARGET}");
    // Left by a boot that was cut off.
    let _ = unlinkat(etc, MAKING, AtFlags::empty());
    symlinkat(TARGET, etc, MAKING).doing(doing)?;
    renameat(etc, MAKING, etc, RESOLV_CONF).doing(doing)
}

fn write(directory: &OwnedFd, name: &str, text: &str) -> Result<()> {
    let doing = || format!("writing {name}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::TRUNC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(directory, name, flags, mode, beneath).doing(doing)?;
    File::from(file).write_all(text.as_bytes()).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::super::Lease;
    use super::*;

    #[test]
    fn resolv_conf_is_of_one_boot() {
        use std::fs;
        use std::path::Path;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/resolv.conf");
        fs::create_dir(root.path().join("etc")).unwrap();
        let keep = |outlives| {
            let union = crate::root::open_directory(&root.path().to_string_lossy()).unwrap();
            lent().keep_resolv_conf(&union, outlives).unwrap();
        };
        keep(true);
        assert!(fs::symlink_metadata(&path).is_err());
        keep(false);
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(TARGET));
        // A link is whoever's made it; a file of an earlier version is replaced, also where it stays.
        keep(true);
        fs::remove_file(&path).unwrap();
        fs::write(&path, lent().to_resolv_conf()).unwrap();
        keep(true);
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(TARGET));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "nameserver 10.9.9.9\n").unwrap();
        keep(false);
        assert_eq!(fs::read(&path).unwrap(), b"nameserver 10.9.9.9\n");
        let names = fs::read_dir(root.path().join("etc")).unwrap();
        assert_eq!(names.count(), 1);
    }

    fn lent() -> Network {
        Network {
            device: "eth0".into(),
            address: [10, 0, 2, 15].into(),
            prefix: 24,
            gateway: Some([10, 0, 2, 2].into()),
            dns: vec![[10, 0, 2, 3].into()],
            domains: vec!["lab.example".into(), "example".into()],
            hostname: Some("clone01".into()),
            server: Some([10, 0, 2, 2].into()),
            mtu_bytes: None,
            lease: Some(Lease {
                server: Some([10, 0, 2, 2].into()),
                lease_s: Some(86_400),
                root_path: Some("it's here".into()),
                boot_file: None,
            }),
        }
    }

    #[test]
    fn what_is_kept_is_what_a_shell_can_read() {
        let network = lent();
        assert_eq!(
            network.to_variables(),
            "DEVICE=eth0\nPROTO=dhcp\nIPV4ADDR=10.0.2.15\nIPV4NETMASK=255.255.255.0\nIPV4GATEWAY=10.0.2.2\n\
             IPV4DNS0=10.0.2.3\nHOSTNAME=clone01\nDNSDOMAIN=lab.example\nDOMAINSEARCH='lab.example example'\n\
             ROOTSERVER=10.0.2.2\nDHCPSERVER=10.0.2.2\nDHCPLEASETIME=86400\nROOTPATH='it'\\''s here'\n"
        );
        assert!(
            network
                .to_resolv_conf()
                .ends_with("search lab.example example\nnameserver 10.0.2.3\n")
        );
    }
}

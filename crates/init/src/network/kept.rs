//! What the booted system finds of the network: `/run/estive/net`, and a `resolv.conf` where the root has none.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat};
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

impl Network {
    /// Leaves word in the union. A root where nothing can be written still boots: it is said on the console.
    pub fn keep(&self, union: &OwnedFd) {
        for kept in [self.keep_lease(union), self.keep_resolv_conf(union)] {
            if let Err(Failure(error)) = kept {
                say(&format!("the booted system is not told: {error}"));
            }
        }
    }

    fn keep_lease(&self, union: &OwnedFd) -> Result<()> {
        mount_run(union)?;
        let directory = directory_in(union, DIRECTORY, 0o755)?;
        write(&directory, FILE, &self.to_variables(), false)
    }

    fn keep_resolv_conf(&self, union: &OwnedFd) -> Result<()> {
        if self.dns.is_empty() {
            return Ok(());
        }
        let etc = directory_in(union, "etc", 0o755)?;
        match statat(&etc, RESOLV_CONF, AtFlags::SYMLINK_NOFOLLOW) {
            // One that points to what a service makes later is the root's own too.
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => write(&etc, RESOLV_CONF, &self.to_resolv_conf(), true),
            Err(errno) => Err(errno).doing(|| "looking at /etc/resolv.conf in the root".into()),
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
        let mut text = String::from("# Written by estive-init from ip= or its lease.\n");
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

fn write(directory: &OwnedFd, name: &str, text: &str, is_new: bool) -> Result<()> {
    let doing = || format!("writing {name}");
    let how = if is_new { OFlags::EXCL } else { OFlags::TRUNC };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | how;
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
    fn what_is_kept_is_what_a_shell_can_read() {
        let network = Network {
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
        };
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

//! `ip=` written again: what is printed reads as the same.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::{ClientId, Common, IpLine};

impl fmt::Display for IpLine {
    /// The text after `ip=`, in the shorter form where it says all.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut keys = String::new();
        match self {
            IpLine::Off => return f.write_str("off"),
            IpLine::Dhcp(dhcp) => {
                let common = &dhcp.common;
                if common.server.is_none() && common.dns.is_empty() {
                    f.write_str("dhcp")?;
                    if let Some(name) = &common.hostname {
                        let _ = write!(keys, ":hostname={name}");
                    }
                    if let Some(device) = &common.device {
                        let _ = write!(keys, ":device={device}");
                    }
                } else {
                    fmt_fields(f, ["", "", ""], common, "dhcp")?;
                }
                match &dhcp.client_id {
                    Some(ClientId::Text(text)) => {
                        let _ = write!(keys, ":client-id={}", escaped(text));
                    }
                    Some(ClientId::Bytes(bytes)) => {
                        keys += ":client-id=0x";
                        for byte in bytes {
                            let _ = write!(keys, "{byte:02x}");
                        }
                    }
                    None => {}
                }
                if let Some(class) = &dhcp.vendor_class {
                    let _ = write!(keys, ":vendor-class={}", escaped(class));
                }
                if let Some(timeout_s) = dhcp.timeout_s {
                    let _ = write!(keys, ":timeout={timeout_s}");
                }
            }
            IpLine::Static(fixed) => {
                let netmask = match fixed.address {
                    IpAddr::V4(_) => {
                        let mask = u32::MAX
                            .checked_shl(32 - u32::from(fixed.prefix))
                            .unwrap_or(0);
                        std::net::Ipv4Addr::from(mask).to_string()
                    }
                    IpAddr::V6(_) => fixed.prefix.to_string(),
                };
                let gateway = fixed.gateway.map(bracketed).unwrap_or_default();
                let fields = [&*bracketed(fixed.address), &gateway, &netmask];
                fmt_fields(f, fields, &fixed.common, "off")?;
            }
        }
        if let Some(common) = self.common() {
            if let Some(mtu_bytes) = common.mtu_bytes {
                let _ = write!(keys, ":mtu={mtu_bytes}");
            }
            if !common.domains.is_empty() {
                let _ = write!(keys, ":domain={}", common.domains.join(","));
            }
        }
        f.write_str(&keys)
    }
}

fn fmt_fields(
    f: &mut fmt::Formatter,
    [client, gateway, netmask]: [&str; 3],
    common: &Common,
    autoconf: &str,
) -> fmt::Result {
    let server = common.server.map(bracketed).unwrap_or_default();
    let hostname = common.hostname.as_deref().unwrap_or_default();
    let device = match &common.device {
        Some(device) => device.to_string(),
        None => String::new(),
    };
    write!(
        f,
        "{client}:{server}:{gateway}:{netmask}:{hostname}:{device}:{autoconf}"
    )?;
    common
        .dns
        .iter()
        .try_for_each(|server| write!(f, ":{}", bracketed(*server)))
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// With `%HH` for what has a meaning here, or in a kernel command line.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    // A text that begins so would be read as bytes.
    let digits = text.starts_with("0x");
    for (index, byte) in text.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.,+/@=~".contains(&byte);
        if plain && !(digits && index == 0) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02x}");
        }
    }
    escaped
}

//! What one part of `ip=` may be: an address, a name, a number, text. Errors are told by place.

use super::fields::Field;
use super::{ClientId, Device, is_host_name};
use crate::root_line::{Parsed, Wrong};
use std::net::IpAddr;

const HOSTNAME_BYTES_MAX: usize = 64;
const DEVICE_BYTES_MAX: usize = 15;
const TEXT_BYTES_MAX: usize = 128;
const DOMAINS_MAX: usize = 6;

/// Reading fields: its errors are told by place.
pub(super) struct Line;

impl Line {
    pub(super) fn wrong<T>(&self, at: usize, message: &str) -> Parsed<T> {
        Err(Wrong::new(at, message))
    }

    pub(super) fn address(&self, field: &Field) -> Parsed<IpAddr> {
        let address: IpAddr = match field.text.parse() {
            Ok(address) => address,
            Err(_) => {
                return self.wrong(
                    field.at,
                    "it must be an address as 10.0.0.2, or as [fd00::2]",
                );
            }
        };
        if address.is_unspecified() || address.is_multicast() {
            return self.wrong(field.at, "no machine can have this address");
        }
        Ok(address)
    }

    /// A number of bits, or an IPv4 netmask.
    pub(super) fn prefix(&self, field: &Field, bits: u8) -> Parsed<u8> {
        if let Ok(mask) = field.text.parse::<std::net::Ipv4Addr>()
            && bits == 32
        {
            let mask = u32::from(mask);
            let ones = mask.leading_ones();
            if mask.checked_shl(ones).unwrap_or(0) != 0 {
                return self.wrong(field.at, "a netmask is ones, then zeros");
            }
            return Ok(ones as u8);
        }
        match field.text.parse() {
            Ok(length) if length <= bits => Ok(length),
            _ => self.wrong(
                field.at,
                "it must be a netmask as 255.255.255.0, or a prefix length as 24",
            ),
        }
    }

    pub(super) fn hostname(&self, field: &Field) -> Parsed<String> {
        if is_host_name(field.text) && field.text.len() <= HOSTNAME_BYTES_MAX {
            return Ok(field.text.to_owned());
        }
        self.wrong(
            field.at,
            "a host name has letters, digits, - and ., at most 64",
        )
    }

    pub(super) fn domains(&self, field: &Field) -> Parsed<Vec<String>> {
        let mut at = field.at;
        let mut domains = Vec::new();
        for name in field.text.split(',') {
            if !is_host_name(name) || domains.len() == DOMAINS_MAX {
                return self.wrong(
                    at,
                    "a domain has letters, digits, - and .; at most six of them",
                );
            }
            domains.push(name.to_owned());
            at += name.len() + 1;
        }
        Ok(domains)
    }

    pub(super) fn device(&self, field: &Field) -> Parsed<Device> {
        let text = field.text;
        if field.bracketed || text.contains(':') {
            return match text.parse() {
                Ok(mac) => Ok(Device::Mac(mac)),
                Err(_) => self.wrong(
                    field.at,
                    "in brackets it must be a MAC address, as [52:54:00:00:00:01]",
                ),
            };
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '%' | '[' | ']' | '=');
        if text.len() <= DEVICE_BYTES_MAX
            && !text.is_empty()
            && text.chars().all(plain)
            && !matches!(text, "." | "..")
        {
            return Ok(Device::Name(text.to_owned()));
        }
        self.wrong(
            field.at,
            "it must be the name of an interface, as eth0, at most 15 characters",
        )
    }

    pub(super) fn client_id(&self, field: &Field) -> Parsed<ClientId> {
        let Some(digits) = field.text.strip_prefix("0x") else {
            return self.text(field).map(ClientId::Text);
        };
        let bytes: Option<Vec<u8>> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| hex(pair.first().copied(), pair.get(1).copied()))
            .collect();
        match bytes {
            Some(bytes) if (2..=TEXT_BYTES_MAX).contains(&bytes.len()) => {
                Ok(ClientId::Bytes(bytes))
            }
            _ => self.wrong(field.at, "0x and then 2 to 128 bytes, two digits each"),
        }
    }

    /// Text for DHCP, `%HH` decoded.
    pub(super) fn text(&self, field: &Field) -> Parsed<String> {
        let mut bytes = Vec::new();
        let mut rest = field.text.bytes().enumerate();
        while let Some((index, byte)) = rest.next() {
            if byte != b'%' {
                bytes.push(byte);
                continue;
            }
            let mut digit = || rest.next().map(|(_, byte)| byte);
            match hex(digit(), digit()) {
                Some(byte) => bytes.push(byte),
                None => return self.wrong(field.at + index, "% is followed by two hex digits"),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text)
                if (1..=TEXT_BYTES_MAX).contains(&text.len())
                    && !text.chars().any(char::is_control) =>
            {
                Ok(text)
            }
            _ => self.wrong(
                field.at,
                "1 to 128 bytes of text, without control characters",
            ),
        }
    }

    pub(super) fn number(
        &self,
        field: &Field,
        range: std::ops::RangeInclusive<u32>,
        form: &str,
    ) -> Parsed<u32> {
        match field.text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => self.wrong(field.at, &format!("it must be a number of {form}")),
        }
    }
}

fn hex(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high?)? << 4 | digit(low?)?).ok()
}

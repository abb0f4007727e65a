//! `nfs`: a directory of an NFS server.

use super::{Form, Loader, Needs, Parameter, Shape, Taken, Text};
use crate::root_line::Parsed;

macro_rules! number {
    ($name:literal, $help:literal) => {
        Parameter {
            name: $name,
            form: Form::Key("NUMBER"),
            default: "the kernel's",
            help: $help,
        }
    };
}

macro_rules! flag {
    ($name:literal, $default:literal, $help:literal) => {
        Parameter {
            name: $name,
            form: Form::Flag,
            default: $default,
            help: $help,
        }
    };
}

pub const LOADER: Loader = Loader {
    name: "nfs",
    help: "A directory that an NFS server exports. On top and rw, what is written goes to a file system in the file \
           .estive/upper.img of that directory, for one machine at a time: overlayfs cannot write to NFS itself.",
    parameters: &[
        Parameter {
            name: "SERVER",
            form: Form::Place {
                keys: &[],
                optional: false,
            },
            default: "",
            help: "its name or address",
        },
        Parameter {
            name: "EXPORT",
            form: Form::Place {
                keys: &[],
                optional: false,
            },
            default: "",
            help: "path of the directory there",
        },
        Parameter {
            name: "vers",
            form: Form::Key("VERSION"),
            default: "4.2, then 3",
            help: "of the protocol: 3, 4.0, 4.1 or 4.2",
        },
        Parameter {
            name: "size",
            form: Form::Key("SIZE"),
            default: "8g",
            help: "of what can be written, when upper.img is first made; it takes its place as it fills",
        },
        Parameter {
            name: "proto",
            form: Form::Key("TRANSPORT"),
            default: "tcp",
            help: "tcp or udp",
        },
        Parameter {
            name: "lookupcache",
            form: Form::Key("NAMES"),
            default: "all",
            help: "which names are remembered: all, positive or none",
        },
        Parameter {
            name: "port",
            form: Form::Key("NUMBER"),
            default: "2049",
            help: "port of NFS on the server",
        },
        number!(
            "mountport",
            "port of mountd, for version 3; else rpcbind is asked"
        ),
        number!("rsize", "bytes of one read"),
        number!("wsize", "bytes of one write"),
        number!("timeo", "tenths of a second before a request is repeated"),
        number!(
            "retrans",
            "repetitions before it is said that the server is silent"
        ),
        number!("nconnect", "connections, at most 16"),
        number!("actimeo", "seconds that attributes are believed"),
        flag!(
            "lock",
            "no",
            "locks of version 3 go to the server, which needs statd on both sides"
        ),
        flag!("nolock", "yes", "they stay in this machine"),
        flag!("hard", "yes", "wait for a silent server"),
        flag!("soft", "no", "give up on it: programs see errors"),
        flag!("noac", "no", "believe no attributes"),
        flag!(
            "nocto",
            "no",
            "do not ask again when a file is opened: for what never changes"
        ),
        flag!(
            "noacl",
            "no",
            "no access lists with version 3; copying up files of other owners than root then fails"
        ),
        flag!("nordirplus", "no", "directories without attributes"),
        flag!(
            "noresvport",
            "no",
            "any port of this machine; the server must allow it"
        ),
        flag!("noatime", "no", "do not note when a file is read"),
        flag!(
            "follow",
            "no",
            "changes of names on the server are seen through the union too; for what changes under machines that run"
        ),
    ],
    is_source: true,
    takes: &[],
    gives: Shape::Directory,
    example: "nfs:10.0.0.1:/",
};

/// The numbers that the kernel takes as they are, and how far they go.
const NUMBERS: [(&str, std::ops::RangeInclusive<u64>); 7] = [
    ("mountport", 1..=65_535),
    ("rsize", 1024..=1 << 20),
    ("wsize", 1024..=1 << 20),
    ("timeo", 1..=6000),
    ("retrans", 1..=100),
    ("nconnect", 1..=16),
    ("actimeo", 0..=86_400),
];
/// The flags that the kernel takes as they are.
const FLAGS: [&str; 7] = [
    "hard",
    "soft",
    "noac",
    "nocto",
    "noacl",
    "nordirplus",
    "noresvport",
];

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V3,
    /// And its minor version.
    V4(u8),
}

impl Version {
    /// As the kernel's option `vers=` has it.
    pub fn name(self) -> &'static str {
        match self {
            Version::V3 => "3",
            Version::V4(0) => "4.0",
            Version::V4(1) => "4.1",
            Version::V4(_) => "4.2",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub server: String,
    /// Absolute.
    pub export: String,
    /// Tried in this order, at least one.
    pub versions: Vec<Version>,
    pub port: u16,
    pub mount_port: Option<u16>,
    pub is_udp: bool,
    /// With version 3.
    pub locks: bool,
    pub no_atime: bool,
    /// The union looks names up anew again and again.
    pub follow: bool,
    /// Of the image that takes what is written, when it is made.
    pub upper_bytes: u64,
    /// What else the kernel is told, as it takes it.
    pub others: Vec<String>,
}

const NFS_PORT: u16 = 2049;
const UPPER_BYTES: u64 = 8 << 30;
/// ext4 with a journal wants some; what is smaller fills at once.
const UPPER_BYTES_MIN: u64 = 16 << 20;
const UPPER_BYTES_MAX: u64 = 8 << 40;
const EXPORT_BYTES_MAX: usize = 1024;

impl Options {
    pub(super) fn parse(taken: &mut Taken) -> Parsed<Options> {
        let (server, export) = (taken.needed()?.text, taken.needed()?.text);
        let is_address = server.text.parse::<std::net::IpAddr>().is_ok();
        if !is_address && !crate::ip_line::is_host_name(server.text.trim_end_matches('.')) {
            return server.wrong("a server is a name or an address, one of IPv6 in brackets");
        }
        if !export.text.starts_with('/') || export.text.len() > EXPORT_BYTES_MAX {
            return export.wrong("an export is an absolute path");
        }
        // The kernel splits what it is told at commas; this is told by itself, but shown in /proc/mounts.
        if export.text.chars().any(char::is_control) {
            return export.wrong("an export has no control characters");
        }
        let versions = match taken.key("vers") {
            Some(text) => vec![match text.text.as_str() {
                "3" => Version::V3,
                "4" | "4.2" => Version::V4(2),
                "4.1" => Version::V4(1),
                "4.0" => Version::V4(0),
                _ => return text.wrong("there are 3, 4.0, 4.1 and 4.2"),
            }],
            None => vec![Version::V4(2), Version::V3],
        };
        let upper_bytes = match taken.key("size") {
            Some(text) => size_bytes(&text)?,
            None => UPPER_BYTES,
        };
        let is_udp = match taken.key("proto") {
            Some(text) => match text.text.as_str() {
                "tcp" => false,
                "udp" => true,
                _ => return text.wrong("it is tcp or udp"),
            },
            None => false,
        };
        let mut others = Vec::new();
        if let Some(text) = taken.key("lookupcache") {
            match text.text.as_str() {
                "all" | "positive" | "none" => others.push(format!("lookupcache={}", text.text)),
                _ => return text.wrong("it is all, positive or none"),
            }
        }
        let port = match taken.key("port") {
            Some(text) => number(&text, &(1..=65_535))?,
            None => NFS_PORT.into(),
        };
        let mut mount_port = None;
        for (name, range) in &NUMBERS {
            if let Some(text) = taken.key(name) {
                let number = number(&text, range)?;
                others.push(format!("{name}={number}"));
                if *name == "mountport" {
                    mount_port = u16::try_from(number).ok();
                }
            }
        }
        others.extend(
            FLAGS
                .iter()
                .filter(|name| taken.flag(name))
                .map(|name| (*name).to_owned()),
        );
        Ok(Options {
            server: server.text,
            export: export.text,
            versions,
            port: u16::try_from(port).unwrap_or(NFS_PORT),
            mount_port,
            is_udp,
            locks: taken.flag("lock") && !taken.flag("nolock"),
            no_atime: taken.flag("noatime"),
            follow: taken.flag("follow"),
            upper_bytes,
            others,
        })
    }

    pub(super) fn add_needs(&self, needs: &mut Needs) {
        needs.network = true;
        needs.module("nfs");
        needs.if_there(&["nfsv3", "nfsv4"]);
        // For what is written, when it is on top.
        needs.if_there(&["loop"]);
        needs.file_system(Some("ext4"));
    }
}

fn number(text: &Text, range: &std::ops::RangeInclusive<u64>) -> Parsed<u64> {
    match text.text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => text.wrong(format!(
            "it must be a number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// `8g`, `512m`.
fn size_bytes(text: &Text) -> Parsed<u64> {
    let (digits, shift) = match text.text.to_ascii_lowercase() {
        all if all.ends_with('m') => (all, 20),
        all if all.ends_with('g') => (all, 30),
        all if all.ends_with('t') => (all, 40),
        _ => return text.wrong("a size is written as 512m, 8g or 1t"),
    };
    let size_bytes = digits[..digits.len() - 1]
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| (UPPER_BYTES_MIN..=UPPER_BYTES_MAX).contains(bytes));
    size_bytes.map_or_else(|| text.wrong("a size is from 16m to 8t"), Ok)
}

#[cfg(test)]
mod tests {
    use super::super::{Root, Stage};
    use super::*;

    fn options(text: &str) -> Options {
        let root = Root::parse(text).unwrap_or_else(|problem| panic!("{}", problem.pointed()));
        match &root.devices[0].stages[..] {
            [.., Stage::Nfs(options)] => options.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_read_and_passed_on() {
        let plain = options("nfs:10.0.0.1:/:ro");
        assert_eq!(plain.versions, [Version::V4(2), Version::V3]);
        assert_eq!(
            (plain.port, plain.locks, plain.is_udp),
            (2049, false, false)
        );
        assert!(plain.others.is_empty());
        let all = options(
            "nfs:[fd00::1]:/srv/a,b:vers=3:rsize=65536:nocto:ro:mountport=20048:lock:lookupcache=none:size=64m",
        );
        assert_eq!((&*all.server, &*all.export), ("fd00::1", "/srv/a,b"));
        assert_eq!(all.versions, [Version::V3]);
        assert_eq!((all.mount_port, all.locks), (Some(20_048), true));
        assert_eq!(all.upper_bytes, 64 << 20);
        assert_eq!(
            all.others,
            [
                "lookupcache=none",
                "mountport=20048",
                "rsize=65536",
                "nocto"
            ]
        );
    }

    #[test]
    fn wrong_options_are_pointed_at() {
        for (text, at, said) in [
            ("nfs:10.0.0.1:srv", 13, "absolute"),
            ("nfs:-x:/", 4, "name or an address"),
            ("nfs:a:/:vers=2", 8, "3, 4.0, 4.1 and 4.2"),
            ("nfs:a:/:rsize=1", 8, "1024"),
            ("nfs:a:/:port=0", 8, "65535"),
            ("nfs:a:/:size=1k", 8, "512m"),
            ("nfs:a:/:size=1m", 8, "16m"),
            ("nfs:a:/:proto=rdma", 8, "tcp or udp"),
            ("nfs:a:/:rsize=1,soft", 8, "1024"),
            ("nfs:a:/:colour=red", 8, "no option colour="),
        ] {
            let problem = Root::parse(text).expect_err(text);
            assert!(problem.message.contains(said), "{text}: {problem}");
            assert_eq!(problem.at, at, "{text}: {problem}");
        }
    }
}

//! A domain's directory on this host, and what the hypervisor is told from it.

use crate::files::Files;
use estive_api::Problem;
use estive_api::domain_xml::{CONFIG_FILE, Description, DiskSource, DomainXml, IDENTITY_FILE};
use estive_api::wire::CacheDirectory;
use estive_boot::Identity;
use estive_boot::identity::Seed;
use estive_model::{BlockSource, Checksummed, Digest, DomainSpec, Interface, NbdSource};
use estive_network::{MacAddress, Sender};
use rand::TryRngCore as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Reads the description from a domain's directory.
pub fn read_xml(place: &Path) -> Result<Description, Problem> {
    let path = place.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
    Description::parse(&text).map_err(|error| unreadable(&path, &error))
}

/// Likewise, of a clone; none of an ordinary machine.
pub fn read_clone(place: &Path) -> Result<Option<DomainXml>, Problem> {
    read_xml(place).map(|description| match description {
        Description::Clone(xml) => Some(xml),
        Description::Images(_) => None,
    })
}

/// Reads the identity from a domain's directory, completed with fresh random bytes.
pub fn read_identity(place: &Path, xml: &DomainXml) -> Result<Identity, Problem> {
    let path = place.join(IDENTITY_FILE);
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    complete_identity(&bytes, xml)
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Problem {
    Problem::failed(format!("could not read {}: {error}", path.display()))
        .advice("delete the domain and define it again")
}

/// What frames from a domain's interface may say of their sender: its identity, unless it has its addresses from
/// elsewhere (`ip=` on its command line).
pub fn sender(identity: &Identity, command_line: &str, door: Option<Ipv4Addr>) -> Sender {
    let mut words = command_line.split_ascii_whitespace();
    match words.any(|word| word.starts_with("ip=")) {
        true => Sender::Unknown { door },
        false => Sender::Known {
            mac: MacAddress(identity.mac.0),
            address: identity.address.address,
        },
    }
}

/// What this host adds to a domain's description.
pub struct Host<'a> {
    pub files: &'a Files,
    pub cache: &'a CacheDirectory,
    pub bridge: &'a str,
    pub tap: String,
    /// See [`AgentConfig::plain_disks`](crate::AgentConfig::plain_disks).
    pub plain_disks: bool,
}

/// A disk of another machine comes encrypted, whatever its description says.
fn trusted(domain: &DomainXml, nbd: NbdSource, plain_disks: bool) -> Result<NbdSource, Problem> {
    let here = nbd
        .host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.to_canonical().is_loopback());
    match nbd.tls || here || plain_disks {
        true => Ok(nbd),
        false => Err(Problem::refused(format!(
            "{} is to have the disk {} of {}:{} in the clear, which this host does not take",
            domain.name, nbd.export, nbd.host, nbd.port
        ))
        .advice(
            "have it served by TLS; or write plain_disks: true into this agent's configuration, where the network is \
             yours alone",
        )),
    }
}

/// The hypervisor's view of a domain: every file resolved on this host.
pub fn spec(
    place: &Path,
    layer: PathBuf,
    xml: &DomainXml,
    host: Host<'_>,
    volume: Option<NbdSource>,
) -> Result<DomainSpec, Problem> {
    let shared = |digest: &Digest| {
        let path = host.files.path(digest);
        if path.is_file() {
            Ok(path)
        } else {
            Err(
                Problem::failed(format!("{digest}, which {} names, is not here", xml.name))
                    .advice("put the file by its digest, then ask again"),
            )
        }
    };
    let checksummed = |digest: &Digest| {
        shared(digest).map(|path| Checksummed {
            path,
            digest: Some(digest.clone()),
        })
    };
    let disk = |source: &DiskSource| match source {
        DiskSource::File(digest) => shared(digest).map(BlockSource::File),
        DiskSource::Nbd(nbd) => trusted(xml, nbd.clone(), host.plain_disks).map(BlockSource::Nbd),
        DiskSource::Root(root) => Ok(BlockSource::LocalNbd {
            socket: host.cache.socket(),
            export: root.name.hex().to_owned(),
        }),
    };
    let volume = volume
        .map(|volume| trusted(xml, volume, host.plain_disks))
        .transpose()?;
    let identity = match xml.identity_by_fw_cfg {
        true => Some(identity_line(&read_identity(place, xml)?)?),
        false => None,
    };
    Ok(DomainSpec {
        name: xml.name.clone(),
        uuid: xml.uuid.clone(),
        memory_mib: xml.memory_mib,
        cpus: xml.cpus,
        kernel: checksummed(&xml.kernel)?,
        initramfs: checksummed(&xml.initramfs)?,
        command_line: xml.command_line.clone(),
        layer,
        root: disk(&xml.root)?,
        modules: disk(&xml.modules)?,
        volume,
        interface: xml.mac.as_ref().map(|mac| Interface {
            mac: mac.clone(),
            bridge: host.bridge.to_owned(),
            tap: host.tap,
        }),
        identity,
    })
}

/// The identity as the guest reads it.
pub fn identity_line(identity: &Identity) -> Result<String, Problem> {
    identity
        .to_json()
        .map_err(|error| Problem::failed(error.to_string()))
}

/// Checks an identity that came in an archive (without seed) and gives it a fresh one.
pub fn complete_identity(bytes: &[u8], xml: &DomainXml) -> Result<Identity, Problem> {
    let bad = |reason: String| {
        Problem::invalid(format!(
            "the identity of {} cannot be taken: {reason}",
            xml.name
        ))
    };
    let mut value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let fields = value
        .as_object_mut()
        .ok_or_else(|| bad("it is not a JSON object".into()))?;
    if fields.contains_key("seed") {
        return Err(bad(
            "it holds a seed; the host adds fresh random bytes at each start".into(),
        ));
    }
    let mut seed = [0; 64];
    rand::rngs::OsRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| Problem::failed(format!("the system gives no random bytes: {error}")))?;
    fields.insert("seed".into(), String::from(Seed(seed)).into());
    let identity =
        Identity::parse(value.to_string().as_bytes()).map_err(|error| bad(error.to_string()))?;
    if identity.name != xml.name.as_str() {
        return Err(bad(format!("it names {:?}", identity.name)));
    }
    if let Some(mac) = &xml.mac
        && identity.mac.to_string() != *mac
    {
        return Err(bad(format!(
            "its MAC address {} is not {mac}",
            identity.mac
        )));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::domain_xml::Accelerator;
    use estive_model::DomainName;

    #[test]
    fn no_description_has_a_disk_of_another_machine_in_the_clear() {
        let root = Digest::new(format!("sha256:{}", "0".repeat(64))).unwrap();
        let domain = DomainXml {
            accelerator: Accelerator::Emulation,
            name: DomainName::new("clone01").unwrap(),
            uuid: "8d2f0a3e-0000-4000-8000-00000000000a".into(),
            memory_mib: 64,
            cpus: 1,
            kernel: root.clone(),
            initramfs: root.clone(),
            command_line: String::new(),
            identity_by_fw_cfg: true,
            root: DiskSource::File(root.clone()),
            modules: DiskSource::File(root),
            volume: None,
            live: None,
            mac: None,
        };
        let disk = |host: &str, tls| NbdSource {
            host: host.to_owned(),
            port: 10809,
            export: "root".to_owned(),
            tls,
        };
        for host in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(trusted(&domain, disk(host, false), false).is_ok(), "{host}");
        }
        // A name is what somebody else makes of it.
        for host in [
            "192.0.2.7",
            "localhost",
            "127.0.0.1.example.org",
            "0.0.0.0",
            "::",
        ] {
            let refused = trusted(&domain, disk(host, false), false).unwrap_err();
            assert!(refused.error.contains("in the clear"), "{refused}");
            assert!(trusted(&domain, disk(host, true), false).is_ok(), "{host}");
            assert!(trusted(&domain, disk(host, false), true).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_clone_is_held_to_its_identity_unless_its_addresses_are_from_elsewhere() {
        let identity = Identity::parse(
            format!(
                r#"{{"version": 1, "name": "a", "hostname": "a", "mac": "02:77:00:00:00:65",
                "address": "10.77.0.101/24", "gateway": null, "seed": "{}"}}"#,
                String::from(Seed([7; 64]))
            )
            .as_bytes(),
        )
        .unwrap();
        let door = Some([10, 77, 0, 9].into());
        let known = Sender::Known {
            mac: "02:77:00:00:00:65".parse().unwrap(),
            address: [10, 77, 0, 101].into(),
        };
        let of = |line: &str| sender(&identity, line, door);
        assert_eq!(of("quiet root=nfs:10.77.0.9:/;tmpfs zip=7"), known);
        assert_eq!(of("quiet ip=dhcp root=tmpfs"), Sender::Unknown { door });
    }
}

//! A domain's description as it travels in its archive: `config.xml`, a small subset of libvirt's domain XML.
//!
//! Everything outside the subset is refused by name, line and column: a description that is accepted is obeyed whole.
//! Reader and writer stand here together, so that manager and agent cannot differ.

mod images;
mod tree;

use crate::Endpoint;
use crate::wire::{MAX_ORIGINS, is_live_name};
use estive_model::{Digest, DomainName, DomainState, NbdSource};
use quick_xml::escape::escape;
use std::fmt::Write;
use std::net::SocketAddrV4;
use tree::{Element, Place};

pub use images::{
    Description, ImageDiskXml, ImagesXml, InterfaceXml, KernelXml, SET_ASIDE, SET_ASIDE_DEVICES,
};

/// Machine type of every domain: known to QEMU 7.2 and all later ones, so that all hosts agree.
pub const MACHINE: &str = "pc-q35-7.2";
/// What `<source bridge=…>` says: the bridge that the agent's configuration names.
pub const HOST_BRIDGE: &str = "host";
/// What `<host transport='unix' socket=…>` says: the socket of the host's own cache of roots.
pub const CACHE_SOCKET: &str = "cache";
/// Seconds for which a domain's network disk waits for its server to come back.
pub const RECONNECT_DELAY_S: u32 = 60;
/// Name of the layer's file in the domain's archive.
pub const LAYER_FILE: &str = "layer";
/// Name of the identity's file in the domain's archive.
pub const IDENTITY_FILE: &str = "identity.json";
/// Name of the description in the domain's archive.
pub const CONFIG_FILE: &str = "config.xml";

const VOLUME: &str = "estive-volume";
const IDENTITY_ENTRY: &str = "opt/org.estive/identity";
const MAX_MEMORY_MIB: u64 = 1 << 20;
const MAX_CPUS: u32 = 255;
const MAX_COMMAND_LINE_BYTES: usize = 2000;

/// Why a description was refused: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config.xml, line {line}, column {column}: {reason}")]
pub struct DomainXmlError {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// What is wrong, with the element's name.
    pub reason: String,
}

impl DomainXmlError {
    fn new(place: Place, reason: String) -> Self {
        Self {
            line: place.line,
            column: place.column,
            reason,
        }
    }
}

/// How the processors are run: `<domain type=…>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By emulation: `qemu`.
    Emulation,
    /// By the host's processors: `kvm`.
    Kvm,
}

impl Accelerator {
    /// libvirt's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Emulation => "qemu",
            Self::Kvm => "kvm",
        }
    }
}

/// Where a shared, read-only disk comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// A file that the host has, or gets, by its digest.
    File(Digest),
    /// A network block device.
    Nbd(NbdSource),
    /// A sealed root, which the host reads through its cache.
    Root(RootSource),
}

/// A sealed root and where hosts get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSource {
    /// Its name ([`Manifest::name`](estive_chunks::Manifest::name)).
    pub name: Digest,
    /// 1 to [`MAX_ORIGINS`], asked in this order; never unix sockets.
    pub origins: Vec<Endpoint>,
}

/// What a domain reads of a live reference, or shares by it, and where its host gets that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSource {
    /// The reference's name where it is served ([`is_live_name`]).
    pub reference: String,
    /// Where the domain mounts from: the door, an address that every host has for its own domains.
    pub door: SocketAddrV4,
    /// 1 to [`MAX_ORIGINS`], tried in turn; never unix sockets.
    pub origins: Vec<Endpoint>,
}

/// A domain's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    /// What runs the processors where it was written for; an agent uses its own.
    pub accelerator: Accelerator,
    /// The domain.
    pub name: DomainName,
    /// UUID, 8-4-4-4-12, lower case.
    pub uuid: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Kernel.
    pub kernel: Digest,
    /// Initial RAM file system.
    pub initramfs: Digest,
    /// Kernel command line; one line, may be empty.
    pub command_line: String,
    /// Whether the identity goes by fw_cfg; otherwise over the virtio-serial port.
    pub identity_by_fw_cfg: bool,
    /// Root disk, read-only.
    pub root: DiskSource,
    /// Modules disk, read-only.
    pub modules: DiskSource,
    /// Its volume, if it has one: where its storage host answers, and as export the volume's name, which is the
    /// domain's. The agent asks there for the export of its generation.
    pub volume: Option<NbdSource>,
    /// The live reference that it reads, or shares directories by. Its host lets in the address of its identity.
    pub live: Option<LiveSource>,
    /// MAC address of the network interface, if it has one: lower case.
    pub mac: Option<String>,
}

impl DomainXml {
    /// Digests of all shared files that the description names, each once.
    pub fn digests(&self) -> Vec<&Digest> {
        let mut named = vec![&self.kernel, &self.initramfs];
        for disk in [&self.root, &self.modules] {
            if let DiskSource::File(digest) = disk {
                named.push(digest);
            }
        }
        named.sort();
        named.dedup();
        named
    }

    /// Reads a description; see the module.
    pub fn parse(text: &str) -> Result<Self, DomainXmlError> {
        let domain = Element::read(text)?;
        if domain.name != "domain" {
            return Err(domain.wrong("is not <domain>"));
        }
        domain.only(
            &["type"],
            &[
                "name",
                "uuid",
                "memory",
                "currentMemory",
                "vcpu",
                "os",
                "sysinfo",
                "features",
                "devices",
                "metadata",
            ],
            &[],
        )?;
        let accelerator = match domain.attribute("type")? {
            "qemu" => Accelerator::Emulation,
            "kvm" => Accelerator::Kvm,
            _ => return Err(domain.wrong("has a type that is neither \"qemu\" nor \"kvm\"")),
        };
        let name = leaf(&domain, "name", str::parse::<DomainName>)?;
        let uuid = leaf(&domain, "uuid", parse_uuid)?;
        let memory_mib = mebibytes(domain.child("memory")?)?;
        if let Some(current) = domain.child_if_any("currentMemory")
            && mebibytes(current)? != memory_mib
        {
            return Err(current.wrong("differs from <memory>; a balloon is not used"));
        }
        let cpus = leaf(&domain, "vcpu", |text| {
            whole_number(text, u64::from(MAX_CPUS)).map(|count| count as u32)
        })?;
        let (kernel, initramfs, command_line) = parse_os(domain.child("os")?)?;
        let identity_by_fw_cfg = match domain.child_if_any("sysinfo") {
            Some(sysinfo) => parse_sysinfo(sysinfo).map(|()| true)?,
            None => false,
        };
        if let Some(features) = domain.child_if_any("features") {
            features.only(&[], &["acpi"], &[])?;
            if let Some(acpi) = features.child_if_any("acpi") {
                acpi.is_exactly(&[])?;
            }
        }
        let live = match domain.child_if_any("metadata") {
            Some(metadata) => Some(parse_live(metadata)?),
            None => None,
        };
        let devices = domain.child("devices")?;
        let (root, modules, volume, mac) = parse_devices(devices)?;
        if let Some(volume) = &volume
            && (volume.export != name.as_str() || !volume.tls)
        {
            return Err(
                devices.wrong("has a volume that is not named as the domain, with tls='yes'")
            );
        }
        Ok(Self {
            accelerator,
            name,
            uuid,
            memory_mib,
            cpus,
            kernel,
            initramfs,
            command_line,
            identity_by_fw_cfg,
            root,
            modules,
            volume,
            live,
            mac,
        })
    }

    /// Writes the description; [`DomainXml::parse`] reads it back the same.
    pub fn to_xml(&self) -> String {
        let mut xml = String::new();
        // Writing into a string cannot fail.
        let _ = self.write_to(&mut xml);
        xml
    }

    fn write_to(&self, xml: &mut String) -> std::fmt::Result {
        let memory = self.memory_mib;
        writeln!(xml, "<domain type='{}'>", self.accelerator.word())?;
        writeln!(xml, "  <name>{}</name>", self.name)?;
        writeln!(xml, "  <uuid>{}</uuid>", escape(self.uuid.as_str()))?;
        if let Some(live) = &self.live {
            let (name, door) = (escape(live.reference.as_str()), live.door);
            writeln!(xml, "  <metadata>")?;
            writeln!(xml, "    <live name='{name}' door='{door}'>")?;
            write_origins(xml, &live.origins, "      ")?;
            writeln!(xml, "    </live>")?;
            writeln!(xml, "  </metadata>")?;
        }
        writeln!(xml, "  <memory unit='MiB'>{memory}</memory>")?;
        writeln!(xml, "  <currentMemory unit='MiB'>{memory}</currentMemory>")?;
        writeln!(xml, "  <vcpu>{}</vcpu>", self.cpus)?;
        writeln!(xml, "  <os>")?;
        writeln!(
            xml,
            "    <type arch='x86_64' machine='{MACHINE}'>hvm</type>"
        )?;
        writeln!(xml, "    <kernel>{}</kernel>", self.kernel)?;
        writeln!(xml, "    <initrd>{}</initrd>", self.initramfs)?;
        if !self.command_line.is_empty() {
            let line = escape(self.command_line.as_str());
            writeln!(xml, "    <cmdline>{line}</cmdline>")?;
        }
        writeln!(xml, "  </os>")?;
        if self.identity_by_fw_cfg {
            writeln!(xml, "  <sysinfo type='fwcfg'>")?;
            writeln!(
                xml,
                "    <entry name='{IDENTITY_ENTRY}' file='{IDENTITY_FILE}'/>"
            )?;
            writeln!(xml, "  </sysinfo>")?;
        }
        writeln!(xml, "  <features>\n    <acpi/>\n  </features>")?;
        writeln!(xml, "  <devices>")?;
        write_disk(xml, None, "vda", "estive-layer")?;
        write_disk(xml, Some(&self.root), "vdb", "estive-root")?;
        write_disk(xml, Some(&self.modules), "vdc", "estive-modules")?;
        if let Some(volume) = &self.volume {
            let volume = DiskSource::Nbd(volume.clone());
            write_disk(xml, Some(&volume), "vdd", VOLUME)?;
        }
        if let Some(mac) = &self.mac {
            writeln!(xml, "    <interface type='bridge'>")?;
            writeln!(xml, "      <mac address='{}'/>", escape(mac.as_str()))?;
            writeln!(xml, "      <source bridge='{HOST_BRIDGE}'/>")?;
            writeln!(xml, "      <model type='virtio'/>")?;
            writeln!(xml, "    </interface>")?;
        }
        writeln!(xml, "    <serial type='unix'/>")?;
        writeln!(xml, "    <console type='pty'/>")?;
        writeln!(xml, "    <memballoon model='none'/>")?;
        writeln!(xml, "    <rng model='virtio'/>")?;
        writeln!(xml, "  </devices>\n</domain>")
    }
}

fn write_disk(
    xml: &mut String,
    source: Option<&DiskSource>,
    target: &str,
    serial: &str,
) -> std::fmt::Result {
    let kind = match source {
        Some(DiskSource::Nbd(_) | DiskSource::Root(_)) => "network",
        _ => "file",
    };
    writeln!(xml, "    <disk type='{kind}' device='disk'>")?;
    writeln!(xml, "      <driver name='qemu' type='raw'/>")?;
    match source {
        None => writeln!(xml, "      <source file='{LAYER_FILE}'/>")?,
        Some(DiskSource::File(digest)) => writeln!(xml, "      <source file='{digest}'/>")?,
        Some(DiskSource::Nbd(nbd)) => {
            let tls = if nbd.tls { "yes" } else { "no" };
            let export = escape(nbd.export.as_str());
            writeln!(
                xml,
                "      <source protocol='nbd' name='{export}' tls='{tls}'>"
            )?;
            let host = escape(nbd.host.as_str());
            writeln!(xml, "        <host name='{host}' port='{}'/>", nbd.port)?;
            writeln!(xml, "        <reconnect delay='{RECONNECT_DELAY_S}'/>")?;
            writeln!(xml, "      </source>")?;
        }
        Some(DiskSource::Root(root)) => {
            writeln!(xml, "      <source protocol='nbd' name='{}'>", root.name)?;
            writeln!(
                xml,
                "        <host transport='unix' socket='{CACHE_SOCKET}'/>"
            )?;
            writeln!(xml, "        <reconnect delay='{RECONNECT_DELAY_S}'/>")?;
            write_origins(xml, &root.origins, "        ")?;
            writeln!(xml, "      </source>")?;
        }
    }
    writeln!(xml, "      <target dev='{target}' bus='virtio'/>")?;
    writeln!(xml, "      <serial>{serial}</serial>")?;
    if serial != VOLUME {
        writeln!(xml, "      <readonly/>")?;
    }
    writeln!(xml, "    </disk>")
}

fn write_origins(xml: &mut String, origins: &[Endpoint], indent: &str) -> std::fmt::Result {
    for origin in origins {
        let url = origin.to_string();
        writeln!(xml, "{indent}<origin url='{}'/>", escape(url.as_str()))?;
    }
    Ok(())
}

/// Text of a child that has neither attributes nor children, through `read`.
fn leaf<T, E: std::fmt::Display>(
    parent: &Element,
    name: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, DomainXmlError> {
    let element = parent.child(name)?;
    element.only_text(&[])?;
    read(element.text()?).map_err(|error| element.wrong(format!("cannot be taken: {error}")))
}

fn whole_number(text: &str, most: u64) -> Result<u64, String> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("write a whole number from 1 to {most}"))
}

fn mebibytes(element: &Element) -> Result<u64, DomainXmlError> {
    element.only_text(&["unit"])?;
    element.attribute_is("unit", "MiB")?;
    whole_number(element.text()?, MAX_MEMORY_MIB).map_err(|reason| element.wrong(reason))
}

fn parse_uuid(text: &str) -> Result<String, &'static str> {
    let groups: Vec<&str> = text.split('-').collect();
    let fits = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .flat_map(|group| group.bytes())
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    fits.then(|| text.to_owned())
        .ok_or("write a UUID as 8-4-4-4-12 lower-case hex digits")
}

fn parse_os(os: &Element) -> Result<(Digest, Digest, String), DomainXmlError> {
    os.only(&[], &["type", "kernel", "initrd", "cmdline"], &[])?;
    let kind = os.child("type")?;
    kind.only_text(&["arch", "machine"])?;
    kind.attribute_is("arch", "x86_64")?;
    kind.attribute_is("machine", MACHINE)?;
    if kind.text()? != "hvm" {
        return Err(kind.wrong("is not \"hvm\""));
    }
    let command_line = parse_command_line(os)?;
    Ok((
        leaf(os, "kernel", str::parse::<Digest>)?,
        leaf(os, "initrd", str::parse::<Digest>)?,
        command_line,
    ))
}

/// One line; empty without `<cmdline>`.
fn parse_command_line(os: &Element) -> Result<String, DomainXmlError> {
    match os.child_if_any("cmdline") {
        Some(element) => {
            element.only_text(&[])?;
            let line = element.text().unwrap_or_default();
            if line.len() > MAX_COMMAND_LINE_BYTES || line.contains(char::is_control) {
                return Err(element.wrong(format!(
                    "must be one line of at most {MAX_COMMAND_LINE_BYTES} bytes"
                )));
            }
            Ok(line.to_owned())
        }
        None => Ok(String::new()),
    }
}

fn parse_sysinfo(sysinfo: &Element) -> Result<(), DomainXmlError> {
    sysinfo.only(&["type"], &["entry"], &[])?;
    sysinfo.attribute_is("type", "fwcfg")?;
    sysinfo
        .child("entry")?
        .is_exactly(&[("name", IDENTITY_ENTRY), ("file", IDENTITY_FILE)])
}

type Devices = (DiskSource, DiskSource, Option<NbdSource>, Option<String>);

fn parse_devices(devices: &Element) -> Result<Devices, DomainXmlError> {
    devices.only(
        &[],
        &["interface", "serial", "console", "memballoon", "rng"],
        &["disk"],
    )?;
    let (mut layer, mut root, mut modules, mut volume) = (false, None, None, None);
    for disk in devices.children("disk") {
        let (serial, source) = parse_disk(disk)?;
        let twice = match (serial, source) {
            ("estive-layer", None) => std::mem::replace(&mut layer, true),
            ("estive-root", Some(source)) => root.replace(source).is_some(),
            (VOLUME, Some(DiskSource::Nbd(source))) => volume.replace(source).is_some(),
            (VOLUME, _) => return Err(disk.wrong("of the volume is not of the type network")),
            (_, Some(source)) => modules.replace(source).is_some(),
            (_, None) => return Err(disk.wrong("names the layer's file, which is for vda only")),
        };
        if twice {
            return Err(disk.wrong(format!("with the serial {serial:?} comes twice")));
        }
    }
    if !layer {
        return Err(devices.wrong("lacks the <disk> with the serial \"estive-layer\""));
    }
    let lacks =
        |serial: &str| devices.wrong(format!("lacks the <disk> with the serial {serial:?}"));
    for (name, attribute) in [
        ("serial", ("type", "unix")),
        ("console", ("type", "pty")),
        ("memballoon", ("model", "none")),
        ("rng", ("model", "virtio")),
    ] {
        if let Some(device) = devices.child_if_any(name) {
            device.is_exactly(&[attribute])?;
        }
    }
    let mac = devices
        .child_if_any("interface")
        .map(parse_interface)
        .transpose()?;
    Ok((
        root.ok_or_else(|| lacks("estive-root"))?,
        modules.ok_or_else(|| lacks("estive-modules"))?,
        volume,
        mac,
    ))
}

/// Serial and source; no source means the layer's own file.
fn parse_disk(disk: &Element) -> Result<(&str, Option<DiskSource>), DomainXmlError> {
    disk.only(
        &["type", "device"],
        &["driver", "source", "target", "serial", "readonly"],
        &[],
    )?;
    if disk.attribute_if_any("device").is_some() {
        disk.attribute_is("device", "disk")?;
    }
    if let Some(driver) = disk.child_if_any("driver") {
        driver.is_exactly(&[("name", "qemu"), ("type", "raw")])?;
    }
    let serial = disk.child("serial")?;
    serial.only_text(&[])?;
    match (disk.child_if_any("readonly"), serial.text()? == VOLUME) {
        (Some(readonly), false) => readonly.is_exactly(&[])?,
        (None, true) => {}
        (Some(_), true) => return Err(disk.wrong("is a volume and <readonly/>")),
        (None, false) => {
            return Err(
                disk.wrong("lacks <readonly/>; all disks of a clone but its volume are read-only")
            );
        }
    }
    let device = match serial.text()? {
        "estive-layer" => "vda",
        "estive-root" => "vdb",
        "estive-modules" => "vdc",
        VOLUME => "vdd",
        _ => {
            return Err(
                serial.wrong(
                    "is none of \"estive-layer\", \"estive-root\", \"estive-modules\" and \"estive-volume\"",
                )
            );
        }
    };
    let target = disk.child("target")?;
    target.only(&["dev", "bus"], &[], &[])?;
    target.attribute_is("dev", device)?;
    if target.attribute_if_any("bus").is_some() {
        target.attribute_is("bus", "virtio")?;
    }
    let source = disk.child("source")?;
    let source = match disk.attribute("type")? {
        "file" => {
            source.only(&["file"], &[], &[])?;
            match (device, source.attribute("file")?) {
                ("vda", LAYER_FILE) => None,
                ("vda", _) => return Err(source.wrong("of the layer is not file=\"layer\"")),
                (_, file) => Some(DiskSource::File(
                    Digest::new(file).map_err(|error| source.wrong(error))?,
                )),
            }
        }
        "network" if device != "vda" => Some(parse_network(source)?),
        _ => return Err(disk.wrong("has a type that is not understood for this disk")),
    };
    Ok((serial.text()?, source))
}

/// A sealed root by the host's cache, or any other network block device.
fn parse_network(source: &Element) -> Result<DiskSource, DomainXmlError> {
    source.attribute_is("protocol", "nbd")?;
    source
        .child("reconnect")?
        .is_exactly(&[("delay", &RECONNECT_DELAY_S.to_string())])?;
    match source.child("host")?.attribute_if_any("transport") {
        Some(_) => parse_root(source).map(DiskSource::Root),
        None => parse_nbd(source).map(DiskSource::Nbd),
    }
}

fn parse_root(source: &Element) -> Result<RootSource, DomainXmlError> {
    source.only(&["protocol", "name"], &["host", "reconnect"], &["origin"])?;
    source
        .child("host")?
        .is_exactly(&[("transport", "unix"), ("socket", CACHE_SOCKET)])?;
    let name = source.attribute("name")?;
    let name = Digest::new(name).map_err(|error| source.wrong(error))?;
    let origins = parse_origins(source)?;
    Ok(RootSource { name, origins })
}

/// The `<origin>`s of a root or a live reference.
fn parse_origins(source: &Element) -> Result<Vec<Endpoint>, DomainXmlError> {
    let mut origins = Vec::new();
    for origin in source.children("origin") {
        origin.only(&["url"], &[], &[])?;
        match Endpoint::parse(origin.attribute("url")?) {
            Ok(endpoint @ Endpoint::Tls { .. }) => origins.push(endpoint),
            // Whoever describes a domain has no word on what the host's processes connect to on it.
            Ok(Endpoint::Unix(_)) => {
                return Err(origin.wrong("names a unix socket; it comes by https"));
            }
            Err(error) => return Err(origin.wrong(error)),
        }
    }
    if !(1..=MAX_ORIGINS).contains(&origins.len()) {
        return Err(source.wrong(format!("needs 1 to {MAX_ORIGINS} <origin>s")));
    }
    Ok(origins)
}

fn parse_live(metadata: &Element) -> Result<LiveSource, DomainXmlError> {
    metadata.only(&[], &["live"], &[])?;
    let live = metadata.child("live")?;
    live.only(&["name", "door"], &[], &["origin"])?;
    let reference = live.attribute("name")?;
    if !is_live_name(reference) {
        return Err(live.wrong("has a name that is not 1 to 63 letters, digits and -"));
    }
    let door: SocketAddrV4 = live
        .attribute("door")?
        .parse()
        .map_err(|_| live.wrong("has a door that is not ADDRESS:PORT"))?;
    Ok(LiveSource {
        reference: reference.to_owned(),
        door,
        origins: parse_origins(live)?,
    })
}

fn parse_nbd(source: &Element) -> Result<NbdSource, DomainXmlError> {
    source.only(&["protocol", "name", "tls"], &["host", "reconnect"], &[])?;
    let export = source.attribute("name")?;
    if !plain(export, 200, "._-:@/") {
        return Err(source.wrong("has a name that is not 1 to 200 letters, digits and ._-:@/"));
    }
    let tls = match source.attribute_if_any("tls") {
        Some("yes") => true,
        Some("no") | None => false,
        Some(_) => return Err(source.wrong("has tls that is neither \"yes\" nor \"no\"")),
    };
    let host = source.child("host")?;
    host.only(&["name", "port"], &[], &[])?;
    let name = host.attribute("name")?;
    if !plain(name, 255, ".-:") {
        return Err(host.wrong("has a name that is neither an address nor a host's name"));
    }
    let port = whole_number(host.attribute("port")?, u64::from(u16::MAX))
        .map_err(|reason| host.wrong(reason))?;
    Ok(NbdSource {
        host: name.to_owned(),
        port: port as u16,
        export: export.to_owned(),
        tls,
    })
}

fn plain(text: &str, most: usize, others: &str) -> bool {
    (1..=most).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn parse_interface(interface: &Element) -> Result<String, DomainXmlError> {
    interface.only(&["type"], &["mac", "source", "model"], &[])?;
    interface.attribute_is("type", "bridge")?;
    interface
        .child("source")?
        .is_exactly(&[("bridge", HOST_BRIDGE)])?;
    interface
        .child("model")?
        .is_exactly(&[("type", "virtio")])?;
    parse_mac(interface.child("mac")?)
}

fn parse_mac(mac: &Element) -> Result<String, DomainXmlError> {
    mac.only(&["address"], &[], &[])?;
    let address = mac.attribute("address")?;
    let parts: Vec<&str> = address.split(':').collect();
    let hex = |part: &&str| {
        part.len() == 2
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let group = parts
        .first()
        .and_then(|part| u8::from_str_radix(part, 16).ok())
        .is_none_or(|byte| byte & 1 == 1);
    if parts.len() != 6 || !parts.iter().all(hex) || group {
        return Err(mac.wrong("is not a single machine's address in lower case, aa:bb:cc:dd:ee:ff"));
    }
    Ok(address.to_owned())
}

/// Reads `<status><state>running</state></status>`.
pub fn parse_status(text: &str) -> Result<DomainState, DomainXmlError> {
    let status = Element::read(text)?;
    if status.name != "status" {
        return Err(status.wrong("is not <status>"));
    }
    status.only(&[], &["state"], &[])?;
    leaf(&status, "state", str::parse)
}

#[cfg(test)]
mod tests;

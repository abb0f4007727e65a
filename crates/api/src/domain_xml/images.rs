//! An ordinary machine's description: libvirt's domain XML as a usual host writes it, with disks in image files.
//!
//! What decides how the machine runs is obeyed or refused by name. What a libvirt host writes beside that by default and
//! Estive gives in its own way (addresses, controllers, console, graphics, clock, processor model) is set aside:
//! [`SET_ASIDE`] and [`SET_ASIDE_DEVICES`].

use super::tree::Element;
use super::{
    Accelerator, DomainXml, DomainXmlError, HOST_BRIDGE, MACHINE, MAX_CPUS, MAX_MEMORY_MIB, leaf,
    parse_command_line, parse_mac, parse_uuid, plain, whole_number,
};
use estive_model::{Digest, DomainName, ImageFormat};
use quick_xml::escape::escape;
use std::fmt::Write;

/// Beneath `<domain>`, taken and not looked at.
pub const SET_ASIDE: [&str; 9] = [
    "metadata",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "pm",
    "resource",
];
/// Beneath `<devices>`, taken and not looked at.
pub const SET_ASIDE_DEVICES: [&str; 14] = [
    "emulator",
    "controller",
    "input",
    "graphics",
    "video",
    "audio",
    "sound",
    "channel",
    "redirdev",
    "watchdog",
    "memballoon",
    "rng",
    "serial",
    "console",
];
/// Each has a slot of its own.
const MAX_DISKS: usize = 8;
const MAX_PATH_BYTES: usize = 1024;
/// VIRTIO 1.2, 5.2.6: `VIRTIO_BLK_T_GET_ID`.
const MAX_SERIAL_BYTES: usize = 20;
/// Serials that begin so are a clone's.
const OURS: &str = "estive-";

/// A domain's description, in either form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Description {
    /// A clone.
    Clone(DomainXml),
    /// An ordinary machine.
    Images(ImagesXml),
}

/// A disk in an image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDiskXml {
    /// Absolute, without `.`, `..` and doubled `/`.
    pub path: String,
    /// Always said.
    pub format: ImageFormat,
    /// `<readonly/>`.
    pub read_only: bool,
    /// `discard='unmap'`.
    pub discard: bool,
    /// What the guest reads as its serial.
    pub serial: Option<String>,
}

/// A kernel by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelXml {
    /// As [`ImageDiskXml::path`].
    pub kernel: String,
    /// Likewise.
    pub initrd: Option<String>,
    /// One line, may be empty.
    pub command_line: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceXml {
    /// Lower case.
    pub mac: String,
    /// The bridge that it asks for; [`HOST_BRIDGE`] for the host's.
    pub bridge: String,
}

/// An ordinary machine's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesXml {
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
    /// Without one the first disk is booted.
    pub kernel: Option<KernelXml>,
    /// 1 to 8, in the order of their targets.
    pub disks: Vec<ImageDiskXml>,
    /// If it has one.
    pub interface: Option<InterfaceXml>,
}

impl Description {
    /// Reads either form: a clone's disks have serials that say so.
    pub fn parse(text: &str) -> Result<Self, DomainXmlError> {
        let domain = Element::read(text)?;
        let serials = domain
            .children("devices")
            .flat_map(|devices| devices.children("disk"))
            .filter_map(|disk| disk.child_if_any("serial"));
        let mut ours =
            serials.filter(|serial| serial.text().is_ok_and(|text| text.starts_with(OURS)));
        match ours.next() {
            Some(_) => DomainXml::parse(text).map(Self::Clone),
            None => ImagesXml::read(&domain).map(Self::Images),
        }
    }

    /// The domain.
    pub fn name(&self) -> &DomainName {
        match self {
            Self::Clone(xml) => &xml.name,
            Self::Images(xml) => &xml.name,
        }
    }

    /// Memory, in MiB.
    pub fn memory_mib(&self) -> u64 {
        match self {
            Self::Clone(xml) => xml.memory_mib,
            Self::Images(xml) => xml.memory_mib,
        }
    }

    /// Virtual processors.
    pub fn cpus(&self) -> u32 {
        match self {
            Self::Clone(xml) => xml.cpus,
            Self::Images(xml) => xml.cpus,
        }
    }

    /// Whether it has a network interface.
    pub fn has_interface(&self) -> bool {
        match self {
            Self::Clone(xml) => xml.mac.is_some(),
            Self::Images(xml) => xml.interface.is_some(),
        }
    }

    /// Digests of all shared files that it names.
    pub fn digests(&self) -> Vec<&Digest> {
        match self {
            Self::Clone(xml) => xml.digests(),
            Self::Images(_) => Vec::new(),
        }
    }

    /// The clone's form, if it is one.
    pub fn clone_xml(&self) -> Option<&DomainXml> {
        match self {
            Self::Clone(xml) => Some(xml),
            Self::Images(_) => None,
        }
    }
}

impl ImagesXml {
    /// Paths of all files that it names.
    pub fn paths(&self) -> Vec<&str> {
        let boot = self.kernel.iter();
        let boot = boot.flat_map(|boot| {
            [Some(&boot.kernel), boot.initrd.as_ref()]
                .into_iter()
                .flatten()
        });
        boot.chain(self.disks.iter().map(|disk| &disk.path))
            .map(String::as_str)
            .collect()
    }

    fn read(domain: &Element) -> Result<Self, DomainXmlError> {
        if domain.name != "domain" {
            return Err(domain.wrong("is not <domain>"));
        }
        let mut known = vec![
            "name",
            "uuid",
            "memory",
            "currentMemory",
            "vcpu",
            "os",
            "devices",
        ];
        known.extend(SET_ASIDE);
        // `id` stands in what libvirt prints of a running one.
        domain.only(&["type", "id"], &known, &[])?;
        let accelerator = match domain.attribute("type")? {
            "qemu" => Accelerator::Emulation,
            "kvm" => Accelerator::Kvm,
            _ => return Err(domain.wrong("has a type that is neither \"qemu\" nor \"kvm\"")),
        };
        let memory_mib = mebibytes(domain.child("memory")?)?;
        if let Some(current) = domain.child_if_any("currentMemory")
            && mebibytes(current)? != memory_mib
        {
            return Err(current.wrong("differs from <memory>; a balloon is not used"));
        }
        let vcpu = domain.child("vcpu")?;
        vcpu.only_text(&["placement"])?;
        let cpus = whole_number(vcpu.text()?, u64::from(MAX_CPUS))
            .map_err(|reason| vcpu.wrong(reason))? as u32;
        let kernel = read_os(domain.child("os")?)?;
        let devices = domain.child("devices")?;
        let mut repeated = vec!["disk"];
        repeated.extend(SET_ASIDE_DEVICES);
        devices.only(&[], &["interface"], &repeated)?;
        Ok(Self {
            accelerator,
            name: leaf(domain, "name", str::parse::<DomainName>)?,
            uuid: leaf(domain, "uuid", parse_uuid)?,
            memory_mib,
            cpus,
            kernel,
            disks: read_disks(devices)?,
            interface: devices
                .child_if_any("interface")
                .map(read_interface)
                .transpose()?,
        })
    }

    /// Writes the description; [`Description::parse`] reads it back the same.
    pub fn to_xml(&self) -> String {
        let mut xml = String::new();
        // Writing into a string cannot fail.
        let _ = self.write_to(&mut xml);
        xml
    }

    fn write_to(&self, xml: &mut String) -> std::fmt::Result {
        writeln!(xml, "<domain type='{}'>", self.accelerator.word())?;
        writeln!(xml, "  <name>{}</name>", self.name)?;
        writeln!(xml, "  <uuid>{}</uuid>", escape(self.uuid.as_str()))?;
        writeln!(xml, "  <memory unit='MiB'>{}</memory>", self.memory_mib)?;
        writeln!(xml, "  <vcpu>{}</vcpu>", self.cpus)?;
        writeln!(xml, "  <os>")?;
        writeln!(
            xml,
            "    <type arch='x86_64' machine='{MACHINE}'>hvm</type>"
        )?;
        match &self.kernel {
            Some(boot) => {
                writeln!(xml, "    <kernel>{}</kernel>", escape(&*boot.kernel))?;
                if let Some(initrd) = &boot.initrd {
                    writeln!(xml, "    <initrd>{}</initrd>", escape(&**initrd))?;
                }
                if !boot.command_line.is_empty() {
                    let line = escape(&*boot.command_line);
                    writeln!(xml, "    <cmdline>{line}</cmdline>")?;
                }
            }
            None => writeln!(xml, "    <boot dev='hd'/>")?,
        }
        writeln!(xml, "  </os>\n  <devices>")?;
        for (disk, letter) in self.disks.iter().zip('a'..) {
            let format = disk.format.word();
            let discard = if disk.discard { " discard='unmap'" } else { "" };
            writeln!(xml, "    <disk type='file' device='disk'>")?;
            writeln!(
                xml,
                "      <driver name='qemu' type='{format}' cache='none'{discard}/>"
            )?;
            writeln!(xml, "      <source file='{}'/>", escape(&*disk.path))?;
            writeln!(xml, "      <target dev='vd{letter}' bus='virtio'/>")?;
            if let Some(serial) = &disk.serial {
                writeln!(xml, "      <serial>{}</serial>", escape(&**serial))?;
            }
            if disk.read_only {
                writeln!(xml, "      <readonly/>")?;
            }
            writeln!(xml, "    </disk>")?;
        }
        if let Some(interface) = &self.interface {
            writeln!(xml, "    <interface type='bridge'>")?;
            writeln!(xml, "      <mac address='{}'/>", escape(&*interface.mac))?;
            let bridge = escape(&*interface.bridge);
            writeln!(xml, "      <source bridge='{bridge}'/>")?;
            writeln!(xml, "      <model type='virtio'/>")?;
            writeln!(xml, "    </interface>")?;
        }
        writeln!(xml, "  </devices>\n</domain>")
    }
}

/// In libvirt's units; without one, KiB.
fn mebibytes(element: &Element) -> Result<u64, DomainXmlError> {
    element.only_text(&["unit"])?;
    let in_a_mebibyte = match element.attribute_if_any("unit") {
        None | Some("KiB" | "k") => 1024,
        Some("MiB" | "M") => 1,
        Some("GiB" | "G") => {
            let number = whole_number(element.text()?, MAX_MEMORY_MIB >> 10);
            return number
                .map(|gib| gib << 10)
                .map_err(|reason| element.wrong(reason));
        }
        Some(_) => return Err(element.wrong("has a unit that is none of KiB, MiB and GiB")),
    };
    let number = whole_number(element.text()?, MAX_MEMORY_MIB * in_a_mebibyte)
        .map_err(|reason| element.wrong(reason))?;
    match number % in_a_mebibyte {
        0 => Ok(number / in_a_mebibyte),
        _ => Err(element.wrong("is not a whole number of MiB")),
    }
}

fn read_os(os: &Element) -> Result<Option<KernelXml>, DomainXmlError> {
    os.only(&[], &["type", "kernel", "initrd", "cmdline", "boot"], &[])?;
    let kind = os.child("type")?;
    kind.only_text(&["arch", "machine"])?;
    if kind.attribute_if_any("arch").is_some() {
        kind.attribute_is("arch", "x86_64")?;
    }
    // All run as MACHINE, which every host has.
    if let Some(machine) = kind.attribute_if_any("machine")
        && machine != "q35"
        && !machine.starts_with("pc-q35-")
    {
        return Err(kind.wrong("has a machine that is not q35; only that is run"));
    }
    if kind.text()? != "hvm" {
        return Err(kind.wrong("is not \"hvm\""));
    }
    if let Some(boot) = os.child_if_any("boot") {
        boot.is_exactly(&[("dev", "hd")])?;
    }
    let path_in = |name: &str| {
        let element = os.child_if_any(name);
        element
            .map(|element| {
                element.only_text(&[])?;
                path(element, element.text()?)
            })
            .transpose()
    };
    let command_line = parse_command_line(os)?;
    match (path_in("kernel")?, path_in("initrd")?) {
        (Some(kernel), initrd) => Ok(Some(KernelXml {
            kernel,
            initrd,
            command_line,
        })),
        (None, None) if command_line.is_empty() => Ok(None),
        (None, _) => Err(os.wrong("has an initrd or a cmdline and no <kernel>")),
    }
}

/// Absolute, and written in the one way that names every file once.
fn path(element: &Element, path: &str) -> Result<String, DomainXmlError> {
    let fits = path.len() <= MAX_PATH_BYTES
        && !path.contains(char::is_control)
        && path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
        });
    match fits {
        true => Ok(path.to_owned()),
        false => Err(element.wrong(format!(
            "names a file by something else than an absolute path of at most {MAX_PATH_BYTES} bytes without \".\", \"..\" \
             and \"//\""
        ))),
    }
}

fn read_disks(devices: &Element) -> Result<Vec<ImageDiskXml>, DomainXmlError> {
    let mut disks: Vec<(String, ImageDiskXml)> = Vec::new();
    for element in devices.children("disk") {
        let (target, disk) = read_disk(element)?;
        if disks.iter().any(|(other, _)| *other == target) {
            return Err(element.wrong(format!("with the target {target} comes twice")));
        }
        if disks.iter().any(|(_, other)| other.path == disk.path) {
            return Err(element.wrong("names an image that another disk of this domain has"));
        }
        disks.push((target, disk));
    }
    disks.sort_by(|one, other| one.0.cmp(&other.0));
    match disks.len() {
        1..=MAX_DISKS => Ok(disks.into_iter().map(|(_, disk)| disk).collect()),
        _ => Err(devices.wrong(format!("needs 1 to {MAX_DISKS} <disk>s"))),
    }
}

/// Its target, and the disk.
fn read_disk(disk: &Element) -> Result<(String, ImageDiskXml), DomainXmlError> {
    disk.attribute_is("type", "file")?;
    if disk.attribute_if_any("device").is_some() {
        disk.attribute_is("device", "disk")?;
    }
    let known = ["driver", "source", "target", "serial", "readonly"];
    let set_aside = ["address", "alias", "backingStore", "boot"];
    disk.only(&["type", "device"], &[&known[..], &set_aside].concat(), &[])?;
    if let Some(backing) = disk.child_if_any("backingStore") {
        backing.is_exactly(&[])?;
    }
    let driver = disk.child("driver")?;
    driver.only(&["name", "type", "cache", "discard", "io"], &[], &[])?;
    driver.attribute_is("name", "qemu")?;
    let format = match driver.attribute("type")? {
        "raw" => ImageFormat::Raw,
        "qcow2" => ImageFormat::Qcow2,
        _ => return Err(driver.wrong("has a type that is neither \"raw\" nor \"qcow2\"")),
    };
    if !matches!(
        driver.attribute_if_any("cache"),
        None | Some("none" | "default")
    ) {
        // Another host must read what this one wrote.
        driver.attribute_is("cache", "none")?;
    }
    let discard = match driver.attribute_if_any("discard") {
        Some("unmap") => true,
        None | Some("ignore") => false,
        Some(_) => {
            return Err(driver.wrong("has discard that is neither \"unmap\" nor \"ignore\""));
        }
    };
    let source = disk.child("source")?;
    source.only(&["file", "index"], &[], &[])?;
    let target = disk.child("target")?;
    target.only(&["dev", "bus"], &[], &[])?;
    target.attribute_is("bus", "virtio")?;
    let device = target.attribute("dev")?;
    let is_virtio = device
        .strip_prefix("vd")
        .is_some_and(|rest| matches!(rest.as_bytes(), [b'a'..=b'z']));
    if !is_virtio {
        return Err(target.wrong("has a dev that is not vda to vdz"));
    }
    let serial = match disk.child_if_any("serial") {
        Some(serial) => {
            serial.only_text(&[])?;
            let text = serial.text()?;
            if !plain(text, MAX_SERIAL_BYTES, "._-") {
                return Err(serial.wrong(format!(
                    "is not 1 to {MAX_SERIAL_BYTES} letters, digits and ._-"
                )));
            }
            Some(text.to_owned())
        }
        None => None,
    };
    if let Some(readonly) = disk.child_if_any("readonly") {
        readonly.is_exactly(&[])?;
    }
    let disk = ImageDiskXml {
        path: path(source, source.attribute("file")?)?,
        format,
        read_only: disk.child_if_any("readonly").is_some(),
        discard,
        serial,
    };
    Ok((device.to_owned(), disk))
}

fn read_interface(interface: &Element) -> Result<InterfaceXml, DomainXmlError> {
    interface.only(
        &["type"],
        &["mac", "source", "model", "address", "alias", "target"],
        &[],
    )?;
    interface.attribute_is("type", "bridge")?;
    let source = interface.child("source")?;
    source.only(&["bridge"], &[], &[])?;
    let bridge = source.attribute("bridge")?;
    if bridge != HOST_BRIDGE && !plain(bridge, 15, "._-") {
        return Err(source.wrong("has a bridge that is not a name of 1 to 15 characters"));
    }
    interface
        .child("model")?
        .is_exactly(&[("type", "virtio")])?;
    Ok(InterfaceXml {
        mac: parse_mac(interface.child("mac")?)?,
        bridge: bridge.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `virsh dumpxml` gives it, shortened where it repeats itself.
    const USUAL: &str = r#"<domain type='kvm' id='3'>
  <name>shop</name>
  <uuid>8d2f0a3e-0000-4000-8000-00000000000a</uuid>
  <metadata><os xmlns='x'/></metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-8.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough' check='none'/>
  <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/></clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <pm><suspend-to-mem enabled='no'/></pm>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/srv/images/shop data.qcow2' index='1'/>
      <backingStore/>
      <target dev='vdb' bus='virtio'/>
      <serial>DATA-1</serial>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/images/shop.raw'/>
      <target dev='vda' bus='virtio'/>
      <readonly/>
    </disk>
    <controller type='usb' index='0'/>
    <controller type='pci' index='0'/>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'/>
    <channel type='unix'/>
    <graphics type='vnc'/>
    <video/>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"#;

    fn usual() -> ImagesXml {
        match Description::parse(USUAL).unwrap() {
            Description::Images(xml) => xml,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_libvirt_host_writes_is_read_and_round_trips() {
        let xml = usual();
        assert_eq!((xml.memory_mib, xml.cpus), (2048, 2));
        assert_eq!(
            xml.paths(),
            ["/srv/images/shop.raw", "/srv/images/shop data.qcow2"]
        );
        let disk = &xml.disks[1];
        assert!(disk.discard && !disk.read_only && xml.disks[0].read_only);
        assert_eq!(disk.format, ImageFormat::Qcow2);
        assert_eq!(disk.serial.as_deref(), Some("DATA-1"));
        assert_eq!(xml.interface.as_ref().unwrap().bridge, "br0");
        assert_eq!(xml.kernel, None);
        let again = Description::parse(&xml.to_xml()).unwrap();
        assert_eq!(again, Description::Images(xml.clone()));
        let with_kernel = ImagesXml {
            kernel: Some(KernelXml {
                kernel: "/srv/images/vmlinuz <&>".into(),
                initrd: Some("/srv/images/initrd".into()),
                command_line: "root=/dev/vda x=\"<&>'\"".into(),
            }),
            interface: None,
            ..xml
        };
        let again = Description::parse(&with_kernel.to_xml()).unwrap();
        assert_eq!(again, Description::Images(with_kernel));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_name() {
        let shop = "/srv/images/shop.raw";
        let long = format!("/{}", "a/".repeat(600));
        let disk = "<disk type='file' device='disk'>\n      <driver name='qemu' type='raw'/>";
        for (from, to, words) in [
            (shop, "shop.raw", "absolute path"),
            (shop, "/srv/images/../shadow", "absolute path"),
            (shop, "/srv//images/x", "absolute path"),
            (shop, "/srv/images/./x", "absolute path"),
            (shop, "/srv/images/", "absolute path"),
            (shop, "/srv/images/a&#10;b", "absolute path"),
            (shop, &long, "absolute path"),
            (shop, "/srv/images/shop data.qcow2", "another disk"),
            ("type='raw'", "type='vmdk'", "neither \"raw\""),
            ("type='raw'", "type='raw' cache='writeback'", "cache"),
            ("type='raw'", "type='raw' copy_on_read='on'", "copy_on_read"),
            ("dev='vda'", "dev='vdb'", "twice"),
            ("dev='vda'", "dev='sda'", "vda to vdz"),
            ("dev='vda' bus='virtio'", "dev='vda' bus='sata'", "bus"),
            (
                disk,
                &disk.replacen("device='disk'", "device='cdrom'", 1),
                "device",
            ),
            (
                disk,
                &disk.replacen("type='file'", "type='block'", 1),
                "type",
            ),
            (
                "<backingStore/>",
                "<backingStore><x/></backingStore>",
                "<x>",
            ),
            ("<boot dev='hd'/>", "<boot dev='network'/>", "dev"),
            ("<boot dev='hd'/>", "<loader>/x</loader>", "<loader>"),
            ("<boot dev='hd'/>", "<cmdline>a</cmdline>", "no <kernel>"),
            ("machine='pc-q35-8.2'", "machine='pc-i440fx-8.2'", "q35"),
            ("<controller type='usb'", "<hostdev type='usb'", "<hostdev>"),
            ("<pm>", "<seclabel/><pm>", "<seclabel>"),
            ("'KiB'>2097152</memory", "'KiB'>2097153</memory", "MiB"),
            ("'KiB'>2097152</memory", "'TiB'>1</memory", "unit"),
            ("type='kvm' id", "type='xen' id", "type"),
            ("DATA-1", "DATA,read-only=off", "<serial>"),
            ("bridge='br0'", "bridge='br0,x'", "bridge"),
            ("52:54", "53:54", "<mac>"),
        ] {
            assert!(USUAL.contains(from), "{from}");
            let error = Description::parse(&USUAL.replacen(from, to, 1)).expect_err(to);
            assert!(error.reason.contains(words), "{to:.80}: {error}");
        }
        let disks: String = ('a'..='i')
            .map(|letter| {
                format!("<disk type='file'><driver name='qemu' type='raw'/><source file='/d/{letter}'/><target dev='vd{letter}' bus='virtio'/></disk>")
            })
            .collect();
        let devices = USUAL.find("<devices>").unwrap();
        for disks in [disks.as_str(), ""] {
            let text = format!("{}<devices>{disks}</devices></domain>", &USUAL[..devices]);
            let error = Description::parse(&text).unwrap_err();
            assert!(error.reason.contains("1 to 8"), "{error}");
        }
    }

    #[test]
    fn a_clone_is_told_by_its_serials() {
        let ours = USUAL.replace("DATA-1", "estive-layer");
        let error = Description::parse(&ours).unwrap_err();
        assert!(
            error.reason.contains("not known here") || error.reason.contains("subset"),
            "{error}"
        );
        assert!(Description::parse("<domain/>").is_err());
        assert!(Description::parse("<status/>").is_err());
    }
}

//! A domain as QEMU's command line. Pure; only what QEMU 7.2 also knows.

use super::directory::Directory;
use super::{QemuConfig, UserNetwork};
use estive_model::{BlockSource, DomainName, DomainSpec, Interface, NbdSource};
use std::fmt::Write as _;
use std::path::Path;

/// Versioned machine type, the oldest that every supported QEMU has: a domain can move between hosts with
/// different QEMUs.
pub const MACHINE: &str = "pc-q35-7.2";

/// How long writes wait for a storage host that is gone, in seconds. What fails then fails for good: the guest's file
/// system takes it for a broken disk.
const VOLUME_RECONNECT_DELAY_S: u32 = 300;

/// Firmware that starts a kernel without probing for disks and option ROMs. Every host must use the same one, as its
/// size is part of the migrated state.
const FIRMWARE: &str = "qboot.rom";

/// How long a server on this host is waited for at start, in seconds: it may just be being started again.
const LOCAL_OPEN_S: u32 = 5;

/// The command line (without the emulator itself) of `spec`. Its first two words are `-pidfile` and the domain's pid
/// file: this is how a running instance is recognised. `incoming`: wait for a stream that QMP announces later.
///
/// Every instance has the same devices at the same addresses whatever its spec (but for a missing interface), so
/// that states can be exchanged between clones; and its processors are halted.
pub fn arguments(spec: &DomainSpec, config: &QemuConfig, incoming: bool) -> Vec<String> {
    let directory = Directory::of(&config.runtime_dir, &spec.name);
    let mut line = Line(Vec::new());
    let size = (spec.memory_mib, spec.cpus);
    machine(
        &mut line,
        &directory,
        (&spec.name, &spec.uuid),
        size,
        config,
    );
    line.pair("-bios", FIRMWARE);
    line.pair("-kernel", text(&spec.kernel.path));
    line.pair("-initrd", text(&spec.initramfs.path));
    line.pair("-append", &spec.command_line);
    credentials(&mut line, config);
    channels(&mut line, &directory);
    devices(&mut line, spec, config);
    if spec
        .identity
        .as_ref()
        .is_some_and(|identity| !identity.is_empty())
    {
        line.pair(
            "-fw_cfg",
            format!(
                "name=opt/org.estive/identity,file={}",
                path(&directory.identity_file())
            ),
        );
    }
    if incoming {
        line.pair("-incoming", "defer");
    }
    line.0
}

/// What every machine begins with.
pub(super) fn machine(
    line: &mut Line,
    directory: &Directory,
    (name, uuid): (&DomainName, &str),
    (memory_mib, cpus): (u64, u32),
    config: &QemuConfig,
) {
    line.pair("-pidfile", text(&directory.pid()));
    line.pair("-name", escaped(name.as_str()));
    line.pair("-uuid", uuid);
    line.word("-nodefaults").word("-no-user-config").word("-S");
    // The guest's power-off leaves the halted process standing, so that it can be told from a crash, also by an
    // agent that was not there when it happened.
    line.word("-no-shutdown");
    line.pair("-display", "none");
    line.pair(
        "-machine",
        format!(
            "{MACHINE},memory-backend=ram,graphics=off,hpet=off,usb=off,sata=off,smbus=off,vmport=off,dump-guest-core=off"
        ),
    );
    line.pair("-accel", config.accel.as_str());
    line.pair("-cpu", "max");
    line.pair("-smp", format!("cpus={cpus}"));
    line.pair("-m", format!("size={memory_mib}M"));
    line.pair(
        "-object",
        format!("memory-backend-ram,id=ram,size={memory_mib}M"),
    );
}

/// For streams and disks over TLS.
pub(super) fn credentials(line: &mut Line, config: &QemuConfig) {
    if let Some(credentials) = &config.credentials {
        for (id, endpoint) in [("tls-server", "server"), ("tls-client", "client")] {
            line.pair(
                "-object",
                format!(
                    "tls-creds-x509,id={id},endpoint={endpoint},verify-peer=yes,dir={}",
                    path(credentials)
                ),
            );
        }
    }
}

/// Monitor, console and the ports of the virtual serial controller.
pub(super) fn channels(line: &mut Line, directory: &Directory) {
    let socket =
        |id: &str, at: &Path| format!("socket,id={id},path={},server=on,wait=off", path(at));
    line.pair("-chardev", socket("qmp", &directory.qmp()));
    line.pair("-mon", "chardev=qmp,mode=control");
    let console = socket("console", &directory.console());
    let log = path(&directory.console_log());
    line.pair("-chardev", format!("{console},logfile={log},logappend=on"));
    line.pair("-serial", "chardev:console");
    line.pair(
        "-device",
        "virtio-serial-pci,id=serial,addr=0x4,max_ports=4",
    );
    let report = path(&directory.report());
    for (number, id, name, chardev) in [
        (
            1,
            "report",
            "org.estive.report",
            format!("file,id=report,path={report},append=on"),
        ),
        (
            2,
            "identity",
            "org.estive.identity",
            socket("identity", &directory.identity()),
        ),
        (
            3,
            "agent",
            "org.qemu.guest_agent.0",
            socket("agent", &directory.guest_agent()),
        ),
    ] {
        line.pair("-chardev", chardev);
        line.pair(
            "-device",
            format!("virtserialport,bus=serial.0,nr={number},chardev={id},name={name}"),
        );
    }
}

fn devices(line: &mut Line, spec: &DomainSpec, config: &QemuConfig) {
    network_and_randomness(line, spec.interface.as_ref(), config);
    let layer = BlockSource::File(spec.layer.clone());
    for (name, source, address) in [
        ("layer", &layer, "0x5"),
        ("root", &spec.root, "0x6"),
        ("modules", &spec.modules, "0x7"),
    ] {
        line.pair("-blockdev", blockdev(name, source, config));
        line.pair(
            "-device",
            format!(
                "virtio-blk-pci,drive={name},id={name}-disk,serial=estive-{name},addr={address}"
            ),
        );
    }
    if let Some(volume) = &spec.volume {
        line.pair("-blockdev", volume_blockdev(volume));
        // A full or broken volume is the guest's to see: it alone is harmed, and goes on.
        line.pair(
            "-device",
            "virtio-blk-pci,drive=volume,id=volume-disk,serial=estive-volume,addr=0x8,werror=report,rerror=report",
        );
    }
}

pub(super) fn network_and_randomness(
    line: &mut Line,
    interface: Option<&Interface>,
    config: &QemuConfig,
) {
    if let Some(interface) = interface {
        let backend = match &config.user_network {
            Some(network) => user_network(network),
            None => {
                let tap = escaped(&interface.tap);
                format!("tap,id=n0,ifname={tap},script=no,downscript=no")
            }
        };
        line.pair("-netdev", backend);
        let mac = escaped(&interface.mac);
        line.pair(
            "-device",
            format!("virtio-net-pci,netdev=n0,mac={mac},romfile=,addr=0x2"),
        );
    }
    line.pair("-object", "rng-random,id=rng,filename=/dev/urandom");
    line.pair("-device", "virtio-rng-pci,rng=rng,addr=0x3");
}

fn user_network(network: &UserNetwork) -> String {
    let UserNetwork {
        router,
        name_server,
        guest,
        ..
    } = network;
    let net = escaped(&network.network);
    let mut backend =
        format!("user,id=n0,net={net},host={router},dns={name_server},dhcpstart={guest}");
    for (here, there) in &network.forwards {
        // Writing to a string cannot fail.
        let _ = write!(backend, ",hostfwd=tcp:127.0.0.1:{here}-{guest}:{there}");
    }
    backend
}

fn blockdev(name: &str, source: &BlockSource, config: &QemuConfig) -> String {
    let common = format!("node-name={name},read-only=on");
    match source {
        BlockSource::File(file) => {
            format!(
                "driver=raw,{common},file.driver=file,file.filename={}",
                path(file)
            )
        }
        BlockSource::Nbd(nbd) => format!(
            "driver=nbd,{common},{}",
            nbd_server(nbd, config.nbd_reconnect_delay_s)
        ),
        BlockSource::LocalNbd { socket, export } => format!(
            "driver=nbd,{common},server.type=unix,server.path={},export={},reconnect-delay={},open-timeout={LOCAL_OPEN_S}",
            path(socket),
            escaped(export),
            config.nbd_reconnect_delay_s,
        ),
    }
}

/// A disk that is written to. What the guest discards is given back.
fn volume_blockdev(volume: &NbdSource) -> String {
    let server = nbd_server(volume, VOLUME_RECONNECT_DELAY_S);
    format!("driver=nbd,node-name=volume,read-only=off,discard=unmap,{server}")
}

fn nbd_server(nbd: &NbdSource, reconnect_delay_s: u32) -> String {
    let mut server = format!(
        "server.type=inet,server.host={},server.port={},export={},reconnect-delay={reconnect_delay_s}",
        escaped(&nbd.host),
        nbd.port,
        escaped(&nbd.export),
    );
    if nbd.tls {
        server.push_str(",tls-creds=tls-client");
    }
    server
}

pub(super) struct Line(pub(super) Vec<String>);

impl Line {
    pub(super) fn word(&mut self, word: &str) -> &mut Self {
        self.0.push(word.to_owned());
        self
    }

    pub(super) fn pair(&mut self, option: &str, value: impl AsRef<str>) {
        self.word(option).word(value.as_ref());
    }
}

/// A path as one word of the command line.
pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A path as a value in QEMU's `key=value,...`.
fn path(path: &Path) -> String {
    escaped(&text(path))
}

/// QEMU's `key=value,...`: a comma in a value is written twice, nothing else is special.
pub(super) fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::Checksummed;

    fn spec() -> DomainSpec {
        let file = |path: &str| Checksummed {
            path: path.into(),
            digest: None,
        };
        DomainSpec {
            name: DomainName::new("clone01").unwrap(),
            uuid: "6f2c4b1e-4c8e-4d8b-9f43-0c1f6a2f5a10".into(),
            memory_mib: 384,
            cpus: 2,
            kernel: file("/cache/vmlinuz"),
            initramfs: file("/cache/initramfs"),
            command_line: "console=ttyS0 quiet net.ifnames=0".into(),
            layer: "/state/clone01/layer".into(),
            root: BlockSource::Nbd(NbdSource {
                host: "10.77.0.5".into(),
                port: 10809,
                export: "sha256:aa".into(),
                tls: true,
            }),
            modules: BlockSource::File("/cache/modules.erofs".into()),
            volume: None,
            interface: Some(Interface {
                mac: "52:54:00:12:34:56".into(),
                bridge: "br0".into(),
                tap: "et-clone01".into(),
            }),
            identity: Some("{}".into()),
        }
    }

    /// One option with its value a line.
    fn drawn(arguments: &[String]) -> String {
        arguments
            .join("\n")
            .replace("\n-", "\u{0}-")
            .replace('\n', "  ")
            .replace('\u{0}', "\n")
    }

    #[test]
    fn the_command_line_of_a_clone() {
        let mut config = QemuConfig::new("/run/estive");
        config.credentials = Some("/etc/estive/tls".into());
        insta::assert_snapshot!(drawn(&arguments(&spec(), &config, true)));
    }

    #[test]
    fn a_root_is_read_from_the_hosts_own_cache() {
        let mut spec = spec();
        spec.root = BlockSource::LocalNbd {
            socket: "/state/a,b/cache.sock".into(),
            export: "0f0f".into(),
        };
        let line = arguments(&spec, &QemuConfig::new("/run/estive"), false);
        let root = "driver=nbd,node-name=root,read-only=on,server.type=unix,server.path=/state/a,,b/cache.sock,\
                    export=0f0f,reconnect-delay=60,open-timeout=5";
        assert!(line.iter().any(|word| word == root), "{line:?}");
    }

    #[test]
    fn a_name_cannot_become_an_option() {
        let mut spec = spec();
        spec.root = BlockSource::Nbd(NbdSource {
            host: "h,server.port=1".into(),
            port: 10809,
            export: "a,read-only=off".into(),
            tls: false,
        });
        spec.layer = "/state/a,read-only=off".into();
        let config = QemuConfig::new("/run/a,b");
        let line = arguments(&spec, &config, false);
        for value in line.iter().filter(|value| value.contains("driver=")) {
            // A doubled comma is one that belongs to a value.
            let options = value.replace(",,", "");
            let given = options
                .split(',')
                .filter(|option| option.starts_with("read-only="));
            assert_eq!(given.collect::<Vec<_>>(), ["read-only=on"], "{value}");
            assert_eq!(
                options.matches(",server.port=").count(),
                usize::from(value.contains("nbd"))
            );
        }
        assert_eq!(line[0..2], ["-pidfile", "/run/a,b/clone01/pid"]);
    }

    #[test]
    fn a_volume_is_one_more_disk_at_its_own_place() {
        let config = QemuConfig::new("/run/estive");
        let plain = arguments(&spec(), &config, false);
        let mut with = spec();
        with.volume = Some(NbdSource {
            host: "10.77.0.5".into(),
            port: 7700,
            export: "clone01@7".into(),
            tls: true,
        });
        let line = arguments(&with, &config, false);
        let more: Vec<_> = line.iter().filter(|word| !plain.contains(word)).collect();
        assert_eq!(
            more,
            [
                "driver=nbd,node-name=volume,read-only=off,discard=unmap,server.type=inet,server.host=10.77.0.5,\
                 server.port=7700,export=clone01@7,reconnect-delay=300,tls-creds=tls-client",
                "virtio-blk-pci,drive=volume,id=volume-disk,serial=estive-volume,addr=0x8,werror=report,rerror=report"
            ]
        );
    }

    #[test]
    fn a_network_without_rights_changes_nothing_that_the_guest_sees() {
        let tapped = QemuConfig::new("/run/estive");
        let mut alone = tapped.clone();
        alone.user_network = Some(UserNetwork {
            network: "10.77.0.0/24".into(),
            router: "10.77.0.1".parse().unwrap(),
            name_server: "10.77.0.2".parse().unwrap(),
            guest: "10.77.0.101".parse().unwrap(),
            forwards: vec![(2222, 22), (8080, 80)],
        });
        let (before, after) = (
            arguments(&spec(), &tapped, false),
            arguments(&spec(), &alone, false),
        );
        let other: Vec<_> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .collect();
        assert_eq!(before.len(), after.len());
        assert_eq!(other.len(), 1);
        assert_eq!(
            other[0].1,
            "user,id=n0,net=10.77.0.0/24,host=10.77.0.1,dns=10.77.0.2,dhcpstart=10.77.0.101,\
             hostfwd=tcp:127.0.0.1:2222-10.77.0.101:22,hostfwd=tcp:127.0.0.1:8080-10.77.0.101:80"
        );
    }

    #[test]
    fn clones_differ_only_by_what_is_theirs() {
        let config = QemuConfig::new("/run/estive");
        let (one, mut other) = (spec(), spec());
        other.name = DomainName::new("clone02").unwrap();
        other.identity = None;
        let devices = |spec: &DomainSpec| {
            let line = arguments(spec, &config, false);
            let devices = line.windows(2).filter(|pair| pair[0] == "-device");
            devices.map(|pair| pair[1].clone()).collect::<Vec<_>>()
        };
        assert_eq!(devices(&one), devices(&other));
    }
}

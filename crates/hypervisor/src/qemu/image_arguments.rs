//! An ordinary machine as QEMU's command line. Pure; only what QEMU 7.2 also knows.

use super::QemuConfig;
use super::arguments::{Line, channels, credentials, machine, network_and_randomness, text};
use super::directory::Directory;
use super::images::{Opened, own_name};
use super::instance::Instance;
use crate::seam::HypervisorError;
use estive_model::{ImageDisk, ImageFormat, ImageSpec};
use serde_json::json;
use std::path::Path;

/// PCI slot of the first disk; the ones below are those of every machine.
const FIRST_DISK_SLOT: usize = 0x5;

/// The command line (without the emulator itself) of `spec`, with its files as they were opened. It begins as a clone's
/// does; without a kernel QEMU's own firmware boots the first disk.
pub(super) fn image_arguments(
    spec: &ImageSpec,
    opened: &Opened,
    config: &QemuConfig,
    incoming: bool,
) -> Vec<String> {
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
    if let (Some(boot), Some(kernel)) = (&spec.kernel, &opened.kernel) {
        line.pair("-kernel", text(&own_name(kernel)));
        if let Some(initrd) = &opened.initrd {
            line.pair("-initrd", text(&own_name(initrd)));
        }
        line.pair("-append", &boot.command_line);
    }
    credentials(&mut line, config);
    channels(&mut line, &directory);
    network_and_randomness(&mut line, spec.interface.as_ref(), config);
    for (number, (disk, file)) in spec.disks.iter().zip(&opened.disks).enumerate() {
        line.pair("-blockdev", blockdev(number, disk, &own_name(file)));
        line.pair("-device", device(number, disk));
    }
    if incoming {
        line.pair("-incoming", "defer");
    }
    line.0
}

/// `cache.direct`: what one host has written must not be read from the other's memory after a move. Locks are QEMU's
/// own, always on.
fn blockdev(number: usize, disk: &ImageDisk, file: &Path) -> String {
    let discard = if disk.discard { "unmap" } else { "ignore" };
    let cache = json!({"direct": true, "no-flush": false});
    let mut node = json!({
        "driver": disk.format.word(),
        "node-name": format!("disk{number}"),
        "read-only": disk.read_only,
        "discard": discard,
        "cache": cache,
        "file": {
            "driver": "file",
            "node-name": format!("file{number}"),
            "filename": file,
            "read-only": disk.read_only,
            "locking": "on",
            "discard": discard,
            "cache": cache,
        },
    });
    if disk.format == ImageFormat::Qcow2 {
        // Whatever its header says.
        node["backing"] = serde_json::Value::Null;
    }
    node.to_string()
}

impl Instance {
    /// An image's header may have changed after it was looked at: what QEMU has opened by it is refused.
    pub(super) async fn has_no_other_files(&self, spec: &ImageSpec) -> Result<(), HypervisorError> {
        let nodes = self.execute("query-named-block-nodes", json!({"flat": true}));
        match other_node(&nodes.await?, spec.disks.len()) {
            None => Ok(()),
            Some(file) => Err(self.rejected(
                "blockdev",
                format!("an image led it to {file}, which is not taken"),
            )),
        }
    }
}

/// The file of a node that is none of ours.
fn other_node(nodes: &serde_json::Value, disks: usize) -> Option<String> {
    let ours = |name: &str| {
        let number = name.strip_prefix("disk").or(name.strip_prefix("file"));
        number
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: usize| number < disks)
    };
    let other = nodes
        .as_array()?
        .iter()
        .find(|node| !node["node-name"].as_str().is_some_and(ours));
    other.map(|node| node["file"].as_str().unwrap_or("another file").to_owned())
}

fn device(number: usize, disk: &ImageDisk) -> String {
    let slot = FIRST_DISK_SLOT + number;
    let boot = number + 1;
    let mut device = format!(
        "virtio-blk-pci,drive=disk{number},id=disk{number}-disk,addr={slot:#x},bootindex={boot},werror=report,rerror=report"
    );
    if let Some(serial) = &disk.serial {
        device.push_str(&format!(",serial={}", super::arguments::escaped(serial)));
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::{DomainName, ImageFile, ImageKernel};
    use std::os::fd::{AsRawFd as _, OwnedFd};

    fn spec() -> ImageSpec {
        let file = |path: &str| ImageFile {
            top: "/srv/images".into(),
            path: path.into(),
        };
        let disk = |path: &str, format| ImageDisk {
            file: file(path),
            format,
            read_only: false,
            discard: true,
            serial: Some("a,b".into()),
        };
        ImageSpec {
            name: DomainName::new("shop").unwrap(),
            uuid: "6f2c4b1e-4c8e-4d8b-9f43-0c1f6a2f5a10".into(),
            memory_mib: 384,
            cpus: 2,
            kernel: Some(ImageKernel {
                kernel: file("vmlinuz"),
                initrd: None,
                command_line: "root=/dev/vda".into(),
            }),
            disks: vec![
                disk("shop.raw", ImageFormat::Raw),
                disk("more.qcow2", ImageFormat::Qcow2),
            ],
            interface: None,
        }
    }

    fn descriptor() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    #[test]
    fn files_are_named_by_what_was_opened_and_formats_are_said() {
        let opened = Opened {
            kernel: Some(descriptor()),
            initrd: None,
            disks: vec![descriptor(), descriptor()],
        };
        let line = image_arguments(&spec(), &opened, &QemuConfig::new("/run/e"), true);
        assert_eq!(line[0..2], ["-pidfile", "/run/e/shop/pid"]);
        let all = line.join(" ");
        assert!(all.contains(" -S ") && all.ends_with("-incoming defer"));
        assert!(!all.contains("/srv/images") && !all.contains("-bios"));
        let value = |option: &str, number: usize| {
            let pairs = line.windows(2).filter(|pair| pair[0] == option);
            pairs.map(|pair| pair[1].clone()).nth(number).unwrap()
        };
        let number = opened.kernel.as_ref().unwrap().as_raw_fd();
        assert_eq!(value("-kernel", 0), format!("/proc/self/fd/{number}"));
        for (disk, format) in ["raw", "qcow2"].into_iter().enumerate() {
            let node: serde_json::Value = serde_json::from_str(&value("-blockdev", disk)).unwrap();
            let number = opened.disks[disk].as_raw_fd();
            assert_eq!(node["driver"], format);
            assert_eq!(node["file"]["filename"], format!("/proc/self/fd/{number}"));
            assert_eq!(node["file"]["locking"], "on");
            assert_eq!(node["cache"]["direct"], true);
            assert_eq!(node.get("backing").is_some(), format == "qcow2");
        }
        assert!(all.contains("addr=0x5,bootindex=1,werror=report,rerror=report,serial=a,,b"));
        assert!(all.contains("addr=0x6,bootindex=2"));
    }

    #[test]
    fn a_node_of_another_file_is_found() {
        let node = |name: &str, file: &str| json!({"node-name": name, "file": file});
        let mut nodes = vec![
            node("disk0", "/proc/self/fd/9"),
            node("file0", "/proc/self/fd/9"),
            node("disk1", "json:{}"),
            node("file1", "/proc/self/fd/10"),
        ];
        assert_eq!(other_node(&json!(nodes), 2), None);
        assert_eq!(other_node(&json!(nodes), 1).unwrap(), "json:{}");
        nodes.push(node("#block123", "/etc/shadow"));
        assert_eq!(other_node(&json!(nodes), 2).unwrap(), "/etc/shadow");
    }
}

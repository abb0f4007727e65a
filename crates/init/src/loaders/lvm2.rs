//! `lvm2`: a logical volume, started by the reference's lvm.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_boot::loaders::lvm2::Options;
use estive_boot::programs::LVM;

use super::{Context, Given};
use crate::console::uptime_ms;
use crate::failure::{Result, While, fail};
use crate::programs::Run;

const BOUND_S: u64 = 60;
/// Between two looks for a group that is not whole yet.
const POLL: Duration = Duration::from_millis(200);

pub fn open(options: &Options, below: Option<Given>, context: &mut Context) -> Result<Given> {
    let devices = match below {
        Some(below) => Some(context.block_devices(below)?),
        None => None,
    };
    let names = format!("{}/{}", options.group, options.volume);
    let configuration = configuration(
        devices.as_deref(),
        (!context.wants_writing()).then_some(&names),
    )?;
    let arguments = [
        "lvchange",
        "--config",
        &configuration,
        // No locks, no monitor, no polling.
        "--sysinit",
        "--activate=y",
        &names,
    ]
    .map(OsStr::new);
    let run = Run {
        program: LVM,
        arguments: &arguments,
        input: b"",
        bound_s: BOUND_S,
    };
    let node = Path::new("/dev/mapper").join(options.mapper_name());
    let deadline_ms = uptime_ms() + u64::from(context.line.wait_s) * 1000;
    loop {
        let output = run.output().doing(|| format!("starting {names}"))?;
        if output.status.success() && node.exists() {
            return Ok(Given::Device(node));
        }
        // What stands to the right is there already; of disks, one may still come.
        if devices.is_some() || uptime_ms() >= deadline_ms {
            let where_from = match &devices {
                Some(devices) => format!(" on {}", shown(devices)),
                None => String::new(),
            };
            return fail(format!(
                "the volume {names}{where_from} did not start: lvm said ({}): {}",
                output.status,
                output.complaint()
            ));
        }
        std::thread::sleep(POLL);
    }
}

/// What differs from LVM's own defaults: no udev is there, nothing is kept, and only the devices that the line names
/// are looked at.
fn configuration(devices: Option<&[PathBuf]>, read_only: Option<&String>) -> Result<String> {
    let mut text = String::from(
        "devices{dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source=\"none\"",
    );
    if let Some(devices) = devices {
        let mut patterns = Vec::new();
        for device in devices {
            patterns.push(format!("\"a|^{}$|\"", literal(device)?));
        }
        text += &format!(" filter=[{},\"r|.*|\"]", patterns.join(","));
    }
    text += "} activation{udev_sync=0 udev_rules=0 monitoring=0";
    if let Some(names) = read_only {
        text += &format!(" read_only_volume_list=[\"{names}\"]");
    }
    text += "} backup{backup=0 archive=0} global{use_lvmpolld=0 event_activation=0}";
    Ok(text)
}

/// A device's path as a pattern that fits itself alone.
fn literal(device: &Path) -> Result<String> {
    let mut pattern = String::new();
    for character in device.to_string_lossy().chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '-' | '_' => pattern.push(character),
            '.' | '+' | ':' => pattern.push_str(&format!("[{character}]")),
            _ => {
                return fail(format!(
                    "lvm cannot be told of a device called {}",
                    device.display()
                ));
            }
        }
    }
    Ok(pattern)
}

fn shown(devices: &[PathBuf]) -> String {
    let devices = devices.iter().map(|device| device.display().to_string());
    devices.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_devices_are_looked_at() {
        let devices = ["/dev/md0", "/dev/mapper/luks-1.2"].map(PathBuf::from);
        let Ok(text) = configuration(Some(&devices), Some(&"vg/root".to_owned())) else {
            panic!()
        };
        assert!(
            text.contains(r#"filter=["a|^/dev/md0$|","a|^/dev/mapper/luks-1[.]2$|","r|.*|"]"#),
            "{text}"
        );
        assert!(text.contains(r#"read_only_volume_list=["vg/root"]"#));
        assert!(configuration(Some(&["/dev/a|b".into()]), None).is_err());
        let Ok(text) = configuration(None, None) else {
            panic!()
        };
        assert!(!text.contains("filter") && !text.contains("read_only"));
    }
}

//! Which drivers an initramfs takes along for machines that are not known beforehand: disks, network cards, what
//! stands before both, and keyboards.
//!
//! Chosen by where the kernel keeps a module (`kernel/drivers/…`, the same in all distributions), and at the machine by
//! the names of its devices. Sound, graphics and radio start nothing.

use std::collections::BTreeSet;

use crate::aliases::Aliases;
use crate::modules::{ModulesDep, canonical};

/// The machines that an initramfs is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hardware {
    /// Physical machines of common kinds, and virtual ones.
    Any,
    /// What hypervisors show to their guests.
    Virtual,
    /// Machines with devices of these names (`MODALIAS`).
    With(BTreeSet<String>),
}

/// Below `kernel/drivers/`: directories end in `/`, anything else is one module. What hypervisors show.
const VIRTUAL: &[&str] = &[
    "ata/ahci",
    "ata/ata_piix",
    "block/virtio_blk",
    "block/xen-blkfront",
    "hid/hid-generic",
    "hid/hid-hyperv",
    "hid/usbhid/usbhid",
    "hv/hv_vmbus",
    "input/keyboard/atkbd",
    "input/serio/hyperv-keyboard",
    "input/serio/i8042",
    "message/fusion/mptsas",
    "message/fusion/mptspi",
    "net/ethernet/amazon/",
    "net/ethernet/google/",
    "net/ethernet/intel/e1000/",
    "net/ethernet/intel/e1000e/",
    "net/ethernet/intel/iavf/",
    "net/ethernet/intel/igbvf/",
    "net/ethernet/intel/ixgbevf/",
    "net/ethernet/microsoft/",
    "net/ethernet/realtek/8139cp",
    "net/ethernet/realtek/8139too",
    "net/hyperv/",
    "net/virtio_net",
    "net/vmxnet3/",
    "net/xen-netfront",
    "nvme/host/nvme",
    "pci/controller/pci-hyperv",
    "scsi/hv_storvsc",
    "scsi/sd_mod",
    "scsi/sr_mod",
    "scsi/virtio_scsi",
    "scsi/vmw_pvscsi",
    "scsi/xen-scsifront",
    "usb/host/ehci-pci",
    "usb/host/ohci-pci",
    "usb/host/uhci-hcd",
    "usb/host/xhci-pci",
    "usb/storage/uas",
    "usb/storage/usb-storage",
    "virtio/",
];

/// What physical machines of common kinds have besides.
const PHYSICAL: &[&str] = &[
    "ata/",
    "message/fusion/",
    "misc/cardreader/",
    "mmc/core/",
    "mmc/host/",
    "net/ethernet/8390/ne2k-pci",
    "net/ethernet/alacritech/",
    "net/ethernet/amd/",
    "net/ethernet/aquantia/",
    "net/ethernet/atheros/",
    "net/ethernet/broadcom/",
    "net/ethernet/chelsio/cxgb4/",
    "net/ethernet/cisco/",
    "net/ethernet/dec/",
    "net/ethernet/emulex/",
    "net/ethernet/huawei/",
    "net/ethernet/intel/",
    "net/ethernet/jme",
    "net/ethernet/marvell/",
    "net/ethernet/mellanox/mlx4/",
    "net/ethernet/mellanox/mlx5/",
    "net/ethernet/nvidia/",
    "net/ethernet/qlogic/",
    "net/ethernet/realtek/",
    "net/ethernet/sfc/",
    "net/ethernet/sis/",
    "net/ethernet/tehuti/",
    "net/ethernet/ti/",
    "net/ethernet/via/",
    "net/ethernet/wangxun/",
    "net/mdio/",
    "net/pcs/",
    "net/phy/",
    "net/usb/asix",
    "net/usb/ax88179_178a",
    "net/usb/cdc_ether",
    "net/usb/cdc_ncm",
    "net/usb/lan78xx",
    "net/usb/r8152",
    "net/usb/r8153_ecm",
    "net/usb/smsc75xx",
    "net/usb/smsc95xx",
    "nvme/host/nvme",
    "pci/controller/vmd",
    "scsi/3w-9xxx",
    "scsi/3w-sas",
    "scsi/BusLogic",
    "scsi/aacraid/",
    "scsi/am53c974",
    "scsi/arcmsr/",
    "scsi/hpsa",
    "scsi/isci/",
    "scsi/megaraid/",
    "scsi/mpi3mr/",
    "scsi/mpt3sas/",
    "scsi/mvsas/",
    "scsi/pm8001/",
    "scsi/smartpqi/",
    "scsi/sym53c8xx_2/",
    "ufs/",
    "usb/host/",
    "usb/storage/",
];

/// Where the driver of a device that is named may lie: rare ones too.
const NAMED: &[&str] = &[
    "ata/",
    "block/",
    "hid/hid-generic",
    "hid/hid-hyperv",
    "hid/usbhid/",
    "hv/",
    "input/keyboard/",
    "input/serio/",
    "message/fusion/",
    "misc/cardreader/",
    "mmc/",
    "net/ethernet/",
    "net/hyperv/",
    "net/mdio/",
    "net/pcs/",
    "net/phy/",
    "net/usb/",
    "net/virtio_net",
    "net/vmxnet3/",
    "net/xen-netfront",
    "nvme/host/",
    "pci/controller/",
    "scsi/",
    "ufs/",
    "usb/host/",
    "usb/storage/",
    "virtio/",
    "xen/",
];

/// Reading the transceivers of a card: the kernel asks for them while the card's driver starts, by a name that no
/// device shows.
const TRANSCEIVERS: &str = "net/phy/";
const TRANSCEIVERS_USER: &str = "libphy";

/// The drivers for this hardware that the kernel has as modules, without what they need. What they ask to have before
/// them is among them.
pub fn drivers(hardware: &Hardware, modules: &ModulesDep, aliases: &Aliases) -> BTreeSet<String> {
    let in_places = |places: &[&str]| -> BTreeSet<String> {
        modules
            .files()
            .filter(|(_, file)| places.iter().any(|place| lies_in(file, place)))
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    let mut found = match hardware {
        Hardware::Virtual => in_places(VIRTUAL),
        Hardware::Any => &in_places(VIRTUAL) | &in_places(PHYSICAL),
        Hardware::With(names) => {
            let known = in_places(NAMED);
            let named: BTreeSet<String> = names
                .iter()
                .flat_map(|name| aliases.modules_of(name))
                .filter(|module| known.contains(*module))
                .map(str::to_owned)
                .collect();
            let has_transceivers = modules
                .closure(&named.iter().map(String::as_str).collect::<Vec<_>>(), &[])
                .is_ok_and(|order| order.iter().any(|name| name == TRANSCEIVERS_USER));
            match has_transceivers {
                true => &named | &in_places(&[TRANSCEIVERS]),
                false => named,
            }
        }
    };
    let before: Vec<String> = found
        .iter()
        .flat_map(|name| aliases.before(name))
        .filter(|name| modules.file(name).is_some())
        .map(str::to_owned)
        .collect();
    found.extend(before);
    found
}

/// Whether `file`, as `modules.dep` writes it, is or lies in a place of the tables above.
fn lies_in(file: &str, place: &str) -> bool {
    let Some(file) = file.strip_prefix("kernel/drivers/") else {
        return false;
    };
    match place.ends_with('/') {
        true => file.starts_with(place),
        false => file
            .split_once(".ko")
            .is_some_and(|(stem, _)| canonical(stem) == canonical(place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/ata/ahci.ko.xz: kernel/drivers/ata/libata.ko.xz
kernel/drivers/ata/libata.ko.xz:
kernel/drivers/scsi/rare.ko:
kernel/drivers/scsi/sd_mod.ko:
kernel/drivers/net/ethernet/realtek/r8169.ko: kernel/drivers/net/phy/libphy.ko
kernel/drivers/net/phy/libphy.ko:
kernel/drivers/net/phy/realtek.ko: kernel/drivers/net/phy/libphy.ko
kernel/drivers/net/wireless/radio.ko:
kernel/drivers/usb/storage/usb-storage.ko:
kernel/drivers/usb/storage/usb-storage-more.ko:
kernel/sound/noise.ko:
";
    const ALIAS: &str = "\
alias pci:r8169* r8169
alias pci:rare* rare
alias pci:radio* radio
alias pci:noise* noise
";

    fn of(hardware: Hardware) -> Vec<String> {
        let modules = ModulesDep::parse(DEP, "").unwrap();
        let aliases = Aliases::parse(ALIAS, "softdep r8169 pre: realtek gone\n").unwrap();
        drivers(&hardware, &modules, &aliases).into_iter().collect()
    }

    #[test]
    fn common_kinds_are_taken_and_no_others() {
        assert_eq!(
            of(Hardware::Any),
            [
                "ahci",
                "libata",
                "libphy",
                "r8169",
                "realtek",
                "sd_mod",
                "usb_storage",
                "usb_storage_more"
            ]
        );
        assert_eq!(of(Hardware::Virtual), ["ahci", "sd_mod", "usb_storage"]);
    }

    #[test]
    fn what_devices_name_is_taken_and_what_they_ask_for() {
        let with = |names: &[&str]| {
            of(Hardware::With(
                names.iter().map(|name| (*name).to_owned()).collect(),
            ))
        };
        assert_eq!(
            with(&["pci:r8169x", "pci:noise", "pci:radio"]),
            ["libphy", "r8169", "realtek"]
        );
        assert_eq!(with(&["pci:rare1"]), ["rare"]);
        assert!(with(&["pci:other"]).is_empty());
    }
}

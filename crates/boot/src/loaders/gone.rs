//! Loaders of the paper that are no more, and what to write instead.

/// What to say of this name, after it.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "evms2" => {
            "is no more: device-mapper replaced EVMS. Write lvm2:/dev/GROUP/VOLUME for a volume, md:/dev/md0 for an array, luks+block:/dev/DISK for an encrypted disk"
        }
        "dmraid" => {
            "is no more: device-mapper and mdadm took the arrays of disk controllers over. Write md:/dev/md0, or block:/dev/DISK if the controller shows one disk"
        }
        "quickinstallcd" => {
            "is no more: its systems start from the same disc as any other. Write livecd"
        }
        _ => return None,
    })
}

//! Loaders of the paper that are no more, and what to write instead.

/// What to say of this name, after it.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    match name {
        "evms2" | "dmraid" => {
            Some("was replaced by device-mapper: write lvm2:/dev/GROUP/VOLUME, or md:/dev/md0")
        }
        "quickinstallcd" => Some("is no more: write livecd"),
        _ => None,
    }
}

//! Marks of a union in a plain tree: names that hide, and the attributes that overlayfs leaves.

use crate::OPAQUE_XATTR;

/// A file of this name and NAME hides NAME of what lies below.
pub const WHITEOUT_PREFIX: &str = ".wh.";
/// A file of this name hides all that its directory has below.
pub const OPAQUE_MARK: &str = ".wh.__dir_opaque";

/// Under which name an attribute is carried, if at all. Of overlayfs's own only the opaque mark says
/// something that a tree can say by itself; fails, saying why, for one without which the tree is
/// only half of what it means.
pub fn carried_xattr(attribute: &str) -> Result<Option<&str>, String> {
    let overlay = ["trusted.overlay.", "user.overlay."]
        .iter()
        .find_map(|prefix| attribute.strip_prefix(prefix));
    match overlay {
        Some("opaque") => return Ok(Some(OPAQUE_XATTR)),
        Some("redirect" | "metacopy" | "whiteout" | "whiteouts") => {
            return Err(format!(
                "has {attribute}: what it stands for lies elsewhere; copy the tree through its overlay"
            ));
        }
        Some(_) => return Ok(None),
        None => {}
    }
    let spaces = ["user.", "trusted."];
    let known = attribute == "security.capability"
        || spaces.iter().any(|space| attribute.starts_with(space));
    Ok(known.then_some(attribute))
}

//! What the kernel's command line says to modules: `NAME.option=value` and `modprobe.blacklist=NAME,…`, which the
//! kernel leaves to the program that loads them.

use crate::modules::canonical;

/// The options for a module, as the kernel takes them with it: separated by spaces, in their order.
pub fn options_of(line: &str, module: &str) -> String {
    let module = canonical(module);
    let options: Vec<&str> = line
        .split_ascii_whitespace()
        .filter_map(|word| {
            let (name, option) = word.split_once('.')?;
            (canonical(name) == module && !option.is_empty()).then_some(option)
        })
        .collect();
    options.join(" ")
}

/// Whether somebody wants the machine without this module: it is loaded when it is asked for by its name, and not
/// because a device is there.
pub fn is_unwanted(line: &str, module: &str) -> bool {
    let module = canonical(module);
    line.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("modprobe.blacklist="))
        .flat_map(|names| names.split(','))
        .any(|name| canonical(name) == module)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "quiet usb-storage.delay_use=0 e1000.debug=16 usb_storage.quirks=a:b:c modprobe.blacklist=uas,e1000-x e1000. root=/dev/a.b=c";

    #[test]
    fn options_are_the_modules_own() {
        assert_eq!(options_of(LINE, "usb_storage"), "delay_use=0 quirks=a:b:c");
        assert_eq!(options_of(LINE, "e1000"), "debug=16");
        assert_eq!(options_of(LINE, "ahci"), "");
    }

    #[test]
    fn what_is_unwanted_is_named() {
        assert!(is_unwanted(LINE, "uas") && is_unwanted(LINE, "e1000_x"));
        assert!(!is_unwanted(LINE, "e1000"));
    }
}

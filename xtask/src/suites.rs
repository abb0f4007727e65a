//! The suites of `./x test`, in the order they run. A new one is a line here.

use std::time::Duration;

/// What `cargo test` is asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The tests beside the code, of every crate.
    Unit,
    /// One file of a crate's `tests/`.
    Target { package: String, target: String },
}

/// Tests that run together, and how long they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    pub name: String,
    pub what: What,
    /// Needs kernel, reference and programs, root, and no other guest beside it.
    pub guests: bool,
    /// Needs the roots that only tests boot, besides.
    pub roots: bool,
    /// Needs the kernel with drivers of physical machines, and what such machines start from, besides.
    pub generic_kernel: bool,
    /// Needs the root with programs for encrypted disks, volumes and arrays, besides.
    pub loaders_root: bool,
    /// Ten times what was measured on two cores under emulation. A suite that is not done by then is killed.
    pub bound: Duration,
}

/// What is known of a suite that stands in [`TABLE`].
struct Row {
    package: &'static str,
    target: &'static str,
    guests: bool,
    roots: bool,
    generic_kernel: bool,
    loaders_root: bool,
    bound_s: u64,
}

const fn plain(package: &'static str, target: &'static str, bound_s: u64) -> Row {
    Row {
        package,
        target,
        guests: false,
        roots: false,
        generic_kernel: false,
        loaders_root: false,
        bound_s,
    }
}

const fn guests(package: &'static str, target: &'static str, bound_s: u64) -> Row {
    Row {
        package,
        target,
        guests: true,
        roots: false,
        generic_kernel: false,
        loaders_root: false,
        bound_s,
    }
}

const fn guests_of_roots(package: &'static str, target: &'static str, bound_s: u64) -> Row {
    let mut row = guests(package, target, bound_s);
    row.roots = true;
    row
}

const fn guests_of_generic(package: &'static str, target: &'static str, bound_s: u64) -> Row {
    let mut row = guests(package, target, bound_s);
    row.generic_kernel = true;
    row
}

const fn guests_of_volumes(package: &'static str, target: &'static str, bound_s: u64) -> Row {
    let mut row = guests(package, target, bound_s);
    row.loaders_root = true;
    row
}

const fn guests_of_loaders(package: &'static str, target: &'static str, bound_s: u64) -> Row {
    let mut row = guests_of_volumes(package, target, bound_s);
    row.generic_kernel = true;
    row
}

/// Files of `tests/` and their bounds, quick ones first. `cargo test` finds files that are not named here too: they
/// run last, as guest suites with [`UNNAMED_BOUND_S`], and a line is printed that asks for theirs.
const TABLE: &[Row] = &[
    plain("estive-erofs", "round", 150),
    plain("estive-planner", "situations", 150),
    plain("estive-exports", "seal", 120),
    plain("estive-exports", "seal_live", 300),
    plain("estive-cache", "cache", 120),
    plain("estive-layers", "cascade", 120),
    plain("estive-layers", "herd", 120),
    plain("estive-cli", "layers", 120),
    plain("estive-cli", "cache", 120),
    plain("estive-files", "layers", 120),
    plain("estive-nfs", "serving", 240),
    plain("estive-live", "link", 120),
    plain("estive-union", "overlay", 120),
    plain("estive-layers", "folder", 120),
    plain("estive-layers", "layer", 120),
    plain("estive-layers", "sets", 120),
    plain("estive-store", "conformance", 120),
    plain("estive-volumes", "conformance", 300),
    plain("estive-store", "embedded", 120),
    plain("estive-sandbox", "script", 120),
    plain("estive-sandbox", "herd", 120),
    plain("estive-sandbox", "render", 120),
    plain("estive-sandbox", "hostile", 120),
    plain("estive-hypervisor", "simulated", 120),
    plain("estive-init", "push", 300),
    plain("estive-agent", "alone", 120),
    plain("estive-agent", "layers", 120),
    plain("estive-agent", "lost_journal", 30),
    plain("estive-agent", "volumes", 60),
    plain("estive-agent", "saved", 60),
    plain("estive-agent", "roots", 120),
    plain("estive-agent", "live", 120),
    plain("estive-agent", "moves", 210),
    plain("estive-manager", "herd", 120),
    plain("estive-cli", "words", 120),
    plain("estive-cli", "references", 120),
    plain("estive-cli", "plan", 120),
    plain("estive-cli", "rehearse", 120),
    plain("estive-manager", "saved", 120),
    plain("estive-manager", "push", 120),
    plain("estive-manager", "up_meanwhile", 120),
    plain("estive-manager", "boots", 120),
    plain("estive-manager", "live", 120),
    plain("estive-manager", "references", 120),
    plain("estive-manager", "volumes", 120),
    plain("estive-manager", "doors", 120),
    plain("estive-sim", "explore", 600),
    plain("estive-sim", "faults", 300),
    plain("estive-sim", "planted", 300),
    plain("estive-network", "links", 120),
    plain("estive-testbed", "namespaces", 120),
    plain("estive-testbed", "gauges", 300),
    guests("estive-api", "qemu_tls", 300),
    guests("estive-agent", "images", 90),
    guests("estive-manager", "images", 120),
    guests("estive-init", "guest", 300),
    guests_of_loaders("estive-init", "loaders", 600),
    guests_of_generic("estive-cli", "image", 600),
    guests("estive-sandbox", "reference", 120),
    guests("estive-cli", "try", 300),
    guests("estive-hypervisor", "guest", 900),
    guests("estive-testbed", "guest", 120),
    guests("estive-testbed", "bed", 120),
    guests("estive-testbed", "volumes", 800),
    guests("estive-testbed", "capture", 700),
    guests("estive-testbed", "reseal", 900),
    guests("estive-testbed", "sealing", 1600),
    guests_of_volumes("estive-testbed", "sealing_lvm", 600),
    guests("estive-testbed", "faults", 1600),
    guests("estive-testbed", "trouble", 460),
    guests("estive-testbed", "push", 600),
    guests("estive-testbed", "roots", 360),
    guests("estive-testbed", "live", 700),
    guests("estive-testbed", "herd", 560),
    guests_of_roots("estive-testbed", "sets", 1500),
    guests_of_roots("estive-testbed", "postgresql", 2020),
    guests("estive-testbed", "kills", 4400),
    guests("estive-agent", "guests", 400),
];

const UNIT_BOUND_S: u64 = 900;
const UNNAMED_BOUND_S: u64 = 900;

/// All suites, given every test target of the workspace as (package, target).
pub fn all(targets: &[(String, String)]) -> Vec<Suite> {
    arrange(TABLE, targets)
}

fn arrange(table: &[Row], targets: &[(String, String)]) -> Vec<Suite> {
    let unit = Suite {
        name: "unit".into(),
        what: What::Unit,
        guests: false,
        roots: false,
        generic_kernel: false,
        loaders_root: false,
        bound: Duration::from_secs(UNIT_BOUND_S),
    };
    let suite = |package: &str, target: &str, row: &Row| Suite {
        // Short, and still one word for each file of the workspace.
        name: format!(
            "{}-{target}",
            package.strip_prefix("estive-").unwrap_or(package)
        ),
        what: What::Target {
            package: package.into(),
            target: target.into(),
        },
        guests: row.guests,
        roots: row.roots,
        generic_kernel: row.generic_kernel,
        loaders_root: row.loaders_root,
        bound: Duration::from_secs(row.bound_s),
    };
    let mut suites = vec![unit];
    let is = |row: &Row, pair: &(String, String)| row.package == pair.0 && row.target == pair.1;
    // A row whose file is gone still runs, and fails by name.
    suites.extend(table.iter().map(|row| suite(row.package, row.target, row)));
    for pair in targets
        .iter()
        .filter(|pair| !table.iter().any(|row| is(row, pair)))
    {
        eprintln!(
            "x: {} tests/{}.rs has no line in xtask/src/suites.rs: give it one, with its bound",
            pair.0, pair.1
        );
        let unnamed = guests("", "", UNNAMED_BOUND_S);
        suites.push(suite(&pair.0, &pair.1, &unnamed));
    }
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_runs_once_named_or_not() {
        let table = [
            plain("estive-moves", "explore", 10),
            guests("estive-agent", "adopt", 20),
        ];
        let pair = |package: &str, target: &str| (package.to_string(), target.to_string());
        let suites = arrange(
            &table,
            &[pair("estive-agent", "adopt"), pair("xtask", "door")],
        );
        let names: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(
            names,
            ["unit", "moves-explore", "agent-adopt", "xtask-door"]
        );
        assert!(suites[3].guests);
    }
}

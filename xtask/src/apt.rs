//! Installing what is missing: one `apt-get update` at most, and nothing at all when nothing is missing.

use std::path::Path;
use std::process::Command;

use crate::apt_sources::{self, Source};
use crate::failure::{Failure, Result, file};
use crate::machine;
use crate::progress::{Step, output};

/// How we know that something is there, whoever brought it.
enum Proof {
    Program(&'static str),
    File(&'static str),
}

/// A package, and what it is installed for.
struct Need {
    package: &'static str,
    proof: Proof,
}

const fn program(name: &'static str, package: &'static str) -> Need {
    Need {
        package,
        proof: Proof::Program(name),
    }
}

/// What setup, demo and tests run. QEMU is apart: see [`install_qemu`].
const NEEDS: &[Need] = &[
    program("mmdebstrap", "mmdebstrap"),
    program("mkfs.erofs", "erofs-utils"),
    program("mkfs.btrfs", "btrfs-progs"),
    program("ip", "iproute2"),
    program("nft", "nftables"),
    program("ping", "iputils-ping"),
    program("ssh", "openssh-client"),
    program("unshare", "util-linux"),
    program("xz", "xz-utils"),
    program("zstd", "zstd"),
    program("bzip2", "bzip2"),
    program("mkfs.ext4", "e2fsprogs"),
    program("depmod", "kmod"),
    program("ps", "procps"),
    program("iperf3", "iperf3"),
    program("nbdinfo", "libnbd-bin"),
    program("cc", "gcc"),
    Need {
        package: "libc6-dev",
        proof: Proof::File("/usr/include/stdlib.h"),
    },
];

/// What machines of tests start from that have no kernel given to them: network cards, firmware, and a disk with a boot
/// loader as `estive image` makes it.
const MACHINE_NEEDS: &[Need] = &[
    Need {
        package: "ipxe-qemu",
        proof: Proof::File("/usr/lib/ipxe/qemu/efi-virtio.rom"),
    },
    Need {
        package: "ovmf",
        proof: Proof::File("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    },
    program("grub-mkrescue", "grub-common"),
    Need {
        package: "grub-pc-bin",
        proof: Proof::File("/usr/lib/grub/i386-pc"),
    },
    Need {
        package: "grub-efi-amd64-bin",
        proof: Proof::File("/usr/lib/grub/x86_64-efi"),
    },
    program("xorriso", "xorriso"),
    program("mformat", "mtools"),
];

/// The peer of the benchmark `balance`.
const BALANCE_NEEDS: &[Need] = &[program("hbal", "ganeti-htools")];

/// The peer of the benchmark `traffic`.
const TRAFFIC_NEEDS: &[Need] = &[program("gpmetis", "metis")];

/// virtiofsd where Debian has it, and what building it takes elsewhere.
const VIRTIOFSD: &[Need] = &[Need {
    package: "virtiofsd",
    proof: Proof::File("/usr/libexec/virtiofsd"),
}];
const VIRTIOFSD_NEEDS: &[Need] = &[
    Need {
        package: "libcap-ng-dev",
        proof: Proof::File("/usr/include/cap-ng.h"),
    },
    Need {
        package: "libseccomp-dev",
        proof: Proof::File("/usr/include/seccomp.h"),
    },
];

const QEMU_SYSTEM: &str = "qemu-system-x86";
const QEMU_UTILS: &str = "qemu-utils";
const BACKPORTS_SOURCE: &str = "/etc/apt/sources.list.d/estive-backports.sources";

/// The package manager during one run: remembers whether its lists were read anew.
#[derive(Default)]
pub struct Apt {
    updated: bool,
}

impl Apt {
    pub fn new() -> Self {
        // ./x may have needed the lists before us, to bring a compiler.
        Self {
            updated: std::env::var_os("ESTIVE_APT_UPDATED").is_some(),
        }
    }

    /// Installs whatever of [`NEEDS`] and QEMU is missing.
    pub fn install_missing(&mut self, suite: &str) -> Result<()> {
        self.install_qemu(suite)?;
        self.install(NEEDS)
    }

    /// Installs whatever of [`MACHINE_NEEDS`] is missing.
    pub fn install_for_machines(&mut self) -> Result<()> {
        self.install(MACHINE_NEEDS)
    }

    /// Installs whatever of [`BALANCE_NEEDS`] is missing.
    pub fn install_for_balance(&mut self) -> Result<()> {
        self.install(BALANCE_NEEDS)
    }

    /// Installs whatever of [`TRAFFIC_NEEDS`] is missing.
    pub fn install_for_traffic(&mut self) -> Result<()> {
        self.install(TRAFFIC_NEEDS)
    }

    /// Installs virtiofsd, if it is missing.
    pub fn install_virtiofsd(&mut self) -> Result<()> {
        self.install(VIRTIOFSD)
    }

    /// Installs what building virtiofsd takes.
    pub fn install_for_virtiofsd(&mut self) -> Result<()> {
        self.install(VIRTIOFSD_NEEDS)
    }

    fn install(&mut self, needs: &[Need]) -> Result<()> {
        let missing: Vec<&str> = needs
            .iter()
            .filter(|need| !need.is_there())
            .map(|need| need.package)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.update()?;
        let step = Step::begin(format!("installing {}", missing.join(" ")));
        install(&step, &missing)?;
        step.done("");
        Ok(())
    }

    /// Reads the package lists anew, once in a run. Lists that cannot be read leave those there are.
    pub fn update(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.updated, true) {
            return Ok(());
        }
        let step = Step::begin("reading the package lists");
        match step.run(Command::new("apt-get").args(["update", "-q"])) {
            Ok(_) => step.done(""),
            // One source of a third party that is away must not stop us: what we need may well be in the others.
            Err(Failure::Ended { tail, .. }) => step.done(&format!(
                "some could not be read, going on without:\n{tail}"
            )),
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Reads the lists of the source that was added, and of no other.
    fn read_backports(&self) -> Result<()> {
        let step = Step::begin("reading the package lists of the backports");
        let only = [
            "-o",
            &format!("Dir::Etc::SourceList={BACKPORTS_SOURCE}"),
            "-o",
            "Dir::Etc::SourceParts=-",
            "-o",
            "APT::Get::List-Cleanup=0",
        ];
        match step.run(Command::new("apt-get").args(["update", "-q"]).args(only)) {
            Ok(_) => step.done(""),
            Err(Failure::Ended { tail, .. }) => step.done(&format!("not there:\n{tail}")),
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// QEMU and its tools, of one version.
    ///
    /// Debian 12 has 7.2, and 10 in its backports, which are asked first. Tools that are already here from one of the
    /// two decide for the other, since each depends on libraries of its own version.
    fn install_qemu(&mut self, suite: &str) -> Result<()> {
        let system = machine::program("qemu-system-x86_64").is_some();
        let utils = ["qemu-img", "qemu-nbd", "qemu-storage-daemon"]
            .iter()
            .all(|name| machine::program(name).is_some());
        if system && utils {
            return Ok(());
        }
        let backports = format!("{suite}-backports");
        let added = suite == "bookworm" && add_backports(&apt_sources::read()?, suite, &backports)?;
        if added && self.updated {
            self.read_backports()?;
        }
        self.update()?;
        let offered = output(
            "asking for QEMU's versions",
            Command::new("apt-cache").args(["madison", QEMU_SYSTEM, QEMU_UTILS]),
        )?;
        let step = Step::begin("installing QEMU");
        let chosen = choose(
            &offered,
            suite,
            [installed(QEMU_SYSTEM), installed(QEMU_UTILS)],
        );
        if added && !chosen.as_ref().is_some_and(|choice| choice.from_backports) {
            // The mirror has none: a source that fails would be in the way of every later update.
            let path = Path::new(BACKPORTS_SOURCE);
            std::fs::remove_file(path).map_err(file("removing", path))?;
        }
        let Some(Choice {
            version,
            from_backports,
        }) = chosen
        else {
            return Err(Failure::Unfit(format!(
                "no package source of this machine offers {QEMU_SYSTEM} and {QEMU_UTILS} of one version: see 'apt-cache policy {QEMU_SYSTEM}'"
            )));
        };
        let pair = [
            format!("{QEMU_SYSTEM}={version}"),
            format!("{QEMU_UTILS}={version}"),
        ];
        let mut arguments: Vec<&str> = pair.iter().map(String::as_str).collect();
        if from_backports {
            arguments.extend(["-t", &backports]);
        }
        install(&step, &arguments)?;
        step.done(&version);
        Ok(())
    }
}

impl Need {
    fn is_there(&self) -> bool {
        match self.proof {
            Proof::Program(name) => machine::program(name).is_some(),
            Proof::File(path) => Path::new(path).exists(),
        }
    }
}

fn install(step: &Step, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
        .args([
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "--allow-downgrades",
        ])
        .args(arguments);
    step.run(&mut command).map(|_| ())
}

/// The version of a package that is installed, if it is.
fn installed(package: &str) -> Option<String> {
    let query = ["-W", "-f=${db:Status-Status} ${Version}", package];
    let text = output(
        "asking what is installed",
        Command::new("dpkg-query").args(query),
    )
    .ok()?;
    text.strip_prefix("installed ").map(str::to_string)
}

/// Makes the release's backports known, in the same form and from the same mirror as the release itself.
/// Says whether that was needed.
fn add_backports(sources: &[Source], suite: &str, backports: &str) -> Result<bool> {
    let path = Path::new(BACKPORTS_SOURCE);
    if path.exists() || sources.iter().any(|source| source.has_suite(backports)) {
        return Ok(false);
    }
    let source = apt_sources::main_archive(sources, suite)?.with_suites(&[backports.to_string()]);
    eprintln!(
        "  adding {backports} to the package sources ({})",
        path.display()
    );
    std::fs::write(path, source.stanza()).map_err(file("writing", path))?;
    Ok(true)
}

/// Which QEMU to install.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    version: String,
    from_backports: bool,
}

/// Chooses from what `apt-cache madison` offers: the version of that half which is installed when the other half is
/// offered in it too, else the first (newest) that both halves are offered in.
fn choose(madison: &str, suite: &str, installed: [Option<String>; 2]) -> Option<Choice> {
    let rows: Vec<[&str; 3]> = madison
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            Some([fields.next()?, fields.next()?, fields.next()?])
        })
        .collect();
    let offered = |package: &str, version: &str| {
        rows.iter()
            .any(|row| row[0] == package && row[1] == version)
    };
    let both = |version: &&str| offered(QEMU_SYSTEM, version) && offered(QEMU_UTILS, version);
    let version = installed
        .iter()
        .flatten()
        .map(String::as_str)
        .find(both)
        .or_else(|| rows.iter().map(|row| row[1]).find(|version| both(version)))?;
    let backports = format!("{suite}-backports/");
    let from = |row: &&[&str; 3]| row[1] == version && row[2].contains(&backports);
    Some(Choice {
        version: version.to_string(),
        from_backports: rows.iter().any(|row| from(&row)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
qemu-system-x86 | 1:10.0.2~bpo12+1 | http://m.example/debian bookworm-backports/main amd64 Packages
qemu-system-x86 | 1:7.2-7+u18 | http://m.example/debian bookworm/main amd64 Packages
qemu-utils | 1:10.0.2~bpo12+1 | http://m.example/debian bookworm-backports/main amd64 Packages
qemu-utils | 1:7.2-7+u18 | http://m.example/debian bookworm/main amd64 Packages
";

    fn version(choice: Option<Choice>) -> (String, bool) {
        let choice = choice.unwrap();
        (choice.version, choice.from_backports)
    }

    #[test]
    fn the_newest_pair_is_chosen() {
        assert_eq!(
            version(choose(MADISON, "bookworm", [None, None])),
            ("1:10.0.2~bpo12+1".into(), true)
        );
    }

    #[test]
    fn the_half_that_is_here_decides() {
        let here = Some("1:7.2-7+u18".to_string());
        assert_eq!(
            version(choose(MADISON, "bookworm", [None, here])),
            ("1:7.2-7+u18".into(), false)
        );
    }

    #[test]
    fn tools_from_backports_that_are_gone_give_way_to_the_releases_pair() {
        let release: String = MADISON
            .lines()
            .filter(|line| !line.contains("backports"))
            .map(|line| format!("{line}\n"))
            .collect();
        let here = Some("1:10.0.2~bpo12+1".to_string());
        assert_eq!(
            version(choose(&release, "bookworm", [None, here])),
            ("1:7.2-7+u18".into(), false)
        );
        assert_eq!(choose("", "bookworm", [None, None]), None);
    }
}

//! What the roots made here hold: the reference of the demo, and those that only tests boot.

use std::path::Path;

use sha2::{Digest, Sha256};

/// A root made from packages.
pub struct Recipe {
    /// Part of its name in the cache; the reference's is empty.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// What it has beyond Debian's smallest root.
    packages: &'static [&'static [&'static str]],
    /// Units of systemd that are masked in it.
    pub masked: &'static [&'static str],
    /// Shell scripts that run one after another when all packages are in, with the root as `$1`, the directory of
    /// [`Recipe::files`] as `$ESTIVE_RECIPE` and the kernel's tree as `$ESTIVE_KERNEL`.
    pub finish: &'static [&'static str],
    /// What those scripts use: name and content.
    files: &'static [(&'static str, &'static str)],
    /// Whether Estive's kernel goes into it.
    has_kernel: bool,
}

/// The reference of the demo, and of most tests.
pub const REFERENCE: Recipe = Recipe {
    name: "",
    what: "the reference, a minimal root",
    packages: &[PACKAGES],
    masked: MASKED,
    finish: &[FINISH],
    files: &[],
    has_kernel: false,
};

/// What the sets that ship speak of: OpenMPI with a program for it, PostgreSQL, a kernel and a boot loader.
pub const SETS: Recipe = Recipe {
    name: "sets",
    what: "the root that the template sets are tried on",
    packages: &[
        PACKAGES,
        &[
            "openmpi-bin",
            "openssh-client",
            "postgresql",
            "e2fsprogs",
            "extlinux",
            "initramfs-tools",
        ],
    ],
    masked: MASKED,
    finish: &[MPI_PROGRAMS, OWN_KERNEL, SYSTEMD_LEVELS, FINISH],
    files: &[("mpi-pi.c", include_str!("mpi_pi.c"))],
    has_kernel: true,
};

/// A root with another init system.
pub const OPENRC: Recipe = Recipe {
    name: "openrc",
    what: "a root with OpenRC",
    packages: &[&[
        "sysvinit-core",
        "openrc",
        "iproute2",
        "openssh-server",
        "procps",
        "kmod",
        "netbase",
        "cron",
        "dbus",
    ]],
    masked: &[],
    finish: &[OPENRC_LEVELS, FINISH],
    files: &[],
    has_kernel: false,
};

/// Programs for what the loaders of `root=` start from: encrypted disks, volumes and arrays are made in a guest with
/// this root, and opened by the programs taken from it; a server of NFS and the makers of live CDs run in it on the host,
/// which then need not have them.
pub const LOADERS: Recipe = Recipe {
    name: "loaders",
    what: "a root with programs for disks, live CDs and NFS",
    packages: &[&[
        "cryptsetup-bin",
        "lvm2",
        "mdadm",
        "e2fsprogs",
        "xfsprogs",
        "btrfs-progs",
        "dosfstools",
        "fdisk",
        "kmod",
        "nfs-ganesha",
        "nfs-ganesha-vfs",
        "rpcbind",
        "netbase",
        "squashfs-tools",
        "xorriso",
    ]],
    masked: &[],
    finish: &[MTAB, FINISH],
    files: &[],
    has_kernel: false,
};

/// What the benchmark `work` does in clones: a compiler, PostgreSQL with pgbench, OpenMPI with a ray tracer for it.
pub const WORK: Recipe = Recipe {
    name: "work",
    what: "the root of the benchmark of work",
    packages: &[
        PACKAGES,
        &[
            "gcc",
            "libc6-dev",
            "postgresql",
            "openmpi-bin",
            "openssh-client",
        ],
    ],
    masked: MASKED,
    finish: &[MPI_PROGRAMS, FINISH],
    files: &[("mpi-ray.c", include_str!("mpi_ray.c"))],
    has_kernel: false,
};

const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "systemd",
    "udev",
    "dbus",
    "iproute2",
    "iputils-ping",
    "openssh-server",
    "nginx-light",
    "dbench",
    "iperf3",
    "procps",
    "kmod",
    "netbase",
    "ca-certificates",
    "qemu-guest-agent",
];

/// Units that a clone has no use for, or that make its boot wait: it lives in memory, has one disk that is read-only,
/// its network is set before systemd starts, and there is no screen.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-firstboot.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-timesyncd.service",
    "iperf3.service",
];

/// NFS Ganesha reads there which file systems it can serve.
const MTAB: &str = r#"ln -sf ../proc/self/mounts "$1/etc/mtab""#;

/// Runs when all packages are in, with the root as `$1`. What makes a system itself (host keys, machine-id, its name)
/// goes away: each clone brings its own by its layer.
const FINISH: &str = r#"set -eu
root=$1
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
rm -f "$root"/etc/machine-id "$root"/var/lib/dbus/machine-id "$root"/etc/hostname
mkdir -p "$root"/var/lib/dbus "$root"/etc/ssh/sshd_config.d "$root"/etc/systemd/journald.conf.d
ln -s /etc/machine-id "$root"/var/lib/dbus/machine-id
# '*' and not '!': no password opens it, and a key still does where sshd runs without PAM.
chroot "$root" usermod -p '*' root
printf '%s\n' 'PermitRootLogin prohibit-password' 'PasswordAuthentication no' 'UseDNS no' \
  > "$root"/etc/ssh/sshd_config.d/estive.conf
printf '%s\n' '[Journal]' 'Storage=volatile' 'RuntimeMaxUse=16M' > "$root"/etc/systemd/journald.conf.d/estive.conf
printf '%s\n' '127.0.0.1 localhost' '::1 localhost' > "$root"/etc/hosts
: > "$root"/etc/fstab
: > "$root"/etc/resolv.conf
rm -rf "$root"/var/log/journal "$root"/var/lib/apt/lists "$root"/var/cache/apt "$root"/usr/share/doc "$root"/usr/share/man
mkdir -p "$root"/var/lib/apt/lists/partial "$root"/var/cache/apt/archives/partial
# Newer than /usr: systemd does not rebuild its databases at each first boot.
touch "$root"/etc/.updated "$root"/var/.updated
"#;

/// The recipe's programs for MPI, compiled here against the root's own OpenMPI, so that the root needs no compiler.
const MPI_PROGRAMS: &str = r#"set -eu
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -o APT::Sandbox::User=root download libopenmpi-dev
dpkg-deb -x libopenmpi-dev_*.deb .
for program in "$ESTIVE_RECIPE"/mpi-*.c; do
  cc -O2 -o "$root"/usr/local/bin/"$(basename "$program" .c)" "$program" \
    -I "$(dirname "$(find . -name mpi.h | head -n 1)")" \
    "$(find "$root"/usr/lib -name 'libmpi.so.[0-9]*' | head -n 1)" -lm -Wl,--unresolved-symbols=ignore-in-shared-libs
done
"#;

/// A kernel with its modules, and an initial RAM file system for a machine with virtio disks.
const OWN_KERNEL: &str = r#"set -eu
root=$1
version=$(basename "$(ls -d "$ESTIVE_KERNEL"/boot/vmlinuz-* | tail -n 1)")
version=${version#vmlinuz-}
mkdir -p "$root"/boot "$root"/usr/lib/modules
cp "$ESTIVE_KERNEL"/boot/*-"$version" "$root"/boot/
cp -a "$ESTIVE_KERNEL"/lib/modules/"$version" "$root"/usr/lib/modules/
printf '%s\n' MODULES=list COMPRESS=gzip > "$root"/etc/initramfs-tools/conf.d/estive
printf '%s\n' virtio_pci virtio_blk ext4 >> "$root"/etc/initramfs-tools/modules
chroot "$root" update-initramfs -c -k "$version"
"#;

/// A service of clones alone, in the run level that the set `base-openrc` knows, and one that is there and runs nowhere.
const OPENRC_LEVELS: &str = r#"set -eu
mkdir "$1"/etc/runlevels/clones
chroot "$1" rc-update del cron default
chroot "$1" rc-update add cron clones
chroot "$1" rc-update del dbus default
"#;

/// The same for the set `base-debian`: a unit that a target of clones wants, which the root itself does not have.
const SYSTEMD_LEVELS: &str = r#"set -eu
units=$1/etc/systemd/system
mkdir "$units"/clones.target.wants
printf '%s\n' '[Service]' Type=oneshot RemainAfterExit=yes ExecStart=/bin/true > "$units"/of-clones.service
ln -s ../of-clones.service "$units"/clones.target.wants/
"#;

impl Recipe {
    /// Every package that is asked for.
    pub fn packages(&self) -> Vec<&'static str> {
        self.packages.concat()
    }

    /// Its name in the cache: what it holds decides, but for the packages' versions. `kernel`: the version of Estive's.
    pub fn key(&self, suite: &str, kernel: &str) -> String {
        let mut hash = Sha256::new();
        let packages = self.packages.iter().copied().flatten();
        let texts = packages.chain(self.masked).chain(self.finish).copied();
        let files = self.files.iter().flat_map(|(name, text)| [*name, *text]);
        for text in texts.chain(files).chain(self.has_kernel.then_some(kernel)) {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        let digest: String = hash
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        [suite, self.name, &digest]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("-")
    }

    /// Writes what its scripts use.
    pub fn write_files(&self, directory: &Path) -> std::io::Result<()> {
        for (name, text) in self.files {
            std::fs::write(directory.join(name), text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_a_command_line() {
        for recipe in [&REFERENCE, &SETS, &OPENRC, &LOADERS, &WORK] {
            for name in recipe.packages().iter().chain(recipe.masked) {
                assert!(!name.contains(['\'', '"', ' ', '/', ',']), "{name}");
            }
        }
    }

    #[test]
    fn what_a_root_holds_decides_its_place() {
        let keys = [&REFERENCE, &SETS, &OPENRC].map(|recipe| recipe.key("bookworm", "6.1.0-1"));
        assert!(keys[0].starts_with("bookworm-") && keys[0].len() == 9 + 16);
        assert!(keys[1].starts_with("bookworm-sets-") && keys[2].starts_with("bookworm-openrc-"));
        // Another kernel is another root only where it has one.
        let others = [&REFERENCE, &SETS, &OPENRC].map(|recipe| recipe.key("bookworm", "6.1.0-2"));
        assert_eq!(
            [0, 1, 2].map(|index| keys[index] == others[index]),
            [true, false, true]
        );
    }
}

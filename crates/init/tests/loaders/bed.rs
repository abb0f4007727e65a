//! What the roots of these tests are made from. The machines that boot them: `estive_rig::machine`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use estive_rig::machine::{Guest, Machine};
pub use estive_rig::{from_environment, kernel, run};

/// Runs a shell script in the root that has programs for these tests; `directory` is its `/mnt`.
pub fn in_root_of_programs(directory: &Path, script: &str) -> String {
    let root = from_environment("ESTIVE_LOADERS_ROOT");
    let enter = "mount --bind \"$1\" \"$0\"/mnt; mount --bind /dev \"$0\"/dev; mount -t proc proc \"$0\"/proc; exec chroot \"$0\" sh -ec \"$2\"";
    run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", enter])
        .arg(root)
        .arg(directory)
        .arg(script))
}

/// The static program that is the init of roots made by hand.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| compiled("probe"))
}

/// A static program of this suite, from its source `NAME.rs`. Once for each.
pub fn compiled(name: &str) -> PathBuf {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loaders"));
    let source = directory.join(name).with_extension("rs");
    estive_rig::compiled(&source, Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// A directory to make an image of: with `/etc/layer-NAME`, which says NAME.
pub struct Tree(tempfile::TempDir);

impl Tree {
    pub fn new(name: &str) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        tree.file(&format!("etc/layer-{name}"), name)
    }

    /// With the probe as `/bin/probe`: one layer of each root has it.
    pub fn with_probe(name: &str) -> Tree {
        let tree = Tree::new(name);
        fs::create_dir_all(tree.path().join("bin")).unwrap();
        fs::copy(probe(), tree.path().join("bin/probe")).unwrap();
        tree
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Tree {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// An image of it, made by `mkfs.ext4` with these arguments besides.
    pub fn ext4(&self, image: &Path, size_mib: u64, arguments: &[&str]) {
        let file = File::create(image).unwrap();
        file.set_len(size_mib << 20).unwrap();
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "root_owner=0:0,lazy_itable_init=1", "-d"])
            .arg(self.path())
            .args(arguments)
            .arg(image));
    }

    pub fn erofs(&self, image: &Path, arguments: &[&str]) {
        run(Command::new("mkfs.erofs")
            .arg("-T0")
            .args(arguments)
            .arg(image)
            .arg(self.path()));
    }
}

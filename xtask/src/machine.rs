//! What this machine is: its Debian suite, where programs are, whether we are root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result, file};

/// The Debian suite this machine runs, e.g. `bookworm`.
///
/// Reads `VERSION_CODENAME` of os-release(5); a system that is not Debian is an error, since the packages' names,
/// the kernel and the reference would all be others there.
pub fn suite() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = std::fs::read_to_string(path).map_err(file("reading", path))?;
    suite_of(&text).ok_or_else(|| {
        Failure::Unfit(
            "this machine is not Debian 12 or 13 (ID=debian and VERSION_CODENAME in /etc/os-release), the systems that \
             ./x knows how to prepare"
                .into(),
        )
    })
}

fn suite_of(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_string())
    };
    (field("ID")? == "debian").then(|| field("VERSION_CODENAME"))?
}

/// Where a program is, looking also where ordinary users' PATH does not lead.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
        .into_iter()
        .map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs ourselves again through sudo, with the cache of who we are and the variables that matter to us.
///
/// The terminal is inherited, since sudo may ask for a password; what is printed to standard output is not.
pub fn again_as_root(arguments: &[&str], cache: &Path) -> Result<()> {
    if program("sudo").is_none() {
        return Err(Failure::Unfit(
            "this needs root, and there is no sudo: run ./x as root".into(),
        ));
    }
    let own = std::env::current_exe().map_err(file("finding", Path::new("/proc/self/exe")))?;
    let mut command = Command::new("sudo");
    command
        .arg("env")
        .args(ours().map(|(name, value)| format!("{name}={value}")));
    command
        .arg(format!("ESTIVE_CACHE={}", cache.display()))
        .arg(own)
        .args(arguments);
    let doing = format!("running './x {}' as root", arguments.join(" "));
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|source| Failure::Spawn {
            doing: doing.clone(),
            program: "sudo".into(),
            source,
        })?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Ended {
        doing,
        command: "sudo".into(),
        status,
        tail: "see its message above".into(),
    })
}

/// The variables by which we are told things, which sudo would drop.
fn ours() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(name, _)| {
        name.starts_with("ESTIVE_") || name == "CARGO_TARGET_DIR" || name == "NO_COLOR"
    })
}

/// The repository: `./x` says where, and a bare `cargo run -p xtask` finds it beside its own sources.
pub fn repository() -> PathBuf {
    std::env::var_os("ESTIVE_REPOSITORY")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let own = Path::new(env!("CARGO_MANIFEST_DIR"));
            own.parent().unwrap_or(own).to_path_buf()
        })
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| repository().join("target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suite_is_read_from_os_release_of_debian_only() {
        assert_eq!(
            suite_of("ID=debian\nVERSION_CODENAME=trixie\n").as_deref(),
            Some("trixie")
        );
        assert_eq!(
            suite_of("VERSION_CODENAME=\"bookworm\"\nID=\"debian\"\n").as_deref(),
            Some("bookworm")
        );
        assert_eq!(suite_of("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(suite_of("ID=debian\n"), None);
    }

    #[test]
    fn programs_outside_an_ordinary_path_are_found() {
        assert!(program("sh").is_some());
        assert!(program("a-program-that-nobody-has").is_none());
    }
}

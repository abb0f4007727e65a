//! Making roots from packages, and sealing them: the reference, and what only tests boot. What they hold: `recipe.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::apt_sources::{self, Source};
use crate::cache::Cache;
use crate::failure::{Failure, Result, file};
use crate::kernel::KernelTree;
use crate::progress::{Step, output};
use crate::recipe::Recipe;

/// A root made here and the image of it.
pub struct Reference {
    pub root: PathBuf,
    pub sealed: PathBuf,
}

/// A root in the cache, made the first time. `suite` is the machine's own Debian suite.
pub fn prepare(
    cache: &Cache,
    suite: &str,
    recipe: &Recipe,
    kernel: &KernelTree,
) -> Result<Reference> {
    let wanted = std::env::var("ESTIVE_SUITE")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| suite.to_string());
    if !wanted
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(Failure::Unfit(format!(
            "ESTIVE_SUITE={wanted:?} is not the name of a Debian suite, such as trixie"
        )));
    }
    let key = recipe.key(&wanted, &kernel.version);
    let root = cache.reference(&key);
    if !root.exists() {
        let sources = apt_sources::for_suite(&apt_sources::read()?, suite, &wanted)?;
        let step = Step::begin(format!("making {}, of Debian {wanted}", recipe.what));
        cache.make_whole(&root, |making| {
            debootstrap(&step, &wanted, recipe, &kernel.directory, &sources, making)
        })?;
        step.done(&root.display().to_string());
    }
    let sealed = sealed(&root, &cache.sealed(&key))?;
    Ok(Reference { root, sealed })
}

fn debootstrap(
    step: &Step,
    suite: &str,
    recipe: &Recipe,
    kernel: &Path,
    sources: &[Source],
    making: &Path,
) -> Result<()> {
    let place = "a temporary file of package sources";
    let mut list = tempfile::Builder::new()
        .suffix(".sources")
        .tempfile()
        .map_err(file("making", Path::new(place)))?;
    let stanzas = sources
        .iter()
        .map(Source::stanza)
        .collect::<Vec<_>>()
        .join("\n");
    std::io::Write::write_all(&mut list, stanzas.as_bytes())
        .map_err(file("writing", list.path()))?;
    let files = tempfile::tempdir().map_err(file("making", Path::new("a temporary directory")))?;
    recipe
        .write_files(files.path())
        .map_err(file("writing into", files.path()))?;
    let mask = recipe.masked.iter().fold(
        "mkdir -p \"$1\"/etc/systemd/system".to_string(),
        |hook, unit| format!("{hook}; ln -sf /dev/null \"$1\"/etc/systemd/system/{unit}"),
    );
    // With us dies unshare, with it the first process of its namespace, and with that one every process and mount in it.
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.arg("mmdebstrap");
    command.args([
        "--variant=minbase",
        "--mode=root",
        "--aptopt=APT::Sandbox::User \"root\"",
    ]);
    command.args(proxies()?.iter().map(|option| format!("--aptopt={option}")));
    command.arg(format!("--include={}", recipe.packages().join(",")));
    let hooks = [mask.as_str()]
        .into_iter()
        .chain(recipe.finish.iter().copied());
    command.args(hooks.map(|hook| format!("--customize-hook={hook}")));
    command
        .env("ESTIVE_RECIPE", files.path())
        .env("ESTIVE_KERNEL", kernel);
    command.arg(suite).arg(making).arg(list.path());
    step.run(&mut command).map(|_| ())
}

/// The machine's own way to its mirrors, which mmdebstrap does not take over by itself.
fn proxies() -> Result<Vec<String>> {
    let dumped = output(
        "reading apt's configuration",
        Command::new("apt-config").arg("dump"),
    )?;
    Ok(dumped
        .lines()
        .filter(|line| line.starts_with("Acquire::http") && line.contains("::Proxy \""))
        .map(String::from)
        .collect())
}

/// Raised when sealing gives other bytes for the same root, so that images in the cache are made anew.
const MAKER: u32 = 2;

/// What `sealed.json` says beside an image.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    maker: u32,
    digest: String,
    file: String,
    size_bytes: u64,
}

/// The image of a root in `directory`, made when it is not there yet.
fn sealed(root: &Path, directory: &Path) -> Result<PathBuf> {
    let place = directory.join("sealed.json");
    let known = fs::read(&place)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    if let Some(record) = known {
        let path = directory.join(&record.file);
        if record.maker == MAKER
            && path
                .metadata()
                .is_ok_and(|metadata| metadata.len() == record.size_bytes)
            && estive_exports::seal::manifest_path(&path).is_file()
        {
            return Ok(path);
        }
    }
    let step = Step::begin(format!("sealing {}", root.display()));
    // Nobody changes it: nothing is gained by a snapshot.
    let options = estive_exports::SealOptions {
        no_snapshot: true,
        ..estive_exports::SealOptions::default()
    };
    let sealed =
        estive_exports::seal_with(root, directory, &options).map_err(|source| Failure::Seal {
            root: root.to_path_buf(),
            source: Box::new(source),
        })?;
    let record = Record {
        maker: MAKER,
        digest: sealed.digest.clone(),
        file: sealed
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        size_bytes: sealed.size_bytes,
    };
    let text = serde_json::to_vec_pretty(&record).map_err(|source| Failure::Json {
        what: "the seal".into(),
        source,
    })?;
    let half = directory.join("sealed.json.new");
    fs::write(&half, text).map_err(file("writing", &half))?;
    fs::rename(&half, &place).map_err(file("putting in place", &place))?;
    step.done(&format!(
        "{}, {} MiB",
        &sealed.digest,
        sealed.size_bytes >> 20
    ));
    Ok(sealed.path)
}
